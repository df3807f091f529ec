//! Phases: borders that are made at the moment of a mark, from the command line and a socket.

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use dlpm::sources::clock::monotonic_ns;
use dlpm_tests::{
    command::Dlpm,
    log::{Log, number},
    phases::{Phase, SOCKET_NAME, Traced, ask, border, connect, labels, mark, phases},
    powercap::{Powercap, node},
    require_dlpm,
};
use serde_json::Value;

#[test]
fn the_border_lies_between_question_and_answer() {
    require_dlpm!();
    let traced = Traced::new();
    let dlpm = traced.start(&[]);
    let mut borders = Vec::new();
    for number in 0..20 {
        let before_ns = monotonic_ns();
        let (seq, at_ns) = border(&ask(&traced.folder, format!("mark {number}\n").as_bytes()));
        assert!((before_ns..=monotonic_ns()).contains(&at_ns));
        borders.push((seq, at_ns));
    }
    dlpm.end_with(libc::SIGINT).exited(0);
    let log = traced.log();
    log.is_complete();
    assert!(borders.is_sorted_by(|before, after| before.0 < after.0), "{borders:?}");
    for border in &borders {
        let sample = log.samples.iter().find(|sample| sample.seq() == border.0).unwrap();
        assert_eq!(sample.begin_ns(), border.1);
    }
    let phases = phases(&traced.folder);
    assert_eq!(phases.len(), 20);
    for (phase, border) in phases.iter().zip(&borders) {
        assert_eq!((phase.begin_seq, phase.begin_ns), *border);
    }
}

#[test]
fn phases_from_the_command_line_nest_and_overlap() {
    require_dlpm!();
    let traced = Traced::new();
    let dlpm = traced.start(&[]);
    let folder = &traced.folder;
    for arguments in [
        &["epoch 1"][..],
        &["begin", "a"],
        &["begin", "b"],
        &["begin", "a"],
        &["end", "a"],
        &["epoch 2"],
        &["end", "a"],
        &["end", "epoch 2"],
    ] {
        let output = mark(folder, arguments).run().exited(0);
        assert_eq!((output.stdout, output.stderr), (String::new(), String::new()));
    }
    mark(folder, &["end", "a"])
        .run()
        .fails(1, &["no phase `a` is open", "open are `b`"]);
    mark(folder, &["begin", " a"])
        .run()
        .says(&["begins or ends with a space"]);
    let output = dlpm.end_with(libc::SIGTERM).exited(0);
    // The summary has the phases as a report of the log has them.
    let report = Dlpm::new(["report", "--by", "phase"])
        .arg(folder)
        .run()
        .exited(0)
        .stdout;
    for label in ["epoch 1", "a", "b", "epoch 2", "(no phase)"] {
        let times_and_seconds = |text: &str| -> Vec<String> {
            let row = text
                .lines()
                .find_map(|line| line.strip_prefix(label)?.strip_prefix("  "));
            let row = row.unwrap_or_else(|| panic!("no {label} in {text}"));
            row.split_whitespace().take(2).map(str::to_owned).collect()
        };
        let (summary, report) = (times_and_seconds(&output.stdout), times_and_seconds(&report));
        assert_eq!(summary[..summary.len() - 1], report[..report.len() - 1], "{label}");
        if label != "(no phase)" {
            assert_eq!(summary, report, "{label}");
        }
    }
    let log = traced.log();
    log.is_complete();
    let phases = phases(folder);
    assert_eq!(labels(&phases), ["epoch 1", "a", "epoch 2", "b"]);
    // The one that nobody ended ends with the trace.
    assert_eq!(phases[3].end_seq, log.samples.len() as u64);
    assert_eq!(phases[0].end_seq, phases[2].begin_seq, "one border");
    assert!(phases[1].begin_seq < phases[3].begin_seq && phases[1].end_seq < phases[3].end_seq);
}

#[test]
fn clients_that_say_nothing_or_nonsense_hold_up_nobody() {
    require_dlpm!();
    let traced = Traced::new();
    let dlpm = traced.start(&[]);
    let folder = &traced.folder;
    let silent: Vec<_> = (0..50).map(|_| connect(folder)).collect();
    let mut slow = connect(folder);
    slow.write_all(b"mark half").unwrap();
    drop(connect(folder));
    for (request, says) in [
        (&b"hello\n"[..], "write `mark LABEL`"),
        (b"\n", "write `mark LABEL`"),
        (b"mark \n", "it is empty"),
        (b"end x\n", "no phase `x` is open"),
        (b"mark \xff\n", "UTF-8"),
        (b"begin a\x1bb\n", "control character"),
        (&[b'x'; 100_000], "a request has at most"),
    ] {
        let answer = ask(folder, request);
        assert!(answer.starts_with("error ") && answer.contains(says), "{answer}");
    }
    border(&ask(folder, b"mark x\nmark y\n"));
    // Many at once, as many as may be open with x: each has a border.
    let answers: Vec<String> = thread::scope(|scope| {
        let clients: Vec<_> = (0..99)
            .map(|number| scope.spawn(move || ask(folder, format!("begin {number}\n").as_bytes())))
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for answer in &answers {
        border(answer);
    }
    let begun = Instant::now();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut slow, &mut answer).unwrap();
    assert!(
        answer.contains("no request came"),
        "{answer} after {:?}",
        begun.elapsed()
    );
    drop(silent);
    dlpm.end_with(libc::SIGINT).exited(0);
    traced.log().is_complete();
    let phases = phases(folder);
    assert_eq!(phases.len(), 100);
    assert!(phases.iter().all(|phase| phase.begin_seq < phase.end_seq));
}

#[test]
fn a_burst_of_marks_spoils_no_meter() {
    require_dlpm!();
    let traced = Traced::new();
    let dlpm = traced.start(&["--idle-policy", "capacity"]);
    for number in 0..120 {
        border(&ask(&traced.folder, format!("mark {number}\n").as_bytes()));
    }
    thread::sleep(Duration::from_millis(200));
    dlpm.end_with(libc::SIGINT).exited(0);
    let log = traced.log();
    log.is_complete();
    assert_eq!(
        log.segments,
        1,
        "{:?}",
        log.events.iter().find(|event| event["event"] == "zones_changed")
    );
    let lengths = || log.samples.iter().map(|sample| sample.end_ns() - sample.begin_ns());
    let short = lengths().filter(|length_ns| *length_ns < 5_000_000).count();
    assert!(short > 0, "no short interval");
    assert!(lengths().all(|length_ns| length_ns > 0));
    // What its reader sees: no power that no interval has.
    let watts: Vec<f64> = log
        .samples
        .iter()
        .map(|sample| sample.cpu["intel_power"].as_f64().unwrap())
        .collect();
    let highest = watts.iter().copied().fold(0.0, f64::max);
    assert!(highest < 1_000.0, "{highest} W of a package that draws 90 W");
    // And every joule is there.
    let root_uj = |sample: &dlpm_tests::log::Sample| number(&sample.zone("package-0").unwrap()["energy_uj"]);
    let history = traced.tree.history("package-0");
    let at = |sample: &dlpm_tests::log::Sample| {
        history.total_at(
            number(&sample.zone("package-0").unwrap()["counter_uj"]),
            sample.end_ns(),
        )
    };
    let (first, last) = (&log.samples[0], &log.samples[log.samples.len() - 1]);
    assert_eq!(log.samples[1..].iter().map(root_uj).sum::<u64>(), at(last) - at(first));
}

#[test]
fn a_command_finds_its_trace_and_scripts_run_without_one() {
    require_dlpm!();
    let traced = Traced::new();
    let dlpm = std::env::var("DLPM_BIN").unwrap();
    let script = format!("{dlpm} mark load; sleep 0.1; {dlpm} mark begin train; echo $DLPM_SOCKET");
    let output = traced.trace().args(["--", "sh", "-c", &script]).run().exited(0);
    let socket = traced.folder.join(SOCKET_NAME);
    assert_eq!(Path::new(output.stdout.trim()), socket);
    assert_eq!(labels(&phases(&traced.folder)), ["train", "load"]);
    traced.log();

    // After its end.
    mark(&traced.folder, &["x"])
        .run()
        .fails(1, &["no trace writes into", "--dir"]);
    mark(&traced.folder, &["x", "--if-running"]).run().exited(0);
    let gone = Dlpm::new(["mark", "x"]).variable("DLPM_SOCKET", socket.to_str().unwrap());
    gone.run().fails(1, &["no trace listens at", "--dir"]);
    let empty = tempfile::tempdir().unwrap();
    Dlpm::new(["mark", "x"])
        .variable("DLPM_SOCKET", "")
        .inside(empty.path())
        .run()
        .fails(1, &["no trace writes into", "--dir"]);
    mark(&empty.path().join("none"), &["x"])
        .run()
        .fails(1, &["there is no folder"]);
}

#[test]
fn the_trace_in_the_current_directory_is_found() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let tree = Powercap::start(node());
    let start = |name: &str| {
        let folder = directory.path().join(name);
        let mut dlpm = Dlpm::trace(&folder).arg("--sysfs").arg(tree.sysfs()).start();
        dlpm.wait_for_lines(&folder, 1);
        dlpm
    };
    let here = || {
        Dlpm::new(["mark", "x"])
            .variable("DLPM_SOCKET", "")
            .inside(directory.path())
    };
    // One that was killed is none.
    start("killed").killed();
    assert!(directory.path().join("killed").join(SOCKET_NAME).exists());
    here().run().fails(1, &["no trace writes into"]);
    let first = start("first");
    here().run().exited(0);
    let second = start("second");
    here().run().fails(1, &["several traces", "first", "second", "--dir"]);
    Dlpm::new(["mark", "x"])
        .variable("DLPM_SOCKET", "")
        .inside(&directory.path().join("second"))
        .run()
        .exited(0);
    for dlpm in [first, second] {
        dlpm.end_with(libc::SIGINT).exited(0);
    }
    for name in ["first", "second"] {
        assert_eq!(labels(&phases(&directory.path().join(name))), ["x"], "{name}");
    }
}

#[test]
fn a_path_too_long_for_a_socket_has_it_under_run() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("a".repeat(60)).join("b".repeat(60));
    let mut dlpm = Dlpm::trace(&folder).start();
    dlpm.wait_for_lines(&folder, 2);
    assert!(!folder.join(SOCKET_NAME).exists());
    let status = fs::metadata(&folder).unwrap();
    let socket = PathBuf::from(format!("/run/dlpm/{:x}-{:x}.sock", status.dev(), status.ino()));
    let status = fs::metadata(&socket).unwrap();
    assert!(status.file_type().is_socket());
    assert_eq!((status.mode() & 0o777, status.uid()), (0o600, 0));
    mark(&folder, &["x"]).run().exited(0);
    dlpm.end_with(libc::SIGINT).exited(0);
    assert!(!socket.exists());
    assert_eq!(labels(&phases(&folder)), ["x"]);
    Log::read(&folder).is_complete();
}

#[test]
fn a_report_has_of_each_phase_what_its_intervals_hold() {
    require_dlpm!();
    let traced = Traced::new();
    let dlpm = traced.start(&[]);
    for arguments in [
        &["epoch 1"][..],
        &["begin", "train"],
        &["epoch 2"],
        &["end", "train"],
        &["epoch 1"],
    ] {
        mark(&traced.folder, arguments).run().exited(0);
        thread::sleep(Duration::from_millis(150));
    }
    dlpm.end_with(libc::SIGINT).exited(0);
    traced.log().is_complete();

    let output = Dlpm::new(["report"]).arg(&traced.folder).args(["--format", "json"]);
    let report: Value = serde_json::from_str(&output.run().exited(0).stdout).unwrap();
    let phases = phases(&traced.folder);
    for (label, count) in [("epoch 1", 2), ("epoch 2", 1), ("train", 1)] {
        let reported = report["phases"].as_array().unwrap();
        let reported = reported.iter().find(|phase| phase["phase"] == label).unwrap();
        let sum = |of: fn(&Phase) -> u64| -> u64 {
            let named = phases.iter().filter(|phase| phase.label == label);
            named.map(of).sum()
        };
        assert_eq!(number(&reported["count"]), count);
        assert_eq!(number(&reported["energy_uj"]), sum(|phase| phase.energy_uj));
        assert_eq!(
            number(&reported["duration_ns"]),
            sum(|phase| phase.end_ns - phase.begin_ns)
        );
    }
}
