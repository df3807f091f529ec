//! What 8 GPUs with 64 processes cost, beyond the time inside NVML.

use std::{fmt::Write, time::Duration};

use anyhow::{Context, Error, Result, bail};
use dlpm::sources::clock::monotonic_ns;
use dlpm_fake_nvml::{
    account,
    scenario::{Device, Scenario},
};

use super::{
    Programs,
    stats::{Spread, float},
    traced::Traced,
};
use dlpm_tests::{
    gpu::{FakeNvml, gpu, process},
    gpu_trace::Sleeper,
    worker::cpu_clock_ns,
};

/// Largest share of one core, in percent.
pub const LARGEST_PERCENT: f64 = 1.0;

const GPUS: usize = 8;

const PROCESSES: usize = 64;

/// Intervals at the start that are not counted: dlpm learns who is there.
const WARM_UP: usize = 3;

const INTERVAL: Duration = Duration::from_secs(1);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Alternating rounds.
    pub rounds: usize,
    /// Intervals of each measurement.
    pub intervals: usize,
}

/// CPU time of dlpm in one measurement.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// All threads, by the kernel's clock of the process.
    cpu_ns: f64,
    /// The part of it inside the library.
    inside_ns: f64,
    calls: f64,
    /// By the row `self`, of the same intervals.
    row_ns: f64,
    length_ns: f64,
}

impl Cost {
    /// Share of one core without the library, in percent.
    fn percent(&self) -> f64 {
        (self.cpu_ns - self.inside_ns) / self.length_ns * 100.0
    }
}

/// Measures and prints. Whether each kind of GPU is within [`LARGEST_PERCENT`].
///
/// # Errors
///
/// Where dlpm cannot trace, or the library does not tell the time inside it.
pub fn run(programs: &Programs, options: &Options) -> Result<bool> {
    let sleepers = Sleeper::many(PROCESSES);
    let fake = |energy_counter: bool| {
        let devices = (0..GPUS).map(|index| {
            let here = sleepers.iter().skip(index).step_by(GPUS);
            let mut device = gpu(index, 300, here.map(|sleeper| process(sleeper.pid(), 12)).collect());
            if !energy_counter {
                device.unsupported.push("nvmlDeviceGetTotalEnergyConsumption".into());
            }
            device
        });
        let devices: Vec<Device> = devices.collect();
        FakeNvml::play(Scenario {
            devices,
            account: true,
            ..Scenario::default()
        })
    };
    let kinds = [
        "none",
        "with an energy counter",
        "without one: power, 20 times a second",
    ];
    let mut costs = vec![Vec::new(); kinds.len()];
    for round in 1..=options.rounds {
        for (position, costs) in costs.iter_mut().enumerate() {
            let fake = (position > 0).then(|| fake(position == 1));
            let cost = measure(programs, options, fake.as_ref())?;
            eprintln!("round {round}, GPUs {}: {:.3} %", kinds[position], cost.percent());
            costs.push(cost);
        }
    }
    print(options, kinds, &costs)
}

fn measure(programs: &Programs, options: &Options, fake: Option<&FakeNvml>) -> Result<Cost> {
    let arguments = match fake {
        Some(fake) => vec![
            "--gpu".to_owned(),
            "all".to_owned(),
            "--nvml-library".to_owned(),
            fake.library().display().to_string(),
        ],
        None => vec!["--gpu".to_owned(), "none".to_owned()],
    };
    let mut trace = Traced::start(&programs.dlpm, INTERVAL, &arguments)?;
    let first = trace.intervals() + WARM_UP;
    trace.wait_for(first)?;
    let now = |trace: &Traced| -> Result<(u64, u64, (u64, u64))> {
        let inside = fake.map_or(Ok((0, 0)), |fake| account::read(&fake.library()));
        let inside = inside
            .map_err(Error::msg)
            .context("the time inside the library is not known")?;
        Ok((monotonic_ns(), cpu_clock_ns(trace.pid()), inside))
    };
    let begin = now(&trace)?;
    let last = first + options.intervals;
    trace.wait_for(last)?;
    let end = now(&trace)?;
    if fake.is_some() && end.2.1 == begin.2.1 {
        bail!("dlpm has not asked the library anything");
    }
    let lines = trace.finish()?;
    let counted = lines.get(first..last).context("the log has lost intervals")?;
    Ok(Cost {
        length_ns: float(end.0 - begin.0),
        cpu_ns: float(end.1 - begin.1),
        inside_ns: float(end.2.0 - begin.2.0),
        calls: float(end.2.1 - begin.2.1),
        row_ns: float(counted.iter().map(|line| line.self_ns).sum()),
    })
}

fn print(options: &Options, kinds: [&str; 3], costs: &[Vec<Cost>]) -> Result<bool> {
    let mut table = String::from(
        "| GPUs | CPU time of dlpm, ms per interval | by the row `self`, ms | of it inside the library, ms | calls per \
         interval | % of one core beyond the library | beyond `--gpu none`, of the same round |\n|---|---|---|---|---|---|---|\n",
    );
    let without = &costs[0];
    let mut within = true;
    for (kind, costs) in kinds.iter().zip(costs) {
        let spread = |of: &dyn Fn(&Cost) -> f64| {
            let values = costs.iter().map(of);
            Spread::of(values).context("nothing was measured")
        };
        #[expect(clippy::cast_precision_loss, reason = "a number of intervals")]
        let intervals = options.intervals as f64;
        let more = costs
            .iter()
            .zip(without)
            .map(|(cost, without)| cost.percent() - without.percent());
        let more = Spread::of(more).context("nothing was measured")?;
        // Of all that dlpm does, not only of what GPUs add: that could hide in the noise of the rest.
        let percent = spread(&Cost::percent)?;
        within &= percent.median < LARGEST_PERCENT;
        let _ = writeln!(
            table,
            "| {kind} | {} | {} | {} | {} | {} | {} |",
            spread(&|cost| cost.cpu_ns / intervals)?.show(1e-6, 2),
            spread(&|cost| cost.row_ns / intervals)?.show(1e-6, 2),
            spread(&|cost| cost.inside_ns / intervals)?.show(1e-6, 2),
            spread(&|cost| cost.calls / intervals)?.show(1.0, 0),
            percent.show(1.0, 3),
            more.show(1.0, 3),
        );
    }
    println!(
        "{}\n{GPUS} GPUs of the fake library, {PROCESSES} processes on them, which sleep; {} rounds, alternating, of {} \
         intervals of {} ms; median (min to max).\n\n{table}",
        super::machine()?,
        options.rounds,
        options.intervals,
        INTERVAL.as_millis()
    );
    Ok(within)
}
