//! The CPU states and slot tables, mapped into this process.
//!
//! The kernel side goes on writing while user space reads, but never the same buffer: user space touches the slots and
//! counters of a buffer only after every CPU has turned away from it, or was idle all the time while they were read.

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd},
    sync::atomic::{AtomicU64, Ordering, fence},
};

use dlpm_common::{Counts, CountsBuffer, CpuBuffer, CpuCounts, CpuState, MAX_EVENTS, Slot, turn_at};
use memmap2::{MmapOptions, MmapRaw};

/// The mapped arrays.
#[derive(Debug)]
pub struct Tables {
    states: MmapRaw,
    slots: MmapRaw,
    /// What events counted, by CPU and by slot, where any are counted.
    counts: Option<(MmapRaw, MmapRaw)>,
    cpus: u32,
    slots_log2: u32,
}

impl Tables {
    /// Maps the arrays of `cpus` states and of two tables of `1 << slots_log2` slots per CPU.
    pub(super) fn map(states: BorrowedFd<'_>, slots: BorrowedFd<'_>, cpus: u32, slots_log2: u32) -> io::Result<Self> {
        let state_bytes = cpus as usize * size_of::<CpuState>();
        let slot_bytes = ((cpus as usize * 2) << slots_log2) * size_of::<Slot>();
        Ok(Self {
            states: MmapOptions::new().len(state_bytes).map_raw(states.as_raw_fd())?,
            slots: MmapOptions::new().len(slot_bytes).map_raw(slots.as_raw_fd())?,
            counts: None,
            cpus,
            slots_log2,
        })
    }

    /// The same with the arrays of counts, which have as many elements.
    pub(super) fn with_counts(mut self, cpus: BorrowedFd<'_>, slots: BorrowedFd<'_>) -> io::Result<Self> {
        let cpu_bytes = self.cpus as usize * size_of::<CpuCounts>();
        let slot_bytes = ((self.cpus as usize * 2) << self.slots_log2) * size_of::<Counts>();
        self.counts = Some((
            MmapOptions::new().len(cpu_bytes).map_raw(cpus.as_raw_fd())?,
            MmapOptions::new().len(slot_bytes).map_raw(slots.as_raw_fd())?,
        ));
        Ok(self)
    }

    fn counts_of(&self, cpu: u32) -> Option<*const CpuCounts> {
        assert!(cpu < self.cpus, "CPU {cpu} is not one of {}", self.cpus);
        let (counts, _) = self.counts.as_ref()?;
        // SAFETY: within the mapping, by the assertion and the length that `with_counts` gave it.
        Some(unsafe { counts.as_ptr().cast::<CpuCounts>().add(cpu as usize) })
    }

    /// What the events of a CPU counted in an interval; `None` where none are counted.
    pub(super) fn counts(&self, cpu: u32, sequence: u64) -> Option<CountsBuffer> {
        let which = usize::from(sequence & 1 == 1);
        // SAFETY: a valid element, and `which` is 0 or 1.
        Some(unsafe { (&raw const (*self.counts_of(cpu)?).buffers[which]).read_volatile() })
    }

    /// The newest readings of a CPU's events.
    pub(super) fn newest_counts(&self, cpu: u32) -> Counts {
        // SAFETY: a valid element.
        self.counts_of(cpu).map_or([0; MAX_EVENTS], |counts| unsafe {
            (&raw const (*counts).newest).read_volatile()
        })
    }

    /// Number of CPUs.
    pub fn cpus(&self) -> u32 {
        self.cpus
    }

    fn state(&self, cpu: u32) -> *mut CpuState {
        assert!(cpu < self.cpus, "CPU {cpu} is not one of {}", self.cpus);
        // SAFETY: within the mapping, by the assertion and the length that `map` gave it.
        unsafe { self.states.as_mut_ptr().cast::<CpuState>().add(cpu as usize) }
    }

    /// `since_ns` and then `gap`, in this order: see `resume` on the kernel side.
    pub(super) fn since_and_gap(&self, cpu: u32) -> (u64, u64) {
        let state = self.state(cpu);
        // SAFETY: `state` is valid; aligned words that the kernel side stores in one piece.
        unsafe {
            let since_ns = (&raw const (*state).since_ns).read_volatile();
            (since_ns, (&raw const (*state).gap).read_volatile())
        }
    }

    /// Tells a CPU that is offline to start again at interval `sequence`.
    pub(super) fn set_gap(&self, cpu: u32, sequence: u64) {
        // SAFETY: `state` is valid; one aligned store.
        unsafe { (&raw mut (*self.state(cpu)).gap).write_volatile(sequence) };
        fence(Ordering::SeqCst);
    }

    /// Counts how often a CPU has become idle or left idle. What is read afterwards is at least as new.
    pub(super) fn epoch(&self, cpu: u32) -> u64 {
        // SAFETY: `state` is valid and lives as long as the mapping; an aligned word that both sides use as a whole.
        let epoch = unsafe { AtomicU64::from_ptr(&raw mut (*self.state(cpu)).epoch) };
        epoch.load(Ordering::Acquire)
    }

    /// Tells an idle CPU when its interval has ended. What was read before is not newer than what is read afterwards.
    pub(super) fn set_turn(&self, cpu: u32, at_ns: u64, target: u64) {
        // SAFETY: `state` is valid; one aligned store.
        unsafe { (&raw mut (*self.state(cpu)).turn).write_volatile(turn_at(at_ns, target)) };
        fence(Ordering::SeqCst);
    }

    /// The buffer that a CPU writes.
    pub(super) fn parity(&self, cpu: u32) -> u64 {
        // SAFETY: `state` is valid; one aligned load.
        u64::from(unsafe { (&raw const (*self.state(cpu)).parity).read_volatile() })
    }

    /// Names the other hardware thread of a CPU's core; before anything is attached.
    pub(super) fn set_sibling(&self, cpu: u32, sibling: u32) {
        // SAFETY: `state` is valid and nobody reads it yet.
        unsafe { (&raw mut (*self.state(cpu)).sibling).write_volatile(sibling) };
    }

    /// What belongs to an interval of a CPU.
    pub(super) fn buffer(&self, cpu: u32, sequence: u64) -> CpuBuffer {
        let which = usize::from(sequence & 1 == 1);
        // SAFETY: `state` is valid, and `which` is 0 or 1.
        unsafe { (&raw const (*self.state(cpu)).buffers[which]).read_volatile() }
    }

    /// Takes the slots of a sealed buffer, of which so many were claimed: each is given to `each` and freed.
    pub(super) fn take_slots(&self, cpu: u32, sequence: u64, claimed: u32, mut each: impl FnMut(Slot, Counts)) {
        self.claimed(cpu, sequence, claimed).for_each(|(position, slot)| {
            // SAFETY: a valid slot of a sealed buffer, which only user space touches.
            let taken = unsafe {
                let taken = slot.read_volatile();
                (&raw mut (*slot).tgid).write_volatile(0);
                taken
            };
            let counts = self.counts.as_ref().map_or([0; MAX_EVENTS], |(_, counts)| {
                // SAFETY: this array has as many elements as that of the slots.
                unsafe { counts.as_ptr().cast::<Counts>().add(position).read_volatile() }
            });
            each(taken, counts);
        });
    }

    /// Changes the slots of a buffer in place. For tests that show that a doctored record breaks the time law.
    pub fn doctor_slots(&self, cpu: u32, sequence: u64, mut each: impl FnMut(&mut Slot)) {
        let claimed = self.buffer(cpu, sequence).claimed;
        for (_, slot) in self.claimed(cpu, sequence, claimed) {
            // SAFETY: a valid slot; the caller doctors sealed buffers, or accepts a race with the kernel side.
            unsafe {
                let mut doctored = slot.read_volatile();
                each(&mut doctored);
                slot.write_volatile(doctored);
            }
        }
    }

    /// The slots that were claimed, each with its position in the array.
    fn claimed(&self, cpu: u32, sequence: u64, claimed: u32) -> impl Iterator<Item = (usize, *mut Slot)> + use<'_> {
        let size = 1_usize << self.slots_log2;
        let table = (cpu as usize * 2 + usize::from(sequence & 1 == 1)) * size;
        let at = move |index: usize| {
            assert!(index < size, "slot {index} is not one of {size}");
            // SAFETY: within the mapping, by the assertion, the CPU's check and the length that `map` gave it.
            let slot = unsafe { self.slots.as_mut_ptr().cast::<Slot>().add(table + index) };
            (table + index, slot)
        };
        (0..claimed as usize).map(move |n| {
            // SAFETY: `at` gives valid slots.
            let index = unsafe { (&raw const (*at(n).1).claimed_index).read_volatile() };
            at(index as usize)
        })
    }
}
