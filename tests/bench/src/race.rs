//! Millions of intervals that end while a CPU leaves idle: whether each is exact, and how often the two have met.

use anyhow::{Result, anyhow};
use dlpm::sources::cpu_time::{Config, Pace};
use dlpm_tests::trace::race::{self, Options, Tally};

/// Races that a run has to meet for each 1,000 intervals, or it shows nothing.
const RACES_PERMILLE: u64 = 1;

/// Intervals without the barrier, at most: it breaks long before.
const WITHOUT_BARRIER: u64 = 1_000_000;

/// Measures and prints. Whether all intervals were exact, enough races were met, and the test fails without the barrier.
///
/// # Errors
///
/// With one CPU.
pub fn run(intervals: u64) -> Result<bool> {
    let options = Options::tight().map_err(|reason| anyhow!("no CPU can be turned: {reason}"))?;
    let config = |pace, siblings: &[(u32, u32)]| Config {
        pace,
        siblings: siblings.to_vec(),
        only: Some(std::process::id()),
        ..Config::default()
    };
    println!("{}", super::machine()?);
    println!();
    println!(
        "| | intervals | interrupts | turned | of these without an event | raced | took the turn | took the newer one | \
         not lawful | not contiguous | furthest apart, ns | clock steps |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let tally = race::run(&config(Pace::Gentle, &[]), options, |tally| {
        tally.intervals >= intervals
    });
    print("idle CPUs are turned", &tally);
    let pairs = race::run(&config(Pace::Gentle, &[(0, 1)]), options, |tally| {
        tally.intervals >= intervals / 10
    });
    print("the same, as threads of one core", &pairs);
    let broken = race::run(&config(Pace::WithoutBarrier, &[]), options, |tally| {
        tally.violations() >= 100 || tally.intervals >= WITHOUT_BARRIER
    });
    print("without the barrier", &broken);
    println!();
    for violation in tally.described.iter().chain(&pairs.described) {
        println!("violation: {violation}");
    }
    let is_exact = tally.violations() == 0 && pairs.violations() == 0;
    let is_telling = tally.is_telling() && tally.raced * 1_000 >= intervals * RACES_PERMILLE;
    let word = |holds| if holds { "yes" } else { "NO" };
    println!("* every interval is exact: {}", word(is_exact));
    println!("* enough races, of each kind: {}", word(is_telling));
    println!("* without the barrier it fails: {}", word(broken.violations() > 0));
    Ok(is_exact && is_telling && broken.violations() > 0)
}

fn print(name: &str, tally: &Tally) {
    println!(
        "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        tally.intervals,
        tally.interrupts,
        tally.turned,
        tally.silent,
        tally.raced,
        tally.took,
        tally.newer,
        tally.unlawful,
        tally.apart,
        tally.furthest_ns,
        tally.clock_steps
    );
}
