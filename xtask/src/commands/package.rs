//! `cargo xtask package`: a Debian package, archives, and a wheel.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use super::build;
use crate::{
    package::{archive, check, debian, program, wheel},
    process::{probe, require_root},
    workspace::Workspace,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The program in the Debian package and in the first archive needs glibc 2.28 or newer (Debian 10, \
    Ubuntu 20.04, Enterprise Linux 8) and can load NVIDIA's library. The static archive needs no library, and cannot \
    measure GPUs for that reason.\n\n\
    The program is compiled twice, with all optimisation. The first time this takes from some minutes to half an hour, \
    depending on the machine; so it is not part of CI."
)]
pub struct Args {
    /// The folder for the packages [default: target/package]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Make only the Debian package
    #[arg(long, conflicts_with_all = ["archives", "wheel"])]
    debian: bool,
    /// Make only the archives
    #[arg(long, conflicts_with = "wheel")]
    archives: bool,
    /// Make only the wheel for Python, which is the same on every machine
    #[arg(long)]
    wheel: bool,
    /// Install the Debian package, use it and remove it again
    #[arg(long, conflicts_with_all = ["archives", "wheel"])]
    check: bool,
}

/// What the static archive says, at its top.
const NO_GPUS: (&str, &str) = (
    "NO-GPUS",
    "The program in this archive is linked statically, so that it needs no library. For that reason it cannot load\n\
     NVIDIA's library, and measures no GPU. The archive without `static` in its name can, with glibc 2.28 or newer.\n",
);

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    if args.check {
        require_root()?;
    }
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| workspace.target().join("package"));
    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    let epoch_s = epoch_s(workspace)?;
    let mut made = Vec::new();
    if !args.debian && !args.archives {
        made.push(wheel::build(workspace, &output, epoch_s)?);
    }
    if !args.wheel {
        made.extend(compiled(workspace, args, &output, epoch_s)?);
    }
    for path in made {
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes what holds the program.
fn compiled(workspace: &Workspace, args: &Args, output: &Path, epoch_s: u64) -> Result<Vec<PathBuf>> {
    let object = build::object(workspace)?;
    let dynamic = program::dynamic(workspace, &object)?;

    let mut made = Vec::new();
    if !args.archives {
        let package = debian::build(workspace, &dynamic, output, epoch_s)?;
        if args.check {
            check::debian(&package)?;
        }
        made.push(package);
    }
    if !args.debian {
        made.push(archive::build(
            workspace,
            "x86_64-linux",
            &dynamic,
            None,
            output,
            epoch_s,
        )?);
        let program = program::without_libraries(workspace, &object)?;
        let kind = "x86_64-linux-static";
        made.push(archive::build(
            workspace,
            kind,
            &program,
            Some(NO_GPUS),
            output,
            epoch_s,
        )?);
        if args.check {
            check::without_libraries(&program)?;
        }
    }
    Ok(made)
}

/// The time of the last commit, so that the same sources make the same package; without git, 1970.
pub fn epoch_s(workspace: &Workspace) -> Result<u64> {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(workspace.root());
    match probe(&mut git) {
        Some(text) => text.trim().parse().context("git names no time of the last commit"),
        None => Ok(0),
    }
}
