//! GPUs of Intel and AMD, by the kernel's DRM drivers: energy from the hardware monitor of the card, and engine time of
//! each process from `fdinfo`. A sibling of NVML behind the same values: nothing of DRM leaves this module.

mod cards;
mod clients;
mod fdinfo;
mod kfd;
mod scan;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use self::{
    cards::{Card, Meter},
    clients::{Clients, Device, Used},
    scan::Scan,
};
use crate::{
    interval::{GpuProcess, GpuReading, GpuUsage, MeterSource, ProcessId},
    sources::{
        energy::{
            counter::Counter,
            liveness::{Liveness, Passed, Seen},
        },
        hwmon::{self, Power, Sampler, is_suspended},
    },
};

/// More power than a card can draw, in mW.
const LIMIT_MW: u64 = 10_000_000;

/// Steps of the meters are not told; those of Intel's registers are 61 µJ.
const UNIT_UJ: u64 = 100;

/// What the log says of a meter that stands still.
const NOT_BELIEVED: &str = "its meter counted nothing while its engines were busy, or has just begun to";

/// What the user has to know of ROCm.
const SAMPLED: &str = "of ROCm's processes the kernel tells the occupied compute units at one moment of each interval only, \
    so their time on this GPU is sampled";

/// The GPUs that are measured.
#[derive(Debug, Default)]
pub struct Drm {
    sysfs: PathBuf,
    gpus: Vec<Gpu>,
    sampler: Option<Sampler>,
    scan: Scan,
    clients: Clients,
    nodes: BTreeMap<String, kfd::Node>,
    notes: Vec<String>,
    scanned_ns: u64,
}

#[derive(Debug)]
struct Gpu {
    card: Card,
    name: String,
    /// Its place in the sampler, for a power.
    power: Option<usize>,
    counter: Counter,
    believed: Liveness,
}

/// What the meters said at a border.
#[derive(Debug)]
pub struct Taken {
    at_ns: u64,
    /// Of each GPU.
    meters: Vec<Metered>,
}

/// What the meter of one GPU said.
#[derive(Debug)]
struct Metered {
    /// Energy since the border before, or why it is not known.
    energy_uj: Result<u64, String>,
    /// The counter, where there is one.
    counter_uj: Option<u64>,
    power_mw: Option<u64>,
}

impl Drm {
    /// Finds the GPUs below `sysfs`: those at the PCI addresses that are `wanted`, or all, but for those that sleep,
    /// because a reading would wake them. `now_ns` is CLOCK_MONOTONIC.
    pub fn start(sysfs: &Path, wanted: Option<&[String]>, now_ns: u64) -> Self {
        let (mut cards, mut notes) = cards::find(sysfs);
        match wanted {
            Some(wanted) => {
                cards.retain(|card| wanted.iter().any(|name| name.eq_ignore_ascii_case(&card.address)));
                notes.clear();
            }
            None => cards.retain(|card| {
                let sleeps = card.meter != Meter::Uncore && is_suspended(&card.status());
                if sleeps {
                    notes.push(format!(
                        "the GPU at {} is not measured: it sleeps (runtime suspend), and reading it would wake it; `--gpu \
                         {}` measures it all the same",
                        card.address, card.address
                    ));
                }
                !sleeps
            }),
        }
        let mut powers = Vec::new();
        let gpus = cards.into_iter().map(|card| Gpu::new(card, &mut powers));
        let mut drm = Self {
            sysfs: sysfs.to_owned(),
            gpus: gpus.collect(),
            nodes: kfd::nodes(sysfs),
            notes,
            ..Self::default()
        };
        if !powers.is_empty() {
            match Sampler::start(powers) {
                Ok(sampler) => drm.sampler = Some(sampler),
                Err(error) => drm.notes.push(format!(
                    "powers of GPUs are not read: no thread can be started for them ({error})"
                )),
            }
        }
        // The beginning of the first interval.
        drop(drm.take(now_ns));
        drm
    }

    /// What the user has to know of them, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.gpus.is_empty()
    }

    /// Each GPU in words: where it is, what it is, and where its energy comes from.
    pub fn describe(&self) -> Vec<String> {
        let words = |gpu: &Gpu| {
            let meter = match gpu.card.meter {
                Meter::Energy(_) => "energy counter",
                Meter::Power(_) => "its power is integrated",
                Meter::Uncore => "inside a CPU package: splits its zone uncore",
            };
            format!("card{} {} ({}; {meter})", gpu.card.index, gpu.card.address, gpu.name)
        };
        self.gpus.iter().map(words).collect()
    }

    /// The PCI addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.gpus.iter().map(|gpu| gpu.card.address.as_str())
    }

    /// Reads the meters, at the border of an interval.
    pub fn take(&mut self, now_ns: u64) -> Taken {
        let sampler = self.sampler.as_ref();
        Taken {
            at_ns: now_ns,
            meters: self.gpus.iter_mut().map(|gpu| gpu.take(sampler, now_ns)).collect(),
        }
    }

    /// Reads what processes used since the last call, of those that `ran`, and of those that have a GPU open; and makes
    /// readings of that and of what was `taken`. `boot_ns` is CLOCK_BOOTTIME, `uncore` the zone of graphics inside the CPU
    /// package, where there is one.
    pub fn readings(
        &mut self,
        taken: Taken,
        procfs: &Path,
        ran: &[ProcessId],
        boot_ns: u64,
        uncore: Option<&str>,
    ) -> Vec<GpuReading> {
        if self.gpus.is_empty() {
            return Vec::new();
        }
        let open = self.scan.next(procfs, ran, boot_ns);
        let used = self.clients.see(&open, taken.at_ns);
        let length_ns = taken.at_ns.saturating_sub(self.scanned_ns);
        self.scanned_ns = taken.at_ns;
        let alone_of_driver = |driver: &str| self.gpus.iter().filter(|gpu| gpu.card.driver == driver).count() == 1;
        let alone: Vec<bool> = self.gpus.iter().map(|gpu| alone_of_driver(&gpu.card.driver)).collect();
        let untold = self.scan.untold;
        let inside: Vec<String> = self
            .gpus
            .iter()
            .filter(|gpu| gpu.card.meter == Meter::Uncore)
            .map(|gpu| gpu.card.address.clone())
            .collect();
        let each = self.gpus.iter_mut().zip(taken.meters).zip(alone);
        let readings = each.map(|((gpu, metered), alone)| {
            let own = |device: &Device| match device {
                Device::Pci(address) => *address == gpu.card.address,
                Device::Driver(driver) => alone && *driver == gpu.card.driver,
            };
            let mut has_clients = false;
            let mut processes: BTreeMap<u32, GpuProcess> = BTreeMap::new();
            for ((device, id), used) in &used {
                if own(device) {
                    has_clients = true;
                    add(&mut processes, id.tgid, *used);
                }
            }
            let node = self
                .nodes
                .get(&gpu.card.address)
                .filter(|_| gpu.card.driver == "amdgpu");
            let rocm = node.map(|node| kfd::processes(&self.sysfs, node)).unwrap_or_default();
            let mut notes = Vec::new();
            let mut sm_time = Ok(());
            if !rocm.is_empty() {
                notes.push(SAMPLED.to_owned());
            }
            for (pid, permille) in rocm {
                match permille {
                    Some(permille) => {
                        let busy_ns = length_ns / 1000 * permille;
                        add(
                            &mut processes,
                            pid,
                            Used {
                                busy_ns,
                                vram_bytes: None,
                            },
                        );
                    }
                    None => {
                        processes.entry(pid).or_insert(GpuProcess {
                            pid,
                            ..GpuProcess::default()
                        });
                        sm_time = Err("the kernel does not tell what ROCm's processes occupy of it".to_owned());
                    }
                }
            }
            // A client that did nothing has nothing of it.
            if sm_time.is_ok() {
                processes.retain(|_, process| process.sm_percent_us > 0);
            } else {
                processes.values_mut().for_each(|process| process.sm_percent_us = 0);
            }
            let mut lists = Ok(());
            if untold > 0 && !has_clients {
                let reason = format!("the kernel tells nothing of {untold} open GPUs in /proc/PID/fdinfo");
                (lists, sm_time) = (Err(reason.clone()), Err(reason));
            }
            let busy_us: u64 = processes.values().map(|process| process.sm_percent_us / 100).sum();
            let mut reading = gpu.reading(metered, taken.at_ns);
            let passed = Passed {
                length_ns,
                busy_ns: busy_us.saturating_mul(1000),
                unit_uj: UNIT_UJ,
            };
            // A meter that stood still while its engines were busy is not believed.
            if gpu.card.meter != Meter::Uncore
                && gpu
                    .believed
                    .observe(reading.energy_uj.as_ref().ok().copied(), passed)
                    .is_some()
                && reading.energy_uj.is_ok()
            {
                reading.energy_uj = Err(NOT_BELIEVED.to_owned());
            }
            reading.processes = processes.into_values().collect();
            (reading.sm_time, reading.lists, reading.notes) = (sm_time, lists, notes);
            reading.inside = uncore.filter(|_| gpu.card.meter == Meter::Uncore).map(str::to_owned);
            reading
        });
        // Graphics inside a package whose meter does not tell theirs.
        let has_zone = |reading: &GpuReading| uncore.is_some() || !inside.contains(&reading.uuid);
        readings.filter(has_zone).collect()
    }
}

/// The PCI addresses of the GPUs below `sysfs` that can be measured.
pub fn there(sysfs: &Path) -> Vec<String> {
    let (cards, _) = cards::find(sysfs);
    cards.into_iter().map(|card| card.address).collect()
}

/// Adds what a process used: all engines together for a second are 100 percent for a second.
fn add(processes: &mut BTreeMap<u32, GpuProcess>, pid: u32, used: Used) {
    let process = processes.entry(pid).or_insert(GpuProcess {
        pid,
        ..GpuProcess::default()
    });
    process.sm_percent_us = process.sm_percent_us.saturating_add(used.busy_ns / 10);
    if let Some(bytes) = used.vram_bytes {
        process.memory_bytes = Some(process.memory_bytes.unwrap_or(0).saturating_add(bytes));
    }
}

impl Gpu {
    fn new(card: Card, powers: &mut Vec<Power>) -> Self {
        let power = match &card.meter {
            Meter::Power(path) => {
                powers.push(Power {
                    path: path.clone(),
                    most_uw: LIMIT_MW * 1000,
                    status: Some(card.status()),
                });
                Some(powers.len() - 1)
            }
            _ => None,
        };
        let mut believed = Liveness::new();
        believed.learn(Seen::Moving);
        Self {
            name: card.name(),
            card,
            power,
            counter: Counter::new(LIMIT_MW),
            believed,
        }
    }

    fn take(&mut self, sampler: Option<&Sampler>, now_ns: u64) -> Metered {
        let mut power_mw = None;
        let read = match (&self.card.meter, self.power.zip(sampler)) {
            (Meter::Uncore, _) => Ok(0),
            (Meter::Power(_), Some((power, sampler))) => {
                power_mw = sampler.newest_uw(power).map(|uw| uw / 1000);
                sampler.total_uj(power, now_ns)
            }
            (Meter::Power(_), None) => Err("its power is not read".to_owned()),
            (Meter::Energy(_), _) if is_suspended(&self.card.status()) => Err("it sleeps (runtime suspend)".to_owned()),
            (Meter::Energy(path), _) => {
                hwmon::number(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
            }
        };
        match read {
            Ok(uj) => self.counter.see(uj, now_ns),
            Err(reason) => self.counter.miss(reason),
        }
        Metered {
            energy_uj: self.counter.take(),
            counter_uj: self.counter.value_uj().filter(|_| self.power.is_none()),
            power_mw,
        }
    }

    fn reading(&self, metered: Metered, at_ns: u64) -> GpuReading {
        let bytes = |file: &str| hwmon::number(&self.card.device.join(file)).ok();
        GpuReading {
            uuid: self.card.address.clone(),
            index: self.card.index,
            name: self.name.clone(),
            pci: self.card.address.clone(),
            energy_uj: metered.energy_uj,
            counter_uj: metered.counter_uj,
            source: match self.card.meter {
                Meter::Power(_) => MeterSource::HwmonPower,
                Meter::Energy(_) | Meter::Uncore => MeterSource::Hwmon,
            },
            read_at_ns: Some(at_ns),
            power_mw: metered.power_mw,
            memory_used_bytes: bytes("mem_info_vram_used"),
            memory_total_bytes: bytes("mem_info_vram_total"),
            usage: GpuUsage::EngineTime,
            inside: None,
            utilization_percent: None,
            mig: false,
            sm_time: Ok(()),
            lists: Ok(()),
            dropped_samples: 0,
            notes: Vec::new(),
            processes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
