//! The loads: endless work of a known kind, done in batches of about a tenth of a millisecond, each of which counts the
//! units that it did. They read a clock where they have to sleep, and touch no file.

mod fma;
mod memory;

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use super::LoadKind;
use fma::Width;
use memory::{Chase, Triad};

/// Steps of integer arithmetic in a batch.
const SCALAR_STEPS: u64 = 50_000;

/// The period of the load that sleeps, and the part of it in which it works.
const NAP_PERIOD: Duration = Duration::from_millis(1);
const NAP_BUSY: Duration = Duration::from_micros(500);

/// Steps between two looks at the clock.
const NAP_STEPS: u64 = 1_000;

/// A load that is ready to work.
#[derive(Debug)]
pub enum Load {
    /// Integers in registers.
    Scalar,
    /// Fused multiply-add.
    Fma(Width),
    /// Dependent loads.
    Chase(Chase),
    /// A triad.
    Stream(Triad),
    /// Half of each millisecond.
    Nap {
        /// When the next period begins.
        next: Instant,
    },
}

impl Load {
    /// Prepares a load; those of memory fill `memory_bytes`.
    pub fn new(kind: LoadKind, memory_bytes: usize) -> Self {
        match kind {
            LoadKind::Scalar => Self::Scalar,
            LoadKind::Fma => Self::Fma(Width::widest()),
            LoadKind::Chase => Self::Chase(Chase::new(memory_bytes)),
            LoadKind::Stream => Self::Stream(Triad::new(memory_bytes)),
            LoadKind::Nap => Self::Nap { next: Instant::now() },
        }
    }

    /// What a load does, in words.
    pub fn detail(kind: LoadKind, memory_bytes: usize) -> String {
        let mebibytes = memory_bytes >> 20;
        match kind {
            LoadKind::Scalar => "64-bit integers in registers; a unit is four steps".to_owned(),
            LoadKind::Fma => format!("{}; a unit is ten instructions", Width::widest().name()),
            LoadKind::Chase => format!("dependent loads over {mebibytes} MiB; a unit is a load"),
            LoadKind::Stream => format!("a = b + s * c over {mebibytes} MiB; a unit is an element"),
            LoadKind::Nap => "integers for half of each millisecond; a unit is four steps".to_owned(),
        }
    }

    /// Does a batch: how many units of work it did.
    pub fn batch(&mut self) -> u64 {
        match self {
            Self::Scalar => scalar(SCALAR_STEPS),
            Self::Fma(width) => width.batch(),
            Self::Chase(chase) => chase.batch(),
            Self::Stream(triad) => triad.batch(),
            Self::Nap { next } => nap(next),
        }
    }
}

/// Four chains of multiplications and shifts, which keep the integer units of a core busy.
fn scalar(steps: u64) -> u64 {
    let mut chains = black_box([1_u64, 3, 5, 7]);
    for step in 0..steps {
        for chain in &mut chains {
            *chain = (*chain ^ (*chain >> 7))
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .wrapping_add(step);
        }
    }
    black_box(chains);
    steps
}

/// Works until the half of the period has passed, and sleeps until the next one begins.
fn nap(next: &mut Instant) -> u64 {
    let begin = Instant::now();
    let mut steps = 0;
    while begin.elapsed() < NAP_BUSY {
        steps += scalar(NAP_STEPS);
    }
    *next += NAP_PERIOD;
    let now = Instant::now();
    if *next > now {
        thread::sleep(*next - now);
    } else {
        // It was late: what it missed is not made up for.
        *next = now;
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_works_and_counts() {
        for kind in LoadKind::ALL {
            let mut load = Load::new(kind, 1 << 20);
            let first = load.batch();
            assert!(first > 0, "{kind:?}");
            assert!(load.batch() > 0, "{kind:?}");
            assert!(!Load::detail(kind, 1 << 20).is_empty());
        }
    }

    #[test]
    fn the_load_that_sleeps_uses_about_half_of_its_time() {
        let mut load = Load::new(LoadKind::Nap, 0);
        let cpu_ns = || crate::sources::clock::clock_ns(rustix::time::ClockId::ThreadCPUTime);
        let (begin, begin_ns) = (Instant::now(), cpu_ns());
        for _ in 0..50 {
            load.batch();
        }
        let (whole, busy_ns) = (begin.elapsed(), cpu_ns() - begin_ns);
        // It never works for longer than asked, but for one look at the clock; a busy machine makes it sleep longer.
        assert!(whole >= Duration::from_millis(45), "{whole:?}");
        assert!(u128::from(busy_ns) < whole.as_nanos(), "{busy_ns} ns of {whole:?}");
    }
}
