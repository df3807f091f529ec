//! Whether an interval costs more where processes exist that do not run.

use std::{fmt::Write, time::Duration};

use anyhow::{Context, Result, bail};

use super::{
    Programs,
    stats::{Spread, float, mean},
    traced::Traced,
};
use crate::worker::{Worker, cpu_clock_ns};

/// Largest ratio of the medians with sleepers and without.
pub const LARGEST_RATIO: f64 = 1.2;

/// Intervals at the start that are not counted: dlpm learns who is there.
const WARM_UP: usize = 3;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sleeping processes.
    pub sleepers: u32,
    /// Alternating rounds.
    pub rounds: usize,
    /// Intervals of each measurement.
    pub intervals: usize,
    /// Length of an interval.
    pub interval: Duration,
    /// The processes are also started while the trace runs, so that dlpm has seen each of them run.
    pub during: bool,
}

/// What is on the machine while dlpm is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleepers {
    None,
    /// There before the trace begins.
    Before,
    /// Started when the trace has begun.
    During,
}

/// dlpm's CPU time, an entry for each interval.
#[derive(Clone, Debug, Default)]
struct Cost {
    intervals_ns: Vec<f64>,
    /// Processes that ran in each.
    processes: Vec<f64>,
    /// The row `self` against the kernel's clock of the process, over the same time, for each measurement.
    by_clock: Vec<f64>,
}

/// One way of calling dlpm.
struct Variant {
    name: &'static str,
    arguments: &'static [&'static str],
}

const VARIANTS: [Variant; 2] = [
    Variant {
        name: "without a filter",
        arguments: &[],
    },
    Variant {
        name: "`--comm` that lists none",
        arguments: &["--comm", "^no-such-name$"],
    },
];

/// Measures and prints. Whether every ratio is within [`LARGEST_RATIO`].
///
/// # Errors
///
/// Where dlpm cannot trace.
pub fn run(programs: &Programs, options: &Options) -> Result<bool> {
    let mut states = vec![Sleepers::None, Sleepers::Before];
    if options.during {
        states.push(Sleepers::During);
    }
    let mut costs = vec![vec![Cost::default(); states.len()]; VARIANTS.len()];
    for round in 1..=options.rounds {
        for (column, &state) in states.iter().enumerate() {
            for (row, variant) in VARIANTS.iter().enumerate() {
                let cost = measure(programs, options, state, variant)?;
                eprintln!(
                    "round {round}, {}, {}: median {:.3} ms",
                    title(options, state),
                    variant.name,
                    Spread::of(cost.intervals_ns.iter().copied()).map_or(f64::NAN, |spread| spread.median / 1e6)
                );
                let all = &mut costs[row][column];
                all.intervals_ns.extend(cost.intervals_ns);
                all.processes.extend(cost.processes);
                all.by_clock.extend(cost.by_clock);
            }
        }
    }
    print(options, &states, &costs)
}

fn title(options: &Options, state: Sleepers) -> String {
    match state {
        Sleepers::None => "no sleepers".to_owned(),
        Sleepers::Before => format!("{} from before", options.sleepers),
        Sleepers::During => format!("{} started meanwhile", options.sleepers),
    }
}

fn measure(programs: &Programs, options: &Options, state: Sleepers, variant: &Variant) -> Result<Cost> {
    let sleepers = || -> Result<Worker> {
        let program = programs
            .worker
            .to_str()
            .context("the path of dlpm-worker is no UTF-8")?;
        let mut worker = Worker::start(program, &["sleepers", &options.sleepers.to_string()]);
        worker.go();
        if worker.line() != "sleeping" {
            bail!("the sleepers could not be started");
        }
        Ok(worker)
    };
    let arguments: Vec<String> = variant.arguments.iter().map(|&argument| argument.to_owned()).collect();
    let mut worker = (state == Sleepers::Before).then(sleepers).transpose()?;
    let mut trace = Traced::start(&programs.dlpm, options.interval, &arguments)?;
    if state == Sleepers::During {
        worker = Some(sleepers()?);
    }
    // What is in the log was paid before.
    let first = trace.intervals() + WARM_UP;
    trace.wait_for(first)?;
    let begin_ns = cpu_clock_ns(trace.pid());
    let last = first + options.intervals;
    trace.wait_for(last)?;
    let clock_ns = cpu_clock_ns(trace.pid()) - begin_ns;
    let lines = trace.finish()?;
    if let Some(worker) = worker {
        worker.finish();
    }
    let counted = lines.get(first..last).context("the log has lost intervals")?;
    let self_ns: u64 = counted.iter().map(|line| line.self_ns).sum();
    Ok(Cost {
        intervals_ns: counted.iter().map(|line| float(line.self_ns)).collect(),
        processes: counted.iter().map(|line| float(line.processes)).collect(),
        by_clock: vec![float(self_ns) / float(clock_ns)],
    })
}

fn print(options: &Options, states: &[Sleepers], costs: &[Vec<Cost>]) -> Result<bool> {
    let mut table = String::from(
        "| dlpm | processes asleep | median of an interval, ms | mean, ms | ratio of medians | ratio of means | \
         processes that ran | row `self` / kernel's clock |\n|---|---|---|---|---|---|---|---|\n",
    );
    let mut within = true;
    for (variant, costs) in VARIANTS.iter().zip(costs) {
        let mut base = None;
        for (&state, cost) in states.iter().zip(costs) {
            let spread = |values: &[f64]| Spread::of(values.iter().copied()).context("nothing was measured");
            let median = spread(&cost.intervals_ns)?;
            let mean = mean(&cost.intervals_ns).context("nothing was measured")?;
            let (base_median, base_mean) = *base.get_or_insert((median.median, mean));
            let ratio = median.median / base_median;
            within &= ratio <= LARGEST_RATIO;
            let _ = writeln!(
                table,
                "| {} | {} | {} | {:.3} | {:.2} | {:.2} | {} | {} |",
                variant.name,
                title(options, state),
                median.show(1e-6, 3),
                mean / 1e6,
                ratio,
                mean / base_mean,
                spread(&cost.processes)?.show(1.0, 0),
                spread(&cost.by_clock)?.show(1.0, 3),
            );
        }
    }
    println!(
        "{}\n{} rounds, alternating, of {} intervals of {} ms each; median (min to max).\n\n{table}",
        super::machine()?,
        options.rounds,
        options.intervals,
        options.interval.as_millis()
    );
    Ok(within)
}
