//! What `cargo xtask bench overhead` measures dlpm against, in the same run: programs at `sched_switch` that do nothing,
//! or only what cannot be done without. No part of dlpm.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the attribute macros write functions without any")]

use aya_ebpf::{
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::{btf_tracepoint, map},
    maps::Array,
    programs::BtfTracePointContext,
};

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

/// A reachable panic would be a loop, which the verifier rejects: so there is none.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
