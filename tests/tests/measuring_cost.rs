//! What the measuring itself costs: measured at the start, shown at the end, and not counted any longer than that.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use dlpm::sources::cpu_time::{Config, CpuTime, Identity};
use dlpm_tests::{
    command::Dlpm,
    log::{Log, number},
    require_dlpm, require_kernel,
};
use serde_json::Value;

/// Runs of this process's switch program that the kernel has counted.
fn counted_runs() -> u64 {
    let held: Vec<String> = fs::read_dir("/proc/self/fdinfo")
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
        .collect();
    let runs = held.iter().flat_map(|text| text.lines());
    runs.filter_map(|line| line.strip_prefix("run_cnt:")?.trim().parse::<u64>().ok())
        .max()
        .unwrap()
}

#[test]
fn the_kernel_counts_for_a_while_only() {
    require_kernel!();
    for identity in [None, Some(Identity::Tgid)] {
        let cpu_time = CpuTime::start(&Config {
            identity,
            ..Config::default()
        })
        .unwrap();
        let begun = Instant::now();
        let cost = loop {
            if let Some(cost) = cpu_time.switch_cost() {
                break cost.unwrap();
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "it is measured for ever");
            thread::sleep(Duration::from_millis(10));
        };
        assert!(cost.runs > 0 && cost.run_ns > 0, "{cost:?}");
        assert!(cost.measured_ns >= 100_000_000, "{cost:?}");
        // Another test or benchmark of this machine may let the kernel count as well.
        let quiet = (0..5).any(|_| {
            let before = counted_runs();
            thread::sleep(Duration::from_millis(200));
            counted_runs() == before
        });
        assert!(quiet, "the kernel goes on counting");
    }
}

#[test]
fn log_metadata_and_summary_show_it() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let output = Dlpm::trace(&folder).args(["--duration", "1500ms"]).run().exited(0);
    Dlpm::new(["verify"]).arg(&folder).run().exited(0);
    let log = Log::read(&folder);
    let metadata: Value = serde_json::from_slice(&fs::read(folder.join("metadata.json")).unwrap()).unwrap();
    let cost = &metadata["dlpm"]["measuring_cost"];
    let each_ns = number(&cost["ns_per_switch"]);
    assert!(number(&cost["measured_runs"]) > 0 && each_ns > 0, "{cost}");

    let own = |sample: &dlpm_tests::log::Sample| {
        let row = sample.rows().iter().find(|row| row["row"] == "self").unwrap();
        row.clone()
    };
    let self_ns: u64 = log.samples.iter().map(|sample| number(&own(sample)["cpu_ns"])).sum();
    assert_eq!(number(&cost["self_cpu_ns"]), self_ns);
    let cpus = log
        .samples
        .iter()
        .flat_map(|sample| sample.exact["cpus"].as_array().unwrap());
    let switches: u64 = cpus.map(|cpu| number(&cpu["switches"])).sum();
    assert_eq!(number(&cost["switches"]), switches);
    assert_eq!(number(&cost["switches_estimate_ns"]), switches * each_ns);

    // Known from the second interval on, on a machine however busy; each is proved by `dlpm verify`.
    let estimates: Vec<Value> = log
        .samples
        .iter()
        .map(|sample| own(sample)["in_switches"].clone())
        .collect();
    let known = estimates.iter().filter(|estimate| !estimate.is_null());
    assert!(known.clone().count() > 0, "{estimates:?}");
    let report = Dlpm::new(["report"])
        .arg(&folder)
        .args(["--format", "json"])
        .run()
        .exited(0);
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    let sum = |field: &str| -> u64 { known.clone().map(|estimate| number(&estimate[field])).sum() };
    assert_eq!(number(&report["cpu"]["in_switches_estimate_ns"]), sum("estimate_ns"));
    assert_eq!(number(&report["cpu"]["estimated_switches"]), sum("switches"));
    assert_eq!(number(&report["cpu"]["self_ns"]), self_ns);
    for estimate in known {
        assert_eq!(number(&estimate["ns_per_switch"]), each_ns);
    }

    assert!(output.stdout.contains("Measuring cost: "), "{}", output.stdout);
    let text = format!("inside {switches} context switches\n  (estimate: {each_ns} ns each");
    assert!(output.stdout.contains(&text), "{}", output.stdout);
}
