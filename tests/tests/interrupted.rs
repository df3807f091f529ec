//! Logs that end in the middle, and folders that hold one already.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{fs, io::Write, path::Path};

use dlpm_tests::{
    command::{Dlpm, Output},
    log::{LOG_NAME, Log, METADATA_NAME},
    powercap::{Powercap, node},
    require_dlpm,
};

fn trace_briefly(folder: &Path, tree: &Powercap, arguments: &[&str]) -> Output {
    Dlpm::trace(folder)
        .args(["--duration", "250ms", "--sysfs"])
        .arg(tree.sysfs())
        .args(arguments)
        .run()
}

fn log_of(folder: &Path) -> String {
    fs::read_to_string(folder.join(LOG_NAME)).unwrap()
}

#[test]
fn what_kill_9_leaves_is_whole_but_for_the_interval_in_flight_and_can_be_continued() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let tree = Powercap::start(node());
    let mut dlpm = Dlpm::trace(&folder).arg("--sysfs").arg(tree.sysfs()).start();
    dlpm.wait_for_lines(&folder, 10);
    let before_kill = log_of(&folder);
    drop(dlpm.killed());

    let left = log_of(&folder);
    assert!(left.starts_with(&before_kill), "a line that was there is gone");
    let whole: Vec<&str> = left.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
    for (seq, line) in whole.iter().enumerate() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["dlpm"]["seq"], seq);
    }
    let (samples, torn) = (whole.len(), !left.ends_with('\n'));

    let output = trace_briefly(&folder, &tree, &["--append"]).exited(0);
    assert!(
        output.stderr.contains("segment"),
        "it does not say what it repaired:\n{}",
        output.stderr
    );
    let log = Log::read(&folder);
    assert_eq!(log.segments, 2);
    assert!(log_of(&folder).starts_with(&whole.concat()) || torn);
    let seqs: Vec<u64> = log.samples.iter().map(dlpm_tests::log::Sample::seq).collect();
    let again: Vec<u64> = (0..samples as u64).chain(0..(seqs.len() - samples) as u64).collect();
    assert_eq!(seqs, again);
    assert!(seqs.len() >= samples + 3);
}

#[test]
fn a_line_that_was_cut_short_is_cut_off() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let tree = Powercap::start(node());
    trace_briefly(&folder, &tree, &[]).exited(0);
    let whole = log_of(&folder);
    let end = whole.rfind("\"END").unwrap();
    let (lines, count) = (&whole[..end], whole[..end].lines().count());
    // In the middle of the last sample, in the segment end, without the last newline, and with an empty line.
    for (torn, samples) in [
        (&lines[..lines.len() - 100], count - 1),
        (&whole[..end + 7], count),
        (&whole[..whole.len() - 1], count),
        (&format!("{whole}\n"), count),
    ] {
        fs::write(folder.join(LOG_NAME), torn).unwrap();
        let output = trace_briefly(&folder, &tree, &["--append"]).exited(0);
        assert!(output.stderr.contains("dlpm: note: "), "{}", output.stderr);
        let log = Log::read(&folder);
        assert_eq!(log.segments, 2, "{}", &torn[torn.len() - 50..]);
        assert_eq!(
            log.samples.iter().skip(1).position(|sample| sample.seq() == 0),
            Some(samples - 1)
        );
    }
}

#[test]
fn a_log_is_not_touched_unless_that_is_asked_for() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let tree = Powercap::start(Vec::new());
    trace_briefly(&folder, &tree, &["--description", "the first"]).exited(0);
    let first = log_of(&folder);
    trace_briefly(&folder, &tree, &[]).fails(1, &["already holds a log", "--append", "--overwrite"]);
    assert_eq!(log_of(&folder), first);
    let output = trace_briefly(&folder, &tree, &["--", "/bin/echo", "started"]);
    assert!(!output.stdout.contains("started"));
    output.fails(125, &["already holds a log"]);

    trace_briefly(&folder, &tree, &["--append"]).exited(0);
    let both = log_of(&folder);
    assert!(both.starts_with(&first) && both.len() > first.len());
    let log = Log::read(&folder);
    assert_eq!(log.segments, 2);
    assert_eq!(log.metadata["description"], "the first");

    let results = folder.join("results_exp.json");
    fs::write(&results, "{}").unwrap();
    let output = trace_briefly(&folder, &tree, &["--overwrite"]);
    assert!(output.stderr.contains("results_exp.json stays"), "{}", output.stderr);
    assert!(!output.stderr.contains("model_summary.json"));
    output.exited(0);
    assert!(results.exists());
    fs::remove_file(results).unwrap();
    let log = Log::read(&folder);
    assert_eq!(log.segments, 1);
    log.is_complete();
    assert_ne!(log.metadata["description"], "the first");
}

#[test]
fn what_is_no_log_is_refused_unchanged() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let tree = Powercap::start(Vec::new());
    for foreign in ["{\"a\": 1}\n", "no JSON\n{\"metrics\": {}}\n", "17\n"] {
        let folder = directory.path().join("foreign");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(LOG_NAME), foreign).unwrap();
        trace_briefly(&folder, &tree, &["--append"]).fails(1, &["cannot be continued", "--overwrite"]);
        assert_eq!(log_of(&folder), foreign);
        assert!(!folder.join(METADATA_NAME).exists());
    }
}

#[test]
fn two_traces_cannot_write_one_log() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let tree = Powercap::start(Vec::new());
    let mut first = Dlpm::trace(&folder).arg("--sysfs").arg(tree.sysfs()).start();
    first.wait_for_lines(&folder, 2);
    for mode in ["--append", "--overwrite"] {
        trace_briefly(&folder, &tree, &[mode]).fails(1, &["another dlpm"]);
    }
    first.end_with(libc::SIGTERM).exited(0);
    Log::read(&folder).is_complete();
}

#[test]
fn a_log_that_is_deleted_while_it_is_written_is_reported() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let mut dlpm = Dlpm::trace(&folder).start();
    dlpm.wait_for_lines(&folder, 2);
    fs::remove_file(folder.join(LOG_NAME)).unwrap();
    dlpm.wait_for_message("deleted");
    let output = dlpm.end_with(libc::SIGINT).exited(1);
    assert!(output.stdout.contains("could not be written"), "{}", output.stdout);
}

#[test]
fn metadata_that_is_no_json_is_not_replaced_silently() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let tree = Powercap::start(Vec::new());
    trace_briefly(&folder, &tree, &[]).exited(0);
    let mut metadata = fs::File::create(folder.join(METADATA_NAME)).unwrap();
    metadata.write_all(b"notes of mine").unwrap();
    trace_briefly(&folder, &tree, &["--append"]).fails(1, &[METADATA_NAME]);
    assert_eq!(fs::read_to_string(folder.join(METADATA_NAME)).unwrap(), "notes of mine");
}
