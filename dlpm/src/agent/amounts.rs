//! CPU time and energy by device.

use serde::{Deserialize, Serialize};

/// CPU time, and energy by device in the order of [`Counters::devices`](super::counters::Counters::devices); of a device
/// behind the end of the list there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// CPU time in ns.
    pub cpu_ns: u64,
    /// Energy in µJ.
    pub energy_uj: Vec<u64>,
}

impl Amounts {
    /// The energy of a device in µJ.
    pub fn of_device(&self, device: usize) -> u64 {
        self.energy_uj.get(device).copied().unwrap_or(0)
    }

    /// Adds energy of one device.
    pub fn add_to_device(&mut self, device: usize, energy_uj: u64) {
        if energy_uj == 0 {
            return;
        }
        if self.energy_uj.len() <= device {
            self.energy_uj.resize(device + 1, 0);
        }
        if let Some(sum) = self.energy_uj.get_mut(device) {
            // A kilowatt fills 64 bits of microjoules in 500 years.
            *sum = sum.saturating_add(energy_uj);
        }
    }

    /// Adds other amounts.
    pub fn add(&mut self, other: &Self) {
        self.cpu_ns = self.cpu_ns.saturating_add(other.cpu_ns);
        for (device, energy_uj) in other.energy_uj.iter().enumerate() {
            self.add_to_device(device, *energy_uj);
        }
    }

    /// What remains without `part`, which is contained in it.
    #[must_use]
    pub fn without(&self, part: &Self) -> Self {
        let energy_uj = self.energy_uj.iter().enumerate();
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(part.cpu_ns),
            energy_uj: energy_uj
                .map(|(device, sum)| sum.saturating_sub(part.of_device(device)))
                .collect(),
        }
    }

    /// Whether nothing was used.
    pub fn is_nothing(&self) -> bool {
        self.cpu_ns == 0 && self.energy_uj.iter().all(|energy_uj| *energy_uj == 0)
    }
}
