//! `dlpm calibrate`, as it is typed.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{GpuArgs, LONGEST_INTERVAL, Roots, duration};
use crate::sources::{
    calibration::DEFAULT_PATH,
    energy::meter::EnergySource,
    events::{self, EventName},
};

/// `dlpm calibrate`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0, or 1 if the machine was not quiet, has no meter that can be read, the weights are \
    wrong by more than 10 %, or the file cannot be written. Stop what runs on the machine first: whatever it draws becomes part of the floor."
)]
pub struct CalibrateArgs {
    /// How long to measure: 1s to 1h.
    #[arg(long, value_name = "T", default_value = "60s", value_parser = calibration_time)]
    pub duration: Duration,
    /// File for the result; `dlpm trace` looks for the default.
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub output: PathBuf,
    /// Where energy is read, as for `dlpm trace`.
    #[arg(long, value_name = "SOURCE", value_enum, default_value_t)]
    pub energy_source: EnergySource,
    /// Find out what perf events weigh, for --counters of `dlpm trace`, in place of the idle floor: loads of dlpm's own run
    /// on one, half and all CPUs, and a third of the runs is kept aside to see how wrong the weights are. The result is
    /// weights.json, beside the file that --output names. There are up to 33 runs.
    #[arg(long, conflicts_with = "duration")]
    pub weights: bool,
    /// Length of each run of --weights, with the time in which the machine settles (a quarter): 1s to 60s.
    #[arg(long, value_name = "T", requires = "weights", default_value = "5s", value_parser = weights_cell)]
    pub cell: Duration,
    /// The events for --weights.
    #[arg(long, value_name = "EVENT,...", requires = "weights", value_delimiter = ',', default_value = events::DEFAULT)]
    pub counters: Vec<EventName>,
    /// How much CPU time may be busy, in percent of all CPU time: 0 to 100.
    #[arg(long, value_name = "PERCENT", default_value_t = 2.0, value_parser = percent)]
    pub max_busy: f64,
    /// Which GPUs are measured.
    #[command(flatten)]
    pub gpus: GpuArgs,
    /// Where /sys and /proc are.
    #[command(flatten)]
    pub roots: Roots,
}

fn calibration_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time < Duration::from_secs(1) || time > LONGEST_INTERVAL {
        return Err("a calibration lasts from 1s to 1h; a minute is good".to_owned());
    }
    Ok(time)
}

fn weights_cell(text: &str) -> Result<Duration, String> {
    let cell = duration(text)?;
    if cell < Duration::from_secs(1) || cell > Duration::from_secs(60) {
        return Err("a run lasts from 1s to 60s; 5s is good for a first look".to_owned());
    }
    Ok(cell)
}

fn percent(text: &str) -> Result<f64, String> {
    text.trim_end_matches('%')
        .parse()
        .ok()
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| format!("`{text}` is not between 0 and 100 percent"))
}
