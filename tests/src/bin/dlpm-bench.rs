//! The benchmarks, as root: `cargo xtask bench` builds what they need and starts this.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use dlpm_tests::{
    bench::{
        Programs, accuracy, interval, machine, model, sleepers,
        stats::{Spread, float},
    },
    kernel,
};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    benchmark: Benchmark,
    /// The program that is measured.
    #[arg(long, value_name = "PATH", global = true, default_value = "dlpm")]
    program: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// dlpm's CPU time per interval with processes that only exist, beside none
    Sleepers(SleepersArgs),
    /// dlpm's CPU time per interval against the number of processes that ran
    Interval(IntervalArgs),
    /// CPU time of three tenants by dlpm and by their cgroups' cpu.stat
    Accuracy(AccuracyArgs),
    /// Reading a model of 100 MB beside reading and hashing its bytes
    Model(ModelArgs),
}

#[derive(Debug, Args)]
struct SleepersArgs {
    /// Sleeping processes
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    sleepers: u32,
    /// Alternating rounds at most
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = at_least_one)]
    rounds: usize,
    /// Intervals of each kind that are enough: those in which others used at most a quarter of the CPUs
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = at_least_one)]
    quiet: usize,
    /// Intervals (of 1 s) in each measurement. Memory is read every 10 s
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    intervals: usize,
    /// Also with processes that were started while dlpm traced
    #[arg(long)]
    during: bool,
}

#[derive(Debug, Args)]
struct IntervalArgs {
    /// Processes started in each interval
    #[arg(long, value_name = "N,N…", value_delimiter = ',', default_value = "10,1000,10000")]
    counts: Vec<u32>,
    /// Alternating rounds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    rounds: usize,
    /// Intervals in each measurement
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    intervals: usize,
    /// Length of an interval in seconds: long enough for the machine to start that many
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

#[derive(Debug, Args)]
struct AccuracyArgs {
    /// Runs, about half a minute each
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one)]
    rounds: usize,
}

#[derive(Debug, Args)]
struct ModelArgs {
    /// Alternating rounds
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = at_least_one)]
    rounds: usize,
    /// Weights in the file, of 4 MiB each
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = at_least_one)]
    weights: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a whole number from 1 on".to_owned()),
        Ok(number) => Ok(number),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether what was measured is within its bounds.
fn run(cli: Cli) -> Result<bool> {
    if let Benchmark::Model(args) = &cli.benchmark {
        return run_model(args);
    }
    if let Err(reason) = kernel::available() {
        bail!("dlpm cannot trace here: {reason}");
    }
    let programs = Programs {
        dlpm: cli.program,
        worker: std::env::current_exe()?.with_file_name("dlpm-worker"),
    };
    match cli.benchmark {
        Benchmark::Sleepers(args) => {
            let within = sleepers::run(
                &programs,
                &sleepers::Options {
                    sleepers: args.sleepers,
                    rounds: args.rounds,
                    intervals: args.intervals,
                    quiet: args.quiet,
                    interval: Duration::from_secs(1),
                    during: args.during,
                },
            )?;
            if !within {
                eprintln!(
                    "error: a ratio of medians is above {}, or too few intervals were quiet",
                    sleepers::LARGEST_RATIO
                );
            }
            Ok(within)
        }
        Benchmark::Interval(args) => {
            interval::run(
                &programs,
                &interval::Options {
                    counts: args.counts,
                    rounds: args.rounds,
                    intervals: args.intervals,
                    interval: Duration::from_secs(args.seconds),
                },
            )?;
            Ok(true)
        }
        Benchmark::Accuracy(args) => run_accuracy(&programs, args.rounds),
        Benchmark::Model(args) => run_model(&args),
    }
}

fn run_model(args: &ModelArgs) -> Result<bool> {
    let within = model::run(&model::Rounds {
        rounds: args.rounds,
        layers: args.weights,
    })?;
    if !within {
        eprintln!("error: the median of the ratios is not below {}", model::LARGEST_RATIO);
    }
    Ok(within)
}

fn run_accuracy(programs: &Programs, rounds: usize) -> Result<bool> {
    println!("{}\n", machine()?);
    let (mut within, mut plain) = (0, 0);
    let mut runs = Vec::new();
    for round in 1..=rounds {
        let run = accuracy::run(programs)?;
        println!("Run {round}\n\n{}", run.table());
        plain += usize::from(run.check_plainly().is_ok());
        match run.check() {
            Ok(()) => within += 1,
            Err(error) => println!("{error}\n"),
        }
        runs.push(run);
    }
    println!("Difference in percent, of {rounds} runs: median (min to max)\n\n| tenant | difference |\n|---|---|");
    for index in 0..runs[0].tenants.len() {
        let of_runs = runs.iter().map(|run| run.tenants[index].percent());
        if let Some(spread) = Spread::of(of_runs) {
            println!("| {} | {} |", runs[0].tenants[index].what, spread.show(1.0, 3));
        }
    }
    if let Some(spread) = Spread::of(runs.iter().map(|run| run.total().percent())) {
        println!("| all | {} |", spread.show(1.0, 3));
    }
    if let Some(spread) = Spread::of(runs.iter().map(accuracy::Accuracy::unexplained_percent)) {
        println!("| all, that stolen time cannot explain | {} |", spread.show(1.0, 3));
    }
    let seconds = Spread::of(runs.iter().map(|run| float(run.total().by_kernel_ns)));
    println!(
        "\n{within} of {rounds} runs within {} % per tenant and, for what stolen time cannot explain, {} % in all; {plain} of \
         {rounds} also where nothing is left to stolen time. CPU seconds in a run: {}",
        accuracy::TENANT_PERCENT,
        accuracy::TOTAL_PERCENT,
        seconds.map_or_else(String::new, |seconds| seconds.show(1e-9, 1))
    );
    Ok(within == rounds)
}
