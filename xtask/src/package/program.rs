//! The programs that are packaged: one for old C libraries, which can load NVML, and one that needs no library at all.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    commands::build::{self, OBJECT_VARIABLE, Profile},
    process::{find_program, probe},
    targets::{Arch, OLDEST_GLIBC, Target},
    toolchain::install::apt_install,
    workspace::{Workspace, build_executable},
};

/// A program to package.
#[derive(Debug)]
pub struct Product {
    /// What it is built for.
    pub target: Target,
    /// The program.
    pub program: PathBuf,
    /// One of the same sources that runs here: it prints manual pages and completions.
    pub speaker: PathBuf,
}

/// Builds the program for a target: one that needs [`OLDEST_GLIBC`] or newer, or one that needs no library and so cannot
/// load NVML.
pub fn product(workspace: &Workspace, object: &Path, target: Target) -> Result<Product> {
    let program = build(workspace, &mut target.cargo_build(workspace)?, object)?;
    if target.needs_libraries() {
        let newest = newest_glibc(&program)?;
        if newest > OLDEST_GLIBC {
            let ([needed_major, needed_minor], [major, minor]) = (newest, OLDEST_GLIBC);
            bail!(
                "{} needs glibc {needed_major}.{needed_minor}, newer than {major}.{minor}: find the symbol with `objdump -T`",
                program.display()
            );
        }
    } else if read_elf(&program, "--dynamic")?.contains("(NEEDED)") {
        bail!("{} needs libraries: see `readelf --dynamic`", program.display());
    }
    let speaker = if Arch::of_this_machine() == Some(target.arch()) {
        program.clone()
    } else {
        build::program(workspace, object, Profile::Debug)?
    };
    Ok(Product {
        target,
        program,
        speaker,
    })
}

fn build(workspace: &Workspace, command: &mut Command, object: &Path) -> Result<PathBuf> {
    command
        .args([
            "--package",
            "dlpm",
            "--bin",
            "dlpm",
            "--profile",
            "distribution",
            "--target-dir",
        ])
        .arg(workspace.target().join("package/build"))
        .env(OBJECT_VARIABLE, object)
        // Whatever the caller prefers: the same sources make the same program.
        .env("CARGO_INCREMENTAL", "0");
    build_executable(command, "dlpm")
}

/// The newest version of the C library whose symbols `program` needs.
fn newest_glibc(program: &Path) -> Result<[u32; 2]> {
    newest_version(&read_elf(program, "--version-info")?)
        .with_context(|| format!("{} needs no C library", program.display()))
}

/// What readelf says of `program`.
fn read_elf(program: &Path, what: &str) -> Result<String> {
    if find_program("readelf").is_none() {
        apt_install(&["binutils"])?;
    }
    probe(Command::new("readelf").args([what, "--wide"]).arg(program))
        .with_context(|| format!("readelf cannot read {}", program.display()))
}

/// Finds the newest `GLIBC_X.Y` in what readelf printed.
fn newest_version(text: &str) -> Option<[u32; 2]> {
    let versions = text.split_whitespace().filter_map(|word| {
        let (major, rest) = word.strip_prefix("GLIBC_")?.split_once('.')?;
        let minor = rest.split('.').next()?;
        Some([major.parse().ok()?, minor.parse().ok()?])
    });
    versions.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_compared_by_number() {
        let text =
            "0x0010: Name: GLIBC_2.9  Flags: none\n Name: GLIBC_2.28 Flags\n Name: GLIBC_2.2.5 Name: GLIBC_PRIVATE";
        assert_eq!(newest_version(text), Some([2, 28]));
        assert_eq!(newest_version("nothing"), None);
    }
}
