//! `cargo xtask bench`: builds the release program and the benchmarks, and runs one of them as root.
//!
//! What is measured and how is in `tests/bench`; here is what a benchmark needs from outside.

use std::{ffi::OsString, path::Path, process::ExitCode};

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::build::{self, OBJECT_VARIABLE, Profile};
use crate::{
    monitors,
    process::{as_root, render, require_root},
    toolchain::install::apt_install,
    workspace::{Workspace, build_executable},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The benchmark
    #[arg(value_enum)]
    name: Name,
    /// Its options; `cargo xtask bench NAME -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// dlpm's CPU time per interval with 10,000 idle processes, compared with none; fails above a ratio of 1.2
    Sleepers,
    /// dlpm's CPU time per interval against the number of processes that ran; fails above 2 µs for each
    Interval,
    /// CPU time of five tenants by dlpm and by tools that sample, against their cgroups' cpu.stat; fails where dlpm is beyond
    /// 1.5 %, or 0.5 % in all, in more than a tenth of the runs
    Accuracy,
    /// dlpm's CPU time with 8 GPUs and 64 processes on them, beyond the time inside NVML; fails above 1 % of a core
    Gpu,
    /// Cost of a context switch in the kernel and of a ping-pong, compared with bpftrace, libbpf-tools and psutil; fails beyond
    /// a third of bpftrace's, or 1.25 times that of the bare helper calls
    Overhead,
    /// Interrupts of an idle CPU and the time of a seal, where idle CPUs are turned, compared with interrupting them; fails above
    /// half of the interrupts
    Pace,
    /// 10 million intervals that end while a CPU leaves idle; fails where one is not exact, below one race in 1,000 intervals,
    /// and where it does not fail without the barrier
    Race,
    /// The time and memory of a start, compared with bpftrace and perf; fails above 40 MiB, or 2.5 times bpftrace's CPU time
    Start,
    /// The agent with 1,000 tenants, compared with a scanner of /proc and node_exporter, and a simulated week; fails above 0.2 %
    /// of a core, 40 MiB, or a scrape of node_exporter
    Agent,
    /// Recordings of the agent, and `dlpm top` compared with htop, with 2,000 sleeping processes; fails where one more recording
    /// costs a tenth of the agent with one, or top as much as htop
    Clients,
    /// What 500 simulated agents with 50 tenants each ask of a real Prometheus and a real VictoriaMetrics: series, samples, bytes
    /// and memory
    Fleet,
    /// Reading a model of 100 MB, compared with reading and hashing its bytes; fails from a ratio of 2 on
    Model,
    /// `dlpm report` on 86,400 lines of 50 rows, against Python's json; fails where it is slower, or holds above 64 MiB
    Report,
    /// 10,000 mutated folders through every reader; fails at a panic, a hang, above 256 MiB or 5 s, and where a control
    /// character is shown
    Hostile,
}

impl Name {
    fn as_str(self) -> &'static str {
        match self {
            Self::Sleepers => "sleepers",
            Self::Interval => "interval",
            Self::Accuracy => "accuracy",
            Self::Gpu => "gpu",
            Self::Overhead => "overhead",
            Self::Pace => "pace",
            Self::Race => "race",
            Self::Start => "start",
            Self::Agent => "agent",
            Self::Clients => "clients",
            Self::Fleet => "fleet",
            Self::Model => "model",
            Self::Report => "report",
            Self::Hostile => "hostile",
        }
    }
}

/// What `bench overhead` compares dlpm with: a file of each, and the Debian package that it comes from.
const PEERS: [(&str, &str); 3] = [PSUTIL, BPFTRACE, ("/usr/sbin/cpudist", "libbpf-tools")];

const BPFTRACE: (&str, &str) = ("/usr/bin/bpftrace", "bpftrace");

/// The same for `bench start`.
const STARTED: [(&str, &str); 2] = [BPFTRACE, ("/usr/bin/perf", "linux-perf")];

/// The same for `bench agent`.
const NODE_EXPORTER: (&str, &str) = ("/usr/bin/prometheus-node-exporter", "prometheus-node-exporter");

/// The same for `bench clients`.
const HTOP: (&str, &str) = ("/usr/bin/htop", "htop");

/// The same for `bench accuracy`.
const PSUTIL: (&str, &str) = ("/usr/lib/python3/dist-packages/psutil/__init__.py", "python3-psutil");

/// The benchmark goes on without those that cannot be had, and says so.
fn install(peers: &[(&str, &str)]) {
    for &(file, package) in peers {
        if !Path::new(file).exists()
            && let Err(error) = apt_install(&[package])
        {
            eprintln!("{package} cannot be installed, so dlpm is not compared with it: {error:#}");
        }
    }
}

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    require_root()?;
    let object = build::object(workspace)?;
    let program = build::program(workspace, &object, Profile::Release)?;
    let mut benchmarks = workspace.cargo();
    benchmarks
        .args([
            "build",
            "--release",
            "--package",
            "dlpm-bench",
            "--package",
            "dlpm-tests",
            "--bins",
        ])
        // The same object, or dlpm would be built anew.
        .env(OBJECT_VARIABLE, &object);
    let benchmarks = build_executable(&mut benchmarks, "dlpm-bench")?;
    let mut command = as_root(&benchmarks)?;
    command.arg(args.name.as_str()).arg("--program").arg(program);
    match args.name {
        Name::Overhead => install(&PEERS),
        Name::Accuracy => install(&[PSUTIL]),
        Name::Start => install(&STARTED),
        Name::Agent => install(&[NODE_EXPORTER]),
        Name::Clients => install(&[HTOP]),
        Name::Fleet => {
            let [prometheus, victoria_metrics] = monitors::servers(workspace)?;
            command.arg("--prometheus").arg(prometheus);
            command.arg("--victoria-metrics").arg(victoria_metrics);
        }
        _ => {}
    }
    if matches!(args.name, Name::Overhead | Name::Accuracy) {
        command.arg("--yardsticks").arg(build::yardsticks(workspace)?);
    }
    command.args(&args.options);
    workspace.restore_environment(&mut command);
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", render(&command)))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
