//! A folder that belongs to another user, disks that fill up.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
};

use serde_json::Value;

use super::*;
use crate::log::names::{LOG_NAME, METADATA_NAME};
use crate::sinks::{
    reader_rules::violations,
    testing::{all_zones, ledger, log_of, metadata, segmenter},
};

const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(5);

fn options(folder: &Path) -> LogOptions {
    LogOptions {
        folder: folder.to_owned(),
        mode: FolderMode::New,
        identity: None,
        metadata: metadata(),
        backlog_bytes: BACKLOG_BYTES,
        rotates: false,
        budget: None,
        listens: true,
    }
}

fn nobody() -> Identity {
    Identity {
        uid: NOBODY,
        gid: NOBODY,
        groups: vec![NOBODY],
        name: "alice".to_owned(),
    }
}

/// Says that a test is skipped; where the machine is known to be able, that is a failure.
fn skip(test: &str, why: &str) {
    assert!(
        std::env::var_os("DLPM_REQUIRE_KERNEL").is_none_or(|value| value != "1"),
        "{test}: {why}"
    );
    eprintln!("SKIPPED {test}: {why}");
}

fn is_root(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip(test, "needs root");
    }
    is_root
}

/// Waits for what the writer's thread does.
fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "no {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_writer_that_is_dropped_ends_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let writer = LogWriter::start(options(folder.path())).unwrap();
    let mut segmenter = segmenter();
    for seq in 0..2 {
        writer.write(segmenter.next(&ledger(seq, all_zones())).unwrap());
    }
    drop(writer);
    assert_eq!(violations(&log_of(folder.path())), [""; 0]);
}

#[test]
fn a_writer_that_cannot_start_leaves_no_empty_log() {
    for metadata in ["no JSON", "[1]", "{\"description\": "] {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join(LOG_NAME);
        fs::write(folder.path().join(METADATA_NAME), metadata).unwrap();
        assert!(LogWriter::start(options(folder.path())).is_err());
        assert!(!log.exists());
        // One that was there is not dlpm's to remove.
        fs::write(&log, "").unwrap();
        assert!(LogWriter::start(options(folder.path())).is_err());
        assert!(log.exists());
    }
}

#[test]
fn metadata_is_written_at_both_ends_and_kept_by_append() {
    let folder = tempfile::tempdir().unwrap();
    let read = || -> Value { serde_json::from_slice(&fs::read(folder.path().join(METADATA_NAME)).unwrap()).unwrap() };
    let first = Metadata {
        description: Some("ResNet".to_owned()),
        ..metadata()
    };
    let writer = LogWriter::start(LogOptions {
        metadata: first.clone(),
        ..options(folder.path())
    })
    .unwrap();
    assert_eq!(read()["description"], "ResNet");
    assert_eq!(read().get("end_date"), None);
    let ended = Metadata {
        end_unix_ns: Some(first.start_unix_ns + 1_500_000_000),
        ..first.clone()
    };
    writer.finish(ended, PATIENCE);
    assert_eq!(read()["end_date"], "2026-01-01 00:00:01.500000+00:00");
    assert_eq!(read()["date"], "2026-01-01 00:00:00.000000+00:00");
    assert_eq!(read()["dlpm"]["notes"][0], "a note");

    let later = Metadata {
        start_unix_ns: first.start_unix_ns + 60_000_000_000,
        ..metadata()
    };
    let again = LogOptions {
        mode: FolderMode::Append,
        metadata: later.clone(),
        ..options(folder.path())
    };
    LogWriter::start(again).unwrap().finish(later, PATIENCE);
    assert_eq!(read()["description"], "ResNet");
    assert_eq!(read()["start_date"], "2026-01-01 00:00:00.000000+00:00");
    assert_eq!(read()["dlpm"]["start_date"], "2026-01-01 00:01:00.000000+00:00");
}

#[test]
fn another_metadata_json_is_not_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(METADATA_NAME), "not ours").unwrap();
    let error = LogWriter::start(options(folder.path())).err().unwrap().to_string();
    assert!(error.contains(METADATA_NAME), "{error}");
    assert_eq!(
        fs::read_to_string(folder.path().join(METADATA_NAME)).unwrap(),
        "not ours"
    );
}

#[test]
fn under_sudo_everything_belongs_to_the_user() {
    if !is_root("under_sudo_everything_belongs_to_the_user") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let folder = home.path().join("a/b");
    let writer = LogWriter::start(LogOptions {
        identity: Some(nobody()),
        ..options(&folder)
    })
    .unwrap();
    assert!(
        rustix::process::geteuid().is_root(),
        "only the writer's thread is the user"
    );
    writer.write(segmenter().next(&ledger(0, all_zones())).unwrap());
    writer.finish(metadata(), PATIENCE);
    for name in ["", LOG_NAME, METADATA_NAME] {
        let status = fs::metadata(folder.join(name)).unwrap();
        assert_eq!((status.uid(), status.gid()), (NOBODY, NOBODY), "{name}");
    }
    assert_eq!(
        fs::metadata(folder.join(LOG_NAME)).unwrap().permissions().mode() & 0o7777,
        0o644
    );

    // What only root may enter or write is refused, also through a link.
    let secret = tempfile::tempdir().unwrap();
    fs::set_permissions(secret.path(), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(secret.path(), home.path().join("link")).unwrap();
    for folder in [
        secret.path().to_owned(),
        home.path().join("link"),
        secret.path().join("below"),
    ] {
        let refused = LogWriter::start(LogOptions {
            identity: Some(nobody()),
            ..options(&folder)
        });
        let error = refused.err().unwrap().to_string();
        assert!(
            error.contains("as user alice, who called sudo") && error.contains("--output"),
            "{error}"
        );
    }
    assert_eq!(fs::read_dir(secret.path()).unwrap().count(), 0);
}

/// A file system of a few pages, mounted for the calling thread and those that it starts.
struct TinyDisk {
    folder: tempfile::TempDir,
}

impl TinyDisk {
    /// `None` where mounting is not allowed: `test` is skipped then.
    fn mount(test: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let target = std::ffi::CString::new(folder.path().as_os_str().as_encoded_bytes()).unwrap();
        let none = std::ptr::null();
        let check = |result| {
            if result == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        };
        let mount = || {
            // SAFETY: all strings live until the calls return; unsharing mounts changes nothing that Rust relies on.
            unsafe {
                check(libc::unshare(libc::CLONE_NEWNS))?;
                check(libc::mount(
                    c"none".as_ptr(),
                    c"/".as_ptr(),
                    none,
                    libc::MS_REC | libc::MS_PRIVATE,
                    none.cast(),
                ))?;
                let options = c"size=128k".as_ptr().cast();
                check(libc::mount(
                    c"tmpfs".as_ptr(),
                    target.as_ptr(),
                    c"tmpfs".as_ptr(),
                    0,
                    options,
                ))
            }
        };
        match mount() {
            Ok(()) => Some(Self { folder }),
            Err(error) => {
                skip(test, &format!("cannot mount: {error}"));
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let target = std::ffi::CString::new(self.path().as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: the string lives until the call returns.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Fills the file system up; remove the file to make room.
fn fill(folder: &Path) -> PathBuf {
    let filler = folder.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    for size in [4096, 1] {
        while io::Write::write_all(&mut file, &vec![0; size]).is_ok() {}
    }
    filler
}

#[test]
fn a_full_disk_keeps_lines_and_loses_none() {
    let Some(folder) = TinyDisk::mount("a_full_disk_keeps_lines_and_loses_none") else {
        return;
    };
    let writer = LogWriter::start(options(folder.path())).unwrap();
    let mut segmenter = segmenter();
    let mut seqs = 0..;
    let mut next = || segmenter.next(&ledger(seqs.next().unwrap(), all_zones())).unwrap();
    writer.write(next());
    until("first line", || writer.status().written_lines == 1);
    let filler = fill(folder.path());
    for _ in 0..5 {
        writer.write(next());
    }
    until("full disk", || writer.status().blocked.is_some());
    // Each try writes a part of a line and cuts it off again, so that a look at the wrong moment sees it.
    until("end of a whole line", || log_of(folder.path()).ends_with('\n'));
    let status = writer.status();
    assert!(status.queued_lines > 0 && status.dropped_intervals == 0, "{status:?}");

    fs::remove_file(filler).unwrap();
    // Without a new line: by the retry.
    until("write after there was room", || writer.status().written_lines == 6);
    assert!(writer.status().blocked.is_none());
    let report = writer.finish(metadata(), PATIENCE);
    assert!(
        report.complete && report.unwritten_lines == 0 && report.notes(true).is_empty(),
        "{report:?}"
    );
    assert_eq!(violations(&log_of(folder.path())), [""; 0]);
    assert_eq!(log_of(folder.path()).matches("\"rows\"").count(), 6);
}

#[test]
fn what_is_dropped_is_noted_with_its_sums() {
    let Some(folder) = TinyDisk::mount("what_is_dropped_is_noted_with_its_sums") else {
        return;
    };
    let mut segmenter = segmenter();
    let mut seqs = 0..;
    let mut next = || segmenter.next(&ledger(seqs.next().unwrap(), all_zones())).unwrap();
    let first = next();
    // Room for two lines and a half.
    let backlog_bytes = first[0].text().len() * 5 / 2;
    let writer = LogWriter::start(LogOptions {
        backlog_bytes,
        ..options(folder.path())
    })
    .unwrap();
    writer.write(first);
    until("first line", || writer.status().written_lines == 1);
    writer.write(next());
    until("second line", || writer.status().written_lines == 2);
    let filler = fill(folder.path());
    for _ in 0..7 {
        writer.write(next());
        thread::sleep(Duration::from_millis(20));
    }
    until("full disk", || writer.status().blocked.is_some());
    fs::remove_file(filler).unwrap();
    writer.write(next());
    let report = writer.finish(metadata(), PATIENCE);
    let log = log_of(folder.path());
    assert_eq!(violations(&log), [""; 0], "{log}");

    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let dropped: Vec<&Value> = lines.iter().filter(|line| line["dlpm"]["event"] == "dropped").collect();
    let sum = |of: fn(&Value) -> u64| dropped.iter().map(|line| of(&line["dlpm"])).sum::<u64>();
    let intervals = sum(|event| event["intervals"].as_u64().unwrap());
    assert!(intervals > 0);
    assert_eq!(intervals, report.dropped_intervals);
    assert!(report.notes(true)[0].contains(&intervals.to_string()));
    // No joule is lost from the totals.
    let whole = lines.iter().filter(|line| line["dlpm"].get("rows").is_some()).count() as u64;
    assert_eq!(intervals + whole, 10);
    assert_eq!(
        sum(|event| event["zones"]["package-0"].as_u64().unwrap()),
        intervals * 40_000_000
    );
    assert_eq!(
        sum(|event| event["cpu_ns"].as_u64().unwrap()),
        intervals * 1_500_000_000
    );
}

#[test]
fn a_disk_that_is_full_at_the_start_says_what_to_do() {
    let Some(folder) = TinyDisk::mount("a_disk_that_is_full_at_the_start_says_what_to_do") else {
        return;
    };
    let filler = fill(folder.path());
    let error = LogWriter::start(options(folder.path())).err().unwrap().to_string();
    assert!(error.contains("No space left") && error.contains("--output"), "{error}");
    fs::remove_file(filler).unwrap();
    // What that left behind is not a log.
    assert!(LogWriter::start(options(folder.path())).is_ok());
}

#[test]
fn a_disk_that_stays_full_is_reported() {
    let Some(folder) = TinyDisk::mount("a_disk_that_stays_full_is_reported") else {
        return;
    };
    let writer = LogWriter::start(options(folder.path())).unwrap();
    fill(folder.path());
    let mut segmenter = segmenter();
    // More than fits the last page of the log.
    for seq in 0..9 {
        writer.write(segmenter.next(&ledger(seq, all_zones())).unwrap());
    }
    let begin = Instant::now();
    let report = writer.finish(metadata(), Duration::from_millis(300));
    assert!(begin.elapsed() < PATIENCE);
    assert!(report.unwritten_lines > 0 && report.dropped_intervals > 0, "{report:?}");
    assert!(!report.notes(true).is_empty());
    let log = log_of(folder.path());
    assert!(log.is_empty() || log.ends_with('\n'), "{log}");
}

#[test]
fn a_log_that_was_deleted_is_lost_and_no_advice_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let mut segmenter = segmenter();
    let writer = LogWriter::start(options(folder.path())).unwrap();
    writer.write(segmenter.next(&ledger(0, all_zones())).unwrap());
    until("first line", || writer.status().written_lines == 1);
    fs::remove_file(folder.path().join(LOG_NAME)).unwrap();
    writer.write(segmenter.next(&ledger(1, all_zones())).unwrap());
    until("refused line", || writer.status().blocked.is_some());
    let outlook = writer.status().blocked.unwrap().outlook();
    assert!(outlook.contains("start another trace"), "{outlook}");
    let notes = writer.finish(metadata(), Duration::from_millis(300)).notes(true);
    assert!(notes.iter().any(|note| note.contains("was deleted")), "{notes:?}");
    assert!(!notes.iter().any(|note| note.contains("--append")), "{notes:?}");
}
