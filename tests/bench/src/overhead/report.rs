//! The tables of `bench overhead`, and its bounds.

use std::fmt::Write;

use anyhow::{Context, Result};

use dlpm_tests::worker::cpu_clock_ns;

use super::{
    Measured, Options, PIECES, Sample,
    contender::{Contender, SOFTWARE},
};
use crate::{
    machine,
    stats::{Spread, float},
};

/// dlpm's part of what bpftrace costs, at most, beyond the empty program.
const OF_BPFTRACE: f64 = 1.0 / 3.0;

/// dlpm's multiple of the floor, at most, beyond the empty program.
const OF_FLOOR: f64 = 1.25;

/// dlpm's part of what bpftrace slows the ping-pong down, at most.
const OF_SLOWDOWN: f64 = 0.5;

/// What three counted events make of dlpm's cost, at most, both beyond the empty program.
const OF_UNCOUNTED: f64 = 2.5;

/// What `on_switch` with three counted events slows the ping-pong down, at most, as a part of what bpftrace does.
const COUNTING_OF_SLOWDOWN: f64 = 1.0;

/// Looks at all processes, once a second.
const SCANS: usize = 6;

/// CPU time of one look at all processes in milliseconds, for what has a user side.
pub struct Scans {
    name: String,
    cpu_ms: Spread,
    processes: Option<u64>,
}

/// Measures what a scan of `/proc` costs each second, and an interval of dlpm on the same machine.
///
/// # Errors
///
/// Where one of them does not work.
pub fn scans(options: &Options, measured: &[Measured]) -> Result<Vec<Scans>> {
    let mut scans = Vec::new();
    for Measured { contender, .. } in measured {
        if !matches!(contender, Contender::Psutil | Contender::Trace(_)) {
            continue;
        }
        let mut running = contender.start(&options.yardsticks)?;
        let mut cpu_ns = Vec::new();
        let mut processes = None;
        // The first look fills caches.
        for _ in 0..=SCANS {
            if let Some(trace) = running.trace() {
                let (intervals, begin_ns) = (trace.intervals(), cpu_clock_ns(trace.pid()));
                trace.wait_for(intervals + 1)?;
                cpu_ns.push(float(cpu_clock_ns(trace.pid()) - begin_ns));
            } else {
                let line = running.line().context("psutil has ended")?;
                let mut numbers = line.split_whitespace().map(str::parse::<u64>);
                processes = Some(numbers.next().context("no number of processes")??);
                cpu_ns.push(float(numbers.next().context("no CPU time")??));
            }
        }
        scans.push(Scans {
            name: contender.name(),
            cpu_ms: Spread::of(cpu_ns.into_iter().skip(1)).context("no scan")?,
            processes,
        });
    }
    Ok(scans)
}

/// Prints. Whether every bound holds that can be judged.
///
/// # Errors
///
/// Where nothing was measured.
pub fn print(options: &Options, measured: &[Measured], left_out: &[String], scans: &[Scans]) -> Result<bool> {
    println!(
        "{}\n{} rounds, alternating, of {PIECES} pieces of {} round trips for each figure (the median for a program, \
         the fastest for the ping-pong); in the table: median (min to max) of the rounds.\n",
        machine()?,
        options.rounds,
        options.round_trips
    );
    println!("{}", table(measured)?);
    for reason in left_out {
        println!("Left out: {reason}");
    }
    let mut text = String::from("| each second | processes | CPU time, ms |\n|---|---|---|\n");
    for scan in scans {
        let processes = scan
            .processes
            .map_or_else(String::new, |processes| processes.to_string());
        let _ = writeln!(text, "| {} | {processes} | {} |", scan.name, scan.cpu_ms.show(1e-6, 2));
    }
    println!("{text}");
    bounds(measured)
}

fn table(measured: &[Measured]) -> Result<String> {
    let samples = |contender| samples_of(measured, &contender);
    let empty = samples(Contender::Yardstick("empty")).context("nothing was measured")?;
    let floor = samples(Contender::Yardstick("floor")).context("nothing was measured")?;
    let mut table = String::from(
        "| at `sched_switch` | ns per run | beyond the empty program | of the floor's | ping-pong, ns per switch | slower than right before, % \
         |\n|---|---|---|---|---|---|\n",
    );
    for Measured { contender, samples } in measured {
        let spread = |of: &dyn Fn(usize) -> f64| Spread::of((0..samples.len()).map(of)).context("no round");
        let (mut program, mut beyond, mut of_floor) = Default::default();
        if contender.has_program() {
            program = spread(&|round| samples[round].program_ns)?.show(1.0, 0);
            if *contender != Contender::Yardstick("empty") {
                beyond = spread(&|round| beyond_empty(samples, empty, round))?.show(1.0, 0);
                of_floor = spread(&|round| beyond_empty(samples, empty, round) / beyond_empty(floor, empty, round))?
                    .show(1.0, 2);
            }
        }
        let slower = spread(&|round| samples[round].slower())?;
        let _ = writeln!(
            table,
            "| {} | {program} | {beyond} | {of_floor} | {} | {} |",
            contender.name(),
            spread(&|round| samples[round].switch_ns)?.show(1.0, 0),
            slower.show(1.0, 1)
        );
    }
    Ok(table)
}

fn samples_of<'a>(measured: &'a [Measured], contender: &Contender) -> Option<&'a [Sample]> {
    let found = measured.iter().find(|measured| measured.contender == *contender)?;
    Some(&found.samples)
}

fn beyond_empty(samples: &[Sample], empty: &[Sample], round: usize) -> f64 {
    samples[round].program_ns - empty[round].program_ns
}

/// Each bound is on the median of the ratios of single rounds, but for the ping-pong.
fn bounds(measured: &[Measured]) -> Result<bool> {
    let samples = |contender| samples_of(measured, &contender);
    let required = |contender| samples(contender).context("nothing was measured");
    let empty = required(Contender::Yardstick("empty"))?;
    let floor = required(Contender::Yardstick("floor"))?;
    let dlpm = required(Contender::Programs { siblings: false })?;
    let trace = measured.iter().find(|one| matches!(one.contender, Contender::Trace(_)));
    let trace = &trace.context("nothing was measured")?.samples;
    let rounds = 0..dlpm.len();
    let ratio = |of: &dyn Fn(usize) -> f64| Spread::of(rounds.clone().map(of)).context("no round");
    let mut within = true;
    let mut judge = |what: &str, ratio: Spread, bound: f64| {
        let holds = ratio.median <= bound;
        within &= holds;
        println!(
            "{}: {what}: {}, at most {bound:.2}",
            if holds { "within" } else { "BEYOND" },
            ratio.show(1.0, 2)
        );
    };
    let of_floor = ratio(&|round| beyond_empty(dlpm, empty, round) / beyond_empty(floor, empty, round))?;
    judge(
        "dlpm's `on_switch` against the floor, both beyond the empty program",
        of_floor,
        OF_FLOOR,
    );
    let counting = required(Contender::Counting(SOFTWARE))?;
    let of_uncounted = ratio(&|round| beyond_empty(counting, empty, round) / beyond_empty(dlpm, empty, round))?;
    judge(
        "`on_switch` with three counted events against it without any, both beyond the empty program",
        of_uncounted,
        OF_UNCOUNTED,
    );
    let Some(bpftrace) = samples(Contender::Bpftrace) else {
        println!("Not judged: three bounds against bpftrace, which is not there");
        return Ok(false);
    };
    let of_bpftrace = ratio(&|round| beyond_empty(dlpm, empty, round) / beyond_empty(bpftrace, empty, round))?;
    judge(
        "dlpm's `on_switch` against bpftrace, both beyond the empty program",
        of_bpftrace,
        OF_BPFTRACE,
    );
    // Of medians: a single round's slowdown by bpftrace may be next to nothing on a machine with other work.
    let slower = |samples: &[Sample]| Spread::of(samples.iter().map(Sample::slower)).context("no round");
    let bpftrace = slower(bpftrace)?.median;
    for (what, samples, bound) in [
        ("what `dlpm trace` slows", trace.as_slice(), OF_SLOWDOWN),
        (
            "what `on_switch` with three counted events slows",
            counting,
            COUNTING_OF_SLOWDOWN,
        ),
    ] {
        let ratio = Spread::of([slower(samples)?.median / bpftrace]).context("no round")?;
        judge(
            &format!("{what} the ping-pong down, against bpftrace, by medians"),
            ratio,
            bound,
        );
    }
    Ok(within)
}
