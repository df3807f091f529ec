//! The lines of a log, one at a time: those of dlpm, and those that AIPowerMeter wrote itself.
//!
//! One line is held at a time, so that a log may be of any length, and may grow meanwhile. What a later version of
//! dlpm adds is passed over and counted; what makes no sense is an error that names its line.

use std::{
    io::{self, BufRead},
    path::{Path, PathBuf},
};

use jiff::tz::TimeZone;

use super::{
    chain::Lines,
    entry::{self, LogLine, Wrong},
    event::Event,
    torn::looks_torn,
};
use crate::{printable::printable, sources::timezone::local};

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is no log, or the system refuses.
    #[error("{} cannot be read: {error}; give the folder that `dlpm trace --output` wrote", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// A line that is not a line of a log.
    #[error("{}:{number}: {why}; `dlpm verify` shows all that is wrong with a log", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        number: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// What was passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassedOver {
    /// Bytes of a last line that is not whole: the trace is writing it, or was killed.
    pub torn_bytes: u64,
    /// Events that this version does not know.
    pub unknown_events: u64,
    /// Lines that say nothing, empty ones too.
    pub other_lines: u64,
    /// Files of a log that was rotated, before the first one that is there.
    pub missing_files: u64,
}

/// Reads a log line by line.
#[derive(Debug)]
pub struct LogReader<'a> {
    lines: Lines<'a>,
    timezone: TimeZone,
    buffer: Vec<u8>,
    passed_over: PassedOver,
}

impl LogReader<'static> {
    /// Opens the log of a folder, with all of its files, or the log itself.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`].
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let lines = Lines::open(path).map_err(|(path, error)| LogError::Io { path, error })?;
        Ok(Self::of(lines, local().timezone.clone()))
    }
}

impl<'a> LogReader<'a> {
    /// Reads `input`, which messages call `path`. Dates without an offset are of `timezone`.
    pub fn new(path: PathBuf, input: impl BufRead + Send + 'a, timezone: TimeZone) -> Self {
        Self::of(Lines::new(path, input), timezone)
    }

    fn of(lines: Lines<'a>, timezone: TimeZone) -> Self {
        let passed_over = PassedOver {
            missing_files: lines.missing(),
            ..PassedOver::default()
        };
        Self {
            lines,
            timezone,
            buffer: Vec::new(),
            passed_over,
        }
    }

    /// The file of the newest line, as messages call it.
    pub fn path(&self) -> &Path {
        self.lines.path()
    }

    /// Lines of all files until now.
    pub fn number(&self) -> u64 {
        self.lines.total()
    }

    /// What was passed over until now.
    pub fn passed_over(&self) -> PassedOver {
        self.passed_over
    }

    /// An error about the newest line.
    pub fn error(&self, why: impl Into<String>) -> LogError {
        LogError::Line {
            path: self.lines.path().to_owned(),
            number: self.lines.number(),
            why: printable(&why.into()),
        }
    }

    fn io_error(&self, error: io::Error) -> LogError {
        LogError::Io {
            path: self.lines.path().to_owned(),
            error,
        }
    }

    /// The next line; `None` at the end of the log, and where the last line is not whole.
    ///
    /// # Errors
    ///
    /// [`LogError`]. Reading on after one gives the lines after it.
    pub fn next_line(&mut self) -> Result<Option<LogLine<'_>>, LogError> {
        let read = self
            .lines
            .next(&mut self.buffer)
            .map_err(|error| self.io_error(error))?;
        let Some(read) = read else { return Ok(None) };
        if let Err(beyond) = read {
            return Err(self.error(beyond.to_string()));
        }
        let length = self.buffer.len() as u64;
        without_nan(&mut self.buffer);
        match entry::read(&self.buffer, &self.timezone) {
            Ok(line) => {
                match &line {
                    LogLine::Event(Event::Unknown) => self.passed_over.unknown_events += 1,
                    LogLine::Nothing => self.passed_over.other_lines += 1,
                    _ => {}
                }
                Ok(Some(line))
            }
            Err(wrong) => {
                let is_last = self.lines.is_at_end().map_err(|error| self.io_error(error))?;
                if is_last && matches!(wrong, Wrong::NotJson(_)) && looks_torn(&self.buffer) {
                    self.passed_over.torn_bytes = length;
                    return Ok(None);
                }
                Err(self.error(wrong.why()))
            }
        }
    }
}

/// Python writes NaN and infinities, which JSON has not, for what is not known: `null` in their place. Only lines that
/// Python's library has written are searched.
fn without_nan(line: &mut Vec<u8>) {
    if !line.starts_with(b"{\"date\": ") {
        return;
    }
    if let Ok(text) = str::from_utf8(line)
        && [": NaN", ": Infinity", ": -Infinity"]
            .iter()
            .any(|wrong| text.contains(wrong))
    {
        let text = text.replace(": NaN", ": null");
        let text = text.replace(": Infinity", ": null").replace(": -Infinity", ": null");
        *line = text.into_bytes();
    }
}
