//! The programs in `examples`, run as their comments say.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use dlpm_tests::{kernel, phases::Traced, phases::phases, require_dlpm};

/// Names a Python with pandas; `cargo xtask test` makes one.
const PANDAS_PYTHON: &str = "DLPM_PANDAS_PYTHON";

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{command:?}: {stdout}{stderr}");
    stdout.into_owned()
}

/// A trace of the training loop, and what the loop printed.
fn trained(epochs: &str) -> (Traced, String) {
    let traced = Traced::new();
    let output = traced
        .trace()
        .variable("PYTHONDONTWRITEBYTECODE", "1")
        .args(["--", "python3"])
        .arg(example("train.py"))
        .args(["--points", "4000", "--epochs", epochs])
        .run()
        .exited(0);
    traced.log().is_complete();
    (traced, output.stdout)
}

#[test]
fn the_training_loop_marks_its_phases() {
    require_dlpm!();
    let (traced, stdout) = trained("2");
    let accuracy: f64 = stdout.split_whitespace().last().unwrap().parse().unwrap();
    assert!(accuracy > 0.9 && stdout.lines().count() == 2, "{stdout}");
    let labels: Vec<String> = phases(&traced.folder).into_iter().map(|phase| phase.label).collect();
    assert_eq!(labels, ["load", "train", "validate", "train", "validate"]);
}

#[test]
fn two_commands_are_compared_by_joules_and_cpu_time() {
    require_dlpm!();
    let mut command = Command::new(example("compare.sh"));
    command
        .args(["2", "true", "i=0; while [ $i -lt 60000 ]; do i=$((i + 1)); done"])
        .env("DLPM", env::var_os("DLPM_BIN").unwrap())
        .env("DLPM_OPTIONS", "--energy-source estimate --estimate idle=0,busy=12");
    let stdout = said(&mut command);
    let median = |name: &str, unit: &str| -> f64 {
        let start = format!("{name}: ");
        let mut lines = stdout.lines().filter_map(|line| line.strip_prefix(&start));
        let line = lines.find(|line| line.contains(unit)).unwrap();
        line.split(' ').next().unwrap().parse().unwrap()
    };
    for unit in [" J ", " s of CPU time "] {
        assert!(median("B", unit) > median("A", unit), "{stdout}");
    }
    // 12 W for each busy CPU.
    let (joules, seconds) = (median("B", " J "), median("B", " s of CPU time "));
    assert!((joules - 12.0 * seconds).abs() < 0.02 * joules + 0.01, "{stdout}");
}

#[test]
fn a_comparison_ends_with_the_first_error() {
    require_dlpm!();
    let empty = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/sys/devices", empty.path().join("devices")).unwrap();
    let mut command = Command::new(example("compare.sh"));
    command
        .args(["1", "true", "true"])
        .env("DLPM", env::var_os("DLPM_BIN").unwrap())
        .env(
            "DLPM_OPTIONS",
            format!("--energy-source powercap --sysfs {}", empty.path().display()),
        );
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    // A source that is asked for by name and is not there is an error.
    assert!(!output.status.success() && stderr.contains("powercap"), "{stderr}");
}

#[test]
fn a_log_is_read_with_pandas() {
    require_dlpm!();
    let Some(python) = env::var_os(PANDAS_PYTHON) else {
        return kernel::skip("DLPM_PANDAS_PYTHON names no Python with pandas; `cargo xtask test` sets it");
    };
    let (traced, _) = trained("1");
    let stdout = said(Command::new(python).arg(example("analyse.py")).arg(&traced.folder));
    assert!(stdout.contains("joules") && stdout.contains("python3"), "{stdout}");

    // The sum over all names is what the log says that its leaves counted.
    let joules: f64 = stdout
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<f64>().ok())
        .sum();
    let leaves: u64 = split_uj(&traced);
    let expected = leaves as f64 / 1e6;
    assert!(
        joules > 0.9 * expected && joules < 1.001 * expected,
        "{joules} of {expected} J: {stdout}"
    );
}

#[test]
fn simulated_zones_look_like_those_of_a_machine() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let mut command = Command::new(example("simulated_rapl.py"));
    command
        .arg(env::var_os("DLPM_BIN").unwrap())
        .args(["trace", "--interval", "100ms", "--gpu", "none", "--output"])
        .arg(&folder)
        .args(["--", "sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done"]);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("were simulated"), "{stderr}");
    let dlpm = |arguments: &[&str]| {
        said(
            Command::new(env::var_os("DLPM_BIN").unwrap())
                .args(arguments)
                .arg(&folder),
        )
    };
    let verified = dlpm(&["verify"]);
    assert!(verified.contains("close in all of them"), "{verified}");
    let zones = dlpm(&["report", "--by", "zone", "--format", "csv"]);
    for zone in ["package-0/core", "package-0/rest", "dram-0"] {
        assert!(zones.contains(zone), "{zones}");
    }
}

/// Energy of all leaves of all intervals, in microjoules.
fn split_uj(traced: &Traced) -> u64 {
    let report = said(
        Command::new(env::var_os("DLPM_BIN").unwrap())
            .args(["report", "--format", "json"])
            .arg(&traced.folder),
    );
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    report["energy"]["energy_uj"].as_u64().unwrap()
}
