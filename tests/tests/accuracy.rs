//! CPU time of three tenants against the kernel's own account of their cgroups, from the built program's log.

use std::{env, io::Write, path::PathBuf};

use dlpm_tests::{
    bench::{Programs, accuracy, machine},
    kernel::skip,
    require_kernel,
};

#[test]
fn three_tenants_agree_with_their_cgroups() {
    require_kernel!();
    let Some(dlpm) = env::var_os("DLPM_BIN") else {
        return skip("DLPM_BIN does not name the built program; `cargo xtask test` sets it");
    };
    let programs = Programs {
        dlpm: PathBuf::from(dlpm),
        worker: PathBuf::from(env!("CARGO_BIN_EXE_dlpm-worker")),
    };
    let run = accuracy::run(&programs).unwrap();
    // Not `eprintln`, which the test harness hides when a test passes.
    let _ = writeln!(std::io::stderr(), "\n{}\n\n{}", machine().unwrap(), run.table());
    if let Err(error) = run.check_plainly() {
        let _ = writeln!(std::io::stderr(), "Nothing left to stolen time: {error}");
    }
    run.check().unwrap();
}
