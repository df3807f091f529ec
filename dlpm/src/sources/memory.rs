//! Memory of processes, read in a thread of its own while the trace runs.
//!
//! `smaps_rollup` walks the page tables of the process and keeps it from mapping memory meanwhile: for a process of
//! 100 GB that takes seconds. So reading has a thread, a period and a budget of its own, and never delays a seal.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::clock::monotonic_ns;
use crate::interval::{MemoryReading, ProcessId};

mod read;
mod schedule;

pub use read::machine_memory;
use schedule::{Budget, Next, Watched};

/// How much reading is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// Time between two readings of the same process.
    pub period: Duration,
    /// Share of the time that may be spent reading, in thousandths, from 1 to 1000. It counts the time from the
    /// beginning of a reading to its end, not CPU time, because the process that is read is held up for that long.
    pub budget_permille: u32,
}

impl Default for MemoryOptions {
    /// Every 10 s, within 5 % of the time.
    fn default() -> Self {
        Self {
            period: Duration::from_secs(10),
            budget_permille: 50,
        }
    }
}

/// Reads the memory of watched processes in a thread of its own, which ends with this value.
#[derive(Debug)]
pub struct MemoryReader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    procfs: PathBuf,
    options: MemoryOptions,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    watched: Watched,
    stop: bool,
}

impl MemoryReader {
    /// Starts the thread; it watches nothing yet.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub fn start(procfs: &Path, options: MemoryOptions) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            procfs: procfs.to_owned(),
            options,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("dlpm-memory".to_owned())
            .spawn(move || of_thread.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Replaces the set of watched processes, each with the id of its cgroup; returns at once. A process that is new
    /// has its RSS within milliseconds (unless another one is just being read), and PSS and USS as soon as the budget
    /// allows. A start time of 0 is not known and not compared.
    pub fn watch(&self, processes: &[(ProcessId, u64)]) {
        if self.shared.lock().watched.replace(processes) {
            self.shared.changed.notify_one();
        }
    }

    /// The newest reading of each watched process, with the id of its cgroup. The readings differ in age
    /// (`read_at_ns`). It waits for no reading, and looks at no file: a process that has ended keeps its last reading
    /// until it is due again or no longer watched, so the caller leaves out those that it knows to be gone.
    pub fn readings(&self) -> BTreeMap<ProcessId, (u64, MemoryReading)> {
        self.shared.lock().watched.readings()
    }
}

impl Drop for MemoryReader {
    /// Ends the thread, after the one reading that it may be doing.
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two of its methods, also if a thread panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut budget = Budget::new(self.options.budget_permille, monotonic_ns());
        let mut state = self.lock();
        while !state.stop {
            let begin_ns = monotonic_ns();
            let next = state.watched.next(&mut budget, begin_ns);
            let (process, full) = match next {
                Next::Rss(process) => (process, false),
                Next::Full(process) => (process, true),
                Next::Wait { until_ns } => {
                    state = self.wait(state, until_ns.map(|until_ns| until_ns.saturating_sub(begin_ns)));
                    continue;
                }
            };
            drop(state);
            let reading = if full {
                read::full(&self.procfs, process)
            } else {
                read::rss(&self.procfs, process)
            };
            let end_ns = monotonic_ns();
            budget.spend(end_ns.saturating_sub(begin_ns), end_ns);
            state = self.lock();
            match reading {
                Some(reading) => {
                    let period_ns = u64::try_from(self.options.period.as_nanos()).unwrap_or(u64::MAX);
                    let due_ns = full.then(|| begin_ns.saturating_add(period_ns));
                    state.watched.store(process, reading, due_ns);
                }
                None => state.watched.forget(process),
            }
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, at_most_ns: Option<u64>) -> MutexGuard<'a, State> {
        match at_most_ns {
            Some(ns) => {
                self.changed
                    .wait_timeout(state, Duration::from_nanos(ns))
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

#[cfg(test)]
mod tests;
