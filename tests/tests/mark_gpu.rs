//! Marks beside GPUs: a border waits for no GPU, and no joule of one is lost however fast borders follow each other.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    thread,
    time::{Duration, Instant},
};

use dlpm::sources::gpu::{GpuOptions, Gpus};
use dlpm_tests::{
    command::Dlpm,
    gpu::{FakeNvml, assert_energy, gpu, options, pids, process, start},
    gpu_trace::{Sleeper, zone_name},
    log::{Log, number},
    phases::{ask, border, phases},
    require_dlpm,
};

#[test]
fn readings_that_are_asked_for_while_a_gpu_answers_have_one_answer() {
    let fake = FakeNvml::of(vec![gpu(0, 100, vec![process(7, 50)])]);
    let (mut gpus, baseline) = start(&fake);
    wait_a_second(&fake);
    fake.break_down(0, None);
    let first = gpus.request();
    thread::sleep(Duration::from_millis(50));
    let others: Vec<_> = (0..3).map(|_| gpus.request()).collect();
    assert!(!gpus.is_ready(&first) && !gpus.is_ready(&others[2]));
    fake.repair(0);
    let first = gpus.collect(&first);
    let others: Vec<_> = others.iter().map(|asked| gpus.collect(asked).remove(0)).collect();
    assert_energy(&fake, &baseline[0], &first[0]);
    for other in &others {
        assert_eq!(pids(other), [7]);
        assert!(other.read_at_ns >= first[0].read_at_ns);
    }
    // They were all there when the second reading was made.
    assert_eq!(others[1].energy_uj, Ok(0));
    assert_eq!(others[2].counter_uj, others[0].counter_uj);
    assert_eq!(others[2].processes[0].sm_percent_us, 0);
    wait_a_second(&fake);
    assert_energy(&fake, &others[2], &gpus.take()[0]);
}

/// So long that some ms between a reading and the moment that is noted do not matter.
fn wait_a_second(fake: &FakeNvml) {
    fake.wait_until(fake.now_ns() / 1_000_000 + 1000);
}

#[test]
fn readings_that_were_given_up_do_not_count_for_the_next() {
    let fake = FakeNvml::of(vec![gpu(0, 100, Vec::new())]);
    let mut gpus = Gpus::start(&GpuOptions {
        deadline: Duration::from_secs(1),
        ..options(&fake)
    })
    .unwrap();
    gpus.take();
    fake.break_down(0, None);
    let asked: Vec<_> = (0..3).map(|_| gpus.request()).collect();
    for asked in &asked {
        let reading = gpus.collect(asked).remove(0);
        assert!(reading.energy_uj.unwrap_err().contains("has not answered for"));
    }
    // Nothing more is asked, and nobody waits.
    let hanging = gpus.request();
    assert!(gpus.is_ready(&hanging));
    assert!(gpus.collect(&hanging)[0].energy_uj.is_err());
    fake.repair(0);
    let back = loop {
        let back = gpus.take();
        let reason = back[0].energy_uj.as_ref().unwrap_err();
        if reason.contains("answers again") {
            break back;
        }
        assert!(reason.contains("has not answered for"), "{reason}");
    };
    wait_a_second(&fake);
    assert_energy(&fake, &back[0], &gpus.take()[0]);
}

/// Traces a fake; `while_tracing` has the folder of the log.
fn trace(fake: &FakeNvml, while_tracing: impl FnOnce(&std::path::Path)) -> Log {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let mut dlpm = Dlpm::trace(&folder).arg("--nvml-library").arg(fake.library()).start();
    dlpm.wait_for_lines(&folder, 3);
    while_tracing(&folder);
    dlpm.end_with(libc::SIGINT).exited(0);
    let log = Log::read(&folder);
    log.is_complete();
    log
}

#[test]
fn a_burst_of_marks_loses_no_energy_of_a_gpu() {
    require_dlpm!();
    let sleeper = Sleeper::start();
    let fake = FakeNvml::of(vec![
        gpu(0, 300, vec![process(sleeper.pid(), 50)]),
        gpu(1, 100, Vec::new()),
    ]);
    let log = trace(&fake, |folder| {
        for number in 0..100 {
            border(&ask(folder, format!("mark {number}\n").as_bytes()));
        }
        thread::sleep(Duration::from_millis(300));
        for number in 0..20 {
            border(&ask(folder, format!("mark {number}\n").as_bytes()));
            thread::sleep(Duration::from_millis(13));
        }
    });
    for index in [0, 1] {
        // `Log::read` has checked that each counter moved by the energy of the interval.
        let zones: Vec<_> = log.samples[1..]
            .iter()
            .map(|sample| sample.zone(&zone_name(index)).unwrap())
            .collect();
        assert!(zones.iter().all(|zone| zone["state"] == "ok"), "{zones:?}");
        let total: u64 = zones.iter().map(|zone| number(&zone["energy_uj"])).sum();
        assert!(total > 10_000_000, "{total}");
    }
    assert!(log.samples.len() > 120);
    let highest = log
        .samples
        .iter()
        .map(|sample| sample.gpu["nvidia_power"].as_f64().unwrap_or(0.0));
    assert!(
        highest.fold(0.0, f64::max) < 10_000.0,
        "the power of a step is not told"
    );
}

#[test]
fn a_gpu_that_hangs_holds_up_no_mark() {
    require_dlpm!();
    let fake = FakeNvml::of(vec![gpu(0, 300, Vec::new())]);
    let log = trace(&fake, |folder| {
        fake.break_down(0, None);
        let took = (0..30).map(|number| {
            let begun = Instant::now();
            border(&ask(folder, format!("mark {number}\n").as_bytes()));
            let took = begun.elapsed();
            thread::sleep(Duration::from_millis(25));
            took
        });
        let took: Vec<Duration> = took.collect();
        // Each waited for 500 ms, if marks did.
        assert!(
            took.iter().filter(|took| **took < Duration::from_millis(400)).count() > 25,
            "{took:?}"
        );
        assert_eq!(phases(folder).len(), 30, "they are written meanwhile");
    });
    assert_eq!(log.segments, 2, "with the GPU, and without");
}
