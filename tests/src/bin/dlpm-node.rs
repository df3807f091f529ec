//! The test on the node that `cargo xtask node` boots.

use std::process::ExitCode;

use dlpm_tests::node;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        // It changes the machine that it runs on.
        Some("run") if std::path::Path::new("/t/plan").exists() => node::run(),
        _ => {
            eprintln!("dlpm-node is the test of an emulated machine: start one with `cargo xtask node`");
            ExitCode::from(2)
        }
    }
}
