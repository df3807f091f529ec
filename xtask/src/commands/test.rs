//! `cargo xtask test`: the tests of user space as the calling user, those of the real kernel as root.

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Result, bail};

use super::{
    build::{self, OBJECT_VARIABLE, Profile},
    package::epoch_s,
};
use crate::{
    browser::{self, Browser},
    monitors,
    package::wheel,
    process::{as_root, is_root, run},
    pypi,
    toolchain::install::apt_install,
    workspace::Workspace,
};

/// Names the built program for the tests that start it.
pub const PROGRAM_VARIABLE: &str = "DLPM_BIN";

/// Names the object with the second count of CPU time, for the test of accuracy.
const YARDSTICKS_VARIABLE: &str = "DLPM_YARDSTICKS";

/// Names a Python with pandas, for the tests that read a log with it.
const PANDAS_PYTHON: &str = "DLPM_PANDAS_PYTHON";

/// Those tests.
const PANDAS_TESTS: [&str; 2] = ["a_log_is_read_with_pandas", "a_log_becomes_frames_with_pandas"];

/// Names a Python with DuckDB, for the tests of the examples for a warehouse.
const DUCKDB_PYTHON: &str = "DLPM_DUCKDB_PYTHON";

/// Those tests.
const DUCKDB_TESTS: [&str; 2] = ["duckdb_adds_up_the_same_digits", "a_log_becomes_parquet"];

/// The version of DuckDB that reads the files.
pub const DUCKDB: [&str; 1] = ["duckdb==2.0.1"];

/// Names the wheel of the package for Python, for the test that installs it.
const WHEEL_VARIABLE: &str = "DLPM_WHEEL";

/// That test.
const WHEEL_TEST: &str = "the_wheel_installs_and_the_examples_run";

const PANDAS: [&str; 1] = ["pandas==2.3.3"];

/// Runs the test programs as root with the caller's environment, where DLPM_REQUIRE_KERNEL may be set.
pub const ROOT_RUNNER: &str = r#"target."cfg(unix)".runner=["sudo", "-E", "--"]"#;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the tests with one of these in their name
    filter: Vec<String>,
}

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    if !is_root() {
        // Asked for the password now, not in the middle.
        run(&mut as_root("true")?)?;
    }
    let browser = match browser::is_needed(&args.filter).then(Browser::ensure).transpose() {
        Err(error) if !browser::is_required() => {
            eprintln!("{error:#}. Tests of the HTML page are skipped.");
            None
        }
        browser => browser?,
    };
    let pandas = match pandas(workspace, &args.filter).transpose() {
        Err(error) if !browser::is_required() => {
            eprintln!("{error:#}. The tests that need it are skipped.");
            None
        }
        python => python?,
    };
    let wheel = match wheel(workspace, &args.filter).transpose() {
        Err(error) if !browser::is_required() => {
            eprintln!("{error:#}. The test of the wheel is skipped.");
            None
        }
        wheel => wheel?,
    };
    let monitors = match monitors(workspace, &args.filter).transpose() {
        Err(error) if !browser::is_required() => {
            eprintln!("{error:#}. Tests with Prometheus are skipped.");
            None
        }
        variables => variables?,
    };
    let object = build::object(workspace)?;
    let cargo_test = || {
        let mut command = workspace.cargo();
        // One object for all, or each call would build dlpm anew.
        command.args(["test", "--no-fail-fast"]).env(OBJECT_VARIABLE, &object);
        command
    };

    let mut user_space = cargo_test();
    for package in ["dlpm", "dlpm-model", "dlpm-common", "xtask", "dlpm-fake-nvml"] {
        user_space.args(["--package", package]);
    }
    user_space
        .args(["--features", "dlpm-common/user", "--"])
        .args(&args.filter);

    // Without optimisation, as cargo builds the tests: so overflow is checked, and dlpm is compiled once.
    let program = build::program(workspace, &object, Profile::Debug)?;
    let mut kernel = cargo_test();
    kernel
        .args(["--package", "dlpm-tests", "--tests"])
        .env(PROGRAM_VARIABLE, program)
        .env(YARDSTICKS_VARIABLE, build::yardsticks(workspace)?);
    if let Some(browser) = &browser {
        let programs = [&browser.chromium, &browser.chromedriver];
        kernel.envs(browser::VARIABLES.into_iter().zip(programs));
    }
    if let Some(python) = pandas {
        kernel.env(PANDAS_PYTHON, python);
    }
    if let Some(python) = duckdb(workspace, &args.filter) {
        kernel.env(DUCKDB_PYTHON, python?);
    }
    if let Some(wheel) = wheel {
        kernel.env(WHEEL_VARIABLE, wheel);
    }
    kernel.envs(monitors.into_iter().flatten());
    if !is_root() {
        kernel.args(["--config", ROOT_RUNNER]);
    }
    // One at a time: the tests share the kernel's tracepoints and clocks.
    kernel.args(["--", "--test-threads=1"]).args(&args.filter);

    let mut failed = Vec::new();
    let mut step = |name: &'static str, command: &mut Command| {
        eprintln!("== {name}");
        if let Err(error) = run(command) {
            eprintln!("{error:#}");
            failed.push(name);
        }
    };
    step("unit tests of user space", &mut user_space);
    step("tests on the real kernel, as root", &mut kernel);
    if !failed.is_empty() {
        bail!("failed: {}", failed.join("; "));
    }
    Ok(ExitCode::SUCCESS)
}

/// What names the programs of the monitoring, if a test with these filters needs them.
fn monitors(workspace: &Workspace, filter: &[String]) -> Option<Result<Vec<(&'static str, OsString)>>> {
    let matches = |part: &String| monitors::TESTS.iter().any(|test| test.contains(part.as_str()));
    let is_needed = filter.is_empty() || filter.iter().any(matches);
    is_needed.then(|| monitors::variables(workspace))
}

/// The wheel, if a test with these filters needs it.
fn wheel(workspace: &Workspace, filter: &[String]) -> Option<Result<PathBuf>> {
    let is_needed = filter.is_empty() || filter.iter().any(|part| WHEEL_TEST.contains(part.as_str()));
    is_needed.then(|| wheel::build(workspace, &workspace.target().join("package"), epoch_s(workspace)?))
}

/// A Python with DuckDB, if a test with these filters needs one.
fn duckdb(workspace: &Workspace, filter: &[String]) -> Option<Result<PathBuf>> {
    let matches = |part: &String| DUCKDB_TESTS.iter().any(|test| test.contains(part.as_str()));
    let is_needed = filter.is_empty() || filter.iter().any(matches);
    is_needed.then(|| Ok(pypi::environment(workspace, "duckdb", &DUCKDB)?.join("python3")))
}

/// A Python with pandas, if a test with these filters needs one.
fn pandas(workspace: &Workspace, filter: &[String]) -> Option<Result<PathBuf>> {
    let matches = |part: &String| PANDAS_TESTS.iter().any(|test| test.contains(part.as_str()));
    let is_needed = filter.is_empty() || filter.iter().any(matches);
    is_needed.then(|| match pypi::environment(workspace, "pandas", &PANDAS) {
        Ok(bin) => Ok(bin.join("python3")),
        Err(error) => {
            eprintln!("{error:#}. Debian's pandas is tried instead.");
            apt_install(&["python3-pandas"])?;
            Ok(PathBuf::from("/usr/bin/python3"))
        }
    })
}
