//! Whose memory is read: the listed processes, or the largest consumers of CPU time where everything is listed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    interval::{MemoryReading, Process, ProcessId, Usage},
    sources::{
        cgroups::CgroupTree,
        memory::{MemoryOptions, MemoryReader},
        processes::ProcessTable,
    },
};

/// Processes whose memory is read where no filter chooses any.
pub const LARGEST: usize = 50;

/// Processes whose memory is read under a filter, at most: the largest consumers of CPU time among them.
pub const LISTED: usize = 2_000;

/// Whether a process in the cgroup of that path is listed.
pub type Listed<'a> = dyn Fn(&Process, &str) -> bool + 'a;

/// What has been seen of a process while it runs.
#[derive(Clone, Copy, Default)]
struct Seen {
    cpu_ns: u64,
    cgroup_id: u64,
}

/// The reader of memory, and what it needs to know to choose.
pub struct MemoryWatch {
    /// `None` where its thread could not be started: then there are no readings.
    reader: Option<MemoryReader>,
    procfs: PathBuf,
    seen: HashMap<ProcessId, Seen>,
}

impl MemoryWatch {
    /// Starts the reader; it reads nobody's memory yet.
    pub fn start(procfs: &Path, options: MemoryOptions) -> Self {
        let reader = MemoryReader::start(procfs, options)
            .inspect_err(|error| log::warn!("memory is not read, its thread cannot be started: {error}"))
            .ok();
        Self {
            reader,
            procfs: procfs.to_owned(),
            seen: HashMap::new(),
        }
    }

    /// Counts the CPU time of an interval.
    pub fn count(&mut self, usage: &[Usage]) {
        for usage in usage {
            let seen = self.seen.entry(usage.process).or_default();
            seen.cpu_ns += usage.ns;
            seen.cgroup_id = usage.cgroup_id;
        }
    }

    /// Chooses anew: of all processes that `listed` accepts, or of all, the largest consumers.
    pub fn choose(&mut self, processes: &ProcessTable, cgroups: &mut CgroupTree, listed: Option<&Listed<'_>>) {
        let Some(reader) = &self.reader else { return };
        self.seen
            .retain(|process, _| processes.get(process).is_some_and(|process| !process.exited));
        let mut chosen = Vec::new();
        for (&id, process) in processes.alive().filter(|(_, process)| !process.kernel) {
            let Some(listed) = listed else {
                // Without a filter only processes that run can be large consumers.
                chosen.extend(self.seen.get(&id).map(|seen| (id, *seen)));
                continue;
            };
            let seen = self.seen.entry(id).or_insert_with(|| Seen {
                cpu_ns: 0,
                cgroup_id: cgroup_id(&self.procfs, cgroups.mount_point(), id.tgid).unwrap_or(0),
            });
            let path = cgroups.path_of(seen.cgroup_id).unwrap_or_default();
            if listed(process, &path) {
                chosen.push((id, *seen));
            }
        }
        chosen.sort_unstable_by_key(|(id, seen)| (Reverse(seen.cpu_ns), *id));
        chosen.truncate(if listed.is_some() { LISTED } else { LARGEST });
        let chosen: Vec<_> = chosen.into_iter().map(|(id, seen)| (id, seen.cgroup_id)).collect();
        reader.watch(&chosen);
    }

    /// The newest readings of those chosen processes that are there, with the cgroup that each was in.
    pub fn readings(&self, processes: &ProcessTable) -> BTreeMap<ProcessId, (u64, MemoryReading)> {
        let mut readings = self.reader.as_ref().map(MemoryReader::readings).unwrap_or_default();
        readings.retain(|process, (cgroup_id, _)| {
            if let Some(seen) = self.seen.get(process) {
                *cgroup_id = seen.cgroup_id;
            }
            processes.get(process).is_some_and(|process| !process.exited)
        });
        readings
    }
}

/// Id of the cgroup v2 that a process is in: for processes that have not run since the start.
pub(super) fn cgroup_id(procfs: &Path, mount_point: &Path, tgid: u32) -> Option<u64> {
    let text = fs::read_to_string(procfs.join(format!("{tgid}/cgroup"))).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(fs::metadata(mount_point.join(path)).ok()?.ino())
}
