//! The ledger of one interval: who gets which energy. Integers that add up, and nothing else.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    attribution::counters::{Counters, Model},
    interval::{
        Counts, CpuInterval, GpuUsage, MachineMemory, MemoryReading, MeterSource, ProcessId, SHORT_NS, ZoneKind,
    },
    tenants::{Node, Tenant},
    words::words,
};

words! {
    /// How a figure of energy was made.
    #[derive(PartialOrd, Ord)]
    pub enum Method {
        /// Read from a meter.
        Measured = "measured",
        /// Split by CPU time.
        CpuTime = "cpu_time",
        /// Split by CPU time and what perf events counted, with calibrated weights.
        Counters = "counters",
        /// Split by resident memory.
        Memory = "memory",
        /// Split by the memory that is charged to the cgroups of tenants.
        CgroupMemory = "cgroup_memory",
        /// Made from watts that the user gave.
        Estimate = "estimate",
        /// Split by SM time.
        Sm = "sm",
        /// Split by the time of a GPU's engines.
        EngineTime = "engine_time",
        /// All of one process, which was alone.
        SoleProcess = "sole_process",
        /// Nobody used it: idle.
        NoProcess = "no_process",
        /// In several ways, in the intervals of a roll-up.
        Mixed = "mixed",
        /// Several used it, and how much of it each is not known: unattributed.
        NotSplit = "not_split",
    }
}

impl Method {
    /// Split by memory, whoever says how much that is: idle time has no part in it.
    pub fn is_by_memory(self) -> bool {
        matches!(self, Self::Memory | Self::CgroupMemory)
    }
}

words! {
    /// What becomes of the energy that is used while nothing runs.
    #[derive(Default)]
    pub enum IdlePolicy {
        /// It goes to the tasks by their weight.
        #[default]
        Proportional = "proportional",
        /// What the idle machine would have used in that time (its calibrated floor) is the idle row's; the tasks share what
        /// is above it.
        Separate = "separate",
        /// A task takes its share of all CPU time, the idle row takes the rest.
        Capacity = "capacity",
    }
}

/// What a meter read: `package-0`, `psys`, `machine`; also a part (`package-0/core`) that is shown and not split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootZone {
    /// Name of the zone.
    pub zone: String,
    /// What it covers.
    pub kind: ZoneKind,
    /// Its package, if it belongs to one.
    pub package: Option<u32>,
    /// Energy of the interval in µJ, or why it is not known.
    pub energy_uj: Result<u64, String>,
    /// Counter at the end of the interval.
    pub counter_uj: Option<u64>,
    /// Largest value of the counter.
    pub range_uj: Option<u64>,
    /// What the previous interval carried to this one. At most 0.
    pub previous_carry_uj: i64,
    /// What is carried to the next interval, so that the leaves, where all of them are known, add up to
    /// `energy_uj` + `previous_carry_uj` - `carry_uj`. At most 0.
    pub carry_uj: i64,
    /// Why its only leaf is its whole, and its parts are shown and not split; `None` if parts and rest are leaves.
    pub one_leaf: Option<String>,
    /// Its parts were seen not to be inside it. This stays for the trace.
    pub parts_outside: bool,
    /// What the weights of events say of it, where there are any.
    pub model: Option<Model>,
    /// Who read it.
    pub source: MeterSource,
    /// `Measured` or `Estimate`.
    pub method: Method,
}

/// What is split among the rows: `package-0/core`, `package-0/uncore`, `package-0/rest`, `package-0/whole`, `dram-0`,
/// `machine/rest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafZone {
    /// Name of the zone.
    pub zone: String,
    /// `Core`, `OneCore`, `Uncore`, `Dram`, or the root's kind (`Package`, `Machine`) for its rest or its whole.
    pub kind: ZoneKind,
    /// Whether this is what remains of its root after the other leaves.
    pub rest: bool,
    /// Its package, if it belongs to one.
    pub package: Option<u32>,
    /// Energy of the interval in µJ, or why it is not known.
    pub energy_uj: Result<u64, String>,
    /// Counter at the end of the interval; only zones that are meters themselves have one (core, uncore, dram).
    pub counter_uj: Option<u64>,
    /// Largest value of the counter.
    pub range_uj: Option<u64>,
    /// Who read it.
    pub source: MeterSource,
    /// How it is split.
    pub method: Method,
    /// Power of the idle machine here in mW, where the policy makes use of it.
    pub idle_floor_mw: Option<u64>,
}

impl LeafZone {
    /// Whether it is a part of that root.
    pub fn belongs_to(&self, root: &RootZone) -> bool {
        is_part(&self.zone, &root.zone)
    }
}

/// A core of a package: the numbers of both.
pub type Core = (u32, u32);

impl LeafZone {
    /// The core that it is the energy of, if it is that of one core.
    pub fn core(&self) -> Option<Core> {
        (self.kind == ZoneKind::OneCore).then_some(())?;
        let (_, number) = self.zone.rsplit_once("/core-")?;
        Some((self.package?, number.parse().ok()?))
    }
}

/// Whether a zone is a part of another, by their names.
pub fn is_part(zone: &str, root: &str) -> bool {
    zone.strip_prefix(root).is_some_and(|below| below.starts_with('/'))
}

/// What roots and leaves have in common.
#[derive(Clone, Copy, Debug)]
pub struct ZoneView<'a> {
    /// Name of the zone.
    pub zone: &'a str,
    /// Energy of the interval in µJ, or why it is not known.
    pub energy_uj: &'a Result<u64, String>,
    /// Counter at the end of the interval.
    pub counter_uj: Option<u64>,
    /// Largest value of the counter.
    pub range_uj: Option<u64>,
    /// Who read it.
    pub source: MeterSource,
    /// How its figure was made, or is split.
    pub method: Method,
}

impl ZoneView<'_> {
    /// The energy, where it is known.
    pub fn known_uj(&self) -> Option<u64> {
        self.energy_uj.as_ref().ok().copied()
    }
}

/// CPU time on one package, or on one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuUse {
    /// Time on its CPUs.
    pub cpu_ns: u64,
    /// Part of it during which the sibling hardware thread was busy as well.
    pub smt_shared_ns: u64,
    /// What its events counted.
    #[serde(default, skip_serializing_if = "Counts::is_zero")]
    pub counts: Counts,
}

/// What a row did on one GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuUse {
    /// Number of processes.
    pub processes: u32,
    /// SM utilisation, or the time of all engines, integrated in percent × µs.
    pub sm_percent_us: u64,
    /// Use of the GPU's memory by reading and writing, integrated in the same way, as far as it is known. Nothing is split
    /// by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_percent_us: Option<u64>,
    /// Memory held on the GPU, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// MIG instances that it runs on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<String>,
}

fn is_sm(usage: &GpuUsage) -> bool {
    *usage == GpuUsage::Sm
}

/// What the log shows of a GPU beside its energy, which is a leaf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuFacts {
    /// Name of its leaf.
    pub zone: String,
    /// What tells how much of it a row used.
    #[serde(default, skip_serializing_if = "is_sm")]
    pub usage: GpuUsage,
    /// It is inside a CPU package, and its leaf is a part of that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inside: bool,
    /// `GPU-` and a UUID.
    pub uuid: String,
    /// Position among the GPUs of the driver.
    pub index: u32,
    /// Name of the product.
    pub name: String,
    /// PCI address.
    pub pci: String,
    /// Divided into instances (MIG).
    pub mig: bool,
    /// Its energy reading less the end of the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_late_ns: Option<i64>,
    /// Power at the end of the interval, in mW.
    pub power_mw: Option<u64>,
    /// Percentage of its last sampling period in which any kernel ran.
    pub utilization_percent: Option<u32>,
    /// Memory in use.
    pub memory_used_bytes: Option<u64>,
    /// All memory.
    pub memory_total_bytes: Option<u64>,
    /// Why there is no SM time by process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sm_time_missing: Option<String>,
    /// Why its processes could not be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lists_missing: Option<String>,
    /// Samples of utilisation that were left out because they make no sense.
    pub dropped_samples: u64,
    /// What is wrong with it or its driver, and how that is dealt with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Who a row is about. The order is the order in the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// One process in one cgroup (the path).
    Process(ProcessId, Arc<str>),
    /// The processes of one cgroup (the path) that `--max-rows` leaves out.
    Merged(Arc<str>),
    /// The memory of a tenant: what is charged to the cgroup (the path) and to no tenant inside of it.
    Memory(Arc<str>),
    /// All of a tenant, in a roll-up.
    Tenant(Node),
    /// All that the filters leave out.
    Others,
    /// kthreadd and its descendants.
    Kernel,
    /// dlpm itself.
    SelfDlpm,
    /// The idle tasks.
    Idle,
    /// Time that found no room in the maps, and energy that nobody can be shown to have used.
    Unattributed,
}

impl RowKey {
    /// The rows that are not processes, in their order.
    pub const FIXED: [Self; 5] = [
        Self::Others,
        Self::Kernel,
        Self::SelfDlpm,
        Self::Idle,
        Self::Unattributed,
    ];

    /// The word that the log uses for this kind of row.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Process(..) => "process",
            Self::Merged(_) => "merged",
            Self::Memory(_) => "memory",
            Self::Tenant(_) => "tenant",
            Self::Others => "others",
            Self::Kernel => "kernel",
            Self::SelfDlpm => "self",
            Self::Idle => "idle",
            Self::Unattributed => "unattributed",
        }
    }
}

/// What a process row shows beside its numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Name now.
    pub comm: Arc<str>,
    /// Name at `exec`.
    pub exec_comm: Arc<str>,
    /// Real user id.
    pub uid: Option<u32>,
    /// Its last thread has exited.
    pub exited: bool,
}

/// One row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who.
    pub key: RowKey,
    /// For rows of processes and of memory: whose they are; `None` where that is not known.
    ///
    /// A merged row is the tenant's that its cgroup belongs to.
    pub tenant: Option<Arc<Tenant>>,
    /// For process rows: what is shown beside the numbers.
    pub shown: Option<Shown>,
    /// For merged rows: how many processes; in a roll-up the most in one interval.
    pub processes: u32,
    /// CPU time, by package; `None` is the time on CPUs whose package is not known.
    pub by_package: BTreeMap<Option<u32>, CpuUse>,
    /// The same by core, where cores have energy zones of their own.
    pub by_core: BTreeMap<Core, CpuUse>,
    /// Newest memory reading, on one row per process.
    pub memory: Option<MemoryReading>,
    /// Resident memory that this row has in the split of DRAM energy: of its readings, and for the row that takes the
    /// remainder (`others` under a filter, else `unattributed`) also the used memory that no reading covers. A process
    /// whose cgroup's memory is known weighs nothing itself.
    pub resident_bytes: u64,
    /// What it did on GPUs, by the name of the leaf.
    pub gpus: BTreeMap<String, GpuUse>,
    /// µJ per leaf, in the order of [`Ledger::leaves`]; 0 where the leaf is invalid.
    pub energy_uj: Vec<u64>,
}

impl RowKey {
    /// The cgroup (the path) of a row that is of one: all but the fixed rows, and those of roll-ups.
    pub fn cgroup(&self) -> Option<&Arc<str>> {
        match self {
            Self::Process(_, cgroup) | Self::Merged(cgroup) | Self::Memory(cgroup) => Some(cgroup),
            _ => None,
        }
    }
}

impl Row {
    /// CPU time on all packages.
    pub fn cpu_ns(&self) -> u64 {
        self.by_package
            .values()
            .fold(0, |sum: u64, usage| sum.saturating_add(usage.cpu_ns))
    }
}

/// The sum of the listed rows of one cgroup (processes, merged ones, memory), without its children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupSum {
    /// Path from the root of the cgroup v2 tree.
    pub cgroup: String,
    /// CPU time.
    pub cpu_ns: u64,
    /// µJ per leaf, in the order of [`Ledger::leaves`].
    pub energy_uj: Vec<u64>,
}

/// The estimate of an interval, in the row `self` of its line. This time is not dlpm's in any row: it is a part of the
/// slices of the tasks that were switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchEstimate {
    /// Context switches of all CPUs.
    pub switches: u64,
    /// Measured at the start of the trace.
    pub ns_per_switch: u64,
    /// The product.
    pub estimate_ns: u64,
}

/// Who gets which energy in one interval.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Sequence number of the interval.
    pub seq: u64,
    /// CLOCK_MONOTONIC of the energy reading that began the interval.
    pub begin_ns: u64,
    /// CLOCK_MONOTONIC of the energy reading that ended it.
    pub end_ns: u64,
    /// Wall clock (nanoseconds since 1970) at `end_ns`.
    pub end_unix_ns: i64,
    /// Largest distance between a CPU's seal and the energy reading.
    pub energy_skew_ns: u64,
    /// Time that sealing all CPUs took.
    pub seal_ns: u64,
    /// CPUs that were interrupted for it; logs of older versions do not tell.
    pub interrupts: Option<u32>,
    /// CPUs, in order of their number.
    pub cpus: Vec<CpuInterval>,
    /// By CPU: the part of its `busy_ns` during which the sibling hardware thread was busy as well.
    pub smt_shared_ns: BTreeMap<u32, u64>,
    /// The events that were counted, and what they weigh.
    pub counters: Option<Counters>,
    /// What meters read.
    pub roots: Vec<RootZone>,
    /// What is split.
    pub leaves: Vec<LeafZone>,
    /// GPUs, by index.
    pub gpus: Vec<GpuFacts>,
    /// Policy for idle energy.
    pub idle_policy: IdlePolicy,
    /// Weight of a nanosecond that the sibling shared, in thousandths.
    pub smt_weight_permille: u32,
    /// All rows, in the order of their keys; `others` only under a filter, each of the other fixed rows always.
    pub rows: Vec<Row>,
    /// Sums of listed processes by cgroup, in the order of their paths.
    pub cgroups: Vec<CgroupSum>,
    /// Memory of the machine.
    pub machine_memory: Option<MachineMemory>,
    /// What dlpm's program costs in each context switch, where it is known.
    pub ns_per_switch: Option<u64>,
    /// Of a roll-up: how many intervals it is the sum of.
    pub rollup: Option<u64>,
}

impl Ledger {
    /// Length of the interval.
    pub fn length_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.begin_ns)
    }

    /// Whether it is long enough that energy over time is power, and not the step of a meter.
    pub fn tells_power(&self) -> bool {
        self.length_ns() >= SHORT_NS
    }

    /// All zones, roots first.
    pub fn zones(&self) -> impl Iterator<Item = ZoneView<'_>> {
        let roots = self.roots.iter().map(|root| ZoneView {
            zone: &root.zone,
            energy_uj: &root.energy_uj,
            counter_uj: root.counter_uj,
            range_uj: root.range_uj,
            source: root.source,
            method: root.method,
        });
        let leaves = self.leaves.iter().map(|leaf| ZoneView {
            zone: &leaf.zone,
            energy_uj: &leaf.energy_uj,
            counter_uj: leaf.counter_uj,
            range_uj: leaf.range_uj,
            source: leaf.source,
            method: leaf.method,
        });
        roots.chain(leaves)
    }

    /// The leaves of a root, in order.
    pub fn leaves_of(&self, root: &RootZone) -> impl Iterator<Item = &LeafZone> {
        self.leaves.iter().filter(move |leaf| leaf.belongs_to(root))
    }

    /// Context switches on all CPUs.
    pub fn switches(&self) -> u64 {
        self.cpus
            .iter()
            .fold(0, |sum: u64, cpu| sum.saturating_add(cpu.switches))
    }
    /// dlpm's part of the context switches, where the cost of one is known.
    pub fn switch_estimate(&self) -> Option<SwitchEstimate> {
        let ns_per_switch = self.ns_per_switch?;
        let switches = self.switches();
        Some(SwitchEstimate {
            switches,
            ns_per_switch,
            estimate_ns: switches.saturating_mul(ns_per_switch),
        })
    }
}
