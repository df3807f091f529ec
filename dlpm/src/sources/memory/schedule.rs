//! Which process is read next, and when: no file, no clock.

use std::collections::BTreeMap;

use crate::interval::{MemoryReading, ProcessId};

/// Reading time that may be spent ahead of the budget: a few dozen small processes are read at once, a large one is
/// followed by its rest.
const BURST_NS: u64 = 50_000_000;

/// Reading time as a share of the time that passes: what is read is owed, and the debt shrinks while time passes.
#[derive(Debug)]
pub(super) struct Budget {
    permille: u64,
    owed_ns: u64,
    at_ns: u64,
}

impl Budget {
    /// `permille` of the time may be spent reading, at least one and at most 1000.
    pub(super) fn new(permille: u32, now_ns: u64) -> Self {
        Self {
            permille: u64::from(permille.clamp(1, 1000)),
            owed_ns: 0,
            at_ns: now_ns,
        }
    }

    /// A reading that took `spent_ns` and ended now.
    pub(super) fn spend(&mut self, spent_ns: u64, now_ns: u64) {
        self.pass(now_ns);
        self.owed_ns = self.owed_ns.saturating_add(spent_ns);
    }

    /// When the next reading may begin; now or earlier means at once.
    fn ready_at_ns(&mut self, now_ns: u64) -> u64 {
        self.pass(now_ns);
        let rest_ns = self.owed_ns.saturating_sub(BURST_NS).saturating_mul(1000) / self.permille;
        now_ns.saturating_add(rest_ns)
    }

    fn pass(&mut self, now_ns: u64) {
        let passed_ns = now_ns.saturating_sub(self.at_ns);
        let earned_ns = (passed_ns / 1000).saturating_mul(self.permille);
        self.owed_ns = self.owed_ns.saturating_sub(earned_ns);
        // What was too short to count stays for the next time.
        self.at_ns = now_ns.max(self.at_ns) - passed_ns % 1000;
    }
}

/// The processes that are watched and what was read of them.
#[derive(Debug, Default)]
pub(super) struct Watched {
    processes: BTreeMap<ProcessId, Entry>,
}

#[derive(Debug)]
struct Entry {
    cgroup_id: u64,
    reading: Option<MemoryReading>,
    /// When it is to be read in full; 0 for one that is new.
    due_ns: u64,
}

/// What the reading thread is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Read the resident set size, which costs microseconds.
    Rss(ProcessId),
    /// Read everything, which takes as long as the process is large.
    Full(ProcessId),
    /// Wait until this time, or until the watched processes change.
    Wait {
        /// CLOCK_MONOTONIC; `None` if nothing is watched.
        until_ns: Option<u64>,
    },
}

impl Watched {
    /// Replaces the set. What is known of the processes that stay is kept. Returns whether there is a new one.
    pub(super) fn replace(&mut self, processes: &[(ProcessId, u64)]) -> bool {
        let mut before = std::mem::take(&mut self.processes);
        let mut any_new = false;
        for &(process, cgroup_id) in processes {
            let mut entry = before.remove(&process).unwrap_or_else(|| {
                any_new = !self.processes.contains_key(&process);
                Entry {
                    cgroup_id,
                    reading: None,
                    due_ns: 0,
                }
            });
            entry.cgroup_id = cgroup_id;
            // The same process given twice keeps what its first mention brought along.
            self.processes.entry(process).or_insert(entry).cgroup_id = cgroup_id;
        }
        any_new
    }

    /// A process without any value comes first, since that is cheap; then the one that is due for longest, as soon
    /// as the budget allows.
    pub(super) fn next(&self, budget: &mut Budget, now_ns: u64) -> Next {
        if let Some((&process, _)) = self.processes.iter().find(|(_, entry)| entry.reading.is_none()) {
            return Next::Rss(process);
        }
        let Some((&process, entry)) = self.processes.iter().min_by_key(|(_, entry)| entry.due_ns) else {
            return Next::Wait { until_ns: None };
        };
        let begin_ns = entry.due_ns.max(budget.ready_at_ns(now_ns));
        if begin_ns > now_ns {
            return Next::Wait {
                until_ns: Some(begin_ns),
            };
        }
        Next::Full(process)
    }

    /// Stores a reading; a full one is due again at `due_ns`. A process that is not watched any more is not stored.
    pub(super) fn store(&mut self, process: ProcessId, reading: MemoryReading, due_ns: Option<u64>) {
        if let Some(entry) = self.processes.get_mut(&process) {
            entry.reading = Some(reading);
            entry.due_ns = due_ns.unwrap_or(entry.due_ns);
        }
    }

    pub(super) fn forget(&mut self, process: ProcessId) {
        self.processes.remove(&process);
    }

    /// The newest readings, each with the cgroup that the process was in when it was watched last.
    pub(super) fn readings(&self) -> BTreeMap<ProcessId, (u64, MemoryReading)> {
        self.processes
            .iter()
            .filter_map(|(&process, entry)| Some((process, (entry.cgroup_id, entry.reading?))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MS;

    fn process(tgid: u32) -> ProcessId {
        ProcessId { tgid, start_ns: 1 }
    }

    fn reading(rss_bytes: u64) -> MemoryReading {
        MemoryReading {
            rss_bytes,
            ..MemoryReading::default()
        }
    }

    #[test]
    fn a_slow_reading_is_followed_by_its_rest() {
        let mut budget = Budget::new(50, 0);
        assert_eq!(budget.ready_at_ns(0), 0);
        budget.spend(SECOND, SECOND);
        // 1 s at 5 % is 20 s, less the 1 s that a burst of 50 ms is worth.
        assert_eq!(budget.ready_at_ns(SECOND), 20 * SECOND);
        assert_eq!(budget.ready_at_ns(10 * SECOND), 20 * SECOND);
        assert_eq!(budget.ready_at_ns(30 * SECOND), 30 * SECOND);
    }

    #[test]
    fn on_average_the_budget_is_kept() {
        let mut budget = Budget::new(50, 0);
        let (mut now, mut spent) = (0, 0);
        while now < 1_000 * SECOND {
            now = budget.ready_at_ns(now);
            let cost = 7 * MS + 13;
            now += cost;
            spent += cost;
            budget.spend(cost, now);
        }
        let allowed = now / 20 + BURST_NS + 8 * MS;
        assert!(spent <= allowed, "{spent} of {allowed}");
        assert!(spent > now / 21, "and it is used: {spent}");
    }

    #[test]
    fn every_process_has_a_value_before_one_is_read_in_full() {
        let mut budget = Budget::new(50, 0);
        let mut watched = Watched::default();
        assert_eq!(watched.next(&mut budget, 0), Next::Wait { until_ns: None });
        assert!(watched.replace(&[(process(1), 10), (process(2), 10)]));
        assert_eq!(watched.next(&mut budget, 0), Next::Rss(process(1)));
        watched.store(process(1), reading(1), None);
        assert_eq!(watched.next(&mut budget, 0), Next::Rss(process(2)));
        watched.store(process(2), reading(2), None);
        assert_eq!(watched.next(&mut budget, 0), Next::Full(process(1)));
        watched.store(process(1), reading(3), Some(10 * SECOND));
        assert_eq!(watched.next(&mut budget, 0), Next::Full(process(2)));
        watched.store(process(2), reading(4), Some(11 * SECOND));
        let wait = Next::Wait {
            until_ns: Some(10 * SECOND),
        };
        assert_eq!(watched.next(&mut budget, SECOND), wait);
        assert_eq!(watched.next(&mut budget, 10 * SECOND), Next::Full(process(1)));
    }

    #[test]
    fn a_new_process_has_its_first_value_also_while_the_reader_rests() {
        let mut budget = Budget::new(50, 0);
        budget.spend(10 * SECOND, 10 * SECOND);
        let mut watched = Watched::default();
        watched.replace(&[(process(1), 10)]);
        assert_eq!(watched.next(&mut budget, 10 * SECOND), Next::Rss(process(1)));
        watched.store(process(1), reading(1), None);
        assert!(matches!(
            watched.next(&mut budget, 10 * SECOND),
            Next::Wait { until_ns: Some(_) }
        ));
    }

    #[test]
    fn replacing_the_set_keeps_what_stays() {
        let mut watched = Watched::default();
        watched.replace(&[(process(1), 10), (process(2), 10)]);
        watched.store(process(1), reading(7), Some(5));
        assert!(!watched.replace(&[(process(1), 11), (process(1), 12)]));
        assert_eq!(watched.readings(), BTreeMap::from([(process(1), (12, reading(7)))]));
        watched.store(process(2), reading(8), None);
        assert_eq!(watched.readings().len(), 1, "no longer watched");
        assert!(watched.replace(&[(process(3), 10)]));
        assert!(watched.readings().is_empty());
    }
}
