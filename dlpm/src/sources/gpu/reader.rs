//! One GPU, read through NVML. Each call may block for as long as the driver likes.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use nvml_wrapper::{
    Device, Nvml, enums::device::UsedGpuMemory, error::NvmlError, struct_wrappers::device::ProcessInfo,
};

use super::{
    energy::{EnergyCounter, PowerIntegral},
    library::{Identity, describe, is_absent, is_no_function},
    sm_time::{Sample, SmTime},
};
use crate::{
    interval::{GpuProcess, GpuReading, MeterSource},
    sources::clock::monotonic_ns,
};

/// Samples and lists are read at least this often (NVML keeps a hundred samples or so, and no list of the past).
const PROCESSES_EVERY_NS: u64 = 500_000_000;

/// Tries for a list that grows between the question for its size and that for its entries.
const TRIES: u32 = 3;

/// What NVML says where MIG is on.
const MIG_ENABLED: u32 = 1;

/// A GPU and what was seen of it since the last [`Reader::take`].
pub(super) struct Reader<'nvml> {
    nvml: &'nvml Nvml,
    identity: Identity,
    /// The handle; `None` after a failure, when the old one may be dead for good.
    gpu: Option<Device<'nvml>>,
    counter: EnergyCounter,
    power: PowerIntegral,
    sm_time: SmTime,
    /// Processes of the lists since the last take.
    listed: BTreeMap<u32, Listed>,
    processes_read_at_ns: Option<u64>,
}

/// A process in the newest list that has it.
#[derive(Clone, Default)]
struct Listed {
    memory_bytes: Option<u64>,
    instances: Vec<String>,
}

impl<'nvml> Reader<'nvml> {
    pub(super) fn new(nvml: &'nvml Nvml, identity: Identity) -> Self {
        Self {
            nvml,
            identity,
            gpu: None,
            counter: EnergyCounter::default(),
            power: PowerIntegral::default(),
            sm_time: SmTime::default(),
            listed: BTreeMap::new(),
            processes_read_at_ns: None,
        }
    }

    /// Reads what has to be read within an interval too.
    pub(super) fn poll(&mut self) {
        if self.identity.source == MeterSource::NvmlPower {
            let _ = self.see_power();
        }
        let due = |at_ns: u64| monotonic_ns().saturating_sub(at_ns) >= PROCESSES_EVERY_NS;
        if self.processes_read_at_ns.is_none_or(due) {
            // What fails now is asked again when the interval ends, and told then.
            let _ = self.see_processes();
        }
    }

    /// Reads everything, the energy first, and ends an interval.
    pub(super) fn take(&mut self) -> GpuReading {
        let mut reading = GpuReading {
            counter_uj: None,
            read_at_ns: None,
            power_mw: None,
            ..unknown(&self.identity, String::new())
        };
        reading.energy_uj = match self.identity.source {
            MeterSource::NvmlPower => {
                let power = self.see_power();
                reading.read_at_ns = power.map(|(_, at_ns)| at_ns);
                self.power.take()
            }
            _ => self.take_counter(&mut reading),
        };
        let (lists, sm_time) = self.see_processes();
        if let Ok(gpu) = self.gpu() {
            reading.power_mw = gpu.power_usage().ok().map(u64::from);
            reading.utilization_percent = gpu.utilization_rates().ok().map(|rates| rates.gpu);
            if let Ok(memory) = gpu.memory_info() {
                reading.memory_used_bytes = Some(memory.used);
                reading.memory_total_bytes = Some(memory.total);
            }
            reading.mig = is_mig(gpu);
        }
        let (percent_us, dropped_samples) = self.sm_time.take();
        let gone = |pid: &u32| (*pid, Listed::default());
        let mut listed = std::mem::take(&mut self.listed);
        for (pid, nothing) in percent_us.keys().map(gone) {
            listed.entry(pid).or_insert(nothing);
        }
        reading.processes = listed
            .into_iter()
            .map(|(pid, listed)| GpuProcess {
                pid,
                sm_percent_us: percent_us.get(&pid).copied().unwrap_or(0),
                memory_bytes: listed.memory_bytes,
                instances: listed.instances,
            })
            .collect();
        reading.dropped_samples = dropped_samples;
        reading.lists = lists;
        reading.sm_time = sm_time;
        reading
    }

    fn take_counter(&mut self, reading: &mut GpuReading) -> Result<u64, String> {
        let counter = self.gpu().and_then(|gpu| gpu.total_energy_consumption());
        let at_ns = monotonic_ns();
        match counter {
            Ok(mj) => {
                reading.counter_uj = mj.checked_mul(1000);
                reading.read_at_ns = Some(at_ns);
                self.counter.see(mj, at_ns)
            }
            Err(error) => {
                self.counter.miss();
                self.gpu = None;
                Err(describe(&error))
            }
        }
    }

    /// Adds a reading of power: mW and CLOCK_MONOTONIC.
    fn see_power(&mut self) -> Option<(u64, u64)> {
        let power = self.gpu().and_then(|gpu| gpu.power_usage());
        let at_ns = monotonic_ns();
        match power {
            Ok(mw) => {
                self.power.see(mw.into(), at_ns);
                Some((mw.into(), at_ns))
            }
            Err(error) => {
                self.power.miss(describe(&error));
                self.gpu = None;
                None
            }
        }
    }

    /// Adds the newest samples and lists: whether each was to be had.
    fn see_processes(&mut self) -> (Result<(), String>, Result<(), String>) {
        self.processes_read_at_ns = Some(monotonic_ns());
        let cursor_us = self.sm_time.cursor_us(unix_us());
        let read = self.gpu().map(|gpu| (lists(gpu), samples(gpu, cursor_us)));
        // Memory is that of now: who is gone by now holds none, and a list that cannot be read tells nothing.
        for listed in self.listed.values_mut() {
            listed.memory_bytes = None;
        }
        match read {
            Ok((lists, samples)) => (
                lists.map(|lists| self.listed.extend(lists)),
                samples.map(|samples| self.sm_time.see(samples)),
            ),
            Err(error) => (Err(describe(&error)), Err(describe(&error))),
        }
    }

    fn gpu(&mut self) -> Result<&Device<'nvml>, NvmlError> {
        let gpu = match self.gpu.take() {
            Some(gpu) => gpu,
            None => self.nvml.device_by_uuid(self.identity.uuid.as_str())?,
        };
        Ok(self.gpu.insert(gpu))
    }
}

/// A reading of a GPU of which nothing is known but who it is.
pub(super) fn unknown(identity: &Identity, reason: String) -> GpuReading {
    GpuReading {
        uuid: identity.uuid.clone(),
        index: identity.index,
        name: identity.name.clone(),
        pci: identity.pci.clone(),
        energy_uj: Err(reason.clone()),
        counter_uj: None,
        source: identity.source,
        read_at_ns: None,
        power_mw: None,
        utilization_percent: None,
        memory_used_bytes: None,
        memory_total_bytes: None,
        mig: false,
        sm_time: Err(reason.clone()),
        lists: Err(reason),
        dropped_samples: 0,
        processes: Vec::new(),
    }
}

fn is_mig(gpu: &Device<'_>) -> bool {
    gpu.mig_mode().is_ok_and(|mode| mode.current == MIG_ENABLED)
}

fn samples(gpu: &Device<'_>, cursor_us: u64) -> Result<Vec<Sample>, String> {
    if is_mig(gpu) {
        return Err("a GPU in MIG mode does not tell utilisation by process".to_owned());
    }
    match retry(|| gpu.process_utilization_stats(cursor_us)) {
        Ok(samples) => Ok(samples
            .into_iter()
            .map(|sample| Sample {
                pid: sample.pid,
                at_us: sample.timestamp,
                sm_percent: sample.sm_util,
            })
            .collect()),
        // There is none that is newer.
        Err(NvmlError::NotFound) => Ok(Vec::new()),
        Err(error) if is_absent(&error) => Err("this GPU does not tell utilisation by process".to_owned()),
        Err(error) => Err(describe(&error)),
    }
}

/// The processes on a GPU: those of its instances in MIG mode.
fn lists(gpu: &Device<'_>) -> Result<BTreeMap<u32, Listed>, String> {
    let mut all: BTreeMap<u32, Listed> = BTreeMap::new();
    if !is_mig(gpu) {
        add_processes(gpu, None, &mut all).map_err(|error| describe(&error))?;
        return Ok(all);
    }
    // Positions without an instance are not errors; their number is that of all there can be.
    for position in 0..gpu.mig_device_count().map_err(|error| describe(&error))? {
        let instance = match gpu.mig_device_by_index(position) {
            Ok(instance) => instance,
            Err(NvmlError::NotFound | NvmlError::InvalidArg) => continue,
            Err(error) => return Err(describe(&error)),
        };
        let uuid = instance.uuid().map_err(|error| describe(&error))?;
        add_processes(&instance, Some(&uuid), &mut all).map_err(|error| describe(&error))?;
    }
    Ok(all)
}

fn add_processes(gpu: &Device<'_>, instance: Option<&str>, all: &mut BTreeMap<u32, Listed>) -> Result<(), NvmlError> {
    let compute = retry(|| or_older(gpu.running_compute_processes(), || gpu.running_compute_processes_v2()))?;
    let graphics = match retry(|| or_older(gpu.running_graphics_processes(), || gpu.running_graphics_processes_v2())) {
        // A GPU that only computes.
        Err(NvmlError::NotSupported) => Vec::new(),
        graphics => graphics?,
    };
    // A process that does both stands in both lists, with all its memory in each.
    let mut here: BTreeMap<u32, Option<u64>> = BTreeMap::new();
    for process in compute.into_iter().chain(graphics) {
        let memory_bytes = here.entry(process.pid).or_default();
        *memory_bytes = (*memory_bytes).max(memory_of(&process));
    }
    for (pid, memory_bytes) in here {
        let listed = all.entry(pid).or_default();
        listed.memory_bytes = match (listed.memory_bytes, memory_bytes) {
            (Some(there), Some(here)) => Some(there.saturating_add(here)),
            (there, here) => there.or(here),
        };
        listed.instances.extend(instance.map(str::to_owned));
    }
    Ok(())
}

fn memory_of(process: &ProcessInfo) -> Option<u64> {
    match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    }
}

/// What an older function says, where the newer is not there (drivers before 510).
fn or_older<T>(newer: Result<T, NvmlError>, older: impl FnOnce() -> Result<T, NvmlError>) -> Result<T, NvmlError> {
    match newer {
        Err(error) if is_no_function(&error) => older(),
        other => other,
    }
}

fn retry<T>(read: impl Fn() -> Result<T, NvmlError>) -> Result<T, NvmlError> {
    let mut result = read();
    for _ in 1..TRIES {
        if !matches!(result, Err(NvmlError::InsufficientSize(_))) {
            break;
        }
        result = read();
    }
    result
}

fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
