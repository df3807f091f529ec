//! What is accepted as an output folder, and what is repaired in it.

use std::{fs, os::unix::fs::symlink};

use super::*;

const SAMPLE: &str = "{\"date\":\"2026-01-01 00:00:00.000000+00:00\",\"metrics\":{\"cpu\":{}}}\n";
const END: &str = "\"END OF RECORDING SEGMENT\"\n";

fn with_log(contents: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(LOG_NAME), contents).unwrap();
    folder
}

fn contents(folder: &tempfile::TempDir) -> String {
    fs::read_to_string(folder.path().join(LOG_NAME)).unwrap()
}

#[test]
fn a_log_is_not_touched_unasked() {
    let folder = with_log(SAMPLE);
    let error = OutputFolder::create(folder.path(), FolderMode::New)
        .unwrap_err()
        .to_string();
    assert!(error.contains("--append") && error.contains("--overwrite"), "{error}");
    assert_eq!(contents(&folder), SAMPLE);

    drop(OutputFolder::create(folder.path(), FolderMode::Overwrite).unwrap());
    assert_eq!(contents(&folder), "");
    // As where a trace could not start.
    drop(OutputFolder::create(folder.path(), FolderMode::New).unwrap());
}

#[test]
fn folders_above_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("a/b");
    let mut output = OutputFolder::create(&below, FolderMode::New).unwrap();
    output.write_line(SAMPLE).unwrap();
    assert_eq!(fs::read_to_string(below.join(LOG_NAME)).unwrap(), SAMPLE);
}

#[test]
fn append_repairs_the_end() {
    let whole = format!("{SAMPLE}{SAMPLE}{END}");
    let closed = format!("{SAMPLE}{END}");
    for (before, after) in [
        (String::new(), String::new()),
        (whole.clone(), whole.clone()),
        (SAMPLE.to_owned(), closed.clone()),
        // Torn: in the middle of a line, before the newline only, by zeros after a power cut, with a newline.
        (format!("{SAMPLE}{{\"date\":\"20"), closed.clone()),
        (SAMPLE.trim_end().to_owned(), closed.clone()),
        (closed.trim_end().to_owned(), closed.clone()),
        (format!("{SAMPLE}\"END OF REC"), closed.clone()),
        (format!("{closed}\0\0\0\0"), closed.clone()),
        (format!("{SAMPLE}{{\"date\":\n"), closed.clone()),
        ("{\"date".to_owned(), String::new()),
        // Blank lines go; between lines they become a blank at the end of the line before.
        (format!("{closed}\n\n"), closed.clone()),
        (format!("\n\n{closed}"), format!("  {closed}")),
        (
            format!("{}\n\n{END}", SAMPLE),
            format!("{}  \n{END}", SAMPLE.trim_end()),
        ),
        // Events do not make a segment.
        ("{\"metrics\":{}}\n".to_owned(), "{\"metrics\":{}}\n".to_owned()),
    ] {
        let folder = with_log(&before);
        drop(OutputFolder::create(folder.path(), FolderMode::Append).unwrap());
        assert_eq!(contents(&folder), after, "from {before:?}");
        let again = OutputFolder::create(folder.path(), FolderMode::Append).unwrap();
        assert_eq!(again.notes(), [""; 0], "from {after:?}");
        assert_eq!(contents(&folder), after);
    }
}

#[test]
fn what_is_no_log_is_left_alone() {
    for foreign in [
        "hello\n",
        "hello",
        "{\n  \"metrics\": {}\n}\n",
        "{\"a\":1}\n",
        "[1]\n",
        "12\n",
        &format!("{SAMPLE}{{torn\n{SAMPLE}"),
    ] {
        let folder = with_log(foreign);
        let error = OutputFolder::create(folder.path(), FolderMode::Append)
            .unwrap_err()
            .to_string();
        assert!(error.contains("line"), "{error}");
        assert_eq!(contents(&folder), foreign);
    }
}

#[test]
fn planted_links_are_refused() {
    let victim = tempfile::NamedTempFile::new().unwrap();
    fs::write(victim.path(), SAMPLE).unwrap();
    for mode in [FolderMode::New, FolderMode::Append, FolderMode::Overwrite] {
        let folder = tempfile::tempdir().unwrap();
        symlink(victim.path(), folder.path().join(LOG_NAME)).unwrap();
        assert!(OutputFolder::create(folder.path(), mode).is_err());
        fs::remove_file(folder.path().join(LOG_NAME)).unwrap();
        if fs::hard_link(victim.path(), folder.path().join(LOG_NAME)).is_ok() {
            assert!(OutputFolder::create(folder.path(), mode).is_err());
        }
        fs::remove_file(folder.path().join(LOG_NAME)).unwrap();
        fs::create_dir(folder.path().join(LOG_NAME)).unwrap();
        assert!(OutputFolder::create(folder.path(), mode).is_err());
    }
    assert_eq!(fs::read_to_string(victim.path()).unwrap(), SAMPLE);

    let folder = tempfile::tempdir().unwrap();
    let output = OutputFolder::create(folder.path(), FolderMode::New).unwrap();
    symlink(victim.path(), folder.path().join("metadata.json")).unwrap();
    symlink(victim.path(), folder.path().join(".metadata.json.tmp")).unwrap();
    output.replace("metadata.json", b"{}").unwrap();
    assert_eq!(fs::read_to_string(victim.path()).unwrap(), SAMPLE);
    assert_eq!(output.read("metadata.json").unwrap().unwrap(), b"{}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn two_traces_cannot_write_one_log() {
    let folder = tempfile::tempdir().unwrap();
    let _first = OutputFolder::create(folder.path(), FolderMode::New).unwrap();
    for mode in [FolderMode::New, FolderMode::Append, FolderMode::Overwrite] {
        let error = OutputFolder::create(folder.path(), mode).unwrap_err();
        assert!(matches!(error, FolderError::InUse(_)), "{error}");
    }
}

#[test]
fn a_deleted_log_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut output = OutputFolder::create(folder.path(), FolderMode::New).unwrap();
    fs::remove_file(folder.path().join(LOG_NAME)).unwrap();
    assert_eq!(output.write_line(SAMPLE).unwrap_err().kind(), io::ErrorKind::NotFound);
}

/// What something else does to a log of three lines between two writes, and what it is then.
#[track_caller]
fn changed(change: impl Fn(&Path), lost: bool, says: &str, left: &str) {
    let directory = tempfile::tempdir().unwrap();
    let mut folder = OutputFolder::create(directory.path(), FolderMode::New).unwrap();
    for line in [SAMPLE, SAMPLE, EVENT] {
        assert_eq!(folder.settle().unwrap(), None);
        folder.write_line(line).unwrap();
    }
    let log = directory.path().join(LOG_NAME);
    change(&log);
    let found = folder.settle().unwrap().unwrap();
    assert!(found.lost == lost && found.what.contains(says), "{found:?}");
    assert_eq!(folder.settle().unwrap(), None, "told once");
    folder.write_line(SAMPLE).unwrap();
    assert_eq!(folder.settle().unwrap(), None);
    drop(folder);
    if log.exists() && fs::read_to_string(&log).unwrap() != "other" {
        assert_eq!(fs::read_to_string(&log).unwrap(), format!("{left}{SAMPLE}"));
        OutputFolder::create(directory.path(), FolderMode::Append).unwrap();
    }
}

const EVENT: &str = "{\"metrics\":{},\"dlpm\":{\"schema\":1,\"event\":\"gap\"}}\n";

fn cut(lost_bytes: usize) -> String {
    format!("{{\"metrics\":{{}},\"dlpm\":{{\"schema\":1,\"event\":\"cut\",\"lost_bytes\":{lost_bytes}}}}}\n")
}

#[test]
fn a_log_that_something_else_changes_stays_readable() {
    let set_length = |length: usize| {
        move |log: &Path| {
            let file = fs::OpenOptions::new().write(true).open(log).unwrap();
            file.set_len(length as u64).unwrap();
        }
    };
    let whole = format!("{SAMPLE}{SAMPLE}{EVENT}");
    // As copytruncate does.
    changed(set_length(0), true, "bytes of it are gone", &cut(whole.len()));
    let rest = SAMPLE.len() + EVENT.len();
    let one = format!("{SAMPLE}{END}{}", cut(rest));
    changed(set_length(SAMPLE.len()), true, "bytes of it are gone", &one);
    changed(set_length(SAMPLE.len() + 5), true, "bytes of it are gone", &one);
    let append = |text: &'static str| {
        move |log: &Path| {
            let mut file = fs::OpenOptions::new().append(true).open(log).unwrap();
            io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        }
    };
    for text in ["garbage", "garbage\n", "{\"date\":", "\n\n", "\0\0\0"] {
        changed(append(text), false, "were cut off", &whole);
    }
    changed(
        |log| fs::rename(log, log.with_extension("1")).unwrap(),
        false,
        "moved",
        "",
    );
    let replace = |log: &Path| {
        fs::rename(log, log.with_extension("1")).unwrap();
        fs::write(log, "other").unwrap();
    };
    changed(replace, false, "moved or replaced", "");
}
