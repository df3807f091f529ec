//! Which zones of which source are used: a source counts only where it has something that can be split.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

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
    let mut problems = doubts(&survey, &uses);
    if uses.packages.is_empty() {
        match (wanted, estimate) {
            // What was asked for and is not there cannot be made up for.
            (source, _) if survey.error(source).is_some() => return Err(failure(survey, source)),
            (_, Some(estimate)) => return Ok(estimated(survey, wanted, estimate, problems)),
            // Counters that are there and cannot be read have a remedy.
            (EnergySource::Auto, None) => {
                let has_remedy = |source: &EnergySource| survey.error(*source).is_some_and(|error| !error.is_absent());
                if let Some(source) = SOURCES.into_iter().find(has_remedy) {
                    return Err(failure(survey, source));
                }
            }
            (source, None) if !survey.has_packages() => {
                return Err(EnergyError::CannotSplit {
                    wanted: word(source),
                    why: problems.join("; "),
                });
            }
            (_, None) => {}
        }
        if survey.has_packages() || survey.readings().iter().any(|(_, readings)| !readings.is_empty()) {
            problems.push(NOTHING_TO_SPLIT.to_owned());
        }
    }
    measured(survey, uses, estimate, problems, topology)
}

const NOTHING_TO_SPLIT: &str = "with `--estimate idle=W,busy=W`, the watts of the idle machine and of each busy CPU, \
    joules of processes are estimated, and labelled as an estimate";

/// The sources of packages, in the order in which they are asked.
const SOURCES: [EnergySource; 3] = [EnergySource::Powercap, EnergySource::Perf, EnergySource::Hwmon];

fn word(source: EnergySource) -> &'static str {
    match source {
        EnergySource::Perf => "perf",
        EnergySource::Hwmon => "hwmon",
        EnergySource::Powercap | EnergySource::Auto | EnergySource::Estimate => "powercap",
    }
}

/// Which source is used for what.
struct Uses {
    /// Packages that a source measures now.
    packages: BTreeSet<u32>,
    /// The source of each package that has a zone; one that is missing is of no source.
    source_of: BTreeMap<u32, EnergySource>,
    psys: EnergySource,
    /// Each core has a zone.
    cores: bool,
}

impl Uses {
    fn of(survey: &Survey) -> Self {
        let is_known = |reading: &&ZoneReading| reading.energy_uj.is_ok();
        let sources = survey.readings();
        // A whole package is better than its cores alone, and powercap, which says more, is asked first.
        let mut source_of = BTreeMap::new();
        for kind in [ZoneKind::Package, ZoneKind::Core, ZoneKind::OneCore] {
            for (source, readings) in sources {
                let of_kind = readings.iter().filter(|reading| reading.kind == kind);
                for package in of_kind.filter(is_known).filter_map(|reading| reading.package) {
                    // One package under two numbers is one package.
                    let is_other = source_of.values().any(|used| *used != source);
                    if !(survey.coverage.is_renumbered() && is_other) {
                        source_of.entry(package).or_insert(source);
                    }
                }
            }
        }
        let packages: BTreeSet<u32> = source_of.keys().copied().collect();
        // What no source measures stays with the first source that has it.
        if packages.is_empty() || !survey.coverage.is_renumbered() {
            for (source, readings) in sources {
                for package in readings.iter().filter_map(|reading| reading.package) {
                    source_of.entry(package).or_insert(source);
                }
            }
        }
        let psys = |wanted: &dyn Fn(&&ZoneReading) -> bool| {
            let has = |(_, readings): &&(EnergySource, &[ZoneReading])| {
                let mut psys = readings.iter().filter(|reading| reading.kind == ZoneKind::Psys);
                psys.any(|reading| wanted(&reading))
            };
            sources.iter().find(has).map(|(source, _)| *source)
        };
        Self {
            packages,
            source_of,
            cores: survey.of_perf.iter().any(|reading| reading.kind == ZoneKind::OneCore),
            psys: psys(&is_known)
                .or_else(|| psys(&|_| true))
                .unwrap_or(EnergySource::Perf),
        }
    }

    /// Whether a zone of a source is used.
    fn uses(&self, kind: ZoneKind, package: Option<u32>, source: EnergySource) -> bool {
        match package {
            // Inside of the package, whoever counts that.
            Some(_) if kind == ZoneKind::OneCore => !self.packages.is_empty(),
            // One of those.
            Some(_) if kind == ZoneKind::SingleCore && self.cores => false,
            Some(package) => self.source_of.get(&package) == Some(&source),
            None => kind != ZoneKind::Psys || source == self.psys,
        }
    }
}

impl Survey {
    fn has_packages(&self) -> bool {
        let mut all = self.readings().into_iter().flat_map(|(_, readings)| readings);
        all.any(|reading| is_split_by_time(reading.kind))
    }

    /// What is shown and counts: the platform, boards.
    fn shown(&self) -> Vec<&str> {
        let all = self.readings().into_iter().flat_map(|(_, readings)| readings);
        let counts = all.filter(|reading| is_shown(reading.kind) && reading.energy_uj.is_ok());
        let mut names: Vec<&str> = counts.map(|reading| reading.zone.as_str()).collect();
        names.dedup();
        names
    }
}

fn failure(survey: Survey, source: EnergySource) -> EnergyError {
    let error = match source {
        EnergySource::Powercap => survey.powercap.err(),
        EnergySource::Perf => survey.perf.err(),
        EnergySource::Hwmon => survey.hwmon.err(),
        EnergySource::Auto | EnergySource::Estimate => None,
    };
    error.unwrap_or(EnergyError::NotAsked)
}

/// Zones that are there and not believed, or cannot be read. Of hwmon, which is asked last, those that are used.
fn doubts(survey: &Survey, uses: &Uses) -> Vec<String> {
    let all = survey
        .readings()
        .into_iter()
        .flat_map(|(source, readings)| readings.iter().map(move |reading| (source, reading)));
    let told = all.filter(|(source, reading)| {
        *source != EnergySource::Hwmon || uses.uses(reading.kind, reading.package, EnergySource::Hwmon)
    });
    told.filter_map(|(_, reading)| {
        let reason = reading.energy_uj.as_ref().err()?;
        Some(format!("{} ({}): {reason}", reading.zone, reading.source.as_str()))
    })
    .collect()
}

fn estimated(survey: Survey, wanted: EnergySource, estimate: Estimate, mut problems: Vec<String>) -> Found {
    let errors = SOURCES.into_iter().filter_map(|source| survey.error(source));
    problems.extend(errors.filter(|error| !error.is_absent()).map(ToString::to_string));
    let uses = Uses::of(&survey);
    let mut choice = match wanted {
        EnergySource::Auto | EnergySource::Estimate => String::new(),
        named => format!("{} was asked for and has nothing that can be split: ", word(named)),
    };
    choice.push_str("every figure of energy is an estimate, made of the watts that --estimate gave");
    match survey.shown()[..] {
        [] => {}
        ["psys"] => choice.push_str("; psys alone is measured, and shown in addition"),
        ref some => choice.push_str(&format!("; measured, and shown in addition: {}", some.join(", "))),
    }
    let ignored = ignored(&survey);
    let mut meter = Meter::of(survey);
    meter.keep(|kind, package, source| is_shown(kind) && uses.uses(kind, package, source));
    meter.estimate = Some(estimate);
    Found {
        meter,
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
    ignored.extend(beside(&survey, &uses));
    let choice = choice_of(&survey, &uses);
    let has = |source: &EnergySource| {
        let (_, readings) = survey.readings().into_iter().find(|(known, _)| known == source)?;
        let packages = readings.iter().filter_map(|reading| reading.package);
        Some(
            packages
                .filter(|package| uses.source_of.get(package) == Some(source))
                .collect::<Vec<u32>>(),
        )
    };
    let zones: Vec<u32> = SOURCES.iter().filter_map(has).flatten().collect();
    let mut meter = Meter::of(survey);
    meter.keep(|kind, package, source| uses.uses(kind, package, source));
    let coverage = Coverage::new(zones, topology);
    problems.extend(coverage.problems());
    if let Some(perf) = &mut meter.perf {
        perf.number_cores(|cpu| coverage.package_of(cpu, topology));
    }
    meter.coverage = coverage;
    Ok(Found {
        meter,
        choice,
        problems,
        ignored,
    })
}

/// Which source is used, in a sentence.
fn choice_of(survey: &Survey, uses: &Uses) -> String {
    let used = |source: EnergySource| {
        let (_, readings) = survey.readings().into_iter().find(|(known, _)| *known == source)?;
        let is_used = |reading: &&ZoneReading| {
            reading.kind != ZoneKind::OneCore && uses.uses(reading.kind, reading.package, source)
        };
        let packages: BTreeSet<u32> = readings
            .iter()
            .filter(is_used)
            .filter_map(|reading| reading.package)
            .collect();
        let any = !packages.is_empty() || readings.iter().any(|reading| is_used(&reading));
        any.then_some(packages)
    };
    let [powercap, perf, hwmon] = SOURCES.map(used);
    if powercap.is_none() && perf.is_none() && hwmon.is_none() {
        return survey
            .powercap
            .as_ref()
            .err()
            .map(ToString::to_string)
            .unwrap_or_default();
    }
    if uses.packages.is_empty() {
        return match survey.shown()[..] {
            [] => "no meter here counts energy that can be split".to_owned(),
            ["psys"] => "energy is measured for the platform (psys) alone, and nothing of it is split".to_owned(),
            ref some => format!(
                "energy is measured for {} alone, and nothing of it is split",
                some.join(", ")
            ),
        };
    }
    let words = [
        ("the kernel's powercap zones", powercap),
        ("its perf events power/energy-*", perf),
        ("its hardware monitors (hwmon)", hwmon),
    ];
    let mut split: Vec<(&str, BTreeSet<u32>)> = words
        .into_iter()
        .filter_map(|(words, packages)| Some((words, packages.filter(|packages| !packages.is_empty())?)))
        .collect();
    let first = match split.is_empty() {
        true => "",
        false => split.remove(0).0,
    };
    let mut choice = format!("energy is measured: {}", first.replacen("its ", "the kernel's ", 1));
    for (words, packages) in &split {
        let packages: Vec<String> = packages.iter().map(ToString::to_string).collect();
        choice.push_str(&format!(", and {words} for package {}", packages.join(", ")));
    }
    if uses.cores {
        choice.push_str(if first.is_empty() {
            "each core by the event power_core/energy-core"
        } else {
            ", and each core by the event power_core/energy-core"
        });
    }
    if !first.contains("powercap") {
        choice.push_str(match survey.powercap.as_ref().map_err(EnergyError::is_absent) {
            Err(true) => "; there are no powercap zones",
            Err(false) => "; the powercap zones cannot be read",
            Ok(_) => "; the powercap zones cannot be split",
        });
    }
    choice
}

/// Meters of hwmon that would count what another source counts.
fn beside(survey: &Survey, uses: &Uses) -> Vec<String> {
    let unused = survey.of_hwmon.iter().filter_map(|reading| {
        let source = uses.source_of.get(&reading.package?)?;
        (*source != EnergySource::Hwmon).then(|| {
            format!(
                "{} is not counted: {} counts package {} already",
                survey.called(&reading.zone).unwrap_or(&reading.zone),
                word(*source),
                reading.package.unwrap_or_default(),
            )
        })
    });
    unused.collect()
}

fn ignored(survey: &Survey) -> Vec<String> {
    [survey.powercap(), survey.perf(), survey.hwmon()]
        .into_iter()
        .flat_map(Result::unwrap_or_default)
        .collect()
}

impl Meter {
    fn of(survey: Survey) -> Self {
        Self {
            powercap: survey.powercap.ok(),
            perf: survey.perf.ok(),
            hwmon: survey.hwmon.ok(),
            estimate: None,
            coverage: Coverage::default(),
        }
    }

    /// Keeps the zones that are used, and no source without any.
    fn keep(&mut self, used: impl Fn(ZoneKind, Option<u32>, EnergySource) -> bool) {
        if let Some(meter) = &mut self.powercap {
            meter.retain(|kind, package| used(kind, package, EnergySource::Powercap));
        }
        if let Some(meter) = &mut self.perf {
            meter.retain(|kind, package| used(kind, package, EnergySource::Perf));
        }
        if let Some(meter) = &mut self.hwmon {
            meter.retain(|kind, package| used(kind, package, EnergySource::Hwmon));
        }
        self.powercap.take_if(|meter| meter.is_empty());
        self.perf.take_if(|meter| meter.is_empty());
        self.hwmon.take_if(|meter| meter.is_empty());
    }
}
