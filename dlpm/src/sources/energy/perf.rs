//! Energy events of the PMU `power` (`bus/event_source/devices/power`): RAPL as the kernel's perf events show it.
//!
//! They are 64 bits wide and the kernel absorbs the wraps of the registers below, so that they can be read as rarely as
//! one likes. Discovery and arithmetic are tested against a sysfs tree and the system call against a software event;
//! the PMU itself has been tested on no hardware.

mod cores;
mod pmu;
mod scale;

use std::{collections::BTreeMap, fs::File, io, path::Path};

use self::{
    pmu::{malformed, read_event, read_line},
    scale::Scale,
};
use super::{
    EnergyError,
    counter::Counter,
    coverage::Busy,
    dies::Dies,
    limit_mw,
    liveness::{Liveness, Passed},
    probe::Watched,
    vendor::{Processor, Vendor},
    zones::{core_zone_name, zone_name},
};
use crate::{
    interval::{MeterSource, ZoneKind, ZoneReading},
    sources::{
        clock::monotonic_ns,
        perf_event::{self, Counted, Event},
        topology::{Topology, parse_cpu_list},
    },
};

/// The ticks are always 2⁻³² J; the registers below move in steps of up to about this many microjoules.
const UNIT_UJ: u64 = 100;

/// The PMU's events and what they cover, as powercap's zones do.
const EVENTS: [(&str, ZoneKind); 5] = [
    ("energy-pkg", ZoneKind::Package),
    ("energy-cores", ZoneKind::Core),
    ("energy-gpu", ZoneKind::Uncore),
    ("energy-ram", ZoneKind::Dram),
    ("energy-psys", ZoneKind::Psys),
];

/// The energy events that were found when it was opened.
#[derive(Debug)]
pub struct Perf {
    zones: Vec<Zone>,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Zone {
    kind: ZoneKind,
    package: Option<u32>,
    /// Its number within the package, of the zone of one core.
    core: Option<u32>,
    event: Event,
    event_name: &'static str,
    scale: Scale,
    /// One per counter that adds to the zone.
    cpus: Vec<OneCpu>,
    /// Why no energy can be known here.
    refused: Option<&'static str>,
    counter: Counter,
    believed: Liveness,
}

#[derive(Debug)]
struct OneCpu {
    cpu: u32,
    event: Option<File>,
    last: Option<Last>,
}

/// The newest reading of one event.
#[derive(Clone, Copy, Debug)]
struct Last {
    running_ns: u64,
    /// CLOCK_MONOTONIC just after it.
    after_ns: u64,
}

impl Perf {
    /// Finds the events below `sysfs` (`/sys`), opens each on the CPUs that the PMU names, and reads it once: that is
    /// the baseline and gives no energy. `now_ns` is CLOCK_MONOTONIC.
    ///
    /// # Errors
    ///
    /// [`EnergyError::NoPmu`] if there is no event that counts; [`EnergyError::Refused`] or
    /// [`EnergyError::Malformed`] if none of them can be opened. Where some can be, the others are zones whose
    /// readings are errors.
    pub fn open(sysfs: &Path, now_ns: u64) -> Result<Self, EnergyError> {
        let mut perf = Self::find(sysfs)?;
        let mut first_refusal = None;
        let mut some_read = false;
        for zone in &mut perf.zones {
            match zone.read(now_ns) {
                Ok(()) => some_read = true,
                Err((cpu, cause)) => {
                    first_refusal.get_or_insert(EnergyError::Refused {
                        event: zone.event_name,
                        cpu,
                        cause,
                    });
                }
            }
        }
        match first_refusal {
            Some(refusal) if !some_read => Err(refusal),
            _ => Ok(perf),
        }
    }

    /// Reads every event; returns the energy of each zone since the previous call (or since [`Perf::open`]).
    ///
    /// A zone that could not be read since then, or was not counted all the time, has an error instead of a number.
    pub fn take(&mut self, now_ns: u64) -> Vec<ZoneReading> {
        self.zones.iter_mut().map(|zone| zone.take(now_ns)).collect()
    }

    /// Reads every event and keeps what it counted for [`Perf::take`].
    pub(super) fn poll(&mut self, now_ns: u64) {
        for zone in &mut self.zones {
            // A failure is kept in the counter.
            let _ = zone.read(now_ns);
        }
    }

    /// Replaces in `readings`, those of an interval, the energy of zones that counted nothing while their CPUs were
    /// busy by that reason.
    pub(super) fn judge(&mut self, readings: &mut [ZoneReading], busy: &Busy, length_ns: u64) {
        for zone in &mut self.zones {
            let name = zone.name();
            let own = |reading: &&mut ZoneReading| reading.source == MeterSource::Perf && reading.zone == name;
            let Some(reading) = readings.iter_mut().find(own) else {
                continue;
            };
            let passed = Passed {
                length_ns,
                busy_ns: match zone.core {
                    Some(core) => busy.of_core(zone.package, core),
                    None => busy.of_zone(zone.kind, zone.package, None),
                },
                unit_uj: UNIT_UJ,
            };
            let doubt = zone.believed.observe(reading.energy_uj.as_ref().ok().copied(), passed);
            if let (Some(reason), Ok(_)) = (doubt, &reading.energy_uj) {
                reading.energy_uj = Err(reason.to_owned());
            }
        }
    }

    /// The counters, in an order that stays.
    pub(super) fn watched(&mut self) -> impl Iterator<Item = Watched<'_>> {
        self.zones.iter_mut().map(|zone| Watched {
            source: MeterSource::Perf,
            kind: zone.kind,
            package: zone.package,
            die: None,
            unit_uj: UNIT_UJ,
            value: zone.counter.value_uj(),
            believed: &mut zone.believed,
        })
    }

    /// Forgets what was counted so far, and what failed where it goes well now: the next interval begins here.
    pub(super) fn begin(&mut self) {
        for zone in self.zones.iter_mut().filter(|zone| zone.counter.value_uj().is_some()) {
            drop(zone.counter.take());
        }
    }

    /// Keeps some of the zones only.
    pub(super) fn retain(&mut self, keep: impl Fn(ZoneKind, Option<u32>) -> bool) {
        self.zones.retain(|zone| keep(zone.kind, zone.package));
    }

    /// Whether there is a zone for each core of a package.
    pub(super) fn has_cores_of(&self, package: u32) -> bool {
        let mut zones = self.zones.iter();
        zones.any(|zone| zone.core.is_some() && zone.package == Some(package))
    }

    /// Gives the cores the package that `package_of` says of their CPUs: the number that the package's own zone has.
    pub(super) fn number_cores(&mut self, package_of: impl Fn(u32) -> Option<u32>) {
        for zone in self.zones.iter_mut().filter(|zone| zone.core.is_some()) {
            zone.package = zone.cpus.first().and_then(|one| package_of(one.cpu)).or(zone.package);
        }
    }

    /// Whether no zone is left.
    pub(super) fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }

    /// Whether the platform's zone is not believed and was not seen to move since the start.
    pub(super) fn psys_never_moved(&self) -> bool {
        let mut psys = self.zones.iter().filter(|zone| zone.kind == ZoneKind::Psys);
        psys.any(|zone| zone.believed.never_moved())
    }

    /// What was found and is not counted, or only with a limitation, and why: a sentence each.
    pub fn ignored(&self) -> &[String] {
        &self.notes
    }

    /// The zones, packages in order, psys last; nothing is opened.
    fn find(sysfs: &Path) -> Result<Self, EnergyError> {
        let directory = sysfs.join("bus/event_source/devices/power");
        let number = |file: &str| directory.join(file);
        let pmu = match read_line(&number("type")) {
            Ok(text) => text.parse().map_err(|_| malformed(&number("type"), &text))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(EnergyError::NoPmu {
                    looked_in: directory,
                    processor: Processor::read(sysfs),
                    ignored: Vec::new(),
                });
            }
            Err(cause) => {
                return Err(EnergyError::Unreadable {
                    path: number("type"),
                    cause,
                });
            }
        };
        let mask = read_line(&number("cpumask")).unwrap_or_default();
        let cpus = parse_cpu_list(&mask)
            .ok()
            .filter(|cpus| !cpus.is_empty())
            .ok_or_else(|| malformed(&number("cpumask"), &mask))?;
        let topology = Topology::read(sysfs);
        let vendor = Vendor::read(sysfs);
        let mut packages: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for &cpu in &cpus {
            // As everywhere, a CPU whose package is not known is on package 0.
            packages
                .entry(topology.package_of(cpu).unwrap_or(0))
                .or_default()
                .push(cpu);
        }
        let mut notes = Vec::new();
        let mut found = Vec::new();
        for (event_name, kind) in EVENTS {
            match read_event(&directory.join("events"), event_name) {
                Ok(None) => {}
                Ok(Some(_)) if kind == ZoneKind::Core && vendor == Vendor::Amd => notes.push(format!(
                    "power/{event_name} is not counted: on AMD it is the register of one core"
                )),
                Ok(Some((config, scale))) => found.push((event_name, kind, Event { pmu, config }, scale)),
                Err(reason) => notes.push(format!("power/{event_name} is not counted: {reason}")),
            }
        }
        let mut zones = Vec::new();
        for (&package, cpus) in &packages {
            let (used, refused) = of_package(cpus, vendor);
            if let [first, .., _] = cpus[..] {
                notes.push(match (used.len(), refused) {
                    (_, Some(reason)) => format!("the energy of package {package} is not known: {reason}"),
                    (1, _) => {
                        format!("the energy of package {package} is read on CPU {first} only, one die of several")
                    }
                    (dies, _) => format!("the energy of package {package} is the sum of {dies} dies"),
                });
            }
            let split = found.iter().filter(|(_, kind, ..)| *kind != ZoneKind::Psys);
            zones.extend(split.map(|&(event_name, kind, event, scale)| Zone {
                refused,
                ..Zone::new(event_name, kind, Some(package), event, scale, used)
            }));
        }
        // The platform has one counter, and every package shows it.
        let psys = found.iter().filter(|(_, kind, ..)| *kind == ZoneKind::Psys);
        zones.extend(cores::find(sysfs, &topology, &mut notes));
        zones.extend(
            psys.map(|&(event_name, kind, event, scale)| Zone::new(event_name, kind, None, event, scale, &cpus[..1])),
        );
        if zones.is_empty() {
            return Err(EnergyError::NoPmu {
                looked_in: directory,
                processor: Processor::read(sysfs),
                ignored: notes,
            });
        }
        Ok(Self { zones, notes })
    }
}

/// Which of the PMU's CPUs on one package are read. There is one per die that the kernel sees (6.12 and later: one per
/// package on AMD), so what holds for the dies of the powercap tree holds here ([`Dies`]); but these counters start at 0
/// when they are opened, so there is no second witness.
fn of_package(cpus: &[u32], vendor: Vendor) -> (&[u32], Option<&'static str>) {
    match (cpus.len(), Dies::judge(vendor, vendor == Vendor::Intel)) {
        (0 | 1, _) | (_, Dies::Sum) => (cpus, None),
        (_, _) if vendor == Vendor::Unknown => (
            &[],
            Some(
                "the PMU names several CPUs of it, and it is not known whether they share one counter, because \
                 devices/system/cpu/modalias does not name the CPU's maker",
            ),
        ),
        (_, Dies::First) => (&cpus[..1], None),
        (_, Dies::Unknown(reason)) => (&[], Some(reason)),
    }
}

impl Zone {
    fn new(
        event_name: &'static str,
        kind: ZoneKind,
        package: Option<u32>,
        event: Event,
        scale: Scale,
        cpus: &[u32],
    ) -> Self {
        Self {
            kind,
            package,
            core: None,
            event,
            event_name,
            scale,
            cpus: cpus
                .iter()
                .map(|&cpu| OneCpu {
                    cpu,
                    event: None,
                    last: None,
                })
                .collect(),
            refused: None,
            counter: Counter::new(limit_mw(kind)),
            believed: Liveness::new(),
        }
    }

    fn name(&self) -> String {
        match (self.package, self.core) {
            (Some(package), Some(core)) => core_zone_name(package, core),
            _ => zone_name(self.kind, self.package),
        }
    }

    /// Reads the events of all its CPUs; an error names the CPU.
    fn read(&mut self, now_ns: u64) -> Result<(), (u32, io::Error)> {
        if let Some(reason) = self.refused {
            self.counter.miss(reason.to_owned());
            return Ok(());
        }
        let mut ticks = 0;
        let mut failed = None;
        for one in &mut self.cpus {
            match one.read(self.event) {
                Ok(read) => ticks += u128::from(read),
                Err(error) => {
                    failed = Some((one.cpu, error));
                    break;
                }
            }
        }
        if let Some((cpu, error)) = failed {
            self.counter.miss(format!(
                "{}/{} cannot be read on CPU {cpu}: {error}",
                if self.core.is_some() { "power_core" } else { "power" },
                self.event_name
            ));
            // All start again together, from 0.
            for one in &mut self.cpus {
                (one.event, one.last) = (None, None);
            }
            return Err((cpu, error));
        }
        match self.scale.total_uj(ticks) {
            Some(total_uj) => self.counter.see(total_uj, now_ns),
            None => self
                .counter
                .miss("the energy is larger than 64 bits of microjoules".to_owned()),
        }
        Ok(())
    }

    fn take(&mut self, now_ns: u64) -> ZoneReading {
        // A failure is kept in the counter and comes out with it.
        let _ = self.read(now_ns);
        ZoneReading {
            zone: self.name(),
            kind: self.kind,
            package: self.package,
            energy_uj: self.counter.take(),
            counter_uj: self.counter.value_uj(),
            range_uj: None,
            source: MeterSource::Perf,
        }
    }
}

impl OneCpu {
    /// Ticks since it was opened.
    fn read(&mut self, event: Event) -> io::Result<u64> {
        let file = match &mut self.event {
            Some(file) => file,
            none => none.insert(perf_event::open(event, self.cpu, perf_event::Turns::Shared)?),
        };
        let before_ns = monotonic_ns();
        let counted = perf_event::read(file)?;
        if let Some(last) = self.last {
            check_running(last, counted, before_ns)?;
        }
        self.last = Some(Last {
            running_ns: counted.running_ns,
            after_ns: monotonic_ns(),
        });
        Ok(counted.ticks)
    }
}

/// An event stops counting when all CPUs that could count it go offline, and still reads well. The time between two
/// readings is at least that from after the first to before the second; 1 % and 1 ms allow for two clocks.
fn check_running(last: Last, counted: Counted, before_ns: u64) -> io::Result<()> {
    let elapsed_ns = before_ns.saturating_sub(last.after_ns);
    let running_ns = counted.running_ns.saturating_sub(last.running_ns);
    let allowed_ns = elapsed_ns / 100 + 1_000_000;
    if running_ns.saturating_add(allowed_ns) < elapsed_ns {
        return Err(io::Error::other(format!(
            "the event was counted for {} of {} ms",
            running_ns / 1_000_000,
            elapsed_ns / 1_000_000
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
