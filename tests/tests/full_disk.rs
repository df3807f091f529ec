//! A disk that is full while a trace runs: the trace goes on, and no joule is lost from the totals.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::{fs, thread, time::Duration};

use dlpm_tests::{
    command::{Dlpm, Output},
    disk::SmallDisk,
    log::{LOG_NAME, Log, Sample, number},
    powercap::{Powercap, node},
    require_dlpm,
};

/// Lists nobody, so that a line has a few kilobytes.
const NOBODY_LISTED: [&str; 2] = ["--comm", "^no-such-process$"];

/// Joules of a root zone in the summary, in thousandths.
#[track_caller]
fn millijoules(output: &Output, zone: &str) -> u64 {
    let cells = output
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|cells| cells.first() == Some(&zone) && cells.iter().any(|cell| cell.contains('.')));
    let Some(cells) = cells else {
        panic!("no {zone} in:\n{}", output.stdout)
    };
    let joules = cells.iter().find(|cell| cell.contains('.')).unwrap();
    joules.replace('.', "").parse().unwrap()
}

#[test]
fn when_room_returns_every_line_is_written() {
    require_dlpm!();
    let disk = SmallDisk::mount(512);
    let folder = disk.path().join("log");
    let mut tree = Powercap::start(node());
    let mut dlpm = Dlpm::trace(&folder)
        .args(NOBODY_LISTED)
        .arg("--sysfs")
        .arg(tree.sysfs())
        .start();
    dlpm.wait_for_lines(&folder, 3);
    disk.fill();
    dlpm.wait_for_message("cannot be written");
    let written = fs::read_to_string(folder.join(LOG_NAME)).unwrap();
    assert!(written.ends_with('\n'), "a part of a line was left");
    thread::sleep(Duration::from_millis(500));
    disk.make_room();
    dlpm.wait_for_message("written again");
    dlpm.wait_for_lines(&folder, written.lines().count() + 12);
    tree.stop();
    thread::sleep(Duration::from_millis(150));
    let output = dlpm.end_with(libc::SIGINT).exited(0);
    assert_eq!(
        output.stderr.matches("cannot be written").count(),
        1,
        "{}",
        output.stderr
    );

    let log = Log::read(&folder);
    log.is_complete();
    for (name, zone) in [("package-0", "package-0"), ("dram", "dram-0"), ("psys", "psys")] {
        let energies: Vec<u64> = log
            .samples
            .iter()
            .map(|sample| number(&sample.zone(zone).unwrap()["energy_uj"]))
            .collect();
        let history = tree.history(name);
        let first = &log.samples[0];
        let counter = number(&first.zone(zone).unwrap()["counter_uj"]);
        let begun = history.total_at(counter, first.end_ns()) - energies[0];
        assert!(history.was(begun));
        let total = history.last_uj() - begun;
        assert_eq!(energies.iter().sum::<u64>(), total, "{zone}");
        assert_eq!(millijoules(&output, zone), (total + 500) / 1000, "{zone}");
    }
}

#[test]
fn when_room_never_returns_the_totals_are_complete_and_the_exit_code_says_so() {
    require_dlpm!();
    let disk = SmallDisk::mount(512);
    let folder = disk.path().join("log");
    let mut tree = Powercap::start(node());
    let mut dlpm = Dlpm::trace(&folder)
        .args(NOBODY_LISTED)
        .arg("--sysfs")
        .arg(tree.sysfs())
        .start();
    dlpm.wait_for_lines(&folder, 3);
    disk.fill();
    dlpm.wait_for_message("cannot be written");
    thread::sleep(Duration::from_millis(300));
    tree.stop();
    thread::sleep(Duration::from_millis(150));
    let output = dlpm.end_with(libc::SIGTERM).exited(1);
    assert!(output.stdout.contains("could not be written"), "{}", output.stdout);

    // What is there can be read, and be continued where there is room.
    let text = fs::read_to_string(folder.join(LOG_NAME)).unwrap();
    // The end of the segment is so short that it may have found room behind the last line.
    let ended = text.ends_with("\"END OF RECORDING SEGMENT\"\n");
    assert!(ended || output.stdout.contains("--append"), "{}", output.stdout);
    assert!(
        text.ends_with('\n')
            && text
                .lines()
                .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
    );
    disk.make_room();
    Dlpm::trace(&folder)
        .args(NOBODY_LISTED)
        .args(["--append", "--duration", "100ms", "--sysfs"])
        .arg(tree.sysfs())
        .run()
        .exited(0);
    let log = Log::read(&folder);
    assert_eq!(log.segments, 2);
    // So may the sums of what was dropped: then the log is complete, too, but for the rows.
    let dropped = log.events.iter().find(|event| event["event"] == "dropped");
    let (first, before) = (
        &log.samples[0],
        log.samples.iter().skip(1).position(|sample| sample.seq() == 0).unwrap() + 1,
    );
    for (name, zone) in [("package-0", "package-0"), ("psys", "psys")] {
        let history = tree.history(name);
        let energy_uj = |sample: &Sample| number(&sample.zone(zone).unwrap()["energy_uj"]);
        let counter_uj = number(&first.zone(zone).unwrap()["counter_uj"]);
        let begun_uj = history.total_at(counter_uj, first.end_ns()) - energy_uj(first);
        let total = history.last_uj() - begun_uj;
        assert_eq!(
            millijoules(&output, zone),
            (total + 500) / 1000,
            "{zone} of\n{}",
            output.stdout
        );
        if let Some(dropped) = dropped {
            let written: u64 = log.samples[..before].iter().map(energy_uj).sum();
            assert_eq!(written + number(&dropped["zones"][zone]), total, "{dropped}");
        }
    }
}

#[test]
fn a_disk_that_is_full_from_the_start_is_an_error() {
    require_dlpm!();
    let disk = SmallDisk::mount(64);
    disk.fill();
    let folder = disk.path().join("log");
    Dlpm::trace(&folder)
        .args(["--", "true"])
        .run()
        .fails(125, &["No space left", "--output"]);
}
