//! What an operator types.

use std::{
    fmt::Write as _,
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Longest wait for something that comes by itself. The processor is emulated, and the host may be busy.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a line of shell printed, on both outputs, and whether it succeeded. It is cut off after [`PATIENCE`].
pub fn attempt(line: &str) -> (bool, String) {
    println!("[{}] $ {line}", uptime());
    let output = Command::new("timeout")
        .args(["--kill-after=5", &PATIENCE.as_secs().to_string(), "sh", "-c"])
        .arg(format!("exec 2>&1\n{line}"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = printable(&String::from_utf8_lossy(&output.stdout));
    for line in text.lines() {
        println!("  {line}");
    }
    if !output.status.success() {
        println!("  ({})", output.status);
    }
    (output.status.success(), text)
}

/// What a line of shell printed; it has to succeed.
#[track_caller]
pub fn sh(line: &str) -> String {
    let (succeeded, text) = attempt(line);
    assert!(succeeded, "`{line}` failed");
    text.trim_end().to_owned()
}

/// The same as a user with a user manager.
#[track_caller]
pub fn sh_as(user: &str, uid: u32, line: &str) -> String {
    let quoted = line.replace('\'', r"'\''");
    sh(&format!(
        "runuser -u {user} -- env HOME=/home/{user} XDG_RUNTIME_DIR=/run/user/{uid} \
         DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus sh -c 'cd; {quoted}'"
    ))
}

/// Waits until something is there.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(250));
    }
}

/// What the agent and the failed units have to say, where a case has failed.
pub fn show_journal() {
    for line in [
        "systemctl --no-pager --failed",
        "journalctl --no-pager --unit dlpm-agent --lines 30",
        "journalctl --no-pager --identifier dlpm-epilog",
        "journalctl --no-pager --priority err --lines 20",
    ] {
        attempt(line);
    }
}

/// Seconds since the boot.
fn uptime() -> String {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Without what would move a cursor, and without a line that the host would take for a verdict.
fn printable(text: &str) -> String {
    let mut clean = String::new();
    for line in text.lines() {
        for character in line.chars().filter(|character| !character.is_control()) {
            clean.push(character);
        }
        let _ = writeln!(clean);
    }
    clean
}
