//! Whose memory is read: the listed processes, or the largest consumers of CPU time where everything is listed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use foldhash::{HashMap, HashMapExt};

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

/// Whether a process in the cgroup with this path is listed.
pub type Listed<'a> = &'a dyn Fn(ProcessId, &Process, &str) -> bool;

/// How often every process is looked at, and not only those that ran: for what changes without the process running.
const ALL_EVERY: Duration = Duration::from_secs(60);

/// What has been seen of a process while it runs.
#[derive(Clone, Copy, Default)]
struct Seen {
    cpu_ns: u64,
    cgroup_id: u64,
    /// The CPU time under which it is ranked, if it is: see [`coarse`].
    rank: Option<u64>,
    /// It ran since the last choice.
    ran: bool,
}

/// The reader of memory, and what it needs to know to choose.
pub struct MemoryWatch {
    /// `None` if its thread could not be started: then there are no readings.
    reader: Option<MemoryReader>,
    procfs: PathBuf,
    seen: HashMap<ProcessId, Seen>,
    /// Processes that can be chosen, the largest consumer first. Kept from one choice to the next, so that choosing
    /// costs what ran meanwhile and not what exists.
    ranked: BTreeSet<(Reverse<u64>, ProcessId)>,
    chosen: Vec<ProcessId>,
    /// Processes that ran since the last choice, each once.
    ran: Vec<ProcessId>,
    looked_at_all: Option<Instant>,
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
            ranked: BTreeSet::new(),
            chosen: Vec::new(),
            ran: Vec::new(),
            looked_at_all: None,
        }
    }

    /// Counts the CPU time of an interval.
    pub fn count(&mut self, usage: &[Usage]) {
        if self.reader.is_none() {
            return;
        }
        for usage in usage {
            let seen = self.seen.entry(usage.process).or_default();
            seen.cpu_ns += usage.ns;
            seen.cgroup_id = usage.cgroup_id;
            if !std::mem::replace(&mut seen.ran, true) {
                self.ran.push(usage.process);
            }
        }
    }

    /// Chooses anew: of all processes that `listed` accepts, or of all that ran, the largest consumers (see [`places`]). A
    /// process that has not run since the last choice is judged anew within [`ALL_EVERY`] only. Where the memory of a cgroup
    /// `is_known`, none of its processes is chosen.
    pub fn choose(
        &mut self,
        processes: &ProcessTable,
        cgroups: &mut CgroupTree,
        listed: Option<Listed<'_>>,
        is_known: &dyn Fn(&str) -> bool,
    ) {
        if self.reader.is_none() {
            return;
        }
        let mut changed = std::mem::take(&mut self.ran);
        if self.looked_at_all.is_none_or(|looked| looked.elapsed() >= ALL_EVERY) {
            self.looked_at_all = Some(Instant::now());
            changed.extend(self.seen.keys());
            // Without a filter only processes that run can be large consumers.
            if listed.is_some() {
                changed.extend(processes.alive().map(|(&id, _)| id));
            }
        }
        for id in changed {
            self.judge(id, processes, cgroups, listed, is_known);
        }
        let most = if listed.is_some() { LISTED } else { LARGEST };
        let rank_of = |id: &ProcessId| Some((self.seen.get(id)?.rank?, *id));
        self.chosen = places(self.chosen.iter().filter_map(rank_of).collect(), &self.ranked, most);
        let cgroup_id_of = |id| self.seen.get(id).map_or(0, |seen| seen.cgroup_id);
        let chosen: Vec<_> = self.chosen.iter().map(|id| (*id, cgroup_id_of(id))).collect();
        if let Some(reader) = &self.reader {
            reader.watch(&chosen);
        }
    }

    /// Ranks a process by its CPU time, or takes it out where it is not to be chosen.
    fn judge(
        &mut self,
        id: ProcessId,
        processes: &ProcessTable,
        cgroups: &mut CgroupTree,
        listed: Option<Listed<'_>>,
        is_known: &dyn Fn(&str) -> bool,
    ) {
        let alive = processes.get(&id).filter(|process| !process.exited && !process.kernel);
        let Some(process) = alive else {
            if let Some(rank) = self.seen.remove(&id).and_then(|seen| seen.rank) {
                self.ranked.remove(&(Reverse(rank), id));
            }
            return;
        };
        let seen = self.seen.entry(id).or_insert_with(|| Seen {
            cgroup_id: cgroup_id(&self.procfs, cgroups.mount_point(), id.tgid).unwrap_or(0),
            ..Seen::default()
        });
        seen.ran = false;
        let cgroup = cgroups.path_of(seen.cgroup_id).unwrap_or_default();
        let is_listed = !is_known(&cgroup) && listed.is_none_or(|listed| listed(id, process, &cgroup));
        let rank = is_listed.then(|| coarse(seen.cpu_ns));
        let before = std::mem::replace(&mut seen.rank, rank);
        if before == rank {
            return;
        }
        if let Some(before) = before {
            self.ranked.remove(&(Reverse(before), id));
        }
        if let Some(rank) = rank {
            self.ranked.insert((Reverse(rank), id));
        }
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

/// The processes that are read, of those that are ranked. A process stays in the sample until another has used twice its
/// CPU time: each new one costs a reading, and among equals there would be new ones all the time.
fn places(
    mut chosen: BTreeSet<(u64, ProcessId)>,
    ranked: &BTreeSet<(Reverse<u64>, ProcessId)>,
    most: usize,
) -> Vec<ProcessId> {
    for &(Reverse(rank), id) in ranked {
        if chosen.contains(&(rank, id)) {
            continue;
        }
        if chosen.len() >= most {
            let Some(&(smallest, _)) = chosen.first() else { break };
            if rank <= smallest || rank < smallest.saturating_mul(2) {
                break;
            }
            chosen.pop_first();
        }
        chosen.insert((rank, id));
    }
    chosen.into_iter().map(|(_, id)| id).collect()
}

/// Rounded down to four binary digits: ranks are right to an eighth, and a process that goes on running changes its own
/// seldom.
fn coarse(ns: u64) -> u64 {
    let digits = ns.checked_ilog2().unwrap_or(0);
    ns >> digits.saturating_sub(3) << digits.saturating_sub(3)
}

/// Id of the cgroup v2 that a process is in: for processes that have not run since the start.
pub(super) fn cgroup_id(procfs: &Path, mount_point: &Path, tgid: u32) -> Option<u64> {
    let text = fs::read_to_string(procfs.join(format!("{tgid}/cgroup"))).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(fs::metadata(mount_point.join(path)).ok()?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(tgid: u32) -> ProcessId {
        ProcessId { tgid, start_ns: 1 }
    }

    /// Who has the three places after each of these rounds of CPU times, by process.
    fn chosen(rounds: &[&[u64]]) -> Vec<Vec<u32>> {
        let mut chosen = Vec::new();
        let choose = |ranks: &&[u64]| {
            let ranks: Vec<(u64, ProcessId)> = ranks.iter().copied().zip((1..).map(process)).collect();
            let ranked = ranks.iter().map(|&(rank, id)| (Reverse(rank), id)).collect();
            let incumbents = ranks.iter().filter(|(_, id)| chosen.contains(id)).copied().collect();
            chosen = places(incumbents, &ranked, 3);
            let mut tgids: Vec<u32> = chosen.iter().map(|id| id.tgid).collect();
            tgids.sort_unstable();
            tgids
        };
        rounds.iter().map(choose).collect()
    }

    #[test]
    fn the_largest_are_chosen() {
        assert_eq!(chosen(&[&[1, 9, 5, 7, 3]]), [[2, 3, 4]]);
        assert_eq!(chosen(&[&[4, 2]]), [[1, 2]]);
        assert_eq!(chosen(&[&[0, 0, 0, 0]]), [[1, 2, 3]]);
    }

    #[test]
    fn who_is_chosen_stays_until_another_has_twice_as_much() {
        let first: &[u64] = &[4, 4, 4, 3, 0];
        assert_eq!(chosen(&[first, &[4, 4, 4, 7, 7]]), [[1, 2, 3], [1, 2, 3]]);
        assert_eq!(chosen(&[first, &[4, 4, 5, 7, 8]]), [[1, 2, 3], [2, 3, 5]]);
        assert_eq!(chosen(&[first, &[1, 2, 3, 60, 50]]), [[1, 2, 3], [3, 4, 5]]);
        assert_eq!(chosen(&[&[0, 0, 0, 0], &[0, 0, 0, 0]]), [[1, 2, 3], [1, 2, 3]]);
    }

    #[test]
    fn who_is_gone_leaves_its_place() {
        assert_eq!(chosen(&[&[9, 8, 7, 1], &[9, 8]]), [vec![1, 2, 3], vec![1, 2]]);
        assert_eq!(chosen(&[&[1, 9, 8, 7], &[1, 9, 8]]), [[2, 3, 4], [1, 2, 3]]);
    }

    #[test]
    fn ranks_are_right_to_an_eighth_and_change_seldom() {
        let ranks: Vec<u64> = (0..100_000).map(coarse).collect();
        for (ns, &rank) in (0_u64..).zip(&ranks) {
            assert!(rank <= ns && ns - rank <= ns / 8, "{rank} for {ns}");
        }
        assert!(ranks.is_sorted());
        let mut different = ranks;
        different.dedup();
        assert!(different.len() <= 8 * 17, "{}", different.len());
        assert_eq!(coarse(u64::MAX), 15 << 60);
    }
}
