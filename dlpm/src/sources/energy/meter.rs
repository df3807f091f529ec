//! Which meter a trace uses.

use std::path::Path;

use super::{EnergyError, estimate::Estimate, perf::Perf, powercap::Powercap};
use crate::{interval::ZoneReading, sources::clock::monotonic_ns};

/// Where the user wants energy to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EnergySource {
    /// The first of powercap, perf and the estimate that can be had.
    #[default]
    Auto,
    /// The kernel's powercap tree.
    Powercap,
    /// The kernel's perf energy events.
    Perf,
    /// The watts of --estimate.
    Estimate,
}

/// Where energy is read.
#[derive(Debug)]
pub enum Meter {
    /// The kernel's powercap tree.
    Powercap(Powercap),
    /// The kernel's perf energy events.
    Perf(Perf),
    /// Watts that the user gave.
    Estimate(Estimate),
    /// Nowhere: CPU time only.
    None,
}

impl Meter {
    /// Reads counters that wrap, so that each wrap is seen however long the interval is. `now_ns` is CLOCK_MONOTONIC.
    pub fn poll(&mut self, now_ns: u64) {
        match self {
            Self::Powercap(powercap) => powercap.poll(now_ns),
            // The kernel absorbs the wraps of perf events.
            Self::Perf(_) | Self::Estimate(_) | Self::None => {}
        }
    }

    /// The energy of each zone since the last call. An estimate is made from the time of the CPUs instead
    /// ([`Estimate::reading`]).
    pub fn take(&mut self, now_ns: u64) -> Vec<ZoneReading> {
        match self {
            Self::Powercap(powercap) => powercap.take(now_ns),
            Self::Perf(perf) => perf.take(now_ns),
            Self::Estimate(_) | Self::None => Vec::new(),
        }
    }
}

/// Finds the meter that a trace uses, and says which, and what of it is not counted: a sentence each.
///
/// # Errors
///
/// Where the `wanted` source is not there, or (for [`EnergySource::Auto`]) where there are counters and none can be
/// read. No counter at all is [`Meter::None`] then.
pub fn find_meter(
    sysfs: &Path,
    wanted: EnergySource,
    estimate: Option<Estimate>,
) -> Result<(Meter, Vec<String>), EnergyError> {
    match wanted {
        EnergySource::Powercap => Powercap::open(sysfs, monotonic_ns()).map(|meter| powercap(meter, estimate)),
        EnergySource::Perf => Perf::open(sysfs, monotonic_ns()).map(|meter| perf(meter, estimate, None)),
        EnergySource::Estimate => estimate.map(estimated).ok_or(EnergyError::NoEstimate),
        EnergySource::Auto => auto(sysfs, estimate),
    }
}

fn auto(sysfs: &Path, estimate: Option<Estimate>) -> Result<(Meter, Vec<String>), EnergyError> {
    let no_powercap = match Powercap::open(sysfs, monotonic_ns()) {
        Ok(meter) => return Ok(powercap(meter, estimate)),
        Err(error) => error,
    };
    let no_perf = match Perf::open(sysfs, monotonic_ns()) {
        Ok(meter) => return Ok(perf(meter, estimate, Some(&no_powercap))),
        Err(error) => error,
    };
    // Counters that are there and cannot be read have a remedy, which is better than any estimate.
    match (no_powercap.is_absent(), no_perf.is_absent(), estimate) {
        (false, ..) => Err(no_powercap),
        (true, false, _) => Err(no_perf),
        (true, true, Some(estimate)) => Ok(estimated(estimate)),
        (true, true, None) => Ok((Meter::None, vec![no_powercap.to_string()])),
    }
}

fn powercap(meter: Powercap, estimate: Option<Estimate>) -> (Meter, Vec<String>) {
    let mut notes = vec!["energy is measured: the kernel's powercap zones".to_owned()];
    notes.extend(unused(estimate));
    notes.extend_from_slice(meter.ignored());
    (Meter::Powercap(meter), notes)
}

fn perf(meter: Perf, estimate: Option<Estimate>, instead: Option<&EnergyError>) -> (Meter, Vec<String>) {
    let why = match instead {
        Some(error) if error.is_absent() => "; there are no powercap zones",
        Some(_) => "; the powercap zones cannot be read",
        None => "",
    };
    let mut notes = vec![format!(
        "energy is measured: the kernel's perf events power/energy-*{why}"
    )];
    notes.extend(unused(estimate));
    notes.extend_from_slice(meter.ignored());
    (Meter::Perf(meter), notes)
}

fn unused(estimate: Option<Estimate>) -> Option<String> {
    estimate.map(|_| "--estimate is not used, because this machine has energy counters that can be read".to_owned())
}

fn estimated(estimate: Estimate) -> (Meter, Vec<String>) {
    let note = "every figure of energy is an estimate, made of the watts that --estimate gave";
    (Meter::Estimate(estimate), vec![note.to_owned()])
}

#[cfg(test)]
mod tests;
