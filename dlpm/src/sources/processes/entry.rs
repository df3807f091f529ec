//! The kernel's entries, and what `/proc` adds to them.

use std::{path::Path, sync::Arc};

use dlpm_common::{COMM_BYTES, ProcessKey, ProcessRecord};

use crate::{interval::ProcessId, sources::proc_fs};

/// The kernel's key of a process.
pub(super) fn key(process: ProcessId) -> ProcessKey {
    ProcessKey {
        start_ns: process.start_ns,
        tgid: process.tgid,
        padding: 0,
    }
}

/// The process that a key identifies.
pub(super) fn id(key: ProcessKey) -> ProcessId {
    ProcessId {
        tgid: key.tgid,
        start_ns: key.start_ns,
    }
}

/// The process that forked the one of this entry; `None` if unknown.
pub(super) fn parent_of(record: &ProcessRecord) -> Option<ProcessId> {
    (record.parent_tgid != 0).then_some(ProcessId {
        tgid: record.parent_tgid,
        start_ns: record.parent_start_ns,
    })
}

/// A zero-terminated name.
pub(super) fn text(bytes: &[u8]) -> Arc<str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into()
}

/// File name of the program that a process runs, cut as the kernel cuts names.
pub(super) fn executable_name(procfs: &Path, process: ProcessId) -> Option<Arc<str>> {
    let target = std::fs::read_link(procfs.join(format!("{}/exe", process.tgid))).ok()?;
    let ticks = proc_fs::start_ticks(procfs, process.tgid)?;
    if process.start_ns != 0 && ticks != proc_fs::ticks_of(process.start_ns) {
        return None;
    }
    let name = target.file_name()?.to_string_lossy();
    let name = name.strip_suffix(" (deleted)").unwrap_or(&name);
    Some(name.chars().take(COMM_BYTES - 1).collect::<String>().into())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn names_end_at_the_first_zero() {
        assert_eq!(&*text(b"python3\0stale\0"), "python3");
        assert_eq!(&*text(b"exactly16bytes!!"), "exactly16bytes!!");
        assert_eq!(&*text(b"\0"), "");
    }

    #[test]
    fn a_process_without_a_parent() {
        assert_eq!(parent_of(&ProcessRecord::default()), None);
        let forked = ProcessRecord {
            parent_tgid: 7,
            parent_start_ns: 9,
            ..ProcessRecord::default()
        };
        assert_eq!(parent_of(&forked), Some(ProcessId { tgid: 7, start_ns: 9 }));
    }

    #[test]
    fn the_executable_names_a_process_that_was_renamed() {
        let procfs = tempfile::tempdir().unwrap();
        let process = procfs.path().join("7");
        fs::create_dir(&process).unwrap();
        let fields = ["0"; 17].join(" ");
        fs::write(process.join("stat"), format!("7 (pt_main_thread) S 1 {fields} 5 0")).unwrap();
        symlink(
            "/opt/env/bin/python3.11-with-a-long-name (deleted)",
            process.join("exe"),
        )
        .unwrap();
        let started = |ticks: u64| ProcessId {
            tgid: 7,
            start_ns: ticks * 10_000_000,
        };
        assert_eq!(
            executable_name(procfs.path(), started(5)).as_deref(),
            Some("python3.11-with")
        );
        assert_eq!(
            executable_name(procfs.path(), started(6)),
            None,
            "another process with the same pid"
        );
    }
}
