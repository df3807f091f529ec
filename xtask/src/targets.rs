//! What dlpm is compiled for, and how where that is not this machine: the standard library comes from rustup, and zig compiles
//! and links C for every processor and C library. zig comes from PyPI, so a machine needs no cross compiler.

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    process::{find_program, is_executable, probe, run_bounded},
    pypi,
    workspace::Workspace,
};

/// The oldest C library that a program for `gnu` runs with: that of Debian 10 and Enterprise Linux 8.
pub const OLDEST_GLIBC: [u32; 2] = [2, 28];

/// What compiles and links. zig carries the symbols of each version of glibc, and all of musl.
const ZIG: [&str; 2] = ["cargo-zigbuild==0.24.1", "ziglang==0.17.1"];

/// How long rustup may take where the network does not answer.
const RUSTUP_LIMIT: Duration = Duration::from_secs(300);

/// A kind of processor.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Arch {
    /// 64-bit processors of Intel and AMD
    #[value(name = "amd64", aliases = ["x86_64", "x86-64"])]
    Amd64,
    /// 64-bit Arm
    #[value(name = "arm64", alias = "aarch64")]
    Arm64,
}

impl Arch {
    /// That of this machine, if dlpm is built for it.
    pub fn of_this_machine() -> Option<Self> {
        match env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// Its name in Debian.
    pub fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Its name in Rust and in QEMU.
    pub fn rust(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// With a C library, which can load that of NVIDIA.
    pub fn gnu(self) -> Target {
        match self {
            Self::Amd64 => Target::Amd64Gnu,
            Self::Arm64 => Target::Arm64Gnu,
        }
    }

    /// Without any library.
    pub fn musl(self) -> Target {
        match self {
            Self::Amd64 => Target::Amd64Musl,
            Self::Arm64 => Target::Arm64Musl,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.debian())
    }
}

/// What dlpm can be compiled for, by the names of rustc.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Target {
    /// Intel and AMD, needs a C library
    #[value(name = "x86_64-unknown-linux-gnu")]
    Amd64Gnu,
    /// Intel and AMD, needs no library and cannot load NVIDIA's
    #[value(name = "x86_64-unknown-linux-musl")]
    Amd64Musl,
    /// 64-bit Arm, needs a C library
    #[value(name = "aarch64-unknown-linux-gnu")]
    Arm64Gnu,
    /// 64-bit Arm, needs no library and cannot load NVIDIA's
    #[value(name = "aarch64-unknown-linux-musl")]
    Arm64Musl,
}

impl Target {
    /// The processor.
    pub fn arch(self) -> Arch {
        match self {
            Self::Amd64Gnu | Self::Amd64Musl => Arch::Amd64,
            Self::Arm64Gnu | Self::Arm64Musl => Arch::Arm64,
        }
    }

    /// Its name in rustc.
    pub fn triple(self) -> &'static str {
        match self {
            Self::Amd64Gnu => "x86_64-unknown-linux-gnu",
            Self::Amd64Musl => "x86_64-unknown-linux-musl",
            Self::Arm64Gnu => "aarch64-unknown-linux-gnu",
            Self::Arm64Musl => "aarch64-unknown-linux-musl",
        }
    }

    /// Whether its programs need a C library, and can load others.
    pub fn needs_libraries(self) -> bool {
        matches!(self, Self::Amd64Gnu | Self::Arm64Gnu)
    }

    /// Its name in cargo-zigbuild, which takes the version of glibc as well.
    fn zig(self) -> String {
        let [major, minor] = OLDEST_GLIBC;
        if self.needs_libraries() {
            format!("{}.{major}.{minor}", self.triple())
        } else {
            self.triple().to_owned()
        }
    }

    /// A `cargo build` for it, which takes the same arguments.
    pub fn cargo_build(self, workspace: &Workspace) -> Result<Command> {
        self.ensure_library(workspace)?;
        let programs = pypi::environment(workspace, "cargo-zigbuild", &ZIG)?;
        let mut command = workspace.cargo();
        command
            .args(["zigbuild", "--target", &self.zig()])
            .env("PATH", with_folder_first(&programs)?);
        Ok(command)
    }

    /// Sees to it that there is a standard library.
    fn ensure_library(self, workspace: &Workspace) -> Result<()> {
        let rustc = rustc_beside(workspace.cargo().get_program().as_ref());
        if self.has_library(&rustc) {
            return Ok(());
        }
        let triple = self.triple();
        if find_program("rustup").is_none() {
            bail!(
                "{} has no standard library for {triple}, and there is no rustup here to add it: install the one of your \
                 distribution's Rust for that target, or build with rustup's Rust",
                rustc.display()
            );
        }
        // Of the toolchain that cargo is of, which rustup has put into the environment.
        let mut add = Command::new("rustup");
        add.env("RUSTUP_AUTO_INSTALL", "0").args(["target", "add", triple]);
        run_bounded(&mut add, RUSTUP_LIMIT).with_context(|| {
            format!("the standard library for {triple} could not be added; with the network, run this again")
        })?;
        if !self.has_library(&rustc) {
            bail!(
                "rustup added {triple} to another toolchain than that of {}: start cargo through rustup's proxy",
                rustc.display()
            );
        }
        Ok(())
    }

    fn has_library(self, rustc: &Path) -> bool {
        let mut print = Command::new(rustc);
        print.args(["--print", "target-libdir", "--target", self.triple()]);
        let folder = probe(&mut print).map(|text| PathBuf::from(text.trim()));
        let files = folder.and_then(|folder| fs::read_dir(folder).ok());
        let is_std = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("libstd-");
        files.is_some_and(|files| files.flatten().any(is_std))
    }
}

/// The compiler that this cargo calls.
fn rustc_beside(cargo: &Path) -> PathBuf {
    let named = env::var_os("RUSTC").map(PathBuf::from);
    let beside = || Some(cargo.with_file_name("rustc")).filter(|path| is_executable(path));
    named.or_else(beside).unwrap_or_else(|| "rustc".into())
}

fn with_folder_first(folder: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(env::split_paths(&path));
    env::join_paths(folders).context("a folder's name has a colon; build in another folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_named_as_rustc_names_it() {
        for target in Target::value_variants() {
            let name = target.to_possible_value().unwrap();
            assert_eq!(name.get_name(), target.triple());
            assert!(target.triple().starts_with(target.arch().rust()), "{target:?}");
            assert!(
                [target.arch().gnu(), target.arch().musl()].contains(target),
                "{target:?}"
            );
        }
        for (name, expected) in [
            ("arm64", Arch::Arm64),
            ("aarch64", Arch::Arm64),
            ("x86-64", Arch::Amd64),
        ] {
            assert_eq!(Arch::from_str(name, false), Ok(expected));
        }
    }

    #[test]
    fn only_glibc_has_a_version() {
        assert_eq!(Target::Arm64Gnu.zig(), "aarch64-unknown-linux-gnu.2.28");
        assert_eq!(Target::Arm64Musl.zig(), "aarch64-unknown-linux-musl");
    }

    #[test]
    fn a_library_that_is_not_there_is_not_found() {
        assert!(!Target::Arm64Musl.has_library(Path::new("/nonexistent/rustc")));
        // Prints something that is not a folder with a standard library.
        assert!(!Target::Arm64Musl.has_library(Path::new("echo")));
    }
}
