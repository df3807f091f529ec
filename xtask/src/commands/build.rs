//! `cargo xtask build`: the eBPF object, then the program that embeds it.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::Result;

use crate::{
    targets::Target,
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
    /// Build the program for another machine [default: this one]
    #[arg(
        long,
        value_name = "TARGET",
        long_help = "Build the program for another machine [default: this one]. \
        What is missing of the standard library is added with rustup; zig, which compiles and links C for it, comes from PyPI"
    )]
    target: Option<Target>,
}

/// How the program is compiled.
#[derive(Clone, Copy, Debug)]
pub enum Profile {
    Debug,
    Release,
}

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let profile = if args.debug { Profile::Debug } else { Profile::Release };
    let object = object(workspace)?;
    let program = match args.target {
        Some(target) => program_for(target, workspace, &object, profile)?,
        None => program(workspace, &object, profile)?,
    };
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
    command.arg("build");
    finish(&mut command, object, profile)
}

/// Builds the program for another machine.
fn program_for(target: Target, workspace: &Workspace, object: &Path, profile: Profile) -> Result<PathBuf> {
    finish(&mut target.cargo_build(workspace)?, object, profile)
}

fn finish(command: &mut Command, object: &Path, profile: Profile) -> Result<PathBuf> {
    command.args(["--package", "dlpm"]).env(OBJECT_VARIABLE, object);
    if matches!(profile, Profile::Release) {
        command.arg("--release");
    }
    build_executable(command, "dlpm")
}
