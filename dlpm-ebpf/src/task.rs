//! Fields of the kernel's structures, at offsets that the loader took from the running kernel's BTF.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel};

use crate::maps::offset;

/// Address of a `task_struct`.
pub type TaskAddress = u64;

/// What a slice is charged to.
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

impl Charged {
    /// Of a BTF tracepoint's `task_struct` argument.
    ///
    /// A thread's leader can be gone before the thread's last switch (both have exited, the leader was reaped): the
    /// start time is then whatever stands there. That costs a name, never time.
    #[inline(always)]
    pub fn from_btf(task: TaskAddress) -> Self {
        let leader: u64 = load(task, offset!(task_group_leader));
        Self {
            tgid: load(task, offset!(task_tgid)),
            start_ns: load(leader, offset!(task_start_boottime)),
        }
    }

    /// Of the running task.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: no arguments; always the running task.
        Self::from_address(unsafe { bpf_get_current_task() }).unwrap_or(Self { tgid: 0, start_ns: 0 })
    }

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

/// Whether the task leads its thread group, so that it stands for the process.
#[inline(always)]
pub fn is_leader(task: TaskAddress) -> Option<bool> {
    Some(read::<u32>(task, offset!(task_pid))? == read::<u32>(task, offset!(task_tgid))?)
}
