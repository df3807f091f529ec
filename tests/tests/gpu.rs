//! Who gets the energy of GPUs that the fake NVML plays, through the whole program. `Log::read` checks the laws, and
//! `dlpm verify` splits every line again.

use dlpm_fake_nvml::scenario::{Device, Instance, PowerPoint, Process};
use dlpm_tests::{
    gpu::{FakeNvml, gpu, process},
    gpu_trace::{Sleeper, of_kind, of_pid, row_uj, trace, trace_in, zone_name},
    log::{Sample, number},
    require_dlpm,
};

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
fn a_process_that_ends_keeps_its_share() {
    require_dlpm!();
    let stays = Sleeper::start();
    let mut ends = Sleeper::start();
    let short = Process {
        to_ms: Some(4900),
        ..process(ends.pid(), 80)
    };
    let fake = FakeNvml::of(vec![gpu(0, 200, vec![short, process(stays.pid(), 20)])]);
    let traced = std::thread::scope(|scope| {
        let traced = scope.spawn(|| trace_in("1s", &fake, 6500, &[]));
        fake.wait_until(4900);
        ends.kill();
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
