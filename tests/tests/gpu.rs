//! GPUs that the fake NVML plays, through the whole program. `Log::read` checks the laws, and `dlpm verify` splits every
//! line again.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    process::{Child, Command},
};

use dlpm_fake_nvml::scenario::{Device, Fault, Instance, PowerPoint, Process, Scenario};
use dlpm_tests::{
    command::{Dlpm, Output},
    gpu::{FakeNvml, gpu, process, uuid},
    log::{Log, Sample, number},
    require_dlpm,
};
use serde_json::Value;
use tempfile::TempDir;

/// NVML_ERROR_GPU_IS_LOST
const GPU_IS_LOST: u32 = 15;

/// A process that does nothing on the CPUs, killed when this is dropped.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn many(count: usize) -> Vec<Self> {
        (0..count).map(|_| Self::start()).collect()
    }

    fn pid(&self) -> u32 {
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
struct Traced {
    log: Log,
    output: Output,
    folder: TempDir,
}

/// Traces for `ms` in intervals of 250 ms.
#[track_caller]
fn trace(fake: &FakeNvml, ms: u64, arguments: &[&str]) -> Traced {
    trace_in("250ms", fake, ms, arguments)
}

#[track_caller]
fn trace_in(interval: &str, fake: &FakeNvml, ms: u64, arguments: &[&str]) -> Traced {
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

fn zone_name(index: usize) -> String {
    uuid(index).replace("GPU-", "gpu-")
}

impl Traced {
    /// The intervals in which the energy of a GPU is known, but for the first: a machine that is busy starts slowly.
    fn known(&self, index: usize) -> Vec<(&Sample, &Value)> {
        let zones = self.log.samples.iter().skip(1);
        zones
            .map(|sample| (sample, sample.zone(&zone_name(index)).unwrap()))
            .filter(|(_, zone)| zone["state"] == "ok")
            .collect()
    }

    /// The energy of a GPU in a trace in which it is always known, against its scenario: it is read some ms before or
    /// after the moment that is noted, of some seconds.
    #[track_caller]
    fn assert_energy(&self, fake: &FakeNvml, index: usize) {
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
    fn assert_method(&self, index: usize, method: &str) {
        let known = self.known(index);
        assert!(known.len() >= 4, "{} intervals", known.len());
        for (sample, zone) in known {
            assert_eq!(zone["method"], method, "interval {}", sample.seq());
        }
    }

    fn message(&self) -> &str {
        &self.output.stderr
    }
}

/// What a row got of a GPU.
fn row_uj(sample: &Sample, wanted: impl Fn(&Value) -> bool, index: usize) -> u64 {
    let rows = sample.rows().iter().filter(|row| wanted(row));
    rows.filter_map(|row| row["energy_uj"][zone_name(index)].as_u64()).sum()
}

fn of_pid(pid: u32) -> impl Fn(&Value) -> bool {
    move |row| row["tgid"] == pid
}

fn of_kind(kind: &str) -> impl Fn(&Value) -> bool {
    move |row| row["row"] == kind
}

#[test]
fn one_process_gets_all() {
    require_dlpm!();
    let sleeper = Sleeper::start();
    let fake = FakeNvml::of(vec![Device {
        power: [(0, 100_000), (1500, 400_000), (3000, 100_000)]
            .map(|(at_ms, mw)| PowerPoint { at_ms, mw })
            .into(),
        ..gpu(0, 0, vec![process(sleeper.pid(), 40)])
    }]);
    let traced = trace(&fake, 2500, &[]);
    traced.assert_energy(&fake, 0);
    traced.assert_method(0, "sole_process");
    for (sample, zone) in traced.known(0) {
        assert_eq!(row_uj(sample, of_pid(sleeper.pid()), 0), number(&zone["energy_uj"]));
        let gpu = &sample.gpu;
        let pid = sleeper.pid().to_string();
        assert_eq!(gpu["memory"]["0"][&pid], u64::from(sleeper.pid()) << 20);
        assert!(gpu["sm"]["0"][&pid].as_f64().unwrap() <= 100.0);
        assert_eq!(
            gpu["nvidia_draw_absolute"],
            gpu["nvidia_estimated_attributable_power_draw"]
        );
    }
    // A sampling period at each end of more than a second.
    let sm: Vec<f64> = traced
        .known(0)
        .iter()
        .map(|(sample, _)| sample.gpu["sm"]["0"][sleeper.pid().to_string()].as_f64().unwrap())
        .collect();
    let mean = sm.iter().sum::<f64>() / sm.len() as f64;
    assert!((30.0..50.0).contains(&mean), "{sm:?}");
}

#[test]
fn two_processes_share_by_their_sm_time() {
    require_dlpm!();
    let sleepers = Sleeper::many(2);
    let processes = vec![process(sleepers[0].pid(), 63), process(sleepers[1].pid(), 27)];
    let fake = FakeNvml::of(vec![gpu(0, 300, processes)]);
    let traced = trace(&fake, 2500, &[]);
    traced.assert_energy(&fake, 0);
    traced.assert_method(0, "sm");
    for (sample, zone) in traced.known(0) {
        let whole_uj = number(&zone["energy_uj"]);
        let more_uj = row_uj(sample, of_pid(sleepers[0].pid()), 0);
        let less_uj = row_uj(sample, of_pid(sleepers[1].pid()), 0);
        assert_eq!(more_uj + less_uj, whole_uj);
        // Both have a sample at every moment: 70 to 30, to the µJ.
        assert!((more_uj * 10).abs_diff(whole_uj * 7) <= 10, "{more_uj} of {whole_uj}");
    }
}

#[test]
fn figures_of_gpus_that_do_not_hold_are_seen() {
    require_dlpm!();
    let sleepers = Sleeper::many(2);
    let processes = sleepers.iter().map(|sleeper| process(sleeper.pid(), 40)).collect();
    let fake = FakeNvml::of(vec![gpu(0, 300, processes), gpu(1, 50, vec![])]);
    let traced = trace(&fake, 1500, &[]);
    let log = traced.folder.path().join("log/power_metrics.json");
    let text = fs::read_to_string(&log).unwrap();
    for (is, becomes, says) in [
        ("\"method\":\"sm\"", "\"method\":\"sole_process\"", "method of gpu-"),
        (
            "\"method\":\"no_process\"",
            "\"method\":\"not_split\"",
            "method of gpu-",
        ),
        ("\"sm_percent_us\":", "\"sm_percent_us\":1", "split again"),
        (
            "\"nvidia_draw_absolute\":",
            "\"nvidia_draw_absolute\":1",
            "nvidia_draw_absolute",
        ),
        (
            "\"nvidia_power\":",
            "\"nvidia_powers\":",
            "metrics.gpu has no number nvidia_power",
        ),
        (
            "\"source\":\"nvml_energy\"",
            "\"source\":\"powercap\"",
            "source of gpu-",
        ),
    ] {
        let at = text.rfind(is).unwrap();
        let tampered = format!("{}{becomes}{}", &text[..at], &text[at + is.len()..]);
        fs::write(&log, tampered).unwrap();
        let output = Dlpm::new(["verify"]).arg(&log).run().exited(1);
        assert!(
            output.stdout.contains(says) || output.stderr.contains(says),
            "{says}: {output:?}"
        );
    }
}

#[test]
fn a_process_that_ends_keeps_its_share() {
    require_dlpm!();
    let stays = Sleeper::start();
    let mut ends = Sleeper::start();
    let short = Process {
        to_ms: Some(1900),
        ..process(ends.pid(), 80)
    };
    let fake = FakeNvml::of(vec![gpu(0, 200, vec![short, process(stays.pid(), 20)])]);
    let traced = std::thread::scope(|scope| {
        let traced = scope.spawn(|| trace_in("1s", &fake, 3500, &[]));
        fake.wait_until(1900);
        ends.0.kill().unwrap();
        ends.0.wait().unwrap();
        traced.join().unwrap()
    });
    let gpu_time = |sample: &Sample| {
        let row = sample.rows().iter().find(|row| row["tgid"] == ends.pid())?.clone();
        row["gpus"][zone_name(0)]["sm_percent_us"].as_u64()
    };
    let used: Vec<&Sample> = traced
        .log
        .samples
        .iter()
        .filter(|sample| gpu_time(sample) > Some(0))
        .collect();
    let last = used[used.len() - 1];
    // It was gone when the interval ended, and has its share all the same.
    let row = last.rows().iter().find(|row| row["tgid"] == ends.pid()).unwrap();
    assert_eq!(row["comm"], "sleep");
    assert!(row["gpus"][zone_name(0)].get("memory_bytes").is_none(), "{row}");
    assert!(row_uj(last, of_pid(ends.pid()), 0) > 0);
    let after = traced.log.samples.iter().filter(|sample| sample.seq() > last.seq());
    for sample in after {
        let zone = sample.zone(&zone_name(0)).unwrap();
        assert_eq!((&zone["method"], gpu_time(sample)), (&"sole_process".into(), None));
    }
}

#[test]
fn a_gpu_that_nobody_uses_is_idle() {
    require_dlpm!();
    let fake = FakeNvml::of(vec![gpu(0, 60, vec![])]);
    let traced = trace(&fake, 2000, &[]);
    traced.assert_energy(&fake, 0);
    traced.assert_method(0, "no_process");
    for (sample, zone) in traced.known(0) {
        assert_eq!(row_uj(sample, of_kind("idle"), 0), number(&zone["energy_uj"]));
    }
}

#[test]
fn without_a_counter_energy_is_the_integral_of_power() {
    require_dlpm!();
    let sleeper = Sleeper::start();
    let fake = FakeNvml::of(vec![Device {
        power: [(0, 100_000), (2000, 400_000), (4000, 100_000)]
            .map(|(at_ms, mw)| PowerPoint { at_ms, mw })
            .into(),
        unsupported: vec!["nvmlDeviceGetTotalEnergyConsumption".into()],
        ..gpu(0, 0, vec![process(sleeper.pid(), 40)])
    }]);
    let traced = trace(&fake, 3000, &[]);
    traced.assert_energy(&fake, 0);
    for (_, zone) in traced.known(0) {
        assert_eq!(zone["source"], "nvml_power");
        assert!(zone.get("counter_uj").is_none());
    }
}

#[test]
fn several_without_utilisation_are_not_split_by_memory() {
    require_dlpm!();
    let sleepers = Sleeper::many(2);
    let fake = FakeNvml::of(vec![Device {
        unsupported: vec!["nvmlDeviceGetProcessUtilization".into()],
        ..gpu(
            0,
            100,
            sleepers.iter().map(|sleeper| process(sleeper.pid(), 40)).collect(),
        )
    }]);
    let traced = trace(&fake, 2000, &[]);
    traced.assert_method(0, "not_split");
    for (sample, zone) in traced.known(0) {
        assert_eq!(row_uj(sample, of_kind("unattributed"), 0), number(&zone["energy_uj"]));
    }
}

#[test]
fn processes_of_a_divided_gpu_are_listed_and_not_split() {
    require_dlpm!();
    let sleepers = Sleeper::many(3);
    let on = |sleeper: usize, instance| Process {
        instance: Some(instance),
        ..process(sleepers[sleeper].pid(), 40)
    };
    let instances = |device: &str| {
        Some(
            (0..2)
                .map(|number| Instance {
                    uuid: format!("MIG-{device}{number}"),
                })
                .collect(),
        )
    };
    let fake = FakeNvml::of(vec![
        Device {
            mig: instances("a"),
            ..gpu(0, 100, vec![on(0, 0), on(1, 1)])
        },
        Device {
            mig: instances("b"),
            ..gpu(1, 100, vec![on(2, 1)])
        },
    ]);
    let traced = trace(&fake, 2000, &[]);
    traced.assert_energy(&fake, 0);
    traced.assert_method(0, "not_split");
    traced.assert_method(1, "sole_process");
    for (sample, zone) in traced.known(0) {
        assert_eq!(row_uj(sample, of_kind("unattributed"), 0), number(&zone["energy_uj"]));
        for (sleeper, index, instance) in [(0, 0, "MIG-a0"), (1, 0, "MIG-a1"), (2, 1, "MIG-b1")] {
            let pid = sleepers[sleeper].pid();
            let row = sample.rows().iter().find(|row| row["tgid"] == pid).unwrap();
            let usage = &row["gpus"][zone_name(index)];
            assert_eq!(usage["instances"], serde_json::json!([instance]));
            assert_eq!(usage["memory_bytes"], u64::from(pid) << 20);
        }
    }
}

/// A GPU that fails for a while beside one that does not.
fn failing(code: Option<u32>) -> FakeNvml {
    FakeNvml::of(vec![
        Device {
            faults: vec![Fault {
                from_ms: 2500,
                to_ms: Some(4000),
                code,
            }],
            renews_handles: code.is_some(),
            ..gpu(0, 100, vec![])
        },
        gpu(1, 50, vec![]),
    ])
}

#[track_caller]
fn assert_away_and_back(traced: &Traced) {
    let states: Vec<bool> = traced
        .log
        .samples
        .iter()
        .map(|sample| sample.zone(&zone_name(0)).unwrap()["state"] == "ok")
        .collect();
    let changes = states.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(
        (states[0], states[states.len() - 1], changes),
        (true, true, 2),
        "{states:?}"
    );
    assert_eq!(
        traced.known(1).len() + 1,
        traced.log.samples.len(),
        "the other GPU was always there"
    );
    for sample in &traced.log.samples {
        let power = sample.gpu["per_gpu_nvidia_power"].as_object().unwrap();
        let known = sample.zone(&zone_name(0)).unwrap()["state"] == "ok";
        assert_eq!((power.contains_key("0"), power.contains_key("1")), (known, true));
    }
    let text = fs::read_to_string(traced.folder.path().join("log/power_metrics.json")).unwrap();
    assert_eq!(text.matches("zones_changed").count(), 2);
    assert!(
        traced.message().contains("GPU 0 (Fake GPU 0) is measured again"),
        "{}",
        traced.message()
    );
}

#[test]
fn a_gpu_that_is_lost_comes_back() {
    require_dlpm!();
    let traced = trace(&failing(Some(GPU_IS_LOST)), 6000, &[]);
    assert_away_and_back(&traced);
    assert!(traced.message().contains("fell off the bus"), "{}", traced.message());
}

#[test]
fn a_call_that_hangs_holds_up_nothing() {
    require_dlpm!();
    let traced = trace(&failing(None), 6000, &[]);
    assert_away_and_back(&traced);
    assert!(traced.message().contains("has not answered"), "{}", traced.message());
    // One interval waits for the GPU, and no other.
    let long = traced
        .log
        .samples
        .iter()
        .filter(|sample| sample.end_ns() - sample.begin_ns() > 1_000_000_000);
    assert!(long.count() <= 1);
}

#[test]
fn eight_gpus_with_sixty_four_processes() {
    require_dlpm!();
    let sleepers = Sleeper::many(64);
    let devices = (0..8).map(|index| {
        let here = sleepers[index * 8..][..8].iter();
        gpu(index, 300, here.map(|sleeper| process(sleeper.pid(), 12)).collect())
    });
    let fake = FakeNvml::of(devices.collect());
    let traced = trace(&fake, 2500, &[]);
    for index in 0..8 {
        traced.assert_energy(&fake, index);
        traced.assert_method(index, "sm");
        for (sample, zone) in traced.known(index) {
            let whole_uj = number(&zone["energy_uj"]);
            for sleeper in &sleepers[index * 8..][..8] {
                let uj = row_uj(sample, of_pid(sleeper.pid()), index);
                assert!((uj * 8).abs_diff(whole_uj) <= 8, "{uj} of {whole_uj}");
            }
        }
    }
}

#[test]
fn a_filter_leaves_its_gpu_time_to_the_others() {
    require_dlpm!();
    let sleepers = Sleeper::many(2);
    let pid = sleepers[0].pid().to_string();
    let processes = sleepers.iter().map(|sleeper| process(sleeper.pid(), 40)).collect();
    let fake = FakeNvml::of(vec![gpu(0, 100, processes)]);
    let traced = trace(&fake, 2000, &["--pid", &pid]);
    for (sample, zone) in traced.known(0) {
        let whole_uj = number(&zone["energy_uj"]);
        let listed_uj = row_uj(sample, of_pid(sleepers[0].pid()), 0);
        assert_eq!(listed_uj + row_uj(sample, of_kind("others"), 0), whole_uj);
        assert!((listed_uj * 2).abs_diff(whole_uj) <= 2);
        let gpu = &sample.gpu;
        assert_eq!(gpu["sm"]["0"].as_object().unwrap().keys().collect::<Vec<_>>(), [&pid]);
        let share = gpu["per_gpu_estimated_attributable_utilization"]["0"].as_f64().unwrap();
        assert!((share - 0.5).abs() < 1e-9, "{share}");
    }
}

#[test]
fn capacity_leaves_the_unused_part_of_a_gpu_idle() {
    require_dlpm!();
    let sleeper = Sleeper::start();
    let fake = FakeNvml::of(vec![gpu(0, 100, vec![process(sleeper.pid(), 40)])]);
    let traced = trace(&fake, 4000, &["--idle-policy", "capacity"]);
    traced.assert_method(0, "sm");
    let known = traced.known(0);
    let sum = |of: &dyn Fn(&Sample) -> u64| known.iter().map(|(sample, _)| of(sample)).sum::<u64>() as f64;
    let used = sum(&|sample| row_uj(sample, of_pid(sleeper.pid()), 0));
    let idle = sum(&|sample| row_uj(sample, of_kind("idle"), 0));
    // Of more than 3 s, a sampling period of 100 ms at each end may be counted in another interval.
    let share = used / (used + idle);
    assert!((0.35..0.45).contains(&share), "{share}");
}

#[test]
fn an_idle_floor_of_a_gpu_is_measured_and_kept_apart() {
    require_dlpm!();
    let sleeper = Sleeper::start();
    let folder = tempfile::tempdir().unwrap();
    let floor = folder.path().join("floor.json");
    let floor = floor.to_str().unwrap();
    let calibrate = |fake: &FakeNvml, max_busy: &str| {
        Dlpm::new([
            "calibrate",
            "--duration",
            "2s",
            "--max-busy",
            max_busy,
            "--output",
            floor,
        ])
        .arg("--nvml-library")
        .arg(fake.library())
        .run()
    };
    let quiet = FakeNvml::of(vec![gpu(0, 50, vec![])]);
    let busy = FakeNvml::of(vec![gpu(0, 50, vec![process(sleeper.pid(), 90), process(1, 90)])]);
    calibrate(&busy, "100")
        .exited(1)
        .says(&["GPU 0 (Fake GPU 0) is not quiet"]);
    calibrate(&quiet, "100").exited(0);
    let file: Value = serde_json::from_str(&fs::read_to_string(floor).unwrap()).unwrap();
    let floor_mw = file["floors_mw"][zone_name(0)].as_f64().unwrap();
    // The GPU is read some ms before or after the time that is noted.
    assert!((floor_mw / 50_000.0 - 1.0).abs() < 0.1, "{floor_mw}");

    let used = FakeNvml::of(vec![gpu(0, 200, vec![process(sleeper.pid(), 30)])]);
    let traced = trace(&used, 2000, &["--idle-policy", "separate", "--calibration", floor]);
    for (sample, zone) in traced.known(0) {
        let length_ns = sample.end_ns() - sample.begin_ns();
        let idle_uj = row_uj(sample, of_kind("idle"), 0);
        assert_eq!(idle_uj, (floor_mw as u64) * length_ns / 1_000_000);
        let whole_uj = number(&zone["energy_uj"]);
        assert_eq!(row_uj(sample, of_pid(sleeper.pid()), 0), whole_uj - idle_uj);
    }
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_only_where_it_is_named() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeNvml::of(vec![gpu(0, 100, vec![])]);
    let run = |fake: &FakeNvml, name: &str, arguments: &[&str]| {
        Dlpm::trace(&folder.path().join(name))
            .args(["--duration", "300ms", "--nvml-library"])
            .arg(fake.library())
            .args(arguments)
            .run()
    };
    let missing = run(&fake, "named", &["--gpu", "0,7"]);
    missing.fails(1, &["there is no GPU 7: there are 0 GPU-", &uuid(0), "0000:60:00.0"]);
    assert!(!folder.path().join("named").exists());
    let no_driver = FakeNvml::play(Scenario {
        init_error: Some(9),
        ..Scenario::default()
    });
    run(&no_driver, "driver", &["--gpu", "0"]).fails(1, &["the NVIDIA driver is not loaded"]);
    run(&no_driver, "all", &[])
        .exited(0)
        .says(&["note: no NVIDIA GPU is measured: the NVIDIA driver is not loaded"]);
    run(&fake, "none", &["--gpu", "none"]).exited(0);
    for name in ["all", "none"] {
        for sample in Log::read(&folder.path().join(name)).samples {
            assert!(sample.gpu.is_null() && sample.exact.get("gpus").is_none());
        }
    }
}
