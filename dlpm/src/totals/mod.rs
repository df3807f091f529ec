//! Sums over the ledgers of a trace, in bounded memory. No IO and no clock: everything comes from ledgers.
//!
//! [`Totals`] is by zone, kind of row, process and cgroup; [`comms`] by name, [`groups`] by tenant or user, [`gpus`] by
//! GPU, [`owners`] of one ledger by tenant, [`phases`] by phase.

mod amounts;
pub mod comms;
pub mod gpus;
pub mod groups;
pub mod owners;
pub mod phases;
pub mod rollup;

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeMap,
    sync::Arc,
};

use foldhash::HashMap;

use crate::{
    attribution::ledger::{IdlePolicy, LeafZone, Ledger, Method, RootZone, RowKey},
    interval::{ProcessId, ZoneKind},
};

pub use amounts::{Amount, Kinds, Peak, SHORTEST_PEAK_NS, Usage};

/// Entries of processes, and of cgroups, that are kept at most.
const ENTRIES: usize = 10_000;

/// Entries that are left when there were too many.
const ENTRIES_KEPT: usize = 9_000;

/// What a process used in one cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessTotal {
    /// Its newest name.
    pub comm: Arc<str>,
    /// How much.
    pub amount: Amount,
    /// Its highest power.
    pub peak: Peak,
    exited: bool,
}

/// The kinds of rows that the balance tells apart, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// Processes and merged rows.
    Listed,
    /// What the filters leave out.
    Others,
    /// Kernel threads.
    Kernel,
    /// dlpm.
    SelfDlpm,
    /// Idle tasks.
    Idle,
    /// Nobody.
    Unattributed,
}

impl Share {
    /// All but the first.
    pub const FIXED: [Self; 5] = [
        Self::Others,
        Self::Kernel,
        Self::SelfDlpm,
        Self::Idle,
        Self::Unattributed,
    ];

    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Listed,
        Self::Others,
        Self::Kernel,
        Self::SelfDlpm,
        Self::Idle,
        Self::Unattributed,
    ];

    /// The kind of a row.
    pub fn of(key: &RowKey) -> Self {
        match key {
            RowKey::Process(..) | RowKey::Merged(_) | RowKey::Memory(_) | RowKey::Tenant(_) => Self::Listed,
            RowKey::Others => Self::Others,
            RowKey::Kernel => Self::Kernel,
            RowKey::SelfDlpm => Self::SelfDlpm,
            RowKey::Idle => Self::Idle,
            RowKey::Unattributed => Self::Unattributed,
        }
    }

    /// The word for it: the log's, where it is one row of the log.
    pub fn as_str(self) -> &'static str {
        let row = RowKey::FIXED.iter().find(|key| Self::of(key) == self);
        row.map_or("listed", RowKey::as_str)
    }
}

/// Sums of one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneTotal {
    /// Name of the zone.
    pub zone: String,
    /// What it covers.
    pub kind: ZoneKind,
    /// Whether it is split.
    pub leaf: bool,
    /// How its figures are made; a GPU's method is another when other processes use it.
    pub methods: Vec<Method>,
    /// Energy of the intervals in which it is known.
    pub energy_uj: u128,
    /// Number of these intervals.
    pub known: u64,
    /// Length of these intervals.
    pub known_ns: u128,
    /// Intervals in which it is not known.
    pub invalid: u64,
    /// Why it was not known the last time.
    pub reason: Option<String>,
    /// Intervals in which it was a package that was split as one leaf.
    pub one_leaf: u64,
    /// Why it was the last time.
    pub one_leaf_reason: Option<String>,
    /// Its highest power.
    pub peak: Peak,
    /// For leaves: what the rows got.
    pub shares_uj: BTreeMap<Share, u128>,
    /// For leaves the leaf less its rows; for packages and machine the root, with its carries, less its leaves, where
    /// all are known. 0 if everything adds up.
    pub difference_uj: i128,
}

impl ZoneTotal {
    /// Whether it has leaves or rows, which have to add up to it.
    pub fn has_parts(&self) -> bool {
        self.leaf || matches!(self.kind, ZoneKind::Package | ZoneKind::Machine)
    }

    /// Energy in µJ; `None` if it was known in no interval.
    pub fn energy(&self) -> Option<u128> {
        (self.known > 0).then_some(self.energy_uj)
    }

    /// What the rows of a kind got, in µJ; `None` if that is not known, or it has no rows.
    pub fn share(&self, share: Share) -> Option<u128> {
        self.energy()?;
        self.shares_uj.get(&share).copied()
    }

    /// Whether its figures are made from watts that the user gave.
    pub fn is_estimate(&self) -> bool {
        self.methods.contains(&Method::Estimate)
    }
}

/// CPU time of all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTotal {
    /// Sum of the CPUs' intervals.
    pub interval_ns: u128,
    /// Time of tasks.
    pub busy_ns: u128,
    /// Time of the idle tasks.
    pub idle_ns: u128,
    /// Time that found no room in the maps.
    pub lost_ns: u128,
    /// Intervals of a CPU in which these do not add up.
    pub violations: u64,
    /// Context switches.
    pub switches: u128,
    /// Of these, the ones whose cost is known.
    pub estimated_switches: u128,
    /// What dlpm's program cost inside those: an estimate.
    pub in_switches_ns: u128,
    /// Largest number of CPUs in an interval.
    pub cpus: usize,
}

/// Sums over the ledgers of a trace.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Number of ledgers.
    pub intervals: u64,
    /// Sum of their lengths.
    pub duration_ns: u128,
    /// CPU time.
    pub cpu: CpuTotal,
    /// Policy for idle energy; of the newest trace, if there are several.
    pub idle_policy: IdlePolicy,
    /// Whether an earlier trace had another one.
    pub mixed_policies: bool,
    /// Kinds of energy that were known in at least one interval.
    pub known: Kinds,
    /// Length of the intervals in which the energy of a leaf was known.
    pub known_ns: u128,
    /// Energy of all leaves, interval by interval.
    pub peak: Peak,
    /// Zones in the order of the ledgers, roots first.
    pub zones: Vec<ZoneTotal>,
    /// Sums of the rows by kind.
    pub shares: BTreeMap<Share, Usage>,
    /// Listed processes by cgroup.
    pub processes: HashMap<(ProcessId, Arc<str>), ProcessTotal>,
    /// Listed processes, merged and folded ones too, by cgroup.
    pub cgroups: BTreeMap<String, Usage>,
    /// Listed cgroups that are no longer told apart: how many, and their sum.
    pub folded_cgroups: (u64, Amount),
    /// Process entries that are no longer told apart within their cgroup.
    pub folded_processes: u64,
    /// Whether entries of processes that had not exited were folded.
    pub folded_running: bool,
}

impl Totals {
    /// Adds the ledger of one interval.
    pub fn add(&mut self, ledger: &Ledger) {
        self.add_sums(ledger);
        let length_ns = ledger.length_ns();
        for row in &ledger.rows {
            if let RowKey::Process(id, cgroup) = &row.key {
                let entry = self.processes.entry((*id, cgroup.clone())).or_default();
                let amount = Amount::of(row, ledger);
                entry.amount.add(amount);
                entry.peak.see_known(amount.energy(), length_ns);
                if let Some(shown) = &row.shown {
                    entry.comm.clone_from(&shown.comm);
                    entry.exited = shown.exited;
                }
            }
        }
        for sum in &ledger.cgroups {
            let amount = Amount::new(sum.cpu_ns, &sum.energy_uj, ledger);
            match self.cgroups.get_mut(&sum.cgroup) {
                Some(usage) => usage.add(amount, length_ns),
                None => self
                    .cgroups
                    .entry(sum.cgroup.clone())
                    .or_default()
                    .add(amount, length_ns),
            }
        }
        self.fold_processes();
        self.fold_cgroups();
    }

    /// Adds the ledger of one interval to what does not tell processes and cgroups apart.
    pub fn add_sums(&mut self, ledger: &Ledger) {
        let length_ns = ledger.length_ns();
        self.mixed_policies |= self.intervals > 0 && self.idle_policy != ledger.idle_policy;
        self.intervals += 1;
        self.duration_ns += u128::from(length_ns);
        self.idle_policy = ledger.idle_policy;
        self.add_cpus(ledger);
        for root in &ledger.roots {
            let difference_uj = root_difference(root, ledger);
            let zone = self.zone(&root.zone, root.kind, false, root.method);
            zone.add(&root.energy_uj, length_ns, difference_uj);
            if let Some(reason) = &root.one_leaf {
                zone.one_leaf += 1;
                zone.one_leaf_reason = Some(reason.clone());
            }
        }
        let mut all_leaves = 0;
        for (position, leaf) in ledger.leaves.iter().enumerate() {
            self.add_leaf(ledger, position, leaf, length_ns);
            all_leaves += leaf.energy_uj.as_ref().map_or(0, |uj| u128::from(*uj));
        }
        let known = Kinds::known_in(ledger);
        if known.any() {
            self.known.add(known);
            self.known_ns += u128::from(length_ns);
            self.peak.see(all_leaves, length_ns);
        }
        let mut shares: BTreeMap<Share, Amount> = BTreeMap::new();
        for row in &ledger.rows {
            shares
                .entry(Share::of(&row.key))
                .or_default()
                .add(Amount::of(row, ledger));
        }
        for (share, mut amount) in shares {
            amount.unknown_intervals = amount.unknown_intervals.min(1);
            self.shares.entry(share).or_default().add(amount, length_ns);
        }
    }

    /// What the listed processes used.
    pub fn listed(&self) -> Usage {
        let nothing = || Usage {
            amount: Amount {
                known: self.known,
                ..Amount::default()
            },
            peak: Peak::default(),
        };
        self.shares.get(&Share::Listed).copied().unwrap_or_else(nothing)
    }

    /// Energy of all leaves in µJ; `None` if it was known in no interval.
    pub fn energy(&self) -> Option<u128> {
        self.known.any().then(|| self.energy_uj())
    }

    /// Energy of all leaves, as far as it is known: see [`Totals::energy`].
    pub fn energy_uj(&self) -> u128 {
        self.zones
            .iter()
            .filter(|zone| zone.leaf)
            .map(|zone| zone.energy_uj)
            .sum()
    }

    /// Time of all CPUs, and energy of all leaves: what all rows together come to, from the CPUs and the zones.
    pub fn all(&self) -> Amount {
        let of = |kind: ZoneKind| {
            let leaves = self.zones.iter().filter(|zone| zone.leaf && zone.kind == kind);
            leaves.map(|zone| zone.energy_uj).sum()
        };
        Amount {
            cpu_ns: self.cpu.interval_ns,
            energy_uj: self.energy_uj(),
            dram_uj: of(ZoneKind::Dram),
            gpu_uj: of(ZoneKind::Gpu),
            known: self.known,
            unknown_intervals: 0,
        }
    }

    /// How the energy of the leaves was made, each method once.
    pub fn methods(&self) -> Vec<&'static str> {
        let leaves = self.zones.iter().filter(|zone| zone.leaf);
        let mut methods: Vec<&str> = leaves
            .flat_map(|zone| zone.methods.iter().map(|method| method.as_str()))
            .collect();
        methods.sort_unstable();
        methods.dedup();
        methods
    }

    /// CPU time of all tasks, and what was lost of it.
    pub fn used_ns(&self) -> u128 {
        self.cpu.busy_ns + self.cpu.lost_ns
    }

    /// Whether there is anything but psys to split.
    pub fn has_energy(&self) -> bool {
        self.zones.iter().any(|zone| zone.leaf)
    }

    /// Whether any figure of energy is an estimate.
    pub fn is_estimate(&self) -> bool {
        self.zones.iter().any(ZoneTotal::is_estimate)
    }

    fn add_cpus(&mut self, ledger: &Ledger) {
        let total = &mut self.cpu;
        total.cpus = total.cpus.max(ledger.cpus.len());
        total.switches += u128::from(ledger.switches());
        if let Some(estimate) = ledger.switch_estimate() {
            total.estimated_switches += u128::from(estimate.switches);
            total.in_switches_ns += u128::from(estimate.estimate_ns);
        }
        for cpu in &ledger.cpus {
            total.interval_ns += u128::from(cpu.interval_ns());
            total.busy_ns += u128::from(cpu.busy_ns);
            total.idle_ns += u128::from(cpu.idle_ns);
            total.lost_ns += u128::from(cpu.lost_ns);
            total.violations += u64::from(!cpu.time_law_holds());
        }
    }

    fn add_leaf(&mut self, ledger: &Ledger, position: usize, leaf: &LeafZone, length_ns: u64) {
        let mut left = leaf.energy_uj.as_ref().map_or(0, |uj| i128::from(*uj));
        let zone = self.zone(&leaf.zone, leaf.kind, true, leaf.method);
        for row in &ledger.rows {
            let share = row.energy_uj.get(position).copied().unwrap_or(0);
            *zone.shares_uj.entry(Share::of(&row.key)).or_default() += u128::from(share);
            left -= i128::from(share);
        }
        zone.add(&leaf.energy_uj, length_ns, left);
    }

    fn zone(&mut self, name: &str, kind: ZoneKind, leaf: bool, method: Method) -> &mut ZoneTotal {
        let position = self
            .zones
            .iter()
            .position(|zone| zone.zone == name && zone.leaf == leaf);
        let position = position.unwrap_or_else(|| {
            self.zones.push(ZoneTotal {
                zone: name.to_owned(),
                kind,
                leaf,
                methods: Vec::new(),
                energy_uj: 0,
                known: 0,
                known_ns: 0,
                invalid: 0,
                reason: None,
                one_leaf: 0,
                one_leaf_reason: None,
                peak: Peak::default(),
                shares_uj: BTreeMap::new(),
                difference_uj: 0,
            });
            self.zones.len() - 1
        });
        let zone = &mut self.zones[position];
        if !zone.methods.contains(&method) {
            zone.methods.push(method);
        }
        zone
    }

    /// The smallest processes that have exited go first; those that have not would be listed with a part of what they
    /// used if they went and came back.
    fn fold_processes(&mut self) {
        if self.processes.len() <= ENTRIES {
            return;
        }
        let order = |total: &ProcessTotal| (!total.exited, total.amount.energy_uj, total.amount.cpu_ns);
        let mut orders: Vec<_> = self.processes.values().map(order).collect();
        let (larger, &mut smallest_kept, _) =
            orders.select_nth_unstable_by_key(ENTRIES_KEPT - 1, |order| Reverse(*order));
        let mut equal_kept = larger.iter().filter(|order| **order == smallest_kept).count() + 1;
        let (folded, running) = (&mut self.folded_processes, &mut self.folded_running);
        self.processes.retain(|_, total| {
            let is_kept = match order(total).cmp(&smallest_kept) {
                Ordering::Greater => true,
                Ordering::Equal if equal_kept > 0 => {
                    equal_kept -= 1;
                    true
                }
                _ => false,
            };
            if !is_kept {
                *folded += 1;
                *running |= !total.exited;
            }
            is_kept
        });
    }

    fn fold_cgroups(&mut self) {
        if self.cgroups.len() <= ENTRIES {
            return;
        }
        let mut entries: Vec<_> = std::mem::take(&mut self.cgroups).into_iter().collect();
        entries.sort_by_key(|(_, usage)| Reverse((usage.amount.energy_uj, usage.amount.cpu_ns)));
        for (_, usage) in entries.split_off(ENTRIES_KEPT) {
            self.folded_cgroups.0 += 1;
            self.folded_cgroups.1.add(usage.amount);
        }
        self.cgroups = entries.into_iter().collect();
    }
}

impl ZoneTotal {
    fn add(&mut self, energy_uj: &Result<u64, String>, length_ns: u64, difference_uj: i128) {
        match energy_uj {
            Ok(uj) => {
                self.energy_uj += u128::from(*uj);
                self.known += 1;
                self.known_ns += u128::from(length_ns);
                self.peak.see(u128::from(*uj), length_ns);
            }
            Err(reason) => {
                self.invalid += 1;
                self.reason = Some(reason.clone());
            }
        }
        self.difference_uj += difference_uj;
    }
}

/// What the leaves of a root lack of it, if all are known.
fn root_difference(root: &RootZone, ledger: &Ledger) -> i128 {
    let Ok(energy_uj) = &root.energy_uj else { return 0 };
    let mut left = i128::from(*energy_uj) + i128::from(root.previous_carry_uj) - i128::from(root.carry_uj);
    let mut leaves = 0;
    for leaf in ledger.leaves_of(root) {
        let Ok(leaf_uj) = &leaf.energy_uj else { return 0 };
        leaves += 1;
        left -= i128::from(*leaf_uj);
    }
    // psys has none.
    if leaves == 0 { 0 } else { left }
}

#[cfg(test)]
mod tests;
