//! Sums of ledgers by process, tenant, user and GPU, with what each drew lately.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    attribution::ledger::{Ledger, Method, Row, RowKey},
    interval::{ProcessId, ZoneKind},
    printable::printable,
};

/// Powers that are kept, one for each interval: as wide as a graph is.
pub const HISTORY: usize = 60;

/// A process that has ended is shown for so many intervals. What it used stays with its tenant and its user.
const SHOWN_INTERVALS: u64 = 3;

/// A process that has not run for so many intervals is forgotten, once there are more than [`MOST`].
const MOST: usize = 10_000;
const QUIET_INTERVALS: u64 = 60;

/// Who an entry is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A process, in each tenant that it ran in.
    Process(ProcessId, Option<String>),
    /// A tenant, by kind and id; `None`: processes of which it is not known whose they are.
    Tenant(Option<String>),
    /// A user, by real user id; `None`: not known.
    User(Option<u32>),
    /// A GPU, by the name of its zone.
    Gpu(String),
}

/// What one of them has used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Name, printable.
    pub name: String,
    /// Whose it is: the tenant of a process.
    pub tenant: Option<String>,
    /// Real user id of a process.
    pub uid: Option<u32>,
    /// Energy since the beginning, in µJ.
    pub energy_uj: u128,
    /// CPU time since the beginning.
    pub cpu_ns: u128,
    /// Energy in the newest interval.
    pub now_uj: u64,
    /// The part of it that GPUs had.
    pub now_gpu_uj: u64,
    /// CPU time in the newest interval.
    pub now_cpu_ns: u64,
    /// Memory, where it was read.
    pub memory_bytes: Option<u64>,
    /// Power in mW in each of the last intervals, the newest last.
    pub history_mw: VecDeque<u64>,
    /// Number of the interval in which it ran last.
    ran: u64,
    /// It has ended.
    exited: bool,
}

/// What nobody is listed for: a row that is always shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    /// Energy since the beginning, in µJ.
    pub energy_uj: u128,
    /// Energy in the newest interval.
    pub now_uj: u64,
    /// CPU time in the newest interval.
    pub now_cpu_ns: u64,
}

/// All sums.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Intervals.
    pub intervals: u64,
    /// Time since the beginning.
    pub passed_ns: u128,
    /// Length of the newest interval.
    pub length_ns: u64,
    /// CPUs that were online.
    pub cpus: usize,
    /// By who it is.
    pub entries: BTreeMap<Key, Entry>,
    /// By row, in the order in which they are shown.
    pub fixed: BTreeMap<RowKey, Fixed>,
    /// Energy that is split, since the beginning. Rows and entries of one kind add up to it.
    pub energy_uj: u128,
    /// The same of the newest interval.
    pub now_uj: u64,
    /// Power in mW in each of the last intervals.
    pub history_mw: VecDeque<u64>,
    /// Zones that were not known in the newest interval.
    pub unknown: Vec<String>,
    /// Whether any figure is an estimate.
    pub is_estimate: bool,
    /// Whether there is any energy to split.
    pub is_metered: bool,
}

impl Tally {
    /// Adds the next ledger.
    pub fn add(&mut self, ledger: &Ledger) {
        self.intervals += 1;
        self.length_ns = ledger.length_ns();
        self.passed_ns += u128::from(self.length_ns);
        self.cpus = ledger.cpus.len();
        self.unknown = ledger
            .zones()
            .filter(|zone| zone.energy_uj.is_err())
            .map(|zone| zone.zone.to_owned())
            .collect();
        self.is_estimate |= ledger.zones().any(|zone| zone.method == Method::Estimate);
        self.is_metered |= !ledger.leaves.is_empty();
        for entry in self.entries.values_mut() {
            (entry.now_uj, entry.now_gpu_uj, entry.now_cpu_ns) = (0, 0, 0);
        }
        for fixed in self.fixed.values_mut() {
            (fixed.now_uj, fixed.now_cpu_ns) = (0, 0);
        }
        self.now_uj = 0;
        let is_gpu: Vec<bool> = ledger.leaves.iter().map(|leaf| leaf.kind == ZoneKind::Gpu).collect();
        for row in &ledger.rows {
            let used = Used::of(row, &is_gpu);
            self.now_uj = self.now_uj.saturating_add(used.energy_uj);
            if RowKey::FIXED.contains(&row.key) {
                let fixed = self.fixed.entry(row.key.clone()).or_default();
                fixed.energy_uj += u128::from(used.energy_uj);
                fixed.now_uj = fixed.now_uj.saturating_add(used.energy_uj);
                fixed.now_cpu_ns = fixed.now_cpu_ns.saturating_add(used.cpu_ns);
            } else {
                self.add_row(row, used);
            }
        }
        self.energy_uj += u128::from(self.now_uj);
        self.add_gpus(ledger);
        let length_ns = self.length_ns;
        for entry in self.entries.values_mut() {
            remember(&mut entry.history_mw, milliwatts(entry.now_uj, length_ns));
        }
        remember(&mut self.history_mw, milliwatts(self.now_uj, length_ns));
        self.forget();
    }

    fn add_row(&mut self, row: &Row, used: Used) {
        let tenant = row.tenant.as_ref().map(|tenant| tenant.node.to_string());
        let shown = row.shown.as_ref();
        let uid = shown.and_then(|shown| shown.uid);
        if let RowKey::Process(id, _) = &row.key {
            let entry = self.entry(Key::Process(*id, tenant.clone()), used);
            entry.name = printable(shown.map_or("?", |shown| &shown.comm));
            entry.uid = uid;
            entry.exited = shown.is_some_and(|shown| shown.exited);
            entry.tenant.clone_from(&tenant);
            entry.memory_bytes = row.memory.map(|memory| memory.resident_bytes()).or(entry.memory_bytes);
        }
        let name = tenant.as_deref().map_or_else(|| "(not known)".to_owned(), printable);
        let entry = self.entry(Key::Tenant(tenant), used);
        entry.name = name;
        let entry = self.entry(Key::User(uid), used);
        entry.name = uid.map_or_else(|| "(not known)".to_owned(), |uid| uid.to_string());
    }

    fn entry(&mut self, key: Key, used: Used) -> &mut Entry {
        let intervals = self.intervals;
        let entry = self.entries.entry(key).or_default();
        entry.energy_uj += u128::from(used.energy_uj);
        entry.cpu_ns += u128::from(used.cpu_ns);
        entry.now_uj = entry.now_uj.saturating_add(used.energy_uj);
        entry.now_gpu_uj = entry.now_gpu_uj.saturating_add(used.gpu_uj);
        entry.now_cpu_ns = entry.now_cpu_ns.saturating_add(used.cpu_ns);
        entry.ran = intervals;
        entry
    }

    fn add_gpus(&mut self, ledger: &Ledger) {
        for gpu in &ledger.gpus {
            let leaf = ledger.leaves.iter().find(|leaf| leaf.zone == gpu.zone);
            let energy_uj = leaf.and_then(|leaf| leaf.energy_uj.as_ref().ok().copied()).unwrap_or(0);
            let used = Used {
                energy_uj,
                gpu_uj: energy_uj,
                cpu_ns: 0,
            };
            let entry = self.entry(Key::Gpu(gpu.zone.clone()), used);
            entry.name = printable(&format!("{} {}", gpu.index, gpu.name));
            entry.memory_bytes = gpu.memory_used_bytes;
        }
    }

    /// Forgets processes that have ended; if there are many, also those that have not run for long.
    fn forget(&mut self) {
        let before = |intervals: u64| self.intervals.saturating_sub(intervals);
        let (shown, quiet) = (before(SHOWN_INTERVALS), before(QUIET_INTERVALS));
        let are_many = self.entries.len() > MOST;
        self.entries.retain(|key, entry| {
            let is_over = entry.exited && entry.ran <= shown || are_many && entry.ran <= quiet;
            !matches!(key, Key::Process(..)) || !is_over
        });
    }
}

#[derive(Clone, Copy)]
struct Used {
    energy_uj: u64,
    gpu_uj: u64,
    cpu_ns: u64,
}

impl Used {
    fn of(row: &Row, is_gpu: &[bool]) -> Self {
        let sum = |energies: &mut dyn Iterator<Item = u64>| energies.fold(0, u64::saturating_add);
        let on_gpus = row.energy_uj.iter().zip(is_gpu).filter(|(_, is_gpu)| **is_gpu);
        Self {
            energy_uj: sum(&mut row.energy_uj.iter().copied()),
            gpu_uj: sum(&mut on_gpus.map(|(energy_uj, _)| *energy_uj)),
            cpu_ns: row.cpu_ns(),
        }
    }
}

fn remember(history: &mut VecDeque<u64>, mw: u64) {
    if history.len() >= HISTORY {
        history.pop_front();
    }
    history.push_back(mw);
}

/// Power of an interval, rounded down. µJ over ns are kilowatts.
pub fn milliwatts(energy_uj: u64, length_ns: u64) -> u64 {
    let mw = u128::from(energy_uj) * 1_000_000 / u128::from(length_ns.max(1));
    u64::try_from(mw).unwrap_or(u64::MAX)
}
