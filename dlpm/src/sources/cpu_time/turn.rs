//! Ends the interval of a CPU that is idle, without interrupting it: the half of user space. The half of the kernel, and why
//! both agree, is in `pace.rs` of the eBPF programs.

use std::path::Path;

use dlpm_common::{Counts, CountsBuffer, CpuBuffer};

use super::{SealedCpu, Tables, online::OnlineCpus, seal::Border};
use crate::sources::clock::monotonic_ns;

/// An idle CPU that was turned and has not been seen to leave idle since.
#[derive(Clone, Copy, Debug)]
struct Turned {
    epoch: u64,
    at_ns: u64,
}

/// What became of a try.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is moved once")]
pub(super) enum Attempt {
    /// The interval has ended, and the CPU knows nothing of it yet. Whether it was idle through all of it.
    Ended(SealedCpu, bool),
    /// The CPU has to be interrupted.
    Interrupt(Option<Raced>),
}

/// A CPU that left idle while it was being turned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raced {
    /// The time of the turn.
    at_ns: u64,
    /// Time of the turn of the border before, if it had not been taken.
    before_ns: Option<u64>,
}

/// What a CPU that raced has done, as it turned out when it was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It did not take the turn.
    Nothing,
    /// It took the turn in time.
    Turn,
    /// It took the turn in the place of the one before.
    Newer,
}

/// Turns CPUs.
#[derive(Debug)]
pub(super) struct Turner {
    online: OnlineCpus,
    turned: Vec<Option<Turned>>,
    /// Epochs that were read before `online` was.
    listed: Vec<u64>,
}

impl Turner {
    /// `None` where it is not known which CPUs are online.
    pub(super) fn new(cpus: u32, online: Option<&Path>) -> Option<Self> {
        Some(Self {
            online: OnlineCpus::open(online)?,
            turned: vec![None; cpus as usize],
            listed: vec![0; cpus as usize],
        })
    }

    /// Tries to end the interval of a CPU.
    pub(super) fn turn(&mut self, tables: &Tables, cpu: u32, border: Border) -> Attempt {
        let index = cpu as usize;
        let before = self.turned[index].take();
        let epoch = tables.epoch(cpu);
        if epoch & 1 == 0 {
            return Attempt::Interrupt(None);
        }
        // A CPU cannot go offline without leaving idle.
        let is_silent = before.is_some_and(|before| before.epoch == epoch);
        if !is_silent && !self.is_online(tables, cpu, epoch) {
            return Attempt::Interrupt(None);
        }
        let (since_ns, gap) = tables.since_and_gap(cpu);
        if since_ns == 0 || gap != 0 {
            return Attempt::Interrupt(None);
        }
        let mut buffer = tables.buffer(cpu, border.ended);
        let counts = tables.counts(cpu, border.ended);
        let newest = tables.newest_counts(cpu);
        let at_ns = monotonic_ns();
        if at_ns <= since_ns {
            return Attempt::Interrupt(None);
        }
        tables.set_turn(cpu, at_ns, border.target);
        let before_ns = before.filter(|_| is_silent).map(|before| before.at_ns);
        if tables.epoch(cpu) != epoch {
            return Attempt::Interrupt(Some(Raced { at_ns, before_ns }));
        }
        match before_ns {
            // What the buffer holds belongs to an older interval.
            Some(begin_ns) => buffer = idle(begin_ns, at_ns),
            None => {
                buffer.end_ns = at_ns;
                buffer.idle_ns += at_ns - since_ns;
            }
        }
        let counts = counts.map(|counts| match before_ns {
            Some(_) => nothing(newest),
            None => CountsBuffer { last: newest, ..counts },
        });
        self.turned[index] = Some(Turned { epoch, at_ns });
        Attempt::Ended(SealedCpu::new(cpu, buffer, counts), is_silent)
    }

    /// Whether a CPU with this epoch can have events. A CPU on its way offline becomes idle for good after the kernel has
    /// taken it out of the list, so a list that was read after the epoch tells.
    fn is_online(&mut self, tables: &Tables, cpu: u32, epoch: u64) -> bool {
        if self.listed[cpu as usize] != epoch {
            // For those that follow as well.
            for (cpu, listed) in (0..).zip(&mut self.listed).skip(cpu as usize) {
                *listed = tables.epoch(cpu);
            }
            self.online.read();
        }
        self.listed[cpu as usize] == epoch && self.online.contains(cpu)
    }
}

impl Raced {
    /// What the CPU has done, of which `sealed` is what its seal said.
    pub(super) fn resolve(self, tables: &Tables, sealed: SealedCpu, border: Border) -> (SealedCpu, Taken) {
        match self.before_ns {
            Some(before_ns) if sealed.buffer.begin_ns != before_ns => {
                // It began the next interval where this one ended.
                let counts = tables.counts(sealed.cpu, border.target).map(|next| nothing(next.first));
                let sealed = SealedCpu::new(sealed.cpu, idle(before_ns, self.at_ns), counts);
                (sealed, Taken::Newer)
            }
            _ if sealed.buffer.end_ns == self.at_ns => (sealed, Taken::Turn),
            _ => (sealed, Taken::Nothing),
        }
    }
}

/// An interval in which nothing happened.
fn idle(begin_ns: u64, end_ns: u64) -> CpuBuffer {
    CpuBuffer {
        begin_ns,
        end_ns,
        idle_ns: end_ns - begin_ns,
        ..CpuBuffer::default()
    }
}

/// What events counted in it.
fn nothing(newest: Counts) -> CountsBuffer {
    CountsBuffer {
        first: newest,
        last: newest,
        ..CountsBuffer::default()
    }
}
