//! Roll-ups: ledgers of some seconds as one, with a row for each tenant. Sums of sealed integers, and nothing else.
//!
//! A roll-up is a ledger that says of how many intervals it is. Its rows still add up to its leaves, and its leaves to
//! their roots. What does not hold any longer is that a leaf, split once, gives each row its part: each interval was split
//! by itself.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    attribution::{
        gpus,
        ledger::{LeafZone, Ledger, Method, RootZone, Row, RowKey},
    },
    interval::CpuInterval,
    tenants::Tenant,
};

/// Makes roll-ups, one after another.
#[derive(Clone, Debug)]
pub struct Rollups {
    length_ns: u64,
    /// Number of the next one.
    seq: u64,
    open: Option<Open>,
    /// Number and end of the newest interval.
    newest: Option<(u64, u64)>,
}

#[derive(Clone, Debug)]
struct Open {
    sum: Ledger,
    rows: BTreeMap<RowKey, Row>,
}

impl Rollups {
    /// Roll-ups of that length, or an interval longer; shorter where something changes.
    pub fn new(length_ns: u64) -> Self {
        Self {
            length_ns,
            seq: 0,
            open: None,
            newest: None,
        }
    }

    /// Adds the next ledger. The roll-ups that end before it or with it: at most two.
    ///
    /// One ends early where intervals are missing, a zone or a CPU comes, goes or changes its state, or the rules of the
    /// split change: so each is known or not known as a whole, and no energy is lost in it.
    pub fn add(&mut self, ledger: &Ledger) -> Vec<Ledger> {
        let mut ended = Vec::new();
        let follows = |(seq, end_ns): (u64, u64)| ledger.seq == seq.wrapping_add(1) && ledger.begin_ns == end_ns;
        if self.newest.is_some_and(|newest| !follows(newest)) {
            ended.extend(self.end());
            // Numbers are missing where intervals are.
            self.seq += 1;
        }
        self.newest = Some((ledger.seq, ledger.end_ns));
        if self.open.as_ref().is_some_and(|open| !open.continues_with(ledger)) {
            ended.extend(self.end());
        }
        match &mut self.open {
            Some(open) => open.add(ledger),
            None => self.open = Some(Open::of(ledger)),
        }
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.sum.length_ns() >= self.length_ns)
        {
            ended.extend(self.end());
        }
        ended
    }

    /// The roll-up of what was added since the last one ended, if there is anything.
    pub fn end(&mut self) -> Option<Ledger> {
        let Open { mut sum, rows, .. } = self.open.take()?;
        sum.seq = self.seq;
        sum.rows = rows.into_values().collect();
        self.seq += 1;
        Some(sum)
    }
}

impl Open {
    fn of(ledger: &Ledger) -> Self {
        let mut sum = Ledger {
            rows: Vec::new(),
            cgroups: Vec::new(),
            rollup: Some(1),
            // Each interval was split by itself.
            counters: None,
            ..ledger.clone()
        };
        for root in &mut sum.roots {
            root.model = None;
        }
        for cpu in &mut sum.cpus {
            *cpu = from_zero(cpu);
        }
        let mut open = Self {
            sum,
            rows: BTreeMap::new(),
        };
        open.add_rows(ledger);
        open
    }

    fn continues_with(&self, next: &Ledger) -> bool {
        let sum = &self.sum;
        let cpus = |ledger: &Ledger| -> Vec<_> { ledger.cpus.iter().map(|cpu| (cpu.cpu, cpu.package)).collect() };
        let gpus = |ledger: &Ledger| -> Vec<_> { ledger.gpus.iter().map(|gpu| gpu.uuid.clone()).collect() };
        next.idle_policy == sum.idle_policy
            && next.smt_weight_permille == sum.smt_weight_permille
            && cpus(sum) == cpus(next)
            && gpus(sum) == gpus(next)
            && sum.roots.len() == next.roots.len()
            && sum
                .roots
                .iter()
                .zip(&next.roots)
                .all(|(sum, next)| is_same_root(sum, next))
            && sum.leaves.len() == next.leaves.len()
            && sum
                .leaves
                .iter()
                .zip(&next.leaves)
                .all(|(sum, next)| is_same_leaf(sum, next))
    }

    fn add(&mut self, next: &Ledger) {
        let sum = &mut self.sum;
        sum.rollup = sum.rollup.map(|intervals| intervals.saturating_add(1));
        sum.end_ns = next.end_ns;
        sum.end_unix_ns = next.end_unix_ns;
        sum.energy_skew_ns = sum.energy_skew_ns.max(next.energy_skew_ns);
        sum.seal_ns = sum.seal_ns.max(next.seal_ns);
        let interrupts = sum.interrupts.zip(next.interrupts);
        sum.interrupts = interrupts.map(|(sum, next)| sum.saturating_add(next));
        for (sum, next) in sum.cpus.iter_mut().zip(&next.cpus) {
            sum.end_ns = sum.end_ns.saturating_add(next.interval_ns());
            sum.busy_ns = sum.busy_ns.saturating_add(next.busy_ns);
            sum.idle_ns = sum.idle_ns.saturating_add(next.idle_ns);
            sum.lost_ns = sum.lost_ns.saturating_add(next.lost_ns);
            sum.switches = sum.switches.saturating_add(next.switches);
        }
        for (cpu, shared_ns) in &next.smt_shared_ns {
            let sum = sum.smt_shared_ns.entry(*cpu).or_default();
            *sum = sum.saturating_add(*shared_ns);
        }
        for (sum, next) in sum.roots.iter_mut().zip(&next.roots) {
            add_energy(&mut sum.energy_uj, &next.energy_uj);
            sum.counter_uj = next.counter_uj;
            sum.range_uj = next.range_uj;
            sum.carry_uj = next.carry_uj;
        }
        for (sum, next) in sum.leaves.iter_mut().zip(&next.leaves) {
            add_energy(&mut sum.energy_uj, &next.energy_uj);
            sum.counter_uj = next.counter_uj;
            sum.range_uj = next.range_uj;
            if sum.method != next.method {
                sum.method = Method::Mixed;
            }
            if sum.idle_floor_mw != next.idle_floor_mw {
                sum.idle_floor_mw = None;
            }
        }
        sum.gpus.clone_from(&next.gpus);
        sum.machine_memory = next.machine_memory.or(sum.machine_memory);
        sum.ns_per_switch = next.ns_per_switch.or(sum.ns_per_switch);
        self.add_rows(next);
    }

    fn add_rows(&mut self, ledger: &Ledger) {
        let mut processes: BTreeMap<&RowKey, u32> = BTreeMap::new();
        let keys: Vec<RowKey> = ledger.rows.iter().map(key_of).collect();
        for (key, row) in keys.iter().zip(&ledger.rows) {
            let count = processes.entry(key).or_default();
            *count = count.saturating_add(row.processes);
            let sum = self.rows.entry(key.clone()).or_insert_with(|| Row {
                key: key.clone(),
                tenant: None,
                shown: None,
                processes: 0,
                by_package: BTreeMap::new(),
                by_core: BTreeMap::new(),
                memory: None,
                resident_bytes: 0,
                gpus: BTreeMap::new(),
                energy_uj: vec![0; ledger.leaves.len()],
            });
            if matches!(key, RowKey::Tenant(_)) {
                sum.tenant = row.tenant.clone().or_else(|| Some(Arc::new(Tenant::unknown())));
            }
            for (package, time) in &row.by_package {
                let sum = sum.by_package.entry(*package).or_default();
                sum.cpu_ns = sum.cpu_ns.saturating_add(time.cpu_ns);
                sum.smt_shared_ns = sum.smt_shared_ns.saturating_add(time.smt_shared_ns);
            }
            for (core, time) in &row.by_core {
                let sum = sum.by_core.entry(*core).or_default();
                sum.cpu_ns = sum.cpu_ns.saturating_add(time.cpu_ns);
                sum.smt_shared_ns = sum.smt_shared_ns.saturating_add(time.smt_shared_ns);
            }
            gpus::add(&mut sum.gpus, &row.gpus);
            for (sum, energy_uj) in sum.energy_uj.iter_mut().zip(&row.energy_uj) {
                *sum = sum.saturating_add(*energy_uj);
            }
        }
        // Not a sum: most of them are the same in the next interval.
        for (key, count) in processes {
            if let Some(row) = self
                .rows
                .get_mut(key)
                .filter(|row| matches!(row.key, RowKey::Tenant(_)))
            {
                row.processes = row.processes.max(count);
            }
        }
    }
}

/// The row of a roll-up that a row belongs to.
fn key_of(row: &Row) -> RowKey {
    match &row.key {
        RowKey::Process(..) | RowKey::Merged(_) | RowKey::Memory(_) | RowKey::Tenant(_) => match &row.tenant {
            Some(tenant) => RowKey::Tenant(tenant.node.clone()),
            None => RowKey::Tenant(Tenant::unknown().node),
        },
        fixed => fixed.clone(),
    }
}

/// Only the length is of interest, as in the log.
fn from_zero(cpu: &CpuInterval) -> CpuInterval {
    CpuInterval {
        begin_ns: 0,
        end_ns: cpu.interval_ns(),
        counts: None,
        ..*cpu
    }
}

fn add_energy(sum: &mut Result<u64, String>, next: &Result<u64, String>) {
    if let (Ok(sum), Ok(next)) = (sum, next) {
        *sum = sum.saturating_add(*next);
    }
}

fn is_same_root(sum: &RootZone, next: &RootZone) -> bool {
    let of = |root: &RootZone| {
        (
            root.zone.clone(),
            root.kind,
            root.package,
            root.energy_uj.as_ref().err().cloned(),
            root.one_leaf.clone(),
            root.parts_outside,
            root.source,
            root.method,
            root.counter_uj.is_some(),
        )
    };
    of(sum) == of(next) && sum.carry_uj == next.previous_carry_uj
}

fn is_same_leaf(sum: &LeafZone, next: &LeafZone) -> bool {
    let of = |leaf: &LeafZone| {
        (
            leaf.zone.clone(),
            leaf.kind,
            leaf.rest,
            leaf.package,
            leaf.energy_uj.as_ref().err().cloned(),
            leaf.source,
            leaf.counter_uj.is_some(),
        )
    };
    of(sum) == of(next)
}

#[cfg(test)]
mod tests;
