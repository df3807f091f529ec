//! The eBPF programs of dlpm: exact CPU time per process, in intervals that are sealed on each CPU.
//!
//! `switch` is the hot path, `smt` its part for cores with two hardware threads; `processes` and `cgroups` are the
//! cold path. No offset of a kernel structure is compiled in: see `maps::offset`.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the attribute macros write functions without any")]

mod cgroups;
mod maps;
mod processes;
mod smt;
mod switch;
mod task;

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::task::{Argument, Current, TaskAddress};

/// `sched_switch(preempt, prev, next)`, arguments 0 to 2 of every kernel since 4.17:
/// <https://github.com/torvalds/linux/blob/v6.18/include/trace/events/sched.h#L220>
#[btf_tracepoint(function = "sched_switch")]
pub fn on_switch(context: BtfTracePointContext) -> i32 {
    let (outgoing, incoming): (TaskAddress, TaskAddress) = (context.arg(1), context.arg(2));
    switch::switch(Argument(outgoing), |_| task::is_idle(incoming));
    0
}

/// `BPF_PROG_TEST_RUN` runs it on a given CPU; its first argument is the number of the interval that begins.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn seal(context: RawTracePointContext) -> i32 {
    switch::seal(Current::new(), context.arg(0));
    0
}

/// For kernels without BTF, or where kernel memory may not be read.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn on_switch_by_tgid(context: RawTracePointContext) -> i32 {
    let incoming: TaskAddress = context.arg(2);
    let outgoing = Current::by_tgid(context.tgid());
    switch::switch(outgoing, |state| switch::learn_idle(state, outgoing) == incoming);
    0
}

/// Goes with [`on_switch_by_tgid`].
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn seal_by_tgid(context: RawTracePointContext) -> i32 {
    switch::seal(Current::by_tgid(context.tgid()), context.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn on_fork(context: RawTracePointContext) -> i32 {
    let _ = processes::fork(&context);
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn on_exec(_context: RawTracePointContext) -> i32 {
    let _ = processes::exec();
    0
}

#[raw_tracepoint(tracepoint = "task_rename")]
pub fn on_rename(context: RawTracePointContext) -> i32 {
    let _ = processes::rename(&context);
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn on_exit(context: RawTracePointContext) -> i32 {
    let _ = processes::exit(&context);
    0
}

/// Task iterator. Its context is `struct bpf_iter__task { meta, task }`; the task is null at the end:
/// <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/task_iter.c>
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
#[expect(
    clippy::not_unsafe_ptr_arg_deref,
    reason = "only the kernel calls it, with its context"
)]
pub fn list_tasks(context: *const TaskAddress) -> i32 {
    // SAFETY: the kernel passes a context of two words.
    let task = unsafe { context.add(1).read_volatile() };
    if task != 0 {
        let _ = processes::list(task);
    }
    0
}

#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn on_cgroup_mkdir(context: RawTracePointContext) -> i32 {
    let _ = cgroups::mkdir(&context);
    0
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
