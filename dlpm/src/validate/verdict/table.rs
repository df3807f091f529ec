//! Cells by round and loads, and their powers.

use std::collections::BTreeMap;

use crate::validate::{Cell, LoadKind, Refusal, Why, file::Header, plan, truth::MILLION};

/// Resistance to hostile files: so many ppm are the most that a figure is shown as.
const MOST_PPM: i128 = i64::MAX as i128;

/// The cells, by round and loads.
pub(super) struct Table<'a> {
    pub(super) header: &'a Header,
    pub(super) rounds: usize,
    cells: BTreeMap<(u32, Vec<LoadKind>), &'a Cell>,
}

impl<'a> Table<'a> {
    pub(super) fn of(header: &'a Header, cells: &'a [Cell]) -> Self {
        Self {
            header,
            rounds: usize::try_from(header.rounds).unwrap_or(0),
            cells: cells.iter().map(|cell| ((cell.round, cell.loads()), cell)).collect(),
        }
    }

    /// What was planned and is not there.
    pub(super) fn missing(&self) -> Option<Refusal> {
        let planned = plan::cells(&self.header.loads);
        let expected = planned.len().saturating_mul(self.rounds);
        let is_there = |round: u32| {
            planned
                .iter()
                .all(|loads| self.cells.contains_key(&(round, loads.clone())))
        };
        // Two rounds at least: one says nothing of its spread.
        let is_complete = self.rounds >= 2 && !self.header.loads.is_empty() && (0..self.header.rounds).all(is_there);
        (!is_complete).then(|| {
            Refusal::new(
                Why::Incomplete,
                format!("{} of {expected} cells were measured", self.cells.len()),
            )
        })
    }

    pub(super) fn cell(&self, round: usize, loads: &[LoadKind]) -> Option<&'a Cell> {
        let round = u32::try_from(round).ok()?;
        self.cells.get(&(round, loads.to_vec())).copied()
    }

    pub(super) fn power(&self, round: usize, loads: &[LoadKind]) -> Option<i128> {
        self.cell(round, loads)?.power_uw(self.header.package).ok()
    }

    /// Powers of each round, by the loads that ran.
    pub(super) fn powers(&self) -> Option<Vec<RoundPowers>> {
        let round = |round| {
            let mut of_loads = BTreeMap::new();
            for loads in plan::cells(&self.header.loads) {
                of_loads.insert(loads.clone(), self.power(round, &loads)?);
            }
            Some(RoundPowers {
                idle_uw: *of_loads.get(&Vec::new())?,
                of_loads,
            })
        };
        (0..self.rounds).map(round).collect()
    }

    /// Work and time of one of the loads of a cell, in all rounds.
    pub(super) fn work(&self, loads: &[LoadKind], which: usize) -> (u64, u64) {
        let runs = (0..self.rounds).filter_map(|round| self.cell(round, loads)?.runs.get(which));
        runs.fold((0, 0), |(units, ns), run| {
            (units.saturating_add(run.units), ns.saturating_add(run.ns))
        })
    }

    /// Units in a thousand seconds, in each round.
    pub(super) fn speeds(&self, loads: &[LoadKind], which: usize) -> Vec<i128> {
        let runs = (0..self.rounds).filter_map(|round| self.cell(round, loads)?.runs.get(which));
        runs.map(|run| i128::from(run.units) * MILLION * MILLION / i128::from(run.ns).max(1))
            .collect()
    }
}

pub(super) struct RoundPowers {
    pub(super) idle_uw: i128,
    of_loads: BTreeMap<Vec<LoadKind>, i128>,
}

impl RoundPowers {
    pub(super) fn of(&self, loads: &[LoadKind]) -> i128 {
        self.of_loads.get(loads).copied().unwrap_or(0)
    }
}

pub(super) fn mean<T>(items: &[T], of: impl Fn(&T) -> i128) -> i128 {
    items.iter().map(of).sum::<i128>() / length(items.len())
}

pub(super) fn length(count: usize) -> i128 {
    i128::try_from(count).unwrap_or(i128::MAX).max(1)
}

/// A figure as it is stored; no machine comes near the bound.
pub(super) fn small(figure: i128) -> i64 {
    i64::try_from(figure.clamp(-MOST_PPM, MOST_PPM)).unwrap_or(i64::MAX)
}

pub(super) fn permille(limit: u32) -> i128 {
    i128::from(limit) * 1000
}
