//! What the cells of a validation say: refusals first, then truth and errors.
//!
//! Everything is a pure function of the header and the cells, in integers, so that whoever has the file gets the same
//! verdict.

mod conditions;
mod measured;
mod table;

use serde::{Deserialize, Serialize};

pub use conditions::refusals;

use super::{
    Cell, LoadKind, Refusal, Why,
    file::Header,
    methods::METHODS,
    plan,
    truth::{Estimate, MILLION, Sure, estimate, ratio, resamples},
};
use crate::words::words;
use measured::{Measured, summary};
use table::{RoundPowers, Table, mean, small};

words! {
    /// What a pair is good for.
    pub enum State {
        /// It counts.
        Used = "used",
        /// A load was slower or faster beside the other one, so `alone` is not true of it: it does not count.
        Interfering = "interfering",
        /// A load draws nothing above idle: it does not count.
        NothingToSplit = "nothing_to_split",
    }
}

/// All that is concluded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Why nothing may be concluded; empty if something may.
    pub refusals: Vec<Refusal>,
    /// Length of all cells in ns.
    pub measured_ns: u64,
    /// Energy of the package in all cells, in µJ.
    pub energy_uj: u64,
    /// Whether the kernel counted throttling in all cells.
    pub throttling_known: bool,
    /// Mean power of the idle machine in µW.
    pub idle_uw: i64,
    /// Each load alone.
    pub singles: Vec<Single>,
    /// Each pair.
    pub pairs: Vec<Pair>,
    /// Each method, over the pairs that count.
    pub methods: Vec<Summary>,
}

/// A load alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Single {
    /// The load.
    pub load: LoadKind,
    /// Its mean power above idle, in µW.
    pub above_idle_uw: i64,
    /// Half of the 95 % interval of the package's power with it, in ppm of that.
    pub half_ppm: i64,
    /// Work that it did in all rounds.
    pub units: u64,
    /// The time of that.
    pub ns: u64,
}

/// A pair of loads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The loads on cores A and B.
    pub loads: [LoadKind; 2],
    /// Whether it counts.
    pub state: State,
    /// What both draw above idle, in µW.
    pub dynamic_uw: i64,
    /// `Eij - Ei - Ej + E0`, in µW.
    pub interaction_uw: i64,
    /// Either load.
    pub sides: [Side; 2],
    /// What each method says in each round.
    pub predictions: Vec<Prediction>,
}

/// One load of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The load.
    pub load: LoadKind,
    /// What it adds to the idle machine, in µW: one end of the truth.
    pub alone_uw: i64,
    /// What it adds to the other load, in µW: the other end.
    pub added_uw: i64,
    /// Work by time, against alone, in ppm: 0 is as fast.
    pub speed_ppm: i64,
    /// Work that it did in this pair in all rounds.
    pub units: u64,
    /// The time of that.
    pub ns: u64,
    /// Each method's error.
    pub errors: Vec<SideError>,
}

/// How wrong a method is about one load of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideError {
    /// The method.
    pub method: String,
    /// Mean of what it says, in µW.
    pub predicted_uw: i64,
    /// Distance from the middle of the truth in ppm of it, with its sign.
    pub error: Estimate,
    /// Distance outside of the truth's interval; 0 inside.
    pub outside_ppm: i64,
}

/// What a method says in one round, in µJ above idle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// The round.
    pub round: u32,
    /// The method.
    pub method: String,
    /// Either load.
    pub energy_uj: [u64; 2],
}

/// How wrong a method is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The method.
    pub method: String,
    /// Mean over the loads of all pairs that count of the distance from the middle.
    pub mean: Estimate,
    /// The largest of them.
    pub worst: Estimate,
    /// Where the largest is: the load, and the one beside it.
    pub worst_of: [LoadKind; 2],
    /// Mean of the distance outside.
    pub outside_mean_ppm: i64,
    /// The largest distance outside.
    pub outside_worst_ppm: i64,
}

impl Verdict {
    /// What the cells say.
    pub fn of(header: &Header, cells: &[Cell]) -> Self {
        let table = Table::of(header, cells);
        let sum = |of: fn(&Cell, u32) -> u64| {
            cells
                .iter()
                .fold(0, |sum: u64, cell| sum.saturating_add(of(cell, header.package)))
        };
        let mut verdict = Self {
            refusals: refusals(header, cells),
            measured_ns: sum(|cell, _| cell.ledger.length_ns()),
            energy_uj: sum(|cell, package| cell.energy_uj(package).unwrap_or(0)),
            throttling_known: cells.iter().all(|cell| cell.throttled.is_some()),
            ..Self::default()
        };
        if let Some(missing) = table.missing() {
            verdict.refusals.push(missing);
        }
        if verdict
            .refusals
            .iter()
            .any(|refusal| matches!(refusal.why, Why::MeterFailed | Why::Incomplete))
        {
            return verdict;
        }
        let Some(powers) = table.powers() else {
            return verdict;
        };
        let resamples = resamples(table.rounds, header.seed);
        verdict.idle_uw = small(mean(&powers, |round| round.idle_uw));
        verdict.singles = singles(&table, &powers, &resamples);
        verdict
            .refusals
            .extend(conditions::of_singles(header, &table, &verdict.singles));
        let pairs: Vec<Measured> = plan::pairs(&header.loads)
            .map(|loads| Measured::of(&table, &powers, loads))
            .collect();
        verdict.pairs = pairs.iter().map(|pair| pair.shown(header, &resamples)).collect();
        let used: Vec<&Measured> = pairs.iter().filter(|pair| pair.state(header) == State::Used).collect();
        verdict.methods = METHODS
            .iter()
            .filter_map(|method| summary(method.name, &used, &resamples))
            .collect();
        verdict.refusals.extend(conditions::of_pairs(&verdict.pairs));
        verdict
    }

    /// Whether something may be concluded.
    pub fn holds(&self) -> bool {
        self.refusals.is_empty()
    }

    /// The summary of a method.
    pub fn summary(&self, method: &str) -> Option<&Summary> {
        self.methods.iter().find(|summary| summary.method == method)
    }
}

fn singles(table: &Table, powers: &[RoundPowers], resamples: &[Vec<usize>]) -> Vec<Single> {
    let single = |load: &LoadKind| {
        let power = |rounds: &[usize]| {
            let sum = rounds
                .iter()
                .filter_map(|round| Some(powers.get(*round)?.of(&[*load])))
                .sum::<i128>();
            // A mean in µW is at most 2^64: as ppm of the mean of all it is divided below.
            i128::try_from(rounds.len()).ok().map(|count| sum / count.max(1))
        };
        let mean_uw = mean(powers, |round| round.of(&[*load]));
        let half_uw = estimate(table.rounds, resamples, Sure::OfOne, 0, power)
            .map_or(i128::MAX / MILLION, |estimate| i128::from(estimate.half_ppm()));
        let (units, ns) = table.work(&[*load], 0);
        Single {
            load: *load,
            above_idle_uw: small(mean_uw - mean(powers, |round| round.idle_uw)),
            half_ppm: small(ratio(half_uw, mean_uw.max(1))),
            units,
            ns,
        }
    };
    table.header.loads.iter().map(single).collect()
}
