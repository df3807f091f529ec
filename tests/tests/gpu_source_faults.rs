//! GPUs, drivers and libraries that are missing, old or sick, as the GPU source sees them.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{fs, time::Duration};

use dlpm::sources::gpu::{GpuOptions, GpuSelection, Gpus};
use dlpm_fake_nvml::scenario::{Device, Scenario};
use dlpm_tests::gpu::{FakeNvml, assert_energy, gpu, options, pids, process, start, uuid};
use tempfile::TempDir;

/// NVML_ERROR_GPU_IS_LOST
const GPU_IS_LOST: u32 = 15;

#[test]
fn a_gpu_that_is_lost_comes_back() {
    for unsupported in [vec![], vec!["nvmlDeviceGetTotalEnergyConsumption".to_owned()]] {
        let fake = FakeNvml::of(vec![
            Device {
                renews_handles: true,
                unsupported,
                ..gpu(0, 100, vec![process(7, 50)])
            },
            gpu(1, 100, vec![process(7, 50)]),
        ]);
        let (mut gpus, _) = start(&fake);
        fake.break_down(0, Some(GPU_IS_LOST));
        let readings = gpus.take();
        let reason = readings[0].energy_uj.as_ref().unwrap_err();
        assert!(reason.contains("fell off the bus"), "{reason}");
        assert_eq!(readings[0].counter_uj, None);
        assert!(readings[0].lists.is_err() && readings[0].sm_time.is_err());
        assert!(readings[1].energy_uj.is_ok());
        fake.repair(0);
        let back = gpus.take();
        assert!(
            back[0].energy_uj.is_err(),
            "without a reading at its beginning: {:?}",
            back[0]
        );
        wait_a_second(&fake);
        let again = gpus.take();
        assert_energy(&fake, &back[0], &again[0]);
        assert_eq!(pids(&again[0]), [7]);
        assert!(again[1].energy_uj.is_ok());
    }
}

/// So long that some ms between a reading and the moment that is noted do not matter.
fn wait_a_second(fake: &FakeNvml) {
    fake.wait_until(fake.now_ns() / 1_000_000 + 1000);
}

#[test]
fn a_gpu_that_hangs_does_not_hold_up_the_others() {
    let fake = FakeNvml::of(vec![gpu(0, 100, vec![process(7, 50)]), gpu(1, 100, vec![])]);
    let mut gpus = Gpus::start(&GpuOptions {
        deadline: Duration::from_secs(2),
        ..options(&fake)
    })
    .unwrap();
    gpus.take();
    fake.break_down(0, None);
    let readings = gpus.take();
    let reason = readings[0].energy_uj.as_ref().unwrap_err();
    assert!(reason.contains("has not answered for"), "{reason}");
    assert!(readings[1].energy_uj.is_ok());
    let readings = gpus.take();
    assert!(readings[0].energy_uj.is_err() && readings[1].energy_uj.is_ok());
    fake.repair(0);
    let back = loop {
        let back = gpus.take();
        match &back[0].energy_uj {
            Err(reason) if reason.contains("answers again") => break back,
            Err(reason) => assert!(reason.contains("has not answered for"), "{reason}"),
            Ok(uj) => panic!("{uj} µJ without a reading at the beginning"),
        }
    };
    wait_a_second(&fake);
    assert_energy(&fake, &back[0], &gpus.take()[0]);
}

#[test]
fn what_hangs_for_ever_does_not_hold_up_the_end() {
    let fake = FakeNvml::of(vec![gpu(0, 100, vec![])]);
    let mut gpus = Gpus::start(&GpuOptions {
        deadline: Duration::from_millis(100),
        ..options(&fake)
    })
    .unwrap();
    fake.break_down(0, None);
    assert!(gpus.take()[0].energy_uj.is_err());
    // Once it is known to hang it is not waited for again.
    let hanging = gpus.request();
    assert!(gpus.is_ready(&hanging));
    assert!(gpus.collect(&hanging)[0].energy_uj.is_err());
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
    let fake = FakeNvml::of(vec![gpu(0, 100, vec![])]);
    let (mut gpus, _) = start(&fake);
    fake.control(0, |control| control.counter_reset_ns = Some(fake.now_ns()));
    let reset = gpus.take();
    assert!(
        reset[0].energy_uj.as_ref().unwrap_err().contains("reset"),
        "{:?}",
        reset[0]
    );
    wait_a_second(&fake);
    assert_energy(&fake, &reset[0], &gpus.take()[0]);
}

/// A tree of /sys with the GPUs of a fake, each in this state.
fn bus(states: &[&str]) -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    for (index, state) in states.iter().enumerate() {
        let device = tree
            .path()
            .join(format!("bus/pci/devices/0000:{:02x}:00.0", 0x60 + index));
        fs::create_dir_all(device.join("power")).unwrap();
        for (name, text) in [
            ("vendor", "0x10de"),
            ("class", "0x030200"),
            ("power/runtime_status", state),
        ] {
            fs::write(device.join(name), format!("{text}\n")).unwrap();
        }
    }
    tree
}

#[test]
fn a_gpu_that_sleeps_is_left_alone() {
    let fake = FakeNvml::of(vec![gpu(0, 100, vec![]), gpu(1, 100, vec![process(7, 50)])]);
    // Whoever asks for it is told that it is lost.
    fake.break_down(0, Some(GPU_IS_LOST));
    let tree = bus(&["suspended", "active"]);
    let with_tree = |selection| GpuOptions {
        sysfs: tree.path().to_owned(),
        selection,
        ..options(&fake)
    };
    let mut gpus = Gpus::start(&with_tree(GpuSelection::All)).unwrap();
    assert_eq!(
        gpus.notes(),
        [
            "the GPU at 0000:60:00.0 is not measured: it sleeps (runtime suspend), and reading it would wake it; `--gpu \
             0000:60:00.0` measures it all the same"
        ]
    );
    gpus.take();
    let reading = gpus.take().remove(0);
    assert_eq!((reading.index, pids(&reading)), (1, vec![7]));
    assert!(reading.energy_uj.is_ok());

    // One that falls asleep meanwhile is left alone too, and its energy is not known.
    let status = tree.path().join("bus/pci/devices/0000:61:00.0/power/runtime_status");
    fake.break_down(1, Some(GPU_IS_LOST));
    fs::write(&status, "suspended\n").unwrap();
    gpus.take();
    let asleep = gpus.take().remove(0);
    assert!(
        asleep.energy_uj.as_ref().unwrap_err().contains("it sleeps"),
        "{asleep:?}"
    );
    assert!(asleep.lists.is_err() && asleep.processes.is_empty());
    fake.repair(1);
    fs::write(&status, "active\n").unwrap();
    assert!(
        gpus.take()[0].energy_uj.is_err(),
        "there is no reading at its beginning"
    );
    assert!(gpus.take()[0].energy_uj.is_ok());

    // A GPU that is named is measured.
    fake.repair(0);
    let mut named = Gpus::start(&with_tree(GpuSelection::Named(vec!["0".to_owned()]))).unwrap();
    assert_eq!(named.notes(), [""; 0]);
    assert_eq!(named.take()[0].index, 0);
}

#[test]
fn where_all_gpus_sleep_nothing_is_initialised() {
    let fake = FakeNvml::play(Scenario {
        init_error: Some(9),
        ..Scenario::default()
    });
    let tree = bus(&["suspended", "suspending"]);
    let gpus = Gpus::start(&GpuOptions {
        sysfs: tree.path().to_owned(),
        ..options(&fake)
    })
    .unwrap();
    assert!(gpus.is_empty());
    assert_eq!(gpus.notes().len(), 2, "{:?}", gpus.notes());
    assert!(
        gpus.notes().iter().all(|note| note.contains("it sleeps")),
        "{:?}",
        gpus.notes()
    );
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

    let broken = FakeNvml::of(vec![gpu(0, 100, vec![]), gpu(1, 100, vec![])]);
    broken.break_down(0, Some(GPU_IS_LOST));
    let mut gpus = Gpus::start(&options(&broken)).unwrap();
    assert!(
        gpus.notes()[0].starts_with("GPU 0 is not measured: "),
        "{:?}",
        gpus.notes()
    );
    assert_eq!(gpus.take().iter().map(|reading| reading.index).collect::<Vec<_>>(), [1]);
}
