//! From runs whose energy was measured to what perf events weigh: a fit by least squares without negative weights, and its
//! error on runs that were kept aside.

mod least_squares;

use crate::attribution::{
    counters::Weights,
    ledger::{CpuUse, Ledger, RowKey},
};
use crate::interval::{Counts, MAX_EVENTS, ZoneKind};

/// Every so many runs, one is kept aside.
const HELD_OUT_EVERY: usize = 3;

/// Weights whose mean error on the runs that were kept aside is larger are refused, in thousandths.
pub const MOST_ERROR_PERMILLE: u64 = 100;

/// 1 µJ is so many fJ.
const FJ_PER_UJ: f64 = 1e9;

/// What one package did in one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Its zone.
    pub zone: String,
    /// Energy above that of the idle package in µJ.
    pub dynamic_uj: u64,
    /// Busy time in thousandths of a ns: time beside a busy sibling counts less, as in every split.
    pub weighted_ps: u128,
    /// What its events counted while it was busy.
    pub counts: Counts,
}

/// Weights, and how well they predict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitted {
    /// The weights; their idle power is the caller's.
    pub weights: Weights,
    /// Observations that they were fitted to.
    pub fitted: u64,
    /// Observations that were kept aside.
    pub held_out: u64,
    /// Mean of |predicted - measured| / measured of these, in thousandths.
    pub held_out_error_permille: u64,
    /// The same where energy is in proportion to busy time alone, fitted to the same runs: what a split by CPU time assumes.
    pub by_time_error_permille: u64,
}

/// What the packages on which the loads of a run were did above idle, for those whose idle power is known (`idle_mw`).
///
/// # Errors
///
/// Where a package's energy or its counts are not whole, with the reason.
pub fn observations(
    ledger: &Ledger,
    idle_mw: &std::collections::BTreeMap<String, u64>,
) -> Result<Vec<Observation>, String> {
    let mut observations = Vec::new();
    for root in ledger.roots.iter().filter(|root| root.kind == ZoneKind::Package) {
        let Some(idle_mw) = idle_mw.get(&root.zone) else {
            continue;
        };
        let energy_uj = *root
            .energy_uj
            .as_ref()
            .map_err(|reason| format!("{} is not known ({reason})", root.zone))?;
        for cpu in ledger.cpus.iter().filter(|cpu| cpu.package == root.package) {
            if cpu.counts.is_none_or(|counts| counts.failed > 0) {
                return Err(format!("the events of CPU {} could not be read all the time", cpu.cpu));
            }
        }
        let mut busy = CpuUse::default();
        for row in ledger.rows.iter().filter(|row| row.key != RowKey::Idle) {
            if let Some(usage) = row.by_package.get(&root.package) {
                busy.cpu_ns = busy.cpu_ns.saturating_add(usage.cpu_ns);
                busy.smt_shared_ns = busy.smt_shared_ns.saturating_add(usage.smt_shared_ns);
                busy.counts.add(&usage.counts);
            }
        }
        // Of a package on which next to nothing ran, the difference to the idle one is noise.
        if busy.cpu_ns < ledger.length_ns() / 4 {
            continue;
        }
        let idle_uj = u128::from(*idle_mw) * u128::from(ledger.length_ns()) / 1_000_000;
        let one = Weights {
            fj_per_ns: 1,
            ..Weights::default()
        };
        observations.push(Observation {
            zone: root.zone.clone(),
            dynamic_uj: energy_uj.saturating_sub(u64::try_from(idle_uj).unwrap_or(u64::MAX)),
            weighted_ps: one.of(&busy, ledger.smt_weight_permille),
            counts: busy.counts,
        });
    }
    Ok(observations)
}

/// Fits weights of the first `events` events to two of three observations, and tries them on the third.
///
/// # Errors
///
/// Where there are too few observations, or the weights are all 0, or they predict those that were kept aside badly.
pub fn fit(observations: &[Observation], events: usize) -> Result<Fitted, String> {
    let events = events.min(MAX_EVENTS);
    let is_held_out = |position: usize| position % HELD_OUT_EVERY == HELD_OUT_EVERY - 1;
    let (mut fitted, mut held_out) = (Vec::new(), Vec::new());
    for (position, observation) in observations.iter().enumerate() {
        if is_held_out(position) {
            held_out.push(observation);
        } else {
            fitted.push(observation);
        }
    }
    // Weights for time and each event.
    if fitted.len() < 2 * (events + 1) || held_out.is_empty() {
        return Err(format!(
            "{} runs are too few for the weights of {events} events",
            observations.len()
        ));
    }
    let weights = weights_of(&fitted, events);
    if weights.fj_per_ns == 0 && weights.fj_per_event == Counts::default() {
        return Err("the loads drew nothing above the idle machine".to_owned());
    }
    let by_time = weights_of(&fitted, 0);
    let result = Fitted {
        held_out_error_permille: error_permille(&weights, &held_out),
        by_time_error_permille: error_permille(&by_time, &held_out),
        weights,
        fitted: fitted.len() as u64,
        held_out: held_out.len() as u64,
    };
    if result.held_out_error_permille > MOST_ERROR_PERMILLE {
        return Err(format!(
            "the weights are wrong by {} % about runs that they were not fitted to, and {} % is the limit",
            result.held_out_error_permille as f64 / 10.0,
            MOST_ERROR_PERMILLE / 10
        ));
    }
    Ok(result)
}

/// Relative errors count, so that a run on one CPU weighs as much as one on all.
fn weights_of(observations: &[&Observation], events: usize) -> Weights {
    let measured: Vec<&&Observation> = observations.iter().filter(|one| one.dynamic_uj > 0).collect();
    let row = |one: &Observation| {
        let scale = one.dynamic_uj as f64 * FJ_PER_UJ;
        let mut row = vec![one.weighted_ps as f64 / 1000.0 / scale];
        row.extend(one.counts.0.iter().take(events).map(|count| *count as f64 / scale));
        row
    };
    let rows: Vec<Vec<f64>> = measured.iter().map(|one| row(one)).collect();
    let found = least_squares::without_negatives(&rows, &vec![1.0; rows.len()]);
    let mut weights = Weights {
        fj_per_ns: whole(found.first().copied().unwrap_or(0.0)),
        ..Weights::default()
    };
    for (weight, found) in weights.fj_per_event.0.iter_mut().zip(found.iter().skip(1)) {
        *weight = whole(*found);
    }
    weights
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a conversion that saturates, of a number that is not negative"
)]
fn whole(weight: f64) -> u64 {
    weight.round() as u64
}

fn predicted_uj(weights: &Weights, one: &Observation) -> f64 {
    let counted = one.counts.0.iter().zip(weights.fj_per_event.0);
    let counted_fj: f64 = counted.map(|(count, fj)| *count as f64 * fj as f64).sum();
    (one.weighted_ps as f64 / 1000.0 * weights.fj_per_ns as f64 + counted_fj) / FJ_PER_UJ
}

fn error_permille(weights: &Weights, observations: &[&Observation]) -> u64 {
    let error = |one: &&Observation| {
        let measured_uj = (one.dynamic_uj as f64).max(1.0);
        (predicted_uj(weights, one) - measured_uj).abs() / measured_uj
    };
    let sum: f64 = observations.iter().map(error).sum();
    whole(sum * 1000.0 / observations.len().max(1) as f64)
}

#[cfg(test)]
mod tests;
