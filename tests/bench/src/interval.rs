//! What an interval costs against the number of processes that ran in it.

use std::{fmt::Write, time::Duration};

use anyhow::{Context, Result, bail};

use super::{
    Programs,
    stats::{Spread, float},
    traced::Traced,
};
use dlpm_tests::worker::Worker;

/// Largest cost of a further process that was there before and ran, in microseconds. It has a usage record for each CPU
/// and cgroup in which it ran, so a record costs no more than that.
pub const LARGEST_US: f64 = 2.0;

/// Differences of fewer processes drown in what an interval costs at all.
const FEWEST: f64 = 500.0;

/// Intervals at the start that are not counted: dlpm learns who is there.
const WARM_UP: usize = 3;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Processes that run in an interval.
    pub counts: Vec<u32>,
    /// Alternating rounds.
    pub rounds: usize,
    /// Intervals of each measurement.
    pub intervals: usize,
    /// Lengths of an interval in which processes wake up that were there before.
    pub lengths: Vec<Duration>,
    /// Length of an interval in which processes are started: long enough for the machine to start that many.
    pub starting: Duration,
}

/// What runs while dlpm is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crowd {
    /// Processes from before the trace, of which each wakes up once in an interval.
    Woken,
    /// Processes that are started one after another and exit at once.
    Started,
}

/// A crowd in intervals of one length, and its samples by count.
struct Series {
    crowd: Crowd,
    interval: Duration,
    samples: Vec<Vec<Sample>>,
}

/// dlpm's CPU time in an interval, and the processes that ran in it.
#[derive(Clone, Copy, Debug)]
struct Sample {
    self_ns: f64,
    processes: f64,
}

/// Measures and prints. Whether each further process that was there before costs at most [`LARGEST_US`].
///
/// # Errors
///
/// Where dlpm cannot trace.
pub fn run(programs: &Programs, options: &Options) -> Result<bool> {
    let woken = options.lengths.iter().map(|&length| (Crowd::Woken, length));
    let mut all: Vec<Series> = woken
        .chain([(Crowd::Started, options.starting)])
        .map(|(crowd, interval)| Series {
            crowd,
            interval,
            samples: vec![Vec::new(); options.counts.len()],
        })
        .collect();
    for round in 1..=options.rounds {
        for series in &mut all {
            for (samples, &count) in series.samples.iter_mut().zip(&options.counts) {
                let new = measure(programs, options, series.crowd, series.interval, count)?;
                let median = Spread::of(new.iter().map(|sample| sample.self_ns)).context("nothing was measured")?;
                eprintln!(
                    "round {round}, {:?}, {count} processes in {} ms: {} ms",
                    series.crowd,
                    series.interval.as_millis(),
                    median.show(1e-6, 3)
                );
                samples.extend(new);
            }
        }
    }
    println!(
        "{}\n{} rounds, alternating, of {} intervals each; figures are of an interval, median (min to max).",
        super::machine()?,
        options.rounds,
        options.intervals,
    );
    let mut within = true;
    for series in &all {
        within &= print(options, series)?;
    }
    Ok(within)
}

fn measure(
    programs: &Programs,
    options: &Options,
    crowd: Crowd,
    interval: Duration,
    count: u32,
) -> Result<Vec<Sample>> {
    let program = programs
        .worker
        .to_str()
        .context("the path of dlpm-worker is not UTF-8")?;
    let task = match crowd {
        Crowd::Woken => "wakers",
        Crowd::Started => "batches",
    };
    let period = interval.as_millis().to_string();
    let mut worker = Worker::start(program, &[task, &count.to_string(), &period]);
    worker.go();
    if crowd == Crowd::Woken && worker.line() != "sleeping" {
        bail!("the processes could not be started");
    }
    let mut trace = Traced::start(&programs.dlpm, interval, &[])?;
    let first = trace.intervals() + WARM_UP;
    let last = first + options.intervals;
    trace.wait_for(last)?;
    let lines = trace.finish()?;
    let counted = lines.get(first..last).context("the log has lost intervals")?;
    if crowd == Crowd::Woken {
        worker.finish();
    }
    Ok(counted
        .iter()
        .map(|line| Sample {
            self_ns: float(line.self_ns),
            processes: float(line.processes),
        })
        .collect())
}

fn print(options: &Options, series: &Series) -> Result<bool> {
    let millis = series.interval.as_millis();
    let what = match series.crowd {
        Crowd::Woken => format!("Processes that were there before, woken up once in each interval of {millis} ms"),
        Crowd::Started => format!("Processes that were started and exited, in intervals of {millis} ms"),
    };
    let mut table = format!(
        "\n{what}\n\n| processes | that ran, of all | CPU time of dlpm, ms | % of a core | µs for each one more than in the \
         first row |\n|---|---|---|---|---|\n",
    );
    let mut within = true;
    let mut base = None;
    for (count, samples) in options.counts.iter().zip(&series.samples) {
        let spread = |of: &dyn Fn(&Sample) -> f64| Spread::of(samples.iter().map(of)).context("nothing was measured");
        let (cost, processes) = (spread(&|sample| sample.self_ns)?, spread(&|sample| sample.processes)?);
        let (base_cost, base_processes) = *base.get_or_insert((cost.median, processes.median));
        let more = if processes.median - base_processes >= FEWEST {
            let more = spread(&|sample| (sample.self_ns - base_cost) / (sample.processes - base_processes))?;
            within &= more.median * 1e-3 <= LARGEST_US || series.crowd == Crowd::Started;
            more.show(1e-3, 2)
        } else {
            String::new()
        };
        let share = cost.median / series.interval.as_secs_f64() * 1e-7;
        let _ = writeln!(
            table,
            "| {count} | {} | {} | {share:.2} | {more} |",
            processes.show(1.0, 0),
            cost.show(1e-6, 2),
        );
    }
    println!("{table}");
    Ok(within)
}
