//! A toolchain that can build for BPF: found, or installed.

pub mod install;
pub mod plan;
pub mod state;
mod version;

use std::{
    env,
    fs::{self, File},
    path::{self, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use self::{
    plan::Choice,
    state::{SYSTEM_RUSTC, State, TARGET},
};
use crate::{process::is_executable, workspace::Workspace};

/// Names the folder for what is built for this project alone, so that several clones can share it.
pub const FOLDER_VARIABLE: &str = "DLPM_TOOLCHAIN_DIR";

/// A compiler for BPF with a linker that fits it.
#[derive(Debug)]
pub struct Toolchain {
    choice: Choice,
    linker: PathBuf,
}

impl Toolchain {
    /// The toolchain of this machine. Where there is none, one is installed.
    pub fn ensure(workspace: &Workspace) -> Result<Self> {
        let folder = folder(workspace)?;
        if let Some((choice, linker)) = plan::complete(&State::probe(&folder)) {
            return Ok(Self { choice, linker });
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        // Clones that share the folder wait here, and then find what the first one installed.
        let lock_path = folder.join("lock");
        let lock = File::create(&lock_path).with_context(|| format!("cannot write {}", lock_path.display()))?;
        lock.lock()
            .with_context(|| format!("cannot lock {}", lock_path.display()))?;
        let mut failed = Vec::new();
        let mut reasons = Vec::new();
        loop {
            let state = State::probe(&folder);
            if let Some((choice, linker)) = plan::complete(&state) {
                return Ok(Self { choice, linker });
            }
            let Some(step) = plan::next(&state, &failed) else {
                reasons.push(install::by_hand());
                bail!("there is no toolchain for {TARGET}: {}", reasons.join("; "));
            };
            eprintln!("No complete toolchain for {TARGET} yet. Next: {step}.");
            if let Err(error) = install::carry_out(&step, workspace, &folder) {
                eprintln!("Could not {step}: {error:#}.");
                reasons.push(format!("could not {step} ({error:#})"));
            }
            // Also one that succeeded: were it proposed again, it did not help, and would be repeated for ever.
            failed.push(step);
        }
    }

    /// A cargo that compiles for BPF, with `flags` for rustc.
    ///
    /// Neither flags nor wrappers that the user has set for user space reach the BPF compiler.
    pub fn cargo(&self, workspace: &Workspace, flags: &[&str]) -> Command {
        let mut command = match self.choice {
            Choice::Nightly => workspace.cargo_of("nightly"),
            Choice::System => workspace.cargo(),
        };
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(changes_the_compiler) {
                command.env_remove(name);
            }
        }
        if self.choice == Choice::System {
            // aya-ebpf uses unstable features of the compiler.
            command.env("RUSTC", SYSTEM_RUSTC).env("RUSTC_BOOTSTRAP", "1");
        }
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker);
        command
    }

    /// The arguments that choose package, target and profile, after cargo's command.
    pub fn arguments(&self, workspace: &Workspace, command: &mut Command) {
        if self.choice == Choice::Nightly {
            command.args(["-Z", "build-std=core"]);
        }
        command.args([
            "--package",
            "dlpm-ebpf",
            "--target",
            TARGET,
            "--profile",
            "ebpf",
            "--target-dir",
        ]);
        // Its own folder: a build for user space neither waits for this one nor changes its features.
        command.arg(workspace.target().join("ebpf"));
    }

    /// Turns cargo's `check` into clippy, and says whether this toolchain has it.
    pub fn clippy(&self, command: &mut Command) -> bool {
        let driver = match self.choice {
            Choice::Nightly => state::nightly_sysroot().map(|root| root.join("bin/clippy-driver")),
            Choice::System => path::Path::new(SYSTEM_RUSTC)
                .parent()
                .map(|folder| folder.join("clippy-driver")),
        };
        let Some(driver) = driver.filter(|path| is_executable(path)) else {
            return false;
        };
        command.env("RUSTC_WORKSPACE_WRAPPER", driver);
        true
    }
}

/// The folder that holds what was built for this project alone.
pub fn folder(workspace: &Workspace) -> Result<PathBuf> {
    match env::var_os(FOLDER_VARIABLE).filter(|value| !value.is_empty()) {
        Some(folder) => {
            path::absolute(&folder).with_context(|| format!("{FOLDER_VARIABLE}={} is not a path", folder.display()))
        }
        None => Ok(workspace.target().join("toolchain")),
    }
}

fn changes_the_compiler(variable: &str) -> bool {
    matches!(
        variable,
        "RUSTC"
            | "RUSTC_WRAPPER"
            | "RUSTC_WORKSPACE_WRAPPER"
            | "RUSTC_BOOTSTRAP"
            | "RUSTFLAGS"
            | "CARGO_ENCODED_RUSTFLAGS"
    ) || [
        "CARGO_BUILD_",
        "CARGO_PROFILE_",
        "CARGO_UNSTABLE_",
        "CARGO_TARGET_BPFEL_",
    ]
    .iter()
    .any(|prefix| variable.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::changes_the_compiler;

    #[test]
    fn flags_of_user_space_do_not_reach_the_bpf_compiler() {
        for variable in [
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_PROFILE_RELEASE_LTO",
        ] {
            assert!(changes_the_compiler(variable), "{variable}");
        }
        for variable in ["CARGO_HOME", "CARGO_NET_OFFLINE", "PATH", "RUSTUP_HOME"] {
            assert!(!changes_the_compiler(variable), "{variable}");
        }
    }
}
