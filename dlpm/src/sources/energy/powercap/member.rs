//! One counter of the powercap tree: the directory that is read, and those that can take its place.

use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::super::{
    EnergyError,
    counter::Counter,
    limit_mw,
    vendor::Vendor,
    zones::{self, ZoneKey, id_of},
};

/// Values of RAPL's registers: 32 bits. The range of a zone is that many steps of its unit.
const STEPS_OF_A_RANGE: u64 = 1 << 32;

/// One counter, in the directory that is read now.
#[derive(Debug)]
pub(super) struct Member {
    pub key: ZoneKey,
    pub directory: PathBuf,
    /// Device and inode of the directory: another one is another zone, though it has the same number.
    identity: Option<(u64, u64)>,
    pub counter: Counter,
    /// Other directories of the same name, as the MMIO driver's beside the MSR driver's.
    pub twins: VecDeque<PathBuf>,
    /// The directory that was given up last, and why.
    pub given_up: Option<(PathBuf, String)>,
}

impl Member {
    /// The first of `directories` is read.
    pub fn new(key: ZoneKey, directories: Vec<PathBuf>) -> Option<Self> {
        let mut twins = VecDeque::from(directories);
        let directory = twins.pop_front()?;
        Some(Self {
            key,
            identity: identity_of(&directory).ok(),
            directory,
            counter: Counter::new(limit_mw(key.kind)),
            twins,
            given_up: None,
        })
    }

    /// Smallest step of the counter in microjoules, rounded up; 1 if that is not known.
    pub fn unit_uj(&self) -> u64 {
        self.counter
            .range_uj()
            .map_or(1, |range_uj| range_uj.div_ceil(STEPS_OF_A_RANGE).max(1))
    }

    /// Reads the counter once; the zone is looked for by its name where its directory is not the one it was. Where it
    /// cannot be read and another directory of the same name can, that one is read from now on.
    ///
    /// # Errors
    ///
    /// Why it cannot be read, where none of them can be.
    pub fn read(&mut self, root: &Path, vendor: Vendor, now_ns: u64) -> Result<(), EnergyError> {
        let Err(error) = self.read_once(root, vendor, now_ns) else {
            return Ok(());
        };
        for _ in 0..self.twins.len() {
            self.give_up(&short(&error));
            if self.read_once(root, vendor, now_ns).is_ok() {
                return Ok(());
            }
        }
        // Back where it began.
        if !self.twins.is_empty() {
            self.give_up(&short(&error));
            self.given_up = None;
        }
        Err(error)
    }

    fn read_once(&mut self, root: &Path, vendor: Vendor, now_ns: u64) -> Result<(), EnergyError> {
        let result = self.find_again(root, vendor).and_then(|()| {
            if self.counter.value_uj().is_none() {
                let range = read_number(&self.directory.join("max_energy_range_uj"));
                self.counter.set_range(range.ok().filter(|&range| range > 0));
            }
            self.peek()
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

    /// What the counter reads, without consequences.
    pub fn peek(&self) -> Result<u64, EnergyError> {
        read_number(&self.energy_file())
    }

    /// Reads another directory of the same name from now on, if there is one.
    pub fn give_up(&mut self, reason: &str) -> bool {
        let Some(next) = self.twins.pop_front() else {
            return false;
        };
        let before = std::mem::replace(&mut self.directory, next);
        self.identity = identity_of(&self.directory).ok();
        self.counter.miss(format!(
            "{} is read in the place of {} ({reason})",
            id_of(&self.directory),
            id_of(&before)
        ));
        self.twins.push_back(before.clone());
        self.given_up = Some((before, reason.to_owned()));
        true
    }

    /// Directories that are not read, and why.
    pub fn notes(&self) -> Vec<String> {
        let read = id_of(&self.directory);
        let note = |twin: &PathBuf| {
            let twin_id = format!("{} ({})", id_of(twin), self.key.zone_name());
            match &self.given_up {
                Some((directory, reason)) if directory == twin => {
                    format!("{twin_id} is not counted: {reason}; {read} has the same name and is read in its place")
                }
                _ => format!("{twin_id} is not counted: {read} has the same name, and both may be the same counter"),
            }
        };
        self.twins.iter().map(note).collect()
    }

    fn energy_file(&self) -> PathBuf {
        self.directory.join("energy_uj")
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
        let mut found = zones::find(root, vendor)
            .ok()
            .and_then(|(mut found, _)| found.remove(&self.key))
            .unwrap_or_default();
        // Another driver's zone of this name may be one that was given up.
        let driver = driver_of(&self.directory);
        let same = found.iter().position(|directory| driver_of(directory) == driver);
        if found.is_empty() {
            return Err(EnergyError::Unreadable {
                path: self.energy_file(),
                cause: identity.err().unwrap_or_else(|| io::ErrorKind::NotFound.into()),
            });
        }
        self.directory = found.remove(same.unwrap_or(0));
        self.identity = identity_of(&self.directory).ok();
        self.twins = VecDeque::from(found);
        Ok(())
    }
}

/// `intel-rapl-mmio` of `intel-rapl-mmio:0`.
fn driver_of(directory: &Path) -> String {
    let id = id_of(directory);
    id.split_once(':')
        .map_or_else(|| id.clone(), |(driver, _)| driver.to_owned())
}

fn identity_of(directory: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(directory)?;
    Ok((metadata.dev(), metadata.ino()))
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
