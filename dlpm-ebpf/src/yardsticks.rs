//! What `cargo xtask bench` measures dlpm against, in the same run. No part of dlpm.
//!
//! For `overhead`: programs at `sched_switch` that do nothing, or only what cannot be done without. For `accuracy`: the
//! kernel's own account of CPU time, at the moment when it is made, and a second count of what dlpm counts.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the attribute macros write functions without any")]

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns,
        bpf_probe_read_kernel,
    },
    macros::{btf_tracepoint, map, raw_tracepoint},
    maps::{Array, PerCpuHashMap},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use dlpm_common::yardsticks::{KernelAccount, KernelAccountOffsets};

/// A cache line for each CPU.
#[repr(C, align(64))]
struct Line([u64; 8]);

#[map]
static LINES: Array<Line> = Array::with_max_entries(1, 0);

/// What the kernel's own counting costs.
#[btf_tracepoint(function = "sched_switch")]
pub fn empty(_context: BtfTracePointContext) -> i32 {
    0
}

/// Without a clock there is no time to account.
#[btf_tracepoint(function = "sched_switch")]
pub fn clock(_context: BtfTracePointContext) -> i32 {
    // SAFETY: no arguments.
    let (cpu, now) = unsafe { (bpf_get_smp_processor_id(), bpf_ktime_get_ns()) };
    store(cpu, now);
    0
}

/// The helper calls that tell when, where, who and in which cgroup.
#[btf_tracepoint(function = "sched_switch")]
pub fn floor(_context: BtfTracePointContext) -> i32 {
    // SAFETY: no arguments.
    let (cpu, now, cgroup_id) = unsafe {
        (
            bpf_get_smp_processor_id(),
            bpf_ktime_get_ns(),
            bpf_get_current_cgroup_id(),
        )
    };
    store(cpu, now ^ bpf_get_current_pid_tgid() ^ cgroup_id);
    0
}

#[inline(always)]
fn store(cpu: u32, value: u64) {
    if let Some(line) = LINES.get_ptr_mut(cpu) {
        // SAFETY: this CPU's line; nothing else of this program runs there meanwhile.
        unsafe { (&raw mut (*line).0[0]).write_volatile(value) };
    }
}

/// What the kernel accounts to each of the cgroups (by id) that user space has put here.
#[map]
static ACCOUNTS: PerCpuHashMap<u64, KernelAccount> = PerCpuHashMap::with_max_entries(64, 0);

#[unsafe(no_mangle)]
static ACCOUNT_OFFSETS: Global<KernelAccountOffsets> = Global::new(KernelAccountOffsets {
    task_pid: 0,
    task_cpu: 0,
    task_cgroups: 0,
    css_set_dfl_cgrp: 0,
    cgroup_kn: 0,
    kernfs_node_id: 0,
});

/// `sched_stat_runtime(task, runtime)`: the kernel has added `runtime` to the account of a task, under the lock of the
/// task's CPU. Often that is this CPU, but one that wakes a task up brings the account of another CPU up to date.
#[raw_tracepoint(tracepoint = "sched_stat_runtime")]
pub fn account(context: RawTracePointContext) -> i32 {
    let _ = add_to_account(context.arg(0), context.arg(1));
    0
}

#[inline(always)]
fn add_to_account(task: u64, runtime_ns: u64) -> Option<()> {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let offsets = ACCOUNT_OFFSETS.load();
    let cpu: u32 = read(task, offsets.task_cpu)?;
    let line = LINES.get_ptr_mut(cpu)?;
    // SAFETY: the lock of that CPU's queue is held here, and at its switches.
    let elapsed_ns = unsafe {
        let since = &raw mut (*line).0[1];
        let elapsed_ns = now.saturating_sub(since.read_volatile());
        since.write_volatile(now);
        elapsed_ns
    };
    let account = account_of(task, &offsets)?;
    // SAFETY: this CPU's value; the tracepoint does not nest on a CPU.
    unsafe {
        (*account).runtime_ns += runtime_ns;
        (*account).elapsed_ns += elapsed_ns;
    }
    Some(())
}

/// `sched_switch(preempt, prev, next)`: ends the slice of the outgoing task. The idle task has no account in the kernel, so
/// a slice after it begins here for the kernel's account as well.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn account_switch(context: RawTracePointContext) -> i32 {
    let _ = add_slice(context.arg(1));
    0
}

#[inline(always)]
fn add_slice(outgoing: u64) -> Option<()> {
    let offsets = ACCOUNT_OFFSETS.load();
    // SAFETY: no arguments.
    let (cpu, now) = unsafe { (bpf_get_smp_processor_id(), bpf_ktime_get_ns()) };
    let line = LINES.get_ptr_mut(cpu)?;
    // SAFETY: the lock of this CPU's queue is held here, and wherever another CPU writes the line.
    let since_ns = unsafe {
        let switched = &raw mut (*line).0[2];
        let since_ns = switched.read_volatile();
        switched.write_volatile(now);
        since_ns
    };
    if read::<u32>(outgoing, offsets.task_pid)? == 0 {
        // SAFETY: as above.
        unsafe { (&raw mut (*line).0[1]).write_volatile(now) };
        return Some(());
    }
    // The first switch that is seen on a CPU ends a slice whose begin was not.
    if since_ns != 0 {
        let account = account_of(outgoing, &offsets)?;
        // SAFETY: this CPU's value; the tracepoint does not nest on a CPU.
        unsafe { (*account).switched_ns += now - since_ns };
    }
    Some(())
}

/// This CPU's account of the cgroup that the task is in, if that is one of those that are followed.
#[inline(always)]
fn account_of(task: u64, offsets: &KernelAccountOffsets) -> Option<*mut KernelAccount> {
    let cgroups: u64 = read(task, offsets.task_cgroups)?;
    let cgroup: u64 = read(cgroups, offsets.css_set_dfl_cgrp)?;
    let node: u64 = read(cgroup, offsets.cgroup_kn)?;
    let id: u64 = read(node, offsets.kernfs_node_id)?;
    ACCOUNTS.get_ptr_mut(id)
}

#[inline(always)]
fn read<T>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address; a bad one is an error, not a fault.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// A reachable panic would be a loop, which the verifier rejects: so there is none.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
