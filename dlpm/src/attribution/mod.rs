//! From what was seen in an interval to who used which energy: pure functions, in integers.
//!
//! No file, no clock, no log message and no error: any [`Interval`] gives a [`Ledger`]. What is not known (an invalid
//! zone) stays not known, and the rows of every leaf that is known add up to it.

pub mod cgroup_memory;
pub mod counters;
pub mod energy_tree;
pub mod floors;
pub mod gpus;
pub mod ledger;
pub mod quiet;
pub mod rows;
pub mod selection;
pub mod share;
pub mod split;

#[cfg(test)]
mod cores;
#[cfg(test)]
pub(crate) mod counter_properties;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod gpu_properties;
#[cfg(test)]
mod graphics;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod sight;
#[cfg(test)]
mod two_sockets;

use std::collections::BTreeMap;

use crate::{
    attribution::{
        counters::{Counters, Weights},
        energy_tree::{Carries, Span},
        ledger::{CgroupSum, IdlePolicy, Ledger, Row},
        selection::Selection,
        share::Rules,
    },
    interval::Interval,
};

/// How an interval is attributed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which processes are listed.
    pub selection: Selection,
    /// Process rows at most; the smallest are merged by cgroup.
    pub max_rows: usize,
    /// Weight of a nanosecond during which the sibling hardware thread was busy, in thousandths. 550: two busy
    /// siblings draw about 1.1 times what one draws (HaPPy, USENIX ATC 2014; DEEP-mon, 2018).
    pub smt_weight_permille: u32,
    /// What becomes of idle energy.
    pub idle_policy: IdlePolicy,
    /// Power of the idle machine in mW, by the name of the leaf; used under [`IdlePolicy::Separate`] only. Of a leaf that
    /// is missing nothing is idle, since nothing is known.
    pub idle_floors_mw: BTreeMap<String, u64>,
    /// What events weigh, where they are counted.
    pub weights: Option<Weights>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            selection: Selection::default(),
            max_rows: 2000,
            smt_weight_permille: 550,
            idle_policy: IdlePolicy::default(),
            idle_floors_mw: BTreeMap::new(),
            weights: None,
        }
    }
}

/// Says who used which energy in `interval`.
///
/// `carries` is what the previous interval's ledger carried ([`Carries::of`]), empty for the first.
pub fn attribute(interval: &Interval, options: &Options, carries: &Carries) -> Ledger {
    let mut rows = rows::claimants(interval, &options.selection, options.max_rows);
    let span = Span {
        length_ns: interval.end_ns.saturating_sub(interval.begin_ns),
        skew_ns: interval.energy_skew_ns,
    };
    let mut tree = energy_tree::build(&interval.zones, carries, span);
    let gpus = gpus::facts(&interval.gpus, interval.end_ns);
    tree.leaves
        .extend(gpus::leaves(&interval.gpus, &gpus, &rows, options.idle_policy));
    for leaf in &mut tree.leaves {
        leaf.method = cgroup_memory::method(leaf.method, &rows);
        leaf.method = gpus::method_inside(&leaf.zone, leaf.method, &gpus, &rows, options.idle_policy);
    }
    let rules = Rules {
        length_ns: span.length_ns,
        smt_weight_permille: options.smt_weight_permille,
        idle_policy: options.idle_policy,
        memory_known: interval.machine_memory.is_some(),
        weights: options.weights.as_ref().filter(|_| !interval.events.is_empty()),
    };
    counters::apply(&mut tree, &rows, &interval.cpus, &rules, carries);
    if options.idle_policy == IdlePolicy::Separate {
        let floor_mw = |at| floors::floor_mw(&options.idle_floors_mw, &tree.leaves, at);
        let floors_mw: Vec<Option<u64>> = (0..tree.leaves.len()).map(floor_mw).collect();
        for (leaf, floor_mw) in tree.leaves.iter_mut().zip(floors_mw) {
            leaf.idle_floor_mw = floor_mw.filter(|_| !leaf.method.is_by_memory());
        }
    }
    for leaf in &tree.leaves {
        // An invalid leaf keeps its place with 0 everywhere.
        let energy_uj = leaf.energy_uj.as_ref().copied().unwrap_or(0);
        let shares = share::share(energy_uj, leaf, &rows, &rules);
        for (row, share_uj) in rows.iter_mut().zip(shares) {
            row.energy_uj.push(share_uj);
        }
    }
    let cgroups = cgroup_sums(&rows, tree.leaves.len());
    let mut cpus = interval.cpus.clone();
    cpus.sort_by_key(|cpu| cpu.cpu);
    Ledger {
        seq: interval.seq,
        begin_ns: interval.begin_ns,
        end_ns: interval.end_ns,
        end_unix_ns: interval.end_unix_ns,
        energy_skew_ns: interval.energy_skew_ns,
        seal_ns: interval.seal_ns,
        interrupts: interval.interrupts,
        cpus,
        smt_shared_ns: smt_shared_ns(interval),
        counters: (!interval.events.is_empty()).then(|| Counters {
            events: interval.events.to_vec(),
            weights: options.weights.clone(),
        }),
        roots: tree.roots,
        leaves: tree.leaves,
        gpus,
        idle_policy: options.idle_policy,
        smt_weight_permille: options.smt_weight_permille,
        rows,
        cgroups,
        machine_memory: interval.machine_memory,
        ns_per_switch: interval.switch_cost.map(|cost| cost.run_ns),
        rollup: None,
    }
}

/// By CPU, the time of its tasks that the sibling shared.
fn smt_shared_ns(interval: &Interval) -> BTreeMap<u32, u64> {
    let mut shared: BTreeMap<u32, u64> = interval.cpus.iter().map(|cpu| (cpu.cpu, 0)).collect();
    for usage in &interval.usage {
        let sum = shared.entry(usage.cpu).or_default();
        *sum = sum.saturating_add(usage.shared_ns.min(usage.ns));
    }
    shared
}

/// The listed rows summed by cgroup, for so many leaves.
pub fn cgroup_sums(rows: &[Row], leaves: usize) -> Vec<CgroupSum> {
    let mut sums: BTreeMap<&str, CgroupSum> = BTreeMap::new();
    for row in rows {
        let Some(cgroup) = row.key.cgroup() else { continue };
        let sum = sums.entry(cgroup).or_insert_with(|| CgroupSum {
            cgroup: cgroup.to_string(),
            cpu_ns: 0,
            energy_uj: vec![0; leaves],
        });
        sum.cpu_ns = sum.cpu_ns.saturating_add(row.cpu_ns());
        for (total, share) in sum.energy_uj.iter_mut().zip(&row.energy_uj) {
            // Never more than the leaf, which is a u64.
            *total = total.saturating_add(*share);
        }
    }
    sums.into_values().collect()
}
