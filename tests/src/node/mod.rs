//! The inside of the node of `cargo xtask node`: a Debian system with systemd, Slurm, container runtimes and Prometheus,
//! on which dlpm's package is installed and measures real jobs.
//!
//! `tests/node` says what the system is made of. The plan is that of the other emulated machines
//! ([`guest`](crate::guest)): a line `case NAME` each, and only what is said on the console counts. Cases build on those
//! before them, as an operator's day does.

mod containers;
mod documents;
mod faults;
mod metered;
mod monitoring;
mod package;
mod pair;
mod shell;
mod slurm;
mod units;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
};

use crate::guest::{Report, planned};

/// Where the disk with the test is unpacked.
const TEST: &str = "/t";

/// What the host gets back.
const OUT: &str = "/t/out";

/// Every case, in the order in which they make sense.
const CASES: &[(&str, fn())] = &[
    ("boots", units::boots),
    ("package-installs", package::installs),
    ("units", units::units),
    ("user-units", units::user_units),
    ("sessions", units::sessions),
    ("prometheus-starts", monitoring::starts),
    ("slurm-starts", slurm::starts),
    ("slurm-documents", slurm::documents),
    ("slurm-jobs", slurm::jobs),
    ("slurm-many", slurm::many),
    ("podman", containers::podman),
    ("podman-rootless", containers::podman_rootless),
    ("containerd", containers::containerd),
    ("kubelet", containers::kubelet),
    ("docker", containers::docker),
    ("trace-without-root", units::trace_without_root),
    ("slurmd-is-killed", faults::slurmd_is_killed),
    ("containerd-restarts", faults::containerd_restarts),
    ("agent-restarts", faults::agent_restarts),
    ("prometheus-sums", monitoring::sums),
    ("sums", metered::sums),
    ("reboots", faults::reboots),
    ("package-upgrades", package::upgrades),
    ("package-purges", package::purges),
    ("pair-opens", pair::opens),
    ("pair-joins", pair::joins),
    ("pair-prometheus", pair::prometheus),
    ("pair-job", pair::job),
    ("pair-documents", pair::follow),
    ("pair-releases", pair::releases),
    ("pair-waits", pair::waits),
];

/// Runs the plan.
pub fn run() -> ExitCode {
    fs::create_dir_all(OUT).unwrap();
    planned(Path::new(TEST).join("plan").as_path(), run_case)
}

fn run_case(report: &mut Report, name: &str) {
    let Some((_, case)) = CASES.iter().find(|(known, _)| *known == name) else {
        return report.failed(name, "no such case");
    };
    // A case fails by panicking. What it has said by then is above.
    match catch_unwind(AssertUnwindSafe(case)) {
        Ok(()) => report.ok(name),
        Err(_) => {
            shell::show_journal();
            report.failed(name, "see above");
        }
    }
}
