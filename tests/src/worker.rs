//! Processes that do what a test wants.

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader, Write},
    mem::MaybeUninit,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// Starts `dlpm-worker` with the given arguments.
#[macro_export]
macro_rules! worker {
    ($($argument:expr),+ $(,)?) => {
        $crate::worker::Worker::start(
            $crate::helpers::path(env!("CARGO_BIN_EXE_dlpm-worker")),
            &[$(&$argument.to_string()),+],
        )
    };
}

/// A `dlpm-worker`, killed when this is dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts one and waits until it is ready to work.
    pub fn start(program: impl AsRef<OsStr>, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut worker = Self { child, input, output };
        assert_eq!(worker.line(), "ready");
        worker
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it work.
    pub fn go(&mut self) {
        self.input.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// Waits for its next line.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the worker died");
        line.trim_end().to_owned()
    }

    /// Waits until it has done its work: the lines that it said.
    pub fn lines_until_done(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            if line == "done" {
                return lines;
            }
            lines.push(line);
        }
    }

    /// Lets it exit and waits until it has: the CPU time that the kernel counted for it in its whole life, in
    /// nanoseconds.
    pub fn finish(mut self) -> u64 {
        self.input = None;
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        let mut status = 0;
        // SAFETY: both results have their place; the child is this process's own.
        let waited = unsafe { libc::wait4(self.child.id().cast_signed(), &raw mut status, 0, usage.as_mut_ptr()) };
        assert_eq!(waited, self.child.id().cast_signed(), "{}", io::Error::last_os_error());
        assert_eq!(status, 0, "the worker failed");
        // SAFETY: all bits zero are a valid rusage, and the call above filled it.
        let usage = unsafe { usage.assume_init() };
        let ns = |time: libc::timeval| {
            Some(u64::try_from(time.tv_sec).ok()? * 1_000_000_000 + u64::try_from(time.tv_usec).ok()? * 1_000)
        };
        ns(usage.ru_utime).unwrap() + ns(usage.ru_stime).unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be gone already, after `finish`: then both do nothing.
        if self.input.is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A name that no worker of another test run on this machine has; short, so that a process can bear it.
pub fn unique(name: &str) -> String {
    format!("{name}{}", std::process::id())
}

/// CPU time of all threads of a process so far, from the kernel's own clock of it, in nanoseconds.
pub fn cpu_clock_ns(pid: u32) -> u64 {
    let mut clock = 0;
    // SAFETY: the result has its place.
    let error = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) };
    assert_eq!(error, 0, "no CPU clock of process {pid}");
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: as above.
    let result = unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    // SAFETY: all bits zero are a valid timespec, and the call above filled it.
    let time = unsafe { time.assume_init() };
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}
