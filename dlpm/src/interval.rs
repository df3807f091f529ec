//! What each source saw between two seals: plain values, without any IO.
//!
//! An [`Interval`] can be built by hand in a test. Sources fill it, attribution reads it, nothing else.

mod counts;
mod merge;
mod narrow;
mod trees;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{tenants::Tenant, words::words};

pub use counts::{Counts, CpuCounts, MAX_EVENTS};
pub use trees::Trees;

/// An interval that is shorter says nothing about power: it may hold a whole step of a meter (RAPL moves about once a
/// millisecond), or none. Marks make such intervals. Half of the shortest that can be asked for.
pub const SHORT_NS: u64 = 5_000_000;

/// The longest step of a meter. RAPL moves about once a millisecond, other firmware less often; a step may fall just
/// inside an interval, and one meter may show it before another.
pub const METER_STEP_NS: u64 = 100_000_000;

/// What identifies a process for as long as the machine runs, also when its pid is used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// Thread group id, in the host's pid namespace.
    pub tgid: u32,
    /// Start of the group leader in nanoseconds of CLOCK_BOOTTIME; 0 where the kernel gives no start times.
    pub start_ns: u64,
}

/// What tells processes apart in a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// Thread group id and start time: a pid that is used again is another process.
    #[default]
    StartTime,
    /// The thread group id alone, where the kernel gives no start times.
    Tgid,
}

/// Who a process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// The process that forked it (not the one that adopted it); `None` if unknown.
    pub parent: Option<ProcessId>,
    /// Its name now (at most 15 bytes).
    pub comm: Arc<str>,
    /// Its name when it called `exec` last; inherited over `fork`.
    pub exec_comm: Arc<str>,
    /// Real user id; `None` if unknown.
    pub uid: Option<u32>,
    /// The trees that it is in: those of tracked roots (`--pid`, `-- COMMAND`) that it is, or descends from.
    pub trees: Trees,
    /// Is kthreadd or descends from it.
    pub kernel: bool,
    /// Its last thread has called `exit`.
    pub exited: bool,
}

/// The time of one CPU between its two seals. CLOCK_MONOTONIC.
///
/// `busy_ns`, `idle_ns` and `lost_ns` are measured separately; the time law says that they add up to
/// `end_ns - begin_ns`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuInterval {
    /// Number of the CPU.
    pub cpu: u32,
    /// Physical package (socket) of the CPU, by the number that the package's energy zones have; `None` if it is not
    /// known.
    pub package: Option<u32>,
    /// Number of its core within the package, where each core has an energy zone of its own.
    pub core: Option<u32>,
    /// Reading of this CPU's seal (or return from offline) that began the interval.
    pub begin_ns: u64,
    /// Reading of this CPU's seal (or last event before it went offline) that ended it.
    pub end_ns: u64,
    /// Sum over the usage records of this CPU.
    pub busy_ns: u64,
    /// Time of the idle task.
    pub idle_ns: u64,
    /// Time of tasks whose record found no room in the maps.
    pub lost_ns: u64,
    /// Context switches.
    pub switches: u64,
    /// What its events counted, where that was asked for.
    pub counts: Option<CpuCounts>,
}

impl CpuInterval {
    /// Length of the interval on this CPU, from its own two clock readings.
    pub fn interval_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.begin_ns)
    }

    /// Whether busy, idle and lost time add up to the interval, to the nanosecond.
    pub fn time_law_holds(&self) -> bool {
        self.busy_ns
            .checked_add(self.idle_ns)
            .and_then(|sum| sum.checked_add(self.lost_ns))
            == self.end_ns.checked_sub(self.begin_ns)
    }
}

/// CPU time of one process in one cgroup on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Whose time it is.
    pub process: ProcessId,
    /// cgroup v2 id (the inode of its directory) that the process was in.
    pub cgroup_id: u64,
    /// Where it ran.
    pub cpu: u32,
    /// Time on the CPU.
    pub ns: u64,
    /// Part of `ns` during which the sibling hardware thread was busy as well.
    pub shared_ns: u64,
    /// What its events counted.
    pub counts: Counts,
}

/// Memory of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryReading {
    /// Proportional set size; `None` if `smaps_rollup` may not be read.
    pub pss_bytes: Option<u64>,
    /// Unique set size (private pages); `None` if `smaps_rollup` may not be read.
    pub uss_bytes: Option<u64>,
    /// Resident set size.
    pub rss_bytes: u64,
    /// CLOCK_MONOTONIC time of the reading.
    pub read_at_ns: u64,
}

impl MemoryReading {
    /// PSS, or RSS where PSS is not to be had.
    pub fn resident_bytes(&self) -> u64 {
        self.pss_bytes.unwrap_or(self.rss_bytes)
    }
}

/// Memory that the kernel charged to the directory of a cgroup, and to all below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupMemory {
    /// Anonymous memory, files (page cache and shared memory), and what the kernel and sockets hold for it.
    pub bytes: u64,
    /// CLOCK_MONOTONIC time of the reading.
    pub read_at_ns: u64,
}

/// Memory of the machine, from `/proc/meminfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineMemory {
    /// `MemTotal`.
    pub total_bytes: u64,
    /// `MemAvailable`.
    pub available_bytes: u64,
    /// `MemTotal - MemFree - Buffers - Cached - SReclaimable`: what psutil calls "used".
    pub used_bytes: u64,
    /// `MemFree`: told where memory is read by cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
}

impl MachineMemory {
    /// The memory that DRAM energy is split over. Where cgroups are read, files count, so it is all that is not free;
    /// else it is what the kernel could not make available, since no reading of a process has the files that it read.
    pub fn in_use_bytes(&self) -> u64 {
        self.total_bytes
            .saturating_sub(self.free_bytes.unwrap_or(self.available_bytes))
    }
}

words! {
    /// What part of the machine an energy zone covers.
    #[derive(Hash, PartialOrd, Ord)]
    pub enum ZoneKind {
        /// A CPU package (socket): contains core and uncore.
        Package = "package",
        /// The cores of a package.
        Core = "core",
        /// One core of a package, as the event of each core counts it: a part of its package.
        OneCore = "one_core",
        /// One core of a package (what AMD's `core` zone reads): shown, never split, and no part in any sum.
        SingleCore = "single_core",
        /// Graphics and the like, inside a package.
        Uncore = "uncore",
        /// The memory of a package: beside the package's energy, not inside it.
        Dram = "dram",
        /// The whole platform; never added to anything.
        Psys = "psys",
        /// A module, a board, a node or a supply of one, as its meter says: shown, and never added to anything.
        Board = "board",
        /// The whole machine as a user's estimate sees it (`--estimate`).
        Machine = "machine",
        /// A GPU, with its memory and its board.
        Gpu = "gpu",
    }
}

words! {
    /// Where a zone's energy comes from.
    pub enum MeterSource {
        /// The kernel's powercap tree.
        Powercap = "powercap",
        /// The kernel's perf events of the PMU `power`.
        Perf = "perf",
        /// An energy counter of the kernel's hardware monitors.
        Hwmon = "hwmon",
        /// The integral of a power that the kernel's hardware monitors tell.
        HwmonPower = "hwmon_power",
        /// Watts that the user gave.
        Estimate = "estimate",
        /// The energy counter of a GPU, by NVML.
        NvmlEnergy = "nvml_energy",
        /// The integral of a GPU's power, by NVML.
        NvmlPower = "nvml_power",
    }
}

/// What one energy zone counted in the interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneReading {
    /// Name in the log: `package-0`, `package-0/core`, `package-0/core-3`, `package-0/uncore`, `package-0/single-core`, `dram-0`, `psys`,
    /// `machine`, and what meters of boards are called.
    pub zone: String,
    /// What it covers.
    pub kind: ZoneKind,
    /// The package that it belongs to; `None` for psys and machine.
    pub package: Option<u32>,
    /// Energy since the previous seal, or why it is not known (a sentence for the log).
    pub energy_uj: Result<u64, String>,
    /// The counter at the end of the interval; `None` if the source has no counter, or adds up several.
    pub counter_uj: Option<u64>,
    /// The counter runs from 0 to this value and starts again; `None` if it never does, or that is not known.
    pub range_uj: Option<u64>,
    /// Who read it.
    pub source: MeterSource,
}

words! {
    /// What tells how much of a GPU a process used.
    #[derive(Default)]
    pub enum GpuUsage {
        /// Samples of the use of its SMs.
        #[default]
        Sm = "sm",
        /// Time of its engines.
        EngineTime = "engine_time",
    }
}

/// What one GPU did in the interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuReading {
    /// `GPU-` and a UUID: the same on every start of the machine.
    pub uuid: String,
    /// Position among the GPUs of the driver; it can change from start to start.
    pub index: u32,
    /// Name of the product.
    pub name: String,
    /// PCI address (`00000000:65:00.0`).
    pub pci: String,
    /// Energy since the previous reading, or why it is not known (a sentence for the log).
    pub energy_uj: Result<u64, String>,
    /// The energy counter at the end of the interval; `None` if the GPU has none or did not answer.
    pub counter_uj: Option<u64>,
    /// Who read it: NVML or the hardware monitors, by energy or power.
    pub source: MeterSource,
    /// What tells how much of it a process used.
    pub usage: GpuUsage,
    /// The zone that it is the energy of, for a GPU inside a CPU package: it has none of its own then, and `energy_uj` and
    /// what belongs to it mean nothing.
    pub inside: Option<String>,
    /// CLOCK_MONOTONIC of the energy reading; `None` if there was none.
    pub read_at_ns: Option<u64>,
    /// Power at the end of the interval, in mW.
    pub power_mw: Option<u64>,
    /// Percentage of its last sampling period in which any kernel ran, 0 to 100, at the end of the interval.
    pub utilization_percent: Option<u32>,
    /// Memory in use.
    pub memory_used_bytes: Option<u64>,
    /// All memory.
    pub memory_total_bytes: Option<u64>,
    /// It is divided into instances (MIG).
    pub mig: bool,
    /// Whether SM time by process was to be had, or why not (a sentence for the log).
    pub sm_time: Result<(), String>,
    /// Whether its lists of processes could be read, or why not (a sentence for the log).
    pub lists: Result<(), String>,
    /// Samples of utilisation that were left out because they make no sense.
    pub dropped_samples: u64,
    /// What is wrong with it or its driver, and how that is dealt with (sentences for the user).
    pub notes: Vec<String>,
    /// The processes that used it in the interval, each once, by pid.
    pub processes: Vec<GpuProcess>,
}

/// What one process did on one GPU in the interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuProcess {
    /// Its thread group id, in the host's pid namespace.
    pub pid: u32,
    /// SM utilisation, or the time of all engines, integrated in percent × µs: 100,000,000 is one second of the whole
    /// GPU, or of one engine. 0 where the GPU has no sample of it. The processes of a GPU can have more together than the interval has.
    pub sm_percent_us: u64,
    /// The part of the time in which its memory was read or written, integrated in the same way; `None` if that is not
    /// told.
    pub mem_percent_us: Option<u64>,
    /// Memory that it holds on the GPU; `None` if that is not told, or it is gone.
    pub memory_bytes: Option<u64>,
    /// The MIG instances (`MIG-…`) that it runs on.
    pub instances: Vec<String>,
}

/// What a run of dlpm's program at the context switch costs, by the kernel's own count. A mean of the first runs on this
/// machine, so for all others an estimate. It contains some ten nanoseconds of that counting, and lacks what the kernel
/// does before and after the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchCost {
    /// Nanoseconds of a run.
    pub run_ns: u64,
    /// Runs that were counted.
    pub runs: u64,
    /// Time in which they were counted.
    pub measured_ns: u64,
}

/// What each source saw between two seals.
#[derive(Clone, Debug, Default)]
pub struct Interval {
    /// Sequence number, from 0.
    pub seq: u64,
    /// CLOCK_MONOTONIC of the energy reading that began the interval.
    pub begin_ns: u64,
    /// CLOCK_MONOTONIC of the energy reading that ended it.
    pub end_ns: u64,
    /// Wall clock (nanoseconds since 1970) at `end_ns`.
    pub end_unix_ns: i64,
    /// Largest distance between a CPU's seal and the energy reading, at either end.
    pub energy_skew_ns: u64,
    /// Time that sealing all CPUs took.
    pub seal_ns: u64,
    /// CPUs that were interrupted for it.
    pub interrupts: Option<u32>,
    /// CPUs that were online for at least a part of the interval.
    pub cpus: Vec<CpuInterval>,
    /// One record per process, cgroup and CPU; several with the same key are added up.
    pub usage: Vec<Usage>,
    /// Names of the events that were counted; empty if that was not asked for.
    pub events: Arc<[String]>,
    /// Every process that `usage` or `memory` names (one that is missing is shown without a name). Shared with the source
    /// that knows them: thousands run in an interval, and few of them change.
    pub processes: foldhash::HashMap<ProcessId, Arc<Process>>,
    /// Paths of the cgroups that `usage` names, from the root of the cgroup v2 tree (`/train.slice/a`).
    pub cgroups: HashMap<u64, String>,
    /// Tenants by those paths and by those of `cgroup_memory`; a path that is missing has none that is known.
    pub tenants: HashMap<String, Arc<Tenant>>,
    /// Tenants of processes whose cgroup does not tell it (on machines with version 1 hierarchies). In a cgroup that is a
    /// job's or a container's they do not count.
    pub process_tenants: foldhash::HashMap<ProcessId, Arc<Tenant>>,
    /// Newest readings of the processes that memory is read for, with the cgroup (id) each was in.
    pub memory: BTreeMap<ProcessId, (u64, MemoryReading)>,
    /// Newest readings of the directories of tenants, by path. They contain one another, as the paths do.
    pub cgroup_memory: BTreeMap<Arc<str>, CgroupMemory>,
    /// Memory of the machine at the end.
    pub machine_memory: Option<MachineMemory>,
    /// Every energy zone that was found at start.
    pub zones: Vec<ZoneReading>,
    /// The GPUs that are measured, by index.
    pub gpus: Vec<GpuReading>,
    /// Who the pids on the GPUs are, each with the cgroup (id) that it was in.
    pub gpu_owners: BTreeMap<u32, (ProcessId, u64)>,
    /// dlpm's own thread group id.
    pub self_tgid: u32,
    /// What dlpm costs in each context switch, once it is known.
    pub switch_cost: Option<SwitchCost>,
}
