//! The methods that are compared: a new one joins [`METHODS`], and nothing else changes.
//!
//! Each says what a row used above idle, by the code that a trace uses (`attribution::share`, under the idle policy
//! `separate`), with the idle cell of the same round as the floor.

use std::collections::BTreeMap;

use super::{Cell, Run};
use crate::{
    attribution::{
        counters,
        energy_tree::WHOLE,
        floors::{floor_mw, mean_mw},
        ledger::{IdlePolicy, LeafZone, Method as SplitBy},
        share::{Rules, share},
    },
    interval::ZoneKind,
};

/// Power of the idle machine in mW, by the name of the leaf.
pub type Floors = BTreeMap<String, u64>;

/// Weight of a shared nanosecond in thousandths, where sharing a core is not looked at.
const NO_SMT_WEIGHT: u32 = 1000;

/// What a method is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The cell.
    pub cell: &'a Cell,
    /// The idle machine of its round.
    pub floors: &'a Floors,
    /// The package that the loads run on.
    pub package: u32,
    /// Whether a core of the machine has two hardware threads.
    pub smt: bool,
}

/// A method.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Its name in files.
    pub name: &'static str,
    /// What people read.
    pub title: &'static str,
    /// Whether it differs from the others in this cell.
    applies: fn(&Question) -> bool,
    /// What each load used above idle, in µJ, in the order of the runs; `None` where that is not known.
    predict: fn(&Question) -> Option<Vec<u64>>,
}

/// What everything else is compared with: it knows nothing of the loads.
pub const EQUAL: &str = "equal";

/// All methods.
pub const METHODS: [Method; 5] = [
    Method {
        name: EQUAL,
        title: "equal split (to compare with)",
        applies: |_| true,
        predict: equal,
    },
    Method {
        name: "cpu_time",
        title: "CPU time",
        applies: |_| true,
        predict: |question| of_whole(question, SplitBy::CpuTime, NO_SMT_WEIGHT),
    },
    Method {
        name: "cpu_time_smt",
        title: "CPU time, SMT weight",
        applies: |question| question.smt,
        predict: |question| of_whole(question, SplitBy::CpuTime, smt_weight(question)),
    },
    Method {
        name: "cpu_time_core",
        title: "CPU time, by core",
        applies: |question| {
            let mut leaves = question.cell.leaves(question.package);
            leaves.any(|leaf| leaf.kind == ZoneKind::OneCore)
        },
        predict: |question| by_leaf(question, smt_weight(question)),
    },
    Method {
        name: "counters",
        title: "counters",
        applies: |question| counters::weights(&question.cell.ledger).is_some(),
        predict: |question| of_whole(question, SplitBy::Counters, smt_weight(question)),
    },
];

/// The weight that the cell was attributed with.
fn smt_weight(question: &Question) -> u32 {
    question.cell.ledger.smt_weight_permille
}

impl Method {
    /// What the loads of a cell used above idle, in µJ; `None` where the method does not apply, or that is not known.
    pub fn predict(&self, question: &Question) -> Option<Vec<u64>> {
        (self.applies)(question).then(|| (self.predict)(question))?
    }
}

/// The method of that name.
pub fn named(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

/// The floors that the idle cell of a round gives.
pub fn floors(idle: &Cell, package: u32) -> Floors {
    let floor = |leaf: &LeafZone| {
        let energy_uj = *leaf.energy_uj.as_ref().ok()?;
        Some((leaf.zone.clone(), mean_mw(energy_uj.into(), idle.ledger.length_ns())))
    };
    idle.leaves(package).filter_map(floor).collect()
}

/// Power of the whole idle package in mW.
fn whole_floor_mw(floors: &Floors) -> u64 {
    floors.values().fold(0, |sum, floor_mw| sum.saturating_add(*floor_mw))
}

/// As much to each load.
fn equal(question: &Question) -> Option<Vec<u64>> {
    let dynamic_uj = question.cell.energy_uj(question.package).ok()?;
    let floor_uj =
        u128::from(whole_floor_mw(question.floors)) * u128::from(question.cell.ledger.length_ns()) / 1_000_000;
    let above_uj = dynamic_uj.saturating_sub(u64::try_from(floor_uj).unwrap_or(u64::MAX));
    let loads = u64::try_from(question.cell.runs.len()).ok()?;
    Some(vec![above_uj.checked_div(loads)?; question.cell.runs.len()])
}

/// The package as one leaf.
fn of_whole(question: &Question, method: SplitBy, smt_weight_permille: u32) -> Option<Vec<u64>> {
    let first = question.cell.leaves(question.package).next()?;
    let whole = LeafZone {
        zone: format!("package-{}/{WHOLE}", question.package),
        kind: ZoneKind::Package,
        energy_uj: Ok(question.cell.energy_uj(question.package).ok()?),
        idle_floor_mw: Some(whole_floor_mw(question.floors)),
        // The method as it is asked, whatever the cell was split by.
        method,
        ..first.clone()
    };
    let shares = shares(question, &whole, smt_weight_permille)?;
    question
        .cell
        .runs
        .iter()
        .map(|run| own(question.cell, run, &shares))
        .collect()
}

/// Each leaf of the package as a trace splits it.
fn by_leaf(question: &Question, smt_weight_permille: u32) -> Option<Vec<u64>> {
    let cell = question.cell;
    let mut sums = vec![0_u64; cell.runs.len()];
    let leaves: Vec<LeafZone> = cell.leaves(question.package).cloned().collect();
    for (position, leaf) in leaves.iter().enumerate() {
        let leaf = LeafZone {
            idle_floor_mw: floor_mw(question.floors, &leaves, position),
            ..leaf.clone()
        };
        let shares = shares(question, &leaf, smt_weight_permille)?;
        for (sum, run) in sums.iter_mut().zip(&cell.runs) {
            *sum = sum.saturating_add(own(cell, run, &shares)?);
        }
    }
    Some(sums)
}

/// What each row of the cell used above idle of a leaf.
fn shares(question: &Question, leaf: &LeafZone, smt_weight_permille: u32) -> Option<Vec<u64>> {
    let rules = Rules {
        length_ns: question.cell.ledger.length_ns(),
        smt_weight_permille,
        idle_policy: IdlePolicy::Separate,
        memory_known: false,
        weights: counters::weights(&question.cell.ledger),
    };
    let energy_uj = *leaf.energy_uj.as_ref().ok()?;
    Some(share(energy_uj, leaf, &question.cell.ledger.rows, &rules))
}

/// A load that had no CPU time has no row, and used nothing.
fn own(cell: &Cell, run: &Run, shares: &[u64]) -> Option<u64> {
    match cell.row_of(run) {
        Some(position) => shares.get(position).copied(),
        None => Some(0),
    }
}
