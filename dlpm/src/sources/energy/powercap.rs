//! Energy zones of the kernel's powercap tree (`class/powercap`): RAPL on Intel and AMD.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    EnergyError,
    counter::Counter,
    dies::{self, Dies},
    limit_mw,
    vendor::Vendor,
    zones::{self, ZoneKey},
};
use crate::{
    interval::{MeterSource, ZoneKind, ZoneReading},
    sources::topology::Topology,
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
}

/// One directory with a counter.
#[derive(Debug)]
struct Member {
    key: ZoneKey,
    directory: PathBuf,
    /// Device and inode of the directory: another one is another zone, though it has the same number.
    identity: Option<(u64, u64)>,
    counter: Counter,
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
            Err(error) if error.kind() == io::ErrorKind::NotFound => (BTreeMap::new(), Vec::new()),
            Err(cause) => return Err(EnergyError::Unreadable { path: root, cause }),
        };
        if found.is_empty() {
            return Err(EnergyError::Absent {
                looked_in: root,
                ignored: notes,
            });
        }
        let mut zones = group(found, &Topology::read(sysfs));
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
                        zone_path(member)
                    ));
                }
            }
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

    /// What was found and is not counted, or only with a limitation, and why: a sentence each.
    pub fn ignored(&self) -> &[String] {
        &self.notes
    }
}

/// Puts the dies of a package together.
fn group(found: BTreeMap<ZoneKey, PathBuf>, topology: &Topology) -> Vec<Zone> {
    let mut zones: Vec<Zone> = Vec::new();
    for (key, directory) in found {
        let member = Member {
            key,
            identity: identity_of(&directory).ok(),
            directory,
            counter: Counter::new(limit_mw(key.kind)),
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
            }),
        }
    }
    for zone in zones.iter_mut().filter(|zone| zone.kind == ZoneKind::Package) {
        let known: BTreeSet<u32> = zone.members.iter().filter_map(|member| member.key.die).collect();
        if let (Some(package), false) = (zone.package, known.is_empty()) {
            zone.missing = topology.dies_of(package).difference(&known).copied().collect();
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
        let (Some(before_uj), Ok(after_uj)) = (first.counter.value_uj(), read_number(&first.energy_file())) else {
            return false;
        };
        others
            .iter()
            .filter_map(|other| other.counter.value_uj())
            .any(|other_uj| dies::differ(before_uj, other_uj, after_uj, first.counter.range_uj()))
    }

    fn take(&mut self, verdict: Option<Dies>) -> ZoneReading {
        let mut taken: Vec<_> = self.members.iter_mut().map(|member| member.counter.take()).collect();
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

    fn sum(&self, taken: Vec<Result<u64, String>>) -> Result<u64, String> {
        if let Some(die) = self.missing.first() {
            return Err(format!("die {die} of the package has CPUs and no energy zone"));
        }
        let mut sum_uj = 0u64;
        for (member, energy_uj) in self.members.iter().zip(taken) {
            let energy_uj = energy_uj.map_err(|reason| format!("{}: {reason}", zone_path(member)))?;
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

impl Member {
    fn energy_file(&self) -> PathBuf {
        self.directory.join("energy_uj")
    }

    /// Reads the counter once; the zone is looked for by its name where its directory is not the one it was.
    fn read(&mut self, root: &Path, vendor: Vendor, now_ns: u64) -> Result<(), EnergyError> {
        let result = self.find_again(root, vendor).and_then(|()| {
            if self.counter.value_uj().is_none() {
                let range = read_number(&self.directory.join("max_energy_range_uj"));
                self.counter.set_range(range.ok().filter(|&range| range > 0));
            }
            read_number(&self.energy_file())
        });
        match result {
            Ok(uj) => {
                self.counter.see(uj, now_ns);
                Ok(())
            }
            Err(error) => {
                self.counter.miss(short(&error));
                Err(error)
            }
        }
    }

    /// A driver that is loaded again numbers its zones anew, and each gets a new inode.
    fn find_again(&mut self, root: &Path, vendor: Vendor) -> Result<(), EnergyError> {
        let identity = identity_of(&self.directory);
        if let Ok(identity) = &identity
            && Some(*identity) == self.identity
        {
            return Ok(());
        }
        if self.identity.take().is_some() {
            self.counter
                .miss(format!("the zone in {} went away", self.directory.display()));
        }
        let found = zones::find(root, vendor)
            .ok()
            .and_then(|(mut found, _)| found.remove(&self.key));
        match found {
            Some(directory) => {
                self.identity = identity_of(&directory).ok();
                self.directory = directory;
                Ok(())
            }
            None => Err(EnergyError::Unreadable {
                path: self.energy_file(),
                cause: identity.err().unwrap_or_else(|| io::ErrorKind::NotFound.into()),
            }),
        }
    }
}

fn identity_of(directory: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(directory)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The zone's directory without the way to it.
fn zone_path(member: &Member) -> String {
    member
        .directory
        .file_name()
        .map_or_else(String::new, |id| id.to_string_lossy().into_owned())
}

fn read_number(path: &Path) -> Result<u64, EnergyError> {
    let text = fs::read_to_string(path).map_err(|cause| EnergyError::Unreadable {
        path: path.to_owned(),
        cause,
    })?;
    text.trim().parse().map_err(|_| EnergyError::Malformed {
        path: path.to_owned(),
        content: text.trim().chars().take(40).collect(),
    })
}

/// The error without its remedy, for the log.
fn short(error: &EnergyError) -> String {
    match error {
        EnergyError::Unreadable { path, cause } => format!("{} cannot be read: {cause}", path.display()),
        EnergyError::Malformed { path, content } => format!("{} holds `{content}`", path.display()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
