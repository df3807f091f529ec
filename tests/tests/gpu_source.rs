//! The GPU source against the fake NVML, through the real nvml-wrapper and the dynamic loader.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::time::{Duration, Instant};

use dlpm::{
    interval::{GpuProcess, GpuReading, MeterSource},
    sources::gpu::{GpuOptions, GpuSelection, Gpus},
};
use dlpm_fake_nvml::scenario::{Device, Fault, Instance, PowerPoint, Process, Scenario};
use dlpm_tests::gpu::{FakeNvml, gpu, process, uuid};

/// NVML_ERROR_GPU_IS_LOST
const GPU_IS_LOST: u32 = 15;

fn options(fake: &FakeNvml) -> GpuOptions {
    GpuOptions {
        library: Some(fake.library()),
        // Long enough for a busy machine.
        deadline: Duration::from_secs(2),
        ..GpuOptions::default()
    }
}

/// Opens the fake's GPUs and takes the baseline.
fn start(fake: &FakeNvml) -> (Gpus, Vec<GpuReading>) {
    let mut gpus = Gpus::start(&options(fake)).unwrap();
    assert_eq!(gpus.notes(), [""; 0]);
    let baseline = gpus.take();
    for reading in &baseline {
        assert!(reading.energy_uj.as_ref().unwrap_err().contains("first"), "{reading:?}");
    }
    (gpus, baseline)
}

/// Energy against the integral of the scenario. A GPU is read some µs before the moment that is noted, or some ms on a
/// busy machine: 5 % of a second is more than that.
fn assert_energy(fake: &FakeNvml, before: &GpuReading, now: &GpuReading) {
    let expected_uj = fake.energy_uj(0, before.read_at_ns.unwrap(), now.read_at_ns.unwrap());
    let ratio = *now.energy_uj.as_ref().unwrap() as f64 / expected_uj as f64;
    assert!((0.95..1.05).contains(&ratio), "{ratio}: {now:?}");
}

fn sm_percent_us(reading: &GpuReading, pid: u32) -> u64 {
    let found = reading.processes.iter().find(|process| process.pid == pid);
    found.map_or(0, |process| process.sm_percent_us)
}

fn pids(reading: &GpuReading) -> Vec<u32> {
    reading.processes.iter().map(|process| process.pid).collect()
}

#[test]
fn energy_of_the_counter_and_two_that_share() {
    let fake = FakeNvml::of(vec![
        gpu(0, 300, vec![process(70, 63), process(30, 27)]),
        gpu(1, 50, vec![]),
    ]);
    let (mut gpus, baseline) = start(&fake);
    let first = &baseline[0];
    assert_eq!((first.index, first.uuid.as_str()), (0, uuid(0).as_str()));
    assert_eq!(
        (first.name.as_str(), first.pci.as_str()),
        ("Fake GPU 0", "00000000:60:00.0")
    );
    fake.wait_until(1200);
    let readings = gpus.take();
    assert_energy(&fake, first, &readings[0]);
    let shared = &readings[0];
    assert_eq!(shared.source, MeterSource::NvmlEnergy);
    assert_eq!(shared.power_mw, Some(300_000));
    assert_eq!(shared.utilization_percent, Some(90));
    assert_eq!(shared.memory_used_bytes, Some(100 << 20));
    assert_eq!(shared.memory_total_bytes, Some(80 << 30));
    assert_eq!((&shared.sm_time, &shared.lists, shared.mig), (&Ok(()), &Ok(()), false));
    // Both have a sample at every moment, so their times are as 70 to 30 to the last µs.
    let (more, less) = (sm_percent_us(shared, 70), sm_percent_us(shared, 30));
    assert!(less > 0 && more * 3 == less * 7, "{more} {less}");
    let memory: Vec<_> = shared.processes.iter().map(|process| process.memory_bytes).collect();
    assert_eq!(memory, [Some(30 << 20), Some(70 << 20)]);
    // 90 % of the time between the readings, to a sampling period at each end.
    let elapsed_us = (shared.read_at_ns.unwrap() - first.read_at_ns.unwrap()) / 1000;
    assert!(
        (more + less).abs_diff(90 * elapsed_us) <= 2 * 90 * 100_000,
        "{}",
        more + less
    );
    assert_eq!(readings[1].processes, []);
    assert_eq!(readings[1].utilization_percent, Some(0));
    let described = gpus.describe().join("\n");
    assert!(
        described.contains(&uuid(1)) && described.contains("energy counter"),
        "{described}"
    );
}

#[test]
fn samples_are_read_once() {
    let fake = FakeNvml::of(vec![gpu(0, 100, vec![process(7, 50)])]);
    let (mut gpus, _) = start(&fake);
    let mut sum = 0;
    let from_ns = dlpm::sources::clock::monotonic_ns();
    for step in 1..=12 {
        fake.wait_until(step * 130);
        sum += sm_percent_us(&gpus.take()[0], 7);
    }
    let elapsed_us = (dlpm::sources::clock::monotonic_ns() - from_ns) / 1000;
    // Read twice it would be twice as much; a period at each end is 200 ms of more than 1.5 s.
    let ratio = sum as f64 / (50 * elapsed_us) as f64;
    assert!((0.75..1.25).contains(&ratio), "{ratio}");
}

#[test]
fn a_process_that_ends_within_the_interval_keeps_its_share() {
    let short = Process {
        from_ms: 100,
        // Longer than from one look at the lists to the next.
        to_ms: Some(800),
        ..process(8, 80)
    };
    let idle = process(9, 0);
    let fake = FakeNvml::of(vec![gpu(0, 100, vec![short, idle])]);
    let (mut gpus, _) = start(&fake);
    fake.wait_until(1300);
    let reading = &gpus.take()[0];
    assert_eq!(sm_percent_us(reading, 8), 80 * 700_000);
    assert_eq!(
        reading.processes[0],
        GpuProcess {
            pid: 8,
            sm_percent_us: 80 * 700_000,
            ..GpuProcess::default()
        }
    );
    assert_eq!((reading.processes[1].pid, reading.processes[1].sm_percent_us), (9, 0));
    fake.wait_until(1700);
    assert_eq!(pids(&gpus.take()[0]), [9]);
}

#[test]
fn power_is_integrated_where_there_is_no_counter() {
    let ramp = [(0, 100_000), (2000, 500_000), (4000, 100_000)];
    let fake = FakeNvml::of(vec![Device {
        power: ramp.map(|(at_ms, mw)| PowerPoint { at_ms, mw }).into(),
        unsupported: vec!["nvmlDeviceGetTotalEnergyConsumption".into()],
        ..gpu(0, 0, vec![process(7, 50)])
    }]);
    let (mut gpus, mut last) = start(&fake);
    assert!(gpus.describe()[0].contains("integrated"));
    for end_ms in [1000, 2000, 3000] {
        fake.wait_until(end_ms);
        let readings = gpus.take();
        assert_eq!(
            (readings[0].source, readings[0].counter_uj),
            (MeterSource::NvmlPower, None)
        );
        assert_energy(&fake, &last[0], &readings[0]);
        last = readings;
    }
}

#[test]
fn without_utilisation_by_process_there_are_still_processes() {
    let fake = FakeNvml::of(vec![Device {
        unsupported: vec![
            "nvmlDeviceGetProcessUtilization".into(),
            "nvmlDeviceGetGraphicsRunningProcesses_v3".into(),
        ],
        ..gpu(0, 100, vec![process(7, 50), process(8, 50)])
    }]);
    let (mut gpus, _) = start(&fake);
    fake.wait_until(300);
    let reading = &gpus.take()[0];
    assert!(reading.sm_time.as_ref().unwrap_err().contains("utilisation by process"));
    assert_eq!(reading.lists, Ok(()));
    assert_eq!(pids(reading), [7, 8]);
    assert!(reading.processes.iter().all(|process| process.sm_percent_us == 0));
}

#[test]
fn a_process_that_computes_and_draws_is_one() {
    let both = Process {
        graphics: true,
        ..process(7, 50)
    };
    let draws = Process {
        graphics: true,
        no_compute: true,
        memory_bytes: None,
        ..process(8, 10)
    };
    let fake = FakeNvml::of(vec![gpu(0, 100, vec![both, draws])]);
    let (mut gpus, _) = start(&fake);
    fake.wait_until(300);
    let reading = &gpus.take()[0];
    assert_eq!(pids(reading), [7, 8]);
    assert_eq!(reading.processes[0].memory_bytes, Some(7 << 20));
    assert_eq!(reading.processes[1].memory_bytes, None);
}

#[test]
fn nonsense_among_the_samples_is_left_out() {
    let fake = FakeNvml::of(vec![Device {
        junk_samples: true,
        ..gpu(0, 100, vec![process(7, 50)])
    }]);
    let (mut gpus, _) = start(&fake);
    fake.wait_until(1000);
    let reading = &gpus.take()[0];
    assert_eq!(pids(reading), [7]);
    assert!(reading.dropped_samples > 0);
    assert!(sm_percent_us(reading, 7) <= 50 * 1_100_000, "{reading:?}");
}

#[test]
fn instances_of_a_divided_gpu_have_processes_and_memory() {
    let on = |pid, instance| Process {
        instance: Some(instance),
        ..process(pid, 50)
    };
    let instance = |number| Instance {
        uuid: format!("MIG-{number}"),
    };
    let fake = FakeNvml::of(vec![Device {
        mig: Some(vec![instance(0), instance(1)]),
        ..gpu(0, 100, vec![on(7, 0), on(8, 1)])
    }]);
    let (mut gpus, _) = start(&fake);
    fake.wait_until(400);
    let reading = &gpus.take()[0];
    assert!(reading.mig && reading.energy_uj.is_ok());
    assert!(reading.sm_time.as_ref().unwrap_err().contains("MIG"));
    let process = |pid, instance: &str| GpuProcess {
        pid,
        sm_percent_us: 0,
        memory_bytes: Some(u64::from(pid) << 20),
        instances: vec![instance.to_owned()],
    };
    assert_eq!(reading.processes, [process(7, "MIG-0"), process(8, "MIG-1")]);
    assert_eq!(reading.utilization_percent, None);
}

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

#[test]
fn eight_gpus_with_sixty_four_processes() {
    let devices = (0..8).map(|index| {
        let pid = |number| u32::try_from(1000 + index * 8 + number).unwrap();
        gpu(index, 300, (0..8).map(|number| process(pid(number), 10)).collect())
    });
    let fake = FakeNvml::of(devices.collect());
    let (mut gpus, _) = start(&fake);
    fake.wait_until(600);
    let readings = gpus.take();
    assert_eq!(readings.len(), 8);
    for (index, reading) in (0..).zip(&readings) {
        assert_eq!(reading.index, index);
        assert!(reading.energy_uj.as_ref().is_ok_and(|uj| *uj > 0));
        assert_eq!(reading.processes.len(), 8);
        assert!(reading.processes.iter().all(|process| process.sm_percent_us > 0));
    }
}
