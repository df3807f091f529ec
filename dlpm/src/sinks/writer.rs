//! The thread that writes the log, so that a slow or full disk never sets the pace of a trace.
//!
//! Under `sudo` it takes the credentials of the calling user before it touches the file system: folder and files
//! belong to that user, and no link planted anywhere makes root write for them. Credentials belong to a thread in the
//! kernel; the rest of dlpm stays root.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    process::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use serde_json::{Map, Value};

use crate::sinks::{
    folder::{FolderError, FolderMode, LOG_NAME, OutputFolder},
    line::{Line, LineKind},
    metadata::{METADATA_NAME, Metadata},
    queue::{Backlog, Item},
};

/// Bytes of lines that wait for the disk at most.
pub const BACKLOG_BYTES: usize = 64 << 20;

/// A full disk is tried again after this time, also without a new line.
const RETRY: Duration = Duration::from_secs(1);

/// At the end of a trace a full disk is tried again after this time.
const LAST_RETRY: Duration = Duration::from_millis(100);

/// Without lines the thread sleeps until it is woken, or for this time.
const IDLE: Duration = Duration::from_secs(3600);

/// How long a disk that answers nothing is waited for at the end, beyond the time that was granted.
const GRACE: Duration = Duration::from_secs(2);

/// The user in whose name files are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Name of the user, for messages.
    pub name: String,
}

/// What a writer is started with.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The output folder.
    pub folder: PathBuf,
    /// What to do with a log that is there already.
    pub mode: FolderMode,
    /// In whose name to write; `None`: as the process itself.
    pub identity: Option<Identity>,
    /// For `metadata.json`.
    pub metadata: Metadata,
    /// Bytes of lines that wait for the disk at most ([`BACKLOG_BYTES`]).
    pub backlog_bytes: usize,
}

/// Why a log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder cannot be used by the user who called sudo.
    #[error("{source} as user {user}, who called sudo; choose a folder with --output that {user} may write")]
    Permission {
        /// The name of the user.
        user: String,
        /// What was refused.
        source: FolderError,
    },
    /// The thread could not be started, or not take the user's credentials.
    #[error("cannot write the log: {what}: {source}")]
    Thread {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Why lines wait.
#[derive(Clone, Debug)]
pub struct Blocked {
    /// Since when.
    pub since: Instant,
    /// The system's answer to the last try.
    pub error: String,
}

/// How the writer is doing.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Set while lines cannot be written.
    pub blocked: Option<Blocked>,
    /// Lines that wait.
    pub queued_lines: usize,
    /// Lines in the log, those of an earlier trace not counted.
    pub written_lines: u64,
    /// Samples that were dropped because too much was waiting; the log has their sums.
    pub dropped_intervals: u64,
}

/// How it ended.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Lines that were written.
    pub written_lines: u64,
    /// Lines that were still waiting, and are not in the log.
    pub unwritten_lines: u64,
    /// Samples whose rows are not in the log, for either reason.
    pub dropped_intervals: u64,
    /// Whether the log ends with the end of a segment (or is empty).
    pub complete: bool,
    /// What went wrong at the end, a sentence each.
    pub problems: Vec<String>,
}

impl Report {
    /// What a user has to know of it, a sentence each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.dropped_intervals > 0 {
            notes.push(format!(
                "the log lacks the rows of {} intervals that found no room on the disk (their sums are in this summary)",
                self.dropped_intervals
            ));
        }
        if self.unwritten_lines > 0 {
            notes.push(format!(
                "{} lines could not be written to the log",
                self.unwritten_lines
            ));
        }
        notes.extend(self.problems.iter().cloned());
        if !self.complete {
            notes.push("the log does not end with the end of its segment; --append repairs it".to_owned());
        }
        notes
    }
}

/// What the trace and the writer share. The lock is never held while something is written.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    backlog: Backlog,
    /// Lines that were ever pushed.
    pushed: u64,
    status: Status,
    finish: Option<Finish>,
}

#[derive(Clone)]
struct Finish {
    deadline: Instant,
    metadata: Option<Box<Metadata>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a log on a thread of its own. Dropped without [`Self::finish`], as in a panic, it still ends the log.
pub struct LogWriter {
    shared: Arc<Shared>,
    report: mpsc::Receiver<Report>,
    thread: Option<thread::JoinHandle<()>>,
    notes: Vec<String>,
}

impl LogWriter {
    /// Opens the folder and starts the thread `dlpm-log`.
    ///
    /// # Errors
    ///
    /// See [`StartError`]; each names the next step.
    pub fn start(options: LogOptions) -> Result<Self, StartError> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                backlog: Backlog::new(options.backlog_bytes),
                pushed: 0,
                status: Status::default(),
                finish: None,
            }),
            changed: Condvar::new(),
        });
        let (started, start) = mpsc::channel();
        let (reported, report) = mpsc::channel();
        let of_thread = Arc::clone(&shared);
        let failed = |what: &str, source| StartError::Thread {
            what: what.to_owned(),
            source,
        };
        let thread = thread::Builder::new()
            .name("dlpm-log".to_owned())
            .spawn(move || match open(&options) {
                Ok(folder) => {
                    let notes = folder.notes().to_vec();
                    let mut worker = Worker {
                        shared: of_thread,
                        folder,
                        open_segment: false,
                    };
                    if started.send(Ok(notes)).is_ok() {
                        let report = worker.run();
                        // Nobody waits for it any more if that took too long.
                        let _ = reported.send(report);
                    }
                }
                Err(error) => drop(started.send(Err(error))),
            })
            .map_err(|source| failed("cannot start a thread", source))?;
        let notes = start
            .recv()
            .map_err(|_| failed("its thread stopped", io::Error::other("panic")))??;
        Ok(Self {
            shared,
            report,
            thread: Some(thread),
            notes,
        })
    }

    /// What had to be repaired in a log that is continued, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Hands lines over; never waits for the disk.
    pub fn write(&self, lines: impl IntoIterator<Item = Line>) {
        let mut state = self.shared.lock();
        for line in lines {
            state.pushed += 1;
            state.status.dropped_intervals += state.backlog.push(line);
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    /// How the writer is doing.
    pub fn status(&self) -> Status {
        let state = self.shared.lock();
        Status {
            queued_lines: state.backlog.len(),
            ..state.status.clone()
        }
    }

    /// Writes what waits, for at most `patience`, ends the segment, writes the metadata and stops.
    pub fn finish(mut self, metadata: Metadata, patience: Duration) -> Report {
        self.stop(Some(metadata), patience)
    }

    fn stop(&mut self, metadata: Option<Metadata>, patience: Duration) -> Report {
        let Some(thread) = self.thread.take() else {
            return Report::default();
        };
        self.shared.lock().finish = Some(Finish {
            deadline: Instant::now() + patience,
            metadata: metadata.map(Box::new),
        });
        self.shared.changed.notify_one();
        match self.report.recv_timeout(patience + GRACE) {
            Ok(report) => {
                let _ = thread.join();
                report
            }
            Err(_) => {
                let status = self.status();
                Report {
                    written_lines: status.written_lines,
                    unwritten_lines: status.queued_lines as u64,
                    dropped_intervals: status.dropped_intervals,
                    complete: false,
                    problems: vec!["the disk of the log does not answer".to_owned()],
                }
            }
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.stop(None, RETRY);
    }
}

fn open(options: &LogOptions) -> Result<OutputFolder, StartError> {
    if let Some(identity) = &options.identity {
        become_user(identity).map_err(|source| StartError::Thread {
            what: format!("cannot act as user {}", identity.name),
            source,
        })?;
    }
    let folder = open_folder(options).map_err(|error| match &options.identity {
        Some(identity) if error.is_permission() => StartError::Permission {
            user: identity.name.clone(),
            source: error,
        },
        _ => StartError::Folder(error),
    })?;
    Ok(folder)
}

/// Gives the calling thread, and no other, the user's credentials, and with them takes its capabilities.
fn become_user(identity: &Identity) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    // In this order: without user id 0 the others cannot be changed.
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

fn open_folder(options: &LogOptions) -> Result<OutputFolder, FolderError> {
    let folder = OutputFolder::create(&options.folder, options.mode)?;
    let existing = match options.mode {
        FolderMode::Overwrite => Ok(Map::new()),
        FolderMode::New | FolderMode::Append => existing_metadata(&folder),
    };
    existing
        .and_then(|existing| {
            let continued = options.mode == FolderMode::Append;
            folder.replace(METADATA_NAME, &options.metadata.to_json(existing, continued))
        })
        .map_err(|source| FolderError::Io {
            what: "write",
            path: options.folder.join(METADATA_NAME),
            source,
        })?;
    Ok(folder)
}

fn existing_metadata(folder: &OutputFolder) -> io::Result<Map<String, Value>> {
    match folder.read(METADATA_NAME)? {
        Some(existing) => serde_json::from_slice(&existing)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the one that is there is no JSON object")),
        None => Ok(Map::new()),
    }
}

/// The thread's side.
struct Worker {
    shared: Arc<Shared>,
    folder: OutputFolder,
    /// Whether samples were written since the last segment end.
    open_segment: bool,
}

impl Worker {
    fn run(&mut self) -> Report {
        while let Some(item) = self.next() {
            self.write(item);
        }
        let finish = self.shared.lock().finish.clone();
        let deadline = finish.as_ref().map_or_else(Instant::now, |finish| finish.deadline);
        self.flush(deadline);
        self.close(finish.and_then(|finish| finish.metadata))
    }

    /// Waits for something to write; `None` when the trace ends.
    fn next(&self) -> Option<Item> {
        let mut state = self.shared.lock();
        let (retry_at, pushed) = (Instant::now() + RETRY, state.pushed);
        loop {
            if state.finish.is_some() {
                return None;
            }
            let now = Instant::now();
            let due = state.status.blocked.is_none() || state.pushed != pushed || now >= retry_at;
            if due && let Some(item) = state.backlog.pop() {
                return Some(item);
            }
            let wait = if state.backlog.is_empty() {
                IDLE
            } else {
                retry_at.saturating_duration_since(now)
            };
            let woken = self.shared.changed.wait_timeout(state, wait);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Writes one item or puts it back; says whether it was written.
    fn write(&mut self, item: Item) -> bool {
        let lines = match &item {
            Item::Line(line) => self.write_line(line).map(u64::from),
            Item::Gap(gap) => self.end_segment().and_then(|ended| {
                let event = Line::event("dropped", gap)?;
                Ok(u64::from(ended) + u64::from(self.write_line(&event)?))
            }),
        };
        let mut state = self.shared.lock();
        match lines {
            Ok(lines) => {
                state.status.written_lines += lines;
                state.status.blocked = None;
                true
            }
            Err(error) => {
                let dropped = state.backlog.put_back(item);
                state.status.dropped_intervals += dropped;
                let since = state
                    .status
                    .blocked
                    .as_ref()
                    .map_or_else(Instant::now, |blocked| blocked.since);
                state.status.blocked = Some(Blocked {
                    since,
                    error: error.to_string(),
                });
                false
            }
        }
    }

    /// Writes a line, but no second segment end after another; says whether it did.
    fn write_line(&mut self, line: &Line) -> io::Result<bool> {
        match line.kind {
            LineKind::SegmentEnd => self.end_segment(),
            LineKind::Sample(_) | LineKind::Event => {
                self.folder.write_line(line.text())?;
                self.open_segment |= matches!(line.kind, LineKind::Sample(_));
                Ok(true)
            }
        }
    }

    fn end_segment(&mut self) -> io::Result<bool> {
        if !self.open_segment {
            return Ok(false);
        }
        self.folder.write_line(Line::segment_end().text())?;
        self.open_segment = false;
        // A log that may not be on the disk after a power cut is still a log.
        let _ = self.folder.sync();
        Ok(true)
    }

    fn flush(&mut self, deadline: Instant) {
        loop {
            let Some(item) = self.shared.lock().backlog.pop() else {
                return;
            };
            if !self.write(item) {
                if Instant::now() >= deadline {
                    return;
                }
                thread::sleep(LAST_RETRY);
            }
        }
    }

    /// Ends the log, with what little space there may be.
    fn close(&mut self, metadata: Option<Box<Metadata>>) -> Report {
        let mut problems = Vec::new();
        let (unwritten_lines, rest) = {
            let mut state = self.shared.lock();
            let (unwritten, counted) = (state.backlog.len() as u64, state.backlog.gap_intervals());
            let rest = state.backlog.drop_all();
            state.status.dropped_intervals += rest.as_ref().map_or(0, |rest| rest.intervals - counted);
            (unwritten, rest)
        };
        let mut lines = 0;
        let mut note = |what: String, result: io::Result<bool>| match result {
            Ok(written) => lines += u64::from(written),
            Err(error) => problems.push(format!("{what}: {error}")),
        };
        if let Some(rest) = rest {
            let event = Line::event("dropped", &rest).map_err(io::Error::from);
            let result = event.and_then(|event| self.write_line(&event));
            note("cannot write what was dropped".to_owned(), result);
        }
        let ended = self.end_segment();
        note(format!("cannot end the segment in {LOG_NAME}"), ended);
        if let Some(metadata) = metadata {
            let existing = existing_metadata(&self.folder).unwrap_or_default();
            let result = self.folder.replace(METADATA_NAME, &metadata.to_json(existing, true));
            note(format!("cannot write {METADATA_NAME}"), result.map(|()| false));
        }
        let mut state = self.shared.lock();
        state.status.written_lines += lines;
        Report {
            written_lines: state.status.written_lines,
            unwritten_lines,
            dropped_intervals: state.status.dropped_intervals,
            complete: !self.open_segment,
            problems,
        }
    }
}

#[cfg(test)]
mod tests;
