//! The overlap of two hardware threads of one core, through the whole program: `--sysfs` says which they are.
#![expect(clippy::unwrap_used, reason = "a tree that cannot be written fails the test")]

use std::{fs, path::Path};

use dlpm_tests::{
    command::Dlpm,
    cpus,
    kernel::skip,
    log::{Log, Sample, number},
    require_dlpm, worker,
};
use serde_json::Value;

/// A tree that declares CPUs 0 and 1 the hardware threads of one core.
fn declare_siblings(sysfs: &Path) {
    let cpus = sysfs.join("devices/system/cpu");
    for cpu in [0, 1] {
        let topology = cpus.join(format!("cpu{cpu}/topology"));
        fs::create_dir_all(&topology).unwrap();
        fs::write(topology.join("physical_package_id"), "0\n").unwrap();
        fs::write(topology.join("thread_siblings_list"), "0-1\n").unwrap();
    }
    for list in ["online", "possible"] {
        fs::write(cpus.join(list), "0-1\n").unwrap();
    }
}

/// Time that any row shared with the sibling.
fn shared_ns(sample: &Sample) -> u64 {
    let of_row = |row: &Value| number(&row["by_package"]["0"]["smt_shared_ns"]);
    let rows = sample.rows().iter().filter(|row| row["by_package"].get("0").is_some());
    rows.map(of_row).sum()
}

#[test]
fn a_spinner_shares_what_its_sibling_runs() {
    require_dlpm!();
    if !cpus::online().starts_with(&[0, 1]) {
        return skip("CPUs 0 and 1 are not both online");
    }
    let folder = tempfile::tempdir().unwrap();
    let sysfs = tempfile::tempdir().unwrap();
    declare_siblings(sysfs.path());
    let output = folder.path().join("log");
    let mut spinner = worker!("spin", 0);
    let mut half = worker!("burst", 1, 5_000, 5_000);
    spinner.go();
    half.go();
    let mut dlpm = Dlpm::trace(&output).arg("--sysfs").arg(sysfs.path()).start();
    dlpm.wait_for_lines(&output, 30);
    dlpm.end_with(libc::SIGTERM).exited(0);

    let log = Log::read(&output);
    log.is_complete();
    assert!(log.samples.len() >= 20, "{} intervals", log.samples.len());
    let (mut shared, mut expected, mut agree) = (0, 0, 0);
    for sample in &log.samples {
        let busy_ns = |cpu: usize| number(&sample.cpus()[cpu]["busy_ns"]);
        let idle_0_ns = number(&sample.cpus()[0]["idle_ns"]);
        let skew_ns = number(&sample.exact["seal_ns"]);
        // CPU 0 is busy throughout, so both share exactly the time that CPU 1 is busy: once seen from each side. The two
        // sides are sealed one after the other, and what a slice had too much stays for the next interval.
        agree += usize::from(shared_ns(sample).abs_diff(2 * busy_ns(1)) <= 2 * idle_0_ns + 4 * skew_ns);
        shared += shared_ns(sample);
        expected += 2 * busy_ns(1);
    }
    // Not all: on a guest that hides its init from tracing, the time of init is idle in the records and busy in the
    // overlap.
    let all = log.samples.len();
    assert!(agree * 5 >= all * 4, "in {agree} of {all} intervals only");
    // Over the whole trace what is carried cancels out.
    assert!(
        shared > 0 && shared.abs_diff(expected) * 50 <= expected,
        "{shared} of {expected}"
    );
}
