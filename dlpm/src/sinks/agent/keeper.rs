//! The thread that writes snapshots to the disk and then lets them be seen. Whatever the disk does, the measuring thread
//! waits for nothing: of snapshots that come faster than they are written, the newest is.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{finished::FinishedFile, state::State};
use crate::agent::{
    counters::Counters,
    facts::{Disk, Facts, Snapshot},
    line::{Line, Place},
};

/// What is served: the newest snapshot that is on the disk.
#[derive(Debug, Default)]
pub struct Published {
    newest: Mutex<Option<Arc<Snapshot>>>,
}

impl Published {
    /// The newest snapshot; `None` before the first.
    pub fn newest(&self) -> Option<Arc<Snapshot>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, snapshot: Snapshot) {
        let old = self
            .newest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(Arc::new(snapshot));
        // Freed without the lock.
        drop(old);
    }
}

#[derive(Debug, Default)]
struct Slot {
    next: Mutex<Next>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Next {
    snapshot: Option<(Counters, Facts)>,
    /// Lines up to this number are written.
    written: u64,
    is_last: bool,
    is_done: bool,
}

/// The thread.
#[derive(Debug)]
pub struct Keeper {
    slot: Arc<Slot>,
    published: Arc<Published>,
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
        let published = Arc::new(Published::default());
        let mut files = Files {
            state,
            finished,
            place,
            disk: Disk::default(),
        };
        let (theirs, shown) = (slot.clone(), published.clone());
        let thread = thread::Builder::new().name("dlpm-state".to_owned()).spawn(move || {
            while let Some((counters, facts)) = theirs.wait() {
                let written = files.write(&counters);
                shown.set(Snapshot {
                    counters,
                    facts,
                    disk: files.disk.clone(),
                });
                theirs.lock().written = written;
            }
            theirs.lock().is_done = true;
            theirs.changed.notify_all();
        })?;
        Ok(Self {
            slot,
            published,
            thread: Some(thread),
        })
    }

    /// Where the newest snapshot is found.
    pub fn published(&self) -> Arc<Published> {
        self.published.clone()
    }

    /// Hands on a snapshot. Which lines of finished tenants are written by now.
    pub fn keep(&self, counters: Counters, facts: Facts) -> u64 {
        let mut next = self.slot.lock();
        let old = next.snapshot.replace((counters, facts));
        let written = next.written;
        drop(next);
        self.slot.changed.notify_all();
        drop(old);
        written
    }

    /// Writes what is left. Whether that was done in time; what hangs is left alone.
    pub fn finish(mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut next = self.slot.lock();
        next.is_last = true;
        self.slot.changed.notify_all();
        while !next.is_done {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return false;
            };
            let waited = self.slot.changed.wait_timeout(next, left);
            next = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(next);
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

impl Slot {
    fn lock(&self) -> std::sync::MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next snapshot; `None` after the last.
    fn wait(&self) -> Option<(Counters, Facts)> {
        let mut next = self.lock();
        loop {
            if let Some(snapshot) = next.snapshot.take() {
                return Some(snapshot);
            }
            if next.is_last {
                return None;
            }
            next = self.changed.wait(next).unwrap_or_else(PoisonError::into_inner);
        }
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
