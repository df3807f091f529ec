//! The command line: what was typed, checked for form only. What it means is decided in `commands`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use regex::Regex;

use crate::sources::energy::{estimate::Estimate, meter::EnergySource};

/// Shortest interval: sealing every CPU has to stay a small part of it.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// Longest interval.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

/// Deep-learning power measure: the joules that each process, cgroup and experiment really used.
#[derive(Debug, Parser)]
#[command(name = "dlpm", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace CPU time and energy, and write a log.
    Trace(Box<TraceArgs>),
    /// Show the state of every source and hook, and what to do about what is missing.
    Doctor(DoctorArgs),
}

const TRACE_HELP: &str = "\
Filters:
  Values of one filter are alternatives, different filters narrow each other; without a filter every process that ran
  is listed. A filter chooses what is listed, not what is measured: the rest is the row `others`, so totals close. A
  filter that matches nothing yet waits. Kernel threads are one row (`kernel`), and so is dlpm (`self`).

Output:
  A folder with power_metrics.json (one JSON object per interval, in AIPowerMeter's format with an exact part) and
  metadata.json. Under sudo it belongs to the calling user. A summary is printed at the end: to standard output, or to
  standard error where a command is traced.

Exit status:
  0    after Ctrl-C, SIGTERM or --duration; with a command, the command's own status, or 128 + the signal that ended it
  1    dlpm failed; with a command 125 (126: the command cannot be run, 127: there is no such command)
  2    the command line is wrong

Examples:
  sudo dlpm trace --cgroup train.slice
  sudo dlpm trace --comm python --uid alice --duration 10m --output run1
  sudo dlpm trace -- python train.py
  sudo dlpm trace --estimate idle=40,busy=12 -- make -j8";

/// `dlpm trace`
#[derive(Debug, Args)]
#[command(after_long_help = TRACE_HELP, after_help = "`dlpm trace --help` tells about filters, output and exit status.")]
pub struct TraceArgs {
    /// List the processes of this cgroup (v2) and those below it: a name anywhere in the tree, or a path.
    #[arg(long, value_name = "NAME|PATH", help_heading = "Filters")]
    pub cgroup: Vec<String>,
    /// List processes whose name, now or when they called exec, matches this regular expression anywhere (as pgrep
    /// does): `python` finds python3.11. Names have at most 15 bytes.
    #[arg(long, value_name = "PATTERN", value_parser = pattern, help_heading = "Filters")]
    pub comm: Vec<Regex>,
    /// List this process and all its descendants, also those that detach.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Filters")]
    pub pid: Vec<u32>,
    /// List processes of this user (real user id, by name or number).
    #[arg(long, value_name = "USER", help_heading = "Filters")]
    pub uid: Vec<String>,

    /// Length of an interval: 10ms to 1h. RAPL moves about once a millisecond, so that 1 s is good to 0.1 %.
    #[arg(long, value_name = "T", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// End the trace after this time (30s, 10m, 2h). A traced command goes on, and dlpm waits for it.
    #[arg(long, value_name = "T", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Where energy is read. `auto` takes the first that can be had: powercap, perf, the watts of --estimate.
    #[arg(long, value_name = "SOURCE", value_enum, default_value_t)]
    pub energy_source: EnergySource,
    /// Energy without a meter: watts of the idle machine and watts more for each busy CPU, as in `idle=40,busy=12`.
    /// Every figure is then labelled an estimate. A meter that can be read wins, unless --energy-source
    /// says otherwise.
    #[arg(long, value_name = "idle=W,busy=W")]
    pub estimate: Option<Estimate>,
    /// Process rows in a line at most; the smallest are merged by cgroup.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_rows: u32,

    /// Folder for the log [default: ./dlpm-DATE-TIME].
    #[arg(long, short, value_name = "DIR", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Continue the log of a folder; a torn end (a crash, kill -9) is repaired.
    #[arg(long, conflicts_with = "overwrite", requires = "output", help_heading = "Output")]
    pub append: bool,
    /// Replace the log of a folder.
    #[arg(long, requires = "output", help_heading = "Output")]
    pub overwrite: bool,
    /// What this experiment is; stands in metadata.json.
    #[arg(long, value_name = "TEXT", help_heading = "Output")]
    pub description: Option<String>,
    /// Leave out the CPU field names of 2021 (cpu_uses, mem_use_abs, …), which stand beside the newer ones.
    #[arg(long, help_heading = "Output")]
    pub no_aliases: bool,
    /// No progress line and no summary; warnings and errors are still shown.
    #[arg(long, short, help_heading = "Output")]
    pub quiet: bool,

    /// Where the tables of the kernel and of the processes are.
    #[command(flatten)]
    pub roots: Roots,
    /// Records of processes, cgroups and CPUs that the kernel side can keep beside its slots.
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=16_777_216),
        hide_short_help = true, help_heading = "Machine")]
    pub spill_entries: u32,
    /// Processes that the kernel side can keep names of.
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=16_777_216),
        hide_short_help = true, help_heading = "Machine")]
    pub process_entries: u32,

    /// Run the traced command as root; under sudo it otherwise runs as the calling user.
    #[arg(long, requires = "trace_command")]
    pub as_root: bool,
    /// Command to run; it and all its descendants are listed.
    #[arg(last = true, value_name = "COMMAND", id = "trace_command")]
    pub command: Vec<OsString>,
}

/// Roots of the kernel's trees.
#[derive(Clone, Debug, Args)]
pub struct Roots {
    /// Read /sys from here (energy zones, topology).
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/sys",
        hide_short_help = true,
        help_heading = "Machine"
    )]
    pub sysfs: PathBuf,
    /// Read /proc from here.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/proc",
        hide_short_help = true,
        help_heading = "Machine"
    )]
    pub procfs: PathBuf,
}

/// `dlpm doctor`
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 where dlpm can trace CPU time here, 1 where it cannot.")]
pub struct DoctorArgs {
    /// Where the tables of the kernel and of the processes are.
    #[command(flatten)]
    pub roots: Roots,
}

fn pattern(text: &str) -> Result<Regex, String> {
    if text.is_empty() {
        return Err("an empty pattern matches every process; leave --comm out to list all".to_owned());
    }
    // The error of the regex crate draws the pattern over several lines and points at the place.
    Regex::new(text).map_err(|error| {
        format!("{error}\nThe pattern is a regular expression; put a backslash before a character that is meant itself")
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = text
        .parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| format!("`{text}` is no duration; write it with a unit, as in 500ms, 30s, 10m or 2h"))?;
    if duration.is_zero() {
        return Err("a duration of 0 traces nothing".to_owned());
    }
    Ok(duration)
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < SHORTEST_INTERVAL || interval > LONGEST_INTERVAL {
        return Err("an interval lasts from 10ms to 1h; RAPL itself moves about once a millisecond".to_owned());
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn trace(args: &[&str]) -> Result<TraceArgs, String> {
        let line = ["dlpm", "trace"].iter().chain(args);
        match Cli::try_parse_from(line).map_err(|error| error.to_string())?.command {
            Command::Trace(args) => Ok(*args),
            Command::Doctor(_) => Err("another command".to_owned()),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn filters_can_be_given_several_times() {
        let args = trace(&[
            "--comm", "python", "--comm", "^sh$", "--pid", "7", "--", "python", "--pid", "x",
        ])
        .unwrap();
        assert_eq!(args.comm.len(), 2);
        assert_eq!(args.pid, [7]);
        assert_eq!(args.command, ["python", "--pid", "x"]);
    }

    #[test]
    fn durations_need_a_unit_and_a_sensible_size() {
        assert_eq!(
            trace(&["--interval", "100ms"]).unwrap().interval,
            Duration::from_millis(100)
        );
        assert_eq!(
            trace(&["--duration", "1h 30m"]).unwrap().duration,
            Some(Duration::from_secs(5400))
        );
        for (bad, says) in [
            (["--interval", "0s"], "traces nothing"),
            (["--interval", "1ms"], "from 10ms to 1h"),
            (["--interval", "2h"], "from 10ms to 1h"),
            (["--interval", "5"], "with a unit"),
            (["--duration", "soon"], "with a unit"),
        ] {
            let message = trace(&bad).unwrap_err();
            assert!(message.contains(says), "{bad:?}: {message}");
        }
    }

    #[test]
    fn the_energy_source_has_four_words() {
        assert_eq!(trace(&[]).unwrap().energy_source, EnergySource::Auto);
        assert_eq!(
            trace(&["--energy-source", "perf"]).unwrap().energy_source,
            EnergySource::Perf
        );
        let message = trace(&["--energy-source", "nvml"]).unwrap_err();
        assert!(message.contains("auto, powercap, perf, estimate"), "{message}");
    }

    #[test]
    fn a_bad_pattern_is_shown_with_its_place() {
        let message = trace(&["--comm", "py(thon"]).unwrap_err();
        assert!(
            message.contains("unclosed group") && message.contains("backslash"),
            "{message}"
        );
    }

    #[test]
    fn append_needs_a_folder() {
        assert!(trace(&["--append"]).unwrap_err().contains("--output"));
        assert!(trace(&["--append", "--overwrite", "-o", "x"]).is_err());
    }
}
