//! `dlpm calibrate`, `dlpm trace` under each idle policy, and `dlpm verify` of what it wrote, with meters in files.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use dlpm_tests::require_kernel;
use serde_json::Value;
use tempfile::TempDir;

/// Watts of the zones, all the time: a package, its core, its memory.
const ZONES: [(&str, &str, u64); 3] = [
    ("intel-rapl:0", "package-0", 40),
    ("intel-rapl:0:0", "core", 25),
    ("intel-rapl:0:1", "dram", 5),
];

/// A powercap tree whose counters go on as long as it lives.
struct Meters {
    sysfs: TempDir,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Meters {
    fn start() -> Self {
        let sysfs = tempfile::tempdir().unwrap();
        let root = sysfs.path().join("class/powercap");
        for (zone, name, _) in ZONES {
            fs::create_dir_all(root.join(zone)).unwrap();
            fs::write(root.join(zone).join("name"), format!("{name}\n")).unwrap();
            fs::write(root.join(zone).join("max_energy_range_uj"), "262143328850\n").unwrap();
        }
        count(&root, 0);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (root, stop) = (root, stop.clone());
            let begin = Instant::now();
            move || {
                while !stop.load(Ordering::Relaxed) {
                    count(&root, u64::try_from(begin.elapsed().as_micros()).unwrap());
                    thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Self {
            sysfs,
            stop,
            thread: Some(thread),
        }
    }

    fn sysfs(&self) -> &str {
        self.sysfs.path().to_str().unwrap()
    }
}

impl Drop for Meters {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A counter is replaced as a whole: a reader must not find it empty.
fn count(root: &Path, elapsed_us: u64) {
    for (zone, _, watts) in ZONES {
        let (new, counter) = (root.join(zone).join("new"), root.join(zone).join("energy_uj"));
        fs::write(&new, format!("{}\n", 1_000 + watts * elapsed_us)).unwrap();
        fs::rename(new, counter).unwrap();
    }
}

fn dlpm(args: &[&str]) -> Output {
    let program = env::var_os("DLPM_BIN").map_or_else(|| panic!("DLPM_BIN names no program"), PathBuf::from);
    Command::new(program).args(args).output().unwrap()
}

#[track_caller]
fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn lines(folder: &Path) -> Vec<Value> {
    let log = fs::read_to_string(folder.join("power_metrics.json")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &Value| line.pointer("/dlpm/rows").is_some())
        .collect()
}

/// The path of a calibration of these meters; the machine is shared and may be busy.
fn calibrate(meters: &Meters, folder: &Path) -> PathBuf {
    let file = folder.join("lib/calibration.json");
    let output = dlpm(&[
        "calibrate",
        "--duration=1s",
        "--max-busy=100",
        "--sysfs",
        meters.sysfs(),
        "--output",
        file.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("package-0/rest"), "{}", text(&output));
    file
}

#[test]
fn the_floor_of_a_machine_is_what_its_meters_counted() {
    let (meters, folder) = (Meters::start(), tempfile::tempdir().unwrap());
    let file = calibrate(&meters, folder.path());
    let calibration: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let floor = |zone: &str| calibration["floors_mw"][zone].as_f64().unwrap();
    // The counters step every 5 ms or so, in a second; all of them together.
    assert!(
        (floor("package-0/core") / floor("package-0/rest") / (25.0 / 15.0) - 1.0).abs() < 0.2,
        "{calibration}"
    );
    assert!(
        (floor("dram-0") / floor("package-0/core") / (5.0 / 25.0) - 1.0).abs() < 0.2,
        "{calibration}"
    );
    assert_eq!(
        (&calibration["method"], &calibration["format"]),
        (&"measured".into(), &1.into())
    );
}

#[test]
fn a_busy_machine_is_not_calibrated() {
    let (meters, folder) = (Meters::start(), tempfile::tempdir().unwrap());
    let file = folder.path().join("calibration.json");
    let stop = AtomicBool::new(false);
    let output = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let output = dlpm(&[
            "calibrate",
            "--duration=30s",
            "--sysfs",
            meters.sysfs(),
            "--output",
            file.to_str().unwrap(),
        ]);
        stop.store(true, Ordering::Relaxed);
        output
    });
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("% of CPU time was busy") && text(&output).contains("2 % is the limit"),
        "{}",
        text(&output)
    );
    assert!(!file.exists());
}

#[test]
fn separate_needs_a_calibration_of_this_machine() {
    require_kernel!();
    let (meters, folder) = (Meters::start(), tempfile::tempdir().unwrap());
    let output_folder = folder.path().join("log");
    let trace = |calibration: &Path| {
        let output = dlpm(&[
            "trace",
            "--idle-policy=separate",
            "--calibration",
            calibration.to_str().unwrap(),
            "--duration=100ms",
            "--sysfs",
            meters.sysfs(),
            "--output",
            output_folder.to_str().unwrap(),
        ]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        text(&output)
    };
    let missing = trace(&folder.path().join("none"));
    assert!(missing.contains("run `dlpm calibrate`"), "{missing}");
    let file = calibrate(&meters, folder.path());
    let mut calibration: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    calibration["floors_mw"]
        .as_object_mut()
        .unwrap()
        .remove("package-0/core");
    fs::write(&file, calibration.to_string()).unwrap();
    let uncovered = trace(&file);
    assert!(uncovered.contains("no floor of package-0/core"), "{uncovered}");
    calibration["cpu_model"] = "another".into();
    calibration["machine_id"] = "another".into();
    fs::write(&file, calibration.to_string()).unwrap();
    let other = trace(&file);
    assert!(
        other.contains("another machine") && other.contains("dlpm calibrate"),
        "{other}"
    );
    assert!(!output_folder.exists());
}

#[test]
fn a_learned_floor_is_named_as_such_until_the_machine_is_calibrated() {
    require_kernel!();
    let (meters, folder) = (Meters::start(), tempfile::tempdir().unwrap());
    let calibration = folder.path().join("lib/calibration.json");
    let trace = |name: &str| {
        let log = folder.path().join(name);
        let output = dlpm(&[
            "trace",
            "--calibration",
            calibration.to_str().unwrap(),
            "--duration=300ms",
            "--interval=100ms",
            "--sysfs",
            meters.sysfs(),
            "--output",
            log.to_str().unwrap(),
        ]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let verified = dlpm(&["verify", log.to_str().unwrap()]);
        assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
        let metadata = fs::read_to_string(log.join("metadata.json")).unwrap();
        let line = lines(&log).remove(0);
        let floor = line["dlpm"]["zones"]
            .as_array()
            .unwrap()
            .iter()
            .find_map(|zone| zone["idle_floor_mw"].as_u64());
        (text(&output), metadata, floor)
    };
    let (said, _, floor) = trace("nothing");
    assert!(said.contains("idle policy proportional") && floor.is_none(), "{said}");
    let learned = serde_json::json!({
        "format": 1, "machine_id": null, "cpu_model": null, "date": "2026-02-03T04:05:06", "duration_ns": 60_000_000_000u64,
        "busy_permille": 13, "method": "learned", "roots_mw": {"package-0": 9_000},
        "floors_mw": {"package-0/core": 5_000, "package-0/rest": 4_000, "dram-0": 100}
    });
    fs::create_dir(folder.path().join("lib")).unwrap();
    fs::write(folder.path().join("lib/learned-floor.json"), learned.to_string()).unwrap();
    let (said, metadata, floor) = trace("learned");
    for part in [
        "the idle floor was learned",
        "2026-02-03T04:05:06",
        "1.3 % of CPU time busy",
    ] {
        assert!(
            said.contains(part) && metadata.contains(part),
            "no `{part}` in:\n{said}\n{metadata}"
        );
    }
    assert_eq!(floor, Some(5_000));
    calibrate(&meters, folder.path());
    let (said, _, floor) = trace("calibrated");
    assert!(said.contains("the idle floor was measured on"), "{said}");
    assert_ne!(floor, Some(5_000));
}

#[test]
fn every_policy_writes_a_log_that_proves_itself() {
    require_kernel!();
    let (meters, folder) = (Meters::start(), tempfile::tempdir().unwrap());
    let file = calibrate(&meters, folder.path());
    for policy in ["proportional", "separate", "capacity"] {
        let log = folder.path().join(policy);
        let output = dlpm(&[
            "trace",
            "--idle-policy",
            policy,
            "--calibration",
            file.to_str().unwrap(),
            "--smt-weight=0.6",
            "--interval=200ms",
            "--sysfs",
            meters.sysfs(),
            "--output",
            log.to_str().unwrap(),
            "--",
            "sh",
            "-c",
            "for i in 1 2 3 4 5; do /bin/true; sleep 0.2; done",
        ]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(
            text(&output).contains(&format!("idle policy {policy}")),
            "{}",
            text(&output)
        );
        let lines = lines(&log);
        assert!(lines.len() >= 3, "{}", lines.len());
        for line in &lines {
            assert_eq!(
                (&line["dlpm"]["idle_policy"], &line["dlpm"]["smt_weight_permille"]),
                (&policy.into(), &600.into())
            );
            let idle = line["dlpm"]["rows"]
                .as_array()
                .unwrap()
                .iter()
                .find(|row| row["row"] == "idle")
                .unwrap();
            let idle_uj = idle["energy_uj"]["package-0/core"].as_u64().unwrap();
            // Something always runs, dlpm at least; whether the machine is ever idle is not in this test's hands.
            match policy {
                "proportional" => assert_eq!(idle_uj, 0, "{line}"),
                "separate" => assert!(idle_uj > 0, "{line}"),
                _ => assert!(idle_uj > 0 || idle["cpu_ns"].as_u64().unwrap() < 1_000_000, "{line}"),
            }
        }
        let verified = dlpm(&["verify", log.to_str().unwrap()]);
        assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
        assert_eq!(text(&verified).lines().count(), 1, "{}", text(&verified));
        assert!(
            text(&verified).contains(&format!("{} intervals", lines.len())),
            "{}",
            text(&verified)
        );

        // One µJ more, anywhere.
        let path = log.join("power_metrics.json");
        let text_of_log = fs::read_to_string(&path).unwrap();
        fs::write(
            &path,
            text_of_log.replacen("\"package-0/core\":", "\"package-0/core\":1", 1),
        )
        .unwrap();
        let verified = dlpm(&["verify", log.to_str().unwrap()]);
        assert_eq!(verified.status.code(), Some(1), "{}", text(&verified));
        assert!(
            text(&verified).contains("power_metrics.json:1: energy law"),
            "{}",
            text(&verified)
        );
    }
}

#[test]
fn where_there_is_no_log_nothing_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let output = dlpm(&["verify", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("dlpm trace --output"), "{}", text(&output));
    assert_eq!(dlpm(&["verify"]).status.code(), Some(2));
}

#[test]
fn an_empty_log_is_not_proved() {
    for nothing in ["", "\n", "\"END OF RECORDING SEGMENT\"\n"] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("power_metrics.json"), nothing).unwrap();
        let output = dlpm(&["verify", folder.path().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{nothing:?}: {}", text(&output));
        assert!(
            !text(&output).contains("close in all"),
            "{nothing:?}: {}",
            text(&output)
        );
    }
}
