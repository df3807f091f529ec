//! An idle CPU is turned without being interrupted: whether that is exact at the moment at which it leaves idle. On x86-64:
//! elsewhere every CPU is interrupted.
#![cfg(target_arch = "x86_64")]

use std::time::Duration;

use dlpm::{
    interval::Identity,
    sources::cpu_time::{Config, Pace},
};
use dlpm_tests::{
    kernel::skip,
    require_kernel,
    trace::race::{self, Options, Tally},
};

/// How long a run may look for races.
const PATIENCE: Duration = Duration::from_secs(60);

/// Only the sleepers count, so that their CPU is idle between them on a busy machine as well.
fn only_own(pace: Pace) -> Config {
    Config {
        pace,
        only: Some(std::process::id()),
        ..Config::default()
    }
}

fn assert_lawful(tally: &Tally) {
    assert_eq!(tally.violations(), 0, "{tally:#?}");
}

#[test]
fn holds_while_cpus_leave_idle() {
    require_kernel!();
    let options = match Options::tight() {
        Ok(options) => options,
        Err(reason) => return skip(&reason),
    };
    let mut is_over = race::patience(PATIENCE);
    let tally = race::run(&only_own(Pace::Gentle), options, |tally| {
        (tally.is_telling() && tally.raced >= 50 && tally.intervals >= 50_000) || is_over()
    });
    println!("{tally:#?}");
    assert_lawful(&tally);
    assert!(tally.is_telling(), "{tally:#?}");
}

/// The same, however seldom both meet: in an emulator they hardly do.
#[test]
fn holds_in_short_intervals() {
    require_kernel!();
    let options = match Options::tight() {
        Ok(options) => options,
        Err(reason) => return skip(&reason),
    };
    let mut is_over = race::patience(PATIENCE);
    let tally = race::run(&only_own(Pace::Gentle), options, |tally| {
        (tally.turned > 1_000 && tally.silent > 0 && tally.intervals >= 10_000) || is_over()
    });
    println!("{tally:#?}");
    assert_lawful(&tally);
    assert!(tally.turned > 0 && tally.silent > 0, "{tally:#?}");
}

#[test]
fn without_its_barrier_it_breaks() {
    require_kernel!();
    let options = match Options::tight() {
        Ok(options) => options,
        Err(reason) => return skip(&reason),
    };
    let mut is_over = race::patience(PATIENCE);
    let tally = race::run(&only_own(Pace::WithoutBarrier), options, |tally| {
        tally.violations() > 0 || is_over()
    });
    println!("{tally:#?}");
    assert!(tally.violations() > 0, "the test does not find the races: {tally:#?}");
}

/// Without start times, an idle task is known by its address, once it has gone out. Here a CPU has to be really idle, and on
/// a busy machine it is not.
#[test]
fn holds_without_start_times() {
    require_kernel!();
    let options = match Options::tight() {
        Ok(options) => options,
        Err(reason) => return skip(&reason),
    };
    let config = Config {
        identity: Some(Identity::Tgid),
        ..Config::default()
    };
    let mut is_over = race::patience(Duration::from_secs(10));
    let tally = race::run(&config, options, |tally| {
        (tally.raced >= 10 && tally.intervals >= 20_000) || is_over()
    });
    println!("{tally:#?}");
    assert_lawful(&tally);
    let was_idle = tally.idle_ns > 500_000_000;
    assert!(tally.turned > 0 || !was_idle, "{tally:#?}");
}
