//! The output folder: who may write which file in it, and one `write(2)` per line of the log.
//!
//! The folder may lie where another user can plant links. Every file is opened relative to the folder's descriptor,
//! without following a link, and used only if it is a regular file with no other name.

mod changed;
mod compress;
mod rotate;

use std::{
    fs::{DirBuilder, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rotate::Rotation;
use rustix::{
    fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, openat, renameat, statat, unlinkat},
    io::Errno,
};

use crate::{
    files,
    log::names::{LOG_NAME, RESULTS_NAME},
    sinks::{
        repair::{self, Foreign},
        socket::{self, Listening, SOCKET_NAME},
    },
};

/// What to do with a log that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FolderMode {
    /// Refuse.
    #[default]
    New,
    /// Repair its end and continue it.
    Append,
    /// Begin again.
    Overwrite,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// There is a log, and neither `--append` nor `--overwrite` was given.
    #[error(
        "{} already holds a log; choose another folder with --output, continue the log with --append, or replace it \
         with --overwrite",
        .0.display()
    )]
    Holds(PathBuf),
    /// Another process has the log open.
    #[error("{} is being written by another dlpm; choose another folder with --output", .0.display())]
    InUse(PathBuf),
    /// Not a file of its own.
    #[error("{} is {what}; dlpm writes only to regular files with one name: remove it, or choose another folder with --output", .path.display())]
    NotPlain {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// Not a log that can be continued.
    #[error("{} cannot be continued: {why}; choose another folder with --output, or replace it with --overwrite", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: Foreign,
    },
    /// The system refused.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl FolderError {
    /// Whether the user lacks the permission.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// An output folder with its log, open and locked.
#[derive(Debug)]
pub struct OutputFolder {
    path: PathBuf,
    folder: OwnedFd,
    log: File,
    /// Where the log has to be cut before anything else is written to it.
    torn_at: Option<u64>,
    /// What dlpm left, in bytes.
    length: u64,
    /// Whether the log is known to be elsewhere.
    moved: bool,
    /// The first line of a file of a log that was rotated, until it is written.
    first_line: Option<String>,
    /// Of a log that is rotated.
    rotation: Option<Rotation>,
    notes: Vec<String>,
}

impl OutputFolder {
    /// Makes the folder (and those above it) if it is not there, and opens its log.
    ///
    /// # Errors
    ///
    /// See [`FolderError`]; nothing was changed then, but for folders that were made.
    pub fn create(path: &Path, mode: FolderMode) -> Result<Self, FolderError> {
        let folder = open_folder(path)?;
        let log_path = path.join(LOG_NAME);
        let mut log = open_log(&folder, &log_path, mode)?;
        let mut missing = Vec::new();
        let mut notes = Vec::new();
        let log_failed = |what| {
            let path = log_path.clone();
            move |source: io::Error| FolderError::Io { what, path, source }
        };
        match mode {
            FolderMode::New => {}
            FolderMode::Overwrite => {
                rotate::remove_closed(&folder).map_err(log_failed("remove the closed files of"))?;
                log.set_len(0).map_err(log_failed("empty"))?;
                let left = |name: &&&str| statat(&folder, **name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
                let stays = |name: &&str| {
                    format!("{name} stays as it is, unless this trace writes it: see whether it is about this one")
                };
                notes.extend([RESULTS_NAME, dlpm_model::FILE_NAME].iter().filter(left).map(stays));
            }
            FolderMode::Append => {
                let found =
                    repair::examine(&mut log)
                        .map_err(log_failed("read"))?
                        .map_err(|why| FolderError::Foreign {
                            path: log_path.clone(),
                            why,
                        })?;
                notes = found.apply(&log).map_err(log_failed("repair"))?;
                missing = found.missing();
            }
        }
        let length = log.metadata().map_err(log_failed("examine"))?.len();
        // Killed between the two, a trace has closed a file, and not said in the next one that it continues it.
        let first_line = if length == 0 {
            rotate::first_line(&folder).map_err(log_failed("read what is before"))?
        } else {
            None
        };
        let mut folder = Self {
            path: path.to_owned(),
            folder,
            log,
            torn_at: None,
            length,
            moved: false,
            first_line,
            rotation: None,
            notes,
        };
        if !missing.is_empty() {
            for line in missing {
                folder.write_line(line.text()).map_err(log_failed("repair"))?;
            }
            folder
                .notes
                .push("added the missing end of the last segment".to_owned());
        }
        Ok(folder)
    }

    /// Where the folder is, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What had to be repaired, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Appends one line (with its newline) by one `write(2)`, or nothing.
    ///
    /// # Errors
    ///
    /// The system's, `StorageFull` where only a part could be written, `NotFound` where the log was deleted.
    pub fn write_line(&mut self, line: &str) -> io::Result<()> {
        self.write_first()?;
        self.append(line)
    }

    /// Writes the line that names the file before, if that is due.
    fn write_first(&mut self) -> io::Result<()> {
        let Some(line) = self.first_line.take() else {
            return Ok(());
        };
        let written = self.append(&line);
        if written.is_err() {
            self.first_line = Some(line);
        }
        written
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        self.cut()?;
        let status = self.log.metadata()?;
        if status.nlink() == 0 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the log was deleted"));
        }
        let written = loop {
            match rustix::io::pwrite(&self.log, line.as_bytes(), status.len()) {
                Err(Errno::INTR) => {}
                written => break written,
            }
        };
        if written == Ok(line.len()) {
            self.length = status.len() + line.len() as u64;
            if let Some(rotation) = &mut self.rotation {
                rotation.add(line);
            }
            return Ok(());
        }
        self.torn_at = Some(status.len());
        // If that fails, too, it is tried again before the next line.
        let _ = self.cut();
        Err(written.map_or_else(io::Error::from, |_| {
            io::Error::new(io::ErrorKind::StorageFull, "no space left for a whole line")
        }))
    }

    /// Waits until the log is on the disk.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        self.log.sync_data()
    }

    /// Writes a file of the folder anew, as a whole or not at all.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn replace(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        replace_at(&self.folder, name, contents)
    }

    /// Makes the socket for marks, in the place of one that a killed trace has left: the lock of the log is held.
    ///
    /// # Errors
    ///
    /// The system's, also where the path of the folder is too long for the address of a socket.
    pub fn listen(&self) -> io::Result<Listening> {
        self.remove_socket()?;
        socket::make(std::path::absolute(&self.path)?.join(SOCKET_NAME))
    }

    /// Removes the socket for marks, if it is there.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn remove_socket(&self) -> io::Result<()> {
        match unlinkat(&self.folder, SOCKET_NAME, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes the log if nothing was written to it.
    pub fn remove_empty_log(&self) {
        if self.log.metadata().is_ok_and(|status| status.len() == 0) {
            let _ = unlinkat(&self.folder, LOG_NAME, AtFlags::empty());
        }
    }

    /// What a file of the folder holds; `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// The system's, `InvalidInput` where it is not a plain file.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        read_at(&self.folder, name)
    }

    /// Cuts off a line that could be written in part only.
    fn cut(&mut self) -> io::Result<()> {
        if let Some(length) = self.torn_at {
            self.log.set_len(length)?;
            self.torn_at = None;
        }
        Ok(())
    }
}

/// Writes a file of a folder anew, as a whole or not at all, and makes the folder if it is not there. The log is not touched.
///
/// # Errors
///
/// The system's.
pub fn replace_in(path: &Path, name: &str, contents: &[u8]) -> Result<(), FolderError> {
    replace_at(&open_folder(path)?, name, contents).map_err(|source| FolderError::Io {
        what: "write",
        path: path.join(name),
        source,
    })
}

/// Opens a folder; makes it and those above it if they are not there.
fn open_folder(path: &Path) -> Result<OwnedFd, FolderError> {
    let failed = |what| {
        move |source: io::Error| FolderError::Io {
            what,
            path: path.to_owned(),
            source,
        }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(failed("make the folder"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|errno| failed("open the folder")(errno.into()))
}

/// Makes the new contents of a file of a folder from the old ones (`None` if it is not there), while nobody else who
/// does so can.
///
/// # Errors
///
/// The outer one is the system's, the inner one that of `change`; the file is as it was then.
pub fn update_in<E>(
    path: &Path,
    name: &str,
    change: impl FnOnce(Option<Vec<u8>>) -> Result<Vec<u8>, E>,
) -> Result<Result<(), E>, FolderError> {
    let folder = open_folder(path)?;
    let failed = |what| {
        move |source: io::Error| FolderError::Io {
            what,
            path: path.join(name),
            source,
        }
    };
    // Not the lock of the log, which a running trace holds.
    flock(&folder, FlockOperation::LockExclusive).map_err(|errno| failed("lock the folder of")(errno.into()))?;
    let old = read_at(&folder, name).map_err(failed("read"))?;
    let new = match change(old) {
        Ok(new) => new,
        Err(error) => return Ok(Err(error)),
    };
    replace_at(&folder, name, &new).map_err(failed("write"))?;
    Ok(Ok(()))
}

fn read_at(folder: &OwnedFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if let Some(what) = not_plain(&file)? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    files::whole(&file).map(Some)
}

fn replace_at(folder: &OwnedFd, name: &str, contents: &[u8]) -> io::Result<()> {
    let temporary = format!(".{name}.tmp");
    let unlink = || unlinkat(folder, temporary.as_str(), AtFlags::empty());
    // Left behind by a trace that was killed, or planted.
    match unlink() {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(openat(folder, temporary.as_str(), flags, Mode::from_raw_mode(0o644))?);
    let written = io::Write::write_all(&mut &file, contents)
        .and_then(|()| file.sync_data())
        .and_then(|()| renameat(folder, temporary.as_str(), folder, name).map_err(Into::into));
    if written.is_err() {
        let _ = unlink();
    }
    written
}

fn open_log(folder: &OwnedFd, path: &Path, mode: FolderMode) -> Result<File, FolderError> {
    let failed = |what, source: io::Error| FolderError::Io {
        what,
        path: path.to_owned(),
        source,
    };
    let not_plain_file = |what| FolderError::NotPlain {
        path: path.to_owned(),
        what,
    };
    // Without NONBLOCK a pipe of that name would keep dlpm waiting. Not APPEND: Linux then ignores the offset that a
    // repair writes to.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let log = match openat(folder.as_fd(), LOG_NAME, flags, Mode::from_raw_mode(0o644)) {
        Ok(log) => File::from(log),
        Err(Errno::LOOP) => return Err(not_plain_file("a symbolic link")),
        Err(Errno::ISDIR) => return Err(not_plain_file("a folder")),
        Err(errno) => return Err(failed("open", errno.into())),
    };
    if let Some(what) = not_plain(&log).map_err(|source| failed("examine", source))? {
        return Err(not_plain_file(what));
    }
    match flock(&log, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(FolderError::InUse(path.to_owned())),
        Err(errno) => return Err(failed("lock", errno.into())),
    }
    // An empty one is left where a trace could not start, for want of space or otherwise.
    let length = log.metadata().map_err(|source| failed("examine", source))?.len();
    let has_closed = rotate::has_closed(folder).map_err(|source| failed("list the folder of", source))?;
    if mode == FolderMode::New && (length > 0 || has_closed) {
        let folder = path.parent().unwrap_or(path);
        return Err(FolderError::Holds(folder.to_owned()));
    }
    Ok(log)
}

/// What keeps a file from being written to.
fn not_plain(file: &File) -> io::Result<Option<&'static str>> {
    let status = file.metadata()?;
    Ok(if !status.is_file() {
        Some("no regular file")
    } else if status.nlink() != 1 {
        Some("a file with several names (hard links)")
    } else {
        None
    })
}

#[cfg(test)]
mod tests;
