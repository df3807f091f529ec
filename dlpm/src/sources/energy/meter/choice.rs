//! Which zones of which source are used: a source counts only where it has something that can be split.

use std::{collections::BTreeSet, path::Path};

use super::{super::coverage::is_split_by_time, *};

/// The meters of a trace, and what has to be said of them.
#[derive(Debug)]
pub struct Found {
    /// Where energy is read.
    pub meter: Meter,
    /// Which source is used, in a sentence.
    pub choice: String,
    /// What is wrong with the meters, a sentence each: zones that do not measure, packages that do not match.
    pub problems: Vec<String>,
    /// What was found and is not counted, a sentence each.
    pub ignored: Vec<String>,
}

/// Finds the meters that a trace uses: for each package the first source that measures it, and the platform's zone in
/// addition, whatever the source of the rest.
///
/// # Errors
///
/// Where the `wanted` source is not there or has nothing that can be split, and (for [`EnergySource::Auto`]) where
/// counters are there, none can be read, and no estimate was given. No counter at all is not an error.
pub fn find_meter(
    sysfs: &Path,
    wanted: EnergySource,
    estimate: Option<Estimate>,
    topology: &Topology,
) -> Result<Found, EnergyError> {
    if wanted == EnergySource::Estimate {
        let estimate = estimate.ok_or(EnergyError::NoEstimate)?;
        return Ok(Found {
            meter: Meter {
                estimate: Some(estimate),
                ..Meter::default()
            },
            choice: "every figure of energy is an estimate, made of the watts that --estimate gave".to_owned(),
            problems: Vec::new(),
            ignored: Vec::new(),
        });
    }
    choose(Survey::of(sysfs, wanted, topology), wanted, estimate, topology)
}

/// Chooses among what was found.
pub(super) fn choose(
    survey: Survey,
    wanted: EnergySource,
    estimate: Option<Estimate>,
    topology: &Topology,
) -> Result<Found, EnergyError> {
    let uses = Uses::of(&survey);
    let mut problems = doubts(&survey);
    if uses.packages.is_empty() {
        match (wanted, estimate) {
            // What was asked for and is not there cannot be made up for.
            (EnergySource::Powercap, _) if survey.powercap.is_err() => return Err(failure(survey.powercap)),
            (EnergySource::Perf, _) if survey.perf.is_err() => return Err(failure(survey.perf)),
            (_, Some(estimate)) => return Ok(estimated(survey, wanted, estimate, problems)),
            // Counters that are there and cannot be read have a remedy.
            (EnergySource::Auto, None) => {
                if survey.powercap.as_ref().is_err_and(|error| !error.is_absent()) {
                    return Err(failure(survey.powercap));
                }
                if survey.perf.as_ref().is_err_and(|error| !error.is_absent()) {
                    return Err(failure(survey.perf));
                }
            }
            (_, None) if !survey.has_packages() => {
                return Err(EnergyError::CannotSplit {
                    wanted: if wanted == EnergySource::Perf {
                        "perf"
                    } else {
                        "powercap"
                    },
                    why: problems.join("; "),
                });
            }
            (_, None) => {}
        }
        if survey.has_packages() || !survey.of_powercap.is_empty() || !survey.of_perf.is_empty() {
            problems.push(NOTHING_TO_SPLIT.to_owned());
        }
    }
    measured(survey, uses, estimate, problems, topology)
}

const NOTHING_TO_SPLIT: &str = "with `--estimate idle=W,busy=W`, the watts of the idle machine and of each busy CPU, \
    joules of processes are estimated, and labelled as an estimate";

/// Which source is used for what.
struct Uses {
    /// Packages that a source measures now.
    packages: BTreeSet<u32>,
    /// Packages for which perf is used.
    by_perf: BTreeSet<u32>,
    psys: MeterSource,
}

impl Uses {
    fn of(survey: &Survey) -> Self {
        let split = |readings: &[ZoneReading], kinds: &[ZoneKind]| -> BTreeSet<u32> {
            let known = readings
                .iter()
                .filter(|reading| reading.energy_uj.is_ok() && kinds.contains(&reading.kind));
            known.filter_map(|reading| reading.package).collect()
        };
        let all = |readings: &[ZoneReading]| -> BTreeSet<u32> {
            readings.iter().filter_map(|reading| reading.package).collect()
        };
        let kinds: [&[ZoneKind]; 2] = [&[ZoneKind::Package], &[ZoneKind::Core]];
        let [of_powercap, of_perf] = [&survey.of_powercap, &survey.of_perf];
        // A whole package is better than its cores alone, and powercap, which says more, is asked first.
        let mut by_perf = BTreeSet::new();
        let mut packages = BTreeSet::new();
        for kinds in kinds {
            let by_powercap = split(of_powercap, kinds);
            packages.extend(
                by_powercap
                    .iter()
                    .filter(|package| !by_perf.contains(*package))
                    .copied()
                    .collect::<Vec<_>>(),
            );
            for package in split(of_perf, kinds) {
                // One package under two numbers is one package.
                let known = survey.coverage.is_renumbered() && !packages.is_empty();
                if !known && !packages.contains(&package) {
                    packages.insert(package);
                    by_perf.insert(package);
                }
            }
        }
        // What no source measures stays with the source that has it.
        if packages.is_empty() || !survey.coverage.is_renumbered() {
            by_perf.extend(all(of_perf).difference(&all(of_powercap)));
        }
        let counts = |readings: &[ZoneReading]| {
            readings
                .iter()
                .any(|reading| reading.kind == ZoneKind::Psys && reading.energy_uj.is_ok())
        };
        let has = |readings: &[ZoneReading]| readings.iter().any(|reading| reading.kind == ZoneKind::Psys);
        let psys = match (counts(of_powercap), counts(of_perf)) {
            (true, _) => MeterSource::Powercap,
            (false, true) => MeterSource::Perf,
            (false, false) if has(of_powercap) => MeterSource::Powercap,
            (false, false) => MeterSource::Perf,
        };
        Self {
            packages,
            by_perf,
            psys,
        }
    }
}

impl Survey {
    fn has_packages(&self) -> bool {
        self.of_powercap
            .iter()
            .chain(&self.of_perf)
            .any(|reading| is_split_by_time(reading.kind))
    }
}

fn psys_counts(of_powercap: &[ZoneReading], of_perf: &[ZoneReading]) -> bool {
    let mut psys = of_powercap
        .iter()
        .chain(of_perf)
        .filter(|reading| reading.kind == ZoneKind::Psys);
    psys.any(|reading| reading.energy_uj.is_ok())
}

fn failure<T>(found: Result<T, EnergyError>) -> EnergyError {
    found.err().unwrap_or(EnergyError::NotAsked)
}

/// Zones that are there and not believed, or cannot be read.
fn doubts(survey: &Survey) -> Vec<String> {
    let readings = survey.of_powercap.iter().chain(&survey.of_perf);
    readings
        .filter_map(|reading| {
            let reason = reading.energy_uj.as_ref().err()?;
            Some(format!("{} ({}): {reason}", reading.zone, reading.source.as_str()))
        })
        .collect()
}

fn estimated(survey: Survey, wanted: EnergySource, estimate: Estimate, mut problems: Vec<String>) -> Found {
    for error in [survey.powercap.as_ref().err(), survey.perf.as_ref().err()]
        .into_iter()
        .flatten()
    {
        if !error.is_absent() {
            problems.push(error.to_string());
        }
    }
    let uses = Uses::of(&survey);
    let mut choice = match wanted {
        EnergySource::Powercap => "powercap was asked for and has nothing that can be split: ",
        EnergySource::Perf => "perf was asked for and has nothing that can be split: ",
        EnergySource::Auto | EnergySource::Estimate => "",
    }
    .to_owned();
    choice.push_str("every figure of energy is an estimate, made of the watts that --estimate gave");
    if psys_counts(&survey.of_powercap, &survey.of_perf) {
        choice.push_str("; psys alone is measured, and shown in addition");
    }
    let ignored = ignored(&survey);
    let (mut powercap, mut perf) = (survey.powercap.ok(), survey.perf.ok());
    keep(&mut powercap, &mut perf, |kind, _, source| {
        kind == ZoneKind::Psys && source == uses.psys
    });
    Found {
        meter: Meter {
            powercap,
            perf,
            estimate: Some(estimate),
            coverage: Coverage::default(),
        },
        choice,
        problems,
        ignored,
    }
}

fn measured(
    survey: Survey,
    uses: Uses,
    estimate: Option<Estimate>,
    mut problems: Vec<String>,
    topology: &Topology,
) -> Result<Found, EnergyError> {
    let mut ignored = ignored(&survey);
    if estimate.is_some() {
        ignored.insert(
            0,
            "--estimate is not used, because this machine has energy counters that can be split".to_owned(),
        );
    }
    let no_powercap = survey.powercap.as_ref().err().map(EnergyError::is_absent);
    let absent = survey.powercap.as_ref().err().map(ToString::to_string);
    let (mut powercap, mut perf) = (survey.powercap.ok(), survey.perf.ok());
    keep(&mut powercap, &mut perf, |kind, package, source| match package {
        Some(package) => uses.by_perf.contains(&package) == (source == MeterSource::Perf),
        None => kind != ZoneKind::Psys || source == uses.psys,
    });
    let packages = |readings: &[ZoneReading], of: MeterSource| -> Vec<u32> {
        let packages = readings.iter().filter_map(|reading| reading.package);
        packages
            .filter(|package| uses.by_perf.contains(package) == (of == MeterSource::Perf))
            .collect()
    };
    let mut zones = packages(&survey.of_powercap, MeterSource::Powercap);
    let of_perf = packages(&survey.of_perf, MeterSource::Perf);
    let choice = match (zones.is_empty(), of_perf.is_empty()) {
        _ if powercap.is_none() && perf.is_none() => absent.unwrap_or_default(),
        _ if uses.packages.is_empty() && psys_counts(&survey.of_powercap, &survey.of_perf) => {
            "energy is measured for the platform (psys) alone, and nothing of it is split".to_owned()
        }
        _ if uses.packages.is_empty() => "no meter here counts energy that can be split".to_owned(),
        (false, true) => "energy is measured: the kernel's powercap zones".to_owned(),
        (true, _) => format!(
            "energy is measured: the kernel's perf events power/energy-*{}",
            match no_powercap {
                Some(true) => "; there are no powercap zones",
                Some(false) => "; the powercap zones cannot be read",
                None => "; the powercap zones cannot be split",
            }
        ),
        (false, false) => format!(
            "energy is measured: the kernel's powercap zones, and its perf events power/energy-* for package {}",
            uses.by_perf
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        ),
    };
    zones.extend(of_perf);
    let coverage = Coverage::new(zones, topology);
    problems.extend(coverage.problems());
    Ok(Found {
        meter: Meter {
            powercap,
            perf,
            estimate: None,
            coverage,
        },
        choice,
        problems,
        ignored,
    })
}

fn ignored(survey: &Survey) -> Vec<String> {
    let of_powercap = survey.powercap().unwrap_or_default();
    of_powercap
        .into_iter()
        .chain(survey.perf().unwrap_or_default())
        .collect()
}

/// Keeps the zones that are used, and no source without any.
fn keep(
    powercap: &mut Option<Powercap>,
    perf: &mut Option<Perf>,
    used: impl Fn(ZoneKind, Option<u32>, MeterSource) -> bool,
) {
    if let Some(meter) = powercap {
        meter.retain(|kind, package| used(kind, package, MeterSource::Powercap));
    }
    if let Some(meter) = perf {
        meter.retain(|kind, package| used(kind, package, MeterSource::Perf));
    }
    powercap.take_if(|meter| meter.is_empty());
    perf.take_if(|meter| meter.is_empty());
}
