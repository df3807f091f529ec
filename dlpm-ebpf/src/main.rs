//! The eBPF programs of dlpm: exact CPU time per process, in intervals that are sealed on each CPU.
//!
//! `switch` is the hot path, `smt` its part for cores with two hardware threads; `processes` and `cgroups` are the
//! cold path. No offset of a kernel structure is compiled in: see `maps::offset`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(missing_docs, reason = "the attribute macros write functions without any")]

mod cgroups;
mod counts;
mod maps;
mod pace;
mod processes;
mod smt;
mod switch;
mod task;

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::task::{Argument, Current, OfOne, Ran, TaskAddress};

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

/// See [`OfOne`]. Programs of their own, so that the real ones pay nothing for it.
#[btf_tracepoint(function = "sched_switch")]
pub fn on_switch_of_one(context: BtfTracePointContext) -> i32 {
    let (outgoing, incoming): (TaskAddress, TaskAddress) = (context.arg(1), context.arg(2));
    switch::switch(OfOne(Argument(outgoing)), |_| OfOne(Argument(incoming)).tgid() == 0);
    0
}

/// Goes with [`on_switch_of_one`].
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn seal_of_one(context: RawTracePointContext) -> i32 {
    switch::seal(OfOne(Current::new()), context.arg(0));
    0
}

/// Not at `sched_process_fork`: here the run queue is locked and interrupts are off, so that no run is left out, see
/// `again` below.
#[raw_tracepoint(tracepoint = "sched_wakeup_new")]
pub fn on_fork(context: RawTracePointContext) -> i32 {
    let _ = processes::fork(&context);
    0
}

/// From Linux 7.0 on, a program at a tracepoint can be preempted, and until it goes on the kernel leaves out all other runs
/// of it on that CPU. So programs that can be preempted are attached three times: an event is missed only where one
/// run of each of them stands still on the same CPU. All write the same.
macro_rules! again {
    ($tracepoint:literal, $run:path, $($name:ident),+) => {$(
        #[raw_tracepoint(tracepoint = $tracepoint)]
        pub fn $name(context: RawTracePointContext) -> i32 {
            let _ = $run(&context);
            0
        }
    )+};
}

again!("sched_process_exec", processes::exec, on_exec, on_exec_2, on_exec_3);
again!("task_rename", processes::rename, on_rename, on_rename_2, on_rename_3);
again!("sched_process_exit", processes::exit, on_exit, on_exit_2, on_exit_3);

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
