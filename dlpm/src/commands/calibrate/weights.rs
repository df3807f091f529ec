//! `dlpm calibrate --weights`: what perf events weigh, from loads whose energy the meters read.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustix::thread::{CpuSet, sched_getaffinity};

use crate::{
    attribution::{counters::Weights, floors::mean_mw, ledger::Ledger},
    cli::CalibrateArgs,
    commands::{
        caller, local_timezone, prepare,
        validate::{
            measure::{Bench, Cells},
            memory_bytes, random_seed,
        },
    },
    engine::Engine,
    interval::ZoneKind,
    log::date::date,
    sinks::{
        beside::as_user,
        terminal::{self, say},
    },
    sources::{
        calibration::{DEFAULT_PATH, MachineId, StoredWeights, weights_path},
        cgroups::CgroupTree,
        cpu_time::MapSizes,
        energy::meter::{Meter, find_meter},
        events,
        gpu::{GpuOptions, GpuSelection, Gpus},
        topology::Topology,
    },
    validate::{LoadKind, random::Random, show},
    weights::{self, Fitted, Observation},
};

/// Each load runs so often on each number of CPUs.
const ROUNDS: usize = 2;

/// Loads of a run, each with its CPU. None: the idle machine.
type Run = Vec<(LoadKind, u32)>;

/// Measures, fits and stores: what there is to say.
pub fn calibrate(args: &CalibrateArgs) -> Result<String> {
    let roots = &args.roots;
    prepare::check(roots)?;
    let topology = Topology::read(&roots.sysfs);
    let found = find_meter(&roots.sysfs, args.energy_source, None, &topology)?;
    let mut meter = found.meter;
    has_packages(&mut meter, &found.choice)?;
    for note in found.problems.iter().chain([&found.choice]) {
        say(&format!("note: {note}"));
    }
    let opened = events::open(&roots.sysfs, &args.counters);
    for (name, reason) in &opened.missing {
        say(&format!("note: {name} is not counted: {reason}"));
    }
    if opened.events.is_empty() {
        bail!("no event is counted on this machine, so there is nothing to weigh; energy is split by CPU time here");
    }
    if opened.is_hybrid {
        bail!(
            "the cores of this processor are of two kinds, and one weight cannot be right for both; energy is split by CPU \
             time here"
        );
    }
    let names: Vec<String> = opened.events.iter().map(|event| event.name.clone()).collect();
    let cpus = cpus(&topology);
    let memory_bytes = memory_bytes(&roots.sysfs, &roots.procfs, cpus[0]) / u64::try_from(cpus.len())?.max(1);
    let runs = runs(&cpus, random_seed());
    let mut config = prepare::config(roots, false, MapSizes::default());
    config.cpu_time.events = opened.events;
    let gpus = Gpus::start(&GpuOptions {
        selection: GpuSelection::None,
        sysfs: roots.sysfs.clone(),
        ..GpuOptions::default()
    })?;
    let engine = Engine::start(&config, CgroupTree::find(&roots.procfs)?, meter, gpus)?;
    let settle = args.cell / 4;
    let cells = Cells {
        settle,
        measured: args.cell - settle,
        memory_bytes,
    };
    let mut bench = Bench::new(engine, cells, roots.sysfs.clone(), None)?;
    let measured = measure(&mut bench, &runs, args.cell)?;
    let (fitted, idle_mw) = fit(&measured, names.len())?;
    let now = i64::try_from(Timestamp::now().as_nanosecond())?;
    let weights = Weights {
        idle_mw,
        ..fitted.weights.clone()
    };
    let mut stored = StoredWeights::new(
        MachineId::read(&roots.procfs),
        date(now, local_timezone()),
        names,
        weights,
    );
    stored.fitted_runs = fitted.fitted;
    stored.held_out_runs = fitted.held_out;
    stored.held_out_error_permille = fitted.held_out_error_permille;
    let path = weights_path(&args.output);
    let identity = if args.output == Path::new(DEFAULT_PATH) {
        None
    } else {
        caller::identity()?
    };
    as_user(identity, || stored.store(&path))
        .and_then(|stored| stored)
        .with_context(|| {
            format!(
                "{} cannot be written: run as root, or name another file beside it with --output",
                path.display()
            )
        })?;
    Ok(text(&stored, &fitted, &path))
}

/// That a package's energy is known.
fn has_packages(meter: &mut Meter, choice: &str) -> Result<()> {
    let tree = super::leaves(meter);
    let mut packages = tree.roots.iter().filter(|root| root.kind == ZoneKind::Package);
    if !meter.is_measured() || !packages.any(|root| root.energy_uj.is_ok()) {
        bail!("no CPU package of this machine is measured, so nothing can be weighed. {choice}");
    }
    Ok(())
}

/// The CPUs that may be used: one of each core first, then the others.
fn cpus(topology: &Topology) -> Vec<u32> {
    let may_use = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    let is_allowed = |cpu: &u32| usize::try_from(*cpu).is_ok_and(|cpu| cpu < CpuSet::MAX_CPU && may_use.is_set(cpu));
    let (mut cores, mut others): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
    for cpu in topology.online_cpus().iter().copied().filter(is_allowed) {
        if cores.iter().any(|core| topology.share_core(*core, cpu)) {
            others.push(cpu);
        } else {
            cores.push(cpu);
        }
    }
    cores.extend(others);
    if cores.is_empty() { vec![0] } else { cores }
}

/// Each load on one, half and all CPUs, and the idle machine once more than there are rounds, in random order within each
/// round.
fn runs(cpus: &[u32], seed: u64) -> Vec<Run> {
    let mut random = Random::new(seed);
    let mut counts = vec![1, cpus.len().div_ceil(2), cpus.len()];
    counts.dedup();
    let mut runs = vec![Vec::new()];
    for _ in 0..ROUNDS {
        let mut round: Vec<Run> = vec![Vec::new()];
        for load in LoadKind::ALL {
            round.extend(
                counts
                    .iter()
                    .map(|count| cpus.iter().take(*count).map(|cpu| (load, *cpu)).collect()),
            );
        }
        random.shuffle(&mut round);
        runs.extend(round);
    }
    runs
}

fn measure(bench: &mut Bench, runs: &[Run], length: Duration) -> Result<Vec<(bool, Ledger)>> {
    let left_s = |done: usize| (runs.len() - done) as f64 * length.as_secs_f64();
    say(&format!(
        "{} runs of {length:?}, about {:.0} s: leave the machine alone meanwhile",
        runs.len(),
        left_s(0)
    ));
    let mut measured = Vec::new();
    for (done, run) in runs.iter().enumerate() {
        if terminal::has_terminal() {
            let load = run.first().map(|(load, _)| *load);
            terminal::overwrite(&format!(
                "{} on {} CPUs, {:.0} s left",
                show::beside(load.as_slice()),
                run.len(),
                left_s(done)
            ));
        }
        let cell = bench.cell(0, run);
        if terminal::has_terminal() {
            terminal::overwrite("");
        }
        measured.push((run.is_empty(), cell?.ledger));
    }
    Ok(measured)
}

/// The weights, and the mean power of each idle package in mW.
fn fit(measured: &[(bool, Ledger)], events: usize) -> Result<(Fitted, BTreeMap<String, u64>)> {
    let mut idle: BTreeMap<String, (u128, u64)> = BTreeMap::new();
    for ledger in measured
        .iter()
        .filter_map(|(is_idle, ledger)| is_idle.then_some(ledger))
    {
        for root in ledger.roots.iter().filter(|root| root.kind == ZoneKind::Package) {
            if let Ok(energy_uj) = root.energy_uj {
                let (sum_uj, sum_ns) = idle.entry(root.zone.clone()).or_default();
                *sum_uj += u128::from(energy_uj);
                *sum_ns = sum_ns.saturating_add(ledger.length_ns());
            }
        }
    }
    let idle_mw: BTreeMap<String, u64> = idle
        .into_iter()
        .map(|(zone, (sum_uj, sum_ns))| (zone, mean_mw(sum_uj, sum_ns)))
        .collect();
    let mut observations: Vec<Observation> = Vec::new();
    for ledger in measured
        .iter()
        .filter_map(|(is_idle, ledger)| (!is_idle).then_some(ledger))
    {
        observations.extend(weights::observations(ledger, &idle_mw).map_err(|reason| refused(&reason))?);
    }
    let fitted = weights::fit(&observations, events).map_err(|reason| refused(&reason))?;
    Ok((fitted, idle_mw))
}

fn refused(reason: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "no weights were stored: {reason}. Stop what runs on the machine, let it cool, and try again with longer runs \
         (--cell 20s); until then energy is split by CPU time"
    )
}

fn text(stored: &StoredWeights, fitted: &Fitted, path: &Path) -> String {
    let percent = |permille: u64| format!("{}.{} %", permille / 10, permille % 10);
    let mut text = format!(
        "Weights (fitted to {} runs; wrong by {} on average about {} others, and time alone by {})\n",
        fitted.fitted,
        percent(fitted.held_out_error_permille),
        fitted.held_out,
        percent(fitted.by_time_error_permille)
    );
    let events = stored.events.iter().zip(stored.weights.fj_per_event.0);
    let width = stored
        .events
        .iter()
        .map(String::len)
        .max()
        .unwrap_or(0)
        .max("a busy CPU".len());
    let _ = writeln!(
        text,
        "  {:width$}  {:>10.3} W",
        "a busy CPU",
        stored.weights.fj_per_ns as f64 / 1e6
    );
    for (event, fj) in events {
        let _ = writeln!(text, "  {event:width$}  {:>10.3} nJ each", fj as f64 / 1e6);
    }
    for (zone, idle_mw) in &stored.weights.idle_mw {
        let _ = writeln!(text, "  {zone:width$}  {:>10.3} W idle", *idle_mw as f64 / 1e3);
    }
    let _ = writeln!(
        text,
        "Written to {}: `dlpm trace --counters={}` splits the energy of the CPUs by them",
        path.display(),
        stored.events.join(",")
    );
    text
}
