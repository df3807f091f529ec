//! Energy zones of the kernel's powercap tree (`class/powercap`): RAPL on Intel and AMD.

mod member;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use self::member::Member;
use super::{
    EnergyError,
    coverage::Busy,
    dies::{self, Dies},
    liveness::{Liveness, Passed, SILENT},
    probe::Watched,
    vendor::{Processor, Vendor},
    zones::{self, Directories, id_of},
};
use crate::{
    interval::{MeterSource, ZoneKind, ZoneReading},
    sources::{clock::monotonic_ns, topology::Topology},
};

/// The energy zones that were found when it was opened, each counted once.
///
/// Counters wrap after minutes at full power, so [`Powercap::poll`] has to be called at least every 30 s, however
/// long the interval is.
#[derive(Debug)]
pub struct Powercap {
    root: PathBuf,
    vendor: Vendor,
    zones: Vec<Zone>,
    notes: Vec<String>,
}

/// One zone of the log: one counter, or those of a package's dies.
#[derive(Debug)]
struct Zone {
    name: String,
    kind: ZoneKind,
    package: Option<u32>,
    members: Vec<Member>,
    /// The dies were seen to have different counters. Only the package zone of several dies is asked.
    distinct: bool,
    /// Dies of the package that have CPUs and no zone.
    missing: Vec<u32>,
    /// Whether it is believed: one for the zone, or one for each of its members where these are added up.
    believed: Vec<Liveness>,
    /// What the members counted in the newest interval.
    taken_uj: Vec<Option<u64>>,
}

impl Powercap {
    /// Finds the zones below `sysfs` (`/sys`) by their names and reads each once: that is the baseline and gives no
    /// energy. `now_ns` is CLOCK_MONOTONIC.
    ///
    /// # Errors
    ///
    /// [`EnergyError::Absent`] if there is no zone that counts; [`EnergyError::Unreadable`] or
    /// [`EnergyError::Malformed`] if none of them can be read. Where some can be read, the others are zones whose
    /// readings are errors.
    pub fn open(sysfs: &Path, now_ns: u64) -> Result<Self, EnergyError> {
        let root = sysfs.join("class/powercap");
        let vendor = Vendor::read(sysfs);
        let (found, mut notes) = match zones::find(&root, vendor) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Directories::new(), Vec::new()),
            Err(cause) => return Err(EnergyError::Unreadable { path: root, cause }),
        };
        if found.is_empty() && zones::are_dangling(&root) {
            return Err(EnergyError::Dangling { looked_in: root });
        }
        if found.is_empty() {
            return Err(EnergyError::Absent {
                looked_in: root,
                processor: Processor::read(sysfs),
                ignored: notes,
            });
        }
        let mut zones = group(found, vendor, &Topology::read(sysfs));
        for zone in &zones {
            notes.extend(zone.note(vendor));
        }
        let mut refusals = Vec::new();
        let mut some_read = false;
        for zone in &mut zones {
            for (member, result) in zone.read(&root, vendor, now_ns) {
                match result {
                    Ok(()) => some_read = true,
                    Err(error) => refusals.push(error),
                }
                if member.counter.value_uj().is_some() && member.counter.range_uj().is_none() {
                    notes.push(format!(
                        "the range of {} is not known: an interval in which the counter wraps will be invalid",
                        id_of(&member.directory)
                    ));
                }
            }
            zone.begin();
        }
        match refusals.into_iter().next() {
            Some(first) if !some_read => Err(first),
            _ => Ok(Self {
                root,
                vendor,
                zones,
                notes,
            }),
        }
    }

    /// Reads every counter and adds what it counted since the last reading to what [`Powercap::take`] returns.
    pub fn poll(&mut self, now_ns: u64) {
        for zone in &mut self.zones {
            // A failure is kept in the zone's counter and comes out of `take`.
            let _ = zone.read(&self.root, self.vendor, now_ns);
        }
    }

    /// Reads every counter; returns the energy of each zone since the previous call (or since [`Powercap::open`]).
    ///
    /// A zone that could not be read at some time since then, was reset, or may have wrapped twice has an error
    /// instead of a number: its energy of this interval is in no later interval either. So has a package whose dies may
    /// or may not be the same counter.
    pub fn take(&mut self, now_ns: u64) -> Vec<ZoneReading> {
        self.poll(now_ns);
        let verdicts: BTreeMap<Option<u32>, Dies> = self
            .zones
            .iter()
            .filter(|zone| zone.kind == ZoneKind::Package)
            .map(|zone| (zone.package, Dies::judge(self.vendor, zone.distinct)))
            .collect();
        self.zones
            .iter_mut()
            .map(|zone| zone.take(verdicts.get(&zone.package).copied()))
            .collect()
    }

    /// Replaces in `readings`, those of an interval, the energy of zones that counted nothing while their CPUs were
    /// busy by that reason. Where such a zone has a twin, the twin is read from now on.
    pub(super) fn judge(&mut self, readings: &mut [ZoneReading], busy: &Busy, length_ns: u64) {
        for zone in &mut self.zones {
            let own = |reading: &&mut ZoneReading| reading.source == MeterSource::Powercap && reading.zone == zone.name;
            if let Some(reading) = readings.iter_mut().find(own) {
                zone.judge(reading, busy, length_ns);
            }
        }
    }

    /// The counters, in an order that stays.
    pub(super) fn watched(&mut self) -> Vec<Watched<'_>> {
        self.zones.iter_mut().flat_map(Zone::watched).collect()
    }

    /// Reads another directory of the same name where the one that was read is silent. Whether there was any.
    pub(super) fn replace_silent(&mut self) -> bool {
        let mut replaced = false;
        for zone in &mut self.zones {
            if let [believed] = &mut zone.believed[..]
                && believed.is_silent()
                && zone.members.first_mut().is_some_and(|member| member.give_up(SILENT))
            {
                *believed = Liveness::new();
                replaced = true;
            }
        }
        self.poll(monotonic_ns());
        self.begin();
        replaced
    }

    /// Forgets what was counted so far, and what failed where it goes well now: the next interval begins here.
    pub(super) fn begin(&mut self) {
        for zone in &mut self.zones {
            zone.begin();
        }
    }

    /// Keeps some of the zones only.
    pub(super) fn retain(&mut self, keep: impl Fn(ZoneKind, Option<u32>) -> bool) {
        self.zones.retain(|zone| keep(zone.kind, zone.package));
    }

    /// Whether no zone is left.
    pub(super) fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }

    /// Whether the platform's zone is not believed and was not seen to move since the start.
    pub(super) fn psys_never_moved(&self) -> bool {
        let mut psys = self.zones.iter().filter(|zone| zone.kind == ZoneKind::Psys);
        psys.any(|zone| zone.believed.iter().all(Liveness::never_moved))
    }

    /// What was found and is not counted, or only with a limitation, and why: a sentence each.
    pub fn ignored(&self) -> Vec<String> {
        let twins = self.zones.iter().flat_map(|zone| &zone.members).flat_map(Member::notes);
        self.notes.iter().cloned().chain(twins).collect()
    }
}

/// Puts the dies of a package together.
fn group(found: Directories, vendor: Vendor, topology: &Topology) -> Vec<Zone> {
    let mut zones: Vec<Zone> = Vec::new();
    for (key, directories) in found {
        let Some(member) = Member::new(key, directories) else {
            continue;
        };
        match zones.last_mut() {
            Some(zone) if zone.kind == key.kind && zone.package == key.package() => zone.members.push(member),
            _ => zones.push(Zone {
                name: key.zone_name(),
                kind: key.kind,
                package: key.package(),
                members: vec![member],
                distinct: false,
                missing: Vec::new(),
                believed: vec![Liveness::new()],
                taken_uj: Vec::new(),
            }),
        }
    }
    for zone in zones.iter_mut().filter(|zone| zone.kind == ZoneKind::Package) {
        let known: BTreeSet<u32> = zone.members.iter().filter_map(|member| member.key.die).collect();
        if let (Some(package), false) = (zone.package, known.is_empty()) {
            zone.missing = topology.dies_of(package).difference(&known).copied().collect();
        }
        if vendor == Vendor::Intel {
            // Each die has a counter of its own, and CPUs that drive it.
            zone.believed.resize(zone.members.len(), Liveness::new());
        }
    }
    zones
}

impl Zone {
    /// Reads the counters once, and compares those of a package's dies.
    fn read(&mut self, root: &Path, vendor: Vendor, now_ns: u64) -> Vec<(&Member, Result<(), EnergyError>)> {
        let results: Vec<_> = self
            .members
            .iter_mut()
            .map(|member| member.read(root, vendor, now_ns))
            .collect();
        if self.kind == ZoneKind::Package && self.members.len() > 1 && !self.distinct {
            self.distinct = self.compare();
        }
        self.members.iter().zip(results).collect()
    }

    /// Whether a die must have a counter of its own: the first die is read again, so that a mirror lies between its
    /// two readings.
    fn compare(&self) -> bool {
        let Some((first, others)) = self.members.split_first() else {
            return false;
        };
        let (Some(before_uj), Ok(after_uj)) = (first.counter.value_uj(), first.peek()) else {
            return false;
        };
        others
            .iter()
            .filter_map(|other| other.counter.value_uj())
            .any(|other_uj| dies::differ(before_uj, other_uj, after_uj, first.counter.range_uj()))
    }

    fn take(&mut self, verdict: Option<Dies>) -> ZoneReading {
        let mut taken: Vec<_> = self.members.iter_mut().map(|member| member.counter.take()).collect();
        self.taken_uj = taken.iter().map(|energy_uj| energy_uj.as_ref().ok().copied()).collect();
        let verdict = match self.members.len() {
            1 => Dies::First,
            // Each die's register is that of one of its cores: the first is shown.
            _ if self.kind == ZoneKind::SingleCore => Dies::First,
            _ => verdict.unwrap_or(Dies::Unknown("its package has no zone")),
        };
        let shown = match verdict {
            Dies::First => self.members.first(),
            Dies::Sum | Dies::Unknown(_) => None,
        };
        let energy_uj = match verdict {
            Dies::First => taken.swap_remove(0),
            Dies::Sum => self.sum(taken),
            Dies::Unknown(reason) => Err(reason.to_owned()),
        };
        ZoneReading {
            zone: self.name.clone(),
            kind: self.kind,
            package: self.package,
            energy_uj,
            counter_uj: shown.and_then(|member| member.counter.value_uj()),
            range_uj: shown.and_then(|member| member.counter.range_uj()),
            source: MeterSource::Powercap,
        }
    }

    fn judge(&mut self, reading: &mut ZoneReading, busy: &Busy, length_ns: u64) {
        let mut doubt = None;
        let each = self.believed.len() > 1;
        for (number, (believed, member)) in self.believed.iter_mut().zip(&mut self.members).enumerate() {
            let die = member.key.die.filter(|_| each);
            let counted_uj = if each {
                self.taken_uj.get(number).copied().flatten()
            } else {
                reading.energy_uj.as_ref().ok().copied()
            };
            let passed = Passed {
                length_ns,
                busy_ns: busy.of_zone(self.kind, self.package, die),
                unit_uj: member.unit_uj(),
            };
            let Some(reason) = believed.observe(counted_uj, passed) else {
                continue;
            };
            let id = id_of(&member.directory);
            doubt.get_or_insert_with(|| {
                if each {
                    format!("{id}: {reason}")
                } else {
                    reason.to_owned()
                }
            });
            if believed.is_silent() {
                member.give_up(reason);
            }
        }
        if let (Some(reason), Ok(_)) = (doubt, &reading.energy_uj) {
            reading.energy_uj = Err(reason);
        }
    }

    fn watched(&mut self) -> impl Iterator<Item = Watched<'_>> {
        let each = self.believed.len() > 1;
        let values: Vec<Option<u64>> = self.members.iter().map(|member| member.counter.value_uj()).collect();
        // Of counters that make one figure together it is enough that one moves.
        let together = values
            .iter()
            .try_fold(0u64, |sum, value| Some(sum.wrapping_add((*value)?)));
        let (kind, package) = (self.kind, self.package);
        self.believed
            .iter_mut()
            .zip(&self.members)
            .zip(values)
            .map(move |((believed, member), value)| Watched {
                source: MeterSource::Powercap,
                kind,
                package,
                die: member.key.die.filter(|_| each),
                unit_uj: member.unit_uj(),
                value: if each { value } else { together },
                believed,
            })
    }

    fn begin(&mut self) {
        for member in self
            .members
            .iter_mut()
            .filter(|member| member.counter.value_uj().is_some())
        {
            drop(member.counter.take());
        }
    }

    fn sum(&self, taken: Vec<Result<u64, String>>) -> Result<u64, String> {
        if let Some(die) = self.missing.first() {
            return Err(format!("die {die} of the package has CPUs and no energy zone"));
        }
        let mut sum_uj = 0u64;
        for (member, energy_uj) in self.members.iter().zip(taken) {
            let energy_uj = energy_uj.map_err(|reason| format!("{}: {reason}", id_of(&member.directory)))?;
            sum_uj = sum_uj
                .checked_add(energy_uj)
                .ok_or_else(|| "the energy is larger than 64 bits of microjoules".to_owned())?;
        }
        Ok(sum_uj)
    }

    /// What the user has to know of the zone.
    fn note(&self, vendor: Vendor) -> Option<String> {
        match (self.kind, vendor) {
            (ZoneKind::SingleCore, _) => Some(format!(
                "{} is the register of one core of this AMD CPU: it is shown and not split",
                self.name
            )),
            (ZoneKind::Package, Vendor::Amd) if self.members.len() > 1 => Some(format!(
                "{} is shown {} times, once per die, and counted once",
                self.name,
                self.members.len()
            )),
            (ZoneKind::Package, Vendor::Intel) if self.members.len() > 1 => {
                Some(format!("{} is the sum of {} dies", self.name, self.members.len()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
