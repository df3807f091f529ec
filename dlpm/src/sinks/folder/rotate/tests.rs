//! Logs of several files, and what is left of them where dlpm was killed.

use std::{fs, path::Path, time::Duration};

use super::*;
use crate::{
    log::{LogLine, LogReader, chain::Lines, rotation::Limit},
    sinks::{
        folder::FolderMode,
        reader_rules::violations,
        segments::Segmenter,
        testing::{all_zones, ledger, segmenter},
    },
    verify::verify_lines,
};

/// Files that are left, by name.
type Left<'a> = Vec<(&'a str, &'a [u8])>;

/// Long enough for the compression of a few lines.
const PATIENCE: Duration = Duration::from_secs(60);

/// A segmenter that ends a file after each `seconds`.
fn rotating(seconds: u64) -> Segmenter {
    segmenter().rotating(Some(Limit::Time(Duration::from_secs(seconds))))
}

/// Writes intervals as a trace does, and ends it.
fn write(path: &Path, mode: FolderMode, segmenter: Segmenter, intervals: u64) {
    write_within(path, mode, segmenter, intervals, None);
}

fn write_within(path: &Path, mode: FolderMode, mut segmenter: Segmenter, intervals: u64, budget: Option<Budget>) {
    let mut folder = OutputFolder::create(path, mode).unwrap();
    folder.start_rotating(budget).unwrap();
    let mut put = |lines: Vec<Line>| {
        for line in lines {
            if line.kind == crate::log::LineKind::Rotation {
                assert!(folder.rotate().unwrap());
            } else {
                folder.write_line(line.text()).unwrap();
            }
        }
    };
    for seq in 0..intervals {
        put(segmenter.next(&ledger(seq, all_zones())).unwrap());
    }
    put(segmenter.end().unwrap());
    assert_eq!(folder.stop_rotating(Instant::now() + PATIENCE), [""; 0]);
}

/// Numbers of the intervals that a folder has, in order.
fn seqs(path: &Path) -> Vec<u64> {
    let mut reader = LogReader::open(path).unwrap();
    let mut seqs = Vec::new();
    while let Some(line) = reader.next_line().unwrap() {
        if let LogLine::Interval(interval) = line {
            seqs.push(interval.ledger.seq);
        }
    }
    assert_eq!(reader.passed_over().missing_files, 0);
    seqs
}

/// What `dlpm verify` finds.
fn failures(path: &Path) -> Vec<String> {
    let report = verify_lines(&mut Lines::open(path).unwrap(), 100, false).unwrap();
    let text = |failure: crate::verify::Failure| failure.what.join("; ");
    report.failures.into_iter().map(text).collect()
}

fn files(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn unpacked(path: &Path) -> Vec<u8> {
    zstd::stream::decode_all(File::open(path).unwrap()).unwrap()
}

#[test]
fn a_log_of_several_files_is_one_log() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), FolderMode::New, rotating(3), 10);
    let closed = |number| closed_name(number) + COMPRESSED;
    assert_eq!(
        files(folder.path()),
        [closed(1), closed(2), closed(3), LOG_NAME.to_owned()]
    );
    assert_eq!(seqs(folder.path()), (0..10).collect::<Vec<u64>>());
    assert_eq!(failures(folder.path()), [""; 0]);
    // Each file is a log for AIPowerMeter's reader: whole segments.
    let mut joined = String::new();
    for number in 1..=3 {
        let text = String::from_utf8(unpacked(&folder.path().join(closed(number)))).unwrap();
        assert!(text.ends_with(Line::segment_end().text()), "{text}");
        joined += &text;
    }
    joined += &fs::read_to_string(folder.path().join(LOG_NAME)).unwrap();
    let lines = joined
        .split_inclusive('\n')
        .filter(|line| !line.contains("\"continues\""));
    assert_eq!(violations(&lines.collect::<String>()), [""; 0]);
    // It is continued, also by a trace that does not rotate; and it is not taken for an empty folder.
    let refused = OutputFolder::create(folder.path(), FolderMode::New).unwrap_err();
    assert!(refused.to_string().contains("already holds a log"), "{refused}");
    write(folder.path(), FolderMode::Append, segmenter(), 2);
    write(folder.path(), FolderMode::Append, rotating(2), 5);
    assert_eq!(seqs(folder.path()).len(), 17);
    assert_eq!(failures(folder.path()), [""; 0]);
    fs::remove_file(folder.path().join(LOG_NAME)).unwrap();
    let refused = OutputFolder::create(folder.path(), FolderMode::New).unwrap_err();
    assert!(refused.to_string().contains("already holds a log"), "{refused}");
    write(folder.path(), FolderMode::Overwrite, segmenter(), 3);
    assert_eq!(
        (files(folder.path()), seqs(folder.path())),
        (vec![LOG_NAME.to_owned()], vec![0, 1, 2])
    );
}

#[test]
fn wherever_a_rotation_is_killed_nothing_is_lost_and_the_log_goes_on() {
    let whole = tempfile::tempdir().unwrap();
    write(whole.path(), FolderMode::New, rotating(3), 5);
    let packed = fs::read(whole.path().join(closed_name(1) + COMPRESSED)).unwrap();
    let plain = unpacked(&whole.path().join(closed_name(1) + COMPRESSED));
    let log = fs::read(whole.path().join(LOG_NAME)).unwrap();
    let first_line = log.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let (closed, compressed) = (closed_name(1), closed_name(1) + COMPRESSED);
    let temporary = format!(".{compressed}.tmp");
    let half = &packed[..packed.len() / 2];
    let second_line = first_line + log[first_line..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let (torn, begun) = (&log[..first_line / 2], &log[..first_line]);
    let (one, two) = (&log[..second_line], &log[..second_line + 100]);
    let name = LOG_NAME;
    // Step by step, and what is there then: the intervals of the closed file, or all.
    let states: [(&str, Left, u64); 11] = [
        ("nothing yet", vec![(name, &plain)], 3),
        ("renamed", vec![(&closed, &plain)], 3),
        ("a new file", vec![(&closed, &plain), (name, b"")], 3),
        ("half of its first line", vec![(&closed, &plain), (name, torn)], 3),
        ("its first line", vec![(&closed, &plain), (name, begun)], 3),
        ("a line", vec![(&closed, &plain), (name, one)], 4),
        ("half of another", vec![(&closed, &plain), (name, two)], 4),
        ("lines", vec![(&closed, &plain), (name, &log)], 5),
        (
            "half compressed",
            vec![(&closed, &plain), (name, &log), (&temporary, half)],
            5,
        ),
        ("both", vec![(&closed, &plain), (name, &log), (&compressed, &packed)], 5),
        ("done", vec![(name, &log), (&compressed, &packed)], 5),
    ];
    for (step, left, intervals) in states {
        for rotates in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            for (name, contents) in &left {
                fs::write(folder.path().join(name), contents).unwrap();
            }
            assert_eq!(seqs(folder.path()), (0..intervals).collect::<Vec<u64>>(), "{step}");
            let segmenter = if rotates { rotating(2) } else { segmenter() };
            write(folder.path(), FolderMode::Append, segmenter, 4);
            let expected: Vec<u64> = (0..intervals).chain(0..4).collect();
            assert_eq!(seqs(folder.path()), expected, "{step}");
            assert_eq!(failures(folder.path()), [""; 0], "{step}");
            let names = files(folder.path());
            assert!(
                names.iter().all(|name| name == LOG_NAME || name.ends_with(COMPRESSED)),
                "{step}: {names:?}"
            );
        }
    }
}

#[test]
fn a_budget_deletes_the_oldest_files_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let budget = |bytes| Budget {
        bytes,
        age: Duration::from_secs(3600),
    };
    let closed = || {
        files(path)
            .iter()
            .filter_map(|name| closed_number(name))
            .collect::<Vec<u64>>()
    };
    write_within(path, FolderMode::New, rotating(3), 40, Some(budget(30_000)));
    let bytes: u64 = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= 30_000, "{bytes}");
    let left = closed();
    assert!(left[0] > 1 && left.len() < 12, "{left:?}");
    assert_eq!(failures(path), [""; 0]);
    let mut reader = LogReader::open(path).unwrap();
    assert!(reader.next_line().unwrap().is_some());
    assert_eq!(reader.passed_over().missing_files, left[0] - 1);
    // It goes on, and what was deleted stays told.
    write_within(path, FolderMode::Append, rotating(3), 10, Some(budget(1 << 20)));
    assert_eq!((closed()[0], failures(path)), (left[0], Vec::new()));
    // What is too old goes as well.
    for name in files(path).iter().filter(|name| closed_number(name).is_some()) {
        let file = File::options().append(true).open(path.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(3700))
            .unwrap();
    }
    let before = closed();
    write_within(path, FolderMode::Append, rotating(3), 10, Some(budget(1 << 20)));
    assert!(closed()[0] > *before.last().unwrap(), "{before:?} {:?}", closed());
    assert_eq!(failures(path), [""; 0]);
    // One more that is gone was not deleted by dlpm.
    let oldest = closed()[0];
    fs::remove_file(path.join(closed_name(oldest) + COMPRESSED)).unwrap();
    let found = failures(path).join("; ");
    assert!(found.contains(&format!("file {oldest} of the log")), "{found}");
}

#[test]
fn what_is_missing_between_files_is_found() {
    let write_three = || {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), FolderMode::New, rotating(3), 10);
        folder
    };
    let closed = |folder: &tempfile::TempDir, number: u64| folder.path().join(closed_name(number) + COMPRESSED);
    let found = |folder: &tempfile::TempDir, what: &str| {
        let failures = failures(folder.path()).join("; ");
        assert!(failures.contains(what), "{failures}");
    };
    // The oldest may have been deleted to make room: the others are read, and verify says so.
    let folder = write_three();
    fs::remove_file(closed(&folder, 1)).unwrap();
    found(&folder, "file 1 of the log, and all before it, are missing");
    let mut reader = LogReader::open(folder.path()).unwrap();
    assert_eq!(reader.passed_over().missing_files, 1);
    assert!(reader.next_line().unwrap().is_some());
    // A line at the end of a closed file, one in it, and another number.
    let plain = unpacked(&closed(&folder, 2));
    let mut lines: Vec<&[u8]> = plain.split_inclusive(|byte| *byte == b'\n').collect();
    let last = lines.pop().unwrap();
    for changed in [
        lines.concat(),
        [lines.concat(), last.to_ascii_lowercase()].concat(),
        [plain.as_slice(), last].concat(),
    ] {
        let folder = write_three();
        fs::remove_file(closed(&folder, 2)).unwrap();
        fs::write(folder.path().join(closed_name(2)), changed).unwrap();
        found(&folder, "file 2 is not as it was closed");
    }
    let folder = write_three();
    fs::remove_file(closed(&folder, 2)).unwrap();
    found(&folder, "file 2 of the log, and all before it, are missing");
    // A file that is not whole is an error that names it.
    let folder = write_three();
    let packed = fs::read(closed(&folder, 3)).unwrap();
    fs::write(closed(&folder, 3), &packed[..packed.len() / 2]).unwrap();
    let mut reader = LogReader::open(folder.path()).unwrap();
    let error = loop {
        match reader.next_line() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it was read"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("power_metrics.000003.json.zst"), "{error}");
}

#[test]
fn a_file_that_something_else_has_changed_is_closed_as_it_is() {
    let path = tempfile::tempdir().unwrap();
    let mut folder = OutputFolder::create(path.path(), FolderMode::New).unwrap();
    folder.start_rotating(None).unwrap();
    let mut segmenter = segmenter();
    for seq in 0..4 {
        for line in segmenter.next(&ledger(seq, all_zones())).unwrap() {
            folder.write_line(line.text()).unwrap();
        }
        if seq == 1 {
            let log = fs::OpenOptions::new()
                .append(true)
                .open(path.path().join(LOG_NAME))
                .unwrap();
            io::Write::write_all(&mut &log, b"a stray line\n").unwrap();
            assert!(folder.settle().unwrap().is_some());
        }
    }
    for line in segmenter.end().unwrap() {
        folder.write_line(line.text()).unwrap();
    }
    assert!(folder.rotate().unwrap());
    // Nothing is in the new one, so that it is not closed as well.
    folder.stop_rotating(Instant::now() + PATIENCE);
    assert_eq!(failures(path.path()), [""; 0]);
    assert_eq!(seqs(path.path()), [0, 1, 2, 3]);
}
