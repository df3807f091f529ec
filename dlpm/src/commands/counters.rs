//! What `--counters` means on this machine: the events that it has, and the weights that were found on it.

use std::{path::Path, sync::Arc};

use crate::{
    attribution::counters::Weights,
    cli::Roots,
    sources::{
        calibration::{CalibrationError, MachineId, StoredWeights, weights_path},
        events::{self, Counted, EventName},
    },
};

/// The events of a trace.
#[derive(Debug, Default)]
pub struct Counters {
    /// Those that are counted.
    pub events: Arc<[Counted]>,
    /// What they weigh, if energy is split by them.
    pub weights: Option<Weights>,
    /// What the user has to know of it, a sentence each.
    pub notes: Vec<String>,
}

impl Counters {
    /// Opens the events that were asked for, and looks for their weights. What is missing becomes a note: the trace goes on
    /// by CPU time.
    pub fn prepare(wanted: &[EventName], roots: &Roots, calibration: &Path) -> Self {
        if wanted.is_empty() {
            return Self::default();
        }
        let opened = events::open(&roots.sysfs, wanted);
        let mut notes: Vec<String> = opened
            .missing
            .iter()
            .map(|(name, reason)| format!("--counters: {name} is not counted: {reason}"))
            .collect();
        let names: Vec<&str> = opened.events.iter().map(|event| event.name.as_str()).collect();
        if names.is_empty() {
            notes.push("no event is counted, and energy is split by CPU time".to_owned());
            return Self {
                notes,
                ..Self::default()
            };
        }
        let path = weights_path(calibration);
        let weights = if opened.is_hybrid {
            Err("the cores of this processor are of two kinds, and one weight cannot be right for both".to_owned())
        } else {
            match StoredWeights::load(&path, &MachineId::read(&roots.procfs)) {
                Ok(stored) if stored.events == names => Ok(stored),
                Ok(stored) => Err(format!(
                    "{} has weights of {}, and {} are counted",
                    path.display(),
                    stored.events.join(", "),
                    names.join(", ")
                )),
                Err(CalibrationError::Missing(_)) => Err(format!(
                    "nobody has measured yet what they weigh on this machine ({} is not there): `dlpm calibrate \
                     --weights` does",
                    path.display()
                )),
                Err(error) => Err(error.to_string()),
            }
        };
        let names = names.join(", ");
        notes.push(match &weights {
            Ok(stored) => format!(
                "{names} are counted, and the energy of the CPUs is split by them with the weights of {} ({})",
                stored.date,
                path.display()
            ),
            Err(reason) => format!("{names} are counted, and energy is split by CPU time: {reason}"),
        });
        Self {
            events: opened.events,
            weights: weights.ok().map(|stored| stored.weights),
            notes,
        }
    }
}
