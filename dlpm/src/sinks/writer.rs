//! The thread that writes the log, so that a slow or full disk never sets the pace of a trace.
//!
//! Under `sudo` it takes the credentials of the calling user before it touches the file system: folder and files
//! belong to that user, and no link planted anywhere makes root write for them. Credentials belong to a thread in the
//! kernel; the rest of dlpm stays root.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::{
    log::{Line, rotation::Budget},
    sinks::{
        folder::{FolderError, FolderMode},
        metadata::Metadata,
        socket::Listening,
        worker::{self, Finish, Shared, Worker},
    },
};

/// Bytes of lines that wait for the disk at most.
pub const BACKLOG_BYTES: usize = 64 << 20;

/// How long a writer that is dropped tries to write what waits.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

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
    /// Whether files are closed where a line of [`LineKind::Rotation`](crate::log::LineKind::Rotation) says so.
    pub rotates: bool,
    /// Room for closed files; `None`: all are kept.
    pub budget: Option<Budget>,
    /// Whether the folder gets a socket for marks.
    pub listens: bool,
}

/// Why a log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder cannot be used.
    #[error("{}{}", .0, next_step(.0))]
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

/// The other errors of a folder say it themselves.
fn next_step(error: &FolderError) -> &'static str {
    match error {
        FolderError::Io { .. } => "; choose another folder with --output",
        _ => "",
    }
}

/// Why lines wait.
#[derive(Clone, Debug)]
pub struct Blocked {
    /// Since when.
    pub since: Instant,
    /// The system's answer to the last try.
    pub error: String,
    /// What kind of answer it is.
    pub kind: io::ErrorKind,
}

impl Blocked {
    /// What helps, and what comes of it.
    pub fn outlook(&self) -> &'static str {
        match self.kind {
            // The open file has no name any more: whatever is written goes with it.
            io::ErrorKind::NotFound => "nothing brings this log back; start another trace to have one",
            _ => "make room, and they are written",
        }
    }
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
    /// What something else has done to the log, a sentence each.
    pub changes: Vec<String>,
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
    /// Whether the log was deleted, so that nothing can repair it.
    pub deleted: bool,
    /// What something else has done to the log, a sentence each.
    pub changes: Vec<String>,
    /// What went wrong at the end, a sentence each.
    pub problems: Vec<String>,
}

impl Report {
    /// What a user has to know of it, a sentence each; beside a summary or without one.
    pub fn notes(&self, has_summary: bool) -> Vec<String> {
        let mut notes = Vec::new();
        if self.dropped_intervals > 0 {
            let sums = if has_summary {
                " (their sums are in this summary)"
            } else {
                ""
            };
            notes.push(format!(
                "the log lacks the rows of {} intervals that found no room on the disk{sums}",
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
        if self.deleted {
            notes.push("the log was deleted while dlpm wrote it, and is lost".to_owned());
        } else if !self.complete {
            notes.push("the log does not end with the end of its segment; --append repairs it".to_owned());
        }
        notes
    }
}

/// Writes a log on a thread of its own. Dropped without [`Self::finish`], as in a panic, it still ends the log.
pub struct LogWriter {
    shared: Arc<Shared>,
    report: mpsc::Receiver<Report>,
    thread: Option<thread::JoinHandle<()>>,
    notes: Vec<String>,
    socket: Option<io::Result<Listening>>,
}

impl LogWriter {
    /// Opens the folder and starts the thread `dlpm-log`.
    ///
    /// # Errors
    ///
    /// See [`StartError`]; each names the next step.
    pub fn start(options: LogOptions) -> Result<Self, StartError> {
        let shared = Arc::new(Shared::new(options.backlog_bytes));
        let (started, start) = mpsc::channel();
        let (reported, report) = mpsc::channel();
        let of_thread = Arc::clone(&shared);
        let failed = |what: &str, source| StartError::Thread {
            what: what.to_owned(),
            source,
        };
        let thread = thread::Builder::new()
            .name("dlpm-log".to_owned())
            .spawn(move || match worker::open(&options) {
                Ok(folder) => {
                    let notes = folder.notes().to_vec();
                    // Here, as files are: it belongs to the calling user, and leads nowhere that this user may not write.
                    let socket = match options.listens {
                        true => folder.listen(),
                        false => Err(io::ErrorKind::Unsupported.into()),
                    };
                    let mut worker = Worker::new(of_thread, folder, socket.is_ok());
                    if started.send(Ok((notes, socket))).is_ok() {
                        let report = worker.run();
                        // Nobody waits for it any more if that took too long.
                        let _ = reported.send(report);
                    }
                }
                Err(error) => drop(started.send(Err(error))),
            })
            .map_err(|source| failed("cannot start a thread", source))?;
        let (notes, socket) = start
            .recv()
            .map_err(|_| failed("its thread stopped", io::Error::other("panic")))??;
        Ok(Self {
            shared,
            report,
            thread: Some(thread),
            notes,
            socket: Some(socket),
        })
    }

    /// The socket for marks in the folder, or why there is none; once. It is removed at the end.
    pub fn take_socket(&mut self) -> Option<io::Result<Listening>> {
        self.socket.take()
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
        let stopped = self.thread.as_ref().is_none_or(thread::JoinHandle::is_finished);
        let state = self.shared.lock();
        let mut status = Status {
            queued_lines: state.backlog.len(),
            ..state.status.clone()
        };
        if stopped && status.blocked.is_none() {
            status.blocked = Some(Blocked {
                since: Instant::now(),
                error: "the thread that writes the log stopped".to_owned(),
                kind: io::ErrorKind::Other,
            });
        }
        status
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
                let kind = status.blocked.map(|blocked| blocked.kind);
                Report {
                    written_lines: status.written_lines,
                    unwritten_lines: status.queued_lines as u64,
                    dropped_intervals: status.dropped_intervals,
                    complete: false,
                    deleted: kind == Some(io::ErrorKind::NotFound),
                    changes: status.changes,
                    problems: vec!["the disk of the log does not answer".to_owned()],
                }
            }
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.stop(None, LAST_PATIENCE);
    }
}

#[cfg(test)]
mod tests;
