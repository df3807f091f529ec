//! The command line: what was typed, checked for form only. What it means is decided in `commands`.

mod agent;
mod calibrate;
mod convert;
mod job;
mod mark;
mod model;
mod plot;
mod report;
mod result;
mod top;
mod validate;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    Args, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use regex::Regex;

pub use agent::{AgentArgs, DEFAULT_CONFIG};
pub use calibrate::CalibrateArgs;
pub use convert::ConvertArgs;
pub use job::JobArgs;
pub use report::{By, Format, ReportArgs};
pub use result::ResultArgs;
pub use top::TopArgs;
pub use validate::{LoadArgs, ValidateArgs};

use crate::{
    attribution::ledger::IdlePolicy,
    log::rotation::Limit,
    sources::{
        calibration::DEFAULT_PATH,
        energy::{estimate::Estimate, meter::EnergySource},
        events::{self, EventName},
        gpu::{GpuOptions, GpuSelection},
    },
    tenants::Wanted,
};

pub use self::plot::PlotArgs;
pub use mark::{Edge, MarkArgs};
pub use model::{ModelArgs, ModelFormat, TracedModel};

/// Shortest interval: sealing every CPU has to stay a small part of it.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// Longest interval.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

/// The idle policy that depends on what is known of the machine.
const AUTO: &str = "auto";

/// What was typed for `--idle-policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdleChoice {
    /// The one that this machine allows.
    #[default]
    Auto,
    /// That one.
    Named(IdlePolicy),
}

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
    /// Show who draws how much now: processes, tenants, users and GPUs, live.
    Top(Box<TopArgs>),
    /// Count the energy of every tenant of this machine (jobs, containers, units, users) for months, and serve it to
    /// Prometheus.
    Agent(Box<AgentArgs>),
    /// Show what a job of Slurm, OAR or PBS has used on this node, from the agent and its file of ended tenants.
    Job(JobArgs),
    /// Tell a running trace that a phase begins or ends now: it ends an interval at that moment.
    Mark(MarkArgs),
    /// Measure the idle floor of every energy zone on a quiet machine, for the idle policy `separate`.
    Calibrate(CalibrateArgs),
    /// Measure how wrong each method of splitting energy is on this machine, with loads whose energy is known.
    Validate(Box<ValidateArgs>),
    /// Count the parameters and the multiply-accumulate operations of a model file.
    Model(ModelArgs),
    /// Add up a log: energy by zone, process, cgroup, phase and GPU, as tables, JSON or CSV.
    Report(Box<ReportArgs>),
    /// Add results of an experiment (accuracy, loss, …) to its folder.
    Result(ResultArgs),
    /// Copy a log into a form that other versions of AIPowerMeter's reader can read.
    Convert(ConvertArgs),
    /// Prove a log from its own numbers: every line is split and added up again.
    Verify(VerifyArgs),
    /// Draw curves of a log as SVG or PNG.
    Plot(PlotArgs),
    /// Show the state of every source and hook, and how to get what is missing.
    Doctor(DoctorArgs),
    /// Print completions for a shell, to be put into its folder of completions.
    Completions(CompletionsArgs),
    /// Print the manual page of a command.
    #[command(hide = true)]
    Man(ManArgs),
    /// The network process of `dlpm agent`, which alone starts it.
    #[command(hide = true)]
    AgentWeb,
    /// A load of `dlpm validate`, which alone starts it.
    #[command(hide = true)]
    ValidateLoad(LoadArgs),
}

const TRACE_HELP: &str = "\
Filters:
  Values of one filter are alternatives; different filters narrow each other. Without a filter, every process that ran
  is listed. A filter chooses what is listed, not what is measured: the rest is the row `others`, so totals add up. A
  filter that matches nothing yet waits. Kernel threads are one row (`kernel`), and so is dlpm (`self`).

Output:
  A folder with power_metrics.json (one JSON object per interval, in AIPowerMeter's format with an exact part) and
  metadata.json. Under sudo it belongs to the calling user. A summary is printed at the end: to standard output, or to
  standard error if a command is traced.

Phases:
  `dlpm mark LABEL` ends an interval at that moment and begins a phase. It reaches the trace through a socket, .dlpm.sock
  in the output folder. A traced command finds its path in DLPM_SOCKET; docs/phases.md shows how Python uses it.

Exit status:
  0    after Ctrl-C, SIGTERM or --duration; with a command, the command's own status, or 128 + the signal that ended it
  1    dlpm failed; with a command 125 (126: the command cannot be run, 127: there is no such command)
  2    invalid command line

Examples:
  sudo dlpm trace --cgroup train.slice
  sudo dlpm trace --comm python --uid alice --duration 10m --output run1
  sudo dlpm trace -- python train.py
  sudo dlpm trace --estimate idle=40,busy=12 -- make -j8";

/// `dlpm trace`
#[derive(Debug, Args)]
#[command(after_long_help = TRACE_HELP, after_help = "`dlpm trace --help` describes filters, output and exit status.")]
pub struct TraceArgs {
    /// List the processes of this cgroup (v2) and those below it: a name anywhere in the tree, or a path.
    #[arg(long, value_name = "NAME|PATH", help_heading = "Filters")]
    pub cgroup: Vec<String>,
    /// List the processes of this job of Slurm, OAR or PBS (its number), or of this slot of HTCondor.
    #[arg(long, value_name = "ID", value_parser = Wanted::job, help_heading = "Filters")]
    pub job: Vec<Wanted>,
    /// List the processes of this container: its id, the first 12 digits of it or more, or its name. A container of a
    /// user's own (rootless Podman) has the user before it, as in `alice/web`.
    #[arg(long, value_name = "NAME|ID", value_parser = Wanted::container, help_heading = "Filters")]
    pub container: Vec<Wanted>,
    /// List the processes of this pod of Kubernetes.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = Wanted::pod, help_heading = "Filters")]
    pub pod: Vec<Wanted>,
    /// List the processes of this unit of systemd, and of containers in it; a user's unit has the user before it, as in
    /// `alice/jupyter.service`.
    #[arg(long, value_name = "UNIT", value_parser = Wanted::unit, help_heading = "Filters")]
    pub unit: Vec<Wanted>,
    /// List the processes of this tenant, by kind and id as the log shows them: `slurm:4711`, `session:3`.
    #[arg(long, value_name = "KIND:ID", value_parser = Wanted::tenant, help_heading = "Filters")]
    pub tenant: Vec<Wanted>,
    /// List processes whose name, now or when they called exec, contains a match of this regular expression (as for
    /// pgrep): `python` finds python3.11. Names have at most 15 bytes.
    #[arg(long, value_name = "PATTERN", value_parser = pattern, help_heading = "Filters")]
    pub comm: Vec<Regex>,
    /// List this process and all its descendants, even those that detach.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Filters")]
    pub pid: Vec<u32>,
    /// List processes of this user (real user id, by name or number).
    #[arg(long, value_name = "USER", help_heading = "Filters")]
    pub uid: Vec<String>,

    /// Length of an interval: 10ms to 1h. RAPL moves about once a millisecond, so 1 s is good to 0.1 %.
    #[arg(long, value_name = "T", default_value = "1s", value_parser = interval, allow_hyphen_values = true)]
    pub interval: Duration,
    /// End the trace after this time (30s, 10m, 2h). A traced command goes on, and dlpm waits for it.
    #[arg(long, value_name = "T", value_parser = duration, allow_hyphen_values = true)]
    pub duration: Option<Duration>,
    /// Let the agent at this socket measure: it is the default for who is not root, at /run/dlpm/agent.sock. Then your own
    /// processes are listed, and how energy is read and split is the agent's choice (docs/socket.md).
    #[arg(long, value_name = "SOCKET")]
    pub agent: Option<PathBuf>,
    /// How energy is read and split.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Count perf events at each context switch, and write what each process counted: at most 4 of those that `perf list`
    /// shows. They cost time at each switch. Energy is split by them once `dlpm calibrate --weights` has found out
    /// what they weigh on this machine [without a value: cycles, instructions, cache-misses and wide-vectors].
    #[arg(long, value_name = "EVENT,...", num_args = 0..=1, require_equals = true, value_delimiter = ',',
        default_missing_value = events::DEFAULT)]
    pub counters: Vec<EventName>,
    /// Maximum number of process rows in a line; the smallest are merged by cgroup.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
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
    /// Close the file of the log when it has this size (100M, 1G) or age (10m, 1h), compress it, and go on in a new
    /// one: for traces of days. All commands read the files as one log; AIPowerMeter reads the newest only.
    #[arg(long, value_name = "SIZE|TIME", help_heading = "Output")]
    pub rotate: Option<Limit>,
    /// What this experiment is; goes into metadata.json.
    #[arg(long, value_name = "TEXT", help_heading = "Output")]
    pub description: Option<String>,
    /// Leave out the CPU field names of 2021 (cpu_uses, mem_use_abs, …), which repeat the newer ones.
    #[arg(long, help_heading = "Output")]
    pub no_aliases: bool,
    /// A line of the summary for each process, also where several have one name.
    #[arg(long, help_heading = "Output")]
    pub each: bool,
    /// No progress line and no summary; warnings and errors are still shown.
    #[arg(long, short, help_heading = "Output")]
    pub quiet: bool,

    /// The model that is traced.
    #[command(flatten)]
    pub model: TracedModel,

    /// Run the traced command as root. Otherwise, under sudo, it runs as the calling user.
    #[arg(long, requires = "trace_command")]
    pub as_root: bool,
    /// Command to run. The command and all its descendants are listed.
    #[arg(last = true, value_name = "COMMAND", id = "trace_command")]
    pub command: Vec<OsString>,
}

impl TraceArgs {
    /// Whether a filter needs names of tenants, and not only their ids.
    pub fn by_name(&self) -> bool {
        !self.container.is_empty() || !self.pod.is_empty()
    }
}

/// How the energy of a machine is read and split.
#[derive(Clone, Debug, Args)]
pub struct MachineArgs {
    /// Where energy is read. `auto` takes the first that is available: powercap, perf, hwmon, the watts of
    /// --estimate.
    #[arg(long, value_name = "SOURCE", value_enum, default_value_t)]
    pub energy_source: EnergySource,
    /// Energy without a meter: the watts of the idle machine, and further watts for each busy CPU, as in
    /// `idle=40,busy=12`. Every figure is then labelled as an estimate. A meter that measures what can be split is
    /// preferred, unless --energy-source says otherwise.
    #[arg(long, value_name = "idle=W,busy=W")]
    pub estimate: Option<Estimate>,
    /// What becomes of idle energy. auto: separate if the power of the idle machine is known (from a calibration, from
    /// the quietest minute that `dlpm agent` saw, or the idle watts of --estimate), otherwise proportional; separate: that power goes to the row `idle`, and the tasks
    /// share the rest; proportional: all of it goes to the tasks by their weight; capacity: a task gets its share of all
    /// CPU time, and `idle` the rest. Energy of DRAM is split by memory under each policy.
    #[arg(long, value_name = "POLICY", default_value = AUTO, value_parser = idle_policy(), help_heading = "Attribution")]
    pub idle_policy: IdleChoice,
    /// The machine's idle floor, written by `dlpm calibrate`; for the idle policy separate. What `dlpm agent` has learned is
    /// beside it, and used where there is no calibration.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH, help_heading = "Attribution")]
    pub calibration: PathBuf,
    /// Weight of CPU time during which the core's other hardware thread was busy too: from 0.5 (two such threads draw
    /// what one draws alone) to 1 (twice as much).
    #[arg(long, value_name = "S", default_value = "0.55", value_parser = smt_weight, help_heading = "Attribution")]
    pub smt_weight: u32,
    /// Which GPUs are measured.
    #[command(flatten)]
    pub gpus: GpuArgs,
    /// Where /sys and /proc are.
    #[command(flatten)]
    pub roots: Roots,
    /// Number of usage records (process, cgroup, CPU) that the kernel side can keep in addition to its slots.
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=16_777_216),
        hide_short_help = true, help_heading = "Machine")]
    pub spill_entries: u32,
    /// Number of processes whose names the kernel side can keep.
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=16_777_216),
        hide_short_help = true, help_heading = "Machine")]
    pub process_entries: u32,
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
    /// Read the files of container runtimes and the list of users below here: they name tenants.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/",
        hide_short_help = true,
        help_heading = "Machine"
    )]
    pub rootfs: PathBuf,
}

/// Which GPUs are measured.
#[derive(Clone, Debug, Default, Args)]
pub struct GpuArgs {
    /// Measure these NVIDIA GPUs: all, none, or those with this index, UUID or PCI address (several with commas)
    /// [default: all].
    #[arg(long, value_name = "none|all|GPU", value_delimiter = ',', help_heading = "Machine")]
    pub gpu: Vec<GpuSelection>,
    /// NVIDIA's management library, if it is not found as libnvidia-ml.so.1.
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = "Machine")]
    pub nvml_library: Option<PathBuf>,
}

impl GpuArgs {
    /// What was asked for.
    pub fn options(&self, roots: &Roots) -> GpuOptions {
        let selection = self.gpu.iter().cloned().reduce(GpuSelection::and).unwrap_or_default();
        GpuOptions {
            selection,
            library: self.nvml_library.clone(),
            sysfs: roots.sysfs.clone(),
            ..GpuOptions::default()
        }
    }
}

/// `dlpm verify`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 if everything holds, 1 if a line fails, 2 if there is no log to read or the command \
    line is invalid. docs/log-format.md says what is proved, and what a log cannot prove."
)]
pub struct VerifyArgs {
    /// Folder of the log (or its power_metrics.json), or of a validation (or its validation.jsonl).
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Maximum number of failing lines to show.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_failures: u32,
}

/// `dlpm doctor`
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 if dlpm can trace CPU time here, itself or through an agent, 1 if it cannot.")]
pub struct DoctorArgs {
    /// Where /sys and /proc are.
    #[command(flatten)]
    pub roots: Roots,
    /// Which GPUs are measured.
    #[command(flatten)]
    pub gpus: GpuArgs,
}

/// `dlpm completions`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dlpm completions bash > ~/.local/share/bash-completion/completions/dlpm")]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: clap_complete::Shell,
}

/// `dlpm man`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dlpm man trace | man -l -")]
pub struct ManArgs {
    /// The command. Without one, the page of dlpm itself is printed.
    #[arg(value_name = "COMMAND")]
    pub of: Option<String>,
    /// Print the names of all commands that have a page.
    #[arg(long, conflicts_with = "of")]
    pub list: bool,
}

fn pattern(text: &str) -> Result<Regex, String> {
    if text.is_empty() {
        return Err("an empty pattern matches every process; leave --comm out to list all".to_owned());
    }
    // The error of the regex crate draws the pattern over several lines and points at the place.
    Regex::new(text).map_err(|error| {
        format!("{error}\nThe pattern is a regular expression: put a backslash before a character that has a special meaning")
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: jiff::SignedDuration = text
        .parse()
        .map_err(|_| format!("`{text}` is not a duration; write it with a unit, as in 500ms, 30s, 10m or 2h"))?;
    let duration = Duration::try_from(duration).map_err(|_| format!("`{text}` is negative"))?;
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

fn idle_policy() -> impl TypedValueParser<Value = IdleChoice> {
    // Only the words of the list come through.
    let words = IdlePolicy::ALL.map(IdlePolicy::as_str);
    PossibleValuesParser::new([AUTO].into_iter().chain(words))
        .map(|word| IdlePolicy::from_word(&word).map_or(IdleChoice::Auto, IdleChoice::Named))
}

/// `0.55` → 550 thousandths.
fn smt_weight(text: &str) -> Result<u32, String> {
    let wrong =
        || format!("`{text}` is not a weight: give a decimal from 0.5 to 1 with at most three digits, as in 0.55");
    let weight: f64 = text.parse().map_err(|_| wrong())?;
    let permille = (500..=1000u32).find(|permille| (f64::from(*permille) / 1000.0 - weight).abs() < 1e-9);
    permille.ok_or_else(wrong)
}

#[cfg(test)]
mod tests;
