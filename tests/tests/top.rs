//! `dlpm top`: frames that add up, and a terminal that is as it was, whatever ends it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::process::Command;

use dlpm_tests::{
    agent::{SOCKET, agent, folder, wait_for_intervals},
    command::{Dlpm, NOBODY, program},
    log::number,
    powercap::{Powercap, node},
    pty::InTerminal,
    require_dlpm,
};
use serde_json::Value;

/// What a frame's lines and rows have, and what the meters counted.
fn sums(frame: &Value) -> (u64, u64) {
    let lines = frame["lines"].as_array().unwrap().iter();
    let rows = frame["rows"].as_object().unwrap().values();
    let parts = lines.chain(rows).map(|part| number(&part["energy_uj"])).sum();
    (parts, number(&frame["energy_uj"]))
}

#[test]
fn frames_add_up_to_the_meter() {
    require_dlpm!();
    let tree = Powercap::start(node());
    let output = Dlpm::new(["top", "-b", "-n", "3", "--json", "-d", "200ms", "--sysfs"])
        .arg(tree.sysfs())
        .run()
        .exited(0);
    let frames: Vec<Value> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(frames.len(), 3);
    for frame in &frames {
        let (parts, counted) = sums(frame);
        assert_eq!(parts, counted);
        let power = frame["power_mw"].as_object().unwrap();
        let of_parts: u64 = power.values().map(number).sum();
        let sum = u128::from(counted) * 1_000_000 / u128::from(number(&frame["interval_ns"]));
        assert_eq!(u128::from(of_parts), sum);
        assert_eq!(frame["is_estimate"], false);
    }
    let total: u64 = frames.iter().map(|frame| number(&frame["energy_uj"])).sum();
    assert_eq!(number(&frames[2]["since_start_uj"]), total);
    let text = Dlpm::new(["top", "-b", "-n", "1", "-d", "200ms", "--sysfs"])
        .arg(tree.sysfs())
        .run()
        .exited(0);
    assert!(
        text.stdout.contains("listed ") && text.stdout.contains(" W, "),
        "{}",
        text.stdout
    );
    assert!(!text.stdout.contains('\u{1b}'));
}

#[test]
fn a_user_sees_their_own_processes_through_the_agent() {
    require_dlpm!();
    let (state, tree) = (folder(), Powercap::start(node()));
    let mut running = agent(&tree, state.path()).start();
    wait_for_intervals(&mut running, state.path(), 2);
    let socket = state.path().join(SOCKET);
    let output = Dlpm::new(["top", "-b", "-n", "2", "--json", "-d", "200ms", "--agent"])
        .arg(&socket)
        .as_user(NOBODY)
        .run()
        .exited(0);
    for frame in output
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
    {
        let (parts, counted) = sums(&frame);
        assert_eq!(parts, counted);
        let uids = frame["lines"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| number(&line["uid"]));
        assert!(uids.clone().all(|uid| uid == u64::from(NOBODY)), "{frame}");
        assert!(number(&frame["rows"]["others"]["cpu_ns"]) > 0);
    }
    running.end_with(libc::SIGTERM).exited(0);
    let gone = Dlpm::new(["top", "-b", "-n", "1", "--agent"])
        .arg(&socket)
        .run()
        .exited(1);
    assert!(gone.stderr.contains("no agent at"), "{}", gone.stderr);
}

#[test]
fn the_terminal_is_as_it_was_whatever_ends_it() {
    require_dlpm!();
    let tree = Powercap::start(node());
    let start = || {
        let mut command = Command::new(program());
        command.args(["top", "-d", "200ms", "--sysfs"]).arg(tree.sysfs());
        InTerminal::start(command, 80, 24)
    };
    for (what, signal, status) in [
        ("q", None, Some(0)),
        ("TERM", Some(libc::SIGTERM), Some(0)),
        ("\u{3}", None, Some(0)),
        ("HUP", Some(libc::SIGHUP), Some(0)),
    ] {
        let mut top = start();
        let before = format!("{:?}", top.settings());
        top.wait_for("listed");
        assert_ne!(format!("{:?}", top.settings()), before, "keys come one by one");
        match signal {
            // SAFETY: no memory is involved, and the process has not been waited for.
            Some(signal) => assert_eq!(unsafe { libc::kill(top.pid().cast_signed(), signal) }, 0),
            None => top.press(what),
        }
        assert_eq!(top.wait().code(), status, "{what:?}");
        assert_eq!(format!("{:?}", top.settings()), before, "{what:?}");
        let said = top.said();
        // Out of the second screen, with a cursor.
        assert!(
            said.rfind("\u{1b}[?1049l").unwrap() > said.rfind("\u{1b}[?1049h").unwrap(),
            "{what:?}"
        );
        assert!(
            said.rfind("\u{1b}[?25h").unwrap() > said.rfind("\u{1b}[?25l").unwrap(),
            "{what:?}"
        );
    }
}

#[test]
fn without_a_terminal_it_names_the_way_out() {
    require_dlpm!();
    let tree = Powercap::start(node());
    let output = Dlpm::new(["top", "--sysfs"]).arg(tree.sysfs()).run().exited(1);
    assert!(output.stderr.contains("dlpm top -b"), "{}", output.stderr);
}
