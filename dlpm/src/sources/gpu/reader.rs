//! One GPU, read through NVML. Each call may block for as long as the driver likes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use nvml_wrapper::{Device, Nvml, error::NvmlError};

use super::{
    calls::Generation,
    energy::{EnergyCounter, PowerIntegral},
    library::{Identity, describe},
    processes::{self, Listed, Lists},
    sm_time::SmTime,
};
use crate::{
    interval::{GpuProcess, GpuReading, MeterSource},
    sources::clock::monotonic_ns,
};

/// Samples and lists are read at least this often (NVML keeps a hundred samples or so, and no list of the past).
const PROCESSES_EVERY_NS: u64 = 500_000_000;

/// A GPU and what was seen of it since the last [`Reader::take`].
pub(super) struct Reader<'nvml> {
    nvml: &'nvml Nvml,
    identity: Identity,
    /// The handle; `None` after a failure, when the old one may be dead for good.
    gpu: Option<Device<'nvml>>,
    /// All memory that it has, once it has told.
    total_bytes: Option<u64>,
    /// Functions that list processes, the one to try first in front.
    order: [Generation; 3],
    counter: EnergyCounter,
    power: PowerIntegral,
    sm_time: SmTime,
    /// Processes of the lists since the last take.
    listed: BTreeMap<u32, Listed>,
    processes_read_at_ns: Option<u64>,
    /// What is wrong with it or its driver, and how that is dealt with.
    notes: BTreeSet<String>,
}

impl<'nvml> Reader<'nvml> {
    pub(super) fn new(nvml: &'nvml Nvml, identity: Identity) -> Self {
        Self {
            nvml,
            order: Generation::order(identity.third_is_unsafe),
            identity,
            gpu: None,
            total_bytes: None,
            notes: BTreeSet::new(),
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
            let percent = gpu.utilization_rates().ok().map(|rates| rates.gpu);
            reading.utilization_percent = percent.filter(|percent| *percent <= 100);
            reading.mig = processes::is_mig(gpu);
        }
        if let Some((used, total)) = self.memory() {
            reading.memory_used_bytes = Some(used);
            reading.memory_total_bytes = Some(total);
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
        reading.notes = self.notes.iter().cloned().collect();
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
        if self.total_bytes.is_none() {
            self.memory();
        }
        let (order, total_bytes) = (self.order, self.total_bytes);
        let read = self.gpu().map(|gpu| {
            (
                processes::lists(gpu, order, total_bytes),
                processes::samples(gpu, cursor_us),
            )
        });
        // Memory is that of now: who is gone by now holds none, and a list that cannot be read tells nothing.
        for listed in self.listed.values_mut() {
            listed.memory_bytes = None;
        }
        match read {
            Ok((lists, samples)) => (
                lists.and_then(|lists| self.see_lists(lists)),
                samples.map(|samples| self.sm_time.see(samples)),
            ),
            Err(error) => (Err(describe(&error)), Err(describe(&error))),
        }
    }

    fn see_lists(&mut self, lists: Lists) -> Result<(), String> {
        if let Some(bytes) = lists.unusual {
            self.notes.insert(format!(
                "its driver lists processes in records of {bytes} bytes instead of 24, and is read that way"
            ));
        }
        let complete = lists.complete();
        self.listed.extend(lists.processes);
        complete
    }

    /// Memory in use, and all that it has, in bytes; `None` where that is not told, or makes no sense.
    fn memory(&mut self) -> Option<(u64, u64)> {
        let memory = self.gpu().and_then(|gpu| gpu.memory_info()).ok()?;
        if memory.used > memory.total {
            return None;
        }
        self.total_bytes = Some(memory.total).filter(|bytes| *bytes > 0);
        Some((memory.used, memory.total))
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
        notes: Vec::new(),
        processes: Vec::new(),
    }
}

fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
