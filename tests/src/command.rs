//! Running the built program and collecting what it says.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

pub use crate::output::Output;

/// Longest time that a run of dlpm may take, on a machine however busy.
const PATIENCE: Duration = Duration::from_secs(600);

/// Leaves the test, visibly, where the built program is not named: for what needs no kernel.
#[macro_export]
macro_rules! require_program {
    () => {
        if std::env::var_os("DLPM_BIN").is_none() {
            return $crate::kernel::skip("DLPM_BIN does not name the built program; `cargo xtask test` sets it");
        }
    };
}

/// Leaves the test, visibly, where this machine cannot trace or the built program is not named.
#[macro_export]
macro_rules! require_dlpm {
    () => {
        $crate::require_kernel!();
        $crate::require_program!();
    };
}

/// An unprivileged user and its group, as most systems number `nobody`.
pub const NOBODY: u32 = 65_534;

/// A folder that everybody may enter and read, as those of `tempfile` are not.
pub fn world_readable(directory: &TempDir) -> &TempDir {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// Gives a file to a user and its group.
pub fn give(path: &Path, uid: u32) {
    std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
}

/// One run of dlpm, before it starts.
#[derive(Debug)]
pub struct Dlpm {
    command: Command,
    input: Option<Vec<u8>>,
    keeps_input: bool,
    copy: Option<TempDir>,
}

impl Dlpm {
    /// `dlpm` with these arguments, as root without sudo.
    pub fn new<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self::from_program(&program(), arguments)
    }

    fn from_program<S: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = S>) -> Self {
        // Under nohup hang-ups are ignored, and children inherit that: a test that sends one would wait forever.
        // SAFETY: it sets what a signal does to this process, and to the children that it starts from now on.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
        let mut command = Command::new(program);
        command.args(arguments);
        for name in [
            "SUDO_UID",
            "SUDO_GID",
            "SUDO_USER",
            "SUDO_COMMAND",
            "RUST_LOG",
            "RUST_BACKTRACE",
        ] {
            command.env_remove(name);
        }
        Self {
            command,
            input: None,
            keeps_input: false,
            copy: None,
        }
    }

    /// `dlpm trace` into a folder, in intervals of 50 ms.
    pub fn trace(output: &Path) -> Self {
        Self::new(["trace", "--interval", "50ms", "--output"]).arg(output)
    }

    /// One more argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// More arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// With the variables that sudo sets when this user calls it.
    pub fn through_sudo_of(mut self, uid: u32) -> Self {
        let number = uid.to_string();
        self.command.env("SUDO_UID", &number).env("SUDO_GID", &number);
        self.command.env("SUDO_USER", "nobody");
        self
    }

    /// With this variable in its environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// In a pid namespace of its own, with that namespace's `/proc`.
    pub fn in_pid_namespace(self) -> Self {
        let arguments = ["--pid", "--fork", "--mount-proc"].map(OsStr::new);
        let command = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        Self::from_program(Path::new("unshare"), arguments.into_iter().chain(command))
    }

    /// As another user: a copy of the program, since that user may not be able to reach the place of the build.
    pub fn as_user(self, uid: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let copy = world_readable(&directory).path().join("dlpm");
        fs::copy(program(), &copy).unwrap();
        let mut changed = Self::from_program(&copy, self.command.get_args());
        changed.command.uid(uid).gid(uid).current_dir("/");
        changed.copy = Some(directory);
        changed
    }

    /// In a process group of its own, as a shell starts a job.
    pub fn in_process_group(mut self) -> Self {
        self.command.process_group(0);
        self
    }

    /// In this folder.
    pub fn inside(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// With a standard input that [`Running::say`] writes to.
    pub fn piped_input(mut self) -> Self {
        self.keeps_input = true;
        self
    }

    /// With this as its standard input.
    pub fn input(mut self, input: &[u8]) -> Self {
        self.input = Some(input.to_owned());
        self
    }

    /// Without some capabilities (numbers of `include/uapi/linux/capability.h`).
    pub fn without_capabilities(mut self, numbers: &'static [libc::c_ulong]) -> Self {
        // SAFETY: only system calls between fork and exec. What leaves the bounding set is not regained by the exec.
        unsafe {
            self.command.pre_exec(move || {
                for number in numbers {
                    if libc::prctl(libc::PR_CAPBSET_DROP, *number, 0, 0, 0) != 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        self
    }

    /// In a cgroup namespace of its own.
    pub fn in_cgroup_namespace(mut self) -> Self {
        // SAFETY: one system call between fork and exec.
        unsafe {
            self.command.pre_exec(|| match libc::unshare(libc::CLONE_NEWCGROUP) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        let stdin = if self.input.is_some() || self.keeps_input {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        if let Some(input) = self.input {
            child.stdin.take().unwrap().write_all(&input).unwrap();
        }
        let stdout = Collected::from(child.stdout.take().unwrap());
        let stderr = Collected::from(child.stderr.take().unwrap());
        Running {
            child: Killed(child),
            stdout,
            stderr,
            _copy: self.copy,
        }
    }

    /// Runs it to its end, with its standard output going there.
    pub fn run_into(mut self, stdout: impl Into<Stdio>) -> Output {
        let output = self.command.stdin(Stdio::null()).stdout(stdout).output().unwrap();
        Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it to its end, with nobody who reads what it says.
    pub fn run_unheard(mut self) -> ExitStatus {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let other = writer.try_clone().unwrap();
        self.command
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(other)
            .status()
            .unwrap()
    }

    /// Runs it to its end.
    pub fn run(self) -> Output {
        self.start().wait()
    }
}

/// The built program.
pub fn program() -> PathBuf {
    PathBuf::from(env::var_os("DLPM_BIN").unwrap())
}

/// What comes out of a pipe, collected while the program runs.
#[derive(Debug)]
struct Collected {
    text: Arc<Mutex<Vec<u8>>>,
    thread: thread::JoinHandle<()>,
}

impl Collected {
    fn from(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&text);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                collected.lock().unwrap().extend(&buffer[..count]);
            }
        });
        Self { text, thread }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    fn whole(self) -> String {
        self.thread.join().unwrap();
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }
}

/// A process that does not outlive a test that fails.
#[derive(Debug)]
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Of one that has been waited for, there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// dlpm while it runs; killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Killed,
    stdout: Collected,
    stderr: Collected,
    _copy: Option<TempDir>,
}

impl Running {
    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// What it has said on standard error by now.
    pub fn said(&self) -> String {
        self.stderr.so_far()
    }

    /// Writes to its standard input.
    pub fn say(&mut self, text: &str) {
        self.child.0.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: no memory is involved; the child has not been waited for, so the pid is its own.
        assert_eq!(unsafe { libc::kill(self.child.0.id().cast_signed(), signal) }, 0);
    }

    /// Waits until `done`, while it runs.
    ///
    /// # Panics
    ///
    /// When it has ended, or after ten minutes.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done() {
            let ended = self.child.0.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < end,
                "waited for {what}, {ended:?}: {}",
                self.stderr.so_far()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until its standard error holds `text`.
    #[track_caller]
    pub fn wait_for_message(&mut self, text: &str) {
        let collected = Arc::clone(&self.stderr.text);
        self.wait_until(text, || {
            String::from_utf8_lossy(&collected.lock().unwrap()).contains(text)
        });
    }

    /// Waits until its standard output holds `text`.
    #[track_caller]
    pub fn wait_for_output(&mut self, text: &str) {
        let collected = Arc::clone(&self.stdout.text);
        self.wait_until(text, || {
            String::from_utf8_lossy(&collected.lock().unwrap()).contains(text)
        });
    }

    /// Waits until its log has that many lines.
    #[track_caller]
    pub fn wait_for_lines(&mut self, folder: &Path, count: usize) {
        let log = folder.join(crate::log::LOG_NAME);
        self.wait_until("lines of the log", || {
            fs::read_to_string(&log).is_ok_and(|text| text.lines().count() >= count)
        });
    }

    /// Waits until the intervals of its log (the part `dlpm` of each line, and the part `metrics`) are `enough`.
    #[track_caller]
    pub fn wait_for_samples(&mut self, folder: &Path, what: &str, enough: impl Fn(&[Value]) -> bool) {
        let log = folder.join(crate::log::LOG_NAME);
        self.wait_until(what, || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            // The last line may not be whole yet.
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let samples: Vec<Value> = lines.filter(|line| line["dlpm"]["rows"].is_array()).collect();
            enough(&samples)
        });
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// After ten minutes.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.0.try_wait().unwrap() {
                break status;
            }
            if Instant::now() >= end {
                let _ = self.child.0.kill();
                panic!("dlpm does not end: {}", self.stderr.so_far());
            }
            thread::sleep(Duration::from_millis(5));
        };
        Output {
            status,
            stdout: self.stdout.whole(),
            stderr: self.stderr.whole(),
        }
    }

    /// Kills it, so that it cannot do anything more.
    pub fn killed(self) -> Output {
        self.signal(libc::SIGKILL);
        self.wait()
    }

    /// Sends a signal and waits for its end.
    #[track_caller]
    pub fn end_with(self, signal: libc::c_int) -> Output {
        self.signal(signal);
        self.wait()
    }
}
