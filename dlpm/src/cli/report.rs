//! `dlpm report`, as it is typed.

use std::{num::NonZeroU64, path::PathBuf};

use clap::{Args, ValueEnum};

use crate::{log::window::Moment, report::facts::Target};

const REPORT_HELP: &str = "\
Window:
  --from and --to select whole intervals: those that end after --from and not after --to. A time is unix seconds
  (1767225600), a date (\"2026-01-01 12:00\", local time without an offset), or a time since the start of the log (+10m).

Energy:
  Joules of processes are the sum of all leaves (package parts, DRAM, GPUs); psys is shown and never added. Peak W is the
  highest average of one interval of at least 10 ms.

Formats:
  table is for people; json has exact integers (_uj, _ns) next to floats; csv is one table, that of --by (zone by
  default). docs/report.md describes the fields.

Many nodes:
  Several folders, and the folder of an agent (/var/lib/dlpm, or a copy of it), are added up by node, job, user, account,
  tenant or unit, exactly, and in memory that does not grow with the lines. A job of several nodes is one row. Copies of
  a line count once; two sources of the same node and time are refused. What cannot be read is said, and the status is 1
  then. docs/fleet.md describes it.

Exit status: 0; 1 if the log cannot be read, or nothing of it is in the window; 2 for an invalid command line.

Examples:
  dlpm report run1
  dlpm report run1 --by phase
  dlpm report run1 --html run1.html
  dlpm report run1 --from +10m --to +20m --format json
  dlpm report run1 --carbon 56 --pue 1.4
  dlpm report run1 --inferences 1000 --phase test
  dlpm report run1 --tokens 5000 --peak-tflops 2.4
  dlpm report run1 --reach accuracy=0.7
  dlpm report nodes/*/finished.jsonl --by job --format csv";

/// `dlpm report`
#[derive(Debug, Args)]
#[command(after_long_help = REPORT_HELP, after_help = "`dlpm report --help` describes windows, energy and formats.")]
pub struct ReportArgs {
    /// Folder of the log (or its power_metrics.json); it may be one that AIPowerMeter recorded. Several folders of logs and
    /// of agents (or their finished.jsonl), of many nodes, are added up. Or the folder of a validation (`dlpm validate`).
    #[arg(value_name = "DIR", required = true)]
    pub folders: Vec<PathBuf>,
    /// Only this table.
    #[arg(long, value_name = "TABLE", value_enum)]
    pub by: Option<By>,
    /// How the report is written.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub format: Format,
    /// Maximum number of lines in a table, not counting those that are always there [default: 15; all in json and csv].
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// A line for each process, also where several have one name.
    #[arg(long)]
    pub each: bool,
    /// Write everything as one page with curves, to be opened in a browser; it needs no network.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["by", "format", "list", "carbon", "pue", "inferences", "tokens", "peak_tflops", "reach"])]
    pub html: Option<PathBuf>,
    /// Replace the file of --html if it exists.
    #[arg(long, requires = "html")]
    pub force: bool,
    /// List the metrics that the log has, with their units.
    #[arg(long, conflicts_with_all = ["by", "from", "to", "phase", "carbon", "pue", "inferences", "tokens", "peak_tflops", "reach", "top"])]
    pub list: bool,

    /// Only what ended after this time.
    #[arg(long, value_name = "TIME", help_heading = "Window", allow_hyphen_values = true)]
    pub from: Option<Moment>,
    /// Only what ended up to this time.
    #[arg(long, value_name = "TIME", help_heading = "Window", allow_hyphen_values = true)]
    pub to: Option<Moment>,
    /// Only what is in this phase (`dlpm mark`).
    #[arg(long, value_name = "LABEL", help_heading = "Window")]
    pub phase: Option<String>,

    /// Multiply kilowatt-hours by this many grams of CO2 equivalents.
    #[arg(long, value_name = "gCO2e/kWh", value_parser = not_negative, help_heading = "Derived")]
    pub carbon: Option<f64>,
    /// Multiply kilowatt-hours by this power usage effectiveness: the watts that the data centre draws for each watt of the machine.
    #[arg(long, value_name = "F", value_parser = pue, help_heading = "Derived")]
    pub pue: Option<f64>,
    /// Divide the joules of the listed processes by this number of inferences, and by the multiply-adds of
    /// model_summary.json if it is in the folder.
    #[arg(long, value_name = "N", help_heading = "Derived")]
    pub inferences: Option<NonZeroU64>,
    /// Divide the joules of the listed processes by this number of new tokens of a language model, and by their
    /// multiply-adds if model_summary.json in the folder is that of one.
    #[arg(long, value_name = "N", help_heading = "Derived")]
    pub tokens: Option<NonZeroU64>,
    /// Compare the work with what the machine could do at most, in TFLOP/s as its maker says; needs --inferences or
    /// --tokens, and model_summary.json.
    #[arg(long, value_name = "F", value_parser = above_zero, help_heading = "Derived")]
    pub peak_tflops: Option<f64>,
    /// Show joules and time until a result (`dlpm result`) reached this value.
    #[arg(long, value_name = "METRIC=VALUE", value_parser = target, help_heading = "Derived")]
    pub reach: Vec<Target>,
}

/// The tables of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Energy meters and their parts.
    Zone,
    /// Processes.
    Process,
    /// Cgroups.
    Cgroup,
    /// Names of processes.
    Comm,
    /// Tenants: jobs, containers, units, sessions.
    Tenant,
    /// Jobs of batch systems, with the containers in them.
    Job,
    /// Users, by number.
    User,
    /// Units of systemd, with the containers in them.
    Unit,
    /// Accounts of Slurm; of many nodes.
    Account,
    /// Nodes, with all that they used; of many nodes.
    Node,
    /// Phases.
    Phase,
    /// GPUs.
    Gpu,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One object.
    Json,
    /// One table.
    Csv,
}

fn not_negative(text: &str) -> Result<f64, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| format!("`{text}` is not a non-negative number"))
}

fn above_zero(text: &str) -> Result<f64, String> {
    let number = not_negative(text).ok().filter(|number| *number > 0.0);
    number.ok_or_else(|| format!("`{text}` is not a number above 0"))
}

fn pue(text: &str) -> Result<f64, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number >= 1.0);
    number.ok_or_else(|| format!("`{text}` is not a PUE: give a number of at least 1, as in 1.4"))
}

fn target(text: &str) -> Result<Target, String> {
    let (metric, value) = metric_value(text)?;
    Ok(Target { metric, value })
}

/// `accuracy=0.7`
pub(super) fn metric_value(text: &str) -> Result<(String, f64), String> {
    let wrong = || format!("`{text}` is not of the form METRIC=VALUE, as in accuracy=0.71");
    let (metric, value) = text.split_once('=').ok_or_else(wrong)?;
    let value: f64 = value.trim().parse().map_err(|_| wrong())?;
    let metric = metric.trim();
    if metric.is_empty() || metric.chars().any(char::is_control) {
        return Err(wrong());
    }
    if !value.is_finite() {
        return Err(format!("{metric} is {value}; JSON has no such number; leave it out"));
    }
    Ok((metric.to_owned(), value))
}
impl ReportArgs {
    /// Options that are about one log of a trace, each with whether it was given.
    pub fn of_one_log(&self) -> [(&'static str, bool); 9] {
        [
            ("--each", self.each),
            ("--list", self.list),
            ("--phase", self.phase.is_some()),
            ("--carbon", self.carbon.is_some()),
            ("--pue", self.pue.is_some()),
            ("--inferences", self.inferences.is_some()),
            ("--tokens", self.tokens.is_some()),
            ("--peak-tflops", self.peak_tflops.is_some()),
            ("--reach", !self.reach.is_empty()),
        ]
    }
}
