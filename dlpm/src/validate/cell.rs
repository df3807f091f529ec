//! One cell: a stretch of time in which the same loads ran, and what was measured of it.

use serde::{Deserialize, Serialize};

use super::LoadKind;
use crate::attribution::{
    floors::mean_mw,
    ledger::{LeafZone, Ledger, RowKey},
};

/// A load that ran in a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What it does.
    pub load: LoadKind,
    /// The CPU that it was bound to.
    pub cpu: u32,
    /// Its process.
    pub tgid: u32,
    /// Units of work that it did in `ns`.
    pub units: u64,
    /// Time between the two readings of its count: that of the cell, but for microseconds.
    pub ns: u64,
}

/// One cell.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Number of its round, from 0.
    pub round: u32,
    /// The loads, in the order of [`LoadKind`]: none, one or two.
    pub runs: Vec<Run>,
    /// How often a CPU of the cores that were used was throttled in it, by the kernel's counters; `None` where the kernel
    /// has none.
    pub throttled: Option<u64>,
    /// Whether the machine ran on battery at its end.
    pub on_battery: bool,
    /// Who used which energy: the interval of the cell, attributed as in a trace.
    pub ledger: Ledger,
}

impl Cell {
    /// The loads that ran.
    pub fn loads(&self) -> Vec<LoadKind> {
        self.runs.iter().map(|run| run.load).collect()
    }

    /// The position of the row of a load.
    pub fn row_of(&self, run: &Run) -> Option<usize> {
        let own = |key: &RowKey| matches!(key, RowKey::Process(process, _) if process.tgid == run.tgid);
        self.ledger.rows.iter().position(|row| own(&row.key))
    }

    /// What of a package is split by time: its leaves, without its memory.
    pub fn leaves(&self, package: u32) -> impl Iterator<Item = &LeafZone> {
        let of_package = move |leaf: &&LeafZone| leaf.package == Some(package) && !leaf.method.is_by_memory();
        self.ledger.leaves.iter().filter(of_package)
    }

    /// Energy of the package in µJ, or why it is not known.
    ///
    /// # Errors
    ///
    /// The reason of the leaf that is not known.
    pub fn energy_uj(&self, package: u32) -> Result<u64, String> {
        let mut sum_uj = None;
        for leaf in self.leaves(package) {
            let energy_uj = *leaf.energy_uj.as_ref().map_err(Clone::clone)?;
            sum_uj = Some(sum_uj.unwrap_or(0_u64).saturating_add(energy_uj));
        }
        sum_uj.ok_or_else(|| format!("package-{package} has no zone"))
    }

    /// Mean power of the package in µW, or why it is not known.
    ///
    /// # Errors
    ///
    /// Those of [`Self::energy_uj`].
    pub fn power_uw(&self, package: u32) -> Result<i128, String> {
        Ok(self.mean_uw(self.energy_uj(package)?.into()))
    }

    /// Mean power in µW of so many µJ in the time of the cell.
    pub fn mean_uw(&self, energy_uj: u128) -> i128 {
        // Thousand times the milliwatts, so that nothing is lost by rounding to them.
        mean_mw(energy_uj.saturating_mul(1000), self.ledger.length_ns()).into()
    }

    /// CPU time that neither the loads, nor dlpm, nor the idle task had.
    pub fn foreign_ns(&self) -> u64 {
        let is_foreign = |key: &RowKey| !matches!(key, RowKey::SelfDlpm | RowKey::Idle);
        let own: Vec<usize> = self.runs.iter().filter_map(|run| self.row_of(run)).collect();
        let rows = self.ledger.rows.iter().enumerate();
        rows.filter(|(position, row)| is_foreign(&row.key) && !own.contains(position))
            .fold(0, |sum: u64, (_, row)| sum.saturating_add(row.cpu_ns()))
    }
}
