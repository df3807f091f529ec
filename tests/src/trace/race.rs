//! CPUs that leave idle at the very moment at which user space turns them, again and again.
//!
//! One thread ends interval after interval. Others sleep and work for random times of microseconds on another CPU. Every
//! interval of every CPU is checked; and what counts is how often the two have met, since a run without a race shows
//! nothing.

use std::{
    collections::HashMap,
    hint,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use dlpm::sources::{
    clock::monotonic_ns,
    cpu_time::{Config, CpuTime, Drained, SealCounts, Sealed},
};

use crate::cpus;

/// Violations that are described.
const DESCRIBED: usize = 5;

/// Who wakes up the other CPU, and how long the intervals are.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that sleep and work.
    pub sleepers: u32,
    /// The longest sleep.
    pub longest_sleep: Duration,
    /// The longest work.
    pub longest_work: Duration,
    /// A pause before each border.
    pub pause: Duration,
    /// The CPU that is woken up; the thread that ends the intervals has another one.
    pub cpu: u32,
}

impl Options {
    /// What hits races most often, on the last CPU; or a sentence that says why that cannot be.
    ///
    /// # Errors
    ///
    /// With one CPU.
    pub fn tight() -> Result<Self, String> {
        match cpus::online()[..] {
            [_, .., cpu] => Ok(Self {
                sleepers: 2,
                longest_sleep: Duration::from_micros(60),
                longest_work: Duration::from_micros(5),
                pause: Duration::ZERO,
                cpu,
            }),
            _ => Err("there is only one CPU".to_owned()),
        }
    }
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Intervals.
    pub intervals: u64,
    /// Ends of an interval on a CPU that were made by an interrupt.
    pub interrupts: u64,
    /// Without one.
    pub turned: u64,
    /// Part of these: without any event in the interval.
    pub silent: u64,
    /// CPUs that left idle while they were being turned.
    pub raced: u64,
    /// Part of these: they took the turn in time.
    pub took: u64,
    /// Part of these: they took the turn in the place of the one before.
    pub newer: u64,
    /// Intervals of a CPU whose parts do not add up to its length.
    pub unlawful: u64,
    /// Intervals of a CPU that do not begin where the one before ended, and the longest distance.
    pub apart: u64,
    /// The longest of these distances, in nanoseconds.
    pub furthest_ns: u64,
    /// Idle time of the CPU that is woken up.
    pub idle_ns: u64,
    /// Times that the clock of a CPU stood behind its last event.
    pub clock_steps: u64,
    /// The first violations.
    pub described: Vec<String>,
}

impl Tally {
    /// Whether each kind of race was met.
    pub fn is_telling(&self) -> bool {
        self.raced > 0 && self.took > 0 && self.newer > 0
    }

    /// What is wrong.
    pub fn violations(&self) -> u64 {
        self.unlawful + self.apart
    }

    fn add(&mut self, counts: SealCounts) {
        self.intervals += 1;
        self.interrupts += u64::from(counts.interrupts);
        self.turned += u64::from(counts.turned);
        self.silent += u64::from(counts.silent);
        self.raced += u64::from(counts.raced);
        self.took += u64::from(counts.took);
        self.newer += u64::from(counts.newer);
    }

    fn describe(&mut self, text: impl FnOnce(u64) -> String) {
        if self.described.len() < DESCRIBED {
            self.described.push(text(self.intervals));
        }
    }

    /// Checks the laws in an interval.
    fn check(&mut self, drained: &Drained, woken: u32, ended: &mut HashMap<u32, u64>) {
        self.clock_steps += drained.clock_steps;
        for cpu in &drained.cpus {
            if cpu.cpu == woken {
                self.idle_ns += cpu.idle_ns;
            }
            let records = drained.usage.iter().filter(|usage| usage.cpu == cpu.cpu);
            let busy_ns: u64 = records.map(|usage| usage.ns).sum();
            if !cpu.time_law_holds() || busy_ns != cpu.busy_ns {
                self.unlawful += 1;
                self.describe(|number| format!("interval {number}: {cpu:?}, {busy_ns} ns in its records"));
            }
            if let Some(ended_ns) = ended.insert(cpu.cpu, cpu.end_ns)
                && ended_ns != cpu.begin_ns
            {
                self.apart += 1;
                self.furthest_ns = self.furthest_ns.max(ended_ns.abs_diff(cpu.begin_ns));
                self.describe(|number| format!("interval {number}: {cpu:?} after {ended_ns}"));
            }
        }
    }
}

/// Ends intervals until `is_enough` says so, which is asked every 1,000 intervals.
///
/// # Panics
///
/// Where CPU time cannot be traced.
pub fn run(config: &Config, options: Options, is_enough: impl FnMut(&Tally) -> bool + Send) -> Tally {
    run_with(config, options, is_enough, |_, _| {})
}

/// The same; each interval is shown to `look`.
///
/// # Panics
///
/// Where CPU time cannot be traced.
pub fn run_with(
    config: &Config,
    options: Options,
    mut is_enough: impl FnMut(&Tally) -> bool + Send,
    mut look: impl FnMut(&Sealed, &Drained) + Send,
) -> Tally {
    let stop = AtomicBool::new(false);
    let mut tally = Tally::default();
    thread::scope(|scope| {
        // Ends the sleepers even where the rest fails.
        let _stopping = Stop(&stop);
        for seed in 0..options.sleepers {
            let stop = &stop;
            scope.spawn(move || sleep_and_work(options, u64::from(seed) + 1, stop));
        }
        let sealing = scope.spawn(|| {
            let other = cpus::online().into_iter().find(|cpu| *cpu != options.cpu);
            cpus::pin(other.unwrap());
            let mut cpu_time = CpuTime::start(config).unwrap();
            let mut ended = HashMap::new();
            let sealed = cpu_time.seal().unwrap();
            let _ = cpu_time.drain(&sealed).unwrap();
            ended.extend(sealed.cpus.iter().map(|cpu| (cpu.cpu, cpu.end_ns())));
            loop {
                if !options.pause.is_zero() {
                    thread::sleep(options.pause);
                }
                let sealed = cpu_time.seal().unwrap();
                let drained = cpu_time.drain(&sealed).unwrap();
                tally.add(sealed.counts);
                tally.check(&drained, options.cpu, &mut ended);
                look(&sealed, &drained);
                if tally.intervals.is_multiple_of(1_000) && is_enough(&tally) {
                    break;
                }
            }
        });
        if let Err(panic) = sealing.join() {
            std::panic::resume_unwind(panic);
        }
    });
    tally
}

/// Whether a time has passed since the start of a run, for runs that may not meet what they are looking for.
pub fn patience(limit: Duration) -> impl FnMut() -> bool {
    let begun = Instant::now();
    move || begun.elapsed() > limit
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets the calling thread run before whatever else there is, and wake up when it wants to. Where that is refused, it does
/// what it does less exactly.
pub fn make_urgent() {
    cpus::make_real_time(0);
    // SAFETY: plain arguments.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

fn sleep_and_work(options: Options, seed: u64, stop: &AtomicBool) {
    cpus::pin(options.cpu);
    make_urgent();
    // xorshift64: <https://doi.org/10.18637/jss.v008.i14>
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut random = |most: Duration| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Duration::from_nanos(state % u64::try_from(most.as_nanos()).unwrap().max(1))
    };
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(random(options.longest_sleep));
        let until_ns = monotonic_ns() + u64::try_from(random(options.longest_work).as_nanos()).unwrap();
        while monotonic_ns() < until_ns {
            hint::spin_loop();
        }
    }
}
