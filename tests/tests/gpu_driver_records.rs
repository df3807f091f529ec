//! Drivers that write larger or smaller records than their interface says, under AddressSanitizer: it sees whatever the
//! driver writes beyond the memory that it was given.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use dlpm_tests::{
    command::Dlpm,
    gpu_trace::Sleeper,
    log::{Log, number},
    require_dlpm,
};
use tempfile::TempDir;

/// The driver of `drivers/records.c`, with a file that says what it does.
struct Driver {
    folder: TempDir,
    sanitizer: PathBuf,
}

impl Driver {
    fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers/records.c");
        let status = Command::new("cc")
            .args([
                "-shared",
                "-fPIC",
                "-O1",
                "-g",
                "-Wall",
                "-Wextra",
                "-fsanitize=address",
            ])
            .arg("-o")
            .arg(folder.path().join("libnvidia-ml.so.1"))
            .arg(source)
            .status()
            .unwrap();
        assert!(status.success());
        let output = Command::new("cc").arg("-print-file-name=libasan.so").output().unwrap();
        let sanitizer = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        assert!(
            sanitizer.is_absolute(),
            "this C compiler has no libasan.so: install gcc and libc6-dev"
        );
        Self { folder, sanitizer }
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("libnvidia-ml.so.1")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("records")
    }

    fn environment(&self, version: &str) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.sanitizer.display().to_string()),
            ("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=1".to_owned()),
            ("DLPM_RECORDS", self.file().display().to_string()),
            ("DLPM_RECORDS_DRIVER", version.to_owned()),
        ]
    }
}

#[test]
fn records_of_every_layout_are_read_within_bounds() {
    let driver = Driver::build();
    for version in ["575.57.08", "535.54.03"] {
        let output = Command::new(env!("CARGO_BIN_EXE_dlpm-gpu-records"))
            .arg(driver.library())
            .envs(driver.environment(version))
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{version}: {stderr}");
        assert!(output.stdout.ends_with(b" plans\n"));
    }
}

#[test]
fn a_driver_with_larger_records_is_named_and_traced() {
    require_dlpm!();
    let driver = Driver::build();
    // The first of 200 pids is that of a process that there is.
    let sleeper = Sleeper::start();
    fs::write(driver.file(), format!("32 24 16 200 {} 0 0", sleeper.pid())).unwrap();
    let run = |arguments: &[&str]| {
        let command = Dlpm::new(arguments).arg("--nvml-library").arg(driver.library());
        let environment = driver.environment("535.54.03");
        environment
            .iter()
            .fold(command, |command, (name, value)| command.variable(name, value))
    };
    let doctor = run(&["doctor"]).run().exited(0);
    let named = "the NVIDIA driver 535.54.03 writes larger records of processes than its interface says";
    assert!(doctor.stdout.contains(named), "{doctor:?}");
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    run(&["trace"])
        .arg("--output")
        .arg(&log)
        .args(["--duration", "1s"])
        .run()
        .exited(0);
    let log = Log::read(&log);
    let last = &log.samples[log.samples.len() - 1];
    let row = last.rows().iter().find(|row| row["tgid"] == sleeper.pid()).unwrap();
    let usage = row["gpus"].as_object().unwrap().values().next().unwrap();
    assert_eq!(number(&usage["memory_bytes"]), 1 << 20);
}
