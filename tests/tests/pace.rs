//! What turning idle CPUs must not change, and what it saves. On x86-64: elsewhere every CPU is interrupted.
#![cfg(target_arch = "x86_64")]

use std::{collections::HashMap, thread, time::Duration};

use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use dlpm::sources::cpu_time::{Config, CpuTime, Pace, SealCounts};
use dlpm_common::programs;
use dlpm_tests::{
    cpus::{self, Hotplug},
    kernel::skip,
    require_kernel,
    trace::{check_laws, race},
};

/// Only this process counts, so that CPUs are idle on a busy machine as well.
fn only_own(pace: Pace) -> Config {
    Config {
        pace,
        only: Some(std::process::id()),
        ..Config::default()
    }
}

/// How often the program that ends an interval has run, while the kernel counts. That of the last one that was loaded.
fn seal_runs() -> Option<u64> {
    let of_it = loaded_programs().flatten();
    let newest = of_it
        .filter(|info| info.name_as_str() == Some(programs::SEAL_OF_ONE))
        .max_by_key(|info| info.id());
    Some(newest?.run_count())
}

/// By the kernel's own count: the program that ends an interval runs on CPUs that are not idle, and on no others.
#[test]
fn an_idle_cpu_runs_no_program() {
    require_kernel!();
    let online = u64::try_from(cpus::online().len()).unwrap();
    if online < 2 {
        return skip("there is only one CPU");
    }
    const INTERVALS: u64 = 200;
    thread::spawn(move || {
        // Where it is decides what is an interrupt.
        cpus::pin(cpus::online()[0]);
        for pace in [Pace::Interrupt, Pace::Gentle] {
            let mut cpu_time = CpuTime::start(&only_own(pace)).unwrap();
            let _counting = enable_stats(Stats::RunTime).unwrap();
            let mut sum = SealCounts::default();
            let mut seal = |cpu_time: &mut CpuTime| {
                let sealed = cpu_time.seal().unwrap();
                check_laws(&cpu_time.drain(&sealed).unwrap());
                sum.interrupts += sealed.counts.interrupts;
                sum.turned += sealed.counts.turned;
            };
            let before = seal_runs().unwrap();
            for _ in 0..INTERVALS {
                thread::sleep(Duration::from_millis(1));
                seal(&mut cpu_time);
            }
            let runs = seal_runs().unwrap() - before;
            println!("{pace:?}: {runs} runs, {sum:?}");
            assert_eq!(runs + u64::from(sum.turned), INTERVALS * online);
            // The CPU of this thread is not idle while it seals, and not interrupted. Not always: on a guest that hides
            // its init from tracing, nobody sees this thread come in where init goes out.
            let (own, least) = (runs - u64::from(sum.interrupts).min(runs), INTERVALS * 9 / 10);
            assert!((least..=INTERVALS).contains(&own), "{runs} runs, {sum:?}");
            match pace {
                Pace::Gentle => assert!(u64::from(sum.interrupts) < INTERVALS / 2 * (online - 1), "{sum:?}"),
                _ => assert_eq!(sum.turned, 0),
            }
        }
    })
    .join()
    .unwrap();
}

/// Intervals end all the time while a CPU goes and comes back. One that is off is not taken for an idle one, however close
/// to a border it went.
#[test]
fn a_cpu_goes_offline_between_any_two_steps() {
    require_kernel!();
    let online = cpus::online();
    let (cpu, hotplug) = match online[..] {
        [_, .., last] => match Hotplug::of(last) {
            Ok(hotplug) => (last, hotplug),
            Err(reason) => return skip(&reason),
        },
        _ => return skip("there is only one CPU"),
    };
    const ROUNDS: usize = 12;
    let mut cpu_time = CpuTime::start(&only_own(Pace::Gentle)).unwrap();
    let mut ended = HashMap::new();
    let (mut turned, mut intervals) = (0, 0);
    // Whether the CPU had an interval.
    let mut step = |is_first: bool| {
        let sealed = cpu_time.seal().unwrap();
        let drained = cpu_time.drain(&sealed).unwrap();
        if !is_first {
            check_laws(&drained);
        }
        for cpu in &drained.cpus {
            if let Some(ended_ns) = ended.insert(cpu.cpu, cpu.end_ns) {
                assert!(cpu.begin_ns >= ended_ns, "{cpu:?} begins before {ended_ns}");
            }
        }
        turned += sealed.counts.turned;
        intervals += 1;
        sealed.cpus.iter().any(|sealed| sealed.cpu == cpu)
    };
    step(true);
    for round in 0..2 * ROUNDS {
        let goes = round % 2 == 0;
        thread::scope(|scope| {
            let way = scope.spawn(|| match goes {
                true => hotplug.take_offline(),
                false => hotplug.bring_back(),
            });
            while !way.is_finished() {
                step(false);
            }
        });
        // The last part of an interval that it had.
        step(false);
        for _ in 0..100 {
            let is_there = step(false);
            assert!(
                !(goes && is_there),
                "in round {round}, CPU {cpu} is off and has an interval"
            );
        }
        let mut is_over = race::patience(Duration::from_secs(10));
        while !goes && !step(false) {
            assert!(!is_over(), "in round {round}, CPU {cpu} is on and has no interval");
        }
    }
    println!("{intervals} intervals, {turned} turns");
    assert!(turned > 0);
}
