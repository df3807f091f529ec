//! GPUs that fail, options that concern GPUs, and a log of theirs that was changed, through the whole program.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::fs;

use dlpm_fake_nvml::scenario::{Device, Fault, Scenario};
use dlpm_tests::{
    command::Dlpm,
    gpu::{FakeNvml, gpu, process, uuid},
    gpu_trace::{Sleeper, Traced, of_kind, of_pid, row_uj, trace, zone_name},
    log::{Log, Sample, number},
    require_dlpm,
};
use serde_json::Value;

/// NVML_ERROR_GPU_IS_LOST
const GPU_IS_LOST: u32 = 15;

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
    let floor_mw = number(&file["floors_mw"][zone_name(0)]);
    // The GPU is read some ms before or after the time that is noted.
    assert!((45_000..55_000).contains(&floor_mw), "{floor_mw}");

    let used = FakeNvml::of(vec![gpu(0, 200, vec![process(sleeper.pid(), 30)])]);
    let traced = trace(&used, 2000, &["--idle-policy", "separate", "--calibration", floor]);
    for (sample, zone) in traced.known(0) {
        let length_ns = sample.end_ns() - sample.begin_ns();
        let idle_uj = row_uj(sample, of_kind("idle"), 0);
        assert_eq!(idle_uj, floor_mw * length_ns / 1_000_000);
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
