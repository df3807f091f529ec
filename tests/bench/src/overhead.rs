//! What a context switch costs: in the kernel, and to a ping-pong.

mod contender;
mod report;

use std::{path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result, bail};
use aya::sys::{Stats, enable_stats};
use rustix::process::Pid;

pub use self::contender::Tracefs;
use self::contender::{Contender, Running};
use super::{Programs, stats::Spread};
use dlpm_tests::{cpus, worker::Worker};

/// Pieces of a ping-pong for each figure of a round. Of the ping-pong itself the fastest one counts, since whatever else
/// runs only makes it slower; of the kernel's own count of a program, the middle one.
const PIECES: usize = 15;

/// Other CPUs that are kept busy at most.
const OTHERS: usize = 15;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Alternating rounds.
    pub rounds: usize,
    /// Round trips in a piece of a ping-pong.
    pub round_trips: u32,
    /// Object with the yardsticks.
    pub yardsticks: PathBuf,
    /// Other builds of dlpm, to be measured in the same run.
    pub beside: Vec<PathBuf>,
}

/// One contender in one round.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// Nanoseconds of a run of its programs, by the kernel's count.
    program_ns: f64,
    /// Nanoseconds of a context switch in the ping-pong, without that counting.
    switch_ns: f64,
    /// The same right before, while nothing ran.
    before_ns: f64,
}

impl Sample {
    /// How much slower the ping-pong was, in percent.
    fn slower(&self) -> f64 {
        (self.switch_ns / self.before_ns - 1.0) * 100.0
    }
}

/// A contender and its samples, one for each round.
struct Measured {
    contender: Contender,
    samples: Vec<Sample>,
}

/// Measures and prints. Whether every bound holds.
///
/// # Errors
///
/// Where dlpm cannot trace, or a tool that is there does not work.
pub fn run(programs: &Programs, options: &Options) -> Result<bool> {
    let mut contenders = vec![
        Contender::Nothing,
        Contender::Yardstick("empty"),
        Contender::Yardstick("clock"),
        Contender::Yardstick("floor"),
        Contender::Programs { siblings: false },
        Contender::Interrupting,
    ];
    contenders.push(Contender::Counting(contender::SOFTWARE));
    if contender::has_tsc() {
        contenders.push(Contender::Counting(contender::TSC));
    }
    if cpus::online().len() > 1 {
        contenders.push(Contender::Programs { siblings: true });
    }
    contenders.push(Contender::Trace(programs.dlpm.clone()));
    contenders.extend(options.beside.iter().cloned().map(Contender::Trace));
    contenders.extend([Contender::Bpftrace, Contender::Cpudist, Contender::Psutil]);
    let mut left_out = Vec::new();
    let tracefs = Tracefs::ensure();
    contenders.retain(|contender| {
        let reason = match (contender.needs(), contender, &tracefs) {
            (Some(file), _, _) if !std::path::Path::new(file).exists() => format!("{file} is not there"),
            (_, Contender::Bpftrace, Err(error)) => format!("{error:#}"),
            _ => return true,
        };
        left_out.push(format!("{}: {reason}", contender.name()));
        false
    });
    let mut measured: Vec<Measured> = contenders
        .into_iter()
        .map(|contender| Measured {
            contender,
            samples: Vec::new(),
        })
        .collect();
    for round in 1..=options.rounds {
        measure_round(programs, options, round, &mut measured)?;
    }
    let scans = report::scans(options, &measured)?;
    report::print(options, &measured, &left_out, &scans)
}

/// Every contender once, forwards and backwards by turns, beside the same pair of processes.
fn measure_round(programs: &Programs, options: &Options, round: usize, measured: &mut [Measured]) -> Result<()> {
    let cpu = cpus::online().last().copied().context("no CPU is online")?;
    let program = programs
        .worker
        .to_str()
        .context("the path of dlpm-worker is not UTF-8")?;
    let _others = busy_others(program, cpu)?;
    let pair = Worker::start(
        program,
        &["pingpong", &cpu.to_string(), &options.round_trips.to_string()],
    );
    let mut pair = PingPong {
        pair,
        switches: f64::from(options.round_trips) * 2.0,
    };
    pair.piece()?;
    let mut order: Vec<&mut Measured> = measured.iter_mut().collect();
    if round.is_multiple_of(2) {
        order.reverse();
    }
    for one in order {
        let before_ns = pair.switch_ns()?;
        let running = one.contender.start(&options.yardsticks)?;
        let sample = Sample {
            program_ns: if one.contender.has_program() {
                pair.program_ns(&running)?
            } else {
                0.0
            },
            switch_ns: pair.switch_ns()?,
            before_ns,
        };
        eprintln!(
            "round {round}, {}: {:.0} ns, ping-pong {:.0} ns, {:.1} % slower",
            one.contender.name(),
            sample.program_ns,
            sample.switch_ns,
            sample.slower()
        );
        one.samples.push(sample);
    }
    Ok(())
}

/// Keeps other CPUs busy with what has the least priority, so that it is always the same whether they are: two threads of
/// one core (also where a hypervisor does not tell) make a ping-pong half as slow again where both work.
fn busy_others(program: &str, cpu: u32) -> Result<Vec<Worker>> {
    let others = cpus::online().into_iter().filter(|other| *other != cpu).take(OTHERS);
    let spin = |other: u32| {
        let mut spinner = Worker::start(program, &["spin", &other.to_string()]);
        rustix::process::setpriority_process(Pid::from_raw(spinner.pid().cast_signed()), 19)?;
        spinner.go();
        Ok(spinner)
    };
    others.map(spin).collect()
}

struct PingPong {
    pair: Worker,
    switches: f64,
}

impl PingPong {
    /// Nanoseconds of a context switch.
    fn piece(&mut self) -> Result<f64> {
        self.pair.go();
        let ns: f64 = self.pair.line().parse().context("the ping-pong told no time")?;
        Ok(ns / self.switches)
    }

    fn switch_ns(&mut self) -> Result<f64> {
        let pieces: Vec<f64> = (0..PIECES).map(|_| self.piece()).collect::<Result<_>>()?;
        Ok(Spread::of(pieces).context("no piece")?.min)
    }

    /// Nanoseconds of a run of the programs while the ping-pong goes on.
    fn program_ns(&mut self, running: &Running) -> Result<f64> {
        let _counting = enable_stats(Stats::RunTime).context("the kernel does not count what programs cost")?;
        // A tool attaches its programs some time after it has loaded them.
        let mut tries = 0;
        let (_, loaded) = running.runs();
        while running.runs().1 < loaded + 100 {
            self.piece()?;
            thread::sleep(Duration::from_millis(10));
            tries += 1;
            if tries == 1000 {
                bail!("a program was loaded, but does not run");
            }
        }
        let mut pieces = Vec::new();
        for _ in 0..PIECES {
            let before = running.runs();
            self.piece()?;
            let after = running.runs();
            #[expect(clippy::cast_precision_loss, reason = "statistics need no more than 52 bits")]
            pieces.push((after.0 - before.0) as f64 / (after.1 - before.1) as f64);
        }
        Ok(Spread::of(pieces).context("no piece")?.median)
    }
}
