//! A log that something else changes while dlpm writes it: log rotation that truncates, an editor, a stray `>>`.

use std::{io, os::unix::fs::MetadataExt};

use rustix::fs::{AtFlags, statat};

use super::OutputFolder;
use crate::{
    log::{Event, Line, names::LOG_NAME},
    sinks::repair,
};

/// What something else has done to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// A sentence.
    pub what: String,
    /// Whether lines are gone, so that the segment was ended.
    pub lost: bool,
}

impl Change {
    fn without_loss(what: String) -> Self {
        Self { what, lost: false }
    }
}

impl OutputFolder {
    /// Looks whether the log is as dlpm left it, and makes it readable again if it is not: what others have appended is
    /// cut off, as is a line that they have cut in two; the segment before is ended, and an event says that lines are
    /// missing.
    ///
    /// # Errors
    ///
    /// The system's. Another try does the rest.
    pub fn settle(&mut self) -> io::Result<Option<Change>> {
        self.cut()?;
        let status = self.log.metadata()?;
        if status.nlink() > 0 && !self.moved && !self.is_in_its_place(status.dev(), status.ino()) {
            self.moved = true;
            let what =
                "the log was moved or replaced while dlpm wrote it: its lines go on into the file that was moved";
            return Ok(Some(Change::without_loss(what.to_owned())));
        }
        let (expected, found) = (self.length, status.len());
        if found == expected {
            return Ok(None);
        }
        if let Some(rotation) = &mut self.rotation {
            rotation.changed = true;
        }
        if found > expected {
            self.log.set_len(expected)?;
        }
        let Ok(repair) = repair::examine(&mut self.log)? else {
            // Nothing that is done at its end makes it readable.
            self.length = self.log.metadata()?.len();
            let what = "something else has overwritten the log while dlpm wrote it, so that it cannot be read: what \
                        follows is appended all the same; keep the log away from other programs";
            return Ok(Some(Change::without_loss(what.to_owned())));
        };
        repair.apply(&self.log)?;
        self.length = self.log.metadata()?.len();
        let lost_bytes = expected.saturating_sub(self.length);
        if lost_bytes == 0 {
            return Ok(Some(Change::without_loss(format!(
                "something else has appended {} bytes to the log while dlpm wrote it; they were cut off",
                found.saturating_sub(expected)
            ))));
        }
        for line in repair.missing() {
            self.write_line(line.text())?;
        }
        self.write_line(Line::event(&Event::Cut { lost_bytes })?.text())?;
        let what = format!(
            "something else has cut the log while dlpm wrote it, and {lost_bytes} bytes of it are gone: the totals of this \
             trace are right, the log lacks lines; exclude it from log rotation"
        );
        Ok(Some(Change { what, lost: true }))
    }

    /// Whether the name of the log is that of the file that is open.
    fn is_in_its_place(&self, dev: u64, ino: u64) -> bool {
        statat(&self.folder, LOG_NAME, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|named| named.st_ino == ino && named.st_dev == dev)
    }
}
