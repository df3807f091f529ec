//! The programs that are packaged: one for old C libraries, which can load NVML, and one that needs no library at all.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    commands::build::OBJECT_VARIABLE,
    kernels::programs::TARGET,
    process::{find_program, probe},
    pypi,
    toolchain::install::apt_install,
    workspace::{Workspace, build_executable},
};

/// The oldest C library that the dynamic program runs with: that of Debian 10 and Enterprise Linux 8.
pub const OLDEST_GLIBC: [u32; 2] = [2, 28];

/// What links for an old C library: zig carries the symbols of each version. Both come from PyPI.
const LINKER_PACKAGES: [&str; 2] = ["cargo-zigbuild==0.24.1", "ziglang==0.17.1"];

/// Builds the program that needs a C library, of [`OLDEST_GLIBC`] or newer.
pub fn dynamic(workspace: &Workspace, object: &Path) -> Result<PathBuf> {
    let linker = pypi::environment(workspace, "cargo-zigbuild", &LINKER_PACKAGES)?;
    let [major, minor] = OLDEST_GLIBC;
    let mut command = workspace.cargo();
    command
        .args(["zigbuild", "--target", &format!("{TARGET}.{major}.{minor}")])
        .env("PATH", with_folder_first(&linker)?);
    let program = build(workspace, &mut command, object, "dynamic")?;
    let newest = newest_glibc(&program)?;
    if newest > OLDEST_GLIBC {
        let [needed_major, needed_minor] = newest;
        bail!(
            "{} needs glibc {needed_major}.{needed_minor}, newer than {major}.{minor}: find the symbol with `objdump -T`",
            program.display()
        );
    }
    Ok(program)
}

/// Builds the program that needs no library, and so cannot load NVML.
pub fn without_libraries(workspace: &Workspace, object: &Path) -> Result<PathBuf> {
    let mut command = workspace.cargo();
    command
        .args(["build", "--target", TARGET])
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    let program = build(workspace, &mut command, object, "static")?;
    let dynamic = read_elf(&program, "--dynamic")?;
    if dynamic.contains("(NEEDED)") {
        bail!("{} needs libraries: see `readelf --dynamic`", program.display());
    }
    Ok(program)
}

fn build(workspace: &Workspace, command: &mut Command, object: &Path, folder: &str) -> Result<PathBuf> {
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
        // The two are built with different flags: in one folder each would throw the other's work away.
        .arg(workspace.target().join("package").join(folder))
        .env(OBJECT_VARIABLE, object)
        // Whatever the caller prefers: the same sources make the same program.
        .env("CARGO_INCREMENTAL", "0");
    build_executable(command, "dlpm")
}

fn with_folder_first(folder: &Path) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context("a folder's name has a colon; build in another folder")
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
