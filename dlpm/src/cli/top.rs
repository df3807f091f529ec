//! `dlpm top`

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{MachineArgs, interval};

const TOP_HELP: &str = "\
Keys:
  arrows, j, k    choose a line             Tab, 1 to 4   processes, tenants, users, GPUs
  Enter, Esc      into a tenant, out of it  /             filter by name or tenant
  s, S            sort by another column    I             the smallest first
  t               a tree below tenants      Space         pause
  ?               help                      q, Ctrl-C     quit

  The line at the bottom adds up: what is listed, the other rows, and what the meters counted in the interval. A process
  that is not yours is in `others` where you are not root and not in the group dlpm. dlpm top never signals a process.

Exit status:
  0    it was quit, or has shown all frames that were asked for
  1    nothing can be measured here
  2    invalid command line

Examples:
  dlpm top
  sudo dlpm top --estimate idle=40,busy=12
  dlpm top -b -n 1
  dlpm top -b -n 60 --json | jq .power_mw";

/// `dlpm top`
#[derive(Debug, Args)]
#[command(after_long_help = TOP_HELP, after_help = "`dlpm top --help` describes keys and exit status.")]
pub struct TopArgs {
    /// Length of an interval: 100ms, 200ms, … up to 1h.
    #[arg(long, short = 'd', value_name = "T", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Print frames one after another, for scripts and files, instead of a screen.
    #[arg(long, short)]
    pub batch: bool,
    /// End after so many frames.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub frames: Option<u64>,
    /// With --batch: a frame is one line of JSON, in integers.
    #[arg(long, requires = "batch")]
    pub json: bool,
    /// Let the agent at this socket measure: it is the default where one is at /run/dlpm/agent.sock.
    #[arg(long, value_name = "SOCKET")]
    pub agent: Option<PathBuf>,
    /// How energy is read and split, where no agent does.
    #[command(flatten)]
    pub machine: MachineArgs,
}
