//! Listed processes by their name.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use super::{Amount, Usage};
use crate::{
    attribution::ledger::{Ledger, RowKey},
    interval::ProcessId,
};

/// Names that are kept at most.
const NAMES: usize = 4_000;

/// Names that are left when there were too many.
const NAMES_KEPT: usize = 3_000;

/// Processes that are told apart at most, to count them.
const PROCESSES: usize = 100_000;

/// What the processes of one name used.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommTotal {
    /// How much.
    pub usage: Usage,
    /// Number of processes, each as often as it took the name.
    pub processes: u64,
}

/// Listed processes by their name.
#[derive(Clone, Debug, Default)]
pub struct Comms {
    /// By name.
    pub totals: HashMap<String, CommTotal>,
    /// Names that are no longer told apart.
    pub folded: u64,
    /// Whether the numbers of processes are lower bounds, as there were too many to tell apart.
    pub uncounted: bool,
    seen: HashSet<(ProcessId, u64)>,
}

impl Comms {
    /// Adds one interval.
    pub fn add(&mut self, ledger: &Ledger) {
        let length_ns = ledger.length_ns();
        let mut amounts: HashMap<&str, Amount> = HashMap::new();
        for row in &ledger.rows {
            let (RowKey::Process(id, _), Some(shown)) = (&row.key, &row.shown) else {
                continue;
            };
            amounts.entry(&shown.comm).or_default().add(Amount::of(row, ledger));
            self.count(*id, &shown.comm);
        }
        for (comm, mut amount) in amounts {
            amount.unknown_intervals = amount.unknown_intervals.min(1);
            let total = match self.totals.get_mut(comm) {
                Some(total) => total,
                None => self.totals.entry(comm.to_owned()).or_default(),
            };
            total.usage.add(amount, length_ns);
        }
        self.fold();
    }

    fn count(&mut self, id: ProcessId, comm: &str) {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        let key = (id, BuildHasherDefault::<DefaultHasher>::default().hash_one(comm));
        if self.seen.contains(&key) {
            return;
        }
        if self.seen.len() >= PROCESSES {
            self.uncounted = true;
            return;
        }
        self.seen.insert(key);
        self.totals.entry(comm.to_owned()).or_default().processes += 1;
    }

    fn fold(&mut self) {
        if self.totals.len() <= NAMES {
            return;
        }
        let mut entries: Vec<_> = self.totals.drain().collect();
        entries.sort_by_key(|(_, total)| Reverse((total.usage.amount.energy_uj, total.usage.amount.cpu_ns)));
        self.folded += entries.split_off(NAMES_KEPT).len() as u64;
        self.totals = entries.into_iter().collect();
    }
}
