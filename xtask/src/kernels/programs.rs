//! What runs in the machines, linked statically: they have no libraries.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::tools::Tools;
use crate::{
    commands::build::OBJECT_VARIABLE,
    process::probe,
    targets::Arch,
    workspace::{Executable, Workspace, build_executables},
};

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
    tools: Tools,
    needs_glibc: bool,
    executables: Vec<Executable>,
}

impl Programs {
    /// Builds dlpm with this eBPF object, the first process of the machines, and these test programs.
    pub fn build(workspace: &Workspace, object: &Path, tools: &Tools, tests: &[&str]) -> Result<Self> {
        if Arch::of_this_machine() != Some(Arch::Amd64) {
            bail!("kernels can be tested on x86-64 only: the emulator is fetched for it");
        }
        let mut build = cargo_build(workspace, tools.arch())?;
        // In one call, so that both have the same features of their dependencies, and these are built once.
        build.args(["--package", "dlpm", "--package", "dlpm-tests", "--profile", "guest"]);
        for program in PROGRAMS {
            build.args(["--bin", program]);
        }
        for test in tests {
            build.args(["--test", test]);
        }
        build.env(OBJECT_VARIABLE, object);
        let executables = build_executables(&mut build)?;
        Ok(Self {
            tools: tools.clone(),
            needs_glibc: false,
            executables,
        })
    }

    /// Takes this program for dlpm. It must be for the processor of the machines, and need no library but glibc.
    pub fn replace_dlpm(&mut self, program: &Path) -> Result<()> {
        let runs = program.exists() && probe(self.tools.run(program)?.arg("--version")).is_some();
        if !runs {
            bail!(
                "{} is not a dlpm that runs on {}: --program names one, such as those that `cargo xtask package` builds",
                program.display(),
                self.tools.arch()
            );
        }
        self.needs_glibc = true;
        self.executables
            .retain(|there| there.kind != "bin" || there.name != "dlpm");
        self.executables.push(Executable {
            kind: "bin".to_owned(),
            name: "dlpm".to_owned(),
            path: program.to_owned(),
        });
        Ok(())
    }

    /// What the programs may need of glibc, as [`Tools::glibc`] has it: nothing, if all were built here.
    pub fn libraries(&self) -> Result<Vec<(String, PathBuf)>> {
        if self.needs_glibc {
            self.tools.glibc()
        } else {
            Ok(Vec::new())
        }
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
        let listed = probe(self.tools.run(program)?.args(["--list", "--format", "terse"]))
            .with_context(|| format!("{} does not list its tests", program.display()))?;
        let tests = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok((program.to_owned(), tests.map(str::to_owned).collect()))
    }
}

/// A cargo that links for machines without libraries.
fn cargo_build(workspace: &Workspace, arch: Arch) -> Result<Command> {
    if arch != Arch::Amd64 {
        return arch.musl().cargo_build(workspace);
    }
    // With this machine's own C library, which needs nothing from the network.
    let mut build = workspace.cargo();
    build
        .args(["build", "--target", arch.gnu().triple()])
        // With a target, flags do not reach build scripts and macros, which cannot be static.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    Ok(build)
}
