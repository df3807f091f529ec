//! The `dlpm` program.

use std::process::ExitCode;

use clap::Parser;
use dlpm::{
    cli::{Cli, Command},
    commands::{
        agent, calibrate, convert, doctor, job, manual, mark, model, plot, report, result, top, trace, validate, verify,
    },
    printable::printable,
    sinks::terminal,
    web,
};

fn main() -> ExitCode {
    // Rare events of the kernel side and of libraries; RUST_LOG shows more.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format(|out, record| {
            use std::io::Write;
            writeln!(out, "dlpm: {}", printable(&record.args().to_string()))
        })
        .init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return ExitCode::from(terminal::show_usage(&usage)),
    };
    match cli.command {
        Command::Trace(args) => trace::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Agent(args) => agent::run(&args),
        Command::Job(args) => job::run(&args),
        Command::Mark(args) => mark::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::ValidateLoad(args) => validate::load::run(&args),
        Command::Model(args) => model::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Result(args) => result::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Plot(args) => plot::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::page(&args),
        Command::AgentWeb => web::child::run(),
    }
}
