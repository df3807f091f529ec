//! Zones of single cores in the place of a package's meter.

use super::{super::testing::*, *};

/// Two cores, of which the kernel's software clock counts 1 W each, in a package of powercap.
fn tree() -> Tree {
    ryzen()
        .cores(&[(0, 4, "0"), (1, 5, "1")])
        .core_pmu(SOFTWARE_PMU, "0-1")
        .pmu(SOFTWARE_PMU, "0", &[("energy-pkg", 0)])
}

fn zones(readings: &[ZoneReading]) -> Vec<String> {
    let named = |reading: &ZoneReading| match &reading.energy_uj {
        Ok(_) => format!("{} {}", reading.zone, reading.source.as_str()),
        Err(reason) => format!("{}: {reason}", reading.zone),
    };
    readings.iter().map(named).collect()
}

fn cpu(cpu: u32, core: u32, busy_ns: u64) -> CpuInterval {
    CpuInterval {
        cpu,
        package: Some(0),
        core: Some(core),
        end_ns: SECOND,
        busy_ns,
        idle_ns: SECOND.saturating_sub(busy_ns),
        ..CpuInterval::default()
    }
}

#[test]
fn cores_stand_beside_the_package_of_powercap() {
    if !perf_allowed() {
        return;
    }
    let tree = tree();
    let _moving = tree.moving(&["intel-rapl:0", "intel-rapl:0:0"]);
    let topology = Topology::read(tree.path());
    let mut found = find_meter(tree.path(), EnergySource::Auto, None, &topology).unwrap();
    assert_eq!(
        found.choice,
        "energy is measured: the kernel's powercap zones, and each core by the event power_core/energy-core"
    );
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    assert_eq!(found.meter.core_of(1, &topology), Some(5));
    let counter = || std::fs::read_to_string(tree.class("intel-rapl:0").join("energy_uj")).unwrap();
    let before = counter();
    while counter() == before {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let mut readings = found.meter.take(monotonic_ns());
    let cpus = [cpu(0, 4, SECOND), cpu(1, 5, 0)];
    found.meter.judge(&mut readings, 0, SECOND, &cpus, &topology);
    let mut names = zones(&readings);
    names.sort();
    // The register that powercap has of one core is one of these.
    assert_eq!(
        names,
        ["package-0 powercap", "package-0/core-4 perf", "package-0/core-5 perf"]
    );
    // A core that came online later.
    let mut readings = found.meter.take(monotonic_ns());
    let cpus = [cpu(0, 4, SECOND), cpu(1, 5, 0), cpu(2, 6, 0)];
    found.meter.judge(&mut readings, 0, SECOND, &cpus, &topology);
    let later = readings
        .iter()
        .find(|reading| reading.zone == "package-0/core-6")
        .unwrap();
    assert!(
        later.energy_uj.as_ref().unwrap_err().contains("CPU 2 came online"),
        "{later:?}"
    );
    // A source that is named is the only one.
    let alone = find_meter(tree.path(), EnergySource::Powercap, None, &topology).unwrap();
    assert_eq!(alone.meter.core_of(1, &topology), None);
}

#[test]
fn a_core_that_counts_nothing_while_it_is_busy_is_not_believed_and_one_that_is_offline_not_missed() {
    if !perf_allowed() {
        return;
    }
    let tree = tree();
    tree.file(
        "bus/event_source/devices/power_core/events/energy-core",
        &format!("event={DUMMY:#04x}"),
    );
    let _moving = tree.moving(&["intel-rapl:0"]);
    let topology = Topology::read(tree.path());
    let mut meter = find_meter(tree.path(), EnergySource::Auto, None, &topology)
        .unwrap()
        .meter;
    let mut take = |cpus: &[CpuInterval]| {
        let mut readings = meter.take(monotonic_ns());
        meter.judge(&mut readings, 0, SECOND, cpus, &topology);
        zones(&readings)
            .into_iter()
            .filter(|zone| zone.contains("/core-"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        take(&[cpu(0, 4, SECOND), cpu(1, 5, 0)]),
        [
            "package-0/core-4: it counted nothing while its CPUs were busy, so it does not measure",
            "package-0/core-5 perf"
        ],
        "a core that rests is believed"
    );
    assert_eq!(take(&[cpu(1, 5, 0)]), ["package-0/core-5 perf"]);
}

#[test]
fn cores_have_the_number_of_the_package_that_contains_them() {
    if !perf_allowed() {
        return;
    }
    // The CPUs call their package 3, the only zone is package-0.
    let tree = tree().cpus(&[(0, 3, 0), (1, 3, 0)]).cores(&[(0, 4, "0"), (1, 5, "1")]);
    let _moving = tree.moving(&["intel-rapl:0"]);
    let topology = Topology::read(tree.path());
    let mut meter = find_meter(tree.path(), EnergySource::Auto, None, &topology)
        .unwrap()
        .meter;
    assert_eq!(meter.core_of(0, &topology), Some(4));
    let mut names = zones(&meter.take(monotonic_ns()));
    names.sort();
    assert_eq!(
        names,
        ["package-0 powercap", "package-0/core-4 perf", "package-0/core-5 perf"]
    );
}
