//! What turning idle CPUs saves and costs, compared with interrupting them.

mod agent;

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use dlpm::sources::cpu_time::{Config, CpuTime, Pace};
use dlpm_common::programs;
use dlpm_tests::{cpus, trace::race::make_urgent};

use crate::{
    Programs,
    stats::{Spread, float},
};

/// Interrupts that an idle CPU has for each interval, at most, where it is turned, as a ratio to those where it is not.
pub const LARGEST_RATIO: f64 = 0.5;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Alternating rounds.
    pub rounds: usize,
    /// Intervals in each measurement.
    pub intervals: u32,
    /// Length of an interval.
    pub length: Duration,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// Function call interrupts of the idle CPU, by `/proc/interrupts`, for each interval.
    calls: f64,
    /// Interrupts by the count of the seal, for each interval and CPU that is idle.
    interrupts: f64,
    /// Median time of a seal.
    seal_ns: f64,
    /// Nanoseconds of a run of the program at the switch, to and from idle.
    switch_ns: f64,
}

/// Measures and prints. Whether idle CPUs are left alone.
///
/// # Errors
///
/// Where dlpm cannot trace, or with one CPU.
pub fn run(programs: &Programs, options: Options) -> Result<bool> {
    let [first, .., idle] = cpus::online()[..] else {
        bail!("there is only one CPU, and it is never idle while it ends an interval");
    };
    let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
    const PACES: [(Pace, &str); 2] = [(Pace::Interrupt, "interrupted"), (Pace::Gentle, "turned")];
    for round in 0..options.rounds {
        for turn in 0..PACES.len() {
            let which = (turn + round) % PACES.len();
            let pace = PACES[which].0;
            // A thread of its own, since it stays bound to its CPU.
            let sample = thread::spawn(move || measure(pace, first, idle, options)).join();
            samples[which].push(sample.map_err(|_| anyhow::anyhow!("a measurement has failed, see above"))??);
        }
    }
    println!(
        "{}\n{} rounds, alternating, of {} intervals of {} ms; median (min to max).\n",
        super::machine()?,
        options.rounds,
        options.intervals,
        options.length.as_millis()
    );
    println!(
        "| an idle CPU is | function call interrupts there, per interval | interrupts of seals, per interval | \
         time of a seal, µs | program at a switch to or from idle, ns per run |"
    );
    println!("|---|---|---|---|---|");
    for ((_, name), samples) in PACES.iter().zip(&samples) {
        let show = |value: fn(&Sample) -> f64, scale, decimals| {
            Spread::of(samples.iter().map(value)).map_or(String::new(), |spread| spread.show(scale, decimals))
        };
        println!(
            "| {name} | {} | {} | {} | {} |",
            show(|sample| sample.calls, 1.0, 2),
            show(|sample| sample.interrupts, 1.0, 2),
            show(|sample| sample.seal_ns, 1e-3, 1),
            show(|sample| sample.switch_ns, 1.0, 0)
        );
    }
    let ratios = |value: fn(&Sample) -> f64| {
        let [interrupted, turned] = &samples;
        let of_rounds = interrupted.iter().zip(turned);
        Spread::of(of_rounds.map(|(interrupted, turned)| value(turned) / value(interrupted))).context("no round")
    };
    let calls = ratios(|sample| sample.calls)?;
    let mut within = calls.median <= LARGEST_RATIO;
    println!(
        "\n* {}: function call interrupts of an idle CPU, turned against interrupted: {}, at most {LARGEST_RATIO}",
        if within { "within" } else { "BEYOND" },
        calls.show(1.0, 2)
    );
    within &= agent::compare(&programs.dlpm, [first, idle], options)?;
    println!("* time of a seal: {}", ratios(|sample| sample.seal_ns)?.show(1.0, 2));
    println!(
        "* the program at a switch to or from idle: {}",
        ratios(|sample| sample.switch_ns)?.show(1.0, 2)
    );
    Ok(within)
}

fn measure(pace: Pace, sealing: u32, idle: u32, options: Options) -> Result<Sample> {
    cpus::pin(sealing);
    // What other processes do is not in the way: they count as idle.
    let mut cpu_time = CpuTime::start(&Config {
        pace,
        only: Some(std::process::id()),
        ..Config::default()
    })?;
    let mut sample = Sample::default();
    let mut seal_ns = Vec::new();
    let (before, mut interrupts) = (calls(idle)?, 0);
    for _ in 0..options.intervals {
        thread::sleep(options.length);
        let sealed = cpu_time.seal()?;
        let _ = cpu_time.drain(&sealed)?;
        interrupts += u64::from(sealed.counts.interrupts);
        seal_ns.push(float(sealed.seal_ns));
    }
    sample.calls = float(calls(idle)? - before) / f64::from(options.intervals);
    sample.interrupts = float(interrupts) / f64::from(options.intervals);
    sample.seal_ns = Spread::of(seal_ns).context("no interval")?.median;
    sample.switch_ns = switch_ns(idle, options)?;
    Ok(sample)
}

/// Nanoseconds of a run of the program at the switch, while a thread of this process wakes up on a CPU and sleeps again.
fn switch_ns(cpu: u32, options: Options) -> Result<f64> {
    let _counting = enable_stats(Stats::RunTime).context("the kernel does not count what programs cost")?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            cpus::pin(cpu);
            make_urgent();
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_micros(50));
            }
        });
        let before = runs();
        thread::sleep(options.length * options.intervals);
        let after = runs();
        stop.store(true, Ordering::Relaxed);
        let (before, after) = (before?, after?);
        Ok(float(after.0 - before.0) / float(after.1 - before.1))
    })
}

/// Nanoseconds in runs of the program at the switch, and runs: of the last one that was loaded.
fn runs() -> Result<(u64, u64)> {
    // The kernel keeps 15 bytes of a name.
    let name = programs::ON_SWITCH_OF_ONE.get(..15);
    let newest = loaded_programs()
        .flatten()
        .filter(|info| info.name_as_str() == name)
        .max_by_key(|info| info.id());
    let info = newest.context("the program is not loaded")?;
    Ok((u64::try_from(info.run_time().as_nanos())?, info.run_count()))
}

/// Function call interrupts that a CPU has had: the row `CAL`, with a column for each CPU that is online.
fn calls(cpu: u32) -> Result<u64> {
    let text = fs::read_to_string("/proc/interrupts").context("/proc/interrupts cannot be read")?;
    let mut lines = text.lines();
    let heads = lines.next().unwrap_or_default().split_whitespace();
    let column = heads.clone().position(|head| head == format!("CPU{cpu}"));
    let row = lines.find_map(|line| line.trim_start().strip_prefix("CAL:"));
    let value = row.and_then(|row| row.split_whitespace().nth(column?)?.parse().ok());
    value.context("/proc/interrupts has no row CAL for the CPU")
}
