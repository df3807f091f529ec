//! Programs that come from PyPI, in a virtual environment of the workspace: nothing else of the machine changes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    process::{find_program, probe, run_announced},
    toolchain::install::apt_install,
    workspace::Workspace,
};

/// Returns the path of `program`: the one on `PATH`, or the one that `requirements` bring.
pub fn program(workspace: &Workspace, program: &str, requirements: &[&str]) -> Result<PathBuf> {
    match find_program(program) {
        Some(path) => Ok(path),
        None => Ok(environment(workspace, program, requirements)?.join(program)),
    }
}

/// Installs `requirements` (as pip takes them) where they are missing, and returns the folder with their programs.
///
/// `name` is the folder of the environment below the target folder.
pub fn environment(workspace: &Workspace, name: &str, requirements: &[&str]) -> Result<PathBuf> {
    let environment = workspace.target().join("pypi").join(name);
    let bin = environment.join("bin");
    // Written last, so that an installation that was cut off is done again; and again when the versions change.
    let done = environment.join("installed");
    let wanted = requirements.join("\n");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(bin);
    }
    if probe(Command::new("python3").args(["-m", "ensurepip", "--version"])).is_none() {
        apt_install(&["python3", "python3-venv"]).with_context(|| format!("{name} comes from PyPI, through Python"))?;
    }
    run_announced(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment),
    )?;
    install(&bin, requirements).with_context(|| format!("{name} could not be installed from PyPI"))?;
    fs::write(&done, wanted).with_context(|| format!("cannot write {}", done.display()))?;
    Ok(bin)
}

/// What is read by Python 3.11 of Debian 12, as a folder for its search path: `requirements` for that version, whichever one
/// this machine has.
pub fn folder_for_bookworm(workspace: &Workspace, name: &str, requirements: &[&str]) -> Result<PathBuf> {
    let pip = environment(workspace, "pip", &["pip==25.3"])?.join("pip");
    let folder = workspace.target().join("pypi").join(format!("{name}-3.11"));
    let done = folder.join("installed");
    let wanted = requirements.join("\n");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let mut install = Command::new(pip);
    install
        .args(["install", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary", ":all:", "--python-version", "3.11"]);
    for platform in ["manylinux2014_x86_64", "manylinux_2_26_x86_64", "manylinux_2_28_x86_64"] {
        install.args(["--platform", platform]);
    }
    run_announced(install.arg("--target").arg(&folder).args(requirements))
        .with_context(|| format!("{name} could not be installed from PyPI"))?;
    fs::write(&done, wanted).with_context(|| format!("cannot write {}", done.display()))?;
    Ok(folder)
}

fn install(bin: &Path, requirements: &[&str]) -> Result<()> {
    let mut pip = Command::new(bin.join("pip"));
    pip.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
    ]);
    run_announced(pip.args(requirements))
}
