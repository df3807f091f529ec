//! Archives for systems without Debian's packages.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{
    debian::VERSION,
    tree::{self, ARCHIVE},
};
use crate::{process::run_announced, workspace::Workspace};

/// Makes an archive in `output` and returns its path.
///
/// `kind` goes into its name, and `note`, if there is one, is a file at its top. `epoch_s` is the time of all its files.
pub fn build(
    workspace: &Workspace,
    kind: &str,
    program: &Path,
    note: Option<(&str, &str)>,
    output: &Path,
    epoch_s: u64,
) -> Result<PathBuf> {
    let name = format!("dlpm-{VERSION}-{kind}");
    let parent = workspace.target().join("package/archive");
    let root = parent.join(&name);
    tree::build(workspace, &root, &ARCHIVE, program)?;
    if let Some((name, text)) = note {
        tree::put(&root.join(name), text.as_bytes())?;
    }
    let archive = output.join(format!("{name}.tar.gz"));
    let mut command = Command::new("tar");
    command
        .args([
            "--create",
            "--gzip",
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
        ])
        .arg(format!("--mtime=@{epoch_s}"))
        .arg("--file")
        .arg(&archive)
        .arg("--directory")
        .args([parent.as_os_str(), name.as_ref()]);
    run_announced(&mut command)?;
    Ok(archive)
}
