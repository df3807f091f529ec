//! `dlpm calibrate`: the power of the idle machine, zone by zone.

mod weights;

use std::{fmt::Write as _, path::Path, process::ExitCode, thread, time::Duration};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use super::caller;
use crate::{
    attribution::{
        energy_tree::{self, Carries, EnergyTree, Span},
        floors::{can_rest, mean_mw},
        gpus,
        ledger::RootZone,
    },
    cli::CalibrateArgs,
    interval::{GpuReading, ZoneKind, ZoneReading},
    log::date::date,
    sinks::{
        beside::as_user,
        terminal::{print, say},
    },
    sources::{
        calibration::{Calibration, CpuTicks, DEFAULT_PATH, MachineId},
        clock::monotonic_ns,
        energy::meter::{Found, Meter, find_meter},
        gpu::Gpus,
        topology::Topology,
    },
};

/// Meters are polled, and the CPUs looked at, this often.
const STEP: Duration = Duration::from_secs(1);

/// Runs the command; its errors are printed.
pub fn run(args: &CalibrateArgs) -> ExitCode {
    let done = if args.weights {
        weights::calibrate(args)
    } else {
        calibrate(args)
    };
    super::status(done.and_then(|text| Ok(print(&text)?)))
}

fn calibrate(args: &CalibrateArgs) -> Result<String> {
    let topology = Topology::read(&args.roots.sysfs);
    let Found {
        mut meter,
        choice,
        problems,
        ignored,
    } = find_meter(&args.roots.sysfs, args.energy_source, None, &topology)?;
    let mut gpus = Gpus::start(&args.gpus.options(&args.roots))?;
    if gpus.is_empty() && !meter.is_measured() {
        bail!(
            "there is nothing to calibrate. {choice} With an estimate, its idle watts are the floor; no calibration is \
             needed."
        );
    }
    for note in [&choice]
        .into_iter()
        .chain(&problems)
        .chain(&ignored)
        .chain(gpus.notes())
    {
        say(&format!("note: {note}"));
    }
    let at_start = leaves(&mut meter);
    if let Some((zone, reason)) = at_start
        .roots
        .iter()
        .filter(|root| root.kind == ZoneKind::Package)
        .find_map(|root| Some((&root.zone, root.energy_uj.as_ref().err()?)))
    {
        bail!("{zone} is not measured ({reason}): see `dlpm doctor`, then try again");
    }
    say(&format!(
        "measuring for {:?}: keep the machine idle meanwhile",
        args.duration
    ));
    // The baseline.
    drop(gpus.take());
    let (readings, length_ns, busy) = measure(args, &mut meter)?;
    let of_gpus = gpus.take();
    quiet(&of_gpus, length_ns, args.max_busy)?;
    let calibration = floors(&readings, &of_gpus, length_ns, busy, &args.roots.procfs)?;
    // Where every trace looks for it is root's; a file that the user names is the user's.
    let is_default = args.output == Path::new(DEFAULT_PATH);
    let identity = if is_default { None } else { caller::identity()? };
    as_user(identity, || calibration.store(&args.output))
        .and_then(|stored| stored)
        .with_context(|| {
            format!(
                "{} cannot be written: run as root, or name another file with --output",
                args.output.display()
            )
        })?;
    Ok(text(args, &calibration))
}

/// What the meters counted while the machine was quiet, for how long, and how quiet it was.
fn measure(args: &CalibrateArgs, meter: &mut Meter) -> Result<(Vec<ZoneReading>, u64, CpuTicks)> {
    let ticks = || {
        CpuTicks::read(&args.roots.procfs).with_context(|| {
            format!(
                "{} cannot be read: is /proc mounted?",
                args.roots.procfs.join("stat").display()
            )
        })
    };
    let (begin, begin_ns) = (ticks()?, monotonic_ns());
    // The baseline.
    drop(meter.take(begin_ns));
    let whole_ns = u64::try_from(args.duration.as_nanos())?;
    loop {
        let left_ns = whole_ns.saturating_sub(monotonic_ns().saturating_sub(begin_ns));
        thread::sleep(STEP.min(Duration::from_nanos(left_ns)));
        meter.poll(monotonic_ns());
        let passed = ticks()?.since(begin);
        let elapsed_ns = monotonic_ns().saturating_sub(begin_ns);
        // Refused as soon as quiet for the rest of the time could not make up for it.
        let whole_ticks = passed.total as f64 * (whole_ns as f64 / elapsed_ns as f64).max(1.0);
        if passed.busy as f64 * 100.0 > args.max_busy * whole_ticks {
            bail!(
                "the machine is not quiet: {:.1} % of CPU time was busy in the last {:.0} s, {} % is the limit over {:?}. \
                 Stop what runs (`dlpm trace --duration 10s` shows it), or accept a floor that contains it with \
                 --max-busy",
                passed.busy as f64 * 100.0 / passed.total.max(1) as f64,
                elapsed_ns as f64 / 1e9,
                args.max_busy,
                args.duration
            );
        }
        if elapsed_ns >= whole_ns {
            let end_ns = monotonic_ns();
            return Ok((meter.take_believed(end_ns), end_ns.saturating_sub(begin_ns), passed));
        }
    }
}

/// What is split of the zones that a meter has; their energy is of no interest here.
pub(super) fn leaves(meter: &mut Meter) -> EnergyTree {
    energy_tree::build(
        &meter.take_believed(monotonic_ns()),
        &Carries::default(),
        Span::default(),
    )
}

/// Refuses a GPU whose SMs were used for more than `max_busy` percent of the time.
fn quiet(gpus: &[GpuReading], length_ns: u64, max_busy: f64) -> Result<()> {
    for gpu in gpus {
        let sm_percent_us = gpu.processes.iter().map(|process| process.sm_percent_us).sum::<u64>();
        let busy = sm_percent_us as f64 * 1000.0 / length_ns.max(1) as f64;
        if busy > max_busy {
            bail!(
                "GPU {} ({}) is not quiet: its SMs were used for {busy:.1} % of the time, {max_busy} % is the limit. Stop                  what uses it (`nvidia-smi` shows it), or accept a floor that contains it with --max-busy",
                gpu.index,
                gpu.name
            );
        }
    }
    Ok(())
}

fn floors(
    readings: &[ZoneReading],
    of_gpus: &[GpuReading],
    length_ns: u64,
    busy: CpuTicks,
    procfs: &Path,
) -> Result<Calibration> {
    let now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
    let mut calibration = Calibration::new(
        MachineId::read(procfs),
        date(now, super::local_timezone()),
        length_ns,
        busy.busy_permille(),
    );
    let span = Span { length_ns, skew_ns: 0 };
    let tree = energy_tree::build(readings, &Carries::default(), span);
    let power_mw = |zone: &str, kind: ZoneKind, rest: bool, energy_uj: &Result<u64, String>| match energy_uj {
        Ok(0) if !can_rest(kind, rest) => {
            bail!(
                "{zone} counted nothing in {:.1} s, so it does not measure, and a floor of 0 W would be wrong: see \
                 `dlpm doctor`",
                length_ns as f64 / 1e9
            )
        }
        Ok(energy_uj) => Ok(mean_mw(u128::from(*energy_uj), length_ns)),
        Err(reason) => bail!("{zone} was not measured ({reason}): see `dlpm doctor`, then try again"),
    };
    // A part that is not known is in the floor of its whole package.
    let is_needed = |root: &&RootZone| match root.kind {
        ZoneKind::Core | ZoneKind::OneCore | ZoneKind::Uncore => root.energy_uj.is_ok(),
        // Nothing is split of it, and firmware does not always know its power.
        ZoneKind::Board => matches!(root.energy_uj, Ok(1..)),
        _ => true,
    };
    for root in tree.roots.iter().filter(is_needed) {
        calibration.roots_mw.insert(
            root.zone.clone(),
            power_mw(&root.zone, root.kind, false, &root.energy_uj)?,
        );
    }
    for leaf in &tree.leaves {
        match power_mw(&leaf.zone, leaf.kind, leaf.rest, &leaf.energy_uj) {
            Ok(floor_mw) => drop(calibration.floors_mw.insert(leaf.zone.clone(), floor_mw)),
            // No policy makes use of it, and a package without memory modules may have such a zone.
            Err(error) if leaf.method.is_by_memory() => say(&format!("note: no floor for this zone: {error}")),
            Err(error) => return Err(error),
        }
    }
    for gpu in of_gpus {
        let zone = gpus::zone_name(&gpu.uuid);
        let floor_mw = power_mw(&zone, ZoneKind::Gpu, false, &gpu.energy_uj)?;
        calibration.floors_mw.insert(zone, floor_mw);
    }
    Ok(calibration)
}

fn text(args: &CalibrateArgs, calibration: &Calibration) -> String {
    let mut text = format!(
        "Idle floor (measured in {:.1} s, {}.{} % of CPU time busy)\n",
        calibration.duration_ns as f64 / 1e9,
        calibration.busy_permille / 10,
        calibration.busy_permille % 10
    );
    let all = calibration.roots_mw.iter().chain(&calibration.floors_mw);
    let width = all.clone().map(|(zone, _)| zone.len()).max().unwrap_or(0);
    for (zone, milliwatts) in all {
        let _ = writeln!(
            text,
            "  {zone:width$}  {:>5}.{:03} W",
            milliwatts / 1000,
            milliwatts % 1000
        );
    }
    let _ = writeln!(
        text,
        "Written to {}; `dlpm trace{}` gives that power to the row idle (idle policy separate)",
        args.output.display(),
        if args.output == Path::new(DEFAULT_PATH) {
            String::new()
        } else {
            format!(" --calibration {}", args.output.display())
        }
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::MeterSource;

    #[test]
    fn what_is_only_shown_does_not_stop_a_calibration() {
        let zone = |zone: &str, kind, package, energy_uj: Result<u64, &str>| ZoneReading {
            zone: zone.to_owned(),
            kind,
            package,
            energy_uj: energy_uj.map_err(str::to_owned),
            counter_uj: None,
            range_uj: None,
            source: MeterSource::Powercap,
        };
        let procfs = tempfile::tempdir().unwrap();
        let floors = |readings: &[ZoneReading]| {
            let calibration = floors(readings, &[], 1_000_000_000, CpuTicks::default(), procfs.path())?;
            anyhow::Ok((calibration.roots_mw, calibration.floors_mw))
        };
        let mut readings = [
            zone("package-0", ZoneKind::Package, Some(0), Ok(9_000_000)),
            zone("package-0/core-0", ZoneKind::OneCore, Some(0), Ok(2_000_000)),
            zone("package-0/core-1", ZoneKind::OneCore, Some(0), Err("gone")),
            zone("module-0", ZoneKind::Board, None, Err("not known")),
        ];
        let (roots_mw, floors_mw) = floors(&readings).unwrap();
        assert_eq!(
            roots_mw.into_keys().collect::<Vec<_>>(),
            ["package-0", "package-0/core-0"]
        );
        assert_eq!(floors_mw, [("package-0/whole".to_owned(), 9_000)].into());
        // A core may rest, a package may not.
        readings[2].energy_uj = Ok(0);
        readings[3].energy_uj = Ok(70_000_000);
        let (roots_mw, floors_mw) = floors(&readings).unwrap();
        assert_eq!(roots_mw["module-0"], 70_000);
        assert_eq!(floors_mw["package-0/core-1"], 0);
        readings[0].energy_uj = Ok(0);
        assert!(
            floors(&readings)
                .unwrap_err()
                .to_string()
                .contains("package-0 counted nothing")
        );
    }
}
