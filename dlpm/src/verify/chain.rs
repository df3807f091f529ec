//! What holds from one file of a log that was rotated to the next: nothing is missing between them.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::log::{Event, differs, names::closed_number};

/// A file that was closed, as it was read.
#[derive(Debug)]
struct Closed {
    number: Option<u64>,
    lines: u64,
    digest: Sha256,
}

impl Closed {
    fn of(path: &Path) -> Self {
        Self {
            number: path.file_name().and_then(|name| closed_number(name.to_str()?)),
            lines: 0,
            digest: Sha256::new(),
        }
    }
}

/// The files that have been read.
#[derive(Debug, Default)]
pub struct Chain {
    before: Option<Closed>,
    now: Option<Closed>,
    /// The log begins after this file, and no event has said yet that it was deleted on purpose.
    missing: Option<u64>,
}

impl Chain {
    /// Takes the next line, which is the first one of its file or not; says what is wrong, if that follows another.
    pub fn line(&mut self, line: &[u8], is_first: bool, path: &Path, event: Option<&Event>) -> Option<String> {
        if is_first {
            self.before = self.now.replace(Closed::of(path));
        }
        // The newest file may go on, so that nothing says what its digest is.
        if let Some(now) = self.now.as_mut().filter(|now| now.number.is_some()) {
            now.lines += 1;
            now.digest.update(line);
        }
        match event {
            Some(event @ Event::Continues { file, .. }) if is_first => self.follows(*file, event),
            Some(Event::Removed { file }) => {
                self.missing = self.missing.filter(|missing| missing > file);
                None
            }
            Some(Event::Continues { .. }) => Some("event continues: expected at the beginning of a file".to_owned()),
            _ if is_first && self.before.is_some() => {
                Some("the first line of the file does not say which one it continues".to_owned())
            }
            _ => None,
        }
    }

    /// Whether the log begins after other files of it.
    pub fn begins_later(&self) -> bool {
        self.missing.is_some()
    }

    /// What is wrong at the end of the log.
    pub fn end(&self) -> Option<String> {
        let file = self.missing?;
        Some(format!(
            "event continues: file {file} of the log, and all before it, are missing, and no event says that they were \
             deleted to make room"
        ))
    }

    fn follows(&mut self, file: u64, event: &Event) -> Option<String> {
        let Some(before) = self.before.take() else {
            self.missing = Some(file);
            return None;
        };
        if before.number != Some(file) {
            let found = before
                .number
                .map_or_else(|| "none".to_owned(), |number| number.to_string());
            return Some(differs("event continues: number of the file before", file, found));
        }
        let found = Event::continues(file, before.lines, before.digest);
        (found != *event).then(|| format!("file {file} is not as it was closed: expected {event:?}, found {found:?}"))
    }
}
