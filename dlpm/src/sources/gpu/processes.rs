//! The processes on one GPU, and the samples of what they used.

use std::collections::BTreeMap;

use nvml_wrapper::{Device, error::NvmlError};

use super::{
    calls::{self, Generation, List, flatten},
    library::{describe, is_absent},
    sm_time::Sample,
};

/// What NVML says where MIG is on.
const MIG_ENABLED: u32 = 1;

/// More instances than this no GPU has (the most are 7).
const MOST_INSTANCES: u32 = 64;

/// The size of a record that the functions of the second and third generation promise.
const USUAL_RECORD: usize = 24;

/// A process in the newest list that has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) memory_bytes: Option<u64>,
    pub(super) instances: Vec<String>,
}

/// The processes of one GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lists {
    pub(super) processes: BTreeMap<u32, Listed>,
    /// Records whose pid no process can have.
    pub(super) nonsense: usize,
    /// The size of a record, where it is another than the interface promises.
    pub(super) unusual: Option<usize>,
}

impl Lists {
    /// Whether these are all processes.
    ///
    /// # Errors
    ///
    /// A sentence for the log, where some of what was listed are none.
    pub(super) fn complete(&self) -> Result<(), String> {
        match self.nonsense {
            0 => Ok(()),
            count => Err(format!(
                "the NVIDIA driver lists {count} pids that no process can have, and {} others",
                self.processes.len()
            )),
        }
    }
}

pub(super) fn is_mig(gpu: &Device<'_>) -> bool {
    gpu.mig_mode().is_ok_and(|mode| mode.current == MIG_ENABLED)
}

/// The samples newer than `cursor_us`.
pub(super) fn samples(gpu: &Device<'_>, cursor_us: u64) -> Result<Vec<Sample>, String> {
    if is_mig(gpu) {
        return Err("a GPU in MIG mode does not report utilisation by process".to_owned());
    }
    match calls::samples(gpu, cursor_us) {
        // There is none that is newer.
        Err(NvmlError::NotFound) => Ok(Vec::new()),
        Err(error) if is_absent(&error) => Err("this GPU does not report utilisation by process".to_owned()),
        other => flatten(other),
    }
}

/// The processes on a GPU: those of its instances in MIG mode. `total_bytes` is all memory that it has, if known.
pub(super) fn lists(gpu: &Device<'_>, order: [Generation; 3], total_bytes: Option<u64>) -> Result<Lists, String> {
    let mut all = Lists::default();
    if !is_mig(gpu) {
        add_processes(gpu, order, total_bytes, None, &mut all)?;
        return Ok(all);
    }
    // Positions without an instance are not errors; their number is that of all there can be.
    let positions = gpu.mig_device_count().map_err(|error| describe(&error))?;
    if positions > MOST_INSTANCES {
        return Err(format!(
            "the NVIDIA driver says that this GPU has {positions} instances"
        ));
    }
    for position in 0..positions {
        let instance = match gpu.mig_device_by_index(position) {
            Ok(instance) => instance,
            Err(NvmlError::NotFound | NvmlError::InvalidArg) => continue,
            Err(error) => return Err(describe(&error)),
        };
        let uuid = calls::uuid(&instance).map_err(|error| describe(&error))?;
        add_processes(&instance, order, total_bytes, Some(&uuid), &mut all)?;
    }
    Ok(all)
}

fn add_processes(
    gpu: &Device<'_>,
    order: [Generation; 3],
    total_bytes: Option<u64>,
    instance: Option<&str>,
    all: &mut Lists,
) -> Result<(), String> {
    let compute = flatten(calls::processes(gpu, List::Compute, order, total_bytes))?;
    let graphics = match calls::processes(gpu, List::Graphics, order, total_bytes) {
        // A GPU that only computes.
        Err(NvmlError::NotSupported) => None,
        graphics => Some(flatten(graphics)?),
    };
    // A process that does both is in both lists, with all its memory in each.
    let mut here: BTreeMap<u32, Option<u64>> = BTreeMap::new();
    for list in [Some(compute), graphics].into_iter().flatten() {
        all.nonsense += list.nonsense;
        all.unusual = list.size.filter(|size| *size > USUAL_RECORD).or(all.unusual);
        for process in list.records {
            let memory_bytes = here.entry(process.pid).or_default();
            *memory_bytes = (*memory_bytes).max(process.memory_bytes);
        }
    }
    for (pid, memory_bytes) in here {
        let listed = all.processes.entry(pid).or_default();
        listed.memory_bytes = match (listed.memory_bytes, memory_bytes) {
            (Some(there), Some(here)) => Some(there.saturating_add(here)),
            (there, here) => there.or(here),
        };
        listed.instances.extend(instance.map(str::to_owned));
    }
    Ok(())
}
