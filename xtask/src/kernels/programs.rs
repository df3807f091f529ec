//! What runs in the machines, linked statically: they have no libraries.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    commands::build::OBJECT_VARIABLE,
    process::probe,
    workspace::{Executable, Workspace, build_executables},
};

/// The architecture of the emulated machines, and of this one: test programs are asked for their tests here.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What the machines start, apart from test programs.
const PROGRAMS: [&str; 6] = [
    "dlpm",
    "dlpm-guest",
    "dlpm-worker",
    "dlpm-tenant",
    "dlpm-node",
    "dlpm-burn",
];

/// The programs.
#[derive(Debug)]
pub struct Programs {
    executables: Vec<Executable>,
}

impl Programs {
    /// Builds dlpm with this eBPF object, the first process of the machines, and these test programs.
    pub fn build(workspace: &Workspace, object: &Path, tests: &[&str]) -> Result<Self> {
        if cfg!(not(target_arch = "x86_64")) {
            bail!("kernels can be tested on x86-64 only: the emulated machines run programs that are built here");
        }
        let mut build = workspace.cargo();
        // In one call, so that both have the same features of their dependencies, and these are built once.
        build.args(["build", "--package", "dlpm", "--package", "dlpm-tests"]);
        for program in PROGRAMS {
            build.args(["--bin", program]);
        }
        build.args(["--profile", "guest", "--target", TARGET]);
        for test in tests {
            build.args(["--test", test]);
        }
        build
            .env(OBJECT_VARIABLE, object)
            // With a target, flags do not reach build scripts and macros, which cannot be static.
            .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
        let executables = build_executables(&mut build)?;
        Ok(Self { executables })
    }

    /// A program, by the kind and the name of its target in cargo.
    pub fn get(&self, kind: &str, name: &str) -> Result<&Path> {
        let found = self
            .executables
            .iter()
            .find(|program| program.kind == kind && program.name == name);
        found
            .map(|program| program.path.as_path())
            .with_context(|| format!("cargo built no {kind} {name}"))
    }

    /// The names of the tests in a test program.
    pub fn tests(&self, name: &str) -> Result<(PathBuf, Vec<String>)> {
        let program = self.get("test", name)?;
        let listed = probe(Command::new(program).args(["--list", "--format", "terse"]))
            .with_context(|| format!("{} does not list its tests", program.display()))?;
        let tests = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok((program.to_owned(), tests.map(str::to_owned).collect()))
    }
}
