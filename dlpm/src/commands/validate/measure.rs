//! One cell after another: loads that run, and the engine that measures them as it measures everything.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::load::{Count, Running};
use crate::{
    attribution::{
        Options, attribute, cgroup_sums,
        counters::Weights,
        energy_tree::Carries,
        ledger::{Ledger, RowKey},
        selection::Selection,
    },
    engine::Engine,
    interval::Trees,
    sources::{
        conditions::{on_battery, throttled},
        processes::Branch,
    },
    validate::{Cell, LoadKind, Run},
};

/// The tree that all loads are.
const TREE: u8 = 0;

/// How often it is looked whether the user wants to stop.
const STEP: Duration = Duration::from_millis(100);

/// What measures cells.
pub struct Bench {
    engine: Engine<()>,
    options: Options,
    carries: Carries,
    sysfs: PathBuf,
    /// How each cell runs.
    cells: Cells,
    stop: Arc<AtomicBool>,
}

/// How cells run.
#[derive(Clone, Copy, Debug)]
pub struct Cells {
    /// Time in which the machine settles before each is measured.
    pub settle: Duration,
    /// Time that is measured.
    pub measured: Duration,
    /// Memory that the loads of memory go through.
    pub memory_bytes: u64,
}

impl Bench {
    /// One for such cells.
    pub fn new(engine: Engine<()>, cells: Cells, sysfs: PathBuf, weights: Option<Weights>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).context("signals cannot be listened to")?;
        }
        Ok(Self {
            engine,
            // The loads are rows, and nobody else is named in a file that may be published.
            options: Options {
                selection: Selection {
                    trees: Trees::one(TREE),
                    ..Selection::default()
                },
                weights,
                ..Options::default()
            },
            carries: Carries::default(),
            sysfs,
            cells,
            stop,
        })
    }

    /// Measures one cell: these loads, each on its CPU.
    ///
    /// # Errors
    ///
    /// Where a load cannot run, CPU time is lost, or the user stops it.
    pub fn cell(&mut self, round: u32, loads: &[(LoadKind, u32)]) -> Result<Cell> {
        let Cells {
            settle,
            measured,
            memory_bytes,
        } = self.cells;
        let mut running = Vec::new();
        for (load, cpu) in loads {
            running.push(Running::start(*load, *cpu, memory_bytes, settle + measured)?);
        }
        let cpus: Vec<u32> = loads.iter().map(|(_, cpu)| *cpu).collect();
        for load in &mut running {
            load.ready()?;
            let is_known = self
                .engine
                .machine()
                .processes()
                .add_root(load.pid(), Branch::whole(TREE));
            if is_known.is_none() {
                bail!(
                    "the load {} is not found in /proc: run dlpm in the host's pid namespace",
                    load.kind.as_str()
                );
            }
        }
        self.wait(settle, &mut running)?;
        // What was before belongs to no cell.
        let (_, begin) = self.interval(&running)?;
        let before = throttled(&self.sysfs, &cpus);
        self.wait(measured, &mut running)?;
        let (ledger, end) = self.interval(&running)?;
        let after = throttled(&self.sysfs, &cpus);
        let run = |((load, begin), end): ((&Running, Count), Count)| Run {
            load: load.kind,
            cpu: load.cpu,
            tgid: load.pid(),
            units: end.units.saturating_sub(begin.units),
            ns: end.at_ns.saturating_sub(begin.at_ns),
        };
        Ok(Cell {
            round,
            runs: running.iter().zip(begin).zip(end).map(run).collect(),
            throttled: before.zip(after).map(|(before, after)| after.saturating_sub(before)),
            on_battery: on_battery(&self.sysfs),
            ledger,
        })
    }

    /// Ends the open interval: what was in it, and what each load had done at its end.
    fn interval(&mut self, running: &[Running]) -> Result<(Ledger, Vec<Count>)> {
        let mut counts = Vec::new();
        self.engine
            .seal((), |_| counts = running.iter().map(Running::count).collect())?;
        let (interval, ()) = self.engine.oldest().context("there is no interval")?;
        self.engine.tidy(&[])?;
        let mut ledger = attribute(&interval, &self.options, &self.carries);
        self.carries = self.carries.after(&ledger);
        without_owner(&mut ledger);
        Ok((ledger, counts))
    }

    fn wait(&self, length: Duration, running: &mut [Running]) -> Result<()> {
        let end = Instant::now() + length;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                bail!("stopped by a signal: nothing may be concluded of a part of the cells");
            }
            for load in running.iter_mut() {
                load.alive()?;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(STEP));
        }
    }
}

/// Takes out who ran the validation and where: a file that is published beside a result needs neither.
fn without_owner(ledger: &mut Ledger) {
    for row in &mut ledger.rows {
        row.tenant = None;
        if let Some(shown) = &mut row.shown {
            shown.uid = None;
        }
        if let RowKey::Process(_, cgroup) = &mut row.key {
            *cgroup = Arc::from("/");
        }
    }
    ledger.cgroups = cgroup_sums(&ledger.rows, ledger.leaves.len());
}
