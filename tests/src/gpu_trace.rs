//! Traces of GPUs that the fake NVML plays, through the whole program.

use std::{
    path::Path,
    process::{Child, Command},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    command::{Dlpm, Output, Running},
    gpu::{FakeNvml, uuid},
    log::{LOG_NAME, Log, Sample, number},
};

/// A process that does nothing on the CPUs, killed when this is dropped.
pub struct Sleeper(Child);

impl Sleeper {
    /// Starts one.
    pub fn start() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    /// Starts several.
    pub fn many(count: usize) -> Vec<Self> {
        (0..count).map(|_| Self::start()).collect()
    }

    /// Ends it now.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A trace of a fake, proved.
pub struct Traced {
    /// Its log.
    pub log: Log,
    output: Output,
    /// Where the log is, in the folder `log`.
    pub folder: TempDir,
}

/// Traces for `ms` in intervals of 250 ms.
#[track_caller]
pub fn trace(fake: &FakeNvml, ms: u64, arguments: &[&str]) -> Traced {
    trace_in("250ms", fake, ms, arguments)
}

/// Traces for `ms` in intervals of this length, and lets `dlpm verify` prove the log.
#[track_caller]
pub fn trace_in(interval: &str, fake: &FakeNvml, ms: u64, arguments: &[&str]) -> Traced {
    let folder = tempfile::tempdir().unwrap();
    let output = Dlpm::new(["trace", "--interval", interval, "--nvml-library"])
        .arg(fake.library())
        .args(["--duration", &format!("{ms}ms"), "--output"])
        .arg(folder.path().join("log"))
        .args(arguments)
        .run()
        .exited(0);
    let log = folder.path().join("log");
    Dlpm::new(["verify"]).arg(&log).run().exited(0);
    Traced {
        log: Log::read(&log),
        output,
        folder,
    }
}

/// Traces in intervals of 250 ms for as long as `meanwhile` takes, which has the folder of the log, and lets `dlpm verify`
/// prove the log.
#[track_caller]
pub fn trace_while(fake: &FakeNvml, meanwhile: impl FnOnce(&mut Running, &Path)) -> Traced {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut running = Dlpm::new(["trace", "--interval", "250ms", "--nvml-library"])
        .arg(fake.library())
        .arg("--output")
        .arg(&log)
        .start();
    meanwhile(&mut running, &log);
    let output = running.end_with(libc::SIGINT).exited(0);
    Dlpm::new(["verify"]).arg(&log).run().exited(0);
    Traced {
        log: Log::read(&log),
        output,
        folder,
    }
}

/// Waits for the end of `count` more intervals.
#[track_caller]
pub fn wait_for_intervals(running: &mut Running, log: &Path, count: usize) {
    let text = std::fs::read_to_string(log.join(LOG_NAME)).unwrap_or_default();
    running.wait_for_lines(log, text.lines().count() + count);
}

/// The zone of the GPU with this index.
pub fn zone_name(index: usize) -> String {
    uuid(index).replace("GPU-", "gpu-")
}

impl Traced {
    /// The intervals in which the energy of a GPU is known, but for the first: a machine that is busy starts slowly.
    pub fn known(&self, index: usize) -> Vec<(&Sample, &Value)> {
        let zones = self.log.samples.iter().skip(1);
        zones
            .map(|sample| (sample, sample.zone(&zone_name(index)).unwrap()))
            .filter(|(_, zone)| zone["state"] == "ok")
            .collect()
    }

    /// The energy of a GPU in a trace in which it is always known, against its scenario: it is read some ms before or
    /// after the moment that is noted, of some seconds.
    #[track_caller]
    pub fn assert_energy(&self, fake: &FakeNvml, index: usize) {
        let read_at_ns = |sample: &Sample| {
            let late_ns = sample.exact["gpus"][index]["read_late_ns"].as_i64().unwrap();
            sample.end_ns().checked_add_signed(late_ns).unwrap()
        };
        let samples = &self.log.samples;
        let known = self.known(index);
        assert_eq!(known.len() + 1, samples.len());
        let measured_uj: u64 = known.iter().map(|(_, zone)| number(&zone["energy_uj"])).sum();
        let (first, last) = (&samples[0], &samples[samples.len() - 1]);
        let expected_uj = fake.energy_uj(index, read_at_ns(first), read_at_ns(last));
        let ratio = measured_uj as f64 / expected_uj as f64;
        assert!((0.95..1.05).contains(&ratio), "{measured_uj} of {expected_uj} µJ");
    }

    /// The method of a GPU in each interval in which its energy is known.
    #[track_caller]
    pub fn assert_method(&self, index: usize, method: &str) {
        let known = self.known(index);
        assert!(known.len() >= 4, "{} intervals", known.len());
        for (sample, zone) in known {
            assert_eq!(zone["method"], method, "interval {}", sample.seq());
        }
    }

    /// What dlpm said.
    pub fn message(&self) -> &str {
        &self.output.stderr
    }
}

/// What a row got of a GPU.
pub fn row_uj(sample: &Sample, wanted: impl Fn(&Value) -> bool, index: usize) -> u64 {
    let rows = sample.rows().iter().filter(|row| wanted(row));
    rows.filter_map(|row| row["energy_uj"][zone_name(index)].as_u64()).sum()
}

/// Rows of a process.
pub fn of_pid(pid: u32) -> impl Fn(&Value) -> bool {
    move |row| row["tgid"] == pid
}

/// Rows of a kind.
pub fn of_kind(kind: &str) -> impl Fn(&Value) -> bool {
    move |row| row["row"] == kind
}
