//! A log that goes on in a new file.
//!
//! Steps, after each of which dlpm may be killed: the file is renamed to the next number; a new one of the log's name is
//! made; its first line names the file before it; then the closed file is compressed beside itself ([`Compressor`]), the
//! result gets its name, and the plain one goes. A folder that was left between two of them is read, and continued.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    time::Instant,
};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, fsync, openat, renameat, statat, unlinkat};
use sha2::{Digest, Sha256};

use super::{OutputFolder, compress::Compressor};
use crate::log::{
    Event, Line,
    chain::by_number,
    names::{COMPRESSED, LOG_NAME, closed_name, closed_number},
    rotation::Budget,
};

/// Bytes that are read at once.
const PIECE_BYTES: u64 = 1 << 18;

/// What is known of the file that is being written, and who compresses the closed ones.
#[derive(Debug)]
pub(super) struct Rotation {
    /// Number that the file gets when it is closed.
    number: u64,
    lines: u64,
    digest: Sha256,
    /// Something else has changed the file, so that these two are not right.
    pub changed: bool,
    compressor: Compressor,
    /// Why it was not closed when it was to be.
    failed: Option<io::Error>,
    budget: Option<Budget>,
}

impl Rotation {
    /// A line was written.
    pub fn add(&mut self, line: &str) {
        self.lines += 1;
        self.digest.update(line.as_bytes());
    }
}

/// Lines and digest of a text.
fn digest_of(mut text: impl Read) -> io::Result<(u64, Sha256)> {
    let (mut lines, mut digest, mut piece) = (0, Sha256::new(), Vec::new());
    while text.by_ref().take(PIECE_BYTES).read_to_end(&mut piece)? > 0 {
        lines += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
        digest.update(&piece);
        piece.clear();
    }
    Ok((lines, digest))
}

/// Names in a folder.
fn names(folder: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// Whether a folder has closed files of a log.
pub(super) fn has_closed(folder: &OwnedFd) -> io::Result<bool> {
    Ok(names(folder)?.iter().any(|name| closed_number(name).is_some()))
}

/// Removes the closed files of a log.
pub(super) fn remove_closed(folder: &OwnedFd) -> io::Result<()> {
    for name in names(folder)?.iter().filter(|name| closed_number(name).is_some()) {
        unlinkat(folder, name.as_str(), AtFlags::empty())?;
    }
    Ok(())
}

/// The newest closed file that has to go, with all before it, so that the others and a log of `length` bytes are within
/// the budget.
fn too_much(folder: &OwnedFd, budget: Budget, length: u64) -> io::Result<Option<u64>> {
    let now_s = jiff::Timestamp::now().as_second();
    let oldest_s = now_s.saturating_sub(i64::try_from(budget.age.as_secs()).unwrap_or(i64::MAX));
    let mut left_bytes = budget.bytes.saturating_sub(length);
    for (number, name) in by_number(&names(folder)?).into_iter().rev() {
        let status = statat(folder, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)?;
        let bytes = u64::try_from(status.st_size).unwrap_or(0);
        if bytes > left_bytes || status.st_mtime < oldest_s {
            return Ok(Some(number));
        }
        left_bytes -= bytes;
    }
    Ok(None)
}

/// The first line of a file after the closed ones of a folder; `None` without any.
pub(super) fn first_line(folder: &OwnedFd) -> io::Result<Option<String>> {
    let closed = by_number(&names(folder)?);
    let Some((number, name)) = closed.last_key_value() else {
        return Ok(None);
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(folder, name.as_str(), flags, Mode::empty())?);
    let (lines, digest) = if name.ends_with(COMPRESSED) {
        digest_of(zstd::stream::read::Decoder::new(file)?)?
    } else {
        digest_of(BufReader::new(file))?
    };
    continues(*number, lines, digest).map(Some)
}

fn continues(file: u64, lines: u64, digest: Sha256) -> io::Result<String> {
    Ok(Line::event(&Event::continues(file, lines, digest))?.text().to_owned())
}

impl OutputFolder {
    /// Makes the folder ready for [`Self::rotate`]; closed files that are not compressed yet will be. With a `budget`, the
    /// oldest are deleted whenever one is closed.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn start_rotating(&mut self, budget: Option<Budget>) -> io::Result<()> {
        let compressor = Compressor::start(self.folder.try_clone()?)?;
        let closed = by_number(&names(&self.folder)?);
        for name in closed.values().filter(|name| !name.ends_with(COMPRESSED)) {
            compressor.compress(name.clone());
        }
        self.rotation = Some(Rotation {
            number: closed.keys().next_back().map_or(1, |newest| newest.saturating_add(1)),
            lines: 0,
            digest: Sha256::new(),
            changed: true,
            compressor,
            failed: None,
            budget,
        });
        Ok(())
    }

    /// Closes the file of the log and goes on in a new one; says whether that has a line. Where that fails, the log goes
    /// on in the same file.
    ///
    /// # Errors
    ///
    /// The system's, about the log itself.
    pub fn rotate(&mut self) -> io::Result<bool> {
        let is_empty = self.first_line.is_some() || self.length == 0;
        if is_empty || self.moved || self.log.metadata()?.nlink() == 0 {
            return Ok(false);
        }
        let Some(mut rotation) = self.rotation.take() else {
            return Ok(false);
        };
        let closed = self.close(&mut rotation);
        let is_closed = closed.is_ok();
        rotation.failed = closed.err();
        // Its first line is one of those that are counted.
        self.rotation = Some(rotation);
        let has_line = is_closed && self.write_first().is_ok();
        if has_line {
            self.make_room();
        }
        Ok(has_line)
    }

    /// Deletes the oldest closed files that the budget has no room for; what cannot be deleted stays, and is tried again
    /// when the next file is closed.
    fn make_room(&mut self) {
        let Some(budget) = self.rotation.as_ref().and_then(|rotation| rotation.budget) else {
            return;
        };
        let Ok(Some(last)) = too_much(&self.folder, budget, self.length) else {
            return;
        };
        // It is said first: a reader must never find a file missing without a word.
        let said = Line::event(&Event::Removed { file: last }).map_err(io::Error::from);
        if said.and_then(|line| self.append(line.text())).is_err() {
            return;
        }
        let Ok(names) = names(&self.folder) else { return };
        for name in names
            .iter()
            .filter(|name| closed_number(name).is_some_and(|number| number <= last))
        {
            if let Err(error) = unlinkat(&self.folder, name.as_str(), AtFlags::empty()) {
                log::warn!("{name} cannot be deleted to make room: {error}");
            }
        }
    }

    fn close(&mut self, rotation: &mut Rotation) -> io::Result<()> {
        if rotation.changed {
            self.log.rewind()?;
            (rotation.lines, rotation.digest) = digest_of(BufReader::new(&self.log))?;
        }
        // A log that may not be on the disk after a power cut is still a log.
        let _ = self.sync();
        let name = closed_name(rotation.number);
        let first = continues(rotation.number, rotation.lines, rotation.digest.clone())?;
        renameat(&self.folder, LOG_NAME, &self.folder, name.as_str())?;
        let log = match new_log(&self.folder) {
            Ok(log) => log,
            Err(error) => {
                renameat(&self.folder, name.as_str(), &self.folder, LOG_NAME)?;
                return Err(error);
            }
        };
        let _ = fsync(&self.folder);
        self.log = log;
        self.length = 0;
        self.torn_at = None;
        self.first_line = Some(first);
        rotation.number = rotation.number.saturating_add(1);
        (rotation.lines, rotation.digest, rotation.changed) = (0, Sha256::new(), false);
        rotation.compressor.compress(name);
        Ok(())
    }

    /// Lets the compression finish until `deadline`. What went wrong, a sentence each.
    pub fn stop_rotating(&mut self, deadline: Instant) -> Vec<String> {
        let Some(rotation) = self.rotation.take() else {
            return Vec::new();
        };
        let mut problems = rotation.compressor.finish(deadline);
        problems.extend(rotation.failed.map(|error| {
            format!("the log could not be closed and went on in one file: {error}; --rotate needs a folder that allows new files")
        }));
        problems
    }
}

fn new_log(folder: &OwnedFd) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let log = File::from(openat(folder, LOG_NAME, flags, Mode::from_raw_mode(0o644))?);
    flock(&log, FlockOperation::NonBlockingLockExclusive)?;
    Ok(log)
}

#[cfg(test)]
mod tests;
