//! What was used of each GPU, and by which processes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    attribution::ledger::{Ledger, RowKey},
    interval::{ProcessId, ZoneKind},
};

/// Processes of a GPU that are kept at most; later ones are summed up.
const PROCESSES: usize = 2_000;

/// What was used of one GPU.
#[derive(Clone, Debug, Default)]
pub struct GpuTotal {
    /// Name of the product.
    pub name: String,
    /// Position among the GPUs of the driver.
    pub index: u32,
    /// By process.
    pub processes: HashMap<ProcessId, GpuProcess>,
    /// Processes that are not told apart.
    pub other_processes: GpuUsage,
    /// SM time of all rows, listed or not.
    pub sm_percent_us: u128,
    /// Samples of utilisation that were left out because they make no sense.
    pub dropped_samples: u64,
    /// Intervals in which the SM time of processes was not known.
    pub without_sm_time: u64,
    /// Why, the last time.
    pub sm_time_missing: Option<String>,
}

/// A listed process on a GPU.
#[derive(Clone, Debug, Default)]
pub struct GpuProcess {
    /// Its newest name.
    pub comm: Arc<str>,
    /// What it used.
    pub usage: GpuUsage,
}

/// What was used of a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuUsage {
    /// Energy in µJ, as far as it is known: see [`GpuUsage::energy`].
    pub energy_uj: u128,
    /// It was known in at least one interval.
    pub known: bool,
    /// SM utilisation integrated over time, in percent × µs.
    pub sm_percent_us: u128,
}

impl GpuUsage {
    /// Energy in µJ; `None` if it was known in no interval.
    pub fn energy(&self) -> Option<u128> {
        self.known.then_some(self.energy_uj)
    }

    /// Adds what another process used.
    pub fn add_all(&mut self, other: Self) {
        self.energy_uj += other.energy_uj;
        self.known |= other.known;
        self.sm_percent_us += other.sm_percent_us;
    }

    fn add(&mut self, energy_uj: u64, known: bool, sm_percent_us: u64) {
        self.energy_uj += u128::from(energy_uj);
        self.known |= known;
        self.sm_percent_us += u128::from(sm_percent_us);
    }
}

/// GPUs by their leaf.
#[derive(Clone, Debug, Default)]
pub struct Gpus {
    /// By the name of the leaf.
    pub totals: BTreeMap<String, GpuTotal>,
}

impl Gpus {
    /// Adds one interval.
    pub fn add(&mut self, ledger: &Ledger) {
        for gpu in ledger.gpus.iter().filter(|gpu| !gpu.inside) {
            let total = self.totals.entry(gpu.zone.clone()).or_default();
            total.name.clone_from(&gpu.name);
            total.index = gpu.index;
            total.dropped_samples += gpu.dropped_samples;
            if let Some(reason) = &gpu.sm_time_missing {
                total.without_sm_time += 1;
                total.sm_time_missing = Some(reason.clone());
            }
        }
        let gpu_leaves = ledger.leaves.iter().enumerate();
        for (position, leaf) in gpu_leaves.filter(|(_, leaf)| leaf.kind == ZoneKind::Gpu) {
            let total = self.totals.entry(leaf.zone.clone()).or_default();
            for row in &ledger.rows {
                let energy_uj = row.energy_uj.get(position).copied().unwrap_or(0);
                let usage = row.gpus.get(&leaf.zone);
                let sm_percent_us = usage.map_or(0, |usage| usage.sm_percent_us);
                total.sm_percent_us += u128::from(sm_percent_us);
                if energy_uj == 0 && usage.is_none() {
                    continue;
                }
                match &row.key {
                    RowKey::Process(id, _) => {
                        let known = total.processes.len();
                        let process = match total.processes.get_mut(id) {
                            Some(process) => process,
                            None if known < PROCESSES => total.processes.entry(*id).or_default(),
                            None => {
                                total
                                    .other_processes
                                    .add(energy_uj, leaf.energy_uj.is_ok(), sm_percent_us);
                                continue;
                            }
                        };
                        process.usage.add(energy_uj, leaf.energy_uj.is_ok(), sm_percent_us);
                        if let Some(shown) = &row.shown {
                            process.comm.clone_from(&shown.comm);
                        }
                    }
                    RowKey::Merged(_) => total
                        .other_processes
                        .add(energy_uj, leaf.energy_uj.is_ok(), sm_percent_us),
                    // Their energy is in the balance.
                    _ => {}
                }
            }
        }
    }
}
