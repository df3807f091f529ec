//! Everything of dlpm's development that shells out.
//!
//! `cargo xtask COMMAND` works on a machine that has cargo and nothing else of this project: each command that builds
//! finds a toolchain for eBPF, and where there is none it says what it installs and installs it.

mod browser;
mod commands;
mod docs;
mod kernels;
mod monitors;
mod node;
mod package;
mod process;
mod pypi;
mod targets;
mod toolchain;
mod walls;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    commands::{
        bench, book, build, install, keras, kernels as kernels_command, lint, models, node as node_command,
        package as package_command, run, screenshot, setup, test,
    },
    workspace::Workspace,
};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Builds, runs, tests and installs dlpm", version = None)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the eBPF object and the program that embeds it
    Build(build::Args),
    /// Build the program and run it as root, through sudo where needed
    Run(run::Args),
    /// Run every test: user space as the calling user, then the tests on the real kernel as root
    Test(test::Args),
    /// Boot other kernels in an emulator and run the tests there
    Kernels(kernels_command::Args),
    /// Boot a Debian node with Slurm, containers and Prometheus in an emulator, and measure real jobs there
    Node(node_command::Args),
    /// Measure what dlpm costs and how accurate it is, compared with a reference in the same run
    Bench(bench::Args),
    /// Check formatting, documents, licences, and clippy for user space and eBPF, with warnings as errors
    Lint(lint::Args),
    /// Build the documents as a book, with mdBook
    Book,
    /// Count real models of packages, and GGUF files by its own package, against independent counts
    Models(models::Args),
    /// Test the callback of the package for Python with a real Keras, which is some hundred megabytes
    Keras,
    /// Build the program and put it where `sudo dlpm` finds it
    Install(install::Args),
    /// Make a Debian package and archives, with manual pages and completions
    Package(package_command::Args),
    /// Trace real work, make the HTML page of it, and take the picture that is in docs
    Screenshot(screenshot::Args),
    /// Find a toolchain that builds for eBPF, or install one. The other commands do this by themselves
    Setup(setup::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Workspace::locate().and_then(|workspace| match cli.command {
        Task::Build(args) => build::main(&workspace, &args),
        Task::Run(args) => run::main(&workspace, &args),
        Task::Test(args) => test::main(&workspace, &args),
        Task::Kernels(args) => kernels_command::main(&workspace, &args),
        Task::Node(args) => node_command::main(&workspace, &args),
        Task::Bench(args) => bench::main(&workspace, &args),
        Task::Lint(args) => lint::main(&workspace, &args),
        Task::Book => book::main(&workspace),
        Task::Models(args) => models::main(&workspace, &args),
        Task::Keras => keras::main(&workspace),
        Task::Install(args) => install::main(&workspace, &args),
        Task::Package(args) => package_command::main(&workspace, &args),
        Task::Screenshot(args) => screenshot::main(&workspace, &args),
        Task::Setup(args) => setup::main(&workspace, &args),
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_a_benchmark_are_its_own() {
        Cli::try_parse_from(["xtask", "bench", "sleepers", "--rounds", "2", "--during"]).unwrap();
        assert!(Cli::try_parse_from(["xtask", "bench", "no-such"]).is_err());
    }

    #[test]
    fn run_hands_over_its_arguments_untouched() {
        for line in [
            &["xtask", "run", "--", "trace", "--duration", "2s", "--", "sleep", "1"][..],
            &["xtask", "run", "trace", "--duration", "2s", "--", "sleep", "1"][..],
        ] {
            let Task::Run(args) = Cli::try_parse_from(line).unwrap().command else {
                panic!("{line:?} is not `run`");
            };
            assert_eq!(args.args, ["trace", "--duration", "2s", "--", "sleep", "1"], "{line:?}");
        }
    }
}
