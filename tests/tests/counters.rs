//! Perf events that are counted at the context switch. Software events and the time stamp counter stand for the counters of
//! a processor, which this machine may lack.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{fs, path::Path, time::Duration};

use dlpm::{
    interval::{Counts, Usage},
    sources::{
        cpu_time::{Config, MapSizes},
        events::{self, EventName},
    },
};
use dlpm_tests::{
    command::Dlpm,
    cpus::{self, Hotplug},
    kernel::skip,
    known_law::{Law, Metered},
    log::{Log, Sample, number},
    powercap::{self, Powercap},
    require_dlpm, require_kernel,
    trace::Trace,
    worker,
};
use serde_json::Value;

/// Pages that the worker touches in a round.
const PAGES: u64 = 5_000;

/// Counts these events.
fn counting(names: &[&str]) -> Config {
    let names: Vec<EventName> = names.iter().map(|name| name.parse().unwrap()).collect();
    let opened = events::open(Path::new("/sys"), &names);
    assert_eq!(opened.missing, []);
    Config {
        events: opened.events,
        ..Config::default()
    }
}

fn sum(usage: impl Iterator<Item = Usage>, event: usize) -> u64 {
    usage.map(|usage| usage.counts.0[event]).sum()
}

#[test]
fn every_count_is_somebodys() {
    require_kernel!();
    let config = counting(&["page-faults", "context-switches", "cpu-clock", "task-clock"]);
    let mut storm = worker!("storm", 300, "storm");
    let mut touch = worker!("touch", PAGES, 3);
    let mut trace = Trace::start(&config);
    trace.while_working(&mut storm, Duration::from_millis(20));
    trace.while_working(&mut touch, Duration::from_millis(20));
    // The laws were checked in each interval. All faults are those of the worker, and it had no others.
    let faults = sum(trace.usage_of(touch.pid()).copied(), 0);
    assert!(
        (3 * PAGES..3 * PAGES + 200).contains(&faults),
        "{faults} of {}",
        3 * PAGES
    );
    // The kernel's clock runs while a task is on its CPU, as dlpm's does.
    let counted_ns = sum(trace.usage().copied(), 2);
    let used_ns: u64 = trace.usage().map(|usage| usage.ns).sum();
    assert!(
        counted_ns.abs_diff(used_ns) < used_ns / 20,
        "{counted_ns} and {used_ns} ns"
    );
}

#[test]
fn counts_without_room_are_spilled_or_lost_and_add_up() {
    require_kernel!();
    for spill in [65_536, 2] {
        let config = Config {
            sizes: MapSizes {
                slots_log2: 0,
                spill,
                ..MapSizes::default()
            },
            ..counting(&["page-faults", "cpu-clock"])
        };
        let mut storm = worker!("storm", 200, "storm");
        let mut trace = Trace::start(&config);
        trace.while_working(&mut storm, Duration::from_millis(20));
        let lost = trace.intervals.iter().flat_map(|drained| &drained.cpus);
        let lost: u64 = lost.map(|cpu| cpu.counts.unwrap().lost.0[0]).sum();
        assert_eq!(lost > 0, spill == 2, "{lost} faults were lost with {spill} entries");
    }
}

#[test]
fn without_events_nothing_is_counted() {
    require_kernel!();
    let mut trace = Trace::start(&Config::default());
    trace.steps(3, Duration::from_millis(10));
    assert!(trace.usage().all(|usage| usage.counts == Counts::default()));
    let mut cpus = trace.intervals.iter().flat_map(|drained| &drained.cpus);
    assert!(cpus.all(|cpu| cpu.counts.is_none()));
}

#[test]
fn a_cpu_that_comes_back_says_that_its_counts_are_not_whole() {
    require_kernel!();
    let online = cpus::online();
    let hotplug = match online.last().map(|last| Hotplug::of(*last)) {
        Some(Ok(hotplug)) if online.len() > 1 => hotplug,
        Some(Err(reason)) => return skip(&reason),
        _ => return skip("there is only one CPU"),
    };
    let last = online[online.len() - 1];
    let mut trace = Trace::start(&counting(&["page-faults", "cpu-clock"]));
    trace.with_gaps = true;
    trace.steps(3, Duration::from_millis(10));
    hotplug.take_offline();
    trace.steps(3, Duration::from_millis(10));
    hotplug.bring_back();
    let mut worker = worker!("burst", last, 2_000, 1_000);
    worker.go();
    trace.steps(20, Duration::from_millis(10));
    let of_last = |drained: &dlpm::sources::cpu_time::Drained| drained.cpus.iter().find(|cpu| cpu.cpu == last).copied();
    let before = of_last(&trace.intervals[0]).unwrap().counts.unwrap();
    assert_eq!(before.failed, 0);
    // The kernel ends the events of a CPU that goes; whatever it does, no count is made up, and the laws hold.
    let after: Vec<_> = trace.intervals[6..].iter().filter_map(of_last).collect();
    assert!(after.iter().any(|cpu| cpu.counts.unwrap().failed > 0), "{after:?}");
}

/// Weights of a fault alone, beside a calibration that is not there.
fn weights(folder: &Path, events: &[&str], fj_per_fault: u64) -> std::path::PathBuf {
    let calibration = folder.join("calibration.json");
    let weights = serde_json::json!({
        "format": 1, "machine_id": null, "cpu_model": null, "date": "2026-01-01",
        "events": events, "fj_per_event": [fj_per_fault], "fj_per_ns": 0, "idle_mw": {"package-0": 1},
        "fitted_runs": 6, "held_out_runs": 3, "held_out_error_permille": 10,
    });
    fs::write(folder.join("weights.json"), weights.to_string()).unwrap();
    calibration
}

#[test]
fn energy_goes_by_what_was_counted_once_it_is_known_what_that_weighs() {
    require_dlpm!();
    // A package of 90 W, of which the weights explain next to nothing.
    let meters = Powercap::start(powercap::node());
    let folder = tempfile::tempdir().unwrap();
    let calibration = weights(folder.path(), &["page-faults"], 1_000_000);
    let mut spinner = worker!("spin", 0);
    let mut toucher = worker!("touch", PAGES, 1_000_000);
    spinner.go();
    toucher.go();
    let run = folder.path().join("run");
    Dlpm::new([
        "trace",
        "--counters=page-faults,cycles",
        "--interval",
        "200ms",
        "--duration",
        "2s",
    ])
    .args([
        "--output",
        run.to_str().unwrap(),
        "--sysfs",
        meters.sysfs().to_str().unwrap(),
    ])
    .args(["--calibration", calibration.to_str().unwrap()])
    .run()
    .exited(0)
    .says(&["page-faults"]);
    Dlpm::new(["verify"]).arg(&run).run().exited(0);
    let log = Log::read(&run);
    log.is_complete();
    let has_cycles = log.samples[0].exact["counters"]["events"] == serde_json::json!(["page-faults", "cycles"]);
    let method = |sample: &Sample| sample.zone("package-0/rest").unwrap()["method"].clone();
    if has_cycles {
        // Where the processor counts, these are not the events that the weights are of.
        assert!(log.samples.iter().all(|sample| method(sample) == "cpu_time"));
        return;
    }
    // By counters, until it is plain that the model is far from the meter.
    let methods: Vec<_> = log.samples.iter().map(method).collect();
    assert!(methods.len() > 4, "{methods:?}");
    assert_eq!(methods[0], "counters", "{methods:?}");
    assert_eq!(methods[methods.len() - 1], "cpu_time", "{methods:?}");
    let (mut by_counters, mut by_time) = ([0; 2], [0; 2]);
    for (sample, method) in log.samples.iter().zip(&methods) {
        let model = &sample.zone("package-0").unwrap()["model"];
        let sums = if *method == "counters" {
            assert!(model["unused"].is_null(), "{model}");
            &mut by_counters
        } else {
            assert!(model["unused"].as_str().unwrap().contains("from the meter"), "{model}");
            &mut by_time
        };
        for (sum, worker) in sums.iter_mut().zip([&toucher, &spinner]) {
            let rows = sample.rows().iter().filter(|row| row["tgid"] == worker.pid());
            *sum += rows.map(|row| number(&row["energy_uj"]["package-0/rest"])).sum::<u64>();
        }
    }
    assert!(by_counters[0] > 20 * by_counters[1], "{by_counters:?}");
    assert!(by_time[1] > 0, "{by_time:?}");
}

/// A tree in which each CPU is a package, whose meter counts its page faults: 100 µJ each.
fn joules_by_faults() -> Powercap {
    let tree = Powercap::start(Vec::new());
    let root = tree.sysfs().to_path_buf();
    let write = |path: &Path, content: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{content}\n")).unwrap();
    };
    let online: Vec<String> = cpus::online().iter().map(u32::to_string).collect();
    for cpu in &online {
        let directory = root.join(format!("devices/system/cpu/cpu{cpu}"));
        fs::remove_file(&directory).unwrap();
        write(&directory.join("topology/physical_package_id"), cpu);
        write(&directory.join("topology/core_id"), "0");
        write(&directory.join("topology/thread_siblings_list"), cpu);
    }
    let pmu = root.join("bus/event_source/devices/power");
    write(&pmu.join("type"), "1");
    write(&pmu.join("cpumask"), &online.join(","));
    // `PERF_COUNT_SW_PAGE_FAULTS`
    write(&pmu.join("events/energy-pkg"), "event=0x02");
    write(&pmu.join("events/energy-pkg.unit"), "Joules");
    write(&pmu.join("events/energy-pkg.scale"), "1e-4");
    tree
}

#[test]
fn where_joules_follow_an_event_counters_are_right_and_time_is_not() {
    require_dlpm!();
    const FAULT_UJ: u64 = 100;
    let tree = joules_by_faults();
    let folder = tempfile::tempdir().unwrap();
    let calibration = weights(folder.path(), &["page-faults"], FAULT_UJ * 1_000_000_000);
    // Both on CPU 0, for half of its time each.
    let mut spinner = worker!("spin", 0);
    let mut toucher = worker!("touch-on", 0, PAGES, 1_000_000);
    spinner.go();
    toucher.go();
    let run = |name: &str, options: &[&str]| {
        let run = folder.path().join(name);
        Dlpm::new(["trace", "--interval", "200ms", "--duration", "2s"])
            .args([
                "--output",
                run.to_str().unwrap(),
                "--sysfs",
                tree.sysfs().to_str().unwrap(),
            ])
            .args(["--calibration", calibration.to_str().unwrap()])
            .args(options)
            .run()
            .exited(0);
        Dlpm::new(["verify"]).arg(&run).run().exited(0);
        let log = Log::read(&run);
        log.is_complete();
        log
    };
    // Energy of the package, and of it what a worker got.
    let got = |log: &Log, worker: u32| {
        let (mut all_uj, mut own_uj) = (0, 0);
        for sample in &log.samples {
            all_uj += number(&sample.zone("package-0").unwrap()["energy_uj"]);
            let rows = sample.rows().iter().filter(|row| row["tgid"] == worker);
            own_uj += rows.map(|row| number(&row["energy_uj"]["package-0/rest"])).sum::<u64>();
        }
        (all_uj, own_uj)
    };
    let counted = run("counted", &["--counters=page-faults"]);
    for sample in &counted.samples {
        let rest = sample.zone("package-0/rest").unwrap();
        assert_eq!(rest["method"], "counters", "{:?}", sample.zone("package-0"));
    }
    let faults = counted.samples.iter().flat_map(Sample::rows);
    let faults = faults.filter(|row| row["tgid"] == toucher.pid());
    let faults: u64 = faults.map(|row| number(&row["by_package"]["0"]["counts"][0])).sum();
    let (all_uj, by_counters_uj) = got(&counted, toucher.pid());
    // Of what it used, each method in its own run, in parts of all energy.
    let error = |all_uj: u64, truth_uj: u64, got_uj: u64| truth_uj.abs_diff(got_uj) as f64 / all_uj as f64;
    let of_counters = error(all_uj, faults * FAULT_UJ, by_counters_uj);
    let timed = run("timed", &[]);
    let (all_uj, by_time_uj) = got(&timed, toucher.pid());
    // Nobody else on this CPU faults as much: it used next to all.
    let of_time = error(all_uj, all_uj, by_time_uj);
    assert!(
        of_counters * 10.0 < of_time,
        "{of_counters} by counters, {of_time} by time"
    );
    assert!(of_counters < 0.02, "{of_counters}");
}

#[test]
fn weights_are_found_or_refused() {
    require_dlpm!();
    // 6 W for each load that is busy: as much as there is of the kernel's own clock of tasks.
    let meter = Metered::start(Law {
        load_mw: |load| if load == "nap" { 3_000 } else { 6_000 },
        ..Law::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let calibration = folder.path().join("calibration.json");
    let stored = folder.path().join("weights.json");
    let running = Dlpm::new(["calibrate", "--weights", "--counters=cpu-clock", "--cell=1s"])
        .args(["--sysfs", meter.sysfs().to_str().unwrap()])
        .args(["--output", calibration.to_str().unwrap()])
        .start();
    meter.watch(running.pid());
    let output = running.wait();
    if output.status.code() == Some(1) {
        // What else runs here uses CPU time that this meter does not see.
        output.says(&["no weights were stored", "10 % is the limit", "--cell 20s"]);
        assert!(!stored.exists());
        return;
    }
    let output = output.exited(0);
    for said in ["Weights (fitted to", "a busy CPU", "cpu-clock", "package-0", "W idle"] {
        assert!(output.stdout.contains(said), "{}", output.stdout);
    }
    let weights: Value = serde_json::from_slice(&fs::read(&stored).unwrap()).unwrap();
    assert!(number(&weights["held_out_error_permille"]) <= 100, "{weights}");
    // Of a ns of time, or of the clock that counts it: 6 W together, and 20 W of the idle package.
    let busy_uw = number(&weights["fj_per_ns"]) + number(&weights["fj_per_event"][0]);
    assert!((4_000_000..8_000_000).contains(&busy_uw), "{weights}");
    let idle_mw = number(&weights["idle_mw"]["package-0"]);
    assert!((15_000..25_000).contains(&idle_mw), "{weights}");
    let run = folder.path().join("run");
    Dlpm::new(["trace", "--counters=cpu-clock", "--duration", "500ms", "--sysfs"])
        .arg(meter.sysfs())
        .args([
            "--output",
            run.to_str().unwrap(),
            "--calibration",
            calibration.to_str().unwrap(),
        ])
        .run()
        .exited(0)
        .says(&["split by them with the weights of"]);
    Dlpm::new(["verify"]).arg(&run).run().exited(0);
}

#[test]
fn what_cannot_be_counted_is_said_and_the_trace_goes_on() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    Dlpm::new(["trace", "--counters=nothing/here/", "--duration", "200ms", "--output"])
        .arg(&run)
        .run()
        .exited(0)
        .says(&["nothing/here/ is not counted", "split by CPU time"]);
    Dlpm::new(["verify"]).arg(&run).run().exited(0);
    // Whatever this machine has of the usual ones, doctor tells of it.
    let doctor = Dlpm::new(["doctor"]).run().stdout;
    assert!(
        doctor.contains("cycles") && doctor.contains("counted with --counters"),
        "{doctor}"
    );
    Dlpm::new(["trace", "--counters=cycle", "--duration", "1s"])
        .run()
        .exited(2)
        .says(&["perf list"]);
}
