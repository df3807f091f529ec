//! From what was seen in an interval to who used which energy: pure functions, in integers.
//!
//! No file, no clock, no log message and no error: any [`Interval`] gives a [`Ledger`]. What is not known (an invalid
//! zone) stays not known, and the rows of every leaf that is known add up to it.

pub mod energy_tree;
pub mod ledger;
pub mod rows;
pub mod selection;
pub mod split;

#[cfg(test)]
mod examples;
#[cfg(test)]
mod properties;

use std::collections::BTreeMap;

use crate::{
    attribution::{
        energy_tree::Carries,
        ledger::{CgroupSum, CpuUse, IdlePolicy, LeafZone, Ledger, Method, Row, RowKey},
        selection::Selection,
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
}

impl Default for Options {
    fn default() -> Self {
        Self {
            selection: Selection::default(),
            max_rows: 2000,
            smt_weight_permille: 550,
            idle_policy: IdlePolicy::default(),
        }
    }
}

/// Says who used which energy in `interval`.
///
/// `carries` is what the previous interval's ledger carried ([`Carries::of`]), empty for the first.
pub fn attribute(interval: &Interval, options: &Options, carries: &Carries) -> Ledger {
    let mut rows = rows::claimants(interval, &options.selection, options.max_rows);
    let tree = energy_tree::build(&interval.zones, carries);
    for leaf in &tree.leaves {
        // An invalid leaf keeps its place with 0 everywhere.
        let energy_uj = leaf.energy_uj.as_ref().copied().unwrap_or(0);
        let shares = share(energy_uj, leaf, &rows, options, interval.machine_memory.is_some());
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
        cpus,
        roots: tree.roots,
        leaves: tree.leaves,
        idle_policy: options.idle_policy,
        smt_weight_permille: options.smt_weight_permille,
        rows,
        cgroups,
        machine_memory: interval.machine_memory,
    }
}

/// The part of `energy_uj` that each row gets, in the order of `rows`; adds up to `energy_uj`.
fn share(energy_uj: u64, leaf: &LeafZone, rows: &[Row], options: &Options, memory_known: bool) -> Vec<u64> {
    let (weights, fallback) = if leaf.method == Method::Memory {
        // Without the machine's memory a reading is a share of nothing known.
        let weights = rows
            .iter()
            .map(|row| if memory_known { row.resident_bytes.into() } else { 0 })
            .collect();
        (weights, remainder_row(&options.selection))
    } else {
        let weigh = |row: &Row| time_weight(row, leaf.package, options);
        (rows.iter().map(weigh).collect::<Vec<u128>>(), RowKey::Idle)
    };
    split::split(energy_uj, &weights).unwrap_or_else(|| {
        rows.iter()
            .map(|row| if row.key == fallback { energy_uj } else { 0 })
            .collect()
    })
}

/// The row that takes what memory readings do not cover.
fn remainder_row(selection: &Selection) -> RowKey {
    if selection.is_filtered() {
        RowKey::Others
    } else {
        RowKey::Unattributed
    }
}

/// Weight of a row in the split of energy that follows CPU time, in thousandths of a nanosecond.
fn time_weight(row: &Row, package: Option<u32>, options: &Options) -> u128 {
    let of_use = |usage: &CpuUse| {
        let alone_ns = usage.cpu_ns.saturating_sub(usage.smt_shared_ns);
        u128::from(alone_ns) * 1000 + u128::from(usage.smt_shared_ns) * u128::from(options.smt_weight_permille)
    };
    match options.idle_policy {
        IdlePolicy::Proportional if row.key == RowKey::Idle => 0,
        IdlePolicy::Proportional => match package {
            Some(package) => row.by_package.get(&package).map_or(0, of_use),
            None => row
                .by_package
                .values()
                .fold(0, |sum: u128, usage| sum.saturating_add(of_use(usage))),
        },
    }
}

fn cgroup_sums(rows: &[Row], leaves: usize) -> Vec<CgroupSum> {
    let mut sums: BTreeMap<&str, CgroupSum> = BTreeMap::new();
    for row in rows {
        let (RowKey::Process(_, cgroup) | RowKey::Merged(cgroup)) = &row.key else {
            continue;
        };
        let sum = sums.entry(cgroup).or_insert_with(|| CgroupSum {
            cgroup: cgroup.clone(),
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
