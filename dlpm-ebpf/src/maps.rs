//! The maps and the globals. Sizes here are placeholders where the loader sets the real ones.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, PerfEventArray, RingBuf},
};
use dlpm_common::{
    COUNTERS as COUNTER_COUNT, CgroupRecord, Counter, Counts, CpuCounts, CpuState, Offsets, ProcessKey, ProcessRecord,
    Slot, Usage, UsageKey,
};

#[map]
pub static CPUS: Array<CpuState> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static SLOTS: Array<Slot> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static SPILL_0: HashMap<UsageKey, Usage> = HashMap::with_max_entries(1, 0);
#[map]
pub static SPILL_1: HashMap<UsageKey, Usage> = HashMap::with_max_entries(1, 0);
#[map]
pub static PROCESSES: HashMap<ProcessKey, ProcessRecord> = HashMap::with_max_entries(1, 0);
/// Room for the exits of 43,000 processes in an interval; where more change, user space looks at all that ran.
#[map]
pub static CHANGES: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
#[map]
pub static CGROUPS: HashMap<u64, CgroupRecord> = HashMap::with_max_entries(1, 0);
/// One page: where it is full, user space has been woken and has not looked yet.
#[map]
pub static CGROUP_NEWS: RingBuf = RingBuf::with_byte_size(4096, 0);
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_COUNT, 0);
#[map]
pub static EVENT_0: PerfEventArray<u64> = PerfEventArray::new(0);
#[map]
pub static EVENT_1: PerfEventArray<u64> = PerfEventArray::new(0);
#[map]
pub static EVENT_2: PerfEventArray<u64> = PerfEventArray::new(0);
#[map]
pub static EVENT_3: PerfEventArray<u64> = PerfEventArray::new(0);
#[map]
pub static COUNTS: Array<CpuCounts> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static SLOT_COUNTS: Array<Counts> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[unsafe(no_mangle)]
pub static SLOTS_LOG2: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static SMT: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static PACE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static ONLY: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static EVENTS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static OFFSETS: Global<Offsets> = Global::new(Offsets {
    task_pid: 0,
    task_tgid: 0,
    task_comm: 0,
    task_group_leader: 0,
    task_start_boottime: 0,
    task_real_parent: 0,
    task_cred: 0,
    cred_uid: 0,
    task_signal: 0,
    signal_live: 0,
    cgroup_kn: 0,
    cgroup_root: 0,
    kernfs_node_id: 0,
    cgroup_root_hierarchy_id: 0,
    task_cgroups: 0,
    css_set_dfl_cgrp: 0,
});

/// Loads one offset. Only that field is read: a copy of the whole struct would be a loop of loads on the stack,
/// where the verifier no longer knows the value as a constant.
macro_rules! offset {
    ($field:ident) => {
        $crate::maps::offset_at(core::mem::offset_of!(dlpm_common::Offsets, $field))
    };
}
pub(crate) use offset;

/// The offset at `byte` of `OFFSETS`.
#[inline(always)]
pub fn offset_at(byte: usize) -> u64 {
    let base = (&raw const OFFSETS).cast::<u8>();
    // SAFETY: `offset!` passes the position of a u32 field; volatile, since the loader changes the value.
    u64::from(unsafe { base.add(byte).cast::<u32>().read_volatile() })
}

#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: this CPU's element. A program that is preempted right here can cost another one its count.
        unsafe { *value += 1 };
    }
}
