//! What the GPU source reads from the fake NVML, through the real nvml-wrapper and the dynamic loader.

use dlpm::interval::{GpuProcess, MeterSource};
use dlpm_fake_nvml::scenario::{Device, Instance, PowerPoint, Process};
use dlpm_tests::gpu::{FakeNvml, assert_energy, gpu, pids, process, sm_percent_us, start, uuid};

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
            mem_percent_us: Some(40 * 700_000),
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
        mem_percent_us: None,
        memory_bytes: Some(u64::from(pid) << 20),
        instances: vec![instance.to_owned()],
    };
    assert_eq!(reading.processes, [process(7, "MIG-0"), process(8, "MIG-1")]);
    assert_eq!(reading.utilization_percent, None);
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
