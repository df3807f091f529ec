//! What an interval costs against the number of processes that ran in it.

use std::{fmt::Write, time::Duration};

use anyhow::{Context, Result};

use super::{
    Programs,
    stats::{Spread, float},
    traced::Traced,
};
use crate::worker::Worker;

/// Intervals at the start that are not counted.
const WARM_UP: usize = 2;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Short processes in an interval.
    pub counts: Vec<u32>,
    /// Alternating rounds.
    pub rounds: usize,
    /// Intervals of each measurement.
    pub intervals: usize,
    /// Length of an interval.
    pub interval: Duration,
}

/// dlpm's CPU time in an interval, and the processes that ran in it.
#[derive(Clone, Copy, Debug)]
struct Sample {
    self_ns: f64,
    processes: f64,
}

/// Measures and prints.
///
/// # Errors
///
/// Where dlpm cannot trace.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let mut samples = vec![Vec::new(); options.counts.len()];
    for round in 1..=options.rounds {
        for (samples, &count) in samples.iter_mut().zip(&options.counts) {
            eprintln!("round {round}, {count} processes");
            samples.extend(measure(programs, options, count)?);
        }
    }
    print(options, &samples)
}

fn measure(programs: &Programs, options: &Options, count: u32) -> Result<Vec<Sample>> {
    let program = programs
        .worker
        .to_str()
        .context("the path of dlpm-worker is no UTF-8")?;
    let period = options.interval.as_millis().to_string();
    let mut worker = Worker::start(program, &["batches", &count.to_string(), &period]);
    worker.go();
    let mut trace = Traced::start(&programs.dlpm, options.interval, &[])?;
    let first = trace.intervals() + WARM_UP;
    let last = first + options.intervals;
    trace.wait_for(last)?;
    let lines = trace.finish()?;
    let counted = lines.get(first..last).context("the log has lost intervals")?;
    Ok(counted
        .iter()
        .map(|line| Sample {
            self_ns: float(line.self_ns),
            processes: float(line.processes),
        })
        .collect())
}

fn print(options: &Options, samples: &[Vec<Sample>]) -> Result<()> {
    let mut table = String::from(
        "| processes started | that ran, of all | CPU time of dlpm, ms | µs per process that ran | µs for each one more \
         than in the first row |\n|---|---|---|---|---|\n",
    );
    let mut base = None;
    for (count, samples) in options.counts.iter().zip(samples) {
        let spread = |of: &dyn Fn(&Sample) -> f64| Spread::of(samples.iter().map(of)).context("nothing was measured");
        let (cost, processes) = (spread(&|sample| sample.self_ns)?, spread(&|sample| sample.processes)?);
        let (base_cost, base_processes) = *base.get_or_insert((cost.median, processes.median));
        let more = if processes.median > base_processes {
            let more = spread(&|sample| (sample.self_ns - base_cost) / (sample.processes - base_processes))?;
            more.show(1e-3, 2)
        } else {
            String::new()
        };
        let each = spread(&|sample| sample.self_ns / sample.processes)?;
        let _ = writeln!(
            table,
            "| {count} | {} | {} | {} | {more} |",
            processes.show(1.0, 0),
            cost.show(1e-6, 2),
            each.show(1e-3, 2),
        );
    }
    println!(
        "{}\n{} rounds, alternating, of {} intervals of {} ms each; figures are of an interval, median (min to max).\n\n\
         {table}",
        super::machine()?,
        options.rounds,
        options.intervals,
        options.interval.as_millis()
    );
    Ok(())
}
