//! `cargo xtask install`: the program where `sudo dlpm` finds it.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;

use super::build::{self, Profile};
use crate::{
    process::{as_root, require_root, run_announced},
    workspace::Workspace,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder whose `bin` takes the program. sudo searches that of /usr/local
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
}

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    require_root()?;
    let program = build::program(workspace, &build::object(workspace)?, Profile::Release)?;
    let destination = std::path::absolute(&args.prefix)?.join("bin/dlpm");
    // Root's alone: what runs as root must not be writable by anybody else.
    let mut command = as_root("install")?;
    command
        .args(["-D", "--owner=root", "--group=root", "--mode=0755", "--"])
        .arg(program)
        .arg(&destination);
    run_announced(&mut command)?;
    println!("{}", destination.display());
    Ok(ExitCode::SUCCESS)
}
