//! Programs of the monitoring that the agent is tested with: Prometheus with its promtool, and a strict parser of
//! OpenMetrics.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    process::{find_program, probe, run_announced},
    pypi,
    workspace::Workspace,
};

/// Name the programs for the tests.
pub const PROMTOOL: &str = "DLPM_PROMTOOL";
pub const PROMETHEUS: &str = "DLPM_PROMETHEUS";
pub const PARSER_PYTHON: &str = "DLPM_OPENMETRICS_PYTHON";

/// Tests that need them.
pub const TESTS: [&str; 3] = [
    "both_parsers_accept_every_exposition",
    "rules_and_alerts_are_tested",
    "a_real_prometheus_has_what_the_dashboard_asks_for",
];

const PARSER: [&str; 1] = ["prometheus-client==0.26.0"];

/// The variables that name the programs, which are fetched where they are missing. Nothing of them is installed: a
/// package of a server would start it.
pub fn variables(workspace: &Workspace) -> Result<Vec<(&'static str, OsString)>> {
    let parser = pypi::environment(workspace, "prometheus-client", &PARSER)?.join("python3");
    let (promtool, prometheus) = prometheus(workspace)?;
    Ok(vec![
        (PROMTOOL, promtool.into()),
        (PROMETHEUS, prometheus.into()),
        (PARSER_PYTHON, parser.into()),
    ])
}

/// promtool and Prometheus, on `PATH` or from Debian's package.
fn prometheus(workspace: &Workspace) -> Result<(PathBuf, PathBuf)> {
    if let (Some(promtool), Some(prometheus)) = (find_program("promtool"), find_program("prometheus")) {
        return Ok((promtool, prometheus));
    }
    let folder = workspace.target().join("debian/prometheus");
    let programs = |folder: &Path| (folder.join("usr/bin/promtool"), folder.join("usr/bin/prometheus"));
    let done = folder.join("unpacked");
    if !done.exists() {
        if find_program("apt-get").is_none() || find_program("dpkg-deb").is_none() {
            bail!("Prometheus is neither on PATH nor to be had: install it with its promtool, or run this on Debian");
        }
        fetch(&folder)?;
        fs::write(&done, "")?;
    }
    Ok(programs(&folder))
}

fn fetch(folder: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    if probe(Command::new("apt-cache").args(["show", "prometheus"])).is_none() {
        run_announced(crate::process::as_root("apt-get")?.arg("update"))?;
    }
    run_announced(
        Command::new("apt-get")
            .args(["download", "prometheus"])
            .current_dir(folder),
    )?;
    for file in fs::read_dir(folder)? {
        let archive = file?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            run_announced(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(folder))?;
            fs::remove_file(&archive)?;
        }
    }
    Ok(())
}
