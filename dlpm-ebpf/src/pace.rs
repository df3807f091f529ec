//! The gentle pace: the interval of an idle CPU ends without an interrupt.
//!
//! User space *turns* a CPU that is idle: it writes into `turn` when the interval ended, and which buffer comes next. The
//! CPU takes the turn at its next event, before anything is charged, so that the time after the turn falls into the new
//! buffer. Two words decide who was first:
//!
//! ```text
//! the CPU, leaving idle           user space
//!   epoch becomes even              reads an odd epoch, the state, and the clock
//!   full barrier                    writes turn
//!   reads turn                      full barrier
//!   reads the clock                 reads epoch again
//! ```
//!
//! Not both can miss the other. If user space reads the same epoch again, the CPU is going to read the turn, and nothing
//! that user space read in between has changed. If it reads another one, the CPU was woken up in between, is interrupted
//! as any busy CPU is, and user space looks at what it did. The clock of the turn was read before the turn was
//! written, and the CPU reads its clock after the turn, so the turn never lies in the future; no margin is needed,
//! however long either of the two stands still between any two steps.
//!
//! The order of memory: on x86 stores become visible in their order, so that the store of an odd epoch, the last one of
//! the program, publishes all others; a locked addition is a full barrier. Elsewhere neither holds. An arm64 needs a
//! release on entering idle (`BPF_STORE_REL`, or an addition with `BPF_FETCH`, which its JIT makes an LDADDAL) and
//! a fully ordered addition on leaving it (with `BPF_FETCH`, since a plain one is an unordered STADD). Kernels before 5.12
//! refuse an object with such instructions, and arm64 has them from 5.18 on. So user space turns CPUs on x86-64 only.

use core::arch::asm;

use dlpm_common::{CpuState, pace};

use crate::{
    maps::{PACE, SMT},
    smt,
    switch::{begin, buffer, end_counts},
};

/// Whether idle CPUs may be turned. What is behind it is pruned at load where they may not.
#[inline(always)]
pub fn is_gentle() -> bool {
    PACE.load() != pace::INTERRUPT
}

/// The first thing that a program does in an event: if the CPU leaves idle, says so, and takes a turn.
#[inline(always)]
pub fn leave_idle(cpu: u32, state: &mut CpuState) {
    if state.epoch & 1 == 0 {
        return;
    }
    add_to_epoch(state);
    // SAFETY: user space writes the words too.
    let (turn, gap) = unsafe {
        (
            (&raw const state.turn).read_volatile(),
            (&raw const state.gap).read_volatile(),
        )
    };
    // A turn can come so late that the CPU was busy and idle again since its time: it is for the interrupt that follows.
    if turn == 0 || gap != 0 || turn >> 1 < state.since_ns {
        return;
    }
    take(cpu, state, turn);
}

/// The last thing that a program does in an event after which the CPU is idle: from here on it may be turned.
#[inline(always)]
pub fn enter_idle(state: &mut CpuState) {
    let epoch = state.epoch | 1;
    // SAFETY: an empty instruction, which keeps the compiler from moving stores behind it; and one aligned store.
    unsafe {
        asm!("");
        (&raw mut state.epoch).write_volatile(epoch);
    }
}

/// Before a seal that makes interval `target` the open one: a turn that user space wrote for this very border is void, and
/// one of the border before is taken.
#[inline(always)]
pub fn settle_turn(cpu: u32, state: &mut CpuState, target: u64) {
    // SAFETY: user space writes the words too, but waits for this program now.
    let (turn, gap) = unsafe {
        (
            (&raw const state.turn).read_volatile(),
            (&raw const state.gap).read_volatile(),
        )
    };
    if turn == 0 || gap != 0 {
        return;
    }
    if (turn ^ target) & 1 == 1 && turn >> 1 >= state.since_ns {
        take(cpu, state, turn);
    } else {
        clear(state);
    }
}

/// After a seal: the first one finds a CPU of which no program has seen yet what it does.
#[inline(always)]
pub fn settle_epoch(state: &mut CpuState, is_idle: bool) {
    if is_idle {
        enter_idle(state);
    } else if state.epoch & 1 == 1 {
        add_to_epoch(state);
    }
}

/// Ends the open interval at the time of the turn. Only an idle CPU is turned, so the time before it was idle.
///
/// No program read the events at that time. Their interval ends where the CPU became idle, and what idle tasks count after
/// that belongs to the interval in which the CPU leaves idle.
#[inline(always)]
fn take(cpu: u32, state: &mut CpuState, turn: u64) {
    clear(state);
    let at = turn >> 1;
    let idle_ns = at - state.since_ns;
    let ended = buffer(state);
    ended.end_ns = at;
    ended.idle_ns += idle_ns;
    if SMT.load() != 0 {
        smt::forget(state, at, idle_ns);
    }
    end_counts(cpu, state);
    begin(cpu, state, turn, at);
    state.since_ns = at;
}

#[inline(always)]
fn clear(state: &mut CpuState) {
    // SAFETY: one aligned store; if it hides a turn that user space has just written, the epoch has changed before, and
    // user space is going to interrupt this CPU.
    unsafe { (&raw mut state.turn).write_volatile(0) };
}

/// A full barrier, but for the test of it.
#[inline(always)]
fn add_to_epoch(state: &mut CpuState) {
    let epoch = &raw mut state.epoch;
    if PACE.load() == pace::WITHOUT_BARRIER {
        // SAFETY: only this CPU writes it.
        unsafe { epoch.write_volatile(epoch.read_volatile() + 1) };
        return;
    }
    // SAFETY: an aligned word of this CPU's state. No fetch: kernels before 5.12 refuse it.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) epoch, in(reg) 1_u64) };
}
