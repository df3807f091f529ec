//! The local time zone: dates in the log and on the command line, and a hostile `TZ`.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{ffi::CString, fs, os::unix::ffi::OsStrExt, path::Path};

use dlpm_tests::{command::Dlpm, log::LOG_NAME, require_dlpm};
use serde_json::Value;

/// A zone's file (RFC 9636) that is always this many hours east of Greenwich.
fn zone_file(path: &Path, hours: i64) {
    let mut block = b"TZif2".to_vec();
    block.extend([0; 15]);
    for count in [0_u32, 0, 0, 0, 1, 4] {
        block.extend(count.to_be_bytes());
    }
    block.extend([0; 6]);
    block.extend(b"LMT\0");
    let mut file = block.repeat(2);
    file.extend(format!("\n<{hours:+03}>{}\n", -hours).as_bytes());
    fs::write(path, file).unwrap();
}

/// Date of the first line.
fn first_date(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join(LOG_NAME)).unwrap();
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    line["date"].as_str().unwrap().to_owned()
}

/// The time in a zone that is this many hours east of Greenwich, some minutes from now.
fn local_date(hours: i64, minutes: i64) -> String {
    let shift = jiff::SignedDuration::from_mins(hours * 60 + minutes);
    let shifted = (jiff::Timestamp::now() + shift).to_zoned(jiff::tz::TimeZone::UTC);
    format!("{}{hours:+03}:00", shifted.strftime("%F %T%.6f"))
}

#[test]
fn dates_of_the_log_and_of_the_command_line_are_local() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("Far")).unwrap();
    zone_file(&directory.path().join("Far/East"), 9);
    let zones = directory.path().to_str().unwrap();
    let path = format!("{zones}/Far/East");
    for (tz, hours) in [("Far/East", 9), (":Far/East", 9), (&path, 9), ("<-03>3", -3), ("", 0)] {
        let folder = directory.path().join("log");
        let before = local_date(hours, 0);
        let output = Dlpm::trace(&folder)
            .args(["--overwrite", "--duration", "100ms"])
            .variable("TZDIR", zones)
            .variable("TZ", tz)
            .run()
            .exited(0);
        assert!(!output.stderr.contains("TZ"), "{}", output.stderr);
        let (date, after) = (first_date(&folder), local_date(hours, 0));
        assert!(before <= date && date <= after, "{tz}: {before} {date} {after}");
        assert_eq!(date[26..], before[26..], "{tz}");

        for (option, minutes, code) in [("--from", -5, 0), ("--to", 5, 0), ("--from", 5, 1)] {
            Dlpm::new(["report", option, &local_date(hours, minutes)[..19]])
                .arg(&folder)
                .variable("TZDIR", zones)
                .variable("TZ", tz)
                .run()
                .exited(code);
        }
    }
}

#[test]
fn the_folder_s_name_is_local() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    Dlpm::new(["trace", "--duration", "100ms"])
        .inside(directory.path())
        .variable("TZ", "<-12>12")
        .run()
        .exited(0);
    let folder = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap();
    let date = first_date(&folder.path());
    let digits: String = date.chars().filter(char::is_ascii_digit).take(10).collect();
    let name = folder.file_name().into_string().unwrap().replace('-', "");
    assert!(name.starts_with(&format!("dlpm{digits}")), "{name} {date}");
}

#[test]
fn a_zone_that_cannot_be_known_is_said_once_and_waits_for_nothing() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    let name = CString::new(pipe.as_os_str().as_bytes()).unwrap();
    // SAFETY: the name is a C string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o644) }, 0);
    let east = directory.path().join("East");
    zone_file(&east, 9);
    let folder = directory.path().join("log");
    for (tz, sudo) in [
        ("Nowhere/AtAll", false),
        ("../../../../../../etc/passwd", true),
        ("/dev/zero", true),
        ("/proc/kmsg", true),
        (pipe.to_str().unwrap(), false),
        (east.to_str().unwrap(), true),
        ("\u{1b}]0;title\u{7}", false),
    ] {
        let mut trace = Dlpm::trace(&folder).args(["--overwrite", "--duration", "100ms"]);
        if sudo {
            trace = trace.through_sudo_of(0);
        }
        let output = trace.variable("TZ", tz).run().exited(0);
        assert_eq!(output.stderr.matches("TZ is").count(), 1, "{}", output.stderr);
        assert!(!output.stderr.contains(['\u{1b}', '\u{7}']));
        assert!(first_date(&folder).ends_with("+00:00"));
        let output = Dlpm::new(["report"]).arg(&folder).variable("TZ", tz).run().exited(0);
        assert!(output.stderr.matches("TZ is").count() <= 1, "{}", output.stderr);
    }
}
