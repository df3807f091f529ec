//! All sources of one machine together: from a seal to an [`Interval`].
//!
//! In three steps, so that a border is made at the moment at which it is wanted: [`Machine::seal`] ends the open interval,
//! within microseconds; [`Machine::drain`] reads what has to be read before the next seal; [`Machine::complete`] waits for
//! the GPUs, which may take long, and may be called after further seals.

mod tenancy;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use dlpm_common::Counter;
use rustix::time::ClockId;

use crate::{
    interval::{GpuReading, Interval, MachineMemory, Process, ProcessId, SwitchCost, Usage, ZoneKind, ZoneReading},
    phases::Border,
    sources::{
        cgroups::CgroupTree,
        clock::{clock_ns, monotonic_ns, unix_ns},
        cpu_time::{Config, CpuTime, CpuTimeError, Identity, Sealed},
        drm,
        energy::meter::Meter,
        gpu::{Asked, Gpus},
        gpu_owners::GpuOwners,
        memory::{MemoryOptions, machine_memory},
        memory_watch::{self, MemoryWatch},
        processes::ProcessTable,
        suspend::{self, Suspended},
        tenant_memory::TenantMemory,
        tenants::{self, Tenants},
        topology::Topology,
    },
};

pub use tenancy::ListedTenant;

/// Intervals between two looks at `/proc` for processes that went without a word, where hooks do not tell.
const SWEEP_EVERY: u64 = 30;

/// What the sources need to know at start.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Root of `/proc`.
    pub procfs: PathBuf,
    /// Root of `/sys`.
    pub sysfs: PathBuf,
    /// Root of the file system whose container runtimes and users tenants are named by.
    pub rootfs: PathBuf,
    /// Whether anybody wants names of tenants.
    pub names: bool,
    /// The kernel side; its siblings are filled in from the topology.
    pub cpu_time: Config,
    /// How memory is read.
    pub memory: MemoryOptions,
    /// Whether the memory of tenants is read from their cgroups, where the energy of DRAM is measured and the controller
    /// is enabled. Of processes in them, it is not read then.
    pub tenant_memory: bool,
}

/// What was dropped since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Processes that found no room in the kernel's table.
    pub processes_full: u64,
    /// Processes that ran and have no name.
    pub nameless: u64,
    /// cgroups whose path the kernel side could not keep.
    pub cgroups_lost: u64,
    /// Runs of programs that the kernel left out.
    pub missed_runs: u64,
    /// Times that a clock stood behind the last event of its CPU.
    pub clock_steps: u64,
}

/// Every source of a machine, tracing.
pub struct Machine {
    cpu_time: CpuTime,
    processes: ProcessTable,
    cgroups: CgroupTree,
    tenants: Tenants,
    topology: Topology,
    meter: Meter,
    gpus: Gpus,
    gpu_owners: GpuOwners,
    memory: MemoryWatch,
    tenant_memory: Option<TenantMemory>,
    procfs: PathBuf,
    /// Names of the events that are counted.
    events: Arc<[String]>,
    previous: Reading,
    seq: u64,
    dropped: Dropped,
    needs_sweep: bool,
    /// Paths of cgroups that were made, for whoever asks; `None` if nobody does.
    created: Option<Vec<String>>,
}

/// An interval that has just ended, and what the meters said at that moment.
#[must_use = "the sealed buffers have to be drained before the next seal"]
pub struct Ended {
    sealed: Sealed,
    zones: Vec<ZoneReading>,
    gpus: Vec<Asked>,
    drm: drm::Taken,
    reading: Reading,
    end_unix_ns: i64,
}

impl Ended {
    /// CLOCK_MONOTONIC of the border.
    pub fn at_ns(&self) -> u64 {
        self.reading.monotonic_ns
    }
}

/// An interval that is complete but for its GPUs.
pub struct Drained {
    interval: Interval,
    gpus: Vec<Asked>,
    drm: Vec<GpuReading>,
    slept_ns: u64,
}

/// When energy was read.
#[derive(Clone, Copy, Default)]
struct Reading {
    monotonic_ns: u64,
    /// Largest distance to a CPU's seal.
    skew_ns: u64,
    suspended: Suspended,
    /// Time that the machine slept since the reading before.
    slept_ns: u64,
}

impl Machine {
    /// Starts every source and begins the first interval.
    ///
    /// # Errors
    ///
    /// Where CPU time cannot be traced; the other sources can be absent.
    pub fn start(config: &MachineConfig, cgroups: CgroupTree, meter: Meter, gpus: Gpus) -> Result<Self, CpuTimeError> {
        let topology = Topology::read(&config.sysfs);
        let mut cpu_time_config = config.cpu_time.clone();
        cpu_time_config.siblings = topology.siblings();
        let mut cpu_time = CpuTime::start(&cpu_time_config)?;
        let processes = ProcessTable::new(&mut cpu_time, &config.procfs)?;
        let memory = MemoryWatch::start(&config.procfs, config.memory);
        let roots = tenants::Roots {
            rootfs: config.rootfs.clone(),
            procfs: config.procfs.clone(),
        };
        let mut machine = Self {
            cpu_time,
            processes,
            tenants: Tenants::start(roots, config.names, &cgroups),
            tenant_memory: config.tenant_memory.then(|| TenantMemory::start(&cgroups)),
            cgroups,
            topology,
            meter,
            gpus,
            gpu_owners: GpuOwners::default(),
            memory,
            procfs: config.procfs.clone(),
            events: config.cpu_time.events.iter().map(|event| event.name.clone()).collect(),
            previous: Reading::default(),
            seq: 0,
            dropped: Dropped::default(),
            needs_sweep: false,
            created: None,
        };
        // What lies between the attach and the first seal belongs to no interval.
        machine.begin()?;
        Ok(machine)
    }

    fn begin(&mut self) -> Result<(), CpuTimeError> {
        let ended = self.seal()?;
        // A GPU's first reading is the beginning of its first interval.
        self.gpus.collect(&ended.gpus);
        self.previous = ended.reading;
        let drained = self.cpu_time.drain(&ended.sealed)?;
        let ran = ran(&drained.usage);
        self.processes
            .update(&self.cpu_time, &ran, ended.reading.monotonic_ns)?;
        let boot_ns = clock_ns(ClockId::Boottime);
        drop(
            self.gpus
                .drm_mut()
                .readings(ended.drm, &self.procfs, &ran, boot_ns, None),
        );
        Ok(())
    }

    /// Where the open interval began.
    pub fn border(&self) -> Border {
        Border {
            seq: self.seq,
            at_ns: self.previous.monotonic_ns,
        }
    }

    /// Number of the open interval.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Ends the open interval: seals the CPUs, reads the meters, and asks the GPUs.
    ///
    /// # Errors
    ///
    /// Where CPU time is lost.
    pub fn seal(&mut self) -> Result<Ended, CpuTimeError> {
        let sealed = self.cpu_time.seal()?;
        let now_ns = monotonic_ns();
        // They read while the rest goes on.
        let gpus = self.gpus.request();
        let mut zones = self.meter.take(now_ns);
        let drm = self.gpus.drm_mut().take(now_ns);
        // Whoever interrupts the reading sets the zones apart.
        let read_ns = monotonic_ns();
        let mut reading = Reading {
            monotonic_ns: now_ns,
            skew_ns: sealed
                .cpus
                .iter()
                .map(|cpu| now_ns.abs_diff(cpu.end_ns()).max(read_ns.abs_diff(cpu.end_ns())))
                .max()
                .unwrap_or(0),
            suspended: Suspended::read(),
            slept_ns: 0,
        };
        if self.previous.monotonic_ns != 0 {
            reading.slept_ns = reading.suspended.since(self.previous.suspended);
            suspend::mark(&mut zones, reading.slept_ns);
        }
        Ok(Ended {
            sealed,
            zones,
            gpus,
            drm,
            reading,
            end_unix_ns: unix_ns(),
        })
    }

    /// Reads what every source but the GPUs saw in the interval that has ended.
    ///
    /// # Errors
    ///
    /// Where CPU time is lost. Any other source that fails only degrades the interval.
    pub fn drain(&mut self, ended: Ended) -> Result<Drained, CpuTimeError> {
        let Ended {
            sealed,
            mut zones,
            gpus,
            drm,
            reading,
            end_unix_ns,
        } = ended;
        let mut drained = self.cpu_time.drain(&sealed)?;
        for cpu in &mut drained.cpus {
            if self.topology.package_of(cpu.cpu).is_none() {
                // It may have come online since the topology was read.
                self.topology.refresh(cpu.cpu);
            }
            cpu.package = self.meter.package_of(cpu.cpu, &self.topology);
            cpu.core = self.meter.core_of(cpu.cpu, &self.topology);
        }
        self.dropped.clock_steps += drained.clock_steps;
        self.meter.judge(
            &mut zones,
            self.previous.monotonic_ns,
            reading.monotonic_ns,
            &drained.cpus,
            &self.topology,
        );
        let ran = ran(&drained.usage);
        self.processes.update(&self.cpu_time, &ran, reading.monotonic_ns)?;
        let mut uncores = zones.iter().filter(|zone| zone.kind == ZoneKind::Uncore);
        let uncore = uncores.next().filter(|_| uncores.next().is_none());
        let uncore = uncore.map(|zone| zone.zone.as_str());
        let boot_ns = clock_ns(ClockId::Boottime);
        let drm = self.gpus.drm_mut().readings(drm, &self.procfs, &ran, boot_ns, uncore);
        self.count_dropped(drained.cpus.iter().any(|cpu| cpu.lost_ns > 0));
        let cgroups = self.name_cgroups(&drained.usage)?;
        self.memory.count(&drained.usage);
        let memory = self.memory.readings(&self.processes);
        let named = ran.iter().chain(memory.keys());
        let processes = self.describe(named).collect();
        let cgroup_memory = match &mut self.tenant_memory {
            Some(tenants) if zones.iter().any(|zone| zone.kind == ZoneKind::Dram) => {
                tenants.read(cgroups.values(), reading.monotonic_ns)
            }
            _ => BTreeMap::new(),
        };
        let of_memory = memory.values().map(|(cgroup_id, _)| *cgroup_id);
        let cgroups = self.name_more_cgroups(cgroups, of_memory);
        let interval = Interval {
            seq: self.seq,
            begin_ns: self.previous.monotonic_ns,
            end_ns: reading.monotonic_ns,
            end_unix_ns,
            energy_skew_ns: self.previous.skew_ns.max(reading.skew_ns),
            seal_ns: sealed.seal_ns,
            interrupts: Some(sealed.counts.interrupts),
            cpus: drained.cpus,
            usage: drained.usage,
            events: self.events.clone(),
            processes,
            cgroups,
            tenants: HashMap::new(),
            process_tenants: foldhash::HashMap::default(),
            memory,
            machine_memory: machine_memory(&self.procfs).map(|machine| MachineMemory {
                free_bytes: machine.free_bytes.filter(|_| !cgroup_memory.is_empty()),
                ..machine
            }),
            cgroup_memory,
            zones,
            gpus: Vec::new(),
            gpu_owners: BTreeMap::new(),
            self_tgid: std::process::id(),
            switch_cost: self.cpu_time.switch_cost().and_then(Result::ok),
        };
        self.seq += 1;
        self.previous = reading;
        Ok(Drained {
            interval,
            gpus,
            drm,
            slept_ns: reading.slept_ns,
        })
    }

    /// Whether [`Self::complete`] would not wait.
    pub fn is_ready(&mut self, drained: &Drained) -> bool {
        self.gpus.is_ready(&drained.gpus)
    }

    /// Adds what the GPUs answered; waits for them until their deadline. In the order of the intervals.
    pub fn complete(&mut self, drained: Drained) -> Interval {
        let mut interval = drained.interval;
        let mut gpus = self.gpus.collect(&drained.gpus);
        gpus.extend(drained.drm);
        suspend::mark_gpus(&mut gpus, drained.slept_ns);
        let owners = self.resolve_gpu_owners(&gpus, &interval.usage);
        for (id, process) in self.gpu_owners.processes() {
            interval
                .processes
                .entry(id)
                .or_insert_with(|| Arc::new(process.clone()));
        }
        let known: Vec<_> = self.describe(owners.values().map(|(process, _)| process)).collect();
        interval.processes.extend(known);
        let of_gpus = owners.values().map(|(_, cgroup_id)| *cgroup_id);
        interval.cgroups = self.name_more_cgroups(interval.cgroups, of_gpus);
        interval.gpus = gpus;
        interval.gpu_owners = owners;
        self.tenants.add_to(&mut interval);
        interval
    }

    /// Who some processes are, those that are known.
    fn describe<'a>(
        &'a self,
        processes: impl Iterator<Item = &'a ProcessId>,
    ) -> impl Iterator<Item = (ProcessId, Arc<Process>)> {
        processes.filter_map(|process| Some((*process, self.processes.get(process)?.clone())))
    }

    /// Looks for what hooks did not tell, where that is needed. Not part of an interval's time.
    ///
    /// # Errors
    ///
    /// Where CPU time is lost.
    pub fn tidy(&mut self) -> Result<(), CpuTimeError> {
        let blind = self.cpu_time.identity().0 == Identity::Tgid
            || self.cpu_time.hooks().iter().any(|hook| hook.state.is_err())
            // An exit may have been missed of a process that was still to be seen at the last look.
            || self.dropped.missed_runs > 0;
        if self.needs_sweep || (blind && self.seq.is_multiple_of(SWEEP_EVERY)) {
            self.needs_sweep = false;
            self.processes.sweep(monotonic_ns())?;
        }
        Ok(())
    }

    /// Reads the meters without ending the interval, so that a counter's wrap is seen however long the interval is.
    pub fn poll_meters(&mut self) {
        self.meter.poll(monotonic_ns());
    }

    /// The source of CPU time: hooks and identity.
    pub fn cpu_time(&mut self) -> &mut CpuTime {
        &mut self.cpu_time
    }

    /// What dlpm costs in each context switch, or why that is not known.
    pub fn switch_cost(&self) -> Result<SwitchCost, String> {
        let cost = self.cpu_time.switch_cost();
        cost.unwrap_or_else(|| Err("the trace was too short to measure it".to_owned()))
    }

    /// Who the processes are, and which trees are followed.
    pub fn processes(&mut self) -> &mut ProcessTable {
        &mut self.processes
    }

    /// Packages and siblings.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Where energy is read.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The GPUs that are measured.
    pub fn gpus(&self) -> &Gpus {
        &self.gpus
    }

    /// What was dropped since the start.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    fn resolve_gpu_owners(&mut self, gpus: &[GpuReading], usage: &[Usage]) -> BTreeMap<u32, (ProcessId, u64)> {
        let processes = &self.processes;
        let mount_point = self.cgroups.mount_point();
        self.gpu_owners.resolve(
            gpus,
            usage,
            |process| processes.get(process).map(|process| process.as_ref().clone()),
            processes.alive(),
            |pid| memory_watch::cgroup_id(&self.procfs, mount_point, pid),
        )
    }

    fn count_dropped(&mut self, lost: bool) {
        let missed_runs = self.cpu_time.missed_runs();
        let processes_full = self.cpu_time.counter(Counter::ProcessesFull);
        self.needs_sweep |=
            lost || missed_runs > self.dropped.missed_runs || processes_full > self.dropped.processes_full;
        self.dropped.missed_runs = missed_runs;
        self.dropped.processes_full = processes_full;
        self.dropped.cgroups_lost = self.cpu_time.counter(Counter::CgroupsLost);
        self.dropped.nameless = self.processes.nameless();
    }
}

/// The processes of usage records, each once, by their start time.
fn ran(usage: &[Usage]) -> Vec<ProcessId> {
    let mut ran: Vec<_> = usage.iter().map(|usage| usage.process).collect();
    ran.sort_unstable_by_key(|process| (process.start_ns, process.tgid));
    ran.dedup();
    ran
}
