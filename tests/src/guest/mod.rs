//! The inside of the emulated machines of `cargo xtask kernels`.
//!
//! The first process mounts what a system has mounted, starts a second one that runs the plan, and collects orphans until
//! that one ends. What happened is printed on the console, in lines that begin with [`MARK`]:
//!
//! ```text
//! dlpm-guest: ok CASE           dlpm-guest: failed CASE: WHY
//! dlpm-guest: success COUNT     the last line of a machine in which every case was ok
//! dlpm-guest: figure WORDS      what another machine must say as well
//! ```
//!
//! A line of the plan is `tests NAME PROGRAM TEST…`, tests of a test program, or `case NAME`, one of [`cases`].

pub mod acpi_power;
pub mod cases;
pub mod commands;
pub mod cores;
pub mod powercap;
mod truth;

use std::{
    fs,
    io::{BufRead, BufReader, Write, stdout},
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    mount::{MountFlags, mount},
    process::{Pid, WaitOptions, wait},
    system::{RebootCommand, reboot},
};

use crate::helpers::HELPERS_VARIABLE;

/// What to run.
const PLAN: &str = "/plan";

/// The first process itself, which is also the program of each case.
const INIT: &str = "/init";

/// The folder of all other programs, but for the tests.
const PROGRAMS: &str = "/bin";

/// What is mounted, by kind and place.
const MOUNTS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/dev/shm"),
    ("tmpfs", "/tmp"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Begins the lines that the host reads.
const MARK: &str = "dlpm-guest:";

/// While this file exists, the first process uses CPU time.
const BUSY: &str = "/tmp/first-process-busy";

/// The first process of the machine: never returns, since the kernel panics when it does.
pub fn init() -> ! {
    mount_all();
    #[expect(clippy::zombie_processes, reason = "it is collected as all others are")]
    let runner = Command::new(INIT).arg("run").spawn().unwrap();
    let runner = Pid::from_child(&runner);
    while !reaped(runner) {
        if Path::new(BUSY).exists() {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(5) {}
        }
        thread::sleep(Duration::from_millis(10));
    }
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
    panic!("the machine does not power off");
}

/// Collects every process that has ended; whether this one was among them.
fn reaped(wanted: Pid) -> bool {
    let mut found = false;
    while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
        found |= pid == wanted;
    }
    found
}

fn mount_all() {
    for (kind, target) in MOUNTS {
        fs::create_dir_all(target).unwrap();
        mount(kind, target, kind, MountFlags::empty(), None).unwrap();
    }
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs::set_permissions("/tmp", everybody).unwrap();
}

/// Runs the plan. Success is said only when every case of it was ok.
pub fn run() -> ExitCode {
    planned(Path::new(PLAN), run_case)
}

/// Runs a plan whose cases `run_case` knows.
pub fn planned(plan: &Path, run_case: impl Fn(&mut Report, &str)) -> ExitCode {
    let plan = fs::read_to_string(plan).unwrap();
    let mut report = Report::default();
    for line in plan.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["tests", name, program, ref tests @ ..] => run_tests(&mut report, name, program, tests),
            ["case", name] => run_case(&mut report, name),
            _ => report.failed("plan", &format!("`{line}` cannot be understood")),
        }
    }
    if report.failures == 0 && report.passed > 0 {
        say(&format!("success {}", report.passed));
        ExitCode::SUCCESS
    } else {
        say(&format!(
            "failure {} of {}",
            report.failures,
            report.passed + report.failures
        ));
        ExitCode::FAILURE
    }
}

/// What became of the cases.
#[derive(Debug, Default)]
pub struct Report {
    passed: usize,
    failures: usize,
}

impl Report {
    /// Says that a case was ok.
    pub fn ok(&mut self, case: &str) {
        self.passed += 1;
        say(&format!("ok {case}"));
    }

    /// Says that a case was not, and why.
    pub fn failed(&mut self, case: &str, reason: &str) {
        self.failures += 1;
        say(&format!("failed {case}: {reason}"));
    }
}

/// Says what was measured, to be compared with another machine.
fn figure(words: &str) {
    say(&format!("figure {words}"));
}

fn say(text: &str) {
    // In one write, or the kernel's own lines come between.
    let _ = stdout().write_all(format!("\n{MARK} {text}\n").as_bytes());
    let _ = stdout().flush();
}

/// What every program of the plan is started with.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("PATH", PROGRAMS)
        .env("DLPM_BIN", Path::new(PROGRAMS).join("dlpm"))
        .env(HELPERS_VARIABLE, PROGRAMS)
        .env("DLPM_REQUIRE_KERNEL", "1")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null());
    command
}

fn run_tests(report: &mut Report, name: &str, program: &str, tests: &[&str]) {
    let mut command = command(program);
    command
        .args(tests)
        .args(["--exact", "--test-threads=1"])
        .stdout(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return report.failed(name, &format!("cannot start {program}: {error}")),
    };
    let mut passed = Vec::new();
    for line in child
        .stdout
        .take()
        .into_iter()
        .flat_map(|pipe| BufReader::new(pipe).lines())
    {
        let Ok(line) = line else { break };
        println!("{line}");
        if let Some(test) = passed_test(&line) {
            report.ok(&format!("{name}::{test}"));
            passed.push(test.to_owned());
        }
    }
    let status = child.wait().unwrap();
    for test in tests.iter().filter(|test| !passed.iter().any(|passed| passed == *test)) {
        report.failed(&format!("{name}::{test}"), "see above");
    }
    if !status.success() {
        report.failed(name, &status.to_string());
    }
}

/// The test of a line of libtest like `test NAME ... ok`.
fn passed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... ok")
}

/// In a process of its own: a case fails by panicking.
fn run_case(report: &mut Report, name: &str) {
    match command(INIT).args(["case", name]).status() {
        Ok(status) if status.success() => report.ok(name),
        Ok(status) => report.failed(name, &format!("{status}, see above")),
        Err(error) => report.failed(name, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_system_hides_a_program() {
        for program in [INIT, PLAN, PROGRAMS] {
            let hidden = MOUNTS.iter().any(|(_, place)| Path::new(program).starts_with(place));
            assert!(!hidden, "{program}");
        }
    }

    #[test]
    fn only_ok_is_ok() {
        assert_eq!(passed_test("test holds ... ok"), Some("holds"));
        for line in [
            "test holds ... FAILED",
            "test holds ... ignored",
            "test result: ok. 5 passed",
            "holds ... ok",
        ] {
            assert_eq!(passed_test(line), None, "{line}");
        }
    }
}
