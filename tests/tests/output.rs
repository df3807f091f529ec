//! Output that cannot be written, whatever it is written to.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs::{self, File, OpenOptions},
    io::Read,
    path::Path,
    process::Stdio,
    thread,
    time::Duration,
};

use dlpm_tests::{
    command::Dlpm,
    disk::SmallDisk,
    log::LOG_NAME,
    require_dlpm, require_program,
    synthetic::{Ran, SECOND_NS, Synthetic},
};
use rustix::fs::{OFlags, fcntl_setfl};

/// A log of a minute, a model and its folder.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Synthetic::new(folder.path());
    for tgid in 0..60 {
        let ran = Ran {
            tgid: 4000 + tgid,
            comm: "python3",
            cgroup: "/train.slice",
            permille: 1500,
        };
        log.interval(SECOND_NS, 50, &[100], &[ran]);
    }
    log.finish();
    let header = br#"{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let length = u64::try_from(header.len()).unwrap().to_le_bytes();
    fs::write(
        folder.path().join("a.safetensors"),
        [&length[..], header, &[0; 4]].concat(),
    )
    .unwrap();
    folder
}

/// Every command that prints something, with its exit status where it can.
fn printing(folder: &Path) -> Vec<(Vec<String>, i32)> {
    let log = folder.to_str().unwrap();
    let model = folder.join("a.safetensors");
    let model = model.to_str().unwrap();
    let torn = folder.join("wrong");
    fs::create_dir_all(&torn).unwrap();
    fs::write(torn.join(LOG_NAME), "7\n").unwrap();
    let wrong = torn.to_str().unwrap();
    let commands: [(&[&str], i32); 18] = [
        (&["report", log], 0),
        (&["report", log, "--by", "process"], 0),
        (&["report", log, "--format", "json"], 0),
        (&["report", log, "--format", "csv", "--by", "process"], 0),
        (&["report", log, "--list"], 0),
        (&["report", log, "--list", "--format", "json"], 0),
        (&["report", log, "--list", "--format", "csv"], 0),
        (&["verify", log], 0),
        (&["verify", wrong], 1),
        (&["plot", log, "--list"], 0),
        (&["model", model], 0),
        (&["model", model, "--format", "json"], 0),
        (&["man"], 0),
        (&["completions", "bash"], 0),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["trace", "--help"], 0),
        (&["mark", "-h"], 0),
    ];
    commands
        .into_iter()
        .map(|(arguments, code)| (arguments.iter().map(|argument| (*argument).to_owned()).collect(), code))
        .collect()
}

#[test]
fn what_cannot_be_written_is_an_error() {
    require_program!();
    let folder = folder();
    let disk = SmallDisk::mount(64);
    disk.fill();
    for (arguments, _) in printing(folder.path()) {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let full_disk = File::create(disk.path().join("output")).unwrap();
        let read_only = File::open("/dev/null").unwrap();
        for (stdout, why) in [
            (full, "No space left"),
            (full_disk, "No space left"),
            (read_only, "Bad file descriptor"),
        ] {
            let output = Dlpm::new(&arguments).run_into(stdout);
            let code = if arguments[0] == "verify" { 2 } else { 1 };
            output.fails(code, &["standard output", why]);
        }
    }
}

#[test]
fn a_reader_that_has_gone_away_is_not() {
    require_program!();
    let folder = folder();
    for (arguments, code) in printing(folder.path()) {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Dlpm::new(&arguments).run_into(writer).exited(code);
        assert_eq!(output.stderr, "", "{arguments:?}");
    }
}

/// As a program that shares its terminal with others may leave it.
#[test]
fn a_pipe_that_does_not_wait_takes_all_of_it_in_the_end() {
    require_program!();
    let folder = folder();
    let arguments = ["report", folder.path().to_str().unwrap(), "--format", "json"];
    let whole = Dlpm::new(arguments).run().exited(0).stdout;
    let (mut reader, writer) = std::io::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    // SAFETY: no memory is involved. The smallest pipe that there is, so that it is soon full.
    assert!(unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&writer), libc::F_SETPIPE_SZ, 4096) } > 0);
    assert!(whole.len() > 4096);
    let reading = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    Dlpm::new(arguments).run_into(Stdio::from(writer)).exited(0);
    assert_eq!(reading.join().unwrap(), whole);
}

#[test]
fn files_are_written_as_a_whole_or_not_at_all() {
    require_program!();
    let folder = folder();
    let log = folder.path();
    let disk = SmallDisk::mount(64);
    disk.fill();
    for (arguments, name) in [
        (&["report", "--html"][..], "page.html"),
        (&["plot", "-m", "zone:package-0", "-o"], "curve.svg"),
        (&["plot", "-m", "zone:package-0", "-o"], "curve.png"),
        (&["convert", "--naive-dates", "-o"], "copy"),
    ] {
        let file = disk.path().join(name);
        let output = Dlpm::new(&arguments[..1])
            .arg(log)
            .args(&arguments[1..])
            .arg(&file)
            .run();
        output.fails(1, &[name, "No space left"]);
        assert!(!file.exists(), "{name}");
    }
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 1, "only what fills it");
}

#[test]
fn doctor_and_the_summary_of_a_trace_say_so_too() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    Dlpm::new(["doctor"]).run_into(full()).fails(1, &["standard output"]);
    let trace = || Dlpm::trace(&folder.path().join("log")).args(["--duration", "100ms", "--overwrite"]);
    trace().run_into(full()).exited(1).says(&["standard output"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    trace().run_into(writer).exited(0);
}
