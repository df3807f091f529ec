//! How long a start takes, and the memory at its peak: each program traces nothing, or `true`, and ends.

use std::{
    io,
    mem::MaybeUninit,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::{
    overhead::Tracefs,
    stats::{Spread, float},
};

/// Memory of a start at its peak, at most, in KiB.
pub const LARGEST_PEAK_KIB: u64 = 40 << 10;

/// CPU time of a start as a ratio to bpftrace's, which loads one program that does nothing, at most: a third of what it was
/// before dlpm read the kernel's types itself.
pub const LARGEST_RATIO: f64 = 2.5;

/// What bpftrace traces: nothing.
const BPFTRACE: &str = "BEGIN { exit() }";

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Alternating rounds.
    pub rounds: usize,
    /// Other builds of dlpm.
    pub beside: Vec<PathBuf>,
}

/// A program that starts and ends.
#[derive(Clone, Debug)]
enum Contender {
    Dlpm(PathBuf),
    Bpftrace,
    Perf,
}

/// What one run took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    wall_ns: f64,
    cpu_ns: f64,
    peak_kib: u64,
}

impl Contender {
    fn name(&self) -> String {
        match self {
            Self::Dlpm(path) => format!("`{} trace -- true`", path.display()),
            Self::Bpftrace => format!("`bpftrace -e '{BPFTRACE}'`"),
            Self::Perf => "`perf stat true`".to_owned(),
        }
    }

    fn command(&self, folder: &Path) -> Command {
        let (program, arguments): (&Path, &[&str]) = match self {
            Self::Dlpm(path) => (path, &["trace", "--quiet", "--gpu", "none"]),
            Self::Bpftrace => (Path::new("bpftrace"), &["-e", BPFTRACE]),
            Self::Perf => (Path::new("perf"), &["stat", "true"]),
        };
        let mut command = Command::new(program);
        command.args(arguments);
        if matches!(self, Self::Dlpm(_)) {
            command.arg("--output").arg(folder).args(["--", "true"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn measure(&self) -> Result<Cost> {
        let folder = tempfile::tempdir()?;
        let mut command = self.command(&folder.path().join("log"));
        let begun = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("{} cannot be started", self.name()))?;
        let (status, usage) = wait(child.id())?;
        let wall_ns = float(u64::try_from(begun.elapsed().as_nanos())?);
        ensure!(status == 0, "{} failed: wait status {status}", self.name());
        let ns = |time: libc::timeval| float((time.tv_sec * 1_000_000 + time.tv_usec).unsigned_abs()) * 1e3;
        Ok(Cost {
            wall_ns,
            cpu_ns: ns(usage.ru_utime) + ns(usage.ru_stime),
            peak_kib: usage.ru_maxrss.unsigned_abs(),
        })
    }
}

/// Waits for a child: its status, and what it and its own children used.
fn wait(pid: u32) -> Result<(libc::c_int, libc::rusage)> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let mut status = 0;
    // SAFETY: both results have their place; the child is this process's own.
    let waited = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, 0, usage.as_mut_ptr()) };
    ensure!(waited == pid.cast_signed(), "no child: {}", io::Error::last_os_error());
    // SAFETY: all bits zero are a valid rusage, and the call above filled it.
    Ok((status, unsafe { usage.assume_init() }))
}

/// Whether dlpm's start is within its bounds.
///
/// # Errors
///
/// Where a program cannot be started or fails.
pub fn run(dlpm: &Path, options: &Options) -> Result<bool> {
    let mut contenders = vec![Contender::Dlpm(dlpm.to_owned())];
    contenders.extend(options.beside.iter().cloned().map(Contender::Dlpm));
    // Some versions of bpftrace do not start without it: then bpftrace is left out.
    let _tracefs = Tracefs::ensure();
    contenders.extend([Contender::Bpftrace, Contender::Perf]);
    let mut left_out = Vec::new();
    // Once, so that each is in the page cache; and to see whether it runs here at all.
    contenders.retain(|contender| match contender.measure() {
        Err(error) if !matches!(contender, Contender::Dlpm(_)) => {
            left_out.push(format!("{error:#}"));
            false
        }
        _ => true,
    });
    let mut costs = vec![Vec::new(); contenders.len()];
    for round in 0..options.rounds {
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            costs[index].push(contenders[index].measure()?);
        }
    }
    println!("{}", super::machine()?);
    println!(
        "{} rounds, forwards and backwards by turns; median (min to max).\n",
        options.rounds
    );
    println!(
        "| program | time, ms | dlpm's / its | CPU time, ms | dlpm's / its | peak of memory, MiB |\n\
         |---|---|---|---|---|---|"
    );
    let spread = |values: &mut dyn Iterator<Item = f64>| Spread::of(values).context("no rounds");
    for (contender, own) in contenders.iter().zip(&costs) {
        let rounds = || costs[0].iter().zip(own);
        println!(
            "| {} | {} | {} | {} | {} | {} |",
            contender.name(),
            spread(&mut own.iter().map(|cost| cost.wall_ns))?.show(1e-6, 0),
            spread(&mut rounds().map(|(dlpm, own)| dlpm.wall_ns / own.wall_ns))?.show(1.0, 2),
            spread(&mut own.iter().map(|cost| cost.cpu_ns))?.show(1e-6, 0),
            spread(&mut rounds().map(|(dlpm, own)| dlpm.cpu_ns / own.cpu_ns))?.show(1.0, 2),
            spread(&mut own.iter().map(|cost| float(cost.peak_kib)))?.show(1.0 / 1024.0, 1),
        );
    }
    println!();
    for reason in left_out {
        println!("Left out: {reason}");
    }
    let peak_kib = costs[0].iter().map(|cost| cost.peak_kib).max().context("no rounds")?;
    let mut within = judge(
        "dlpm's peak of memory, MiB",
        float(peak_kib) / 1024.0,
        float(LARGEST_PEAK_KIB) / 1024.0,
    );
    match contenders
        .iter()
        .position(|contender| matches!(contender, Contender::Bpftrace))
    {
        Some(bpftrace) => {
            let rounds = costs[0].iter().zip(&costs[bpftrace]);
            let ratio = spread(&mut rounds.map(|(dlpm, other)| dlpm.cpu_ns / other.cpu_ns))?.median;
            within &= judge(
                "dlpm's CPU time against bpftrace's, the median of the rounds",
                ratio,
                LARGEST_RATIO,
            );
        }
        None => {
            println!("* not judged: dlpm's CPU time against bpftrace's, which is not there");
            within = false;
        }
    }
    Ok(within)
}

fn judge(what: &str, value: f64, bound: f64) -> bool {
    let within = value <= bound;
    println!(
        "* {}: {what}: {value:.2}, at most {bound}",
        if within { "within" } else { "EXCEEDED" }
    );
    within
}
