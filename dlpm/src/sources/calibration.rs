//! The idle floor of the machine's energy zones: the file that `dlpm calibrate` writes and `dlpm trace` reads, and the one
//! that the machine has shown by itself.

mod learned;
mod weights;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use self::{
    learned::{LearnedFloor, learned_path},
    weights::{StoredWeights, weights_path},
};
use super::cpu_model::cpu_model;
use crate::{attribution::floors, files};

/// Where `dlpm trace` looks for it.
pub const DEFAULT_PATH: &str = "/var/lib/dlpm/calibration.json";

/// Version of the file's layout.
const FORMAT: u32 = 1;

/// `method` of a floor that was learned.
const LEARNED: &str = "learned";

/// What tells machines apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineId {
    /// `/etc/machine-id`, where there is one.
    pub machine_id: Option<String>,
    /// `model name` of the first CPU, where the kernel says it.
    pub cpu_model: Option<String>,
}

/// The machine's idle floor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calibration {
    format: u32,
    /// The machine that was measured.
    #[serde(flatten)]
    pub machine: MachineId,
    /// Wall clock at the end.
    pub date: String,
    /// Length of the measurement in ns.
    pub duration_ns: u64,
    /// CPU time that was busy, in thousandths of all CPU time.
    pub busy_permille: u64,
    /// How the figures were made: `measured` by `dlpm calibrate`, or `learned` from the quietest minute.
    pub method: String,
    /// Mean power in mW of what the meters read as a whole.
    pub roots_mw: BTreeMap<String, u64>,
    /// Mean power in mW of what is split, by the name of the leaf.
    pub floors_mw: BTreeMap<String, u64>,
}

/// Why there is no floor.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// No file.
    #[error(
        "--idle-policy separate needs the power of the idle machine, and {} is not there: run `dlpm calibrate` once \
         while the machine is quiet, or name its result with --calibration",
        .0.display()
    )]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("the calibration {} cannot be read ({cause}): run `dlpm calibrate` again, or name another with --calibration", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// Of another machine.
    #[error(
        "the calibration {} is of another machine (its {what} is {theirs}, this one's is {ours}): run `dlpm calibrate` \
         on this machine while it is quiet", path.display()
    )]
    OtherMachine {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// As the file has it.
        theirs: String,
        /// As it is here.
        ours: String,
    },
    /// A zone was not measured.
    #[error(
        "the calibration {} has no floor of {zone}, which this machine has now: run `dlpm calibrate` again while the \
         machine is quiet", path.display()
    )]
    ZoneMissing {
        /// The file.
        path: PathBuf,
        /// The zone.
        zone: String,
    },
}

impl MachineId {
    /// This machine.
    pub fn read(procfs: &Path) -> Self {
        let machine_id = fs::read_to_string("/etc/machine-id").ok();
        Self {
            machine_id: machine_id.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()),
            cpu_model: cpu_model(procfs),
        }
    }

    /// That `path`, which is of this machine, is read on it.
    fn check(&self, machine: &Self, path: &Path) -> Result<(), CalibrationError> {
        // What either side does not know cannot tell them apart.
        for (what, theirs, ours) in [
            ("machine id", &self.machine_id, &machine.machine_id),
            ("CPU model", &self.cpu_model, &machine.cpu_model),
        ] {
            if let (Some(theirs), Some(ours)) = (theirs, ours)
                && theirs != ours
            {
                return Err(CalibrationError::OtherMachine {
                    path: path.to_owned(),
                    what,
                    theirs: theirs.clone(),
                    ours: ours.clone(),
                });
            }
        }
        Ok(())
    }
}

impl Calibration {
    /// A new measurement; `floors_mw` is measured.
    pub fn new(machine: MachineId, date: String, duration_ns: u64, busy_permille: u64) -> Self {
        Self {
            format: FORMAT,
            machine,
            date,
            duration_ns,
            busy_permille,
            method: "measured".to_owned(),
            roots_mw: BTreeMap::new(),
            floors_mw: BTreeMap::new(),
        }
    }

    /// Reads the calibration of `machine`.
    ///
    /// # Errors
    ///
    /// If there is none, it is of another version or another machine, or cannot be read.
    pub fn load(path: &Path, machine: &MachineId) -> Result<Self, CalibrationError> {
        let unreadable = |cause: String| CalibrationError::Unreadable {
            path: path.to_owned(),
            cause,
        };
        let text = files::small(path)
            .map_err(|error| unreadable(error.to_string()))?
            .ok_or_else(|| CalibrationError::Missing(path.to_owned()))?;
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
        let format = value.get("format").and_then(serde_json::Value::as_u64);
        if format != Some(FORMAT.into()) {
            return Err(unreadable(format!(
                "this dlpm reads format {FORMAT}, the file has {}",
                format.map_or_else(|| "none".to_owned(), |format| format.to_string())
            )));
        }
        let calibration: Self = serde_json::from_value(value).map_err(|error| unreadable(error.to_string()))?;
        calibration.machine.check(machine, path)?;
        Ok(calibration)
    }

    /// Whether nobody saw to it that the machine was idle.
    pub fn is_learned(&self) -> bool {
        self.method == LEARNED
    }

    /// That every one of `leaves` has a floor.
    ///
    /// # Errors
    ///
    /// If one was not measured.
    pub fn covers<'a>(&self, path: &Path, mut leaves: impl Iterator<Item = &'a str>) -> Result<(), CalibrationError> {
        match leaves.find(|leaf| !floors::covers(&self.floors_mw, leaf)) {
            Some(zone) => Err(CalibrationError::ZoneMissing {
                path: path.to_owned(),
                zone: zone.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Writes it: whole, or not at all.
    ///
    /// # Errors
    ///
    /// If directory or file cannot be written.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        store(path, self)
    }
}

/// Writes a file of this kind: whole, or not at all.
fn store(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    let mut text = serde_json::to_vec_pretty(content)?;
    text.push(b'\n');
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    let written = file.write_all(&text).and_then(|()| file.sync_all());
    written
        .and_then(|()| fs::rename(&temporary, path))
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// CPU time of all CPUs since boot, in the kernel's ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTicks {
    /// Time of tasks, interrupts, and what a hypervisor took.
    pub busy: u64,
    /// All time.
    pub total: u64,
}

impl CpuTicks {
    /// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal, and guest times that user
    /// and nice contain (proc_stat(5)).
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is not such a line.
    pub fn read(procfs: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(procfs.join("stat"))?;
        let line = text.lines().next().and_then(|line| line.strip_prefix("cpu "));
        let ticks: Option<Vec<u64>> = line.and_then(|line| {
            line.split_whitespace()
                .take(8)
                .map(|field| field.parse().ok())
                .collect()
        });
        match ticks.as_deref() {
            Some([user, nice, system, idle, iowait, rest @ ..]) => {
                let busy = [user, nice, system]
                    .into_iter()
                    .chain(rest)
                    .fold(0, |sum: u64, ticks| sum.saturating_add(*ticks));
                Ok(Self {
                    busy,
                    total: busy.saturating_add(*idle).saturating_add(*iowait),
                })
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it has no line of CPU times",
            )),
        }
    }

    /// What passed since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(before.busy),
            total: self.total.saturating_sub(before.total),
        }
    }

    /// Thousandths of the time that were busy, rounded up.
    pub fn busy_permille(self) -> u64 {
        self.busy.saturating_mul(1000).div_ceil(self.total.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> MachineId {
        MachineId {
            machine_id: Some("0123".to_owned()),
            cpu_model: Some("Xeon".to_owned()),
        }
    }

    fn stored(directory: &Path) -> PathBuf {
        let mut calibration = Calibration::new(machine(), "2026-01-01".to_owned(), 60_000_000_000, 3);
        calibration.floors_mw = [("package-0/rest".to_owned(), 12_345)].into();
        let path = directory.join("lib/dlpm/calibration.json");
        calibration.store(&path).unwrap();
        calibration.store(&path).unwrap();
        path
    }

    #[test]
    fn what_was_stored_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = stored(directory.path());
        let calibration = Calibration::load(&path, &machine()).unwrap();
        assert_eq!(calibration.floors_mw["package-0/rest"], 12_345);
        assert_eq!(calibration.method, "measured");
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing else is left"
        );
        assert!(calibration.covers(&path, ["package-0/rest"].into_iter()).is_ok());
        let missing = calibration
            .covers(&path, ["package-1/rest"].into_iter())
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains("package-1/rest") && missing.contains("dlpm calibrate"),
            "{missing}"
        );
    }

    #[test]
    fn a_calibration_that_is_not_this_machines_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = stored(directory.path());
        for (ours, says) in [
            (
                MachineId {
                    machine_id: Some("4567".to_owned()),
                    ..machine()
                },
                "machine id is 0123, this one's is 4567",
            ),
            (
                MachineId {
                    cpu_model: Some("EPYC".to_owned()),
                    ..machine()
                },
                "CPU model is Xeon, this one's is EPYC",
            ),
        ] {
            let error = Calibration::load(&path, &ours).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("dlpm calibrate"), "{error}");
        }
        // A container does not know the machine's id.
        let unknown = MachineId {
            machine_id: None,
            ..machine()
        };
        assert!(Calibration::load(&path, &unknown).is_ok());
    }

    #[test]
    fn a_calibration_that_cannot_be_used_names_the_next_step() {
        let directory = tempfile::tempdir().unwrap();
        let path = stored(directory.path());
        let newer = fs::read_to_string(&path)
            .unwrap()
            .replace("\"format\": 1", "\"format\": 2");
        for (text, says) in [
            (newer.as_str(), "the file has 2"),
            ("{}", "none"),
            ("nonsense", "expected"),
        ] {
            fs::write(&path, text).unwrap();
            let error = Calibration::load(&path, &machine()).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("dlpm calibrate"), "{error}");
        }
        fs::remove_file(&path).unwrap();
        let error = Calibration::load(&path, &machine()).unwrap_err().to_string();
        assert!(
            error.contains("separate") && error.contains("run `dlpm calibrate`"),
            "{error}"
        );
    }

    #[test]
    fn busy_time_is_all_but_idle_and_waiting() {
        let procfs = tempfile::tempdir().unwrap();
        fs::write(
            procfs.path().join("stat"),
            "cpu  10 1 5 900 80 1 2 1 7 7\ncpu0 1 1 1 1\n",
        )
        .unwrap();
        let ticks = CpuTicks::read(procfs.path()).unwrap();
        assert_eq!(ticks, CpuTicks { busy: 20, total: 1000 });
        assert_eq!(ticks.busy_permille(), 20);
        assert_eq!(
            CpuTicks { busy: 1, total: 3000 }.busy_permille(),
            1,
            "never rounded to 0"
        );
        assert_eq!(
            ticks.since(CpuTicks { busy: 15, total: 900 }),
            CpuTicks { busy: 5, total: 100 }
        );
        fs::write(procfs.path().join("stat"), "cpu  10 1\n").unwrap();
        assert!(CpuTicks::read(procfs.path()).is_err());
    }
}
