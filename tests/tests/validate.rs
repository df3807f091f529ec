//! `dlpm validate` through the whole program: real loads, measured by a counter that follows a known law of them. How well
//! the errors are found is tested in `dlpm/src/validate`, where no other process of the machine disturbs the loads.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{fs, path::Path};

use dlpm_tests::{
    command::{Dlpm, Running},
    cpus,
    known_law::{Law, Metered},
    output::Output,
    require_dlpm, worker,
};
use serde_json::Value;

/// The meter of a test steps late where the machine is busy.
const PATIENT: &str = "--max-idle-change=100";

/// Three rounds of two loads, on a machine that may be busy and small: what else runs there is accepted.
const SHORT: [&str; 11] = [
    "validate",
    "--loads=scalar,fma",
    "--rounds=3",
    "--cell=1s",
    "--share-core",
    "--cpus=0,1,0",
    "--seed=7",
    "--max-foreign=10000",
    "--max-slowdown=10000",
    "--max-uncertainty=1000",
    "--output",
];

fn start(meter: &Metered, folder: &Path, more: &[&str]) -> Running {
    let running = Dlpm::new(SHORT)
        .arg(folder)
        .arg("--sysfs")
        .arg(meter.sysfs())
        .args(more)
        .start();
    meter.watch(running.pid());
    running
}

fn validate(law: Law, folder: &Path, more: &[&str]) -> Output {
    let meter = Metered::start(law);
    start(&meter, folder, more).wait()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap()
}

#[test]
fn what_a_counter_says_of_the_loads_is_found_kept_and_proved() {
    require_dlpm!();
    if cpus::online().len() < 2 {
        return dlpm_tests::kernel::skip("two loads need two CPUs");
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("result");
    let output = validate(Law::default(), &folder, &[PATIENT]).exited(0);
    for said in [
        "equal split is off by",
        // Of which load the share is worst depends on what else runs here.
        " beside ",
        "the limits are not the usual ones",
        "dlpm shared CPU 0",
    ] {
        assert!(output.stdout.contains(said), "{}", output.stdout);
    }
    Dlpm::new(["verify"])
        .arg(&folder)
        .run()
        .exited(0)
        .prints(&["12 cells", "they give the verdict"]);

    let json = Dlpm::new(["report", "--format", "json"])
        .arg(&folder)
        .run()
        .exited(0)
        .stdout;
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&report["holds"], &report["seed"]), (&true.into(), &7.into()));
    // The law is 5 W and 11 W, and a busy machine lets the counter step late.
    for (row, law_uw) in report["loads"].as_array().unwrap().iter().zip([5_000_000, 11_000_000]) {
        assert!((number(&row["above_idle_uw"]) - law_uw).abs() < law_uw / 2, "{row}");
        assert!(number(&row["units"]) > 0);
    }
    // What each load gets too much, the other gets too little, also of an equal split.
    let pairs = report["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 2);
    assert!(
        number(&pairs[0]["equal_ppm"]) > 0 && number(&pairs[1]["equal_ppm"]) < 0,
        "{json}"
    );
    let page = folder.join("page.html");
    Dlpm::new(["report"])
        .arg(&folder)
        .arg("--html")
        .arg(&page)
        .run()
        .exited(0);
    assert!(fs::read_to_string(page).unwrap().contains("fma beside scalar"));
    let csv = Dlpm::new(["report", "--format", "csv"])
        .arg(folder.join("validation.jsonl"))
        .run()
        .exited(0)
        .stdout;
    assert!(csv.starts_with("load,beside,alone_uw,"), "{csv}");
    Dlpm::new(["report", "--by", "zone"])
        .arg(&folder)
        .run()
        .exited(1)
        .says(&["--by is for a log"]);

    // A run never replaces another one by itself.
    validate(Law::default(), &folder, &[PATIENT])
        .exited(1)
        .says(&["already holds a validation", "--overwrite"]);
    // Nobody but the loads is named.
    let file = folder.join("validation.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("\"tenant\"") && !text.contains("\"uid\":0"), "{text}");
    let at = text.find("\"units\":").unwrap() + "\"units\":".len();
    let changed = if text.as_bytes()[at] == b'9' { "8" } else { "9" };
    fs::write(&file, format!("{}{changed}{}", &text[..at], &text[at + 1..])).unwrap();
    Dlpm::new(["verify"])
        .arg(&folder)
        .run()
        .exited(1)
        .prints(&["digest", "FAIL"]);
    Dlpm::new(["report"])
        .arg(&folder)
        .run()
        .exited(0)
        .says(&["does not hold"]);
}

#[test]
fn what_spoils_a_run_is_refused_with_reason_and_next_step() {
    require_dlpm!();
    if cpus::online().len() < 2 {
        return dlpm_tests::kernel::skip("two loads need two CPUs");
    }
    let folder = tempfile::tempdir().unwrap();
    let refused = |output: Output, why: &str| {
        output.exited(3).says(&[&format!("refused: {why}: "), "Next step: "]);
    };
    let of = |name: &str, law: Law, more: &[&str]| validate(law, &folder.path().join(name), more);
    // Each load alone is a second of an idle machine that draws more and more.
    let drift = Law {
        drift_mw: 20_000,
        ..Law::default()
    };
    refused(of("drift", drift, &[]), "unstable_idle");
    let throttles = Law {
        throttles: true,
        ..Law::default()
    };
    refused(of("throttles", throttles, &[PATIENT]), "throttling");
    let mut spinner = worker!("spin", 0);
    spinner.go();
    let meter = Metered::start(Law::default());
    let strict = Dlpm::new(["validate", "--share-core", "--cpus=0,1,0", "--cell=1s", "--output"])
        .arg(folder.path().join("foreign"))
        .arg("--sysfs")
        .arg(meter.sysfs())
        .start();
    meter.watch(strict.pid());
    refused(strict.wait(), "foreign_load");
    drop(spinner);
    // What was measured until then is kept, and proves the refusal.
    let proof = Dlpm::new(["verify"]).arg(folder.path().join("foreign")).run().exited(0);
    proof.prints(&["they give the refusal"]);

    // Before anything runs: nothing is written.
    let quick = |meter: &Metered, more: &[&str]| {
        let none = folder.path().join("none");
        let output = Dlpm::new(["validate", "--quick", "--output"])
            .arg(&none)
            .arg("--sysfs")
            .arg(meter.sysfs())
            .args(more)
            .run();
        assert!(!none.exists());
        output
    };
    refused(quick(&meter, &["--cpus=0,1,0"]), "too_few_cores");
    refused(quick(&meter, &["--cpus=0,0,1"]), "too_few_cores");
    refused(quick(&meter, &["--cpus=0,9999,1"]), "too_few_cores");
    let battery = meter.sysfs().join("class/power_supply/BAT0");
    fs::create_dir_all(&battery).unwrap();
    fs::write(battery.join("type"), "Battery\n").unwrap();
    fs::write(battery.join("status"), "Discharging\n").unwrap();
    refused(quick(&meter, &["--cpus=0,1,0", "--share-core"]), "battery");
    let nothing = dlpm_tests::powercap::Powercap::start(Vec::new());
    let output = Dlpm::new(["validate", "--quick", "--sysfs"]).arg(nothing.sysfs()).run();
    refused(output, "no_meter");
    Dlpm::new(["validate", "--loads", "fma"])
        .run()
        .exited(1)
        .says(&["a pair needs two different ones"]);
    Dlpm::new(["validate-load", "fma", "--cpu=0", "--memory-bytes=0", "--seconds=1"])
        .run()
        .exited(1);
}

#[test]
fn a_run_that_is_stopped_concludes_nothing_and_leaves_no_load() {
    require_dlpm!();
    if cpus::online().len() < 2 {
        return dlpm_tests::kernel::skip("two loads need two CPUs");
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("stopped");
    let meter = Metered::start(Law::default());
    let mut running = start(&meter, &folder, &[PATIENT, "--overwrite"]);
    let pid = running.pid();
    let children = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    running.wait_until("a load", || !children().trim().is_empty());
    let load = children().split_whitespace().next().unwrap().to_owned();
    running.end_with(libc::SIGINT).exited(1).says(&["stopped by a signal"]);
    assert!(!Path::new("/proc").join(load).join("fd/0").exists());
    Dlpm::new(["verify"])
        .arg(&folder)
        .run()
        .exited(1)
        .prints(&["the end is missing"]);
}
