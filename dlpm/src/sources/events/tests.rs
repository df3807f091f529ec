use std::path::PathBuf;

use super::*;

fn named(name: &str) -> EventName {
    name.parse().unwrap()
}

/// A sysfs with one PMU.
fn tree(format: &str, terms: &str) -> (tempfile::TempDir, PathBuf) {
    let sysfs = tempfile::TempDir::new().unwrap();
    let pmu = sysfs.path().join("bus/event_source/devices/pmu");
    for directory in ["events", "format"] {
        fs::create_dir_all(pmu.join(directory)).unwrap();
    }
    fs::write(pmu.join("type"), "12\n").unwrap();
    fs::write(pmu.join("events/thing"), terms).unwrap();
    fs::write(pmu.join("format/event"), format).unwrap();
    fs::write(pmu.join("format/umask"), "config:8-15\n").unwrap();
    (sysfs, pmu)
}

#[test]
fn names_are_those_of_perf() {
    assert_eq!(named("cycles").kind(), &Kind::Hardware(0));
    assert_eq!(named("cache-misses").kind(), &Kind::Hardware(3));
    assert_eq!(named("page-faults").kind(), &Kind::Software(2));
    assert_eq!(named("rf0c7").kind(), &Kind::Raw(0xf0c7));
    assert_eq!(named("msr/tsc/").to_string(), "msr/tsc/");
    for wrong in [
        "",
        "cycle",
        "r",
        "rxyz",
        "msr/tsc",
        "../tsc/",
        "msr/../",
        "a//",
        "a/b/c/",
        "msr/t sc/",
    ] {
        let message = wrong.parse::<EventName>().unwrap_err();
        assert!(message.contains("perf list"), "{wrong}: {message}");
    }
    assert_eq!(EventName::defaults().len(), DEFAULT.split(',').count());
}

#[test]
fn terms_are_placed_by_the_format() {
    let (_sysfs, pmu) = tree("config:0-7,32-35", "event=0x5a3,umask=0x0F\n");
    // The upper bits of the event lie at 32.
    assert_eq!(
        of_pmu(&pmu, "thing").unwrap(),
        Event {
            pmu: 12,
            config: 0x5_0000_0fa3
        }
    );
}

#[test]
fn terms_that_make_no_sense_are_refused() {
    for (format, terms) in [
        ("config:0-7", "event=0x100"),
        ("config:0-7", "event=many"),
        ("config:0-7", "../x=1"),
        ("config:9-2", "event=1"),
        ("config:0-99", "event=1"),
        ("config1:0-7", "event=1"),
        ("config:0-7", "other=1"),
    ] {
        let (_sysfs, pmu) = tree(format, terms);
        assert!(of_pmu(&pmu, "thing").is_err(), "{format} {terms}");
    }
}

#[test]
fn hybrid_cores_have_a_pmu_each() {
    let atom = CoreKind { pmu: 10, cpus: vec![4] };
    let (hardware, raw, software) = (
        Event {
            pmu: HARDWARE,
            config: 1,
        },
        Event {
            pmu: RAW,
            config: 0xf0c7,
        },
        Event {
            pmu: SOFTWARE,
            config: 2,
        },
    );
    assert_eq!(
        atom.of_this_kind(hardware),
        Event {
            pmu: HARDWARE,
            config: 0xa_0000_0001
        }
    );
    assert_eq!(
        atom.of_this_kind(raw),
        Event {
            pmu: 10,
            config: 0xf0c7
        }
    );
    assert_eq!(atom.of_this_kind(software), software);
}

#[test]
fn an_event_that_is_not_there_is_left_out_with_the_reason() {
    let (sysfs, _) = tree("config:0-7", "event=1");
    let online = sysfs.path().join("devices/system/cpu");
    fs::create_dir_all(&online).unwrap();
    fs::write(online.join("online"), "0\n").unwrap();
    let opened = open(sysfs.path(), &[named("nothing/thing/"), named("page-faults")]);
    assert_eq!(opened.missing.len() + opened.events.len(), 2);
    assert!(opened.missing[0].1.contains("cannot be read"), "{:?}", opened.missing);
    assert!(!opened.is_hybrid);
}
