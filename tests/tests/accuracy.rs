//! CPU time of five tenants, from the built program's log, against a second count at the same switches, and against the
//! kernel's own account of their cgroups.

use std::{env, io::Write, path::PathBuf};

use dlpm_bench::{Programs, accuracy, machine};
use dlpm_tests::{kernel::skip, require_kernel};

/// Runs of ten seconds, more on a busy machine, whose median has to be within the bounds: what the hypervisor and the
/// neighbours of a shared machine add comes and goes, and dlpm's own error would be there in every run.
const RUNS: usize = 3;

/// Short processes in a run.
const PROCESSES: u32 = 700;

#[test]
fn tenants_agree_with_their_cgroups() {
    require_kernel!();
    let Some(dlpm) = env::var_os("DLPM_BIN") else {
        return skip("DLPM_BIN does not name the built program; `cargo xtask test` sets it");
    };
    let Some(yardsticks) = env::var_os("DLPM_YARDSTICKS") else {
        return skip("DLPM_YARDSTICKS does not name the second count; `cargo xtask test` builds it");
    };
    let programs = Programs {
        dlpm: PathBuf::from(dlpm),
        worker: PathBuf::from(env!("CARGO_BIN_EXE_dlpm-worker")),
    };
    let options = accuracy::Options {
        rounds: 1,
        processes: PROCESSES,
        yardsticks: Some(PathBuf::from(yardsticks)),
        samplers: false,
        plot: None,
    };
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let run = accuracy::run(&programs, &options).unwrap();
        // Not `eprintln`, which the test harness hides when a test passes.
        let _ = writeln!(std::io::stderr(), "\n{}\n\n{}", machine().unwrap(), run.table());
        runs.push(run);
    }
    accuracy::check_medians(&runs).unwrap();
}
