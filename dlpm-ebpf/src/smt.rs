//! For how long both hardware threads of a core were busy, without a lock.
//!
//! Each CPU publishes one word from which its busy time up to any `t` can be told. The other thread reads it when a
//! slice ends: what was added since is the overlap with that slice. All arithmetic is modulo 2^63.

use dlpm_common::CpuState;

use crate::maps::CPUS;

const MASK: u64 = u64::MAX >> 1;

/// Busy time up to `now` that a word tells.
#[inline(always)]
fn busy_at(word: u64, now: u64) -> u64 {
    if word & 1 == 1 {
        (word >> 1).wrapping_add(now) & MASK
    } else {
        word >> 1
    }
}

/// Signed difference of two values modulo 2^63.
#[inline(always)]
fn difference(later: u64, earlier: u64) -> i64 {
    (later.wrapping_sub(earlier) << 1).cast_signed() >> 1
}

#[inline(always)]
fn sibling_busy_at(state: &CpuState, now: u64) -> Option<u64> {
    let sibling = CPUS.get_ptr(state.sibling)?;
    // SAFETY: one aligned load of a word that the sibling stores in one piece.
    Some(busy_at(
        unsafe { (&raw const (*sibling).busy_word).read_volatile() },
        now,
    ))
}

#[inline(always)]
fn publish(state: &mut CpuState, now: u64, is_idle: bool) {
    let busy = busy_at(state.busy_word, now);
    let word = if is_idle {
        busy << 1
    } else {
        (busy.wrapping_sub(now) << 1) | 1
    };
    // SAFETY: one aligned store, so that the sibling never sees half of it.
    unsafe { (&raw mut state.busy_word).write_volatile(word) };
}

/// Begins without a past: what the sibling did before belongs to no slice of this CPU.
#[inline(always)]
pub fn resume(state: &mut CpuState, now: u64, next_is_idle: bool) {
    state.sibling_seen = sibling_busy_at(state, now).unwrap_or(0);
    publish(state, now, next_is_idle);
}

/// What of the sibling's busy time falls into `ns` of idle up to `at` is nobody's overlap. Its word may have changed since
/// `at`; what is then left fits into the idle slice that goes on there, whose overlap is nobody's either.
#[inline(always)]
pub fn forget(state: &mut CpuState, at: u64, ns: u64) {
    let Some(busy) = sibling_busy_at(state, at) else { return };
    let added = difference(busy, state.sibling_seen).max(0).cast_unsigned();
    state.sibling_seen = state.sibling_seen.wrapping_add(added.min(ns)) & MASK;
}

/// Overlap of the slice of `ns` that ends now, and whether it had to be clamped. The two CPUs read the clock at
/// slightly different times; what does not fit into this slice is left for the next.
#[inline(always)]
pub fn overlap(state: &mut CpuState, now: u64, ns: u64, next_is_idle: bool) -> (u64, bool) {
    if state.sibling == u32::MAX {
        return (0, false);
    }
    let Some(busy) = sibling_busy_at(state, now) else {
        return (0, false);
    };
    let added = difference(busy, state.sibling_seen);
    let shared_ns = added.max(0).cast_unsigned().min(ns);
    state.sibling_seen = state.sibling_seen.wrapping_add(shared_ns) & MASK;
    publish(state, now, next_is_idle);
    (shared_ns, added != shared_ns.cast_signed())
}
