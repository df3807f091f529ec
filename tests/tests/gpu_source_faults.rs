//! GPUs, drivers and libraries that are missing, old or sick, as the GPU source sees them.

use std::time::{Duration, Instant};

use dlpm::sources::gpu::{GpuOptions, GpuSelection, Gpus};
use dlpm_fake_nvml::scenario::{Device, Fault, Scenario};
use dlpm_tests::gpu::{FakeNvml, assert_energy, gpu, options, pids, process, start, uuid};

/// NVML_ERROR_GPU_IS_LOST
const GPU_IS_LOST: u32 = 15;

#[test]
fn a_gpu_that_is_lost_comes_back() {
    let lost = Fault {
        from_ms: 500,
        to_ms: Some(1000),
        code: Some(GPU_IS_LOST),
    };
    for unsupported in [vec![], vec!["nvmlDeviceGetTotalEnergyConsumption".to_owned()]] {
        let fake = FakeNvml::of(vec![
            Device {
                faults: vec![lost],
                renews_handles: true,
                unsupported,
                ..gpu(0, 100, vec![process(7, 50)])
            },
            gpu(1, 100, vec![process(7, 50)]),
        ]);
        let (mut gpus, _) = start(&fake);
        fake.wait_until(700);
        let readings = gpus.take();
        let reason = readings[0].energy_uj.as_ref().unwrap_err();
        assert!(reason.contains("fell off the bus"), "{reason}");
        assert_eq!(readings[0].counter_uj, None);
        assert!(readings[0].lists.is_err() && readings[0].sm_time.is_err());
        assert!(readings[1].energy_uj.is_ok());
        fake.wait_until(1200);
        let back = gpus.take();
        assert!(
            back[0].energy_uj.is_err(),
            "without a reading at its beginning: {:?}",
            back[0]
        );
        fake.wait_until(2200);
        let again = gpus.take();
        assert_energy(&fake, &back[0], &again[0]);
        assert_eq!(pids(&again[0]), [7]);
        assert!(again[1].energy_uj.is_ok());
    }
}

#[test]
fn a_gpu_that_hangs_does_not_hold_up_the_others() {
    let hangs = Fault {
        from_ms: 300,
        to_ms: Some(2500),
        code: None,
    };
    let fake = FakeNvml::of(vec![
        Device {
            faults: vec![hangs],
            ..gpu(0, 100, vec![process(7, 50)])
        },
        gpu(1, 100, vec![]),
    ]);
    let mut gpus = Gpus::start(&GpuOptions {
        deadline: Duration::from_millis(400),
        ..options(&fake)
    })
    .unwrap();
    gpus.take();
    fake.wait_until(500);
    let readings = gpus.take();
    let reason = readings[0].energy_uj.as_ref().unwrap_err();
    assert!(reason.contains("has not answered for"), "{reason}");
    assert!(readings[1].energy_uj.is_ok());
    // Once it is known to hang it is not waited for again.
    let before = Instant::now();
    let readings = gpus.take();
    assert!(before.elapsed() < Duration::from_millis(400), "{:?}", before.elapsed());
    assert!(readings[0].energy_uj.is_err() && readings[1].energy_uj.is_ok());
    fake.wait_until(2900);
    let back = gpus.take();
    assert!(
        back[0].energy_uj.as_ref().unwrap_err().contains("answers again"),
        "{:?}",
        back[0]
    );
    fake.wait_until(3900);
    assert_energy(&fake, &back[0], &gpus.take()[0]);
}

#[test]
fn what_hangs_for_ever_does_not_hold_up_the_end() {
    let hangs = Fault {
        from_ms: 300,
        to_ms: None,
        code: None,
    };
    let fake = FakeNvml::of(vec![Device {
        faults: vec![hangs],
        ..gpu(0, 100, vec![])
    }]);
    let mut gpus = Gpus::start(&GpuOptions {
        deadline: Duration::from_millis(100),
        ..options(&fake)
    })
    .unwrap();
    fake.wait_until(400);
    assert!(gpus.take()[0].energy_uj.is_err());
    drop(gpus);

    let fake = FakeNvml::play(Scenario {
        init_hangs: true,
        ..Scenario::default()
    });
    let gpus = Gpus::start(&GpuOptions {
        start_deadline: Duration::from_secs(1),
        ..options(&fake)
    })
    .unwrap();
    assert!(
        gpus.is_empty() && gpus.notes()[0].contains("has not answered for 1 s"),
        "{:?}",
        gpus.notes()
    );
}

#[test]
fn a_counter_that_starts_again_spoils_one_interval() {
    let fake = FakeNvml::of(vec![Device {
        counter_resets_ms: vec![400],
        ..gpu(0, 100, vec![])
    }]);
    let (mut gpus, _) = start(&fake);
    fake.wait_until(600);
    let reset = gpus.take();
    assert!(
        reset[0].energy_uj.as_ref().unwrap_err().contains("reset"),
        "{:?}",
        reset[0]
    );
    fake.wait_until(1600);
    assert_energy(&fake, &reset[0], &gpus.take()[0]);
}

#[test]
fn an_old_library_lists_processes_by_its_older_functions() {
    let names = [
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetMigMode",
    ];
    let devices = || vec![gpu(0, 100, vec![process(7, 50)])];
    let absent = FakeNvml::of(devices()).without_symbols(&names);
    let refused = FakeNvml::play(Scenario {
        missing: names.map(str::to_owned).into(),
        devices: devices(),
        ..Scenario::default()
    });
    for fake in [absent, refused] {
        let (mut gpus, _) = start(&fake);
        fake.wait_until(400);
        let reading = &gpus.take()[0];
        assert_eq!((&reading.lists, &reading.sm_time), (&Ok(()), &Ok(())));
        assert_eq!(pids(reading), [7]);
        assert_eq!(reading.memory_used_bytes, None);
        assert!(!reading.mig);
    }
}

#[test]
fn gpus_are_chosen_by_index_uuid_or_address() {
    let fake = FakeNvml::of((0..3).map(|index| gpu(index, 100, vec![])).collect());
    let chosen = |names: &[&str]| {
        Gpus::start(&GpuOptions {
            selection: GpuSelection::Named(names.iter().map(|name| (*name).to_owned()).collect()),
            ..options(&fake)
        })
        .map(|mut gpus| gpus.take().iter().map(|reading| reading.index).collect::<Vec<_>>())
        .map_err(|error| error.to_string())
    };
    assert_eq!(chosen(&["2"]), Ok(vec![2]));
    assert_eq!(chosen(&[&uuid(1).to_lowercase(), "0"]), Ok(vec![0, 1]));
    assert_eq!(chosen(&["0000:61:00.0", "1"]), Ok(vec![1]));
    for name in ["3", "GPU-0", "61", ":"] {
        let message = chosen(&["0", name]).unwrap_err();
        assert!(
            message.starts_with(&format!("there is no GPU {name}: there are 0 GPU-")),
            "{message}"
        );
        assert!(message.contains(&uuid(2)), "{message}");
    }
    assert!(
        Gpus::start(&GpuOptions {
            selection: GpuSelection::None,
            ..options(&fake)
        })
        .unwrap()
        .is_empty()
    );
}

#[test]
fn no_library_or_driver_is_a_note_and_an_error_only_where_a_gpu_is_named() {
    let no_driver = FakeNvml::play(Scenario {
        init_error: Some(9),
        ..Scenario::default()
    });
    let gpus = Gpus::start(&options(&no_driver)).unwrap();
    assert_eq!(
        gpus.notes(),
        ["no NVIDIA GPU is measured: the NVIDIA driver is not loaded"]
    );
    let named = GpuOptions {
        selection: GpuSelection::Named(vec!["0".to_owned()]),
        ..options(&no_driver)
    };
    let message = Gpus::start(&named).err().unwrap().to_string();
    assert!(
        message.contains("the GPU 0 cannot be measured: the NVIDIA driver is not loaded"),
        "{message}"
    );

    let none = FakeNvml::of(vec![]);
    assert_eq!(
        Gpus::start(&options(&none)).unwrap().notes(),
        ["no NVIDIA GPU is measured: the driver shows none"]
    );

    let not_there = GpuOptions {
        library: Some(none.library().with_file_name("other.so")),
        ..options(&none)
    };
    let message = Gpus::start(&not_there).err().unwrap().to_string();
    assert!(message.contains("other.so cannot be loaded"), "{message}");

    let broken = FakeNvml::of(vec![
        Device {
            faults: vec![Fault {
                from_ms: 0,
                to_ms: None,
                code: Some(GPU_IS_LOST),
            }],
            ..gpu(0, 100, vec![])
        },
        gpu(1, 100, vec![]),
    ]);
    let mut gpus = Gpus::start(&options(&broken)).unwrap();
    assert!(
        gpus.notes()[0].starts_with("GPU 0 is not measured: "),
        "{:?}",
        gpus.notes()
    );
    assert_eq!(gpus.take().iter().map(|reading| reading.index).collect::<Vec<_>>(), [1]);
}
