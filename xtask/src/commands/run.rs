//! `cargo xtask run`: build, then become dlpm.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use super::build::{self, Profile};
use crate::{
    process::{as_root, render, require_root},
    workspace::Workspace,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What dlpm is to do, such as `trace --duration 10s`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<OsString>,
}

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    require_root()?;
    let program = build::program(workspace, &build::object(workspace)?, Profile::Release)?;
    let mut command = as_root(&program)?;
    command.args(&args.args);
    workspace.restore_environment(&mut command);
    forget_toolchain(&mut command);
    // Replaced, not started: so terminal, signals and exit code are dlpm's own.
    Err(command.exec()).with_context(|| format!("cannot start `{}`", render(&command)))
}

/// rustup's proxy pins the toolchain for what it starts. A cargo that dlpm traces must choose its own.
fn forget_toolchain(command: &mut Command) {
    if env::var_os("RUSTUP_TOOLCHAIN_SOURCE").is_some_and(|source| source != "env") {
        command
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("RUSTUP_TOOLCHAIN_SOURCE");
    }
}
