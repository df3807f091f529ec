//! A process that has been seen.

use std::{path::Path, sync::Arc};

use dlpm_common::ProcessRecord;

use super::entry::text;
use crate::{
    interval::{Process, ProcessId},
    sources::proc_fs,
};

/// Generations until a root-owned process is asked for its user: only such a process can change it without an exec. The
/// time doubles with each asking, since rights are given up soon after the start or hardly ever.
const UID_FIRST: u64 = 10;

/// What is known of a process.
pub(super) struct Known {
    /// The kernel's entry as it was looked up last.
    pub(super) record: ProcessRecord,
    pub(super) process: Arc<Process>,
    /// Generation in which it ran last.
    pub(super) ran: u64,
    /// Generation in which it was asked for its user, and the one from which on it is asked again.
    uid_asked: u64,
    uid_due: u64,
}

impl Known {
    pub(super) fn new(process: ProcessId, record: ProcessRecord, described: Process, generation: u64) -> Self {
        Self {
            record,
            process: Arc::new(described),
            ran: generation,
            uid_asked: generation,
            uid_due: uid_due(process, generation + UID_FIRST),
        }
    }

    /// It has run in this generation.
    pub(super) fn runs_again(&mut self, process: ProcessId, generation: u64, procfs: &Path) {
        self.ran = generation;
        if generation >= self.uid_due {
            self.refresh_uid(process, generation, procfs);
        }
    }

    /// Takes over what the kernel's entry says now. Whether the process has exited since the last time.
    pub(super) fn change(&mut self, record: ProcessRecord) -> bool {
        if self.record == record {
            return false;
        }
        let described = Arc::make_mut(&mut self.process);
        described.exited = record.exit_ns != 0;
        if record.comm != self.record.comm {
            described.comm = text(&record.comm);
        }
        if record.exec_comm != self.record.exec_comm || record.flags != self.record.flags {
            described.exec_comm = text(&record.exec_comm);
        }
        if record.uid != self.record.uid || record.exit_ns != 0 {
            described.uid = Some(record.uid);
        }
        let was_there = self.record.exit_ns == 0;
        self.record = record;
        was_there && record.exit_ns != 0
    }

    /// Finds out whether a process that was root's has another user now.
    fn refresh_uid(&mut self, process: ProcessId, generation: u64, procfs: &Path) {
        let waited = generation - self.uid_asked;
        self.uid_asked = generation;
        self.uid_due = uid_due(process, generation + 2 * waited);
        if self.process.uid != Some(0) || self.process.kernel || self.process.exited {
            return;
        }
        // One system call for nearly all of them. A process that keeps root's rights under another user's id is
        // told by its exit.
        if proc_fs::effective_uid(procfs, process.tgid) == Some(0) {
            return;
        }
        if let Some(entry) = proc_fs::read_one(procfs, process.tgid)
            && entry.start_ticks == proc_fs::ticks_of(process.start_ns)
        {
            let described = Arc::make_mut(&mut self.process);
            described.uid = entry.uid.or(described.uid);
        }
    }
}

/// Processes that became known together are not asked together.
fn uid_due(process: ProcessId, generation: u64) -> u64 {
    generation + u64::from(process.tgid) % UID_FIRST
}
