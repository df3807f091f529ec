//! Whether an interval costs more where processes exist that do not run.

use std::{fmt::Write, time::Duration};

use anyhow::{Context, Result, bail};

use super::{
    Programs,
    stats::{Spread, float, mean},
    traced::Traced,
};
use dlpm_tests::worker::{Worker, cpu_clock_ns};

/// Largest ratio of the medians with sleepers and without.
pub const LARGEST_RATIO: f64 = 1.2;

/// Intervals at the start that are not counted: dlpm learns who is there.
const WARM_UP: usize = 3;

/// An interval counts where the rest of the machine used at most this share of the CPUs: under load, caches and other
/// CPUs that answer late make the same work several times as expensive, for reasons that come and go.
const QUIET: f64 = 0.25;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sleeping processes.
    pub sleepers: u32,
    /// Alternating rounds at most.
    pub rounds: usize,
    /// Intervals of each measurement.
    pub intervals: usize,
    /// Quiet intervals of each kind that end the measurement.
    pub quiet: usize,
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
    /// Share of the CPUs that others used in each.
    busy: Vec<f64>,
    /// Intervals that were not quiet.
    left_out: usize,
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

impl Cost {
    fn add(&mut self, other: Self) {
        self.intervals_ns.extend(other.intervals_ns);
        self.busy.extend(other.busy);
        self.left_out += other.left_out;
        self.by_clock.extend(other.by_clock);
    }
}

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
    let mut rounds = 0;
    let is_enough = |costs: &[Vec<Cost>]| {
        let all = costs.iter().flatten();
        all.map(|cost| cost.intervals_ns.len()).min() >= Some(options.quiet)
    };
    while rounds < options.rounds && !is_enough(&costs) {
        rounds += 1;
        for (column, &state) in states.iter().enumerate() {
            for (variant, costs) in VARIANTS.iter().zip(&mut costs) {
                let cost = measure(programs, options, state, variant)?;
                eprintln!(
                    "round {rounds}, {}, {}: {} quiet intervals",
                    title(options, state),
                    variant.name,
                    cost.intervals_ns.len(),
                );
                costs[column].add(cost);
            }
        }
    }
    if costs.iter().flatten().any(|cost| cost.intervals_ns.is_empty()) {
        bail!(
            "the machine was too busy in all of {rounds} rounds: measure where others use less than a quarter of the CPUs"
        );
    }
    if !is_enough(&costs) {
        eprintln!(
            "the machine was too busy: fewer than {} quiet intervals of a kind in {rounds} rounds",
            options.quiet
        );
    }
    Ok(print(options, rounds, &states, &costs)? && is_enough(&costs))
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
            .context("the path of dlpm-worker is not UTF-8")?;
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
    let quiet: Vec<_> = counted.iter().filter(|line| line.busy_share() <= QUIET).collect();
    Ok(Cost {
        intervals_ns: quiet.iter().map(|line| float(line.self_ns)).collect(),
        busy: quiet.iter().map(|line| line.busy_share()).collect(),
        left_out: counted.len() - quiet.len(),
        by_clock: vec![float(self_ns) / float(clock_ns)],
    })
}

fn print(options: &Options, rounds: usize, states: &[Sleepers], costs: &[Vec<Cost>]) -> Result<bool> {
    let mut table = String::from(
        "| dlpm | processes asleep | median of an interval, ms | mean, ms | ratio of medians | ratio of means | \
         others' share of the CPUs, % | intervals (not quiet, left out) | row `self` / kernel's clock \
         |\n|---|---|---|---|---|---|---|---|---|\n",
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
            // Those started meanwhile have run, so memory is read of some: a cost with a bound, but not none.
            within &= ratio <= LARGEST_RATIO || state == Sleepers::During;
            let _ = writeln!(
                table,
                "| {} | {} | {} | {:.3} | {:.2} | {:.2} | {} | {} ({}) | {} |",
                variant.name,
                title(options, state),
                median.show(1e-6, 3),
                mean / 1e6,
                ratio,
                mean / base_mean,
                spread(&cost.busy)?.show(100.0, 0),
                cost.intervals_ns.len(),
                cost.left_out,
                spread(&cost.by_clock)?.show(1.0, 3),
            );
        }
    }
    println!(
        "{}\n{rounds} rounds, alternating, of {} intervals of {} ms each; median (min to max).\n\n{table}",
        super::machine()?,
        options.intervals,
        options.interval.as_millis()
    );
    Ok(within)
}
