//! Writing a picture or a page.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result, bail};

use crate::sinks::{beside::as_user, writer::Identity};

const NOT_AS_USER: &str = "the file cannot be written as the user who called sudo";

/// Says early that a file cannot be written, in the user's name if one is given.
///
/// # Errors
///
/// If it exists and may not be replaced, or there is no such folder.
pub fn check(path: &Path, force: bool, identity: Option<Identity>) -> Result<()> {
    as_user(identity, || check_here(path, force)).context(NOT_AS_USER)?
}

fn check_here(path: &Path, force: bool) -> Result<()> {
    if path.is_dir() {
        bail!("{} is a folder; name a file", path.display());
    }
    if !force && path.symlink_metadata().is_ok() {
        bail!(
            "{} exists; choose another name, or replace it with --force",
            path.display()
        );
    }
    match folder_of(path) {
        folder if folder.is_dir() => Ok(()),
        folder => bail!(
            "{} is not a folder; make it first, or choose another name",
            folder.display()
        ),
    }
}

/// Writes a file as a whole, in the user's name if one is given: until then, what is there stays.
///
/// # Errors
///
/// The system's, and those of [`check`].
pub fn write(path: &Path, contents: &[u8], force: bool, identity: Option<Identity>) -> Result<()> {
    let name = identity.as_ref().map(|identity| identity.name.clone());
    as_user(identity, || write_here(path, contents, force))
        .context(NOT_AS_USER)?
        .map_err(|error| match name {
            Some(name) => error.context(format!("writing as user {name}, who called sudo")),
            None => error,
        })
}

fn write_here(path: &Path, contents: &[u8], force: bool) -> Result<()> {
    check_here(path, force)?;
    let name = path.file_name().context("name a file")?;
    let mut temporary_name = name.to_owned();
    temporary_name.push(format!(".{}.tmp", process::id()));
    let temporary = folder_of(path).join(temporary_name);
    let written = open_new(&temporary)
        .and_then(|mut file| file.write_all(contents).and_then(|()| file.sync_data()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("{} cannot be written", path.display()))
}

fn open_new(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_if_that_is_wanted_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.svg");
        write(&path, b"one", false, None).unwrap();
        let error = write(&path, b"two", false, None).unwrap_err().to_string();
        assert!(error.contains("--force"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write(&path, b"two", true, None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = check(&folder.path().join("no/x.svg"), true, None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("not a folder"), "{error}");
    }
}
