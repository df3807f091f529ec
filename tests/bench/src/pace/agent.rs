//! Whether the agent interrupts CPUs that are idle.

use std::{fs, path::Path, thread, time::Duration};

use anyhow::{Context, Result};
use dlpm_tests::cpus;
use serde_json::Value;

use super::{LARGEST_RATIO, Options, calls};
use crate::{
    agent::Server,
    stats::{Spread, float},
};

/// The shortest interval of an agent.
const INTERVAL: Duration = Duration::from_millis(100);

/// Intervals in each measurement.
const INTERVALS: u32 = 50;

/// A CPU that was idle for less of the time is interrupted for good reasons.
const IDLE_PERMILLE: u64 = 970;

/// Counts the interrupts of CPU `idle` while an agent runs on CPU `first`, and while none runs, in turns. Whether the
/// agent interrupts another CPU in at most [`LARGEST_RATIO`] of its intervals, by its own history; true also where the CPU
/// was not idle, which is said.
///
/// # Errors
///
/// Where the agent cannot run.
pub fn compare(dlpm: &Path, [first, idle]: [u32; 2], options: Options) -> Result<bool> {
    let (mut without, mut with, mut own, mut idle_permille) = (Vec::new(), Vec::new(), Vec::new(), u64::MAX);
    for _ in 0..options.rounds {
        let mut measure = || {
            let (before, ticks) = (calls(idle)?, Ticks::of(idle)?);
            thread::sleep(INTERVAL * INTERVALS);
            idle_permille = idle_permille.min(Ticks::of(idle)?.idle_permille_since(&ticks));
            anyhow::Ok(float(calls(idle)? - before) / f64::from(INTERVALS))
        };
        without.push(measure()?);
        let folder = tempfile::tempdir()?;
        let (dlpm, path) = (dlpm.to_owned(), folder.path().to_owned());
        // Its threads are bound to the CPU of the thread that starts it.
        let started = thread::spawn(move || {
            cpus::pin(first);
            let interval = format!("{}ms", INTERVAL.as_millis());
            Server::agent(&dlpm, &path, &["--interval", &interval])
        });
        let agent = started
            .join()
            .map_err(|_| anyhow::anyhow!("the agent cannot be started, see above"))??;
        with.push(measure()?);
        agent.end()?;
        own.push(interrupts_per_interval(folder.path())?);
    }
    let show = |values: Vec<f64>| Spread::of(values).map_or(String::new(), |spread| spread.show(1.0, 2));
    let median = Spread::of(own.iter().copied()).context("no round")?.median;
    let is_judged = idle_permille >= IDLE_PERMILLE;
    println!(
        "* {}: interrupts of the agent's seals per interval of {} ms and other CPU, by its history: {}, at most {LARGEST_RATIO}\n\
         * function call interrupts of the idle CPU in that time: {} with the agent, {} without; the scheduler sends them \
         as well, so they are not judged",
        match (is_judged, median <= LARGEST_RATIO) {
            (false, _) => "not judged, since the other CPU was not idle",
            (true, true) => "within",
            (true, false) => "BEYOND",
        },
        INTERVAL.as_millis(),
        show(own),
        show(with),
        show(without)
    );
    Ok(!is_judged || median <= LARGEST_RATIO)
}

/// Interrupts of seals for each interval and each CPU that does not seal, by an agent's history.
fn interrupts_per_interval(folder: &Path) -> Result<f64> {
    let path = folder.join("history/power_metrics.json");
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let (mut interrupts, mut intervals) = (0, 0);
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).context("a line of the history is not JSON")?;
        let exact = &line["dlpm"];
        if let (Some(more), Some(ended)) = (exact["interrupts"].as_u64(), exact["rollup"].as_u64()) {
            interrupts += more;
            intervals += ended;
        }
    }
    anyhow::ensure!(intervals > 0, "the history has no intervals");
    let others = u64::try_from(cpus::online().len())? - 1;
    Ok(float(interrupts) / float(intervals * others))
}

/// What `/proc/stat` counts of a CPU.
struct Ticks {
    idle: u64,
    all: u64,
}

impl Ticks {
    fn of(cpu: u32) -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("/proc/stat cannot be read")?;
        let row = text.lines().find_map(|line| line.strip_prefix(&format!("cpu{cpu} ")));
        let ticks: Vec<u64> = row
            .with_context(|| format!("/proc/stat has no row of CPU {cpu}"))?
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .take(8)
            .collect();
        // Idle, and waiting for I/O: man 5 proc_stat.
        Ok(Self {
            idle: ticks.iter().skip(3).take(2).sum(),
            all: ticks.iter().sum(),
        })
    }

    fn idle_permille_since(&self, before: &Self) -> u64 {
        ((self.idle - before.idle) * 1000)
            .checked_div(self.all - before.all)
            .unwrap_or(0)
    }
}
