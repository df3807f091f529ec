//! `dlpm trace --rotate`: a log of several files, which every command reads as one.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use dlpm_tests::{
    command::{Dlpm, NOBODY, give, world_readable},
    log::{LOG_NAME, Log, Sample},
    powercap::{Powercap, node},
    require_dlpm,
};

fn closed(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("power_metrics.{number:06}.json"))
}

fn packed(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("power_metrics.{number:06}.json.zst"))
}

/// The log as `dlpm convert` makes one file of it: it keeps all laws and rules.
fn joined(folder: &Path) -> Log {
    let copy = tempfile::tempdir().unwrap();
    let copy = copy.path().join("copy");
    Dlpm::new(["convert"])
        .arg(folder)
        .arg("--output")
        .arg(&copy)
        .run()
        .exited(0);
    Log::read(&copy)
}

fn seqs(log: &Log) -> Vec<u64> {
    log.samples.iter().map(Sample::seq).collect()
}

#[test]
fn files_of_a_rotated_log_are_read_as_one() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    world_readable(&directory);
    give(directory.path(), NOBODY);
    let folder = directory.path().join("log");
    let tree = Powercap::start(node());
    let mut trace = Dlpm::trace(&folder)
        .args(["--rotate", "1s", "--sysfs"])
        .arg(tree.sysfs())
        .through_sudo_of(NOBODY)
        .start();
    trace.wait_until("a second file is compressed", || packed(&folder, 2).exists());
    Dlpm::new(["mark", "late", "--dir"]).arg(&folder).run().exited(0);
    trace.wait_until("a third file is compressed", || packed(&folder, 3).exists());
    trace.end_with(libc::SIGTERM).exited(0);
    for path in [packed(&folder, 1), packed(&folder, 3), folder.join(LOG_NAME)] {
        assert_eq!(fs::metadata(&path).unwrap().uid(), NOBODY, "{}", path.display());
    }
    assert!(!closed(&folder, 1).exists());

    Dlpm::new(["verify"]).arg(&folder).run().exited(0);
    let log = joined(&folder);
    log.is_complete();
    let report = Dlpm::new(["report"])
        .arg(&folder)
        .args(["--format", "json"])
        .run()
        .exited(0);
    let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(report["intervals"], log.samples.len());
    assert_eq!(report["traces"], 1);
    let phase = Dlpm::new(["report", "--phase", "late"]).arg(&folder).run().exited(0);
    assert!(phase.stdout.contains("late"), "{}", phase.stdout);
    for (name, arguments) in [
        ("plot.svg", vec!["plot", "--metric", "intel_power", "--output"]),
        ("page.html", vec!["report", "--html"]),
    ] {
        let file = directory.path().join(name);
        Dlpm::new(arguments).arg(&file).arg(&folder).run().exited(0);
        assert!(fs::metadata(file).unwrap().len() > 1000);
    }

    // The oldest file may go; what is left is reported, and verify says what is missing.
    fs::remove_file(packed(&folder, 1)).unwrap();
    let left = Dlpm::new(["report"]).arg(&folder).run().exited(0);
    assert!(
        left.stdout.contains("1 earlier files of the log are missing"),
        "{}",
        left.stdout
    );
    let verified = Dlpm::new(["verify"]).arg(&folder).run().exited(1);
    assert!(verified.stdout.contains("file 1 of the log"), "{}", verified.stdout);
}

#[test]
fn what_kill_9_leaves_of_a_rotation_is_whole_and_can_be_continued() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let tree = Powercap::start(node());
    let mut before: Vec<u64> = Vec::new();
    let mut newest = 0;
    // Each time as soon as something of another step is seen.
    for round in 0..6 {
        let mut trace = Dlpm::trace(&folder)
            .args(["--rotate", "1s", "--sysfs"])
            .arg(tree.sysfs());
        if round > 0 {
            trace = trace.arg("--append");
        }
        let mut trace = trace.start();
        let next = newest + 1;
        let temporary = folder.join(format!(".power_metrics.{next:06}.json.zst.tmp"));
        trace.wait_until("a rotation", || match round % 3 {
            0 => closed(&folder, next).exists() || packed(&folder, next).exists(),
            1 => temporary.exists() || packed(&folder, next).exists(),
            _ => packed(&folder, next).exists(),
        });
        drop(trace.killed());
        newest = (1..)
            .take_while(|number| closed(&folder, *number).exists() || packed(&folder, *number).exists())
            .last()
            .unwrap();
        Dlpm::trace(&folder)
            .args(["--append", "--duration", "200ms", "--sysfs"])
            .arg(tree.sysfs())
            .run()
            .exited(0);
        Dlpm::new(["verify"]).arg(&folder).run().exited(0);
        let after = seqs(&joined(&folder));
        assert!(after.starts_with(&before), "an interval is gone");
        // The trace that was killed, and the one after it, have all of theirs.
        let of_both = &after[before.len()..];
        let killed = of_both.iter().skip(1).position(|seq| *seq == 0).unwrap() as u64 + 1;
        let expected: Vec<u64> = (0..killed).chain(0..of_both.len() as u64 - killed).collect();
        assert_eq!(of_both, expected);
        before = after;
    }
}

#[test]
fn what_is_not_a_size_or_a_time_is_refused() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    for wrong in ["0", "1X", "10K", "1ms", "-1h"] {
        Dlpm::trace(&folder.path().join("log"))
            .arg(format!("--rotate={wrong}"))
            .run()
            .exited(2)
            .says(&["--rotate", wrong]);
    }
}
