//! Which meters a trace uses, zone by zone, and how they are read together.

mod choice;

use std::{collections::BTreeMap, path::Path};

pub use self::choice::{Found, find_meter};
use super::{
    EnergyError,
    coverage::{Busy, Coverage, no_zone, which},
    estimate::Estimate,
    hwmon::Hwmon,
    perf::Perf,
    powercap::Powercap,
    probe::{self, probe},
    zones::core_zone_name,
};
use crate::{
    interval::{CpuInterval, MeterSource, ZoneKind, ZoneReading},
    sources::{clock::monotonic_ns, topology::Topology},
};

/// Where the user wants energy to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EnergySource {
    /// For each package the first of powercap, perf and hwmon that counts; the estimate where none does.
    #[default]
    Auto,
    /// The kernel's powercap tree.
    Powercap,
    /// The kernel's perf energy events.
    Perf,
    /// The kernel's hardware monitors.
    Hwmon,
    /// The watts of --estimate.
    Estimate,
}

/// Where energy is read: nowhere (CPU time only), or in one place or several.
#[derive(Debug, Default)]
pub struct Meter {
    /// Zones of the kernel's powercap tree.
    powercap: Option<Powercap>,
    /// The kernel's perf energy events.
    perf: Option<Perf>,
    /// Meters of the kernel's hardware monitors.
    hwmon: Option<Hwmon>,
    /// Watts that the user gave.
    estimate: Option<Estimate>,
    coverage: Coverage,
}

impl Meter {
    /// Reads counters that wrap, so that each wrap is seen however long the interval is. `now_ns` is CLOCK_MONOTONIC.
    pub fn poll(&mut self, now_ns: u64) {
        // The kernel absorbs the wraps of perf events.
        if let Some(powercap) = &mut self.powercap {
            powercap.poll(now_ns);
        }
        if let Some(hwmon) = &mut self.hwmon {
            hwmon.poll(now_ns);
        }
    }

    /// The energy of each measured zone since the last call, as the counters say: [`Meter::judge`] says what of it is
    /// believed.
    pub fn take(&mut self, now_ns: u64) -> Vec<ZoneReading> {
        let mut readings = Vec::new();
        if let Some(powercap) = &mut self.powercap {
            readings.extend(powercap.take(now_ns));
        }
        if let Some(perf) = &mut self.perf {
            readings.extend(perf.take(now_ns));
        }
        if let Some(hwmon) = &mut self.hwmon {
            readings.extend(hwmon.take(now_ns));
        }
        // The platform comes last, whoever reads it.
        readings.sort_by_key(|reading| is_shown(reading.kind));
        readings
    }

    /// Makes of what was taken at the end of an interval the zones of that interval: takes out what is not believed,
    /// adds the estimate, and says which packages have no zone. `cpus` are those of the interval, each in the package
    /// that [`Meter::package_of`] says.
    pub fn judge(
        &mut self,
        readings: &mut Vec<ZoneReading>,
        begin_ns: u64,
        end_ns: u64,
        cpus: &[CpuInterval],
        topology: &Topology,
    ) {
        let busy = Busy::of(cpus, topology);
        self.doubt(readings, &busy, end_ns.saturating_sub(begin_ns));
        let source = readings.iter().find(|reading| reading.kind == ZoneKind::Package);
        if let Some(source) = source.map(|reading| reading.source) {
            let at = readings.iter().position(|reading| is_shown(reading.kind));
            let uncovered = self.coverage.uncovered(cpus).into_iter();
            let unknown = uncovered.map(|(package, cpus)| without_zone(package, &cpus, source));
            let at = at.unwrap_or(readings.len());
            readings.splice(at..at, unknown);
        }
        cores(readings, cpus);
        if let Some(estimate) = &self.estimate {
            readings.push(estimate.reading(begin_ns, end_ns, cpus));
        }
    }

    /// What the zones counted since the last call, where nothing is known of CPU time.
    pub fn take_believed(&mut self, now_ns: u64) -> Vec<ZoneReading> {
        let mut readings = self.take(now_ns);
        self.doubt(&mut readings, &Busy::default(), 0);
        readings
    }

    fn doubt(&mut self, readings: &mut Vec<ZoneReading>, busy: &Busy, length_ns: u64) {
        // A platform's zone that never moved is none; as soon as it moves, it is shown.
        let mut dead = Vec::new();
        if let Some(powercap) = &mut self.powercap {
            powercap.judge(readings, busy, length_ns);
            dead.extend(powercap.psys_never_moved().then_some(MeterSource::Powercap));
        }
        if let Some(perf) = &mut self.perf {
            perf.judge(readings, busy, length_ns);
            dead.extend(perf.psys_never_moved().then_some(MeterSource::Perf));
        }
        if let Some(hwmon) = &mut self.hwmon {
            hwmon.judge(readings, busy, length_ns);
            let dead = hwmon.never_moved();
            readings.retain(|reading| reading.kind != ZoneKind::Board || !dead.contains(&reading.zone));
        }
        readings.retain(|reading| reading.kind != ZoneKind::Psys || !dead.contains(&reading.source));
    }

    /// The package of a CPU by the number that its zones have; `None` if it is not known.
    pub fn package_of(&self, cpu: u32, topology: &Topology) -> Option<u32> {
        self.coverage.package_of(cpu, topology)
    }

    /// The core of a CPU within its package; `None` if it is not known, or cores have no zones there.
    pub fn core_of(&self, cpu: u32, topology: &Topology) -> Option<u32> {
        let package = self.package_of(cpu, topology)?;
        let has_cores = self.perf.as_ref().is_some_and(|perf| perf.has_cores_of(package));
        topology.core_of(cpu).filter(|_| has_cores)
    }

    /// The watts that energy is estimated from, where it is.
    pub fn estimate(&self) -> Option<&Estimate> {
        self.estimate.as_ref()
    }

    /// Whether any counter is read.
    pub fn is_measured(&self) -> bool {
        self.powercap.is_some() || self.perf.is_some() || self.hwmon.is_some()
    }
}

/// Whether a zone is of a platform or a board, and stands after what is split.
fn is_shown(kind: ZoneKind) -> bool {
    matches!(kind, ZoneKind::Psys | ZoneKind::Board)
}

/// Of cores, those that had a CPU in the interval: one that was offline is not missing. One that came online has no
/// counter.
fn cores(readings: &mut Vec<ZoneReading>, cpus: &[CpuInterval]) {
    let mut with_cpus: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for cpu in cpus {
        if let (Some(package), Some(core)) = (cpu.package, cpu.core) {
            with_cpus
                .entry(core_zone_name(package, core))
                .or_insert((package, cpu.cpu));
        }
    }
    readings.retain(|reading| {
        let is_offline = reading.kind == ZoneKind::OneCore && !with_cpus.contains_key(&reading.zone);
        !(is_offline && reading.energy_uj.is_err())
    });
    for reading in readings.iter() {
        with_cpus.remove(&reading.zone);
    }
    let unknown = with_cpus.into_iter().map(|(zone, (package, cpu))| ZoneReading {
        zone,
        kind: ZoneKind::OneCore,
        package: Some(package),
        energy_uj: Err(format!(
            "CPU {cpu} came online after the start, and the energy of its core is not counted"
        )),
        counter_uj: None,
        range_uj: None,
        source: MeterSource::Perf,
    });
    let at = readings.iter().position(|reading| is_shown(reading.kind));
    let at = at.unwrap_or(readings.len());
    readings.splice(at..at, unknown.collect::<Vec<_>>());
}

/// A package that has CPUs and no zone.
fn without_zone(package: u32, cpus: &[u32], source: MeterSource) -> ZoneReading {
    ZoneReading {
        zone: super::zones::zone_name(ZoneKind::Package, Some(package)),
        kind: ZoneKind::Package,
        package: Some(package),
        energy_uj: Err(no_zone(package, &which(cpus))),
        counter_uj: None,
        range_uj: None,
        source,
    }
}

/// Everything that counts energy on a machine, watched for a moment.
#[derive(Debug)]
pub struct Survey {
    powercap: Result<Powercap, EnergyError>,
    perf: Result<Perf, EnergyError>,
    hwmon: Result<Hwmon, EnergyError>,
    /// What each zone of powercap counted while it was watched, or why it is not believed.
    pub of_powercap: Vec<ZoneReading>,
    /// The same of perf.
    pub of_perf: Vec<ZoneReading>,
    /// The same of hwmon.
    pub of_hwmon: Vec<ZoneReading>,
    coverage: Coverage,
}

impl Survey {
    /// Opens the counters below `sysfs` that `wanted` asks for and watches them: some milliseconds if all of them move,
    /// up to more than a second if one does not.
    pub fn of(sysfs: &Path, wanted: EnergySource, topology: &Topology) -> Self {
        let asks_for = |source| wanted == EnergySource::Auto || wanted == source;
        let (mut powercap, no_powercap) = opened(asks_for(EnergySource::Powercap), || {
            Powercap::open(sysfs, monotonic_ns())
        });
        let (mut perf, no_perf) = opened(asks_for(EnergySource::Perf), || Perf::open(sysfs, monotonic_ns()));
        let (mut hwmon, no_hwmon) = opened(asks_for(EnergySource::Hwmon), || Hwmon::open(sysfs, monotonic_ns()));
        let mut coverage = Coverage::default();
        // Each round with a twin that was not read so far.
        for _ in 0..=MOST_TWINS {
            let mut packages: Vec<u32> = powercap
                .iter_mut()
                .flat_map(Powercap::watched)
                .filter_map(|watched| watched.package)
                .collect();
            if packages.is_empty() {
                packages = perf
                    .iter_mut()
                    .flat_map(Perf::watched)
                    .filter_map(|watched| watched.package)
                    .collect();
            }
            if packages.is_empty() {
                packages = hwmon.iter().flat_map(Hwmon::packages).collect();
            }
            coverage = Coverage::new(packages, topology);
            let sources = probe::Sources {
                powercap: &mut powercap,
                perf: &mut perf,
                hwmon: &mut hwmon,
            };
            probe(sources, &coverage, topology);
            if !powercap.as_mut().is_some_and(Powercap::replace_silent) {
                break;
            }
        }
        let (mut of_powercap, mut of_perf, mut of_hwmon) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(powercap) = &mut powercap {
            powercap.begin();
            of_powercap = powercap.take(monotonic_ns());
            powercap.judge(&mut of_powercap, &Busy::default(), 0);
        }
        if let Some(perf) = &mut perf {
            perf.begin();
            of_perf = perf.take(monotonic_ns());
            perf.judge(&mut of_perf, &Busy::default(), 0);
        }
        if let Some(hwmon) = &mut hwmon {
            hwmon.begin();
            of_hwmon = hwmon.take(monotonic_ns());
            hwmon.judge(&mut of_hwmon, &Busy::default(), 0);
        }
        Self {
            powercap: together(powercap, no_powercap),
            perf: together(perf, no_perf),
            hwmon: together(hwmon, no_hwmon),
            of_powercap,
            of_perf,
            of_hwmon,
            coverage,
        }
    }

    /// The meters that a trace uses.
    ///
    /// # Errors
    ///
    /// As [`find_meter`].
    pub fn choose(self, estimate: Option<Estimate>, topology: &Topology) -> Result<Found, EnergyError> {
        choice::choose(self, EnergySource::Auto, estimate, topology)
    }

    /// Whether zones of powercap were found, or why not.
    pub fn powercap(&self) -> Result<Vec<String>, &EnergyError> {
        self.powercap.as_ref().map(Powercap::ignored)
    }

    /// Whether events of perf were found, or why not.
    pub fn perf(&self) -> Result<Vec<String>, &EnergyError> {
        self.perf.as_ref().map(|perf| perf.ignored().to_vec())
    }

    /// Whether meters of hwmon were found, or why not.
    pub fn hwmon(&self) -> Result<Vec<String>, &EnergyError> {
        self.hwmon.as_ref().map(|hwmon| hwmon.ignored().to_vec())
    }

    /// The meter behind a zone of hwmon, in words.
    pub fn called(&self, zone: &str) -> Option<&str> {
        self.hwmon.as_ref().ok()?.called(zone)
    }

    /// What was found by each source that can split a package, in the order in which they are asked.
    fn readings(&self) -> [(EnergySource, &[ZoneReading]); 3] {
        [
            (EnergySource::Powercap, &self.of_powercap),
            (EnergySource::Perf, &self.of_perf),
            (EnergySource::Hwmon, &self.of_hwmon),
        ]
    }

    /// Why a source is not there.
    fn error(&self, source: EnergySource) -> Option<&EnergyError> {
        match source {
            EnergySource::Powercap => self.powercap.as_ref().err(),
            EnergySource::Perf => self.perf.as_ref().err(),
            EnergySource::Hwmon => self.hwmon.as_ref().err(),
            EnergySource::Auto | EnergySource::Estimate => None,
        }
    }
}

/// Directories of one name beyond the first that are tried.
const MOST_TWINS: usize = 3;

fn opened<T>(asked_for: bool, open: impl FnOnce() -> Result<T, EnergyError>) -> (Option<T>, Option<EnergyError>) {
    let found = if asked_for { open() } else { Err(EnergyError::NotAsked) };
    match found {
        Ok(found) => (Some(found), None),
        Err(error) => (None, Some(error)),
    }
}

fn together<T>(found: Option<T>, error: Option<EnergyError>) -> Result<T, EnergyError> {
    found.ok_or(error.unwrap_or(EnergyError::NotAsked))
}

#[cfg(test)]
mod core_tests;
#[cfg(test)]
mod tests;
