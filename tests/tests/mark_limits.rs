//! Marks that come too fast or change nothing, and traces that answer too slowly.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use dlpm_tests::{
    command::Dlpm,
    phases::{Traced, ask, border, labels, phases, python_folder},
    require_dlpm,
};

/// As documented in `docs/phases.md`.
const MARKS_A_SECOND: usize = 200;
const MARKS_IN_A_ROW: usize = 1_000;

#[test]
fn a_mark_that_changes_nothing_ends_no_interval() {
    require_dlpm!();
    let traced = Traced::new();
    let mut dlpm = Dlpm::new(["trace", "--interval", "1h", "--output"])
        .arg(&traced.folder)
        .arg("--sysfs")
        .arg(traced.tree.sysfs())
        .start();
    dlpm.wait_for_lines(&traced.folder, 1);
    let first = border(&ask(&traced.folder, b"begin f\n"));
    for _ in 0..50 {
        assert_eq!(border(&ask(&traced.folder, b"begin f\n")), first);
    }
    // What was begun as often is ended as often; only the last end is a border.
    for _ in 0..50 {
        assert_eq!(border(&ask(&traced.folder, b"end f\n")), first);
    }
    let last = border(&ask(&traced.folder, b"end f\n"));
    assert_eq!(last.0, first.0 + 1);
    dlpm.end_with(libc::SIGINT).exited(0);
    let log = traced.log();
    log.is_complete();
    assert_eq!(log.samples.len(), usize::try_from(last.0 + 1).unwrap());
    let phases = phases(&traced.folder);
    assert_eq!(labels(&phases), ["f"]);
    assert_eq!((phases[0].begin_seq, phases[0].end_seq), (first.0, last.0));
}

/// Marks from many clients at a time: how many were accepted, and what the others were told.
fn burst(folder: &Path, verb: &str, round: usize) -> (usize, Vec<String>) {
    let answers: Vec<String> = thread::scope(|scope| {
        let client = |number: usize| scope.spawn(move || ask(folder, format!("{verb} {round}-{number}\n").as_bytes()));
        let clients: Vec<_> = (0..100).map(client).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.starts_with("ok "));
    (accepted.len(), refused)
}

#[test]
fn a_flood_of_marks_is_limited_and_spoils_no_law() {
    require_dlpm!();
    let traced = Traced::new();
    let dlpm = traced.start(&[]);
    border(&ask(&traced.folder, b"begin whole\n"));
    let begun = Instant::now();
    let (mut accepted, mut refused) = (1, Vec::new());
    for round in 0..200 {
        let (more, others) = burst(&traced.folder, "mark", round);
        accepted += more;
        refused.extend(others);
        if !refused.is_empty() {
            break;
        }
    }
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    assert!(accepted >= MARKS_IN_A_ROW, "{accepted}");
    assert!(
        accepted <= MARKS_IN_A_ROW + MARKS_A_SECOND * seconds,
        "{accepted} in {seconds} s"
    );
    for answer in &refused {
        assert!(answer.contains("200 a second") && answer.contains("epochs"), "{answer}");
    }
    // Also where nothing can begin, what is open ends.
    border(&ask(&traced.folder, b"end whole\n"));
    dlpm.end_with(libc::SIGINT).exited(0);
    traced.log().is_complete();
    let phases = phases(&traced.folder);
    assert_eq!(phases.len(), accepted);
    assert!(labels(&phases).contains(&"whole"));
}

#[test]
fn who_keeps_to_the_rate_again_is_heard_again() {
    require_dlpm!();
    let traced = Traced::new();
    let dlpm = traced.start(&[]);
    for round in 0..200 {
        let (_, refused) = burst(&traced.folder, "mark", round);
        if !refused.is_empty() {
            break;
        }
    }
    let mut answer = String::new();
    while !answer.starts_with("ok ") {
        thread::sleep(Duration::from_millis(20));
        answer = ask(&traced.folder, b"mark later\n");
        assert!(answer.starts_with("ok ") || answer.contains("too fast"), "{answer}");
    }
    dlpm.end_with(libc::SIGINT).exited(0);
    traced.log().is_complete();
}

/// A server that never ends its answer, and says a byte of it now and then, until its client is gone.
fn drip(socket: &Path, byte: u8) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let _ = client.read(&mut [0; 99]);
        while client.write_all(&[byte]).is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    })
}

#[test]
fn an_answer_that_comes_byte_by_byte_has_one_deadline() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    for (number, byte) in [b'z', b'o', b' '].into_iter().enumerate() {
        let socket = directory.path().join(number.to_string());
        let server = drip(&socket, byte);
        Dlpm::new(["mark", "a"])
            .variable("DLPM_SOCKET", socket.to_str().unwrap())
            .run()
            .fails(1, &["has not answered for 2 s"]);
        server.join().unwrap();

        let socket = directory.path().join(format!("python-{number}"));
        let server = drip(&socket, byte);
        let output = Command::new("python3")
            .args(["-c", "import dlpm; print(dlpm.mark('a'))"])
            .env("PYTHONPATH", python_folder())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("DLPM_SOCKET", &socket)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "None\n");
        server.join().unwrap();
    }
}
