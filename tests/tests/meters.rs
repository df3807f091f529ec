//! Meters that are there and do not measure, sources that have nothing to split, and packages whose numbers do not match:
//! through the whole program.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::{fs, path::Path};

use dlpm_tests::{
    command::{Dlpm, Output},
    cpus,
    kernel::skip,
    log::{Log, Sample, number},
    powercap::{LARGE_RANGE_UJ, Powercap, Zone, node},
    require_dlpm, worker,
};

/// A zone that moves.
fn zone(id: &'static str, name: &'static str) -> Zone {
    Zone {
        id,
        name,
        own_mw: 30_000,
        contains: &[],
        range_uj: LARGE_RANGE_UJ,
    }
}

/// Adds a zone whose counter stands still.
fn add_dead(tree: &Powercap, id: &str, name: &str) {
    let directory = tree.directory(id);
    fs::create_dir(&directory).unwrap();
    for (file, content) in [
        ("name", name),
        ("max_energy_range_uj", "262143328850"),
        ("energy_uj", "123456789"),
    ] {
        fs::write(directory.join(file), format!("{content}\n")).unwrap();
    }
}

/// Adds the PMU `power` with an event of the kernel's own that counts nothing (`PERF_COUNT_SW_DUMMY`).
fn add_dead_psys_event(tree: &Powercap) {
    let pmu = Path::new(tree.sysfs()).join("bus/event_source/devices/power");
    fs::create_dir_all(pmu.join("events")).unwrap();
    for (file, content) in [
        ("type", "1"),
        ("cpumask", "0"),
        ("events/energy-psys", "event=0x09"),
        ("events/energy-psys.unit", "Joules"),
        ("events/energy-psys.scale", "2.3283064365386962890625e-10"),
    ] {
        fs::write(pmu.join(file), format!("{content}\n")).unwrap();
    }
}

/// Says which package each CPU is in; `None` takes their topology away.
fn set_packages(tree: &Powercap, package_of: impl Fn(u32) -> Option<u32>) {
    let root = Path::new(tree.sysfs()).join("devices/system/cpu");
    for cpu in cpus::online() {
        let directory = root.join(format!("cpu{cpu}"));
        fs::remove_file(&directory).unwrap();
        if let Some(package) = package_of(cpu) {
            fs::create_dir_all(directory.join("topology")).unwrap();
            fs::write(directory.join("topology/physical_package_id"), format!("{package}\n")).unwrap();
            fs::write(directory.join("topology/thread_siblings_list"), format!("{cpu}\n")).unwrap();
        }
    }
}

/// A trace of a second beside a process that is busy on CPU 0: what it said, and its log, which `dlpm verify` believes.
fn trace(tree: &Powercap, arguments: &[&str]) -> (Output, Log) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("log");
    let mut spinner = worker!("spin", 0);
    spinner.go();
    let output = Dlpm::trace(&folder)
        .args(["--duration", "1s", "--sysfs"])
        .arg(tree.sysfs())
        .args(arguments)
        .run()
        .exited(0);
    let log = Log::read(&folder);
    log.is_complete();
    Dlpm::new(["verify"]).arg(&folder).run().exited(0);
    (output, log)
}

fn doctor(tree: &Powercap) -> String {
    Dlpm::new(["doctor", "--sysfs"])
        .arg(tree.sysfs())
        .run()
        .exited(0)
        .stdout
}

/// The only state of a zone in a log, and the reason for it.
fn state(log: &Log, name: &str) -> (String, String) {
    let states: Vec<_> = log
        .samples
        .iter()
        .map(|sample| {
            let zone = sample.zone(name).unwrap_or_else(|| panic!("no {name}"));
            let text = |key: &str| zone[key].as_str().unwrap_or_default().to_owned();
            (text("state"), text("reason"))
        })
        .collect();
    assert!(
        states.windows(2).all(|pair| pair[0].0 == pair[1].0),
        "{name}: {states:?}"
    );
    states[0].clone()
}

fn is_measured(log: &Log, name: &str) {
    assert_eq!(state(log, name).0, "ok", "{name}");
}

fn is_silent(log: &Log, name: &str) {
    let (state, reason) = state(log, name);
    assert!(
        state == "invalid" && reason.contains("counted nothing while its CPUs were busy"),
        "{name}: {reason}"
    );
}

fn uj(sample: &Sample, row: &str, leaf: &str) -> u64 {
    let rows = sample.rows().iter().filter(|one| one["row"] == row);
    rows.map(|one| number(&one["energy_uj"][leaf])).sum()
}

/// What the README begins with, on a machine whose kernel has an event of the platform that always reads 0, and on one
/// without any meter.
#[test]
fn the_first_command_of_the_readme_prints_joules_that_are_labelled() {
    require_dlpm!();
    for dead in [true, false] {
        let tree = Powercap::start(Vec::new());
        if dead {
            add_dead_psys_event(&tree);
        }
        let folder = tempfile::tempdir().unwrap();
        let output = Dlpm::new(["trace", "--estimate", "idle=40,busy=12", "--output", "run1", "--sysfs"])
            .arg(tree.sysfs())
            .args([
                "--",
                "sh",
                "-c",
                "for i in 1 2 3; do head -c 3M /dev/urandom | gzip -1 | sha256sum; done",
            ])
            .inside(folder.path())
            .run()
            .exited(0)
            .says(&["used an estimated ", "every figure of energy is an estimate"]);
        assert!(
            !output.stderr.lines().any(|line| line.starts_with("psys ")),
            "{}",
            output.stderr
        );
        assert_eq!(
            output.stderr.contains("psys (perf): it counted nothing"),
            dead,
            "{}",
            output.stderr
        );
        let log = Log::read(&folder.path().join("run1"));
        log.is_complete();
        for sample in &log.samples {
            let names: Vec<&str> = sample
                .zones()
                .iter()
                .map(|zone| zone["zone"].as_str().unwrap())
                .collect();
            assert_eq!(names, ["machine", "machine/rest"]);
        }
        assert!(log.energy_uj("process") > 0);
        assert_eq!(log.metadata["dlpm"]["notes"].to_string().contains("psys (perf)"), dead);
        let doctor = doctor(&tree);
        assert_eq!(
            doctor.contains("found; counting: nothing; can be split: nothing; not believed: psys"),
            dead,
            "{doctor}"
        );
        assert!(doctor.contains("used here with `--estimate idle=W,busy=W`"), "{doctor}");
    }
}

#[test]
fn a_dead_package_is_not_believed_and_the_estimate_takes_over() {
    require_dlpm!();
    let tree = Powercap::start(vec![zone("intel-rapl:1", "psys")]);
    add_dead(&tree, "intel-rapl:0", "package-0");
    let (_, log) = trace(&tree, &["--estimate", "idle=40,busy=12"]);
    is_measured(&log, "psys");
    is_measured(&log, "machine");
    assert!(log.energy_uj("process") > 0);
    // Without an estimate there is nothing to split, and that is said.
    let (output, log) = trace(&tree, &[]);
    output.says(&["package-0 (powercap): it counted nothing", "--estimate idle=W,busy=W"]);
    is_silent(&log, "package-0");
    is_silent(&log, "package-0/rest");
    is_measured(&log, "psys");
    assert!(doctor(&tree).contains("missing  energy powercap zone   package-0: it counted nothing"));
}

#[test]
fn one_dead_socket_a_dead_twin_and_dead_parts() {
    require_dlpm!();
    let tree = Powercap::start(vec![zone("intel-rapl:0", "package-0")]);
    add_dead(&tree, "intel-rapl:1", "package-1");
    let (_, log) = trace(&tree, &["--estimate", "idle=40,busy=12"]);
    is_measured(&log, "package-0");
    is_silent(&log, "package-1");

    let tree = Powercap::start(vec![zone("intel-rapl-mmio:0", "package-0")]);
    add_dead(&tree, "intel-rapl:0", "package-0");
    let (output, log) = trace(&tree, &["--energy-source", "powercap"]);
    output.says(&["intel-rapl-mmio:0 has the same name and is read in its place"]);
    is_measured(&log, "package-0");

    let tree = Powercap::start(vec![zone("intel-rapl:0", "package-0")]);
    add_dead(&tree, "intel-rapl:0:0", "core");
    add_dead(&tree, "intel-rapl:0:2", "dram");
    let (_, log) = trace(&tree, &[]);
    is_measured(&log, "package-0");
    is_silent(&log, "package-0/core");
    is_silent(&log, "dram-0");
}

#[test]
fn a_zone_that_stops_during_the_trace_is_not_believed_any_more() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("log");
    let mut tree = Powercap::start(node());
    let mut spinner = worker!("spin", 0);
    spinner.go();
    let mut dlpm = Dlpm::trace(&folder).args(["--sysfs"]).arg(tree.sysfs()).start();
    dlpm.wait_for_lines(&folder, 3);
    tree.stop();
    dlpm.wait_for_message("it counted nothing while its CPUs were busy");
    dlpm.end_with(libc::SIGTERM).exited(0);
    let log = Log::read(&folder);
    log.is_complete();
    for name in ["package-0", "package-0/core", "dram-0", "psys"] {
        let states: Vec<_> = log
            .samples
            .iter()
            .map(|sample| sample.zone(name).unwrap()["state"].clone())
            .collect();
        assert_eq!(
            (&states[0], &states[states.len() - 1]),
            (&"ok".into(), &"invalid".into()),
            "{name}"
        );
    }
    Dlpm::new(["verify"]).arg(&folder).run().exited(0);
}

#[test]
fn calibrate_refuses_what_counts_nothing() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("floor.json");
    let calibrate = |tree: &Powercap| {
        Dlpm::new([
            "calibrate",
            "--duration",
            "1s",
            "--max-busy",
            "100",
            "--gpu",
            "none",
            "--output",
        ])
        .arg(&output)
        .arg("--sysfs")
        .arg(tree.sysfs())
        .run()
    };
    let tree = Powercap::start(vec![zone("intel-rapl:1", "psys")]);
    add_dead(&tree, "intel-rapl:0", "package-0");
    calibrate(&tree)
        .exited(1)
        .says(&["package-0 is not measured", "it counted nothing", "dlpm doctor"]);
    let mut stopped = Powercap::start(vec![
        zone("intel-rapl:0", "package-0"),
        zone("intel-rapl:1", "package-1"),
    ]);
    stopped.stop();
    calibrate(&stopped).exited(1).says(&["package-0 is not measured"]);
    let tree = Powercap::start(vec![zone("intel-rapl:0", "package-0")]);
    add_dead(&tree, "intel-rapl:1", "package-1");
    calibrate(&tree).exited(1).says(&["package-1 is not measured"]);
    assert!(!output.exists());
    // A dead platform's zone and a package without memory modules are not a reason: they have no floor.
    let tree = Powercap::start(vec![zone("intel-rapl:0", "package-0")]);
    add_dead(&tree, "intel-rapl:0:0", "dram");
    add_dead(&tree, "intel-rapl:1", "psys");
    calibrate(&tree).exited(0);
    let floors: serde_json::Value = serde_json::from_slice(&fs::read(&output).unwrap()).unwrap();
    let floors = floors.to_string();
    assert!(
        floors.contains("package-0") && !floors.contains("dram-0") && !floors.contains("psys"),
        "{floors}"
    );
}

/// What the log, the terminal and doctor say of packages that do not match.
fn says_everywhere(tree: &Powercap, output: Output, log: &Log, sentence: &str) {
    let summary = output.stdout.clone();
    output.says(&[sentence]);
    assert!(summary.contains(sentence), "{summary}");
    let notes = log.metadata["dlpm"]["notes"].to_string();
    assert!(notes.contains(sentence), "{notes}");
    let doctor = doctor(tree);
    assert!(doctor.contains(sentence), "{doctor}");
}

#[test]
fn the_only_package_zone_belongs_to_all_cpus_whatever_its_number() {
    require_dlpm!();
    for (name, without_topology, sentence) in [
        (
            "package-1",
            false,
            "and the CPUs call theirs 0: they are taken to be the same",
        ),
        ("package-7", true, "is taken for that of all CPUs"),
        ("package-0", true, "is taken for that of all CPUs"),
    ] {
        let tree = Powercap::start(vec![zone("intel-rapl:0", name)]);
        set_packages(&tree, |_| (!without_topology).then_some(0));
        let (output, log) = trace(&tree, &[]);
        let leaf = format!("{name}/rest");
        for sample in &log.samples {
            assert_eq!(uj(sample, "idle", &leaf) + uj(sample, "unattributed", &leaf), 0);
        }
        assert!(
            log.samples
                .iter()
                .map(|sample| uj(sample, "process", &leaf))
                .sum::<u64>()
                > 0
        );
        says_everywhere(&tree, output, &log, sentence);
    }
}

#[test]
fn the_energy_of_packages_without_known_cpus_is_unattributed() {
    require_dlpm!();
    let names: Vec<(String, String)> = (0..16)
        .map(|package| (format!("intel-rapl:{package:x}"), format!("package-{package}")))
        .collect();
    let zones = |wanted: &[usize]| -> Vec<Zone> {
        let leak = |text: &String| -> &'static str { Box::leak(text.clone().into_boxed_str()) };
        wanted
            .iter()
            .map(|&at| zone(leak(&names[at].0), leak(&names[at].1)))
            .collect()
    };
    let all: Vec<usize> = (0..16).collect();
    for (wanted, topology, foreign, sentence) in [
        (&all[..], Some(0), 15, "no CPU says that it is in package-1, package-2"),
        (&[0, 1], Some(0), 1, "no CPU says that it is in package-1: "),
        (&[2, 3], Some(0), 3, "no CPU says that it is in package-2, package-3: "),
        (&[0, 1], None, 1, "it is not known which package"),
    ] {
        let tree = Powercap::start(zones(wanted));
        set_packages(&tree, |_| topology);
        let (output, log) = trace(&tree, &[]);
        let leaf = format!("package-{foreign}/rest");
        for sample in &log.samples {
            assert_eq!(
                uj(sample, "idle", &leaf) + uj(sample, "process", &leaf),
                0,
                "{sentence}"
            );
            assert_eq!(
                uj(sample, "unattributed", &leaf),
                number(&sample.zone(&leaf).unwrap()["energy_uj"])
            );
        }
        says_everywhere(&tree, output, &log, sentence);
    }
}

#[test]
fn cpus_of_a_package_without_a_zone_have_unknown_energy() {
    require_dlpm!();
    if !cpus::online().starts_with(&[0, 1]) {
        return skip("CPUs 0 and 1 are not both online");
    }
    let tree = Powercap::start(vec![zone("intel-rapl:0", "package-0"), zone("intel-rapl:1", "psys")]);
    set_packages(&tree, |cpu| Some(u32::from(cpu != 0)));
    let (output, log) = trace(&tree, &[]);
    is_measured(&log, "package-0");
    let (state, reason) = state(&log, "package-1");
    assert_eq!(state, "invalid");
    assert!(reason.contains("in package 1, which has no energy zone"), "{reason}");
    says_everywhere(&tree, output, &log, "in package 1, which has no energy zone");
}
