//! The files of a package, below one folder: program, manual pages, completions, documents, and what runs an agent.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{licences, program::Product};
use crate::{process::is_executable, workspace::Workspace};

/// Where the files of a package go, below its root.
#[derive(Debug)]
pub struct Places {
    /// The program.
    pub bin: &'static str,
    /// Manual pages.
    pub man: &'static str,
    /// Completions: of bash, of zsh, of fish.
    pub completions: [&'static str; 3],
    /// Documents.
    pub doc: &'static str,
    /// The folder in which Python finds the package.
    pub python: &'static str,
    /// Files of `contrib/systemd`: units.
    pub units: &'static str,
    /// Files of `contrib/sysusers.d`: users that units run as.
    pub users: &'static str,
    /// Everything else in `contrib`.
    pub shared: &'static str,
}

/// Those of Debian.
pub const DEBIAN: Places = Places {
    bin: "usr/bin",
    man: "usr/share/man/man1",
    completions: [
        "usr/share/bash-completion/completions/dlpm",
        "usr/share/zsh/vendor-completions/_dlpm",
        "usr/share/fish/vendor_completions.d/dlpm.fish",
    ],
    doc: "usr/share/doc/dlpm",
    python: "usr/lib/python3/dist-packages",
    units: "usr/lib/systemd/system",
    users: "usr/lib/sysusers.d",
    shared: "usr/share/dlpm",
};

/// Those of an archive, which can be unpacked into `/usr/local`.
pub const ARCHIVE: Places = Places {
    bin: "bin",
    man: "share/man/man1",
    completions: [
        "share/bash-completion/completions/dlpm",
        "share/zsh/site-functions/_dlpm",
        "share/fish/vendor_completions.d/dlpm.fish",
    ],
    doc: "share/doc/dlpm",
    python: "share/dlpm/python",
    units: "lib/systemd/system",
    users: "lib/sysusers.d",
    shared: "share/dlpm",
};

/// Builds the tree of a package in `root`, which is emptied first.
///
/// Pages and completions are those that the product's speaker prints.
pub fn build(workspace: &Workspace, root: &Path, places: &Places, product: &Product) -> Result<()> {
    let Product {
        target,
        program,
        speaker,
    } = product;
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("cannot empty {}", root.display()))?;
    }
    let bin = root.join(places.bin).join("dlpm");
    put(
        &bin,
        &fs::read(program).with_context(|| format!("cannot read {}", program.display()))?,
    )?;
    fs::set_permissions(&bin, fs::Permissions::from_mode(0o755))?;

    let man = root.join(places.man);
    put(&man.join("dlpm.1"), &said(speaker, &["man"])?)?;
    let names = said(speaker, &["man", "--list"])?;
    for name in String::from_utf8_lossy(&names).split_whitespace() {
        put(&man.join(format!("dlpm-{name}.1")), &said(speaker, &["man", name])?)?;
    }
    for (place, shell) in places.completions.iter().zip(["bash", "zsh", "fish"]) {
        put(&root.join(place), &said(speaker, &["completions", shell])?)?;
    }
    let doc = root.join(places.doc);
    for file in files_of(workspace.root())? {
        let is_licence = file
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("LICENSE"));
        if is_licence || file.extension().is_some_and(|end| end == "md") {
            copy(&file, &doc)?;
        }
    }
    for folder in ["docs", "examples"] {
        for file in files_of(&workspace.root().join(folder))? {
            copy(&file, &doc.join(folder))?;
        }
    }
    put(&doc.join("THIRD-PARTY"), licences::text(workspace, *target)?.as_bytes())?;
    for file in files_of(&workspace.root().join("python/dlpm"))? {
        copy(&file, &root.join(places.python).join("dlpm"))?;
    }
    contrib(&workspace.root().join("contrib"), root, places)
}

/// What operators use in addition to the program, if this version has any of it: units, users, rules, dashboards.
fn contrib(folder: &Path, root: &Path, places: &Places) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_owned();
        let place = match name.to_str() {
            Some("systemd") => root.join(places.units),
            Some("sysusers.d") => root.join(places.users),
            // Scripts of the package, see `debian`.
            Some("debian") => continue,
            _ => root.join(places.shared).join(&name),
        };
        if path.is_dir() {
            for file in files_of(&path)? {
                copy(&file, &place)?;
            }
        } else {
            copy(&path, &root.join(places.shared))?;
        }
    }
    Ok(())
}

/// All files directly in `folder`, sorted.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Puts a file into a folder; a script can be executed there, too.
fn copy(from: &Path, folder: &Path) -> Result<()> {
    let name = from
        .file_name()
        .with_context(|| format!("{} has no file name", from.display()))?;
    let path = folder.join(name);
    put(
        &path,
        &fs::read(from).with_context(|| format!("cannot read {}", from.display()))?,
    )?;
    if is_executable(from) {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Writes a file that everybody may read, and the folders above it.
pub fn put(path: &Path, contents: &[u8]) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    fs::write(path, contents).with_context(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).with_context(failed)
}

/// What `program` prints.
fn said(program: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    anyhow::ensure!(
        output.status.success(),
        "`{} {}` failed: {}",
        program.display(),
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}
