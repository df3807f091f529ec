//! The thread that writes snapshots to the disk and then lets them be seen.
//!
//! A snapshot is written when somebody asks for it, when a tenant has ended, and now and then: what nobody has seen may be
//! lost by a kill, since the meters tell later what was counted meanwhile. Whatever the disk does, the measuring thread waits for nothing.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{finished::FinishedFile, state::State};
use crate::agent::{
    counters::Counters,
    facts::{Disk, Facts, Snapshot},
    line::{Line, Place},
};

/// Snapshots from one write to the next, where nobody asks for one.
const WRITE_EVERY: u64 = 10;

/// How long somebody who asks waits for the disk; then an older snapshot has to do.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between the measuring thread, the one that writes, and those who serve what is written.
#[derive(Debug, Default)]
pub struct Slot {
    inside: Mutex<Inside>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inside {
    /// The newest, if it is not written.
    next: Option<(Counters, Facts)>,
    /// Number of the newest.
    newest: u64,
    /// The newest that is written.
    shown: Option<Arc<Snapshot>>,
    /// Somebody waits for the newest.
    is_wanted: bool,
    /// Lines up to this number are written.
    written: u64,
    is_last: bool,
    is_done: bool,
}

impl Inside {
    fn shown_number(&self) -> u64 {
        self.shown.as_ref().map_or(0, |shown| shown.counters.intervals)
    }

    fn is_due(&self) -> bool {
        let unwritten = self.newest.saturating_sub(self.shown_number());
        let newest_line = self.next.as_ref().and_then(|(counters, _)| counters.finished.back());
        let has_line = newest_line.is_some_and(|line| line.number > self.written);
        self.is_wanted || self.is_last || self.shown.is_none() || has_line || unwritten >= WRITE_EVERY
    }
}

impl Slot {
    /// Number of the newest snapshot, by [`Counters::intervals`]; 0 before the first.
    pub fn newest_number(&self) -> u64 {
        self.lock().newest
    }

    /// The newest snapshot, once it is on the disk; an older one where the disk does not take it in time, and `None` before
    /// the first.
    pub fn newest(&self) -> Option<Arc<Snapshot>> {
        let until = Instant::now() + PATIENCE;
        let mut inside = self.lock();
        let wanted = inside.newest;
        while inside.shown_number() < wanted {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                break;
            };
            inside.is_wanted = true;
            self.changed.notify_all();
            let waited = self.changed.wait_timeout(inside, left);
            inside = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        inside.shown.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next snapshot that is to be written; `None` after the last.
    fn wait(&self) -> Option<(Counters, Facts)> {
        let mut inside = self.lock();
        loop {
            if inside.is_due() {
                if let Some(next) = inside.next.take() {
                    inside.is_wanted = false;
                    return Some(next);
                }
                if inside.is_last {
                    return None;
                }
            }
            inside = self.changed.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn show(&self, snapshot: Snapshot, written: u64) {
        let mut inside = self.lock();
        let old = inside.shown.replace(Arc::new(snapshot));
        inside.written = written;
        drop(inside);
        self.changed.notify_all();
        // Freed without the lock.
        drop(old);
    }
}

/// The thread.
#[derive(Debug)]
pub struct Keeper {
    slot: Arc<Slot>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// Where there is no thread to be had.
    pub fn start(state: State, finished: FinishedFile, place: Place) -> io::Result<Self> {
        let slot = Arc::new(Slot::default());
        let mut files = Files {
            state,
            finished,
            place,
            disk: Disk::default(),
        };
        let theirs = slot.clone();
        let thread = thread::Builder::new().name("dlpm-state".to_owned()).spawn(move || {
            while let Some((counters, facts)) = theirs.wait() {
                let written = files.write(&counters);
                let disk = files.disk.clone();
                theirs.show(Snapshot { counters, facts, disk }, written);
            }
            theirs.lock().is_done = true;
            theirs.changed.notify_all();
        })?;
        Ok(Self {
            slot,
            thread: Some(thread),
        })
    }

    /// Where snapshots are found.
    pub fn slot(&self) -> Arc<Slot> {
        self.slot.clone()
    }

    /// Hands on a snapshot. Which lines of finished tenants are written by now.
    pub fn keep(&self, counters: Counters, facts: Facts) -> u64 {
        let mut inside = self.slot.lock();
        inside.newest = counters.intervals;
        let old = inside.next.replace((counters, facts));
        let (written, is_due) = (inside.written, inside.is_due());
        drop(inside);
        if is_due {
            self.slot.changed.notify_all();
        }
        drop(old);
        written
    }

    /// Writes what is left. Whether that was done in time; what hangs is left alone.
    pub fn finish(mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut inside = self.slot.lock();
        inside.is_last = true;
        self.slot.changed.notify_all();
        while !inside.is_done {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return false;
            };
            let waited = self.slot.changed.wait_timeout(inside, left);
            inside = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let is_written = inside.shown.as_ref().is_none_or(|shown| shown.disk.trouble.is_none());
        drop(inside);
        is_written && self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

/// The files, and what is wrong with them.
struct Files {
    state: State,
    finished: FinishedFile,
    place: Place,
    disk: Disk,
}

impl Files {
    /// First the state, then the lines of those that it says have ended: after a kill between the two, the lines come from
    /// the state. Up to which number lines are written.
    fn write(&mut self, counters: &Counters) -> u64 {
        let before = self.disk.trouble.take();
        if let Err(error) = self.state.write(counters) {
            self.disk.state_errors += 1;
            self.disk.trouble = Some(format!("the agent's state cannot be written: {error}"));
        }
        let lines = counters.finished.iter();
        let lines: Vec<Line> = lines
            .map(|finished| Line::of(finished, &counters.devices, &self.place))
            .collect();
        let waiting = lines.len() as u64;
        self.disk.waiting_lines = 0;
        // A line of what the state does not know would be written again after a kill, with other figures.
        let result = match &self.disk.trouble {
            None => self.finished.write(lines),
            Some(trouble) => Err(io::Error::other(trouble.clone())),
        };
        if let Err(error) = result {
            self.disk.waiting_lines = waiting;
            if waiting > 0 {
                self.disk.finished_errors += 1;
            }
            self.disk
                .trouble
                .get_or_insert_with(|| format!("finished tenants cannot be written: {error}"));
        }
        match &self.disk.trouble {
            Some(trouble) if before.as_ref() != Some(trouble) => log::warn!("{trouble}; it is tried again"),
            None if before.is_some() => log::warn!("the agent's files can be written again: nothing was lost"),
            _ => {}
        }
        self.finished.last_number(&self.place.boot_id)
    }
}
