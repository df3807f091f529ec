//! `cargo xtask build`: the eBPF object, then the program that embeds it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;

use crate::{
    toolchain::Toolchain,
    workspace::{Workspace, build_executable},
};

/// Tells dlpm's build script which eBPF object to embed.
pub const OBJECT_VARIABLE: &str = "DLPM_EBPF_OBJECT";

/// The flags of every eBPF build: BTF for the maps and the line information of the verifier's log.
pub const EBPF_FLAGS: [&str; 4] = ["-C", "debuginfo=2", "-C", "link-arg=--btf"];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Build the program without optimisation. The eBPF object is always optimised
    #[arg(long)]
    debug: bool,
}

/// How the program is compiled.
#[derive(Clone, Copy, Debug)]
pub enum Profile {
    Debug,
    Release,
}

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let profile = if args.debug { Profile::Debug } else { Profile::Release };
    let program = program(workspace, &object(workspace)?, profile)?;
    println!("{}", program.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the eBPF object and returns its path.
pub fn object(workspace: &Workspace) -> Result<PathBuf> {
    ebpf(workspace, "dlpm")
}

/// Builds the eBPF object that benchmarks measure dlpm against and returns its path.
pub fn yardsticks(workspace: &Workspace) -> Result<PathBuf> {
    ebpf(workspace, "yardsticks")
}

fn ebpf(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let toolchain = Toolchain::ensure(workspace)?;
    let mut command = toolchain.cargo(workspace, &EBPF_FLAGS);
    toolchain.arguments(workspace, command.arg("build"));
    build_executable(command.args(["--bin", name]), name)
}

/// Builds the program with `object` in it and returns its path.
pub fn program(workspace: &Workspace, object: &Path, profile: Profile) -> Result<PathBuf> {
    let mut command = workspace.cargo();
    command
        .args(["build", "--package", "dlpm"])
        .env(OBJECT_VARIABLE, object);
    if matches!(profile, Profile::Release) {
        command.arg("--release");
    }
    build_executable(&mut command, "dlpm")
}
