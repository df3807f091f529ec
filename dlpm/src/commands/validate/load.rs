//! The process of a load: bound to a CPU, it works until it is killed, and keeps its count in the file that is its
//! standard input.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    process::{Signal, getppid, set_parent_process_death_signal},
    thread::{CpuSet, sched_setaffinity},
};

use crate::{
    cli::LoadArgs,
    sources::clock::monotonic_ns,
    validate::{LoadKind, loads::Load},
};

/// How long a load may take to get ready: it fills its memory at first.
const READY: Duration = Duration::from_secs(120);

/// Bound of a load's life, beyond what it is asked for.
const LINGER_S: u64 = 200;

/// A load that runs; it ends when this is dropped.
pub struct Running {
    /// What it does.
    pub kind: LoadKind,
    /// Where.
    pub cpu: u32,
    child: Child,
    count: File,
}

/// What a load had done at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    /// Units of work.
    pub units: u64,
    /// CLOCK_MONOTONIC.
    pub at_ns: u64,
}

impl Running {
    /// Starts a load on a CPU for about so long.
    pub fn start(kind: LoadKind, cpu: u32, memory_bytes: u64, length: Duration) -> Result<Self> {
        let count = memfd_create("dlpm-load", MemfdFlags::CLOEXEC).context("the count of a load has no file")?;
        let input: OwnedFd = count.try_clone()?;
        // The program that runs, also after an upgrade has replaced its file.
        let child = Command::new("/proc/self/exe")
            .arg("validate-load")
            .arg(kind.as_str())
            .arg(format!("--cpu={cpu}"))
            .arg(format!("--memory-bytes={memory_bytes}"))
            .arg(format!("--seconds={}", length.as_secs() + LINGER_S))
            .stdin(Stdio::from(input))
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("the load {} cannot be started", kind.as_str()))?;
        Ok(Self {
            kind,
            cpu,
            child,
            count: File::from(count),
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it works.
    pub fn ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        while self.count().units == 0 {
            self.alive()?;
            if begin.elapsed() > READY {
                bail!("the load {} was not ready after {READY:?}", self.kind.as_str());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Whether it still works.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!(
                "the load {} has ended ({status}): is there enough memory?",
                self.kind.as_str()
            ),
            None => Ok(()),
        }
    }

    /// What it has done by now.
    pub fn count(&self) -> Count {
        let mut bytes = [0; 8];
        // Empty until the first batch is done.
        let read = self.count.read_exact_at(&mut bytes, 0);
        Count {
            units: read.map_or(0, |()| u64::from_le_bytes(bytes)),
            at_ns: monotonic_ns(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the hidden command; its errors are printed.
pub fn run(args: &LoadArgs) -> ExitCode {
    crate::commands::status(work(args))
}

fn work(args: &LoadArgs) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("the end of dlpm cannot be heard")?;
    // It may have ended before that.
    if getppid().is_none() {
        bail!("dlpm has ended");
    }
    bind(args.cpu)?;
    let count = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    count
        .set_len(8)
        .context("the load has no file for its count: `dlpm validate` starts it, and nobody else")?;
    let mut load = Load::new(args.load, args.memory_bytes);
    let (begin, mut units) = (Instant::now(), 0_u64);
    while begin.elapsed() < Duration::from_secs(args.seconds) {
        units = units.wrapping_add(load.batch());
        count
            .write_all_at(&units.to_le_bytes(), 0)
            .context("the count of the load cannot be kept")?;
    }
    Ok(())
}

/// Binds the calling thread to a CPU.
pub fn bind(cpu: u32) -> Result<()> {
    let mut cpus = CpuSet::new();
    if usize::try_from(cpu).is_ok_and(|cpu| cpu < CpuSet::MAX_CPU) {
        cpus.set(usize::try_from(cpu)?);
    }
    sched_setaffinity(None, &cpus)
        .with_context(|| format!("CPU {cpu} cannot be used: name CPUs that are online and allowed with --cpus"))
}
