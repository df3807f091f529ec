//! One GPU, read through NVML. Each call may block for as long as the driver likes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nvml_wrapper::{Device, Nvml, error::NvmlError};

use super::{
    asleep,
    calls::{self, Generation},
    library::{KnownGpu, describe, is_absent},
    meter::GpuMeter,
    processes::{self, Listed, Lists},
    sm_time::SmTime,
};
use crate::{
    interval::{GpuProcess, GpuReading, MeterSource},
    sources::clock::monotonic_ns,
};

/// Distance of two readings of power and counter, where energy is the integral of power, or may have to be.
const POWER_PERIOD: Duration = Duration::from_millis(50);

/// Distance of two readings otherwise, which then decide whether it is time for processes.
const PROCESS_PERIOD: Duration = Duration::from_millis(500);

/// Samples and lists are read at least this often (NVML keeps a hundred samples or so, and no list of the past).
const PROCESSES_EVERY_NS: u64 = 500_000_000;

/// A GPU and what was seen of it since the last [`Reader::take`].
pub(super) struct Reader<'nvml> {
    nvml: &'nvml Nvml,
    identity: KnownGpu,
    /// The handle; `None` after a failure, when the old one may be dead for good.
    gpu: Option<Device<'nvml>>,
    /// All memory that it has, once it has told.
    total_bytes: Option<u64>,
    /// Functions that list processes, the one to try first in front.
    order: [Generation; 3],
    meter: GpuMeter,
    /// Whether the limit of its board was asked for.
    limit_asked: bool,
    sm_time: SmTime,
    /// Processes of the lists since the last take.
    listed: BTreeMap<u32, Listed>,
    processes_read_at_ns: Option<u64>,
    /// What is wrong with it or its driver, and how that is dealt with.
    notes: BTreeSet<String>,
}

impl<'nvml> Reader<'nvml> {
    pub(super) fn new(nvml: &'nvml Nvml, identity: KnownGpu) -> Self {
        Self {
            nvml,
            order: Generation::order(identity.third_is_unsafe),
            meter: GpuMeter::new(identity.source),
            identity,
            gpu: None,
            total_bytes: None,
            notes: BTreeSet::new(),
            limit_asked: false,
            sm_time: SmTime::default(),
            listed: BTreeMap::new(),
            processes_read_at_ns: None,
        }
    }

    /// Reads what has to be read within an interval too: when that has to be done again.
    pub(super) fn poll(&mut self) -> Duration {
        if self.leave_asleep().is_some() {
            return PROCESS_PERIOD;
        }
        self.see_power();
        if self.meter.source() == MeterSource::NvmlEnergy {
            let _ = self.see_counter(None);
        }
        let due = |at_ns: u64| monotonic_ns().saturating_sub(at_ns) >= PROCESSES_EVERY_NS;
        if self.processes_read_at_ns.is_none_or(due) {
            // What fails now is asked again when the interval ends, and told then.
            let _ = self.see_processes();
        }
        self.period()
    }

    /// Time until [`Self::poll`] has to be called.
    fn period(&self) -> Duration {
        if self.meter.is_urgent() {
            POWER_PERIOD
        } else {
            PROCESS_PERIOD
        }
    }

    /// Reads everything, the energy first, and ends an interval.
    pub(super) fn take(&mut self) -> GpuReading {
        if let Some(reason) = self.leave_asleep() {
            // The next interval in which it is awake has no reading at its beginning.
            let _ = self.meter.take(Err(reason.clone()), monotonic_ns(), None);
            self.sm_time.take();
            self.sm_time.take_mem();
            self.listed.clear();
            return unknown(&self.identity, reason);
        }
        let mut reading = GpuReading {
            counter_uj: None,
            read_at_ns: None,
            power_mw: None,
            ..unknown(&self.identity, String::new())
        };
        let percent = self
            .gpu()
            .and_then(Device::utilization_rates)
            .ok()
            .map(|rates| rates.gpu);
        reading.utilization_percent = percent.filter(|percent| *percent <= 100);
        let power = self.see_power();
        reading.power_mw = power.map(|(mw, _)| mw);
        let (counter, at_ns) = match self.meter.source() {
            MeterSource::NvmlEnergy => self.see_counter(reading.utilization_percent),
            _ => (Err("this GPU has no energy counter".to_owned()), monotonic_ns()),
        };
        let counter_at_ns = counter.is_ok().then_some(at_ns);
        let taken = self.meter.take(counter, at_ns, reading.utilization_percent);
        reading.read_at_ns = match taken.source {
            MeterSource::NvmlPower => power.map(|(_, at_ns)| at_ns),
            _ => counter_at_ns,
        };
        (reading.energy_uj, reading.counter_uj, reading.source) = (taken.energy_uj, taken.counter_uj, taken.source);
        if let Some(doubt) = self.meter.doubt() {
            self.notes.insert(format!(
                "{doubt}: it is not believed, and its power is integrated instead"
            ));
        }
        let (lists, sm_time) = self.see_processes();
        if let Ok(gpu) = self.gpu() {
            reading.mig = processes::is_mig(gpu);
        }
        if let Some((used, total)) = self.memory() {
            reading.memory_used_bytes = Some(used);
            reading.memory_total_bytes = Some(total);
        }
        let (percent_us, dropped_samples) = self.sm_time.take();
        let mem_percent_us = self.sm_time.take_mem();
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
                mem_percent_us: sm_time.is_ok().then(|| mem_percent_us.get(&pid).copied().unwrap_or(0)),
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

    /// Adds a reading of the counter: mJ, or why it cannot be read, and CLOCK_MONOTONIC.
    fn see_counter(&mut self, utilization_percent: Option<u32>) -> (Result<u64, String>, u64) {
        let counter = self.gpu().and_then(Device::total_energy_consumption);
        let at_ns = monotonic_ns();
        match &counter {
            Ok(mj) => self.meter.see_counter(*mj, at_ns, utilization_percent),
            Err(_) => {
                self.meter.miss_counter();
                self.gpu = None;
            }
        }
        (counter.map_err(|error| describe(&error)), at_ns)
    }

    /// Adds a reading of power: mW and CLOCK_MONOTONIC; `None` if there is none, or one that cannot be.
    fn see_power(&mut self) -> Option<(u64, u64)> {
        if !self.limit_asked {
            self.ask_limit();
        }
        let power = self.gpu().and_then(Device::power_usage).map(u64::from);
        let at_ns = monotonic_ns();
        let is_lost = power.as_ref().is_err_and(|error| !is_absent(error));
        let power = power.map_err(|error| describe(&error));
        let possible = self.meter.see_power(power.clone(), at_ns);
        if is_lost {
            self.gpu = None;
        }
        power.ok().filter(|_| possible).map(|mw| (mw, at_ns))
    }

    /// The most that the board may be set to; where it does not tell, what it is set to.
    fn ask_limit(&mut self) {
        let Ok(gpu) = self.gpu() else { return };
        let most = gpu.power_management_limit_constraints().map(|range| range.max_limit);
        let limit = most.or_else(|_| gpu.enforced_power_limit()).ok().map(u64::from);
        self.limit_asked = true;
        if let Some(limit_mw) = limit.filter(|limit_mw| *limit_mw > 0) {
            self.meter.limit(limit_mw);
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

    /// Memory in use, and all that it has, in bytes; `None` if that is not told, or makes no sense.
    fn memory(&mut self) -> Option<(u64, u64)> {
        let memory = self.gpu().and_then(|gpu| gpu.memory_info()).ok()?;
        if memory.used > memory.total {
            return None;
        }
        self.total_bytes = Some(memory.total).filter(|bytes| *bytes > 0);
        Some((memory.used, memory.total))
    }

    /// Why it is not read, where it sleeps: a call would wake it.
    fn leave_asleep(&mut self) -> Option<String> {
        let status = self.identity.status.as_deref()?;
        if !asleep::is_asleep(status) {
            return None;
        }
        let reason = "it sleeps (runtime suspend), and reading it would wake it".to_owned();
        self.meter.miss_counter();
        self.meter.see_power(Err(reason.clone()), monotonic_ns());
        Some(reason)
    }

    fn gpu(&mut self) -> Result<&Device<'nvml>, NvmlError> {
        let gpu = match self.gpu.take() {
            Some(gpu) => gpu,
            None if self.identity.by_address => {
                let gpu = self.nvml.device_by_pci_bus_id(self.identity.pci.as_str())?;
                // Another GPU may have been put there.
                if calls::uuid(&gpu)? != self.identity.uuid {
                    return Err(NvmlError::NotFound);
                }
                gpu
            }
            None => self.nvml.device_by_uuid(self.identity.uuid.as_str())?,
        };
        Ok(self.gpu.insert(gpu))
    }
}

/// A reading of a GPU of which nothing is known but who it is.
pub(super) fn unknown(identity: &KnownGpu, reason: String) -> GpuReading {
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
        usage: crate::interval::GpuUsage::Sm,
        inside: None,
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
