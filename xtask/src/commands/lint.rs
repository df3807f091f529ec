//! `cargo xtask lint`: formatting and clippy, with warnings as errors.

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::build::{self, EBPF_FLAGS, OBJECT_VARIABLE};
use crate::{process::run, toolchain::Toolchain, workspace::Workspace};

pub fn main(workspace: &Workspace) -> Result<ExitCode> {
    let components = "if cargo has no such command: `rustup component add rustfmt clippy`";

    eprintln!("== formatting");
    run(workspace.cargo().args(["fmt", "--all", "--check"]))
        .with_context(|| format!("run `cargo fmt --all` to format; {components}"))?;

    let object = build::object(workspace)?;
    eprintln!("== clippy, user space");
    let mut clippy = workspace.cargo();
    clippy.args(["clippy", "--workspace", "--exclude", "dlpm-ebpf", "--all-targets"]);
    // The object that the tests embed too, or each change between lint and test would compile dlpm anew.
    clippy
        .args(["--features", "dlpm-common/user", "--", "-D", "warnings"])
        .env(OBJECT_VARIABLE, object);
    run(&mut clippy).context(components)?;

    let toolchain = Toolchain::ensure(workspace)?;
    let mut flags = EBPF_FLAGS.to_vec();
    flags.extend(["-D", "warnings"]);
    let mut check = toolchain.cargo(workspace, &flags);
    toolchain.arguments(workspace, check.arg("check"));
    if toolchain.clippy(&mut check) {
        eprintln!("== clippy, eBPF");
    } else {
        eprintln!("== compiler warnings, eBPF (this toolchain has no clippy)");
    }
    run(&mut check)?;
    Ok(ExitCode::SUCCESS)
}
