//! What was used, and how much of it at most at a time.

use crate::{
    attribution::ledger::{Ledger, Row},
    interval::ZoneKind,
};

/// Watts of shorter intervals are not a peak: RAPL moves once a millisecond, and an interval between two marks can be as
/// short as that.
pub const SHORTEST_PEAK_NS: u64 = 10_000_000;

/// CPU time and energy over all leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// CPU time in ns.
    pub cpu_ns: u128,
    /// Energy in µJ, as far as it is known: see [`Amount::energy`].
    pub energy_uj: u128,
    /// Part of it that is of DRAM: see [`Amount::dram`].
    pub dram_uj: u128,
    /// Part of it that is of GPUs: see [`Amount::gpu`].
    pub gpu_uj: u128,
    /// Kinds of energy that were known in at least one interval.
    pub known: Kinds,
    /// Intervals in which the energy of a leaf was not known.
    pub unknown_intervals: u64,
}

/// Kinds of energy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    cpu: bool,
    dram: bool,
    gpu: bool,
}

impl Kinds {
    /// Those of which a leaf is known in `ledger`.
    pub fn known_in(ledger: &Ledger) -> Self {
        let mut known = Self::default();
        for leaf in ledger.leaves.iter().filter(|leaf| leaf.energy_uj.is_ok()) {
            match leaf.kind {
                ZoneKind::Dram => known.dram = true,
                ZoneKind::Gpu => known.gpu = true,
                _ => known.cpu = true,
            }
        }
        known
    }

    /// Whether there is one.
    pub fn any(self) -> bool {
        self.cpu || self.dram || self.gpu
    }

    /// Adds others.
    pub fn add(&mut self, other: Self) {
        self.cpu |= other.cpu;
        self.dram |= other.dram;
        self.gpu |= other.gpu;
    }
}

impl Amount {
    /// What a row of `ledger` used.
    pub fn of(row: &Row, ledger: &Ledger) -> Self {
        Self::new(row.cpu_ns(), &row.energy_uj, ledger)
    }

    pub(super) fn new(cpu_ns: u64, energy_uj: &[u64], ledger: &Ledger) -> Self {
        let mut amount = Self {
            cpu_ns: cpu_ns.into(),
            known: Kinds::known_in(ledger),
            unknown_intervals: u64::from(ledger.leaves.iter().any(|leaf| leaf.energy_uj.is_err())),
            ..Self::default()
        };
        for (leaf, energy_uj) in ledger.leaves.iter().zip(energy_uj) {
            let energy_uj = u128::from(*energy_uj);
            amount.energy_uj += energy_uj;
            match leaf.kind {
                ZoneKind::Dram => amount.dram_uj += energy_uj,
                ZoneKind::Gpu => amount.gpu_uj += energy_uj,
                _ => {}
            }
        }
        amount
    }

    /// What the CPUs and the leaves of `ledger` counted, whoever used it.
    pub fn counted_in(ledger: &Ledger) -> Self {
        let mut amount = Self {
            known: Kinds::known_in(ledger),
            unknown_intervals: u64::from(ledger.leaves.iter().any(|leaf| leaf.energy_uj.is_err())),
            ..Self::default()
        };
        for cpu in &ledger.cpus {
            amount.cpu_ns += u128::from(cpu.interval_ns());
        }
        for leaf in &ledger.leaves {
            let energy_uj = leaf.energy_uj.as_ref().map_or(0, |energy_uj| u128::from(*energy_uj));
            amount.energy_uj += energy_uj;
            match leaf.kind {
                ZoneKind::Dram => amount.dram_uj += energy_uj,
                ZoneKind::Gpu => amount.gpu_uj += energy_uj,
                _ => {}
            }
        }
        amount
    }

    /// What is known by names of devices alone, as in `finished.jsonl`: CPU time, and µJ of each.
    pub fn of_devices<'a>(cpu_ns: u64, devices: impl IntoIterator<Item = (&'a str, u64)>) -> Self {
        let mut amount = Self {
            cpu_ns: cpu_ns.into(),
            ..Self::default()
        };
        for (device, energy_uj) in devices {
            let energy_uj = u128::from(energy_uj);
            amount.energy_uj += energy_uj;
            // Names of leaves: `dram-0`, `gpu-UUID`; all others are parts of packages, or the estimated machine.
            match device.split('-').next() {
                Some("dram") => {
                    amount.known.dram = true;
                    amount.dram_uj += energy_uj;
                }
                Some("gpu") => {
                    amount.known.gpu = true;
                    amount.gpu_uj += energy_uj;
                }
                _ => amount.known.cpu = true,
            }
        }
        amount
    }

    /// Adds another amount, of another interval or of another row of the same one.
    pub fn add(&mut self, other: Self) {
        self.known.add(other.known);
        self.unknown_intervals += other.unknown_intervals;
        self.cpu_ns += other.cpu_ns;
        self.energy_uj += other.energy_uj;
        self.dram_uj += other.dram_uj;
        self.gpu_uj += other.gpu_uj;
    }

    /// What remains without `other`, which is a part of it.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(other.cpu_ns),
            energy_uj: self.energy_uj.saturating_sub(other.energy_uj),
            dram_uj: self.dram_uj.saturating_sub(other.dram_uj),
            gpu_uj: self.gpu_uj.saturating_sub(other.gpu_uj),
            ..self
        }
    }

    /// Energy in µJ; `None` if it was known in no interval.
    pub fn energy(&self) -> Option<u128> {
        self.known.any().then_some(self.energy_uj)
    }

    /// Part of the energy that is neither of DRAM nor of GPUs: packages, or the estimated machine.
    pub fn cpu(&self) -> Option<u128> {
        let cpu_uj = self.energy_uj.saturating_sub(self.dram_uj).saturating_sub(self.gpu_uj);
        self.known.cpu.then_some(cpu_uj)
    }

    /// Part of the energy that is of DRAM.
    pub fn dram(&self) -> Option<u128> {
        self.known.dram.then_some(self.dram_uj)
    }

    /// Part of the energy that is of GPUs.
    pub fn gpu(&self) -> Option<u128> {
        self.known.gpu.then_some(self.gpu_uj)
    }

    /// Whether nothing was used, as far as it is known.
    pub fn is_nothing(&self) -> bool {
        self.cpu_ns == 0 && self.energy_uj == 0
    }
}

/// The largest power over the length of one interval, of those that are not shorter than [`SHORTEST_PEAK_NS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    energy_uj: u128,
    length_ns: u64,
}

impl Peak {
    /// Looks at one more interval.
    pub fn see(&mut self, energy_uj: u128, length_ns: u64) {
        let is_higher = energy_uj * u128::from(self.length_ns) > self.energy_uj * u128::from(length_ns);
        if length_ns >= SHORTEST_PEAK_NS && (self.length_ns == 0 || is_higher) {
            *self = Self { energy_uj, length_ns };
        }
    }

    /// Looks at one more interval, if its energy is known.
    pub fn see_known(&mut self, energy_uj: Option<u128>, length_ns: u64) {
        if let Some(energy_uj) = energy_uj {
            self.see(energy_uj, length_ns);
        }
    }

    /// Energy in µJ and length in ns of the interval; `None` if all were too short.
    pub fn interval(&self) -> Option<(u128, u64)> {
        (self.length_ns > 0).then_some((self.energy_uj, self.length_ns))
    }
}

/// What a group used, and when it used most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How much.
    pub amount: Amount,
    /// Its highest power.
    pub peak: Peak,
}

impl Usage {
    /// Adds what was used in one interval.
    pub fn add(&mut self, amount: Amount, length_ns: u64) {
        self.amount.add(amount);
        self.peak.see_known(amount.energy(), length_ns);
    }
}
