//! What perf events weigh on a machine: the file that `dlpm calibrate --weights` writes, beside that of the idle floor.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{CalibrationError, MachineId, store};
use crate::{attribution::counters::Weights, files, interval::MAX_EVENTS};

/// Name of its file.
const NAME: &str = "weights.json";

/// Version of the file's layout.
const FORMAT: u32 = 1;

/// Where the weights of a machine are whose calibration is, or would be, in `calibration`.
pub fn weights_path(calibration: &Path) -> PathBuf {
    calibration.with_file_name(NAME)
}

/// The weights of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredWeights {
    format: u32,
    /// The machine that was measured.
    #[serde(flatten)]
    pub machine: MachineId,
    /// Wall clock at the end.
    pub date: String,
    /// The events, in the order of their weights.
    pub events: Vec<String>,
    /// What they weigh.
    #[serde(flatten)]
    pub weights: Weights,
    /// Runs that the weights were fitted to.
    pub fitted_runs: u64,
    /// Runs that were kept aside.
    pub held_out_runs: u64,
    /// Mean error of the predicted energy above idle of the runs that were kept aside, in thousandths.
    pub held_out_error_permille: u64,
}

impl StoredWeights {
    /// New weights.
    pub fn new(machine: MachineId, date: String, events: Vec<String>, weights: Weights) -> Self {
        Self {
            format: FORMAT,
            machine,
            date,
            events,
            weights,
            fitted_runs: 0,
            held_out_runs: 0,
            held_out_error_permille: 0,
        }
    }

    /// Reads the weights of `machine`.
    ///
    /// # Errors
    ///
    /// If there are none, they are of another version or another machine, or cannot be read.
    pub fn load(path: &Path, machine: &MachineId) -> Result<Self, CalibrationError> {
        let unreadable = |cause: String| CalibrationError::Unreadable {
            path: path.to_owned(),
            cause,
        };
        let text = files::small(path)
            .map_err(|error| unreadable(error.to_string()))?
            .ok_or_else(|| CalibrationError::Missing(path.to_owned()))?;
        let stored: Self = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
        if stored.format != FORMAT {
            return Err(unreadable(format!(
                "this dlpm reads format {FORMAT}, the file has {}",
                stored.format
            )));
        }
        if stored.events.is_empty()
            || stored.events.len() > MAX_EVENTS
            || !stored.weights.fj_per_event.fit(stored.events.len())
        {
            return Err(unreadable(format!("it has weights of {} events", stored.events.len())));
        }
        stored.machine.check(machine, path)?;
        Ok(stored)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::Counts;

    #[test]
    fn weights_are_read_as_they_were_written_and_by_their_machine_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = weights_path(&folder.path().join("calibration.json"));
        let machine = |id: &str| MachineId {
            machine_id: Some(id.to_owned()),
            cpu_model: None,
        };
        assert!(matches!(
            StoredWeights::load(&path, &machine("1")),
            Err(CalibrationError::Missing(_))
        ));
        let weights = Weights {
            fj_per_event: Counts([3, 5, 0, 0]),
            fj_per_ns: 7,
            idle_mw: [("package-0".to_owned(), 9)].into(),
        };
        let events = vec!["cycles".to_owned(), "instructions".to_owned()];
        let stored = StoredWeights::new(machine("1"), "d".to_owned(), events, weights);
        stored.store(&path).unwrap();
        assert_eq!(StoredWeights::load(&path, &machine("1")).unwrap(), stored);
        assert!(matches!(
            StoredWeights::load(&path, &machine("2")),
            Err(CalibrationError::OtherMachine { .. })
        ));
        for (from, to) in [("\"cycles\",", ""), ("\"format\": 1", "\"format\": 2"), ("7", "-7")] {
            let text = std::fs::read_to_string(&path).unwrap().replace(from, to);
            let other = folder.path().join("other.json");
            std::fs::write(&other, text).unwrap();
            assert!(matches!(
                StoredWeights::load(&other, &machine("1")),
                Err(CalibrationError::Unreadable { .. })
            ));
        }
    }
}
