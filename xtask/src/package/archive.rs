//! Archives for systems without Debian's packages.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{
    debian::VERSION,
    program::Product,
    tree::{self, ARCHIVE},
};
use crate::{process::run_announced, workspace::Workspace};

/// What the static archive says, at its top.
const NO_GPUS: (&str, &str) = (
    "NO-GPUS",
    "The program in this archive is linked statically, so that it needs no library. For that reason it cannot load\n\
     NVIDIA's library, and measures no GPU. The archive without `static` in its name can, with glibc 2.28 or newer.\n",
);

/// Makes an archive in `output` and returns its path.
///
/// One without libraries has a note at its top that says what it cannot do. `epoch_s` is the time of all its files.
pub fn build(workspace: &Workspace, product: &Product, output: &Path, epoch_s: u64) -> Result<PathBuf> {
    let (kind, note) = if product.target.needs_libraries() {
        ("", None)
    } else {
        ("-static", Some(NO_GPUS))
    };
    let name = format!("dlpm-{VERSION}-{}-linux{kind}", product.target.arch().rust());
    let parent = workspace.target().join("package/archive");
    let root = parent.join(&name);
    tree::build(workspace, &root, &ARCHIVE, product)?;
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
