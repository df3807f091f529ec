//! `dlpm plot`

use std::path::PathBuf;

use clap::Args;

use crate::{log::window::Moment, plot::metrics::Metric};

const PLOT_HELP: &str = "\
Metrics:
  Those of AIPowerMeter, under its names:
    W         intel_power, total_cpu_power, uncore_power, total_dram_power, psys_power, rel_intel_power:PID,
              per_process_cpu_power:PID, per_process_dram_power:PID
    fraction  per_process_cpu_uses:PID, per_process_mem_use_percent:PID (parts of 1, despite its name)
    bytes     total_mem_use, per_process_mem_use_abs:PID, per_process_mem_use_uss:PID
    s         absolute_cpu_time_per_pid:PID
    GPU       W: nvidia_power, per_gpu_nvidia_power:GPU, per_gpu_attributable_power:GPU,
              nvidia_estimated_attributable_power_draw; percent: nvidia_use_rate, per_gpu_nvidia_use_rate:GPU, sm:GPU:PID;
              bytes: nvidia_memory, per_gpu_nvidia_memory:GPU, memory:GPU:PID; and their older names
  and those of the exact part of the log, all in W:
    zone:NAME       a meter or a part of it: zone:package-0, zone:package-0/core, zone:dram-0, zone:psys, zone:machine
    process:PID     what a process got of all zones that are split, DRAM and GPUs too
    comm:NAME       what all processes of this name got
    cgroup:PATH     what a cgroup and those below it got: cgroup:/train.slice
    row:NAME        others, kernel, self, idle or unattributed
  Without PID or GPU, watts, bytes and fractions are the sum of all. `--list` shows what a log has.

Curves:
  A line is the average over a piece of time that is about a pixel wide, computed from energy, so nothing is lost between
  samples. The pale area behind it goes from the lowest to the highest value in that piece, so a peak stays visible in a
  log of any length. Where nothing is known, there is a gap. Phases are bands above the curves.

Examples:
  dlpm plot run1 -m intel_power,per_process_cpu_power:4242 -o power.svg
  dlpm plot run1 -m zone:package-0,cgroup:/train.slice -m total_mem_use --phase train -o train.png
  dlpm plot run1 --list";

/// `dlpm plot`
#[derive(Debug, Args)]
#[command(
    after_long_help = PLOT_HELP,
    after_help = "`dlpm plot --help` lists the metrics. Exit status: 0, or 1 if the plot cannot be made."
)]
pub struct PlotArgs {
    /// Folder of the log (or its power_metrics.json), by dlpm or by AIPowerMeter.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// What to draw; several with commas, in at most two units.
    #[arg(long, short, value_name = "METRIC", value_delimiter = ',', value_parser = metric, required_unless_present = "list")]
    pub metric: Vec<Metric>,
    /// The file: .svg, or .png (at twice the size in dots).
    #[arg(long, short, value_name = "FILE", required_unless_present = "list")]
    pub output: Option<PathBuf>,
    /// Replace the file if it exists.
    #[arg(long)]
    pub force: bool,
    /// Only what ended after this time: unix seconds, a date, or a time since the start of the log (+10m).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: Option<Moment>,
    /// Only what ended up to this time.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub to: Option<Moment>,
    /// Only what is in this phase (`dlpm mark`).
    #[arg(long, value_name = "LABEL")]
    pub phase: Option<String>,
    /// Width and height in pixels: 200x150 to 8000x8000.
    #[arg(long, value_name = "WxH", default_value = "900x420", value_parser = size)]
    pub size: (u32, u32),
    /// A title above the plot.
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// List the metrics that the log has, and draw nothing.
    #[arg(long, conflicts_with_all = ["metric", "output"])]
    pub list: bool,
}

fn metric(text: &str) -> Result<Metric, String> {
    Metric::parse(text.trim()).map_err(|error| error.to_string())
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let (width, height) = text.split_once(['x', 'X']).unwrap_or((text, ""));
    match (width.trim().parse(), height.trim().parse()) {
        (Ok(width @ 200..=8000), Ok(height @ 150..=8000)) => Ok((width, height)),
        _ => Err("give width and height in pixels as in 900x420, from 200x150 to 8000x8000".to_owned()),
    }
}
