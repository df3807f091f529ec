//! GPUs in the exact part of a line.

use serde::{Deserialize, Serialize};

use crate::attribution::ledger::{GpuFacts, GpuUse};

/// A GPU, beside its zone.
#[derive(Serialize)]
pub struct GpuEntry<'a> {
    zone: &'a str,
    uuid: &'a str,
    index: u32,
    name: &'a str,
    pci: &'a str,
    mig: bool,
    /// Energy reading less the end of the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    read_late_ns: Option<i64>,
    power_mw: Option<u64>,
    utilization_percent: Option<u32>,
    memory_used_bytes: Option<u64>,
    memory_total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sm_time_missing: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lists_missing: Option<&'a str>,
    dropped_samples: u64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'a [String],
}

impl<'a> GpuEntry<'a> {
    /// A GPU in an interval that ended at `end_ns`.
    pub fn of(gpu: &'a GpuFacts, end_ns: u64) -> Self {
        Self {
            zone: &gpu.zone,
            uuid: &gpu.uuid,
            index: gpu.index,
            name: &gpu.name,
            pci: &gpu.pci,
            mig: gpu.mig,
            read_late_ns: gpu
                .read_at_ns
                .map(|at_ns| at_ns.cast_signed().saturating_sub(end_ns.cast_signed())),
            power_mw: gpu.power_mw,
            utilization_percent: gpu.utilization_percent,
            memory_used_bytes: gpu.memory_used_bytes,
            memory_total_bytes: gpu.memory_total_bytes,
            sm_time_missing: gpu.sm_time_missing.as_deref(),
            lists_missing: gpu.lists_missing.as_deref(),
            dropped_samples: gpu.dropped_samples,
            notes: &gpu.notes,
        }
    }
}

/// What a row did on a GPU.
#[derive(Serialize)]
pub struct GpuUseEntry<'a> {
    processes: u32,
    sm_percent_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    instances: &'a [String],
}

impl<'a> GpuUseEntry<'a> {
    /// As it is written.
    pub fn of(usage: &'a GpuUse) -> Self {
        Self {
            processes: usage.processes,
            sm_percent_us: usage.sm_percent_us,
            memory_bytes: usage.memory_bytes,
            instances: &usage.instances,
        }
    }
}

/// A GPU, as it was written.
#[derive(Debug, Deserialize)]
pub struct RecordedGpu {
    zone: String,
    uuid: String,
    index: u32,
    name: String,
    pci: String,
    mig: bool,
    read_late_ns: Option<i64>,
    power_mw: Option<u64>,
    utilization_percent: Option<u32>,
    memory_used_bytes: Option<u64>,
    memory_total_bytes: Option<u64>,
    sm_time_missing: Option<String>,
    lists_missing: Option<String>,
    dropped_samples: u64,
    #[serde(default)]
    notes: Vec<String>,
}

impl RecordedGpu {
    /// What was written.
    pub fn facts(&self, end_ns: u64) -> GpuFacts {
        GpuFacts {
            zone: self.zone.clone(),
            uuid: self.uuid.clone(),
            index: self.index,
            name: self.name.clone(),
            pci: self.pci.clone(),
            mig: self.mig,
            read_at_ns: self.read_late_ns.map(|late_ns| end_ns.saturating_add_signed(late_ns)),
            power_mw: self.power_mw,
            utilization_percent: self.utilization_percent,
            memory_used_bytes: self.memory_used_bytes,
            memory_total_bytes: self.memory_total_bytes,
            sm_time_missing: self.sm_time_missing.clone(),
            lists_missing: self.lists_missing.clone(),
            dropped_samples: self.dropped_samples,
            notes: self.notes.clone(),
        }
    }
}

/// What a row did on a GPU, as it was written.
#[derive(Debug, Deserialize)]
pub struct RecordedGpuUse {
    processes: u32,
    sm_percent_us: u64,
    memory_bytes: Option<u64>,
    #[serde(default)]
    instances: Vec<String>,
}

impl RecordedGpuUse {
    /// What was written.
    pub fn usage(&self) -> GpuUse {
        GpuUse {
            processes: self.processes,
            sm_percent_us: self.sm_percent_us,
            memory_bytes: self.memory_bytes,
            instances: self.instances.clone(),
        }
    }
}
