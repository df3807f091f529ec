//! Energy zones of the kernel's powercap tree (`class/powercap`): RAPL on Intel and AMD.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::EnergyError;
use super::counter::Counter;
use crate::interval::{MeterSource, ZoneKind, ZoneReading};

/// More than a package or its memory can draw: the largest server sockets are rated at 500 W and peak at less than
/// twice that. It is generous because it only has to tell a reset (which looks like kilojoules in a second) from
/// energy, and must never refuse real energy.
pub const ZONE_LIMIT_MW: u64 = 2_000_000;

/// The same for the whole platform: more than the power supplies of one node give.
pub const PSYS_LIMIT_MW: u64 = 10_000_000;

/// The energy zones that were found when it was opened, each counted once.
///
/// Counters wrap after minutes at full power, so [`Powercap::poll`] has to be called at least every 30 s, however
/// long the interval is.
#[derive(Debug)]
pub struct Powercap {
    zones: Vec<Zone>,
    ignored: Vec<String>,
}

#[derive(Debug)]
struct Zone {
    name: String,
    kind: ZoneKind,
    package: Option<u32>,
    directory: PathBuf,
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
        let (mut zones, mut ignored) = match find_zones(&root) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), Vec::new()),
            Err(cause) => return Err(EnergyError::Unreadable { path: root, cause }),
        };
        if zones.is_empty() {
            return Err(EnergyError::Absent {
                looked_in: root,
                ignored,
            });
        }
        let mut refusals = Vec::new();
        for zone in &mut zones {
            match zone.read(now_ns) {
                Ok(None) => {}
                Ok(Some(note)) => ignored.push(note),
                Err(error) => refusals.push(error),
            }
        }
        if refusals.len() == zones.len()
            && let Some(first) = refusals.into_iter().next()
        {
            return Err(first);
        }
        Ok(Self { zones, ignored })
    }

    /// Reads every counter and adds what it counted since the last reading to what [`Powercap::take`] returns.
    pub fn poll(&mut self, now_ns: u64) {
        for zone in &mut self.zones {
            // A failure is kept in the zone's counter and comes out of `take`.
            let _ = zone.read(now_ns);
        }
    }

    /// Reads every counter; returns the energy of each zone since the previous call (or since [`Powercap::open`]).
    ///
    /// A zone that could not be read at some time since then, was reset, or may have wrapped twice has an error
    /// instead of a number: its energy of this interval is in no later interval either.
    pub fn take(&mut self, now_ns: u64) -> Vec<ZoneReading> {
        self.poll(now_ns);
        self.zones.iter_mut().map(Zone::take).collect()
    }

    /// What was found and is not counted, or only with a limitation, and why: a sentence each.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }
}

impl Zone {
    /// Reads the counter once; a note says that its range is not known.
    fn read(&mut self, now_ns: u64) -> Result<Option<String>, EnergyError> {
        let mut note = None;
        if self.counter.value_uj().is_none() {
            let path = self.directory.join("max_energy_range_uj");
            let range = read_number(&path);
            if let Err(error) = &range {
                note = Some(format!(
                    "the range of {} is not known ({}): an interval in which the counter wraps will be invalid",
                    self.name,
                    short(error)
                ));
            }
            self.counter.set_range(range.ok().filter(|&range| range > 0));
        }
        match read_number(&self.directory.join("energy_uj")) {
            Ok(uj) => {
                self.counter.see(uj, now_ns);
                Ok(note)
            }
            Err(error) => {
                self.counter.miss(short(&error));
                Err(error)
            }
        }
    }

    fn take(&mut self) -> ZoneReading {
        ZoneReading {
            zone: self.name.clone(),
            kind: self.kind,
            package: self.package,
            energy_uj: self.counter.take(),
            counter_uj: self.counter.value_uj(),
            range_uj: self.counter.range_uj(),
            source: MeterSource::Powercap,
        }
    }
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
        EnergyError::Absent { looked_in, .. } => format!("{} has no zone", looked_in.display()),
    }
}

/// Every zone with an energy counter, once, packages in order, psys last; and what was ignored.
fn find_zones(root: &Path) -> io::Result<(Vec<Zone>, Vec<String>)> {
    let (names, mut ignored) = list(root)?;
    let mut found: BTreeMap<(u32, ZoneKind), (&str, Option<u32>)> = BTreeMap::new();
    let mut ids: Vec<&str> = names.keys().map(String::as_str).collect();
    // The first zone of a name wins: that of the MSR driver, with the lowest number.
    ids.sort_by_cached_key(|id| (!id.starts_with("intel-rapl:"), numbers_of(id), (*id).to_owned()));
    for id in ids {
        let name = &names[id];
        match classify(id, name, &names) {
            Err(reason) => ignored.push(format!("{id} ({name}) is not counted: {reason}")),
            Ok((kind, package)) => {
                let key = (package.unwrap_or(u32::MAX), kind);
                if let Some((winner, _)) = found.get(&key) {
                    ignored.push(format!(
                        "{id} ({name}) is not counted: {winner} has the same name, and both may be the same counter"
                    ));
                } else {
                    found.insert(key, (id, package));
                }
            }
        }
    }
    let zones = found
        .into_iter()
        .map(|((_, kind), (id, package))| Zone {
            name: zone_name(kind, package),
            kind,
            package,
            directory: root.join(id),
            counter: Counter::new(if kind == ZoneKind::Psys {
                PSYS_LIMIT_MW
            } else {
                ZONE_LIMIT_MW
            }),
        })
        .collect();
    Ok((zones, ignored))
}

/// Directory names of all zones with an energy counter and what their `name` files say.
fn list(root: &Path) -> io::Result<(BTreeMap<String, String>, Vec<String>)> {
    let mut names = BTreeMap::new();
    let mut ignored = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let id = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let name = fs::read_to_string(path.join("name"));
        let counts = path.join("energy_uj").try_exists().unwrap_or(true);
        match name {
            Ok(name) if counts => {
                names.insert(id, name.trim().to_owned());
            }
            Ok(name) => ignored.push(format!(
                "{id} ({}) is not counted: it has no energy counter",
                name.trim()
            )),
            Err(error) if counts => ignored.push(format!("{id} is not counted: its name cannot be read: {error}")),
            // A control type (`intel-rapl`) holds zones and is none itself.
            Err(_) => {}
        }
    }
    Ok((names, ignored))
}

fn classify(id: &str, name: &str, names: &BTreeMap<String, String>) -> Result<(ZoneKind, Option<u32>), String> {
    let kind = match name {
        "psys" => return Ok((ZoneKind::Psys, None)),
        "core" => ZoneKind::Core,
        "uncore" => ZoneKind::Uncore,
        "dram" => ZoneKind::Dram,
        _ => {
            return match package_number(name) {
                Some(package) => Ok((ZoneKind::Package, Some(package))),
                None => Err("dlpm does not know what a zone of this name covers".to_owned()),
            };
        }
    };
    let parent = id.rsplit_once(':').map_or("", |(parent, _)| parent);
    match names.get(parent).map(|name| (name, package_number(name))) {
        Some((_, Some(package))) => Ok((kind, Some(package))),
        Some((name, None)) => Err(format!("it is part of {parent} ({name}), which is no package")),
        None => Err("it is not part of a package".to_owned()),
    }
}

/// `package-1` → 1; `package-0-die-1` is not a package.
fn package_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("package-")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    digits.parse().ok()
}

/// `intel-rapl:0:10` → [0, 10], so that zone 10 comes after zone 2.
fn numbers_of(id: &str) -> Vec<u32> {
    id.split(':').filter_map(|part| part.parse().ok()).collect()
}

fn zone_name(kind: ZoneKind, package: Option<u32>) -> String {
    match (kind, package) {
        (ZoneKind::Package, Some(package)) => format!("package-{package}"),
        (ZoneKind::Dram, Some(package)) => format!("dram-{package}"),
        (kind, Some(package)) => format!("package-{package}/{}", kind.as_str()),
        (kind, None) => kind.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests;
