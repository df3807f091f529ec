//! The writer's thread: takes the user's rights to files, opens the folder, and writes what is handed over.

use std::{
    fs, io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};

use crate::{
    log::{
        Event, Line, LineKind,
        names::{LOG_NAME, METADATA_NAME},
    },
    sinks::{
        credentials,
        folder::{FolderError, FolderMode, OutputFolder},
        metadata::Metadata,
        queue::{Backlog, Item},
        writer::{Blocked, LogOptions, Report, StartError, Status},
    },
};

/// A full disk is tried again after this time, also without a new line.
const RETRY: Duration = Duration::from_secs(1);

/// At the end of a trace a full disk is tried again after this time.
const LAST_RETRY: Duration = Duration::from_millis(100);

/// Without lines the thread sleeps until it is woken, or for this time.
const IDLE: Duration = Duration::from_secs(3600);

/// What the trace and the writer share. The lock is never held while something is written.
pub(super) struct Shared {
    state: Mutex<State>,
    pub changed: Condvar,
}

pub(super) struct State {
    pub backlog: Backlog,
    /// Lines that were ever pushed.
    pub pushed: u64,
    pub status: Status,
    pub finish: Option<Finish>,
}

#[derive(Clone)]
pub(super) struct Finish {
    pub deadline: Instant,
    pub metadata: Option<Box<Metadata>>,
}

impl Shared {
    pub fn new(backlog_bytes: usize) -> Self {
        Self {
            state: Mutex::new(State {
                backlog: Backlog::new(backlog_bytes),
                pushed: 0,
                status: Status::default(),
                finish: None,
            }),
            changed: Condvar::new(),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn open(options: &LogOptions) -> Result<OutputFolder, StartError> {
    if let Some(identity) = &options.identity {
        credentials::use_files_as(identity).map_err(|source| StartError::Thread {
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

fn open_folder(options: &LogOptions) -> Result<OutputFolder, FolderError> {
    let had_log = fs::symlink_metadata(options.folder.join(LOG_NAME)).is_ok();
    let mut folder = OutputFolder::create(&options.folder, options.mode)?;
    let existing = match options.mode {
        FolderMode::Overwrite => Ok(Map::new()),
        FolderMode::New | FolderMode::Append => existing_metadata(&folder),
    };
    existing
        .and_then(|existing| {
            let continued = options.mode == FolderMode::Append;
            folder.replace(METADATA_NAME, &options.metadata.to_json(existing, continued))
        })
        .inspect_err(|_| {
            // A trace that cannot start leaves no log.
            if !had_log {
                folder.remove_empty_log();
            }
        })
        .map_err(|source| FolderError::Io {
            what: "write",
            path: options.folder.join(METADATA_NAME),
            source,
        })?;
    if options.rotates {
        folder
            .start_rotating(options.budget)
            .map_err(|source| FolderError::Io {
                what: "list",
                path: options.folder.clone(),
                source,
            })?;
    }
    Ok(folder)
}

fn existing_metadata(folder: &OutputFolder) -> io::Result<Map<String, Value>> {
    match folder.read(METADATA_NAME)? {
        Some(existing) => serde_json::from_slice(&existing)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the file that is there is no JSON object")),
        None => Ok(Map::new()),
    }
}

/// The thread's side.
pub(super) struct Worker {
    shared: Arc<Shared>,
    folder: OutputFolder,
    /// Whether samples were written since the last segment end.
    open_segment: bool,
    /// Whether the folder has a socket of this trace.
    has_socket: bool,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, folder: OutputFolder, has_socket: bool) -> Self {
        Self {
            shared,
            folder,
            open_segment: false,
            has_socket,
        }
    }

    /// Writes until the trace ends, then ends the log.
    pub fn run(&mut self) -> Report {
        while let Some(item) = self.next() {
            self.write(item);
        }
        let finish = self.shared.lock().finish.clone();
        let deadline = finish.as_ref().map_or_else(Instant::now, |finish| finish.deadline);
        self.flush(deadline);
        self.close(finish.and_then(|finish| finish.metadata), deadline)
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
                let event = Line::event(&Event::Dropped(gap.clone()))?;
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
                    kind: error.kind(),
                });
                false
            }
        }
    }

    /// Writes a line, but no second segment end after another; says whether it did.
    fn write_line(&mut self, line: &Line) -> io::Result<bool> {
        self.settle()?;
        match line.kind {
            LineKind::SegmentEnd => self.end_segment(),
            LineKind::Rotation => {
                self.end_segment()?;
                self.folder.rotate()
            }
            LineKind::Sample(_) | LineKind::Event => {
                self.folder.write_line(line.text())?;
                self.open_segment |= matches!(line.kind, LineKind::Sample(_));
                Ok(true)
            }
        }
    }

    /// Notices what something else has done to the log.
    fn settle(&mut self) -> io::Result<()> {
        if let Some(change) = self.folder.settle()? {
            self.open_segment &= !change.lost;
            self.shared.lock().status.changes.push(change.what);
        }
        Ok(())
    }

    fn end_segment(&mut self) -> io::Result<bool> {
        self.settle()?;
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
    fn close(&mut self, metadata: Option<Box<Metadata>>, deadline: Instant) -> Report {
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
            let event = Line::event(&Event::Dropped(rest)).map_err(io::Error::from);
            let result = event.and_then(|event| self.write_line(&event));
            note("cannot write what was dropped".to_owned(), result);
        }
        if self.has_socket {
            // Left behind, it is replaced by the next trace, and nobody listens to it.
            let _ = self.folder.remove_socket();
        }
        let ended = self.end_segment();
        note(format!("cannot end the segment in {LOG_NAME}"), ended);
        if let Some(metadata) = metadata {
            let existing = existing_metadata(&self.folder).unwrap_or_default();
            let result = self.folder.replace(METADATA_NAME, &metadata.to_json(existing, true));
            note(format!("cannot write {METADATA_NAME}"), result.map(|()| false));
        }
        problems.extend(self.folder.stop_rotating(deadline));
        let mut state = self.shared.lock();
        state.status.written_lines += lines;
        let kind = state.status.blocked.as_ref().map(|blocked| blocked.kind);
        Report {
            written_lines: state.status.written_lines,
            unwritten_lines,
            dropped_intervals: state.status.dropped_intervals,
            complete: !self.open_segment,
            deleted: kind == Some(io::ErrorKind::NotFound),
            changes: state.status.changes.clone(),
            problems,
        }
    }
}
