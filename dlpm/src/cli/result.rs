//! `dlpm result`, as it is typed.

use std::path::PathBuf;

use clap::Args;

use super::report::metric_value;
use crate::log::window::Moment;

/// `dlpm result`
#[derive(Debug, Args)]
#[command(
    after_help = "Results go to results_exp.json in the folder, in the form that AIPowerMeter's reader loads; `dlpm report` \
    shows the joules until each. Results can be added while the trace runs.\n\n\
    Exit status: 0, or 1 if nothing was written.\n\n\
    Example:\n  dlpm result run1 accuracy=0.71 loss=0.83"
)]
pub struct ResultArgs {
    /// Folder of the log.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Name and value of each result.
    #[arg(value_name = "METRIC=VALUE", required = true, value_parser = metric_value)]
    pub values: Vec<(String, f64)>,
    /// When the model reached these results: unix seconds, or a date (local time, if it has no offset) [default: now].
    #[arg(long, value_name = "TIME")]
    pub date: Option<Moment>,
}
