//! What was used, and how much of it at most at a time.

use crate::{
    attribution::ledger::{Ledger, Row},
    interval::ZoneKind,
};

/// Watts of shorter intervals are no peak: RAPL moves once a millisecond, and an interval between two marks can be as
/// short as that.
pub const SHORTEST_PEAK_NS: u64 = 10_000_000;

/// CPU time and energy over all leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// CPU time in ns.
    pub cpu_ns: u128,
    /// Energy in µJ.
    pub energy_uj: u128,
    /// Part of it that is of DRAM.
    pub dram_uj: u128,
    /// Part of it that is of GPUs.
    pub gpu_uj: u128,
}

impl Amount {
    /// What a row of `ledger` used.
    pub fn of(row: &Row, ledger: &Ledger) -> Self {
        Self::new(row.cpu_ns(), &row.energy_uj, ledger)
    }

    pub(super) fn new(cpu_ns: u64, energy_uj: &[u64], ledger: &Ledger) -> Self {
        let mut amount = Self {
            cpu_ns: cpu_ns.into(),
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

    /// Adds another amount.
    pub fn add(&mut self, other: Self) {
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
        }
    }

    /// Part of the energy that is neither of DRAM nor of GPUs: packages, or the estimated machine.
    pub fn cpu_uj(&self) -> u128 {
        self.energy_uj.saturating_sub(self.dram_uj).saturating_sub(self.gpu_uj)
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
        self.peak.see(amount.energy_uj, length_ns);
    }
}
