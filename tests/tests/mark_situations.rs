//! Marks where something goes wrong: each log keeps the rules of AIPowerMeter's reader and proves itself.

use std::{
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use dlpm_tests::{
    command::{Dlpm, NOBODY, give, world_readable},
    disk::SmallDisk,
    log::{LOG_NAME, Log},
    phases::{SOCKET_NAME, ask, border, connect, labels, mark, phases},
    powercap::{Powercap, node},
    require_dlpm,
};

/// Marks that each make a border, and some time between them.
#[track_caller]
fn marks(folder: &Path, requests: &[&str]) {
    for request in requests {
        border(&ask(folder, format!("{request}\n").as_bytes()));
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_phase_goes_on_from_one_segment_to_the_next() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let mut tree = Powercap::start(node());
    let mut dlpm = Dlpm::trace(&folder).arg("--sysfs").arg(tree.sysfs()).start();
    dlpm.wait_for_lines(&folder, 3);
    marks(&folder, &["begin whole", "mark 1", "mark 2"]);
    tree.stop();
    // The core zone starts again: invalid in one interval, which is a segment of its own.
    let core = tree.directory("intel-rapl:0:0");
    fs::write(core.join("new"), "5\n").unwrap();
    fs::rename(core.join("new"), core.join("energy_uj")).unwrap();
    // That interval is one of some 0.1 ms, between two marks.
    marks(&folder, &["mark 3"]);
    marks(&folder, &["begin x", "end x", "mark 4"]);
    thread::sleep(Duration::from_millis(120));
    dlpm.end_with(libc::SIGINT).exited(0);
    let log = Log::read(&folder);
    log.is_complete();
    assert_eq!(log.segments, 3);
    let phases = phases(&folder);
    assert_eq!(labels(&phases), ["1", "2", "x", "3", "4", "whole"]);
    let last = &phases[5];
    assert_eq!(last.end_seq, log.samples.len() as u64);
    assert!(last.energy_uj >= phases[..2].iter().map(|phase| phase.energy_uj).sum());
}

#[test]
fn a_killed_trace_leaves_its_phase_open_and_a_socket_that_is_replaced() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let tree = Powercap::start(node());
    let start = |arguments: &[&str]| {
        let lines = fs::read_to_string(folder.join(LOG_NAME)).map_or(0, |text| text.lines().count());
        let mut dlpm = Dlpm::trace(&folder)
            .arg("--sysfs")
            .arg(tree.sysfs())
            .args(arguments)
            .start();
        dlpm.wait_for_lines(&folder, lines + 4);
        dlpm
    };
    let mut dlpm = start(&[]);
    marks(&folder, &["begin open", "mark 1"]);
    let lines = fs::read_to_string(folder.join(LOG_NAME)).unwrap().lines().count();
    dlpm.wait_for_lines(&folder, lines + 2);
    dlpm.killed();
    assert_eq!(labels(&phases(&folder)), ["open", "1"], "they end with the last line");
    mark(&folder, &["x"]).run().fails(1, &["no trace listens at"]);

    // The next trace knows nothing of them.
    let dlpm = start(&["--append"]);
    mark(&folder, &["end", "open"])
        .run()
        .fails(1, &["no phase `open` is open", "none is"]);
    marks(&folder, &["begin open", "mark 1", "end open"]);
    dlpm.end_with(libc::SIGINT).exited(0);
    let log = Log::read(&folder);
    assert_eq!(log.segments, 2);
    let phases = phases(&folder);
    assert_eq!(labels(&phases), ["open", "1"]);
    assert!(!folder.join(SOCKET_NAME).exists());
}

#[test]
fn marks_while_the_disk_is_full_are_written_when_there_is_room() {
    require_dlpm!();
    let disk = SmallDisk::mount(512);
    let folder = disk.path().join("log");
    let tree = Powercap::start(node());
    let mut dlpm = Dlpm::trace(&folder)
        .args(["--comm", "^no-such-process$", "--sysfs"])
        .arg(tree.sysfs())
        .start();
    dlpm.wait_for_lines(&folder, 3);
    marks(&folder, &["begin before"]);
    disk.fill();
    dlpm.wait_for_message("cannot be written");
    marks(&folder, &["mark full 1", "mark full 2", "end before"]);
    let written = fs::read_to_string(folder.join(LOG_NAME)).unwrap();
    assert!(!written.contains("full 1"));
    disk.make_room();
    dlpm.wait_for_message("written again");
    marks(&folder, &["mark after"]);
    dlpm.end_with(libc::SIGINT).exited(0);
    Log::read(&folder).is_complete();
    assert_eq!(labels(&phases(&folder)), ["full 1", "before", "full 2", "after"]);
}

#[test]
fn a_trace_that_is_ending_takes_no_marks() {
    require_dlpm!();
    let disk = SmallDisk::mount(512);
    let folder = disk.path().join("log");
    let mut dlpm = Dlpm::trace(&folder).args(["--comm", "^no-such-process$"]).start();
    dlpm.wait_for_lines(&folder, 3);
    let mut waits = connect(&folder);
    disk.fill();
    dlpm.wait_for_message("cannot be written");
    // It waits for the disk, for five seconds.
    dlpm.signal(libc::SIGINT);
    let begun = Instant::now();
    let mut said = String::new();
    let _ = waits.read_to_string(&mut said);
    assert_eq!(said, "");
    mark(&folder, &["x"])
        .run()
        .fails(1, &["no trace listens at", "it has ended"]);
    mark(&folder, &["x", "--if-running"]).run().exited(0);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "the trace has ended before it was asked"
    );
    dlpm.wait().exited(1);
}

#[test]
fn the_socket_belongs_to_the_user_who_called_sudo() {
    require_dlpm!();
    let home = tempfile::tempdir().unwrap();
    give(home.path(), NOBODY);
    let folder = home.path().join("log");
    let mut dlpm = Dlpm::trace(&folder).through_sudo_of(NOBODY).start();
    dlpm.wait_for_lines(&folder, 2);
    let status = fs::metadata(folder.join(SOCKET_NAME)).unwrap();
    assert_eq!(
        (status.uid(), status.gid(), status.mode() & 0o777),
        (NOBODY, NOBODY, 0o600)
    );
    mark(&folder, &["by-nobody"]).as_user(NOBODY).run().exited(0);
    mark(&folder, &["by-root"]).run().exited(0);
    world_readable(&home);
    mark(&folder, &["by-another"])
        .as_user(1234)
        .run()
        .fails(1, &["only the user who traces"]);
    // Also where the file would let them in, the kernel says who it is.
    fs::set_permissions(
        folder.join(SOCKET_NAME),
        std::os::unix::fs::PermissionsExt::from_mode(0o666),
    )
    .unwrap();
    mark(&folder, &["by-another"])
        .as_user(1234)
        .run()
        .fails(1, &["the trace refuses", "user 1234 may not mark"]);
    dlpm.end_with(libc::SIGINT).exited(0);
    assert_eq!(labels(&phases(&folder)), ["by-nobody", "by-root"]);
    assert!(!folder.join(SOCKET_NAME).exists());
}

#[test]
fn what_is_planted_in_place_of_the_socket_is_replaced_and_not_followed() {
    require_dlpm!();
    let home = tempfile::tempdir().unwrap();
    give(home.path(), NOBODY);
    let victims = tempfile::tempdir().unwrap();
    let victim = world_readable(&victims).path().join("victim");
    fs::write(&victim, "of root").unwrap();
    for target in [victim.clone(), victims.path().join("new")] {
        let folder = home.path().join(target.file_name().unwrap());
        fs::create_dir(&folder).unwrap();
        give(&folder, NOBODY);
        symlink(&target, folder.join(SOCKET_NAME)).unwrap();
        let mut dlpm = Dlpm::trace(&folder).through_sudo_of(NOBODY).start();
        dlpm.wait_for_lines(&folder, 2);
        marks(&folder, &["mark x"]);
        dlpm.end_with(libc::SIGINT).exited(0);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "of root");
        assert_eq!(fs::read_dir(victims.path()).unwrap().count(), 1);
    }
    // A folder cannot be replaced: then the socket is elsewhere.
    let folder = home.path().join("folder");
    fs::create_dir_all(folder.join(SOCKET_NAME)).unwrap();
    give(&folder, NOBODY);
    give(&folder.join(SOCKET_NAME), NOBODY);
    let mut dlpm = Dlpm::trace(&folder).through_sudo_of(NOBODY).start();
    dlpm.wait_for_lines(&folder, 2);
    mark(&folder, &["x"]).as_user(NOBODY).run().exited(0);
    dlpm.end_with(libc::SIGINT).exited(0);
    assert_eq!(labels(&phases(&folder)), ["x"]);
}
