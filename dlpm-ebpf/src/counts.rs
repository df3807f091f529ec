//! What perf events count, read at the context switch together with the clock: each slice gets what was counted in it.
//!
//! On each CPU the counts of tasks, of idle time and what nobody has add up to the last reading less the first one of the
//! interval. All that is here is pruned at load where no event is counted.

use core::mem::MaybeUninit;

use aya_ebpf::{helpers::generated::bpf_perf_event_read, maps::PerfEventArray};
use dlpm_common::{Counts, CountsBuffer, CpuCounts, MAX_EVENTS};

use crate::maps::{COUNTS, EVENT_0, EVENT_1, EVENT_2, EVENT_3, EVENTS, SLOT_COUNTS};

/// `BPF_F_CURRENT_CPU`: the element of an event's array that belongs to this CPU.
const THIS_CPU: u64 = 0xffff_ffff;

/// Whether events are counted.
#[inline(always)]
pub fn are_on() -> bool {
    EVENTS.load() != 0
}

/// What was counted on this CPU.
#[inline(always)]
pub fn of_cpu(cpu: u32) -> Option<&'static mut CpuCounts> {
    // SAFETY: only this CPU writes its element, and these programs do not nest on a CPU.
    Some(unsafe { &mut *COUNTS.get_ptr_mut(cpu)? })
}

/// The buffer of the open interval.
#[inline(always)]
pub fn buffer(counts: &mut CpuCounts, parity: u32) -> &mut CountsBuffer {
    let first = (&raw mut counts.buffers).cast::<CountsBuffer>();
    // SAFETY: one bit selects one of two elements.
    unsafe { &mut *first.add((parity & 1) as usize) }
}

/// Calls `each` with the number of every event that is counted, without a loop.
macro_rules! for_each_event {
    ($each:expr) => {
        for_each_event!($each, 0, 1, 2, 3)
    };
    ($each:expr, $($number:literal),+) => {$(
        if EVENTS.load() > $number {
            $each($number);
        }
    )+};
}
const _: () = assert!(MAX_EVENTS == 4);

/// What was counted in a slice; written and read only where events are counted, so that nothing is spent elsewhere.
pub struct Since(MaybeUninit<Counts>);

impl Since {
    #[inline(always)]
    pub fn nothing_yet() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// As a whole, for the cold path.
    #[inline(always)]
    pub fn counts(&self) -> Counts {
        let mut counts: Counts = [0; MAX_EVENTS];
        for_each_event!(|event: usize| counts[event] = self.of(event));
        counts
    }

    #[inline(always)]
    fn set(&mut self, event: usize, count: u64) {
        // SAFETY: an element of the array, which is not read here.
        unsafe { (&raw mut (*self.0.as_mut_ptr())[event]).write(count) };
    }

    #[inline(always)]
    fn of(&self, event: usize) -> u64 {
        // SAFETY: `read` or `take` has written the elements of all events that are counted, and the verifier proves it.
        unsafe { (&raw const (*self.0.as_ptr())[event]).read() }
    }
}

/// Reads every event: one call after another, while little else is in registers.
#[inline(always)]
pub fn read(since: &mut Since) {
    for_each_event!(|event: usize| since.set(event, read_one(event)));
}

/// From readings to what was counted since the last ones; what cannot be said to be of the slice that ends is nobody's.
#[inline(always)]
pub fn take(counts: &mut CpuCounts, parity: u32, since: &mut Since) {
    let mut all = 0;
    for_each_event!(|event: usize| all |= since.of(event));
    if all.cast_signed() < 0 || counts.stale != 0 {
        return doubtful(counts, parity, since);
    }
    for_each_event!(|event: usize| {
        let reading = since.of(event);
        since.set(event, reading.wrapping_sub(counts.newest[event]));
        counts.newest[event] = reading;
    });
}

/// The same where a reading failed, now or before. An event that has counted to 2^63 is none that runs.
#[inline(always)]
fn doubtful(counts: &mut CpuCounts, parity: u32, since: &mut Since) {
    for_each_event!(|event: usize| {
        let reading = since.of(event);
        let is_stale = counts.stale >> event & 1 == 1;
        let mut added = 0;
        if reading.cast_signed() < 0 {
            counts.stale |= 1 << event;
            buffer(counts, parity).failed += 1;
        } else {
            added = reading.wrapping_sub(counts.newest[event]);
            counts.newest[event] = reading;
            if is_stale {
                counts.stale &= !(1 << event);
                let buffer = buffer(counts, parity);
                buffer.failed += 1;
                buffer.lost[event] += added;
                added = 0;
            }
        }
        since.set(event, added);
    });
}

/// The CPU was offline: what was counted until its next reading is nobody's.
#[inline(always)]
pub fn doubt(counts: &mut CpuCounts) {
    counts.stale = (1 << MAX_EVENTS) - 1;
}

/// The first readings of a CPU.
#[inline(always)]
pub fn start(counts: &mut CpuCounts) {
    for_each_event!(|event: usize| {
        let reading = read_one(event);
        if reading.cast_signed() < 0 {
            counts.stale |= 1 << event;
        } else {
            counts.newest[event] = reading;
        }
    });
}

/// Ends the open interval at the newest readings.
#[inline(always)]
pub fn end(counts: &mut CpuCounts, parity: u32) {
    let (newest, buffer) = (&raw const counts.newest, buffer(counts, parity));
    for_each_event!(|event: usize| {
        // SAFETY: elements of valid arrays; volatile, since the linker cannot translate a copy of all of them.
        unsafe { (&raw mut buffer.last[event]).write_volatile((*newest)[event]) };
    });
}

/// Begins an interval at the newest readings.
#[inline(always)]
pub fn begin(counts: &mut CpuCounts, parity: u32) {
    let (newest, buffer) = (&raw const counts.newest, buffer(counts, parity));
    buffer.failed = 0;
    for_each_event!(|event: usize| {
        // SAFETY: elements of valid arrays; volatile, as above.
        unsafe {
            (&raw mut buffer.first[event]).write_volatile((*newest)[event]);
            (&raw mut buffer.idle[event]).write_volatile(0);
            (&raw mut buffer.lost[event]).write_volatile(0);
        }
    });
}

/// Adds to a sum of counts.
#[inline(always)]
pub fn add(sum: &mut Counts, since: &Since) {
    for_each_event!(|event: usize| sum[event] += since.of(event));
}

/// Adds to the counts of a slot, or makes them its first ones.
#[inline(always)]
pub fn add_to_slot(slot: u32, since: &Since, is_new: bool) {
    if !are_on() {
        return;
    }
    let Some(sum) = SLOT_COUNTS.get_ptr_mut(slot) else {
        return;
    };
    // SAFETY: the slot is this CPU's, as the one in `SLOTS` is.
    let sum = unsafe { &mut *sum };
    for_each_event!(|event: usize| {
        let before = if is_new { 0 } else { sum[event] };
        sum[event] = before + since.of(event);
    });
}

#[inline(always)]
fn read_one(event: usize) -> u64 {
    let array: &PerfEventArray<u64> = match event {
        0 => &EVENT_0,
        1 => &EVENT_1,
        2 => &EVENT_2,
        _ => &EVENT_3,
    };
    // SAFETY: a map of this object. The helper only reads it.
    unsafe { bpf_perf_event_read(core::ptr::from_ref(array).cast_mut().cast(), THIS_CPU) }
}
