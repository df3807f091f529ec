//! `dlpm validate`: runs loads alone and in pairs, and says how wrong each method is about them.

pub mod load;
pub mod measure;
mod place;
pub mod shown;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustix::thread::{CpuSet, sched_getaffinity};

use self::{
    measure::{Bench, Cells},
    place::{Allowed, Place, Wanted},
};
use super::{calibrate, caller, counters::Counters, local_timezone, prepare};
use crate::{
    causes::told,
    cli::ValidateArgs,
    engine::Engine,
    interval::{MeterSource, ZoneKind},
    log::date::date,
    sinks::{
        beside,
        terminal::{self, print, say},
        writer::Identity as Caller,
    },
    sources::{
        cgroups::CgroupTree,
        clock::unix_ns,
        conditions,
        cpu_model::cpu_model,
        cpu_time::MapSizes,
        energy::meter::{Found, Meter, find_meter},
        gpu::{GpuOptions, GpuSelection, Gpus},
        memory::machine_memory,
        topology::Topology,
    },
    validate::{
        Cell, LoadKind, Refusal, Why,
        file::{self, FILE_NAME, FORMAT, Header, Limits, Machine},
        loads::Load,
        plan, show,
        verdict::{Verdict, refusals},
    },
};

/// The exit status of a refusal.
const REFUSED: u8 = 3;

/// Columns where there is no terminal.
const WIDTH: u16 = 140;

/// So many times the last cache are more than it can hold.
const TIMES_CACHE: u64 = 8;

/// A cache of this size is assumed where none is known.
const USUAL_CACHE_BYTES: u64 = 32 << 20;

/// The part of the memory that is free, that two loads may take each.
const PART_OF_MEMORY: u64 = 8;

/// Runs the command; its errors are printed.
pub fn run(args: &ValidateArgs) -> ExitCode {
    match validate(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(REFUSED),
        Err(error) => {
            if let Some(refusal) = error.downcast_ref::<Refusal>() {
                say(&format!("refused: {refusal}"));
                return ExitCode::from(REFUSED);
            }
            say(&told(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Whether something may be concluded.
fn validate(args: &ValidateArgs) -> Result<bool> {
    let roots = &args.roots;
    prepare::check(roots)?;
    let loads = loads(args)?;
    let topology = Topology::read(&roots.sysfs);
    let mut meter = meter(args, &topology)?;
    let metered = metered(&mut meter);
    let place = place(args, &meter, &metered, &topology)?;
    if conditions::on_battery(&roots.sysfs) {
        bail!(Refusal::new(
            Why::Battery,
            "the machine runs on battery, which saves power as it empties"
        ));
    }
    let filtering = conditions::energy_filtering(&roots.rootfs, &roots.procfs, place.cpus[0]);
    if filtering == Some(true) {
        bail!(Refusal::new(
            Why::EnergyFiltering,
            "the processor adds noise to its energy counters (its register says so, or it has SGX and the module msr, \
             which shows the register, is not loaded)"
        ));
    }
    let output = Output::of(args)?;
    // Threads that are started from now on stay here as well.
    load::bind(place.cpus[2])?;
    let gpus = Gpus::start(&GpuOptions {
        selection: GpuSelection::None,
        sysfs: roots.sysfs.clone(),
        ..GpuOptions::default()
    })?;
    let counters = Counters::prepare(&args.counters, roots, &args.calibration);
    for note in &counters.notes {
        say(&format!("note: {note}"));
    }
    let mut config = prepare::config(roots, false, MapSizes::default());
    config.cpu_time.events = counters.events;
    let mut engine = Engine::start(&config, CgroupTree::find(&roots.procfs)?, meter, gpus)?;
    let memory_bytes = memory_bytes(&roots.sysfs, &roots.procfs, place.cpus[0]);
    let header = Header {
        validation: FORMAT,
        dlpm: env!("CARGO_PKG_VERSION").to_owned(),
        date: date(i64::try_from(Timestamp::now().as_nanosecond())?, local_timezone()),
        machine: Machine {
            cpu_model: cpu_model(&roots.procfs),
            microcode: conditions::microcode(&roots.procfs),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        },
        source: metered.get(&place.package).copied().unwrap_or(MeterSource::Powercap),
        package: place.package,
        cpus: place.cpus,
        shares_core: place.shares_core,
        smt: !topology.siblings().is_empty(),
        energy_filtering: filtering,
        details: loads
            .iter()
            .map(|load| Load::detail(*load, usize::try_from(memory_bytes).unwrap_or(usize::MAX)))
            .collect(),
        loads,
        rounds: args.rounds.unwrap_or(if args.quick { 3 } else { 5 }),
        cell_ns: u64::try_from(cell(args).as_nanos())?,
        settle_ns: u64::try_from(settle(cell(args)).as_nanos())?,
        seed: args.seed.unwrap_or_else(random_seed),
        limits: Limits {
            foreign_permille: args.max_foreign,
            idle_permille: args.max_idle_change,
            single_permille: args.max_uncertainty,
            slowdown_permille: args.max_slowdown,
        },
        identity: engine.machine().cpu_time().identity().0,
    };
    // Before anything is measured it is known whether it can be kept.
    output.write(&header, &[], None)?;
    let cells = Cells {
        settle: settle(cell(args)),
        measured: cell(args) - settle(cell(args)),
        memory_bytes,
    };
    let mut bench = Bench::new(engine, cells, roots.sysfs.clone(), counters.weights)?;
    let cells = measure(&mut bench, &header, &output)?;
    let verdict = Verdict::of(&header, &cells);
    output.write(&header, &cells, Some(&verdict))?;
    let width = terminal::columns().map_or(WIDTH, |columns| columns.max(80));
    print(&show::text(&header, &verdict, width))?;
    say(&format!(
        "written to {}: `dlpm verify` proves it, `dlpm report` shows it again",
        output.folder.join(FILE_NAME).display()
    ));
    for refusal in &verdict.refusals {
        say(&format!("refused: {refusal}"));
    }
    Ok(verdict.holds())
}

/// All cells, or those up to the one that shows that the others are not worth the time.
fn measure(bench: &mut Bench, header: &Header, output: &Output) -> Result<Vec<Cell>> {
    let rounds = plan::rounds(&header.loads, header.rounds, header.seed);
    let all: usize = rounds.iter().map(Vec::len).sum();
    let left_s = |done: usize| (all - done) as u64 * header.cell_ns / 1_000_000_000;
    say(&format!(
        "{all} cells of {:.1} s, about {} minutes, seed {}: leave the machine alone meanwhile",
        header.cell_ns as f64 / 1e9,
        left_s(0).div_ceil(60),
        header.seed
    ));
    let mut cells = Vec::new();
    for (round, planned) in (0..).zip(&rounds) {
        for loads in planned {
            if terminal::has_terminal() {
                terminal::overwrite(&format!(
                    "round {} of {}: {}, {} s left",
                    round + 1,
                    rounds.len(),
                    show::beside(loads),
                    left_s(cells.len())
                ));
            }
            let placed: Vec<_> = loads.iter().copied().zip(header.cpus).collect();
            let cell = bench.cell(round, &placed);
            if terminal::has_terminal() {
                terminal::overwrite("");
            }
            cells.push(cell?);
            if !refusals(header, &cells).is_empty() {
                return Ok(cells);
            }
        }
        output.write(header, &cells, None)?;
    }
    Ok(cells)
}

fn loads(args: &ValidateArgs) -> Result<Vec<LoadKind>> {
    let mut loads = match (args.loads.is_empty(), args.quick) {
        (false, _) => args.loads.clone(),
        (true, true) => LoadKind::QUICK.to_vec(),
        (true, false) => LoadKind::ALL.to_vec(),
    };
    loads.sort_unstable();
    loads.dedup();
    if loads.len() < 2 {
        bail!("--loads names one load: a pair needs two different ones");
    }
    Ok(loads)
}

fn meter(args: &ValidateArgs, topology: &Topology) -> Result<Meter> {
    let found = match find_meter(&args.roots.sysfs, args.energy_source, None, topology) {
        Ok(found) => found,
        Err(error) if error.is_absent() => bail!(Refusal::new(Why::NoMeter, sentence(&error.to_string()))),
        Err(error) => return Err(error.into()),
    };
    let Found {
        meter,
        choice,
        problems,
        ..
    } = found;
    if !meter.is_measured() {
        bail!(Refusal::new(Why::NoMeter, sentence(&choice)));
    }
    for problem in problems {
        say(&format!("note: {problem}"));
    }
    Ok(meter)
}

fn sentence(text: &str) -> String {
    text.trim_end_matches('.').to_owned()
}

/// The packages whose energy is known, and who reads it.
fn metered(meter: &mut Meter) -> BTreeMap<u32, MeterSource> {
    let tree = calibrate::leaves(meter);
    let roots = tree
        .roots
        .iter()
        .filter(|root| root.kind == ZoneKind::Package && root.energy_uj.is_ok());
    roots.filter_map(|root| Some((root.package?, root.source))).collect()
}

fn place(
    args: &ValidateArgs,
    meter: &Meter,
    metered: &BTreeMap<u32, MeterSource>,
    topology: &Topology,
) -> Result<Place> {
    if metered.is_empty() {
        bail!(Refusal::new(Why::NoMeter, "no package of the machine is measured"));
    }
    let may_use = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    let is_allowed = |cpu: &u32| usize::try_from(*cpu).is_ok_and(|cpu| cpu < CpuSet::MAX_CPU && may_use.is_set(cpu));
    let online = topology.online_cpus().iter().copied().filter(is_allowed);
    let allowed: Allowed = online
        .filter_map(|cpu| Some((cpu, meter.package_of(cpu, topology)?)))
        .collect();
    let wanted = Wanted {
        cpus: args.cpus,
        share_core: args.share_core,
    };
    let metered: Vec<u32> = metered.keys().copied().collect();
    Ok(place::choose(wanted, &allowed, &metered, topology, &args.roots.sysfs)?)
}

fn cell(args: &ValidateArgs) -> Duration {
    args.cell
        .unwrap_or(Duration::from_secs(if args.quick { 7 } else { 12 }))
}

fn settle(cell: Duration) -> Duration {
    (cell / 4).min(Duration::from_secs(2))
}

/// Memory that a load of memory goes through: more than the last cache holds, and not all that is free.
pub fn memory_bytes(sysfs: &Path, procfs: &Path, cpu: u32) -> u64 {
    let cache = conditions::last_cache_bytes(sysfs, cpu).unwrap_or(USUAL_CACHE_BYTES);
    let wanted = cache.saturating_mul(TIMES_CACHE);
    let free = machine_memory(procfs).map_or(u64::MAX, |memory| memory.available_bytes / PART_OF_MEMORY);
    if wanted > free {
        say(&format!(
            "note: the loads of memory go through {} MiB, which is less than {TIMES_CACHE} times the last cache ({} MiB), \
             since no more memory is free",
            free >> 20,
            cache >> 20
        ));
    }
    wanted.min(free)
}

/// Any number will do: it only has to differ from run to run.
pub fn random_seed() -> u64 {
    unix_ns().unsigned_abs() % 1_000_000_000
}

/// Where the result goes.
struct Output {
    folder: PathBuf,
    caller: Option<Caller>,
}

impl Output {
    fn of(args: &ValidateArgs) -> Result<Self> {
        let folder = args.output.clone().unwrap_or_else(|| {
            let now = Timestamp::now().to_zoned(local_timezone().clone());
            PathBuf::from(now.strftime("dlpm-validation-%Y%m%d-%H%M%S").to_string())
        });
        if !args.overwrite && folder.join(FILE_NAME).symlink_metadata().is_ok() {
            bail!(
                "{} already holds a validation; choose another folder with --output, or replace it with --overwrite",
                folder.display()
            );
        }
        Ok(Self {
            folder,
            caller: caller::identity()?,
        })
    }

    fn write(&self, header: &Header, cells: &[Cell], verdict: Option<&Verdict>) -> Result<()> {
        let text = file::text(header, cells, verdict).context("the cells cannot be written as JSON")?;
        Ok(beside::write(&self.folder, FILE_NAME, &text, self.caller.clone())?)
    }
}
