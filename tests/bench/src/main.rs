//! The benchmarks, as root: `cargo xtask bench` builds what they need and starts this.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use dlpm_bench::{
    Programs, accuracy, agent, at_least_one, fleet, gpu, interval, model, overhead, pace, race, report, sleepers, start,
};
use dlpm_tests::{hostile, kernel};

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
    /// CPU time of five tenants by dlpm and by tools that sample, against their cgroups' cpu.stat
    Accuracy(AccuracyArgs),
    /// dlpm's CPU time with 8 GPUs and 64 processes on them, beyond the time inside NVML
    Gpu(GpuArgs),
    /// Cost of a context switch in the kernel and of a ping-pong, beside other tools
    Overhead(OverheadArgs),
    /// What turning idle CPUs saves and costs, compared with interrupting them
    Pace(PaceArgs),
    /// Intervals that end while a CPU leaves idle: whether each is exact
    Race(RaceArgs),
    /// The time and memory of a start, beside bpftrace and perf
    Start(StartArgs),
    /// `dlpm report` on a day of samples, against Python's json reading the same lines
    Report(ReportArgs),
    /// Write the log of that benchmark
    #[command(hide = true)]
    WriteLog {
        /// The file
        path: PathBuf,
        /// Intervals
        lines: u64,
        /// Rows of each
        rows: u32,
    },
    /// Write the log of the same benchmark with --rotated
    #[command(hide = true)]
    WriteNode {
        /// The folder
        path: PathBuf,
        /// Intervals
        lines: u64,
        /// Rows of each
        rows: u32,
        /// `plain`, or `rotated`
        #[arg(value_parser = ["plain", "rotated"])]
        files: String,
    },
    /// What the agent costs with many tenants, beside a scanner of /proc and node_exporter, and a simulated week of it
    Agent(AgentArgs),
    /// What recordings cost the agent, and `dlpm top` beside htop
    Clients(agent::Options),
    /// What 500 agents ask of Prometheus and of VictoriaMetrics: series, samples, bytes and memory
    Fleet(fleet::Options),
    /// Reading a model of 100 MB beside reading and hashing its bytes
    Model(ModelArgs),
    /// Mutated folders through every reader: no panic, no hang, bounded memory, nothing that controls a terminal
    Hostile(HostileArgs),
}

#[derive(Debug, Args)]
struct HostileArgs {
    /// Folders
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    folders: u64,
    /// Number of the first one, which says what is changed in it
    #[arg(long, value_name = "N", default_value_t = 0)]
    first: u64,
    /// Writes the first folder here, and tries none
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct SleepersArgs {
    /// Sleeping processes
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    sleepers: u32,
    /// Length of an interval in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    length: u64,
    /// Alternating rounds at most
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = at_least_one)]
    rounds: usize,
    /// Intervals of each kind that are enough: those in which others used at most a quarter of the CPUs
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = at_least_one)]
    quiet: usize,
    /// Intervals in each measurement. Memory is read every 10 s
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    intervals: usize,
    /// Also with processes that were started while dlpm traced
    #[arg(long)]
    during: bool,
}

#[derive(Debug, Args)]
struct IntervalArgs {
    /// Processes that run in each interval; the first count is what the others are compared with
    #[arg(long, value_name = "N,N…", value_delimiter = ',', default_value = "10,1000,10000")]
    counts: Vec<u32>,
    /// Alternating rounds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    rounds: usize,
    /// Intervals in each measurement
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = at_least_one)]
    intervals: usize,
    /// Lengths of the intervals in which processes wake up that were there before, in milliseconds
    #[arg(long, value_name = "MS,MS…", value_delimiter = ',', default_value = "1000,100", value_parser = clap::value_parser!(u64).range(10..=600_000))]
    lengths: Vec<u64>,
    /// Length of the intervals in which processes are started, in seconds: long enough for the machine to start that many
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

#[derive(Debug, Args)]
struct AccuracyArgs {
    /// Runs, about half a minute each
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    rounds: usize,
    /// Short processes in a run, one after another
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    processes: u32,
    /// Draw the differences into this file (SVG)
    #[arg(long, value_name = "PATH")]
    plot: Option<PathBuf>,
    /// The eBPF object that follows the kernel's own account
    #[arg(long, value_name = "PATH", hide = true)]
    yardsticks: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct GpuArgs {
    /// Alternating rounds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one)]
    rounds: usize,
    /// Intervals (of 1 s) in each measurement
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    intervals: usize,
}

#[derive(Debug, Args)]
struct OverheadArgs {
    /// Alternating rounds
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = at_least_one)]
    rounds: usize,
    /// Round trips in a piece of the ping-pong
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    round_trips: u32,
    /// Another build of dlpm, measured in the same run; can be given several times
    #[arg(long, value_name = "PATH")]
    beside: Vec<PathBuf>,
    /// The eBPF object that dlpm is measured against
    #[arg(long, value_name = "PATH", hide = true)]
    yardsticks: PathBuf,
}

#[derive(Debug, Args)]
struct PaceArgs {
    /// Alternating rounds
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = at_least_one)]
    rounds: usize,
    /// Intervals in each measurement
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    intervals: u32,
    /// Length of an interval in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    length: u64,
}

#[derive(Debug, Args)]
struct RaceArgs {
    /// Intervals
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    intervals: u64,
}

#[derive(Debug, Args)]
struct StartArgs {
    /// Alternating rounds
    #[arg(long, value_name = "N", default_value_t = 21, value_parser = at_least_one)]
    rounds: usize,
    /// Another build of dlpm, measured in the same run; can be given several times
    #[arg(long, value_name = "PATH")]
    beside: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct ReportArgs {
    /// Intervals of the log: 86400 are a day of seconds, and 3 GiB with 50 rows
    #[arg(long, value_name = "N", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    lines: u64,
    /// Rows of each interval
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(5..=2_000))]
    rows: u32,
    /// The log of a node with --rows processes, four fixed rows included, in one file and rotated: what they take, and how
    /// fast they are read; fails above 2.5 MB a process and day, or where the rotated one is read slower
    #[arg(long)]
    rotated: bool,
    /// Alternating rounds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one)]
    rounds: usize,
    /// Where the log is written; it is deleted afterwards [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct AgentArgs {
    #[command(flatten)]
    options: agent::Options,
    /// Tenants of the simulated week
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    week: u64,
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
    if let Benchmark::WriteLog { path, lines, rows } = &cli.benchmark {
        return report::write(path, *lines, *rows).map(|()| true);
    }
    if let Benchmark::WriteNode {
        path,
        lines,
        rows,
        files,
    } = &cli.benchmark
    {
        return report::write_node(path, *lines, *rows, files == "rotated").map(|()| true);
    }
    if let Benchmark::Report(args) = cli.benchmark {
        return run_report(cli.program, args);
    }
    if let Benchmark::Fleet(options) = &cli.benchmark {
        return fleet::run(options);
    }
    if let Benchmark::Hostile(args) = &cli.benchmark {
        return run_hostile(&cli.program, args);
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
                    interval: Duration::from_millis(args.length),
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
            let options = interval::Options {
                counts: args.counts,
                rounds: args.rounds,
                intervals: args.intervals,
                lengths: args.lengths.into_iter().map(Duration::from_millis).collect(),
                starting: Duration::from_secs(args.seconds),
            };
            let within = interval::run(&programs, &options)?;
            if !within {
                eprintln!(
                    "error: a further process that was there before costs more than {} µs",
                    interval::LARGEST_US
                );
            }
            Ok(within)
        }
        Benchmark::Accuracy(args) => {
            let options = accuracy::Options {
                rounds: args.rounds,
                processes: args.processes,
                yardsticks: args.yardsticks,
                samplers: true,
                plot: args.plot,
            };
            let within = accuracy::bench(&programs, &options)?;
            if !within {
                eprintln!("error: more than a tenth of the runs are beyond a bound");
            }
            Ok(within)
        }
        Benchmark::Overhead(args) => {
            let options = overhead::Options {
                rounds: args.rounds,
                round_trips: args.round_trips,
                yardsticks: args.yardsticks,
                beside: args.beside,
            };
            let within = overhead::run(&programs, &options)?;
            if !within {
                eprintln!("error: a bound is exceeded, or could not be judged");
            }
            Ok(within)
        }
        Benchmark::Pace(args) => {
            let within = pace::run(
                &programs,
                pace::Options {
                    rounds: args.rounds,
                    intervals: args.intervals,
                    length: Duration::from_millis(args.length),
                },
            )?;
            if !within {
                eprintln!("error: idle CPUs are interrupted");
            }
            Ok(within)
        }
        Benchmark::Race(args) => {
            let within = race::run(args.intervals)?;
            if !within {
                eprintln!("error: an interval was not exact, or too few races were met to tell");
            }
            Ok(within)
        }
        Benchmark::Start(args) => {
            let options = start::Options {
                rounds: args.rounds,
                beside: args.beside,
            };
            let within = start::run(&programs.dlpm, &options)?;
            if !within {
                eprintln!("error: a bound is exceeded, or could not be judged");
            }
            Ok(within)
        }
        Benchmark::Agent(args) => {
            let within = agent::week(args.week)? & agent::run(&programs, &args.options)?;
            if !within {
                eprintln!("error: a bound is exceeded, or could not be judged");
            }
            Ok(within)
        }
        Benchmark::Clients(options) => {
            let within = agent::clients(&programs, &options)?;
            if !within {
                eprintln!("error: a bound is exceeded, or could not be judged");
            }
            Ok(within)
        }
        Benchmark::Gpu(args) => {
            let options = gpu::Options {
                rounds: args.rounds,
                intervals: args.intervals,
            };
            let within = gpu::run(&programs, &options)?;
            if !within {
                eprintln!("error: GPUs cost {} % of a core or more", gpu::LARGEST_PERCENT);
            }
            Ok(within)
        }
        Benchmark::Model(_)
        | Benchmark::WriteLog { .. }
        | Benchmark::WriteNode { .. }
        | Benchmark::Report(_)
        | Benchmark::Hostile(_)
        | Benchmark::Fleet(_) => {
            bail!("it needs no kernel")
        }
    }
}

fn run_hostile(dlpm: &Path, args: &HostileArgs) -> Result<bool> {
    if let Some(folder) = &args.write {
        hostile::Good::new().write(folder, args.first);
        return Ok(true);
    }
    let numbers = args.first..args.first.saturating_add(args.folders);
    let this = std::env::current_exe()?;
    let write = |folder: &Path, number: u64| {
        let mut command = Command::new(&this);
        command
            .args(["hostile", "--first", &number.to_string(), "--write"])
            .arg(folder);
        match command.status() {
            Ok(status) if status.success() => {}
            result => eprintln!("error: folder {number} was not made: {result:?}"),
        }
    };
    let (used, failures) = hostile::check_all(dlpm, numbers, hostile::Limits::default(), &write);
    for failure in &failures {
        println!("{failure}");
    }
    println!(
        "{} folders, {} runs: at most {:.2} s of CPU time and {} MiB; {} folders fail",
        args.folders,
        used.runs,
        used.cpu.as_secs_f64(),
        used.peak_kib >> 10,
        failures.len()
    );
    Ok(failures.is_empty())
}

fn run_report(dlpm: PathBuf, args: ReportArgs) -> Result<bool> {
    let options = report::Options {
        lines: args.lines,
        rows: args.rows,
        rounds: args.rounds,
        folder: args.folder,
    };
    if args.rotated {
        let within = report::run_rotated(&dlpm, &options)?;
        if !within {
            eprintln!(
                "error: a rotated log took more than 2.5 MB for a process and day, or more time than a plain one"
            );
        }
        return Ok(within);
    }
    let within = report::run(&dlpm, &options)?;
    if !within {
        eprintln!(
            "error: dlpm was slower than Python, or held more than {} MiB",
            report::LARGEST_BYTES >> 20
        );
    }
    Ok(within)
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
