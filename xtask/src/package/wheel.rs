//! The package for Python, as a wheel: what pip installs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use super::debian::VERSION;
use crate::{process::run_announced, pypi, workspace::Workspace};

/// What makes it, as `python/pyproject.toml` says.
const BUILDER: [&str; 1] = ["flit_core==3.12.0"];

/// Makes the wheel in `output` and returns its path. The same sources make the same bytes; `epoch_s` is the time of all
/// its files.
pub fn build(workspace: &Workspace, output: &Path, epoch_s: u64) -> Result<PathBuf> {
    let bin = pypi::environment(workspace, "wheel", &BUILDER)?;
    let mut pip = Command::new(bin.join("pip"));
    pip.args(["--disable-pip-version-check", "wheel", "--quiet"])
        .args(["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir"])
        .arg(output)
        .arg(workspace.root().join("python"))
        .env("SOURCE_DATE_EPOCH", epoch_s.to_string());
    run_announced(&mut pip)?;
    let wheel = output.join(format!("dlpm-{VERSION}-py3-none-any.whl"));
    ensure!(
        wheel.exists(),
        "python/pyproject.toml does not have the version {VERSION} of the workspace"
    );
    Ok(wheel)
}
