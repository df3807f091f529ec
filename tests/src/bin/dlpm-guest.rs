//! `/init` of the emulated machines in which `cargo xtask kernels` tests dlpm on other kernels.

use std::process::ExitCode;

use dlpm_tests::guest;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] if std::process::id() == 1 => guest::init(),
        ["run"] => guest::run(),
        ["case", name] => guest::cases::run(name),
        _ => {
            eprintln!("dlpm-guest is the first process of an emulated machine: start one with `cargo xtask kernels`");
            ExitCode::from(2)
        }
    }
}
