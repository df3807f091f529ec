//! GPUs that fail, options that concern GPUs, and a log of theirs that was changed, through the whole program.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::fs;

use dlpm_fake_nvml::scenario::{Device, Scenario};
use dlpm_tests::{
    command::Dlpm,
    gpu::{FakeNvml, gpu, process, uuid},
    gpu_trace::{Sleeper, Traced, of_kind, of_pid, row_uj, trace, trace_while, wait_for_intervals, zone_name},
    log::{Log, number},
    require_dlpm,
};
use serde_json::Value;

/// NVML_ERROR_GPU_IS_LOST
const GPU_IS_LOST: u32 = 15;

/// NVML_ERROR_NOT_SUPPORTED
const NOT_SUPPORTED: u32 = 3;

/// The function that reads the energy counter.
const COUNTER: &str = "nvmlDeviceGetTotalEnergyConsumption";

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
        (
            "\"source\":\"nvml_energy\"",
            "\"source\":\"nvml_power\"",
            "stands beside the integral of power",
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

/// Traces a GPU that fails for a while, beside one that does not.
fn failing(code: Option<u32>, says: &str) -> Traced {
    let fake = FakeNvml::of(vec![
        Device {
            renews_handles: code.is_some(),
            ..gpu(0, 100, vec![])
        },
        gpu(1, 50, vec![]),
    ]);
    trace_while(&fake, |dlpm, log| {
        wait_for_intervals(dlpm, log, 4);
        fake.break_down(0, code);
        dlpm.wait_for_message(says);
        // Nothing else waits for it.
        wait_for_intervals(dlpm, log, 4);
        fake.repair(0);
        dlpm.wait_for_message("GPU 0 (Fake GPU 0) is measured again");
        wait_for_intervals(dlpm, log, 2);
    })
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
    assert_away_and_back(&failing(Some(GPU_IS_LOST), "fell off the bus"));
}

#[test]
fn a_call_that_hangs_holds_up_nothing() {
    require_dlpm!();
    assert_away_and_back(&failing(None, "has not answered"));
}

/// Intervals of a trace as the log has them: energy of the first GPU in mJ, if known, and its source. On a busy machine
/// one reading can end several intervals, and all but the first of those have no energy: they are left out.
fn energy_and_source(traced: &Traced) -> Vec<(Option<u64>, String)> {
    let mut last_read_ns = None;
    let mut intervals = Vec::new();
    for sample in &traced.log.samples {
        let late_ns = sample.exact["gpus"][0]["read_late_ns"].as_i64();
        let read_ns = late_ns.and_then(|late_ns| sample.end_ns().checked_add_signed(late_ns));
        if read_ns.is_none() || read_ns != last_read_ns {
            let zone = sample.zone(&zone_name(0)).unwrap();
            let mj = zone["energy_uj"].as_u64().map(|uj| uj / 1000);
            intervals.push((mj, zone["source"].as_str().unwrap().to_owned()));
        }
        last_read_ns = read_ns;
    }
    intervals
}

#[test]
fn a_counter_that_does_not_count_gives_way_to_power() {
    require_dlpm!();
    for counter_mj in [0, 123_456_789, u64::MAX] {
        let fake = FakeNvml::of(vec![gpu(0, 250, vec![])]);
        fake.control(0, |control| control.counter_mj = Some(counter_mj));
        let says = if counter_mj == u64::MAX {
            "reads 18446744073709551615 mJ"
        } else {
            "has not moved for"
        };
        let traced = trace_while(&fake, |dlpm, log| {
            dlpm.wait_for_message("its power is integrated instead");
            wait_for_intervals(dlpm, log, 4);
        });
        assert!(traced.message().contains(says), "{}", traced.message());
        let intervals = energy_and_source(&traced);
        let (_, last) = &intervals[intervals.len() - 1];
        assert_eq!(last, "nvml_power");
        // It is known or not, and never 0.
        assert!(intervals.iter().all(|(mj, _)| *mj != Some(0)), "{intervals:?}");
        assert!(intervals.iter().any(|(mj, _)| mj.is_some()), "{intervals:?}");
        let doctor = Dlpm::new(["doctor", "--nvml-library"]).arg(fake.library()).run();
        assert!(
            doctor.stdout.contains(says) && doctor.stdout.contains("its power is integrated"),
            "{doctor:?}"
        );
    }
}

#[test]
fn a_counter_that_stops_or_fails_within_a_trace_gives_way_to_power() {
    require_dlpm!();
    let fake = FakeNvml::of(vec![gpu(0, 250, vec![])]);
    let traced = trace_while(&fake, |dlpm, log| {
        wait_for_intervals(dlpm, log, 4);
        fake.control(0, |control| control.failing = vec![(COUNTER.to_owned(), NOT_SUPPORTED)]);
        wait_for_intervals(dlpm, log, 4);
        fake.control(0, |control| control.failing.clear());
        wait_for_intervals(dlpm, log, 4);
        fake.control(0, |control| control.counter_mj = Some(987_654_321));
        dlpm.wait_for_message("has not moved for");
        dlpm.wait_for_message("its power is integrated instead");
        wait_for_intervals(dlpm, log, 2);
    });
    let intervals = energy_and_source(&traced);
    let mut sources: Vec<&str> = intervals.iter().map(|(_, source)| source.as_str()).collect();
    sources.dedup();
    assert_eq!(
        sources,
        ["nvml_energy", "nvml_power", "nvml_energy", "nvml_power"],
        "{intervals:?}"
    );
    assert!(intervals.iter().all(|(mj, _)| *mj != Some(0)), "{intervals:?}");
}

#[test]
fn power_above_the_limit_of_its_board_is_not_believed() {
    require_dlpm!();
    let fake = FakeNvml::of(vec![Device {
        power_limit_mw: Some(300_000),
        unsupported: vec![COUNTER.to_owned()],
        ..gpu(0, 250, vec![])
    }]);
    let traced = trace_while(&fake, |dlpm, log| {
        wait_for_intervals(dlpm, log, 3);
        fake.control(0, |control| control.power_mw = Some(593_000));
        dlpm.wait_for_message("its power reads 593 W, and its board draws at most 300 W");
        wait_for_intervals(dlpm, log, 2);
        fake.control(0, |control| control.power_mw = None);
        dlpm.wait_for_message("GPU 0 (Fake GPU 0) is measured again");
    });
    for sample in &traced.log.samples {
        let power = sample.exact["gpus"][0]["power_mw"].as_u64();
        assert!(power.is_none_or(|mw| mw == 250_000), "{power:?}");
        let length_ns = sample.end_ns() - sample.begin_ns();
        let known = sample.zone(&zone_name(0)).unwrap()["energy_uj"].as_u64();
        // By its scenario and some, since a GPU is not read at the very end of an interval.
        assert!(
            known.is_none_or(|uj| uj < (length_ns + 1_000_000_000) / 1000 * 300),
            "{known:?}"
        );
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
    let mut idle_uj = 0;
    for (sample, zone) in traced.known(0) {
        let whole_uj = number(&zone["energy_uj"]);
        let row = sample.rows().iter().find(|row| row["tgid"] == sleeper.pid()).unwrap();
        let used = row["gpus"][zone_name(0)]["sm_percent_us"].as_u64().unwrap_or(0);
        // 100 % over the interval, of which more can have been used where samples of another interval are counted here.
        let capacity = ((sample.end_ns() - sample.begin_ns()) / 10).max(used);
        let expected_uj = u128::from(whole_uj) * u128::from(used) / u128::from(capacity);
        let used_uj = row_uj(sample, of_pid(sleeper.pid()), 0);
        assert!(
            u128::from(used_uj).abs_diff(expected_uj) <= 1,
            "{used_uj} of {whole_uj}"
        );
        assert_eq!(row_uj(sample, of_kind("idle"), 0), whole_uj - used_uj);
        idle_uj += whole_uj - used_uj;
    }
    assert!(idle_uj > 0);
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
