//! `dlpm convert`, as it is typed.

use std::path::PathBuf;

use clap::Args;

/// `dlpm convert`
#[derive(Debug, Args)]
#[command(
    after_help = "AIPowerMeter's present reader takes a log as it is. Scripts that parse dates themselves may need \
    --naive-dates; readers from before 2023-06-30 need --no-marker, with --split if the log has several segments. Dates without an \
    offset are wrong by an hour if clocks were changed during the trace.\n\n\
    Exit status: 0, or 1 if nothing was written.\n\n\
    Example:\n  dlpm convert run1 -o run1-old --naive-dates --no-marker --strip-exact"
)]
pub struct ConvertArgs {
    /// Folder of the log.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Folder for the converted log; it must not contain one.
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// Write dates without their offset, as AIPowerMeter does.
    #[arg(long)]
    pub naive_dates: bool,
    /// Leave out the CPU field names of 2021 (cpu_uses, mem_use_abs, …).
    #[arg(long)]
    pub no_aliases: bool,
    /// Leave out ends of segments, and events.
    #[arg(long)]
    pub no_marker: bool,
    /// Leave out the exact part (`dlpm`), and events.
    #[arg(long)]
    pub strip_exact: bool,
    /// Write one folder for each segment: segment-1, segment-2, … in the output folder.
    #[arg(long)]
    pub split: bool,
}
