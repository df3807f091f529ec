//! The records that dlpm's eBPF programs and its user space share: one definition each.
//!
//! All are `repr(C)` integers with explicit padding, so that both compilers agree and the verifier never sees an
//! uninitialised byte.
#![no_std]

pub mod yardsticks;

/// Longest name of a task with its terminating zero (`TASK_COMM_LEN`).
pub const COMM_BYTES: usize = 16;

/// Longest cgroup path that the kernel side keeps, with its terminating zero.
pub const CGROUP_PATH_BYTES: usize = 504;

/// Events that can be counted at the context switch.
pub const MAX_EVENTS: usize = 4;

/// What each event has counted; 0 where there are fewer.
pub type Counts = [u64; MAX_EVENTS];

/// Names of the maps, as user space looks them up.
pub mod maps {
    /// Array of [`CpuState`](crate::CpuState), mappable; one per possible CPU.
    pub const CPUS: &str = "CPUS";
    /// Array of [`Slot`](crate::Slot), mappable; per CPU two tables of `1 << SLOTS_LOG2`.
    pub const SLOTS: &str = "SLOTS";
    /// Hash of [`UsageKey`](crate::UsageKey) to [`Usage`](crate::Usage), one per buffer.
    pub const SPILL: [&str; 2] = ["SPILL_0", "SPILL_1"];
    /// Hash of [`ProcessKey`](crate::ProcessKey) to [`ProcessRecord`](crate::ProcessRecord).
    pub const PROCESSES: &str = "PROCESSES";
    /// Ring of [`ProcessKey`](crate::ProcessKey)s whose entries in [`PROCESSES`] have changed.
    pub const CHANGES: &str = "CHANGES";
    /// Hash of cgroup id to [`CgroupRecord`](crate::CgroupRecord): cgroups created since the last drain.
    pub const CGROUPS: &str = "CGROUPS";
    /// Ring that wakes user space when [`CGROUPS`] has something new; what is in it means nothing.
    pub const CGROUP_NEWS: &str = "CGROUP_NEWS";
    /// Per-CPU array of counters, indexed by [`Counter`](crate::Counter).
    pub const COUNTERS: &str = "COUNTERS";
    /// Arrays of perf events by CPU, one for each event that is counted at the context switch.
    pub const EVENTS: [&str; super::MAX_EVENTS] = ["EVENT_0", "EVENT_1", "EVENT_2", "EVENT_3"];
    /// Array of [`CpuCounts`](crate::CpuCounts), mappable; one per possible CPU, where events are counted.
    pub const COUNTS: &str = "COUNTS";
    /// Array of [`Counts`](crate::Counts), mappable: those of the [`SLOTS`] with the same indices.
    pub const SLOT_COUNTS: &str = "SLOT_COUNTS";
}

/// Names of the globals that the loader sets.
pub mod globals {
    /// `u32`: log2 of the number of slots of one table.
    pub const SLOTS_LOG2: &str = "SLOTS_LOG2";
    /// `u32`: 1 where at least one core has two hardware threads.
    pub const SMT: &str = "SMT";
    /// `u32`: how the interval of an idle CPU ends, one of [`pace`](crate::pace).
    pub const PACE: &str = "PACE";
    /// `u32`: the process that [`programs::ON_SWITCH_OF_ONE`](crate::programs::ON_SWITCH_OF_ONE) counts.
    pub const ONLY: &str = "ONLY";
    /// `u32`: how many events are counted at the context switch, 0 to [`MAX_EVENTS`](crate::MAX_EVENTS).
    pub const EVENTS: &str = "EVENTS";
    /// [`Offsets`](crate::Offsets) of the running kernel.
    pub const OFFSETS: &str = "OFFSETS";
}

/// Values of [`globals::PACE`].
pub mod pace {
    /// Every CPU is interrupted.
    pub const INTERRUPT: u32 = 0;
    /// A CPU that is idle is turned by user space, see [`CpuState::turn`](crate::CpuState::turn).
    pub const GENTLE: u32 = 1;
    /// The same without the barrier that makes it right: the test of that barrier loads it, and nothing else.
    pub const WITHOUT_BARRIER: u32 = 2;
}

/// Names of the programs.
pub mod programs {
    /// BTF tracepoint `sched_switch`: charges the slice that ends.
    pub const ON_SWITCH: &str = "on_switch";
    /// Raw tracepoint program that `BPF_PROG_TEST_RUN` runs on each CPU to end its interval.
    pub const SEAL: &str = "seal";
    /// Twin of [`ON_SWITCH`] for kernels without BTF: a raw tracepoint, no start times.
    pub const ON_SWITCH_BY_TGID: &str = "on_switch_by_tgid";
    /// Twin of [`SEAL`] for kernels without BTF: no start times.
    pub const SEAL_BY_TGID: &str = "seal_by_tgid";
    /// Twin of [`ON_SWITCH`] for tests: all processes but one count as idle.
    pub const ON_SWITCH_OF_ONE: &str = "on_switch_of_one";
    /// Goes with [`ON_SWITCH_OF_ONE`].
    pub const SEAL_OF_ONE: &str = "seal_of_one";
    /// Raw tracepoint `sched_wakeup_new`.
    pub const ON_FORK: &str = "on_fork";
    /// Raw tracepoint `sched_process_exec`.
    pub const ON_EXEC: &str = "on_exec";
    /// They run where [`ON_EXEC`] was left out.
    pub const ON_EXEC_AGAIN: [&str; 2] = ["on_exec_2", "on_exec_3"];
    /// Raw tracepoint `task_rename`.
    pub const ON_RENAME: &str = "on_rename";
    /// They run where [`ON_RENAME`] was left out.
    pub const ON_RENAME_AGAIN: [&str; 2] = ["on_rename_2", "on_rename_3"];
    /// Raw tracepoint `sched_process_exit`.
    pub const ON_EXIT: &str = "on_exit";
    /// They run where [`ON_EXIT`] was left out.
    pub const ON_EXIT_AGAIN: [&str; 2] = ["on_exit_2", "on_exit_3"];
    /// Iterator over all tasks: the processes that are older than the trace.
    pub const LIST_TASKS: &str = "list_tasks";
    /// Raw tracepoint `cgroup_mkdir`.
    pub const ON_CGROUP_MKDIR: &str = "on_cgroup_mkdir";
}

/// What the kernel side counts in addition to CPU time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Processes that found no room in `PROCESSES`.
    ProcessesFull = 0,
    /// Processes that were put into `PROCESSES`.
    ProcessesInserted = 1,
    /// cgroups that were put into `CGROUPS`.
    CgroupsInserted = 2,
    /// cgroups that found no room in `CGROUPS`, or whose path could not be read.
    CgroupsLost = 3,
    /// Changed entries of `PROCESSES` for which `CHANGES` had no room.
    ChangesLost = 4,
}

/// Number of [`Counter`]s.
pub const COUNTERS: u32 = 5;

/// Byte offsets in the running kernel's structures, from its BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.comm`
    pub task_comm: u32,
    /// `task_struct.group_leader`
    pub task_group_leader: u32,
    /// `task_struct.start_boottime`
    pub task_start_boottime: u32,
    /// `task_struct.real_parent`
    pub task_real_parent: u32,
    /// `task_struct.cred`
    pub task_cred: u32,
    /// `cred.uid`
    pub cred_uid: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `cgroup.root`
    pub cgroup_root: u32,
    /// `kernfs_node.id`
    pub kernfs_node_id: u32,
    /// `cgroup_root.hierarchy_id`
    pub cgroup_root_hierarchy_id: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`; 0 where the way from a task to its cgroup id is not known, so that a helper is asked.
    pub css_set_dfl_cgrp: u32,
}

/// What belongs to one interval of one CPU. Times in nanoseconds of CLOCK_MONOTONIC.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuBuffer {
    /// Reading of the seal that began the interval.
    pub begin_ns: u64,
    /// Reading of the seal that ended it.
    pub end_ns: u64,
    /// Time of the idle task.
    pub idle_ns: u64,
    /// Time of tasks whose record found no room.
    pub lost_ns: u64,
    /// Context switches.
    pub switches: u64,
    /// Slots that were claimed; their indices stand in [`Slot::claimed_index`] of the first ones of the table.
    pub claimed: u32,
    /// Records that were put into the spill map.
    pub spilled: u32,
    /// Times that the clock stood behind the last event (the slice then counts 0 ns).
    pub clock_steps: u64,
    /// Slices whose overlap had to be clamped (the remainder goes to the next slice).
    pub overlap_clamps: u64,
}

/// State of one CPU. Only that CPU writes it, but for `gap` (user space, while the CPU is offline), `turn` (both) and
/// `sibling` (the loader, before anything is attached).
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuState {
    /// Time of the last event that charged a slice; 0 before the first.
    pub since_ns: u64,
    /// Counts how often the CPU has become idle or left idle: odd while it is idle.
    pub epoch: u64,
    /// Not 0: user space has ended the interval of this idle CPU, see [`turn_at`]. The CPU takes it when it leaves idle.
    pub turn: u64,
    /// Not 0: user space closed the interval while the CPU was offline; start again at this sequence number.
    pub gap: u64,
    /// Busy time up to any `t` in one word: `busy: (acc - since) << 1 | 1`, `idle: acc << 1`, modulo 2^63.
    pub busy_word: u64,
    /// The sibling's busy time that earlier slices were given, modulo 2^63.
    pub sibling_seen: u64,
    /// Address of this CPU's idle task, where the kernel gives no task fields; 0 until it is known.
    pub idle_task: u64,
    /// The buffer that is written, 0 or 1: the lowest bit of the open interval's number.
    pub parity: u32,
    /// The other hardware thread of the core; `u32::MAX` where there is none.
    pub sibling: u32,
    /// The two buffers.
    pub buffers: [CpuBuffer; 2],
}

/// A [`CpuState::turn`]: at this time the interval of that number begins, of which the lowest bit is kept.
#[must_use]
pub const fn turn_at(at_ns: u64, sequence: u64) -> u64 {
    (at_ns << 1) | (sequence & 1)
}

/// CPU time of one process in one cgroup on one CPU: an entry of the slot table.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    /// cgroup v2 id.
    pub cgroup_id: u64,
    /// Start of the group leader, CLOCK_BOOTTIME; 0 where the kernel gives no start times.
    pub start_ns: u64,
    /// Thread group id; 0 means that the slot is free.
    pub tgid: u32,
    /// Not about this slot: element n of the table holds here the index of the n-th claimed slot.
    pub claimed_index: u32,
    /// Time on the CPU.
    pub ns: u64,
    /// Part of it that the sibling was busy as well.
    pub shared_ns: u64,
    /// Fills the cache line.
    pub reserved: [u64; 2],
}

/// Key of a spilled usage record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UsageKey {
    /// cgroup v2 id.
    pub cgroup_id: u64,
    /// Start of the group leader, CLOCK_BOOTTIME.
    pub start_ns: u64,
    /// Thread group id.
    pub tgid: u32,
    /// CPU.
    pub cpu: u32,
}

/// A spilled usage record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Time on the CPU.
    pub ns: u64,
    /// Part of it that the sibling was busy as well.
    pub shared_ns: u64,
    /// What its events counted.
    pub counts: Counts,
}

/// What the events of one CPU counted in one interval.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountsBuffer {
    /// Readings with which the interval began.
    pub first: Counts,
    /// Readings with which it ended.
    pub last: Counts,
    /// What was counted while the CPU was idle.
    pub idle: Counts,
    /// What was counted for tasks whose record found no room, or while an event could not be read.
    pub lost: Counts,
    /// Readings that failed, or that came after one that did.
    pub failed: u64,
    /// Fills the cache line.
    pub reserved: [u64; 7],
}

/// What the events of one CPU counted. Only that CPU writes it.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuCounts {
    /// The newest readings.
    pub newest: Counts,
    /// One bit for each event of which the newest reading failed, or that was not read yet.
    pub stale: u64,
    /// Fills the cache line.
    pub reserved: [u64; 3],
    /// The two buffers, as in [`CpuState`].
    pub buffers: [CountsBuffer; 2],
}

/// Key of [`ProcessRecord`]s: a pid that is used again is another process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    /// Start of the group leader, CLOCK_BOOTTIME.
    pub start_ns: u64,
    /// Thread group id.
    pub tgid: u32,
    /// Always 0.
    pub padding: u32,
}

/// Who a process is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessRecord {
    /// Start of the process that forked it (of the one that adopted it, if it is older than the trace); 0 if unknown.
    pub parent_start_ns: u64,
    /// CLOCK_MONOTONIC time of its last thread's exit; 0 while it lives.
    pub exit_ns: u64,
    /// Thread group id of the process that forked it; 0 if unknown.
    pub parent_tgid: u32,
    /// Real user id.
    pub uid: u32,
    /// Bits: [`ProcessRecord::LISTED`].
    pub flags: u32,
    /// Always 0.
    pub padding: u32,
    /// Name of the process (its leader's, not a thread's), zero-terminated.
    pub comm: [u8; COMM_BYTES],
    /// Name at its last `exec`, inherited over `fork`, zero-terminated.
    pub exec_comm: [u8; COMM_BYTES],
}

impl ProcessRecord {
    /// Its last `exec` was before the trace, so that `exec_comm` is only the name that it had when it was listed
    /// (inherited over `fork`, cleared by `exec`).
    pub const LISTED: u32 = 1;
}

/// A cgroup that was created while tracing.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CgroupRecord {
    /// Length of `path` with its terminating zero, as the kernel copied it.
    pub path_bytes: u64,
    /// Path from the root of the cgroup v2 tree.
    pub path: [u8; CGROUP_PATH_BYTES],
}

impl Default for CgroupRecord {
    fn default() -> Self {
        Self {
            path_bytes: 0,
            path: [0; CGROUP_PATH_BYTES],
        }
    }
}

const _: () = assert!(size_of::<Offsets>() == 64);
const _: () = assert!(size_of::<CpuBuffer>() == 64);
const _: () = assert!(size_of::<CpuState>() == 192);
const _: () = assert!(size_of::<Slot>() == 64);
const _: () = assert!(size_of::<UsageKey>() == 24);
const _: () = assert!(size_of::<Usage>() == 48);
const _: () = assert!(size_of::<CountsBuffer>() == 192);
const _: () = assert!(size_of::<CpuCounts>() == 448);
const _: () = assert!(size_of::<ProcessKey>() == 16);
const _: () = assert!(size_of::<ProcessRecord>() == 64);
const _: () = assert!(size_of::<CgroupRecord>() == 512);

#[cfg(feature = "user")]
mod pod {
    macro_rules! pod {
        ($($record:ty),* $(,)?) => {
            $(
                // SAFETY: repr(C), integers and integer arrays only, and the assertions above rule out hidden padding.
                unsafe impl aya::Pod for $record {}
            )*
        };
    }

    pod!(
        crate::CpuState,
        crate::Slot,
        crate::UsageKey,
        crate::Usage,
        crate::ProcessKey,
        crate::ProcessRecord,
        crate::CgroupRecord,
        crate::Offsets,
    );
}
