//! The hot path: charge the slice that ends, and seal.
//!
//! A context switch happens with interrupts off and `seal` runs in an interrupt or with preemption off, so nothing
//! else of these programs runs on the CPU meanwhile: plain loads and stores are enough.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_task, bpf_get_smp_processor_id, bpf_ktime_get_ns},
};
use dlpm_common::{CpuBuffer, CpuState, Slot, Usage, UsageKey};

use crate::{
    counts::{self, Since},
    maps::{CPUS, SLOTS, SLOTS_LOG2, SMT, SPILL_0, SPILL_1},
    pace, smt,
    task::{Charged, Ran},
};

/// `sched_switch`: `outgoing` leaves the CPU, and the next task is idle or not.
///
/// The clock comes first (but for a turn, which has to come before it): a call costs what is in registers.
#[inline(always)]
pub fn switch(outgoing: impl Ran, next_is_idle: impl FnOnce(&mut CpuState) -> bool) {
    let Some((cpu, state)) = this_cpu() else { return };
    if pace::is_gentle() {
        pace::leave_idle(cpu, state);
    }
    let now = clock(state);
    let next_is_idle = (SMT.load() != 0 || pace::is_gentle()) && next_is_idle(state);
    resume(cpu, state, now, next_is_idle);
    buffer(state).switches += 1;
    charge(cpu, state, now, outgoing, next_is_idle);
    if pace::is_gentle() && next_is_idle {
        pace::enter_idle(state);
    }
}

/// Ends the interval of this CPU and begins interval `target`; does nothing when that has been done.
#[inline(always)]
pub fn seal(running: impl Ran, target: u64) {
    let Some((cpu, state)) = this_cpu() else { return };
    let is_idle = running.tgid() == 0;
    if pace::is_gentle() {
        pace::settle_turn(cpu, state, target);
    }
    let now = clock(state);
    resume(cpu, state, now, is_idle);
    if state.parity != (target & 1) as u32 {
        charge(cpu, state, now, running, is_idle);
        buffer(state).end_ns = now;
        end_counts(cpu, state);
        begin(cpu, state, target, now);
    }
    if pace::is_gentle() {
        pace::settle_epoch(state, is_idle);
    }
}

/// Address of this CPU's idle task, for kernels where a task's fields cannot be read: known once it has gone out.
#[inline(always)]
pub fn learn_idle(state: &mut CpuState, outgoing: impl Ran) -> u64 {
    if state.idle_task == 0 && outgoing.tgid() == 0 {
        // SAFETY: no arguments.
        state.idle_task = unsafe { bpf_get_current_task() };
    }
    state.idle_task
}

#[inline(always)]
fn this_cpu() -> Option<(u32, &'static mut CpuState)> {
    // SAFETY: no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    // SAFETY: only this CPU writes its state, and these programs do not nest on a CPU.
    Some((cpu, unsafe { &mut *CPUS.get_ptr_mut(cpu)? }))
}

/// The time, never before the CPU's last event: the clock may stand behind it by a little.
#[inline(always)]
fn clock(state: &mut CpuState) -> u64 {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if now < state.since_ns {
        buffer(state).clock_steps += 1;
        return state.since_ns;
    }
    now
}

/// The buffer of the open interval.
#[inline(always)]
pub fn buffer(state: &mut CpuState) -> &mut CpuBuffer {
    let first = (&raw mut state.buffers).cast::<CpuBuffer>();
    // SAFETY: one bit selects one of two elements.
    unsafe { &mut *first.add((state.parity & 1) as usize) }
}

/// Turns to the buffer of interval `sequence`. User space has cleared its slots.
#[inline(always)]
pub fn begin(cpu: u32, state: &mut CpuState, sequence: u64, now: u64) {
    state.parity = (sequence & 1) as u32;
    let buffer = buffer(state);
    buffer.begin_ns = now;
    // SAFETY: fields of a valid buffer; volatile, or they become a call of a loop over bytes.
    unsafe {
        (&raw mut buffer.idle_ns).write_volatile(0);
        (&raw mut buffer.lost_ns).write_volatile(0);
        (&raw mut buffer.switches).write_volatile(0);
        (&raw mut buffer.claimed).write_volatile(0);
        (&raw mut buffer.spilled).write_volatile(0);
        (&raw mut buffer.clock_steps).write_volatile(0);
        (&raw mut buffer.overlap_clamps).write_volatile(0);
    }
    if counts::are_on()
        && let Some(counts) = counts::of_cpu(cpu)
    {
        counts::begin(counts, state.parity);
    }
}

/// The counts of the open interval end at their newest readings.
#[inline(always)]
pub fn end_counts(cpu: u32, state: &CpuState) {
    if counts::are_on()
        && let Some(counts) = counts::of_cpu(cpu)
    {
        counts::end(counts, state.parity);
    }
}

/// First event of all, or first event after user space closed the interval of an offline CPU: nothing to charge.
#[inline(always)]
fn resume(cpu: u32, state: &mut CpuState, now: u64, next_is_idle: bool) {
    // SAFETY: user space writes the word while this CPU is offline, so the compiler must not keep a copy.
    let gap = unsafe { (&raw const state.gap).read_volatile() };
    if gap == 0 && state.since_ns != 0 {
        return;
    }
    end_counts(cpu, state);
    if counts::are_on()
        && let Some(counts) = counts::of_cpu(cpu)
    {
        if gap == 0 {
            counts::start(counts);
        } else {
            counts::doubt(counts);
        }
    }
    if gap != 0 {
        // The interval ends where its last charged slice ends. User space reads it while `gap` is set from
        // `since_ns`, and from here afterwards: `since_ns` changes last.
        let since_ns = state.since_ns;
        buffer(state).end_ns = since_ns;
        begin(cpu, state, gap, now);
        // What user space thought of the CPU before it found it offline is void.
        // SAFETY: as above.
        unsafe { (&raw mut state.turn).write_volatile(0) };
        // SAFETY: as above.
        unsafe { (&raw mut state.gap).write_volatile(0) };
    } else {
        begin(cpu, state, u64::from(state.parity), now);
    }
    // SAFETY: the store stays behind the one to `gap`.
    unsafe { (&raw mut state.since_ns).write_volatile(now) };
    if SMT.load() != 0 {
        smt::resume(state, now, next_is_idle);
    }
}

/// Charges the time since the CPU's last event to the task that ran.
#[inline(always)]
fn charge(cpu: u32, state: &mut CpuState, now: u64, ran: impl Ran, next_is_idle: bool) {
    let mut since = Since::nothing_yet();
    if counts::are_on() {
        counts::read(&mut since);
    }
    let ns = now - state.since_ns;
    state.since_ns = now;
    let mut shared_ns = 0;
    if SMT.load() != 0 {
        let (overlap, clamped) = smt::overlap(state, now, ns, next_is_idle);
        shared_ns = overlap;
        buffer(state).overlap_clamps += u64::from(clamped);
    }
    let parity = state.parity & 1;
    if counts::are_on() {
        let Some(counts) = counts::of_cpu(cpu) else { return };
        counts::take(counts, parity, &mut since);
    }
    let buffer = buffer(state);
    let tgid = ran.tgid();
    if tgid == 0 {
        buffer.idle_ns += ns;
        if counts::are_on()
            && let Some(counts) = counts::of_cpu(cpu)
        {
            counts::add(&mut counts::buffer(counts, parity).idle, &since);
        }
        return;
    }
    let (ran, cgroup_id) = (
        Charged {
            tgid,
            start_ns: ran.start_ns(),
        },
        ran.cgroup_id(),
    );
    let log2 = SLOTS_LOG2.load() & 31;
    let hash = hash(cgroup_id, ran);
    let first = ((cpu << 1) | parity) << log2;
    // Both probes are masked: a table of one slot has no neighbour, and the next table belongs to somebody else.
    let mask = (1 << log2) - 1;
    let slice = Slice {
        ns,
        shared_ns,
        since: &since,
    };
    if add_to_slot(buffer, first, hash & mask, cgroup_id, ran, &slice)
        || add_to_slot(buffer, first, (hash ^ 1) & mask, cgroup_id, ran, &slice)
    {
        return;
    }
    let key = UsageKey {
        cgroup_id,
        start_ns: ran.start_ns,
        tgid: ran.tgid,
        cpu,
    };
    let spill = if parity == 0 { &SPILL_0 } else { &SPILL_1 };
    if let Some(usage) = spill.get_ptr_mut(key) {
        // SAFETY: the key holds the CPU, so nobody else writes this record; user space drains sealed buffers only.
        unsafe {
            (*usage).ns += ns;
            (*usage).shared_ns += shared_ns;
            counts::add(&mut (*usage).counts, &since);
        }
    } else if spill
        .insert(
            key,
            Usage {
                ns,
                shared_ns,
                counts: since.counts(),
            },
            u64::from(BPF_NOEXIST),
        )
        .is_ok()
    {
        buffer.spilled += 1;
    } else {
        // Full, or the bucket is locked: the time is kept all the same, only its owner is not.
        buffer.lost_ns += ns;
        if counts::are_on()
            && let Some(counts) = counts::of_cpu(cpu)
        {
            counts::add(&mut counts::buffer(counts, parity).lost, &since);
        }
    }
}

/// What is charged.
struct Slice<'a> {
    ns: u64,
    shared_ns: u64,
    since: &'a Since,
}

/// Spreads the neighbours in pid and time that a storm of short processes brings.
#[inline(always)]
fn hash(cgroup_id: u64, ran: Charged) -> u32 {
    let mixed = (u64::from(ran.tgid) ^ ran.start_ns.rotate_left(32) ^ cgroup_id.rotate_left(16))
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as u32
}

/// Adds to the slot if it is this task's or free.
#[inline(always)]
fn add_to_slot(buffer: &mut CpuBuffer, first: u32, index: u32, cgroup_id: u64, ran: Charged, slice: &Slice) -> bool {
    let Some(slot) = SLOTS.get_ptr_mut(first + index) else {
        return false;
    };
    // SAFETY: this CPU's table; user space reads and clears sealed tables only.
    let slot: &mut Slot = unsafe { &mut *slot };
    if slot.tgid == ran.tgid && slot.start_ns == ran.start_ns && slot.cgroup_id == cgroup_id {
        slot.ns += slice.ns;
        slot.shared_ns += slice.shared_ns;
        counts::add_to_slot(first + index, slice.since, false);
        return true;
    }
    if slot.tgid != 0 {
        return false;
    }
    let Some(listed) = SLOTS.get_ptr_mut(first + buffer.claimed) else {
        return false;
    };
    // SAFETY: as above. Each claim takes another slot, so `claimed` stays below the size of the table.
    unsafe { (*listed).claimed_index = index };
    buffer.claimed += 1;
    slot.cgroup_id = cgroup_id;
    slot.start_ns = ran.start_ns;
    slot.tgid = ran.tgid;
    slot.ns = slice.ns;
    slot.shared_ns = slice.shared_ns;
    counts::add_to_slot(first + index, slice.since, true);
    true
}
