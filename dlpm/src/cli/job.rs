//! `dlpm job`

use std::path::PathBuf;

use clap::Args;

use super::agent::DEFAULT_STATE_DIR;
use crate::socket;

const JOB_HELP: &str = "\
Where the figures come from:
  A job that runs is asked of the agent, at its socket. What has ended is a line of finished.jsonl in the agent's folder.
  A job that was started again under its number has a line for each time, and all of them are added up. Containers
  inside of the job count.

JSON:
  One line of less than 250 characters, as for Slurm's AdminComment. Joules and seconds are exact decimals: `joules` of
  all devices, and of them `cpu_j`, `dram_j` and `gpu_j`, where the node has such a meter; `cpu_s` is CPU time.
  `\"final\":false` means that the job runs, and that this is what it has used so far. `\"estimate\":true` is there where
  no meter measured, `lives` where the job was started more than once.

Exit status:
  0    the figures are final, or the job runs and nothing was to be waited for
  1    the job is not known on this node, or neither agent nor file can be read
  2    invalid command line
  3    the time of --wait was over: what is printed is not final

Examples:
  sudo dlpm job 4711
  sudo dlpm job 4711 --json --wait 30";

/// `dlpm job`
#[derive(Debug, Args)]
#[command(after_long_help = JOB_HELP, after_help = "`dlpm job --help` describes where figures come from, JSON and exit status.")]
pub struct JobArgs {
    /// Number of the job: that of SLURM_JOB_ID, also for a task of an array.
    #[arg(value_name = "ID", value_parser = id)]
    pub id: String,
    /// Print one line of JSON.
    #[arg(long)]
    pub json: bool,
    /// Wait for the end of the job, and for its final figures, but no longer than this. Slurm's epilog runs when the job
    /// has just ended, and the agent finds that out in its next interval.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub wait: Option<u64>,
    /// Socket of the agent.
    #[arg(long, value_name = "SOCKET", default_value = socket::DEFAULT_PATH)]
    pub agent: PathBuf,
    /// Folder of the agent.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
}

/// Characters of ids of jobs, all of which may stand in the path of a request as they are.
fn id(text: &str) -> Result<String, String> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "._-@+".contains(character);
    if text.is_empty() || text.len() > 100 || !text.chars().all(is_part) {
        return Err("the id of a job is a number, as `squeue` lists it; it has no spaces and no brackets".to_owned());
    }
    Ok(text.to_owned())
}
