//! What is checked of the documents: lines, links, the table of contents of the book, and the version.

mod book;
mod lines;
mod links;
mod versions;

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

pub use book::stage;

use crate::{process::probe, workspace::Workspace};

/// A document: its path below the root of the workspace, and what is in it.
#[derive(Debug)]
pub struct Document {
    /// Path, relative to the root of the workspace.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// Checks all documents, and fails with everything that is wrong.
pub fn check(workspace: &Workspace) -> Result<()> {
    let documents = documents(workspace)?;
    let mut faults: Vec<String> = documents.iter().flat_map(lines::faults).collect();
    faults.extend(links::faults(&documents, |path| workspace.root().join(path).exists()));
    faults.extend(links::unknown_documents(workspace)?);
    faults.extend(book::faults(&documents)?);
    faults.extend(versions::faults(workspace.root())?);
    if faults.is_empty() {
        return Ok(());
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    bail!("the documents have faults, {} in all, listed above", faults.len())
}

/// Every Markdown file of the workspace that git does not ignore, sorted by path.
pub fn documents(workspace: &Workspace) -> Result<Vec<Document>> {
    let read = |path: PathBuf| {
        let text = fs::read_to_string(workspace.root().join(&path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Document { path, text })
    };
    files(workspace, "*.md")?.into_iter().map(read).collect()
}

/// The files of the workspace that match `pattern` and that git does not ignore, relative to its root.
fn files(workspace: &Workspace, pattern: &str) -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        pattern,
    ])
    .current_dir(workspace.root());
    let listed = probe(&mut git).context("git cannot list the files; run this in a checkout")?;
    let mut files: Vec<PathBuf> = listed.split_terminator('\0').map(PathBuf::from).collect();
    // A file that was removed and is not committed yet is listed all the same.
    files.retain(|file| workspace.root().join(file).exists());
    files.sort();
    files.dedup();
    Ok(files)
}
