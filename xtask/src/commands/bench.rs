//! `cargo xtask bench`: builds the release program and the benchmarks, and runs one of them as root.
//!
//! What is measured and how is in `tests/src/bench`; here is what a benchmark needs from outside.

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::build::{self, OBJECT_VARIABLE, Profile};
use crate::{
    process::{as_root, render, require_root},
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
    /// dlpm's CPU time per interval with 2,000 processes that only exist, beside none; fails above a ratio of 1.2
    Sleepers,
    /// dlpm's CPU time per interval against the number of processes that ran
    Interval,
    /// CPU time of three tenants by dlpm and by their cgroups' cpu.stat; fails beyond 1.5 %, or 0.5 % in all
    Accuracy,
    /// Reading a model of 100 MB beside reading and hashing its bytes; fails from a ratio of 2 on
    Model,
}

impl Name {
    fn as_str(self) -> &'static str {
        match self {
            Self::Sleepers => "sleepers",
            Self::Interval => "interval",
            Self::Accuracy => "accuracy",
            Self::Model => "model",
        }
    }
}

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    require_root()?;
    let object = build::object(workspace)?;
    let program = build::program(workspace, &object, Profile::Release)?;
    let mut benchmarks = workspace.cargo();
    benchmarks
        .args(["build", "--release", "--package", "dlpm-tests", "--bins"])
        // The same object, or dlpm would be built anew.
        .env(OBJECT_VARIABLE, &object);
    let benchmarks = build_executable(&mut benchmarks, "dlpm-bench")?;
    let mut command = as_root(&benchmarks)?;
    command
        .arg(args.name.as_str())
        .arg("--program")
        .arg(program)
        .args(&args.options);
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
