//! Signals to a running trace: passed on to the command, or the end of the trace; never a command without its trace.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    ptr,
};

use dlpm_tests::{
    command::{Dlpm, Running},
    log::{LOG_NAME, Log},
    require_dlpm,
};
use tempfile::TempDir;

/// All that end a process by default and can be handled, but for those of a terminal and of faults.
fn ending() -> Vec<i32> {
    let mut numbers = vec![
        libc::SIGABRT,
        libc::SIGALRM,
        libc::SIGIO,
        libc::SIGPROF,
        libc::SIGPWR,
        libc::SIGSTKFLT,
        libc::SIGSYS,
        libc::SIGTRAP,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGVTALRM,
        libc::SIGXCPU,
        libc::SIGXFSZ,
    ];
    let first = libc::SIGRTMIN();
    numbers.extend([first, first + 1, first + 5, libc::SIGRTMAX()]);
    numbers
}

fn folder() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    (directory, folder)
}

/// A trace of a shell script that has said "ready".
fn ready(folder: &Path, script: &str) -> Running {
    let mut dlpm = Dlpm::trace(folder)
        .in_process_group()
        .args(["--", "/bin/sh", "-c", script])
        .start();
    dlpm.wait_for_output("ready\n");
    dlpm
}

fn lines(folder: &Path) -> usize {
    fs::read_to_string(folder.join(LOG_NAME)).unwrap().lines().count()
}

/// The state of a process, as `T` for one that is stopped.
fn state(pid: u32) -> char {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.and_then(|state| state.trim().chars().next()).unwrap_or('-')
}

fn child(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap()
}

#[test]
fn a_command_that_handles_a_signal_gets_it_and_the_trace_goes_on() {
    require_dlpm!();
    let (_directory, folder) = folder();
    let mut script: String = ending()
        .into_iter()
        .chain([libc::SIGHUP, libc::SIGQUIT, libc::SIGWINCH, libc::SIGCONT])
        .map(|number| format!("trap 'echo got {number}.' {number}; "))
        .collect();
    script.push_str("trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done");
    let mut dlpm = ready(&folder, &script);
    for number in ending()
        .into_iter()
        .chain([libc::SIGHUP, libc::SIGQUIT, libc::SIGWINCH, libc::SIGCONT])
    {
        dlpm.signal(number);
        dlpm.wait_for_output(&format!("got {number}.\n"));
    }
    dlpm.end_with(libc::SIGTERM).exited(9);
    Log::read(&folder).is_complete();
}

#[test]
fn a_command_that_does_not_handle_a_signal_ends_by_it_and_the_log_is_whole() {
    require_dlpm!();
    for number in [libc::SIGXCPU, libc::SIGVTALRM, libc::SIGPROF, libc::SIGRTMIN() + 2] {
        let (_directory, folder) = folder();
        let dlpm = ready(&folder, "echo ready; exec sleep 600");
        dlpm.end_with(number).exited(128 + number);
        Log::read(&folder).is_complete();
    }
}

#[test]
fn without_a_command_they_end_the_trace() {
    require_dlpm!();
    // Each takes a trace; what the others do, a unit test says.
    for number in [
        libc::SIGXCPU,
        libc::SIGALRM,
        libc::SIGUSR1,
        libc::SIGPWR,
        libc::SIGRTMIN() + 1,
    ] {
        let (_directory, folder) = folder();
        let mut dlpm = Dlpm::new(["trace", "--interval", "1h", "--output"])
            .arg(&folder)
            .start();
        dlpm.wait_for_lines(&folder, 1);
        dlpm.end_with(number).exited(0);
        assert!(Log::read(&folder).is_complete().samples.len() >= 2, "signal {number}");
    }
}

#[test]
fn what_ends_no_process_ends_no_trace() {
    require_dlpm!();
    let (_directory, folder) = folder();
    let mut dlpm = Dlpm::trace(&folder).start();
    dlpm.wait_for_lines(&folder, 1);
    for number in [
        libc::SIGWINCH,
        libc::SIGCONT,
        libc::SIGPIPE,
        libc::SIGURG,
        libc::SIGCHLD,
    ] {
        dlpm.signal(number);
    }
    let lines = lines(&folder);
    dlpm.wait_for_lines(&folder, lines + 3);
    dlpm.end_with(libc::SIGTERM).exited(0);
    Log::read(&folder).is_complete();
}

#[test]
fn a_stopped_trace_stops_its_command_and_both_go_on() {
    require_dlpm!();
    let (_directory, folder) = folder();
    let mut dlpm = ready(&folder, "trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done");
    let (pid, command) = (dlpm.pid(), child(dlpm.pid()));
    dlpm.signal(libc::SIGTSTP);
    dlpm.wait_until("both to stop", || (state(pid), state(command)) == ('T', 'T'));
    dlpm.signal(libc::SIGCONT);
    dlpm.wait_until("both to go on", || state(pid) != 'T' && state(command) != 'T');
    // Once more, as the handler must be back.
    dlpm.signal(libc::SIGTSTP);
    dlpm.wait_until("both to stop", || (state(pid), state(command)) == ('T', 'T'));
    dlpm.signal(libc::SIGCONT);
    let lines = lines(&folder);
    dlpm.wait_for_lines(&folder, lines + 2);
    dlpm.end_with(libc::SIGTERM).exited(9);
    Log::read(&folder).is_complete();
}

#[test]
fn a_limit_of_dlpm_s_own_cpu_time_ends_the_trace_and_not_the_command() {
    require_dlpm!();
    let (_directory, folder) = folder();
    let mut dlpm = Dlpm::new(["trace", "--interval", "10ms", "--output"])
        .arg(&folder)
        .args(["--", "/bin/sh", "-c", "echo ready; read line; echo on; exit 7"])
        .in_process_group()
        .piped_input()
        .start();
    dlpm.wait_for_output("ready\n");
    let limit = libc::rlimit {
        rlim_cur: 1,
        rlim_max: libc::RLIM_INFINITY,
    };
    let pid = dlpm.pid().cast_signed();
    // SAFETY: reads the limit alone.
    let set = unsafe { libc::prlimit(pid, libc::RLIMIT_CPU, &raw const limit, ptr::null_mut()) };
    assert_eq!(set, 0);
    dlpm.wait_for_message("SIGXCPU to dlpm itself");
    dlpm.wait_for_message("Biggest consumers");
    Log::read(&folder).is_complete();
    dlpm.say("go\n");
    let output = dlpm.wait().exited(7);
    assert_eq!(output.stdout, "ready\non\n");
}
