//! Pairs round by round, and how wrong a method is about them.

use super::{
    Pair, Prediction, Side, SideError, State, Summary,
    table::{RoundPowers, Table, length, mean, permille, small},
};
use crate::validate::{
    LoadKind,
    file::Header,
    methods::{self, METHODS, Question},
    truth::{Claim, Powers, Sure, estimate, ratio},
};

/// An idle floor is a whole number of milliwatts, so no prediction is known better.
const RESOLUTION_UW: i128 = 1000;

/// A pair, round by round.
pub(super) struct Measured {
    loads: [LoadKind; 2],
    powers: Vec<Powers>,
    speed_ppm: [i128; 2],
    work: [(u64, u64); 2],
    /// By method.
    predicted: Vec<(&'static str, Vec<Predicted>)>,
}

/// What a method says of either load in one round: µJ and µW.
type Predicted = ([u64; 2], [i128; 2]);

impl Measured {
    pub(super) fn of(table: &Table, powers: &[RoundPowers], loads: [LoadKind; 2]) -> Self {
        let header = table.header;
        let of_round = |round: &RoundPowers| Powers {
            idle_uw: round.idle_uw,
            single_uw: loads.map(|load| round.of(&[load])),
            both_uw: round.of(&loads),
        };
        let work = [table.work(&loads, 0), table.work(&loads, 1)];
        let speed = |which: usize, load: LoadKind| {
            let ((units, ns), (alone, alone_ns)) = (work[which], table.work(&[load], 0));
            let now = i128::from(units).saturating_mul(alone_ns.into());
            let before = i128::from(alone).saturating_mul(ns.into());
            ratio(now.saturating_sub(before), before.max(1))
        };
        let predict = |method: &methods::Method, round: usize| {
            let cell = table.cell(round, &loads)?;
            let floors = methods::floors(table.cell(round, &[])?, header.package);
            let question = Question {
                cell,
                floors: &floors,
                package: header.package,
                smt: header.smt,
            };
            let energy_uj: [u64; 2] = method.predict(&question)?.try_into().ok()?;
            Some((energy_uj, energy_uj.map(|energy_uj| cell.mean_uw(energy_uj.into()))))
        };
        let predicted = METHODS.iter().filter_map(|method| {
            let rounds: Option<Vec<_>> = (0..table.rounds).map(|round| predict(method, round)).collect();
            Some((method.name, rounds?))
        });
        Self {
            loads,
            powers: powers.iter().map(of_round).collect(),
            speed_ppm: [speed(0, loads[0]), speed(1, loads[1])],
            work,
            predicted: predicted.collect(),
        }
    }

    pub(super) fn state(&self, header: &Header) -> State {
        let limit = permille(header.limits.slowdown_permille);
        let nothing = |which| self.claims(None, which).all().error_ppm().is_none();
        if self.speed_ppm.iter().any(|speed_ppm| speed_ppm.abs() > limit) {
            State::Interfering
        } else if nothing(0) || nothing(1) {
            State::NothingToSplit
        } else {
            State::Used
        }
    }

    /// The truth about a load, and what the method with this position says, in each round.
    fn claims(&self, method: Option<usize>, which: usize) -> Claims {
        let predicted = method.and_then(|method| Some(&self.predicted.get(method)?.1));
        let of_round = |(round, powers): (usize, &Powers)| {
            let predicted = predicted.and_then(|rounds| rounds.get(round));
            let predicted_uw = predicted.map_or(0, |(_, watts)| watts[which.min(1)]);
            Claim::of(powers, which, predicted_uw)
        };
        Claims {
            rounds: self.powers.iter().enumerate().map(of_round).collect(),
            resolution_ppm: 0,
        }
        .with_resolution()
    }

    fn method(&self, name: &str) -> Option<usize> {
        self.predicted.iter().position(|(known, _)| *known == name)
    }

    pub(super) fn shown(&self, header: &Header, resamples: &[Vec<usize>]) -> Pair {
        let error = |position: usize, which: usize| {
            let claims = self.claims(Some(position), which);
            let figure = |chosen: &[usize]| claims.sum(chosen).error_ppm();
            Some(SideError {
                method: self.predicted.get(position)?.0.to_owned(),
                predicted_uw: small(claims.all().predicted_uw / length(self.powers.len())),
                error: estimate(self.powers.len(), resamples, Sure::OfOne, claims.resolution_ppm, figure)?,
                outside_ppm: small(claims.all().outside_ppm()?),
            })
        };
        let side = |which: usize| Side {
            load: self.loads[which],
            alone_uw: small(mean(&self.powers, |powers| powers.alone_uw(which))),
            added_uw: small(mean(&self.powers, |powers| powers.added_uw(which))),
            speed_ppm: small(self.speed_ppm[which]),
            units: self.work[which].0,
            ns: self.work[which].1,
            errors: (0..self.predicted.len())
                .filter_map(|position| error(position, which))
                .collect(),
        };
        let predictions = self.predicted.iter().flat_map(|(method, rounds)| {
            (0..).zip(rounds).map(|(round, (energy_uj, _))| Prediction {
                round,
                method: (*method).to_owned(),
                energy_uj: *energy_uj,
            })
        });
        Pair {
            loads: self.loads,
            state: self.state(header),
            dynamic_uw: small(mean(&self.powers, Powers::dynamic_uw)),
            interaction_uw: small(mean(&self.powers, Powers::interaction_uw)),
            sides: [side(0), side(1)],
            predictions: predictions.collect(),
        }
    }
}

/// One load of a pair and one method, round by round.
struct Claims {
    rounds: Vec<Claim>,
    /// What one milliwatt is of the truth, in ppm.
    resolution_ppm: i128,
}

impl Claims {
    fn with_resolution(self) -> Self {
        let (all, rounds) = (self.all(), length(self.rounds.len()));
        Self {
            resolution_ppm: ratio(2 * RESOLUTION_UW * rounds, (all.alone_uw + all.added_uw).max(1)),
            ..self
        }
    }

    fn sum(&self, chosen: &[usize]) -> Claim {
        Claim::sum(chosen.iter().filter_map(|round| self.rounds.get(*round).copied()))
    }

    fn all(&self) -> Claim {
        Claim::sum(self.rounds.iter().copied())
    }
}

/// A method over the pairs that count; `None` if it does not apply to all of them.
pub(super) fn summary(method: &str, used: &[&Measured], resamples: &[Vec<usize>]) -> Option<Summary> {
    let mut sides: Vec<([LoadKind; 2], Claims)> = Vec::new();
    for pair in used {
        let position = pair.method(method)?;
        let [first, second] = pair.loads;
        sides.push(([first, second], pair.claims(Some(position), 0)));
        sides.push(([second, first], pair.claims(Some(position), 1)));
    }
    let rounds = used.first()?.powers.len();
    let error = |claims: &Claims, chosen: &[usize]| claims.sum(chosen).error_ppm().map(i128::abs);
    let mean_error = |chosen: &[usize]| {
        let errors = sides.iter().map(|(_, claims)| error(claims, chosen));
        Some(errors.sum::<Option<i128>>()? / length(sides.len()))
    };
    let worst_error = |chosen: &[usize]| {
        let mut errors = sides.iter().map(|(_, claims)| error(claims, chosen));
        errors.try_fold(0, |worst, error| Some(error?.max(worst)))
    };
    let of_sides = |of: fn(&Claims) -> Option<i128>| {
        let figures: Option<Vec<i128>> = sides.iter().map(|(_, claims)| of(claims)).collect();
        Some((
            figures.as_ref()?.iter().sum::<i128>() / length(sides.len()),
            figures?.into_iter().max()?,
        ))
    };
    let (resolution_ppm, worst_resolution_ppm) = of_sides(|claims| Some(claims.resolution_ppm))?;
    let (outside_mean, outside_worst) = of_sides(|claims| claims.all().outside_ppm())?;
    let (worst_of, _) = sides
        .iter()
        .max_by_key(|(_, claims)| claims.all().error_ppm().map(i128::abs))?;
    Some(Summary {
        method: method.to_owned(),
        mean: estimate(rounds, resamples, Sure::OfTwo, resolution_ppm, mean_error)?,
        worst: estimate(rounds, resamples, Sure::OfTwo, worst_resolution_ppm, worst_error)?,
        worst_of: *worst_of,
        outside_mean_ppm: small(outside_mean),
        outside_worst_ppm: small(outside_worst),
    })
}
