//! Programs of the monitoring that the agent is tested with: Prometheus with its promtool, VictoriaMetrics, a strict
//! parser of OpenMetrics, and OpenTelemetry's own messages of OTLP.

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
pub const VICTORIA_METRICS: &str = "DLPM_VICTORIA_METRICS";
pub const PARSER_PYTHON: &str = "DLPM_OPENMETRICS_PYTHON";

/// Tests that need them.
pub const TESTS: [&str; 5] = [
    "what_servers_have_is_what_the_meter_counted",
    "both_parsers_accept_every_exposition",
    "python_reads_in_every_push_what_it_reads_in_the_text",
    "rules_and_alerts_are_tested",
    "a_real_prometheus_has_what_the_dashboard_asks_for",
];

const PARSERS: [&str; 2] = ["prometheus-client==0.26.0", "opentelemetry-proto==1.45.2"];

/// The variables that name the programs, which are fetched where they are missing. Nothing of them is installed: a
/// package of a server would start it.
pub fn variables(workspace: &Workspace) -> Result<Vec<(&'static str, OsString)>> {
    let parser = pypi::environment(workspace, "prometheus-client", &PARSERS)?.join("python3");
    let of_prometheus = programs(workspace, "prometheus", &["promtool", "prometheus"])?;
    let victoria_metrics = programs(workspace, "victoria-metrics", &["victoria-metrics"])?;
    let found = of_prometheus.into_iter().chain(victoria_metrics).map(OsString::from);
    let variables = [PROMTOOL, PROMETHEUS, VICTORIA_METRICS].into_iter().zip(found);
    Ok(variables.chain([(PARSER_PYTHON, parser.into())]).collect())
}

/// Prometheus and VictoriaMetrics, which are fetched where they are missing.
pub fn servers(workspace: &Workspace) -> Result<[PathBuf; 2]> {
    let mut found = programs(workspace, "prometheus", &["prometheus"])?;
    found.extend(programs(workspace, "victoria-metrics", &["victoria-metrics"])?);
    found.try_into().map_err(|_| anyhow::anyhow!("a server is missing"))
}

/// Programs of a package of Debian, on `PATH` or from there.
fn programs(workspace: &Workspace, package: &str, names: &[&str]) -> Result<Vec<PathBuf>> {
    if let Some(found) = names.iter().map(|name| find_program(name)).collect() {
        return Ok(found);
    }
    let folder = workspace.target().join("debian").join(package);
    let done = folder.join("unpacked");
    if !done.exists() {
        if find_program("apt-get").is_none() || find_program("dpkg-deb").is_none() {
            bail!("{package} is neither on PATH nor to be had: install it, or run this on Debian");
        }
        fetch(&folder, package)?;
        fs::write(&done, "")?;
    }
    Ok(names.iter().map(|name| folder.join("usr/bin").join(name)).collect())
}

fn fetch(folder: &Path, package: &str) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    if probe(Command::new("apt-cache").args(["show", package])).is_none() {
        run_announced(crate::process::as_root("apt-get")?.arg("update"))?;
    }
    run_announced(Command::new("apt-get").args(["download", package]).current_dir(folder))?;
    for file in fs::read_dir(folder)? {
        let archive = file?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            run_announced(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(folder))?;
            fs::remove_file(&archive)?;
        }
    }
    Ok(())
}
