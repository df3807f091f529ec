//! `dlpm trace` while a benchmark runs.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::log::{self, Line};

/// How long a trace may take to start, to write its next interval beyond the interval itself, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `dlpm trace`, killed when this is dropped.
#[derive(Debug)]
pub struct Traced {
    child: Child,
    interval: Duration,
    /// Removed with this value.
    directory: TempDir,
}

impl Traced {
    /// Starts it with these further arguments, and waits until its first interval is in the log: from then on
    /// everything is counted.
    ///
    /// # Errors
    ///
    /// Where it does not start to trace.
    pub fn start(dlpm: &Path, interval: Duration, arguments: &[String]) -> Result<Self> {
        let directory = tempfile::tempdir().context("no temporary folder for the log")?;
        let child = Command::new(dlpm)
            .args([
                "trace",
                "--quiet",
                "--interval",
                &format!("{}ms", interval.as_millis()),
                "--output",
            ])
            .arg(directory.path().join("log"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // What a machine lacks is noted there at every start.
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", dlpm.display()))?;
        let mut traced = Self {
            child,
            interval,
            directory,
        };
        traced.wait_for(1)?;
        Ok(traced)
    }

    fn folder(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Waits until this many intervals are in the log.
    ///
    /// # Errors
    ///
    /// Where dlpm has ended, or is overdue.
    pub fn wait_for(&mut self, intervals: usize) -> Result<()> {
        let mut progress = (log::count(&self.folder()), Instant::now());
        while progress.0 < intervals {
            if let Some(status) = self.child.try_wait()? {
                bail!("dlpm has ended ({status}); `dlpm trace` on its own says why");
            }
            if progress.1.elapsed() > self.interval + PATIENCE {
                bail!("dlpm writes no interval any more");
            }
            thread::sleep(Duration::from_millis(20));
            let count = log::count(&self.folder());
            if count > progress.0 {
                progress = (count, Instant::now());
            }
        }
        Ok(())
    }

    /// Intervals in the log so far.
    pub fn intervals(&self) -> usize {
        log::count(&self.folder())
    }

    /// Pid of dlpm.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the trace: all its intervals.
    ///
    /// # Errors
    ///
    /// Where it fails, or its log cannot be read.
    pub fn finish(mut self) -> Result<Vec<Line>> {
        // SAFETY: no memory is involved; the child has not been waited for, so the pid is its own.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        let begun = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return log::read(&self.folder()),
                Some(status) => bail!("dlpm failed ({status}); `dlpm trace` on its own says why"),
                None if begun.elapsed() > PATIENCE => bail!("dlpm does not end"),
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // It may have ended: then both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
