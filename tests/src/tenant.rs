//! Processes that use CPU time under a known name, in a known cgroup, as a known user.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use crate::command::world_readable;

/// The path of `dlpm-tenant`.
#[macro_export]
macro_rules! tenant_program {
    () => {
        $crate::helpers::path(env!("CARGO_BIN_EXE_dlpm-tenant")).as_path()
    };
}

/// A running tenant, killed when this is dropped.
#[derive(Debug)]
pub struct Tenant {
    child: Child,
    _output: BufReader<ChildStdout>,
    /// Its pid, and those of its descendants that said they were ready.
    pub pids: Vec<u32>,
}

impl Tenant {
    /// Starts `program` (see [`tenant_program`]) under another name, with a tenth of a CPU to use; `rename` is its
    /// fourth argument.
    pub fn named(program: &Path, name: &str, rename: Option<&str>, uid: Option<u32>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let started_as = world_readable(&directory).path().join(name);
        // A copy and not a link: the user may not be able to follow one to where the tests are built.
        std::fs::copy(program, &started_as).unwrap();
        let mut command = Command::new(&started_as);
        command.args(["1000", "9000", "60000"]).args(rename);
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        Self::start(command, 1)
    }

    /// Starts a command and waits until that many processes said `ready PID`.
    pub fn start(mut command: Command, count: usize) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut pids = vec![child.id()];
        for _ in 0..count {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            pids.push(line.trim().strip_prefix("ready ").unwrap().parse().unwrap());
        }
        pids.sort_unstable();
        pids.dedup();
        Self {
            child,
            _output: output,
            pids,
        }
    }

    /// The pid of the process that was started.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in self.pids.iter().filter(|&&pid| pid != self.child.id()) {
            // SAFETY: no memory is involved. The tests start these, and they live longer than any test.
            unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
        }
    }
}
