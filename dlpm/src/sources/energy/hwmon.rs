//! Meters of the kernel's hardware monitors (`class/hwmon`): counters of µJ, and powers that are integrated.

mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use self::table::Known;
use super::{
    EnergyError,
    counter::Counter,
    coverage::Busy,
    limit_mw,
    liveness::{Liveness, Passed, Seen},
    probe::Watched,
    vendor::Processor,
};
use crate::{
    interval::{MeterSource, ZoneKind, ZoneReading},
    printable::printable,
    sources::hwmon::{Attribute, Chip, Power, Quantity, Sampler, chips, number},
};

/// Steps of these meters are not told; none known is coarser.
const UNIT_UJ: u64 = 1000;

/// The meters that were found when it was opened.
#[derive(Debug)]
pub struct Hwmon {
    sysfs: PathBuf,
    zones: Vec<Zone>,
    sampler: Option<Sampler>,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Zone {
    name: String,
    kind: ZoneKind,
    package: Option<u32>,
    /// How `doctor` and notes call it.
    called: String,
    path: PathBuf,
    /// For a power, its place in the sampler.
    power: Option<usize>,
    counter: Counter,
    believed: Liveness,
}

/// A meter that is a zone.
struct Candidate {
    name: String,
    kind: ZoneKind,
    package: Option<u32>,
    called: String,
    quantity: Quantity,
    path: PathBuf,
}

impl Hwmon {
    /// Finds the meters below `sysfs` (`/sys`) that dlpm knows, and reads each once. `now_ns` is CLOCK_MONOTONIC.
    ///
    /// # Errors
    ///
    /// [`EnergyError::NoHwmon`] if there is none.
    pub fn open(sysfs: &Path, now_ns: u64) -> Result<Self, EnergyError> {
        let (candidates, notes) = find(sysfs);
        if candidates.is_empty() {
            return Err(EnergyError::NoHwmon {
                looked_in: sysfs.join("class/hwmon"),
                processor: Processor::read(sysfs),
                ignored: notes,
            });
        }
        let mut powers = Vec::new();
        let zones = candidates
            .into_iter()
            .map(|candidate| Zone::new(candidate, &mut powers));
        let mut hwmon = Self {
            sysfs: sysfs.to_owned(),
            zones: zones.collect(),
            sampler: None,
            notes,
        };
        if !powers.is_empty() {
            match Sampler::start(powers) {
                Ok(sampler) => hwmon.sampler = Some(sampler),
                Err(error) => hwmon.notes.push(format!(
                    "powers are not read: no thread can be started for them ({error})"
                )),
            }
        }
        for zone in &mut hwmon.zones {
            zone.read(hwmon.sampler.as_ref(), &hwmon.sysfs, now_ns);
            if let (Some(sampler), Some(power)) = (&hwmon.sampler, zone.power) {
                // A counter is watched; a power tells at once whether there is any.
                zone.believed.learn(match sampler.newest_uw(power) {
                    Some(0) => Seen::Silent,
                    Some(_) => Seen::Moving,
                    None => Seen::Nothing,
                });
            }
        }
        Ok(hwmon)
    }

    /// Reads every meter and keeps what it counted for [`Hwmon::take`].
    pub(super) fn poll(&mut self, now_ns: u64) {
        for zone in &mut self.zones {
            zone.read(self.sampler.as_ref(), &self.sysfs, now_ns);
        }
    }

    /// Reads every meter; returns the energy of each zone since the previous call (or since [`Hwmon::open`]).
    pub fn take(&mut self, now_ns: u64) -> Vec<ZoneReading> {
        self.poll(now_ns);
        self.zones.iter_mut().map(Zone::take).collect()
    }

    /// Replaces in `readings`, those of an interval, the energy of zones that counted nothing while their CPUs were
    /// busy by that reason.
    pub(super) fn judge(&mut self, readings: &mut [ZoneReading], busy: &Busy, length_ns: u64) {
        for zone in &mut self.zones {
            let own = |reading: &&mut ZoneReading| is_hwmon(reading.source) && reading.zone == zone.name;
            let Some(reading) = readings.iter_mut().find(own) else {
                continue;
            };
            let passed = Passed {
                length_ns,
                busy_ns: busy.of_zone(zone.kind, zone.package, None),
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
        let counters = self.zones.iter_mut().filter(|zone| zone.power.is_none());
        counters.map(|zone| Watched {
            source: MeterSource::Hwmon,
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

    /// The packages of the zones.
    pub(super) fn packages(&self) -> impl Iterator<Item = u32> {
        self.zones.iter().filter_map(|zone| zone.package)
    }

    /// Keeps some of the zones only.
    pub(super) fn retain(&mut self, keep: impl Fn(ZoneKind, Option<u32>) -> bool) {
        self.zones.retain(|zone| keep(zone.kind, zone.package));
    }

    /// Whether no zone is left.
    pub(super) fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }

    /// Zones of boards that are not believed and were not seen to draw anything since the start.
    pub(super) fn never_moved(&self) -> BTreeSet<String> {
        let boards = self.zones.iter().filter(|zone| zone.kind == ZoneKind::Board);
        let dead = boards.filter(|zone| zone.believed.never_moved());
        dead.map(|zone| zone.name.clone()).collect()
    }

    /// What was found and is not counted, or only with a limitation, and why: a sentence each.
    pub fn ignored(&self) -> &[String] {
        &self.notes
    }

    /// The meter behind a zone of these, in words.
    pub fn called(&self, zone: &str) -> Option<&str> {
        let zone = self.zones.iter().find(|known| known.name == zone)?;
        Some(&zone.called)
    }
}

/// Whether a source is one of these.
pub(super) fn is_hwmon(source: MeterSource) -> bool {
    matches!(source, MeterSource::Hwmon | MeterSource::HwmonPower)
}

/// The meters that are zones, each zone once, and a sentence for each that is not.
fn find(sysfs: &Path) -> (Vec<Candidate>, Vec<String>) {
    let chips = chips(sysfs);
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut notes = Vec::new();
    for quantity in [Quantity::Energy, Quantity::Power] {
        for chip in &chips {
            let alone = chips.iter().filter(|other| other.name == chip.name).count() == 1;
            // Of many that are left out for one reason, one sentence.
            let mut left_out: BTreeMap<String, Vec<&Attribute>> = BTreeMap::new();
            for attribute in chip.meters.iter().filter(|meter| meter.quantity == quantity) {
                let reason = match table::covers(chip, attribute, alone) {
                    Known::Gpu => continue,
                    Known::LeftOut(reason) => reason.to_owned(),
                    Known::Nothing => "dlpm does not know what it covers".to_owned(),
                    Known::Zone { name, kind, package } => {
                        match candidates.iter().find(|candidate| candidate.name == name) {
                            Some(first) => format!("{} is the meter of {name}", first.called),
                            None => {
                                candidates.push(Candidate {
                                    name,
                                    kind,
                                    package,
                                    called: called(chip, attribute),
                                    quantity,
                                    path: attribute.path.clone(),
                                });
                                continue;
                            }
                        }
                    }
                };
                left_out.entry(reason).or_default().push(attribute);
            }
            notes.extend(left_out.into_iter().map(|(reason, attributes)| {
                let more = match attributes.len() {
                    0 | 1 => String::new(),
                    many => format!(" and {} more like it", many - 1),
                };
                let first = attributes.first().map(|attribute| called(chip, attribute));
                format!("{}{more} is not counted: {reason}", first.unwrap_or_default())
            }));
        }
    }
    candidates.sort_by(|one, other| (one.package, one.kind, &one.name).cmp(&(other.package, other.kind, &other.name)));
    // What belongs to no package comes last.
    candidates.sort_by_key(|candidate| candidate.package.is_none());
    (candidates, notes)
}

fn called(chip: &Chip, attribute: &Attribute) -> String {
    let label = match attribute.label.as_str() {
        "" => String::new(),
        label => format!(" `{}`", printable(label)),
    };
    format!(
        "{} ({}) {}{}{label}",
        chip.id,
        printable(&chip.name),
        attribute.quantity.as_str(),
        attribute.number
    )
}

impl Zone {
    fn new(candidate: Candidate, powers: &mut Vec<Power>) -> Self {
        let limit_mw = limit_mw(candidate.kind);
        let power = (candidate.quantity == Quantity::Power).then(|| {
            powers.push(Power {
                path: candidate.path.clone(),
                most_uw: limit_mw.saturating_mul(1000),
                status: None,
            });
            powers.len() - 1
        });
        Self {
            name: candidate.name,
            kind: candidate.kind,
            package: candidate.package,
            called: candidate.called,
            path: candidate.path,
            power,
            counter: Counter::new(limit_mw),
            believed: Liveness::new(),
        }
    }

    fn read(&mut self, sampler: Option<&Sampler>, sysfs: &Path, now_ns: u64) {
        let read = match (self.power, sampler) {
            (Some(power), Some(sampler)) => sampler.total_uj(power, now_ns),
            (Some(_), None) => Err("its power is not read".to_owned()),
            (None, _) => number(&self.path).map_err(|error| format!("{} cannot be read: {error}", self.path.display())),
        };
        match read {
            Ok(uj) => self.counter.see(uj, now_ns),
            Err(reason) => {
                self.counter.miss(reason);
                self.find_again(sampler, sysfs);
            }
        }
    }

    /// A driver that is loaded again numbers its chips anew.
    fn find_again(&mut self, sampler: Option<&Sampler>, sysfs: &Path) {
        if self.path.exists() {
            return;
        }
        let (candidates, _) = find(sysfs);
        let own = candidates.into_iter().find(|candidate| {
            candidate.name == self.name && (candidate.quantity == Quantity::Power) == self.power.is_some()
        });
        let Some(own) = own else { return };
        if let (Some(sampler), Some(power)) = (sampler, self.power) {
            sampler.moved_to(power, own.path.clone());
        }
        (self.path, self.called) = (own.path, own.called);
    }

    fn take(&mut self) -> ZoneReading {
        ZoneReading {
            zone: self.name.clone(),
            kind: self.kind,
            package: self.package,
            energy_uj: self.counter.take(),
            counter_uj: self.counter.value_uj().filter(|_| self.power.is_none()),
            range_uj: None,
            source: match self.power {
                Some(_) => MeterSource::HwmonPower,
                None => MeterSource::Hwmon,
            },
        }
    }
}

#[cfg(test)]
mod tests;
