//! Fields of the kernel's structures, at offsets that the loader took from the running kernel's BTF.

use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_get_current_task, bpf_probe_read_kernel};

use crate::maps::{ONLY, offset};

/// Address of a `task_struct`.
pub type TaskAddress = u64;

/// A process.
#[derive(Clone, Copy)]
pub struct Charged {
    pub tgid: u32,
    pub start_ns: u64,
}

/// Reads a field through the helper: for programs that get bare addresses.
#[inline(always)]
pub fn read<T>(base: u64, offset: u64) -> Option<T> {
    // SAFETY: the helper checks the address; a bad one is an error, not a fault.
    unsafe { bpf_probe_read_kernel((base + offset) as *const T) }.ok()
}

/// Loads a field directly: only for arguments of BTF tracepoints, whose type the verifier knows.
#[inline(always)]
fn load<T>(base: u64, offset: u64) -> T {
    // SAFETY: the verifier proves that the field lies in the structure; a stale pointer reads as 0 (exception table).
    unsafe { ((base + offset) as *const T).read_volatile() }
}

/// Whose slice ends. Asked piece by piece: of an idle task only the first is of interest.
pub trait Ran: Copy {
    /// Thread group id, 0 for an idle task.
    fn tgid(self) -> u32;
    /// Start of the group leader; 0 where the kernel does not tell.
    fn start_ns(self) -> u64;
    /// cgroup v2 id.
    fn cgroup_id(self) -> u64;
}

/// The `task_struct` argument of a BTF tracepoint, whose fields are loaded directly: each helper call costs more than
/// all these loads together.
#[derive(Clone, Copy)]
pub struct Argument(pub TaskAddress);

impl Ran for Argument {
    #[inline(always)]
    fn tgid(self) -> u32 {
        load(self.0, offset!(task_tgid))
    }

    /// A thread's leader can be gone before the thread's last switch (both have exited, the leader was reaped): the
    /// start time is then whatever is there. That costs a name, never time.
    #[inline(always)]
    fn start_ns(self) -> u64 {
        let leader: u64 = load(self.0, offset!(task_group_leader));
        load(leader, offset!(task_start_boottime))
    }

    /// What the helper does, which is asked for the task that goes out:
    /// <https://github.com/torvalds/linux/blob/v6.18/include/linux/cgroup.h#L444>
    #[inline(always)]
    fn cgroup_id(self) -> u64 {
        if offset!(css_set_dfl_cgrp) == 0 {
            return current_cgroup_id();
        }
        let css_set: u64 = load(self.0, offset!(task_cgroups));
        let cgroup: u64 = load(css_set, offset!(css_set_dfl_cgrp));
        let node: u64 = load(cgroup, offset!(cgroup_kn));
        load(node, offset!(kernfs_node_id))
    }
}

/// The running task, through helpers: for programs that get bare addresses.
#[derive(Clone, Copy)]
pub struct Current(Charged);

impl Current {
    #[inline(always)]
    pub fn new() -> Self {
        // SAFETY: no arguments; always the running task.
        let task = unsafe { bpf_get_current_task() };
        Self(Charged::from_address(task).unwrap_or(Charged { tgid: 0, start_ns: 0 }))
    }

    /// Where the kernel tells no start times.
    #[inline(always)]
    pub fn by_tgid(tgid: u32) -> Self {
        Self(Charged { tgid, start_ns: 0 })
    }
}

impl Ran for Current {
    #[inline(always)]
    fn tgid(self) -> u32 {
        self.0.tgid
    }

    #[inline(always)]
    fn start_ns(self) -> u64 {
        self.0.start_ns
    }

    #[inline(always)]
    fn cgroup_id(self) -> u64 {
        current_cgroup_id()
    }
}

/// For tests: the tasks of all processes but one count as idle, so that a CPU becomes idle and leaves idle as a test wants
/// it, also on a busy machine.
#[derive(Clone, Copy)]
pub struct OfOne<R>(pub R);

impl<R: Ran> Ran for OfOne<R> {
    #[inline(always)]
    fn tgid(self) -> u32 {
        let tgid = self.0.tgid();
        if tgid == ONLY.load() { tgid } else { 0 }
    }

    #[inline(always)]
    fn start_ns(self) -> u64 {
        self.0.start_ns()
    }

    #[inline(always)]
    fn cgroup_id(self) -> u64 {
        self.0.cgroup_id()
    }
}

/// At `sched_switch`, `current` is still the task that goes out.
#[inline(always)]
fn current_cgroup_id() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_cgroup_id() }
}

impl Charged {
    /// Of any task, through the helper.
    #[inline(always)]
    pub fn from_address(task: TaskAddress) -> Option<Self> {
        let leader: u64 = read(task, offset!(task_group_leader))?;
        Some(Self {
            tgid: read(task, offset!(task_tgid))?,
            start_ns: read(leader, offset!(task_start_boottime))?,
        })
    }
}

/// Whether a BTF tracepoint's `task_struct` argument is an idle task.
#[inline(always)]
pub fn is_idle(task: TaskAddress) -> bool {
    load::<u32>(task, offset!(task_pid)) == 0
}

/// Whether the task leads its thread group, and so represents the process.
#[inline(always)]
pub fn is_leader(task: TaskAddress) -> Option<bool> {
    Some(read::<u32>(task, offset!(task_pid))? == read::<u32>(task, offset!(task_tgid))?)
}
