//! A program that is run to its end, and what it used.

use std::{
    fs::File,
    io::{Read, Seek},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A run that takes this long hangs, on a machine however busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a run may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// CPU time.
    pub cpu: Duration,
    /// Memory at its peak, in KiB.
    pub peak_kib: i64,
}

impl Default for Limits {
    /// 5 s and 256 MiB.
    fn default() -> Self {
        Self {
            cpu: Duration::from_secs(5),
            peak_kib: 256 << 10,
        }
    }
}

/// What one run used, or the most of several.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// CPU time.
    pub cpu: Duration,
    /// Memory at its peak, in KiB.
    pub peak_kib: i64,
    /// Runs.
    pub runs: u64,
}

impl Used {
    /// The most of both.
    pub fn add(&mut self, other: &Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.peak_kib = self.peak_kib.max(other.peak_kib);
        self.runs += other.runs;
    }
}

pub(super) struct Ran {
    /// `None` if a signal ended it, that of this module included.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub used: Used,
}

impl Ran {
    pub fn stderr_lossy(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Runs it with nobody at its terminal.
pub(super) fn run(program: &Path, arguments: &[&str]) -> Ran {
    let (mut stdout, mut stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    #[expect(clippy::zombie_processes, reason = "wait4 waits for it, and says what it used")]
    let child = Command::new(program)
        .args(arguments)
        .env_remove("RUST_LOG")
        .env_remove("SUDO_UID")
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().unwrap())
        .stderr(stderr.try_clone().unwrap())
        .spawn()
        .unwrap();
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let end = Instant::now() + PATIENCE;
    let (mut status, mut killed) = (0, false);
    // SAFETY: zeroes are a value of this structure of numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to values that live through the call. The child is waited for here alone.
        match unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) } {
            0 => {}
            waited => {
                assert_eq!(waited, pid);
                break;
            }
        }
        if Instant::now() >= end && !killed {
            killed = true;
            // SAFETY: no memory is involved; the child has not been waited for, so the pid is its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        thread::sleep(Duration::from_millis(1));
    }
    let time = |time: libc::timeval| {
        Duration::from_secs(u64::try_from(time.tv_sec).unwrap())
            + Duration::from_micros(u64::try_from(time.tv_usec).unwrap())
    };
    Ran {
        code: (libc::WIFEXITED(status) && !killed).then(|| libc::WEXITSTATUS(status)),
        stdout: contents(&mut stdout),
        stderr: contents(&mut stderr),
        used: Used {
            cpu: time(usage.ru_utime) + time(usage.ru_stime),
            peak_kib: usage.ru_maxrss,
            runs: 1,
        },
    }
}

fn contents(file: &mut File) -> Vec<u8> {
    let mut contents = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut contents).unwrap();
    contents
}
