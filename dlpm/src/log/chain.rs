//! The files of a log as one text, line by line.
//!
//! `--rotate` closes a file and goes on in another, whose first line ([`Event::Continues`](super::Event)) names the one
//! before it. Closed files have numbers, and are compressed a little later; the newest lines are in the file that always
//! has the name of the log.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    ahead::Ahead,
    event::Event,
    names::{COMPRESSED, LOG_NAME, closed_name, closed_number, log_of},
};
use crate::files::{self, Beyond};

/// The files of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// In the order in which they were written.
    pub paths: Vec<PathBuf>,
    /// How many were closed before the first of them, and are not there any more.
    pub missing: u64,
}

impl Files {
    /// Those of a folder, or of the log itself. Another file is taken alone.
    ///
    /// # Errors
    ///
    /// The system's, where the folder cannot be listed.
    pub fn of(path: &Path) -> io::Result<Self> {
        let log = log_of(path);
        if log.file_name().is_none_or(|name| name != LOG_NAME) {
            return Ok(Self {
                paths: vec![log],
                missing: 0,
            });
        }
        let folder = match log.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Before the folder is listed: a file that is closed meanwhile is not read twice.
        let continued = continued(&log);
        let closed = closed(folder)?;
        let newest = match continued {
            Continued::File(number) => number,
            Continued::None => 0,
            Continued::Unknown => closed.keys().next_back().copied().unwrap_or(0),
        };
        let is_there = |number: &u64| closed.contains_key(number) || *number > newest;
        let first = (1..=newest)
            .rev()
            .take_while(is_there)
            .last()
            .unwrap_or(newest.saturating_add(1));
        let mut paths: Vec<PathBuf> = (first..=newest)
            .filter_map(|number| Some(folder.join(closed.get(&number)?)))
            .collect();
        // A trace that was killed while it went on in a new file has left none of that name.
        if paths.is_empty() || fs::symlink_metadata(&log).is_ok() {
            paths.push(log);
        }
        Ok(Self {
            paths,
            missing: first - 1,
        })
    }
}

/// Which closed file a log continues.
enum Continued {
    File(u64),
    /// It was not rotated.
    None,
    /// It has no first line.
    Unknown,
}

#[derive(Deserialize)]
struct First {
    dlpm: Event,
}

fn continued(log: &Path) -> Continued {
    let mut line = Vec::new();
    let read = files::open(log).and_then(|file| files::next_line(&mut BufReader::new(file), &mut line));
    match read {
        Ok(Some(Ok(()))) if line.ends_with(b"\n") => match serde_json::from_slice(&line) {
            Ok(First {
                dlpm: Event::Continues { file, .. },
            }) => Continued::File(file),
            _ => Continued::None,
        },
        _ => Continued::Unknown,
    }
}

fn closed(folder: &Path) -> io::Result<BTreeMap<u64, String>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    Ok(by_number(&names.collect::<io::Result<Vec<String>>>()?))
}

/// Which of some names are of closed files, by number; of two for one number, the one that is not compressed.
pub fn by_number(names: &[String]) -> BTreeMap<u64, String> {
    let mut closed = BTreeMap::new();
    for name in names {
        let Some(number) = closed_number(name) else { continue };
        // Whole, as it was written; the compressed one is whole as well, and takes more time.
        if !name.ends_with(COMPRESSED) || !closed.contains_key(&number) {
            closed.insert(number, name.clone());
        }
    }
    closed
}

/// Opens a file of a log, which may be compressed meanwhile.
///
/// # Errors
///
/// Those of [`files::open`], `InvalidData` where it is not what its name says.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    let is_compressed = path.as_os_str().as_encoded_bytes().ends_with(COMPRESSED.as_bytes());
    let file = match files::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_compressed => {
            let number = path.file_name().and_then(|name| closed_number(name.to_str()?));
            let Some(number) = number else { return Err(error) };
            let compressed = path.with_file_name(closed_name(number) + COMPRESSED);
            let file = files::open(&compressed).map_err(|_| error)?;
            return Ok(Box::new(Ahead::start(file)?));
        }
        file => file?,
    };
    if is_compressed {
        return Ok(Box::new(Ahead::start(file)?));
    }
    Ok(Box::new(BufReader::with_capacity(1 << 18, file)))
}

/// The lines of a log, one file after another.
pub struct Lines<'a> {
    path: PathBuf,
    input: Box<dyn BufRead + Send + 'a>,
    rest: VecDeque<PathBuf>,
    missing: u64,
    number: u64,
    total: u64,
}

impl Lines<'static> {
    /// Opens the log of a folder, the log itself, or one of its files.
    ///
    /// # Errors
    ///
    /// The file that cannot be opened, and the system's answer.
    pub fn open(path: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let files = Files::of(path).map_err(|error| (log_of(path), error))?;
        let mut rest = VecDeque::from(files.paths);
        let path = rest.pop_front().unwrap_or_else(|| log_of(path));
        match open(&path) {
            Ok(input) => Ok(Self {
                path,
                input,
                rest,
                missing: files.missing,
                number: 0,
                total: 0,
            }),
            Err(error) => Err((path, error)),
        }
    }
}

impl<'a> Lines<'a> {
    /// Reads `input`, which messages call `path`.
    pub fn new(path: PathBuf, input: impl BufRead + Send + 'a) -> Self {
        Self {
            path,
            input: Box::new(input),
            rest: VecDeque::new(),
            missing: 0,
            number: 0,
            total: 0,
        }
    }

    /// Reads the next line into `line`, as [`files::next_line`] does.
    ///
    /// # Errors
    ///
    /// Those of [`files::next_line`]; the outer one is about [`Self::path`].
    pub fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Option<Result<(), Beyond>>> {
        loop {
            let read = files::next_line(&mut self.input, line)?;
            if read.is_some() {
                self.number += 1;
                self.total += 1;
                return Ok(read);
            }
            let Some(next) = self.rest.pop_front() else {
                return Ok(None);
            };
            self.path = next;
            self.number = 0;
            self.input = open(&self.path)?;
        }
    }

    /// Whether nothing follows.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.rest.is_empty() && self.input.fill_buf()?.is_empty())
    }

    /// Whether the log has several files.
    pub fn is_rotated(&self) -> bool {
        self.missing > 0 || !self.rest.is_empty()
    }

    /// The file of the newest line.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of the newest line in its file, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Lines of all files until now.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Files that were closed before the first one, and are not there any more.
    pub fn missing(&self) -> u64 {
        self.missing
    }
}

impl std::fmt::Debug for Lines<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.path.display(), self.number)
    }
}
