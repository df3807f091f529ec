//! Where the workspace is, and how its cargo is called.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process;

/// The workspace, and the cargo that started this program.
#[derive(Debug)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
    cargo: PathBuf,
}

impl Workspace {
    /// Asks the cargo that started this program.
    pub fn locate() -> Result<Self> {
        let (Some(cargo), Some(manifest)) = (env::var_os("CARGO"), env::var_os("CARGO_MANIFEST_DIR")) else {
            bail!("this program is part of a cargo workspace: start it as `cargo xtask`");
        };
        let mut workspace = Self {
            root: PathBuf::from(manifest),
            target: PathBuf::new(),
            cargo: cargo.into(),
        };
        let text = process::probe(
            workspace
                .cargo()
                .args(["metadata", "--no-deps", "--format-version=1", "--quiet"]),
        )
        .context("`cargo metadata` failed; run it by hand to see why")?;
        let metadata: Value = serde_json::from_str(&text).context("`cargo metadata` printed no JSON")?;
        let path = |key: &str| -> Result<PathBuf> {
            let value = metadata.get(key).and_then(Value::as_str);
            Ok(value
                .with_context(|| format!("`cargo metadata` names no {key}"))?
                .into())
        };
        workspace.root = path("workspace_root")?;
        workspace.target = path("target_directory")?;
        Ok(workspace)
    }

    /// The folder of the workspace.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder that holds what cargo builds.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The cargo that started this program, in the workspace's root, with the environment that the user gave it.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(&self.root);
        self.restore_environment(&mut command);
        command
    }

    /// Cargo as a program of the toolchain that rustup calls `name`.
    pub fn cargo_of(&self, name: &str) -> Command {
        let mut command = Command::new("rustup");
        command.args(["run", name, "cargo"]).current_dir(&self.root);
        self.restore_environment(&mut command);
        command.env_remove("RUSTUP_TOOLCHAIN");
        command
    }

    /// Takes away what the outer `cargo run` added to the environment.
    ///
    /// Its library path names the libraries of one toolchain, which another one must not load.
    pub fn restore_environment(&self, command: &mut Command) {
        for (name, _) in env::vars_os() {
            if added_by_cargo_run(&name) {
                command.env_remove(name);
            }
        }
        let sysroot = self.cargo.parent().and_then(Path::parent);
        if let Some(path) = env::var_os("LD_LIBRARY_PATH") {
            let kept: Vec<PathBuf> = env::split_paths(&path)
                .filter(|entry| !entry.starts_with(&self.target) || self.target.as_os_str().is_empty())
                .filter(|entry| !sysroot.is_some_and(|root| is_library_of(root, entry)))
                .collect();
            match env::join_paths(&kept) {
                Ok(path) if !kept.is_empty() => command.env("LD_LIBRARY_PATH", path),
                _ => command.env_remove("LD_LIBRARY_PATH"),
            };
        }
    }
}

/// Runs a `cargo build` and returns the path of the executable that it made for the target `name`.
pub fn build_executable(command: &mut Command, name: &str) -> Result<PathBuf> {
    let executables = build_executables(command)?;
    executables
        .into_iter()
        .find(|executable| executable.kind == "bin" && executable.name == name)
        .map(|executable| executable.path)
        .with_context(|| format!("`{}` made no executable `{name}`", process::render(command)))
}

/// What a `cargo build` made for one target.
#[derive(Debug, Eq, PartialEq)]
pub struct Executable {
    /// `bin` or `test`.
    pub kind: String,
    /// Name of the target.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// Runs a `cargo build` and returns every executable that it made.
pub fn build_executables(command: &mut Command) -> Result<Vec<Executable>> {
    command
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", process::render(command)))?;
    if !output.status.success() {
        bail!(
            "`{}` failed ({}); what it printed above says why",
            process::render(command),
            output.status
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(executable_of).collect())
}

fn executable_of(message: &str) -> Option<Executable> {
    let message: Value = serde_json::from_str(message).ok()?;
    let text = |pointer: &str| Some(message.pointer(pointer)?.as_str()?.to_owned());
    Some(Executable {
        path: text("/executable")?.into(),
        kind: text("/target/kind/0")?,
        name: text("/target/name")?,
    })
}

fn added_by_cargo_run(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    name == "CARGO"
        || name == "RUST_RECURSION_COUNT"
        || name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
}

fn is_library_of(sysroot: &Path, entry: &Path) -> bool {
    let lib = sysroot.join("lib");
    entry == lib || entry.starts_with(lib.join("rustlib"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_the_messages() {
        let message =
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"dlpm"},"executable":"/t/dlpm"}"#;
        let executable = |kind: &str| Executable {
            kind: kind.to_owned(),
            name: "dlpm".to_owned(),
            path: "/t/dlpm".into(),
        };
        assert_eq!(executable_of(message), Some(executable("bin")));
        assert_eq!(executable_of(&message.replace("bin", "test")), Some(executable("test")));
        assert_eq!(executable_of(&message.replace("\"/t/dlpm\"", "null")), None);
        assert_eq!(executable_of(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable_of("not json"), None);
    }

    #[test]
    fn only_what_cargo_adds_is_taken_away() {
        assert!(added_by_cargo_run(OsStr::new("CARGO_PKG_NAME")));
        assert!(!added_by_cargo_run(OsStr::new("CARGO_HOME")));
        assert!(!added_by_cargo_run(OsStr::new("CARGO_TARGET_DIR")));
        assert!(is_library_of(Path::new("/usr"), Path::new("/usr/lib")));
        assert!(!is_library_of(Path::new("/usr"), Path::new("/usr/local/cuda/lib64")));
    }
}
