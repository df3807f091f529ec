//! `cargo xtask keras`: the callback of the package for Python, with a real Keras.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    build::{self, OBJECT_VARIABLE, Profile},
    test::{PROGRAM_VARIABLE, ROOT_RUNNER},
};
use crate::{
    process::{is_root, require_root, run},
    pypi,
    workspace::Workspace,
};

/// Names a Python with Keras for the tests.
const VARIABLE: &str = "DLPM_KERAS_PYTHON";

/// Keras with its lightest backend that trains; some 700 MB, kept between runs.
const KERAS: [&str; 2] = ["keras==3.15.1", "jax==0.10.2"];

pub fn main(workspace: &Workspace) -> Result<ExitCode> {
    require_root()?;
    let bin = pypi::environment(workspace, "keras", &KERAS)?;
    let object = build::object(workspace)?;
    let program = build::program(workspace, &object, Profile::Debug)?;
    let mut tests = workspace.cargo();
    tests
        .args(["test", "--package", "dlpm-tests", "--test", "python_keras"])
        .env(OBJECT_VARIABLE, &object)
        .env(PROGRAM_VARIABLE, program)
        .env(VARIABLE, bin.join("python3"));
    if !is_root() {
        tests.args(["--config", ROOT_RUNNER]);
    }
    run(tests.args(["--", "--test-threads=1"]))?;
    Ok(ExitCode::SUCCESS)
}
