//! Carries out the steps of [`super::plan`], each said before it is done.

use std::{
    io::{IsTerminal, stderr},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    plan::Step,
    state::{SYSTEM_RUSTC, rustup},
};
use crate::{
    process::{as_root, probe, run_announced, run_bounded},
    workspace::Workspace,
};

/// The bpf-linker that is built where there is none. Its features name the LLVMs in [`super::state::LINKER_LLVMS`].
pub const LINKER_VERSION: &str = "0.13.0";

/// How long rustup may take. It fails at once where the network refuses, but waits long where nothing answers.
const RUSTUP_LIMIT: Duration = Duration::from_secs(300);

/// Installs one thing. `folder` is where a linker goes.
pub fn carry_out(step: &Step, workspace: &Workspace, folder: &Path) -> Result<()> {
    match step {
        Step::RustSource => run_bounded(
            rustup().args(["component", "add", "rust-src", "--toolchain", "nightly"]),
            RUSTUP_LIMIT,
        ),
        Step::Nightly => run_bounded(
            rustup().args([
                "toolchain",
                "install",
                "nightly",
                "--profile",
                "minimal",
                "--component",
                "rust-src",
            ]),
            RUSTUP_LIMIT,
        ),
        Step::DebianRustc => apt_install(&["rustc-web", "libstd-rust-web-dev-bpf"]),
        Step::DebianLlvm(llvm) => apt_install(&[&format!("llvm-{llvm}-dev")]),
        Step::Linker { llvm, prefix } => build_linker(workspace, *llvm, prefix, folder),
    }
}

/// Installs Debian packages. The lists are fetched where they are missing or turn out to be stale.
pub fn apt_install(packages: &[&str]) -> Result<()> {
    let install = || -> Result<Command> {
        let mut command = apt_get()?;
        command
            .args(["install", "-y", "--no-install-recommends"])
            .args(packages);
        Ok(command)
    };
    let is_known = |package: &&str| probe(Command::new("apt-cache").arg("show").arg(package)).is_some();
    let are_known = packages.iter().all(is_known);
    if are_known {
        match run_announced(&mut install()?) {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("{error:#}; trying once more with fresh package lists"),
        }
    }
    run_announced(apt_get()?.arg("update"))?;
    run_announced(&mut install()?)
}

fn apt_get() -> Result<Command> {
    // Through `env`, since sudo does not hand variables on.
    let mut command = as_root("env")?;
    command.args([
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]);
    if !stderr().is_terminal() {
        command.args(["-qq", "-o", "Dpkg::Use-Pty=0"]);
    }
    Ok(command)
}

fn build_linker(workspace: &Workspace, llvm: u32, prefix: &Path, folder: &Path) -> Result<()> {
    let mut command = workspace.cargo();
    command.env("LLVM_PREFIX", prefix).env_remove("CARGO_BUILD_TARGET");
    command.args([
        "install",
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--no-default-features",
    ]);
    // Forced: one that is there already did not start, or has an LLVM that is too old.
    command
        .args(["--features", &format!("llvm-{llvm}"), "--locked", "--force", "--root"])
        .arg(folder);
    if !stderr().is_terminal() {
        command.arg("--quiet");
    }
    run_announced(&mut command).context("bpf-linker could not be built")
}

/// What to do by hand where nothing could be installed.
pub fn by_hand() -> String {
    format!(
        "install one of these by hand, then run this again: (1) rustup's nightly with `rustup toolchain install nightly \
         --component rust-src`; or (2) a distribution's {SYSTEM_RUSTC} that ships `core` for {} (Debian: rustc-web and \
         libstd-rust-web-dev-bpf). With either, a bpf-linker on PATH whose LLVM is at least as new as that rustc's (see \
         `rustc -vV`), from `cargo install bpf-linker --version {LINKER_VERSION} --no-default-features --features llvm-N` \
         with the development files of LLVM N",
        super::state::TARGET
    )
}
