//! `dlpm agent`

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{MachineArgs, duration, interval};
use crate::{log::rotation::Limit, socket, web};

/// Where the agent looks for its configuration.
pub const DEFAULT_CONFIG: &str = "/etc/dlpm/agent.toml";

/// Where the agent keeps its files.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/dlpm";

const AGENT_HELP: &str = "\
Configuration:
  Every option but --config and --check is also a key of the file, without the dashes before it and with `_` between its
  words: --max-tenants 500 is `max_tenants = 500`. What is typed comes first. SIGHUP reads the file again, and says what
  needs a restart.

Files in the state folder:
  state                 the counters: they go on after a restart and after kill -9, and begin at 0 when the machine does
  finished.jsonl        one line for each tenant that has ended: names, times, CPU time and energy by device
  history/              a log with a row for each tenant every minute: `dlpm report --by tenant DIR/history` reads it

Exit status:
  0    after SIGTERM or SIGINT, with everything written; with --check, if the configuration can be used
  1    it cannot, or the agent failed
  2    invalid command line

Examples:
  sudo dlpm agent
  sudo dlpm agent --check --config agent.toml
  curl -s localhost:9942/metrics";

/// `dlpm agent`
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AGENT_HELP, after_help = "`dlpm agent --help` describes configuration and files.", args_override_self = true)]
pub struct AgentArgs {
    /// The configuration [default: /etc/dlpm/agent.toml, if there is one].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say whether the configuration can be used on this machine, and start nothing.
    #[arg(long)]
    pub check: bool,
    /// Length of an interval: 100ms to 1h. What is served is as old as that at most.
    #[arg(long, value_name = "T", default_value = "1s", value_parser = agent_interval)]
    pub interval: Duration,
    /// Where Prometheus finds the counters (/metrics), and probes the state (/healthz, /readyz); port 0 is a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9942", value_parser = web::address)]
    pub listen: Vec<SocketAddr>,
    /// TLS and basic authentication: the web.config.file that the exporters of Prometheus share.
    #[arg(long, value_name = "FILE")]
    pub web_config: Option<PathBuf>,
    /// Let anybody at an address that is not loopback read what is served, without TLS or a password.
    #[arg(long)]
    pub allow_open: bool,
    /// Socket at which every user of this machine measures their own processes without root (an absolute path, in a
    /// folder of root's alone; `none`: no socket). docs/socket.md describes it.
    #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH)]
    pub socket: PathBuf,
    /// Push the counters to a collector of OpenTelemetry as well: OTLP over HTTP, by POST to URL/v1/metrics.
    #[arg(long, value_name = "URL", value_parser = web::Endpoint::parse, help_heading = "OpenTelemetry")]
    pub otlp: Option<web::Endpoint>,
    /// From one push to the next: 1s to 1h.
    #[arg(long, value_name = "T", default_value = "15s", value_parser = push_interval, help_heading = "OpenTelemetry")]
    pub otlp_interval: Duration,
    /// Headers of each push, as for a token: lines of `NAME: VALUE`.
    #[arg(long, value_name = "FILE", help_heading = "OpenTelemetry")]
    pub otlp_headers: Option<PathBuf>,
    /// Certificates of the authorities that may have signed the collector's [default: those that the system trusts].
    #[arg(long, value_name = "FILE", help_heading = "OpenTelemetry")]
    pub otlp_ca: Option<PathBuf>,
    /// Folder for the counters and for finished tenants.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// Tenants that have series of their own at a time, with those that have just ended; the others are counted together,
    /// as `others`.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_tenants: u32,
    /// How long the series of a tenant that has ended stays at least. It stays longer until every scraper of the last hour
    /// has fetched its final value twice.
    #[arg(long, value_name = "T", default_value = "10m", value_parser = duration)]
    pub keep_ended: Duration,
    /// Room for finished.jsonl; the older half of its lines is deleted when it is full.
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    pub finished_size: u64,
    /// Length of a roll-up of the history: 1s to 1h. It has a row for each tenant.
    #[arg(long, value_name = "T", default_value = "60s", value_parser = rollup_length, help_heading = "History")]
    pub history_interval: Duration,
    /// Room for the history, compressed; the oldest files are deleted. 0: no history.
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = size_or_none, help_heading = "History")]
    pub history_size: u64,
    /// How many days a file of the history is kept at most.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=36_500), help_heading = "History")]
    pub history_days: u32,
    /// How energy is read and split.
    #[command(flatten)]
    pub machine: MachineArgs,
}

impl AgentArgs {
    /// The socket, if there is to be one.
    pub fn socket(&self) -> Option<&Path> {
        Some(self.socket.as_path()).filter(|socket| *socket != Path::new("none"))
    }
}

fn agent_interval(text: &str) -> Result<Duration, String> {
    let interval = interval(text)?;
    if interval < Duration::from_millis(100) {
        return Err("an interval of the agent lasts from 100ms to 1h".to_owned());
    }
    Ok(interval)
}

fn push_interval(text: &str) -> Result<Duration, String> {
    let length = interval(text)?;
    if length < Duration::from_secs(1) {
        return Err("pushes are from 1s to 1h apart".to_owned());
    }
    Ok(length)
}

fn rollup_length(text: &str) -> Result<Duration, String> {
    let length = interval(text)?;
    if length < Duration::from_secs(1) {
        return Err("a roll-up is from 1s to 1h long".to_owned());
    }
    Ok(length)
}

fn size_or_none(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { size(text) }
}

fn size(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(Limit::Bytes(bytes)) if bytes >= 1 << 20 => Ok(bytes),
        _ => Err(format!(
            "`{text}` is not a size of at least 1M; write it as in 64M or 2G"
        )),
    }
}
