//! `cargo xtask package`: a Debian package, archives, and a wheel.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use super::build;
use crate::{
    package::{archive, check, debian, program, wheel},
    process::{probe, require_root},
    targets::{Arch, Target},
    workspace::Workspace,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The program in the Debian package and in the first archive needs glibc 2.28 or newer (Debian 10, \
    Ubuntu 20.04, Enterprise Linux 8) and can load NVIDIA's library. The static archive needs no library, and cannot \
    measure GPUs for that reason. Targets with `gnu` in their name make the former, those with `musl` the latter.\n\n\
    The program is compiled twice, with all optimisation. The first time this takes from some minutes to half an hour, \
    depending on the machine; so it is not part of CI."
)]
pub struct Args {
    /// The folder for the packages [default: target/package]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Make only the Debian package
    #[arg(long, conflicts_with_all = ["archives", "wheel"])]
    debian: bool,
    /// Make only the archives
    #[arg(long, conflicts_with = "wheel")]
    archives: bool,
    /// Make only the wheel for Python, which is the same on every machine
    #[arg(long)]
    wheel: bool,
    /// What the program is built for; may be given several times [default: this machine, with glibc and without]
    #[arg(long = "target", value_name = "TARGET", conflicts_with = "wheel")]
    targets: Vec<Target>,
    /// Install the Debian package, use it and remove it again
    #[arg(long, conflicts_with_all = ["archives", "wheel"])]
    check: bool,
}

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    if args.check {
        require_root()?;
    }
    let targets = targets(args)?;
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| workspace.target().join("package"));
    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    let epoch_s = epoch_s(workspace)?;
    let mut made = Vec::new();
    if !args.debian && !args.archives && args.targets.is_empty() {
        made.push(wheel::build(workspace, &output, epoch_s)?);
    }
    if !args.wheel {
        made.extend(compiled(workspace, args, &targets, &output, epoch_s)?);
    }
    for path in made {
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes what holds the program.
fn compiled(
    workspace: &Workspace,
    args: &Args,
    targets: &[Target],
    output: &Path,
    epoch_s: u64,
) -> Result<Vec<PathBuf>> {
    let object = build::object(workspace)?;
    let mut made = Vec::new();
    for target in targets {
        if args.debian && !target.needs_libraries() {
            continue;
        }
        let product = program::product(workspace, &object, *target)?;
        if !args.archives && target.needs_libraries() {
            let package = debian::build(workspace, &product, output, epoch_s)?;
            if args.check {
                check::debian(&package)?;
            }
            made.push(package);
        }
        if !args.debian {
            made.push(archive::build(workspace, &product, output, epoch_s)?);
            if args.check && !target.needs_libraries() {
                check::without_libraries(&product.program)?;
            }
        }
    }
    Ok(made)
}

/// What to build for.
fn targets(args: &Args) -> Result<Vec<Target>> {
    let here = Arch::of_this_machine();
    let targets = match (&args.targets[..], here) {
        ([], Some(arch)) => vec![arch.gnu(), arch.musl()],
        ([], None) => bail!("dlpm is not packaged for this machine's processor: --target names others"),
        (targets, _) => targets.to_vec(),
    };
    let foreign = targets.iter().find(|target| Some(target.arch()) != here);
    if let Some(target) = foreign.filter(|_| args.check) {
        bail!(
            "--check runs what it made, and {} does not run here: leave one of them out",
            target.triple()
        );
    }
    if args.debian && !targets.iter().any(|target| target.needs_libraries()) {
        bail!("--debian makes a package of a program with glibc: give a target with `gnu` in its name");
    }
    Ok(targets)
}

/// The time of the last commit, so that the same sources make the same package; without git, 1970.
pub fn epoch_s(workspace: &Workspace) -> Result<u64> {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(workspace.root());
    match probe(&mut git) {
        Some(text) => text.trim().parse().context("git names no time of the last commit"),
        None => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn of(line: &str) -> Result<Vec<Target>, String> {
        let words = std::iter::once("package").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        targets(&line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn targets_are_those_that_are_named_or_this_machines() {
        let here = Arch::of_this_machine().unwrap();
        assert_eq!(of(""), Ok(vec![here.gnu(), here.musl()]));
        assert_eq!(of("--target aarch64-unknown-linux-gnu"), Ok(vec![Target::Arm64Gnu]));
        for (line, reason) in [
            ("--debian --target aarch64-unknown-linux-musl", "with `gnu` in its name"),
            ("--target riscv64-unknown-linux-gnu", "possible values"),
            ("--wheel --target aarch64-unknown-linux-gnu", "cannot be used with"),
        ] {
            let error = of(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
        let foreign = if here == Arch::Amd64 { "aarch64" } else { "x86_64" };
        let error = of(&format!("--check --target {foreign}-unknown-linux-gnu")).unwrap_err();
        assert!(error.contains("does not run here"), "{error}");
    }
}
