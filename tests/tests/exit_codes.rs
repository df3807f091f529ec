//! How a trace ends, and what the caller learns of it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use dlpm_tests::{
    command::Dlpm,
    log::{LOG_NAME, Log},
    powercap::{Powercap, node},
    require_dlpm,
};
use tempfile::TempDir;

/// A folder to trace into, below one that is removed.
fn folder() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    (directory, folder)
}

fn trace_shell(script: &str) -> (Dlpm, TempDir, PathBuf) {
    let (directory, folder) = folder();
    let dlpm = Dlpm::trace(&folder).args(["--", "/bin/sh", "-c", script]);
    (dlpm, directory, folder)
}

#[test]
fn the_command_s_own_status() {
    require_dlpm!();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 42", 42),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
    ] {
        let (dlpm, _directory, folder) = trace_shell(script);
        let output = dlpm.run().exited(code);
        assert!(output.stderr.contains("Biggest consumers"), "{}", output.stderr);
        assert_eq!(output.stdout, "");
        Log::read(&folder).is_complete();
    }
}

#[test]
fn a_very_short_command_has_a_log_that_keeps_every_rule() {
    require_dlpm!();
    let (_directory, folder) = folder();
    let tree = Powercap::start(node());
    for mode in ["--overwrite", "--append", "--append"] {
        Dlpm::new(["trace", mode, "--output"])
            .arg(&folder)
            .arg("--sysfs")
            .arg(tree.sysfs())
            .args(["--", "true"])
            .run()
            .exited(0);
    }
    let log = Log::read(&folder);
    assert_eq!(log.segments, 3);
    let names: Vec<String> = log.listed().into_values().flatten().collect();
    assert!(names.contains(&"true".to_owned()), "{names:?}");
}

#[test]
fn commands_that_cannot_be_run() {
    require_dlpm!();
    let (directory, folder) = folder();
    let script = directory.path().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    Dlpm::trace(&folder)
        .arg("--")
        .arg(&script)
        .run()
        .fails(126, &["not executable"]);
    Dlpm::trace(&folder).args(["--", "/"]).run().fails(126, &["directory"]);
    Dlpm::trace(&folder)
        .args(["--", "no-such-command"])
        .run()
        .fails(127, &["no-such-command", "PATH"]);
    Dlpm::trace(&folder)
        .args(["--", "/no/such/command"])
        .run()
        .fails(127, &["/no/such/command", "check the path"]);
    assert!(!folder.exists(), "a folder was left behind");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    // That is known only once it was tried, when the trace runs already.
    Dlpm::trace(&folder)
        .arg("--")
        .arg(&script)
        .run()
        .exited(126)
        .says(&["interpreter"]);
}

#[test]
fn signals_end_a_trace_without_a_command() {
    require_dlpm!();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        let (_directory, folder) = folder();
        // The interval is far from over: what there is of it is sealed and written.
        let mut dlpm = Dlpm::new(["trace", "--interval", "1h", "--output"])
            .arg(&folder)
            .start();
        dlpm.wait_for_lines(&folder, 1);
        let output = dlpm.end_with(signal).exited(0);
        assert!(output.stdout.contains("Biggest consumers"), "{}", output.stdout);
        let log = Log::read(&folder);
        assert!(log.is_complete().samples.len() >= 2);
    }
}

#[test]
fn quiet_says_nothing() {
    require_dlpm!();
    let (_directory, folder) = folder();
    let tree = Powercap::start(node());
    let output = Dlpm::trace(&folder)
        .args(["--quiet", "--duration", "150ms", "--sysfs"])
        .arg(tree.sysfs())
        .run()
        .exited(0);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    Log::read(&folder).is_complete();
}

#[test]
fn signals_go_on_to_the_command() {
    require_dlpm!();
    let trap = "trap 'echo usr1' USR1; trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let (dlpm, _directory, folder) = trace_shell(trap);
    let mut dlpm = dlpm.start();
    dlpm.wait_for_output("ready");
    dlpm.signal(libc::SIGUSR1);
    dlpm.wait_for_output("usr1");
    let output = dlpm.end_with(libc::SIGTERM).exited(9);
    assert_eq!(output.stdout, "ready\nusr1\nterm\n");
    Log::read(&folder).is_complete();

    let (dlpm, _directory, folder) = trace_shell("echo ready; exec sleep 60");
    let mut dlpm = dlpm.start();
    dlpm.wait_for_output("ready");
    dlpm.end_with(libc::SIGINT).exited(130);
    Log::read(&folder).is_complete();
}

#[test]
fn the_end_of_the_time_ends_the_trace_and_not_the_command() {
    require_dlpm!();
    let (_directory, folder) = folder();
    // The command sees the end of the trace, however long that takes on a busy machine.
    let output = Dlpm::trace(&folder)
        .args(["--duration", "200ms", "--", "/bin/sh", "-c"])
        .arg(format!(
            "until grep -q 'END OF RECORDING' {}; do sleep 0.05; done; echo late; exit 5",
            folder.join(LOG_NAME).display()
        ))
        .run()
        .exited(5);
    assert_eq!(output.stdout, "late\n");
    let log = Log::read(&folder);
    let (first, last) = (&log.samples[0], &log.samples[log.samples.len() - 1]);
    let traced_ns = last.end_ns() - first.begin_ns();
    assert!(traced_ns >= 200_000_000, "{traced_ns} ns");
}

#[test]
fn a_command_keeps_standard_input_and_output() {
    require_dlpm!();
    let (_directory, folder) = folder();
    let output = Dlpm::trace(&folder)
        .args(["--", "cat"])
        .input(b"through\nthe pipe")
        .run()
        .exited(0);
    assert_eq!(output.stdout, "through\nthe pipe");
    assert!(output.stderr.contains("Biggest consumers"), "{}", output.stderr);
}

#[test]
fn a_trace_without_an_output_makes_a_folder_of_its_own() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    Dlpm::new(["trace", "--interval", "50ms", "--duration", "100ms"])
        .inside(directory.path())
        .run()
        .exited(0);
    let made: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    assert_eq!(made.len(), 1);
    assert!(made[0].file_name().to_string_lossy().starts_with("dlpm-"));
    Log::read(&made[0].path()).is_complete();
}

#[test]
fn a_reader_that_has_gone_away_does_not_end_a_trace() {
    require_dlpm!();
    let (_directory, folder) = folder();
    let tree = Powercap::start(Vec::new());
    let trace = || Dlpm::trace(&folder).arg("--sysfs").arg(tree.sysfs());
    let status = trace().args(["--overwrite", "--duration", "200ms"]).run_unheard();
    assert_eq!(status.code(), Some(0), "{status}");
    let status = trace()
        .args(["--append", "--", "/bin/sh", "-c", "exit 3"])
        .run_unheard();
    assert_eq!(status.code(), Some(3), "{status}");
    assert_eq!(Log::read(&folder).segments, 2);
    assert_eq!(trace().run_unheard().code(), Some(1));
}

#[test]
fn a_trace_that_is_ended_while_it_starts() {
    require_dlpm!();
    let (directory, _) = folder();
    let mut traced = 0;
    for attempt in 0..6 {
        let folder = directory.path().join(format!("log{attempt}"));
        let mut dlpm = Dlpm::trace(&folder).start();
        // From the folder on, the handlers are there. Each time a little later.
        dlpm.wait_until("the folder", || folder.exists());
        std::thread::sleep(std::time::Duration::from_millis(20 * attempt));
        dlpm.end_with(libc::SIGINT).exited(0);
        let log = Log::read(&folder);
        log.is_complete();
        traced += log.samples.len();
    }
    assert!(traced >= 6, "no interval of them was sealed");
}

#[test]
fn wrong_usage_is_2() {
    require_dlpm!();
    for arguments in [
        &["trace", "--no-such-option"][..],
        &["no-such-command"],
        &["trace", "extra"],
        &[],
    ] {
        let output = Dlpm::new(arguments).run().exited(2);
        assert!(output.stderr.contains("Usage"), "{}", output.stderr);
    }
}
