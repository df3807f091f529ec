//! `dlpm trace` without root: the agent measures, and the folder is the user's own.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use dlpm_tests::{
    agent::{SOCKET, agent, folder, wait_for_intervals},
    command::{Dlpm, NOBODY, give, program as program_of_dlpm, world_readable},
    log::{LOG_NAME, Log, METADATA_NAME},
    powercap::{Powercap, node},
    require_dlpm,
};
use tempfile::TempDir;

/// A folder of the user's.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        give(home.path(), NOBODY);
        Self(home)
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    /// A trace of the user's.
    fn trace(&self, socket: &std::path::Path) -> Dlpm {
        Dlpm::new(["trace", "--agent"])
            .arg(socket)
            .arg("--output")
            .arg(self.log())
            .as_user(NOBODY)
            .inside(self.0.path())
    }
}

#[track_caller]
fn is_proved(folder: &std::path::Path) {
    let verified = Dlpm::new(["verify"]).arg(folder).run();
    assert!(verified.status.success(), "{}{}", verified.stdout, verified.stderr);
}

#[test]
fn a_command_is_measured_with_its_phases_and_its_exit_status() {
    require_dlpm!();
    let (state, tree, home) = (folder(), Powercap::start(node()), Home::new());
    let mut running = agent(&tree, state.path()).start();
    wait_for_intervals(&mut running, state.path(), 2);
    let socket = state.path().join(SOCKET);
    // A copy: the user may not be able to reach the place of the build.
    let copy = tempfile::tempdir().unwrap();
    let program = world_readable(&copy).path().join("dlpm");
    fs::copy(program_of_dlpm(), &program).unwrap();
    let script = format!(
        "id -u; {0} mark first && i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; {0} mark second; exit 3",
        program.display()
    );
    let output = home
        .trace(&socket)
        .args(["--interval", "100ms", "--", "sh", "-c"])
        .arg(&script)
        .run()
        .exited(3);
    assert_eq!(output.stdout.trim(), NOBODY.to_string(), "it runs as the user");
    assert!(output.stderr.contains("note: the agent at"), "{}", output.stderr);
    assert!(
        output.stderr.contains("first") && output.stderr.contains("second"),
        "{}",
        output.stderr
    );
    is_proved(&home.log());
    let log = Log::read(&home.log());
    // The command's tree and no other process, from its first nanosecond on.
    let names: Vec<String> = log
        .samples
        .iter()
        .flat_map(|sample| {
            let rows = sample.exact["rows"].as_array().unwrap().clone();
            rows.into_iter()
                .filter(|row| row["row"] == "process")
                .map(|row| row["exec_comm"].as_str().unwrap_or("").to_owned())
        })
        .collect();
    assert!(names.iter().any(|name| name == "sh"), "{names:?}");
    assert!(
        names.iter().all(|name| ["sh", "dlpm", "id"].contains(&name.as_str())),
        "{names:?}"
    );
    let text = fs::read_to_string(home.log().join(LOG_NAME)).unwrap();
    for event in [
        "\"event\":\"phase_begin\"",
        "\"event\":\"phase_end\"",
        "\"label\":\"second\"",
    ] {
        assert!(text.contains(event), "{event}");
    }
    for name in [LOG_NAME, METADATA_NAME] {
        assert_eq!(fs::metadata(home.log().join(name)).unwrap().uid(), NOBODY);
    }
    running.end_with(libc::SIGTERM).exited(0);
}

#[test]
fn an_agent_that_is_killed_and_started_again_leaves_a_gap() {
    require_dlpm!();
    let (state, tree, home) = (folder(), Powercap::start(node()), Home::new());
    let mut running = agent(&tree, state.path()).start();
    wait_for_intervals(&mut running, state.path(), 2);
    let socket = state.path().join(SOCKET);
    let mut trace = home.trace(&socket).args(["--interval", "200ms"]).start();
    trace.wait_for_lines(&home.log(), 2);
    running.killed();
    trace.wait_for_message("nothing is measured until it is back");
    let before = fs::read_to_string(home.log().join(LOG_NAME)).unwrap().lines().count();
    let running = agent(&tree, state.path()).start();
    trace.wait_for_message("the agent was gone for");
    trace.wait_for_lines(&home.log(), before + 4);
    let output = trace.end_with(libc::SIGINT).exited(0);
    assert!(output.stdout.contains("the agent was gone for"), "{}", output.stdout);
    is_proved(&home.log());
    let text = fs::read_to_string(home.log().join(LOG_NAME)).unwrap();
    assert_eq!(text.matches("\"event\":\"gap\"").count(), 1);
    // An agent that stops as it should hands over all it has.
    let home = Home::new();
    let mut trace = home.trace(&socket).start();
    trace.wait_for_lines(&home.log(), 1);
    running.end_with(libc::SIGTERM).exited(0);
    trace.wait_for_message("nothing is measured until it is back");
    // Whoever waits for it in vain has a log that ends, and is told.
    let output = trace.end_with(libc::SIGINT).exited(1);
    assert!(
        output.stdout.contains("the end of the recording is missing"),
        "{}",
        output.stdout
    );
    is_proved(&home.log());
}

#[test]
fn what_a_user_cannot_have_is_said_with_the_way_out() {
    require_dlpm!();
    let (state, tree, home) = (folder(), Powercap::start(node()), Home::new());
    let socket = state.path().join(SOCKET);
    let absent = home.trace(&socket).args(["--duration", "1s"]).run().exited(1);
    assert!(
        absent.stderr.contains("sudo dlpm trace") && absent.stderr.contains("dlpm-agent"),
        "{}",
        absent.stderr
    );
    assert!(!home.log().exists());
    let mut running = agent(&tree, state.path()).start();
    wait_for_intervals(&mut running, state.path(), 1);
    for (options, said) in [
        (&["--estimate", "idle=1,busy=1"][..], "--estimate cannot be chosen here"),
        (&["--interval", "10ms"], "100ms, 200ms"),
        (&["--uid", "0"], "user 65534 only"),
        (&["--pid", "1"], "no process 1 of yours"),
        (&["--cgroup", "no-such-cgroup"], "no-such-cgroup"),
    ] {
        let refused = home
            .trace(&socket)
            .args(["--duration", "1s"])
            .args(options)
            .run()
            .exited(1);
        assert!(refused.stderr.contains(said), "{options:?}: {}", refused.stderr);
        assert!(!home.log().exists(), "{options:?}");
    }
    // Without a filter: the user's own processes.
    let own = home.trace(&socket).args(["--duration", "1s"]).run().exited(0);
    assert!(own.stdout.contains("rocesses of user nobody"), "{}", own.stdout);
    let command = home
        .trace(&socket)
        .args(["--overwrite", "--", "/no/such/command"])
        .run()
        .exited(127);
    assert!(command.stderr.contains("no command"), "{}", command.stderr);
    running.end_with(libc::SIGTERM).exited(0);
}
