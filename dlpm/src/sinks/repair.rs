//! A log that ended without its end: what is wrong with it, and what is changed so that it can be continued.

use std::{
    fmt,
    fs::File,
    io::{self, BufReader, Seek},
};

use crate::{
    files::{self, Beyond},
    log::{
        Kind, Line,
        torn::{again, looks_torn},
    },
};

/// Empty lines that are closed at most.
const MOST_BLANK: usize = 100_000;

/// Why a file is not taken for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    line: u64,
    why: &'static str,
}

impl fmt::Display for Foreign {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {} {}", self.line, self.why)
    }
}

/// What an existing log needs before it can be continued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// Whether samples follow the last segment end.
    open_segment: bool,
    /// The sample that is alone after it, said again.
    again: Option<Line>,
    /// Length of the part that is kept.
    keep: u64,
    /// Bytes after it.
    torn: u64,
    /// Newlines that a blank replaces, so that no line is empty.
    blank: Vec<u64>,
    /// Whether the last line that is kept lacks its newline.
    unfinished: bool,
}

/// Reads a log from its beginning, and changes nothing.
///
/// A line that is not whole is given up if it is the last one. A newline at the end is all that is missing where the
/// JSON is whole: no part of an object or a string is an object or a string.
///
/// # Errors
///
/// The outer error is the system's; the inner one says why this is not a log of dlpm or AIPowerMeter.
pub fn examine(log: &mut File) -> io::Result<Result<Repair, Foreign>> {
    log.rewind()?;
    let mut reader = BufReader::with_capacity(1 << 16, &*log);
    let mut found = Repair::default();
    let mut line = Vec::new();
    let (mut offset, mut number) = (0u64, 0u64);
    let mut torn: Option<Foreign> = None;
    let mut blank = Vec::new();
    // Samples since the last segment end, and the first while it is the only one.
    let (mut samples, mut alone) = (0u64, Vec::new());
    while let Some(read) = files::next_line(&mut reader, &mut line)? {
        number += 1;
        if let Err(beyond) = read {
            let why = match beyond {
                Beyond::Length => "is too long to be of a log",
                Beyond::Values => "has too many values to be of a log",
            };
            return Ok(Err(Foreign { line: number, why }));
        }
        let length = line.len() as u64;
        let begin = offset;
        offset += length;
        if line.trim_ascii().is_empty() {
            // The newline before a blank line, or its own where no line is before it.
            if blank.len() + found.blank.len() >= MOST_BLANK {
                let why = "is one of too many empty ones";
                return Ok(Err(Foreign { line: number, why }));
            }
            blank.push(if found.keep == 0 { offset - 1 } else { begin - 1 });
            continue;
        }
        if let Some(foreign) = torn {
            return Ok(Err(foreign));
        }
        let why = match Kind::of_line(&line) {
            Ok(Kind::Foreign | Kind::List) => "is neither a sample nor the end of a segment",
            Err(_) => NOT_JSON,
            Ok(kind) => {
                match kind {
                    Kind::SegmentEnd => (found.open_segment, samples) = (false, 0),
                    Kind::Sample | Kind::Repeat => {
                        (found.open_segment, samples) = (true, samples + 1);
                        alone.clear();
                        if samples == 1 {
                            alone.extend_from_slice(&line);
                        }
                    }
                    _ => {}
                }
                // Only the blank lines before a kept line stay in the file.
                found.blank.append(&mut blank);
                found.keep = offset;
                found.unfinished = !line.ends_with(b"\n");
                continue;
            }
        };
        let foreign = Foreign { line: number, why };
        if !looks_torn(&line) || why != NOT_JSON {
            return Ok(Err(foreign));
        }
        torn = Some(foreign);
    }
    found.torn = offset - found.keep;
    found.again = again(&alone).filter(|_| found.open_segment);
    Ok(Ok(found))
}

const NOT_JSON: &str = "is not JSON";

impl Repair {
    /// What the log lacks at its end, after the changes: the end of a segment.
    pub fn missing(&self) -> Vec<Line> {
        let end = self.open_segment.then(Line::segment_end);
        self.again.iter().cloned().chain(end).collect()
    }

    /// Makes the changes; says each in a sentence.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn apply(&self, log: &File) -> io::Result<Vec<String>> {
        let mut notes = Vec::new();
        if self.torn > 0 {
            log.set_len(self.keep)?;
            notes.push(format!(
                "cut {} bytes of an unfinished line off the end of the log",
                self.torn
            ));
        }
        for newline in &self.blank {
            rustix::io::pwrite(log, b" ", *newline)?;
        }
        if !self.blank.is_empty() {
            notes.push(format!("closed {} empty lines in the log", self.blank.len()));
        }
        if self.unfinished {
            rustix::io::pwrite(log, b"\n", self.keep)?;
            notes.push("ended the last line of the log".to_owned());
        }
        Ok(notes)
    }
}
