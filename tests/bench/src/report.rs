//! `dlpm report` on a day of samples, beside Python's `json` reading the same lines.

mod generator;

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use dlpm::{
    log::{LineKind, rotation::Limit},
    sinks::folder::{FolderMode, OutputFolder},
};

use super::{machine, stats::Spread};
use generator::{FIXED_ROWS, Generator};

/// Most memory that dlpm may ever hold.
pub const LARGEST_BYTES: u64 = 64 << 20;

/// What Python does with each line.
const PYTHON: &str = "import sys, json\nfor line in open(sys.argv[1]): json.loads(line)";

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Intervals of the log.
    pub lines: u64,
    /// Rows of each.
    pub rows: u32,
    /// Alternating rounds.
    pub rounds: usize,
    /// Where the log is written for a while; the directory for temporary files if nothing is said.
    pub folder: Option<PathBuf>,
}

/// Most bytes that a day of a node with 100 processes may take, compressed.
pub const LARGEST_DAY_BYTES: u64 = 250_000_000;

/// Bytes of a file before it is closed.
const ROTATE_BYTES: u64 = 1 << 30;

const DAY_S: u64 = 86_400;

/// How long the compression of the last file may take.
const COMPRESSION: Duration = Duration::from_secs(600);

/// Writes the log of a node twice, in one file and rotated; prints what both take and how long `dlpm report` reads
/// them; says whether the rotated one takes no more than [`LARGEST_DAY_BYTES`] in proportion, and no more time.
///
/// # Errors
///
/// Where there is no room for the logs.
pub fn run_rotated(dlpm: &Path, options: &Options) -> Result<bool> {
    let parent = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::tempdir_in(&parent).with_context(|| format!("no folder in {}", parent.display()))?;
    let (plain, rotated) = (folder.path().join("plain"), folder.path().join("rotated"));
    for (path, name) in [(&plain, "plain"), (&rotated, "rotated")] {
        let written = Command::new(std::env::current_exe()?)
            .arg("write-node")
            .arg(path)
            .args([options.lines.to_string(), options.rows.to_string(), name.to_owned()])
            .status()?;
        ensure!(written.success(), "the log could not be written ({written})");
    }
    let verified = Command::new(dlpm)
        .arg("verify")
        .arg(&rotated)
        .stdout(Stdio::null())
        .status()?;
    ensure!(
        verified.success(),
        "`dlpm verify` finds fault with the rotated log ({verified})"
    );
    let (plain_bytes, rotated_bytes) = (bytes_in(&plain)?, bytes_in(&rotated)?);
    let processes = u64::from(options.rows.saturating_sub(FIXED_ROWS)).max(1);
    let of_day = |bytes: u64| bytes * DAY_S / options.lines;
    println!("{}\n", machine()?);
    println!(
        "A log of {} lines (one a second) of a node with {processes} processes; {} alternating rounds, median (min to max).\n",
        options.lines, options.rounds
    );
    let (mut of_plain, mut of_rotated) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        eprintln!("round {round}");
        for (path, times) in [(&plain, &mut of_plain), (&rotated, &mut of_rotated)] {
            let mut report = Command::new(dlpm);
            report.arg("report").arg(path);
            times.push(measure(&mut report)?.0.as_secs_f64());
        }
    }
    let ratios: Vec<f64> = of_rotated
        .iter()
        .zip(&of_plain)
        .map(|(rotated, plain)| rotated / plain)
        .collect();
    let spread = |values: Vec<f64>| Spread::of(values).context("no rounds");
    let ratio = spread(ratios)?;
    println!("| | plain | rotated and compressed |\n|---|---|---|");
    println!(
        "| MB a day | {} | {} |",
        of_day(plain_bytes) / 1_000_000,
        of_day(rotated_bytes) / 1_000_000
    );
    println!(
        "| MB per process and day | {:.2} | {:.2} |",
        megabytes_of(of_day(plain_bytes) / processes),
        megabytes_of(of_day(rotated_bytes) / processes)
    );
    println!(
        "| `dlpm report`, s | {} | {} |",
        spread(of_plain)?.show(1.0, 2),
        spread(of_rotated)?.show(1.0, 2)
    );
    println!("| rotated against plain | | {} |", ratio.show(1.0, 2));
    let allowed = LARGEST_DAY_BYTES * processes / 100;
    Ok(of_day(rotated_bytes) <= allowed && ratio.median <= 1.0)
}

fn bytes_in(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn megabytes_of(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Writes the log of a node into a folder, as `dlpm trace` does: in one file, or in several.
///
/// # Errors
///
/// Where it cannot be written.
pub fn write_node(path: &Path, lines: u64, rows: u32, rotated: bool) -> Result<()> {
    let mut folder = OutputFolder::create(path, FolderMode::New)?;
    let mut generator = Generator::node(rows);
    if rotated {
        folder.start_rotating(None)?;
        generator = generator.rotating(Limit::Bytes(ROTATE_BYTES));
    }
    for number in 0..=lines {
        let lines = if number < lines {
            generator.lines()?
        } else {
            generator.end()?
        };
        for line in lines {
            if line.kind == LineKind::Rotation {
                folder.rotate()?;
            } else {
                folder.write_line(line.text())?;
            }
        }
    }
    if rotated {
        // What is open at the end of a day would be closed soon.
        folder.rotate()?;
    }
    let problems = folder.stop_rotating(Instant::now() + COMPRESSION);
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(())
}

/// Writes the log, measures, prints; says whether dlpm was faster, and within [`LARGEST_BYTES`].
///
/// # Errors
///
/// Where there is no room for the log, or no Python.
pub fn run(dlpm: &Path, options: &Options) -> Result<bool> {
    let parent = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::tempdir_in(&parent).with_context(|| format!("no folder in {}", parent.display()))?;
    let sample = {
        let mut lines = Generator::new(options.rows);
        lines.next()?.len() as u64
    };
    let needed = sample * options.lines / 10 * 11;
    let status = rustix::fs::statvfs(folder.path())?;
    let free = status.f_bavail * status.f_frsize;
    ensure!(
        needed < free,
        "the log needs about {} MiB and {} has {} MiB left: give --lines less, or another --folder",
        needed >> 20,
        parent.display(),
        free >> 20
    );
    let log = folder.path().join("power_metrics.json");
    // In a process of its own: what this one ever held counts as memory of the programs that it starts.
    let written = Command::new(std::env::current_exe()?)
        .arg("write-log")
        .arg(&log)
        .args([options.lines.to_string(), options.rows.to_string()])
        .status()?;
    ensure!(written.success(), "the log could not be written ({written})");
    let bytes = std::fs::metadata(&log)?.len();
    println!("{}\n", machine()?);
    println!(
        "A log of {} lines of {} rows, {} MiB; {} alternating rounds, median (min to max).\n",
        options.lines,
        options.rows,
        bytes >> 20,
        options.rounds
    );
    let (mut by_dlpm, mut by_python) = (Vec::new(), Vec::new());
    let mut largest = 0;
    for round in 1..=options.rounds {
        eprintln!("round {round}");
        let mut report = Command::new(dlpm);
        report.arg("report").arg(folder.path());
        let (time, peak) = measure(&mut report)?;
        by_dlpm.push(time.as_secs_f64());
        largest = largest.max(peak);
        let mut python = Command::new("python3");
        python.args(["-c", PYTHON]).arg(&log);
        by_python.push(measure(&mut python)?.0.as_secs_f64());
    }
    let ratios: Vec<f64> = by_python
        .iter()
        .zip(&by_dlpm)
        .map(|(python, dlpm)| python / dlpm)
        .collect();
    let spread = |values: Vec<f64>| Spread::of(values).context("no rounds");
    let ratio = spread(ratios)?;
    println!("| | |\n|---|---|");
    println!("| `dlpm report`, s | {} |", spread(by_dlpm)?.show(1.0, 2));
    println!(
        "| Python's `json.loads` of each line, s | {} |",
        spread(by_python)?.show(1.0, 2)
    );
    println!("| times as fast as Python | {} |", ratio.show(1.0, 2));
    println!(
        "| most memory that `dlpm report` held, MiB | {:.1} |",
        megabytes(largest)
    );
    Ok(ratio.median > 1.0 && largest <= LARGEST_BYTES)
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// How long a program ran, and the most memory that it held, in bytes.
fn measure(command: &mut Command) -> Result<(Duration, u64)> {
    let begin = Instant::now();
    let child = command
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let pid = i32::try_from(child.id())?;
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the child is ours and has not been waited for; both pointers are to values that live on.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    ensure!(waited == pid, "cannot wait: {}", std::io::Error::last_os_error());
    let time = begin.elapsed();
    if status != 0 {
        bail!("{} failed (wait status {status})", command.get_program().display());
    }
    // SAFETY: zeroed is a value of it, and wait4 has filled it in.
    let peak_kib = u64::try_from(unsafe { usage.assume_init() }.ru_maxrss)?;
    Ok((time, peak_kib << 10))
}

/// Writes a log of `lines` intervals of `rows` rows.
///
/// # Errors
///
/// Where the file cannot be written.
pub fn write(path: &Path, lines: u64, rows: u32) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
    let mut generator = Generator::new(rows);
    for _ in 0..lines {
        file.write_all(generator.next()?.as_bytes())?;
    }
    for line in generator.end()? {
        file.write_all(line.text().as_bytes())?;
    }
    file.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log that dlpm would not have written says nothing about how fast logs are read.
    #[test]
    fn the_log_proves_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        write(&path, 20, 50).unwrap();
        let log = std::fs::read(&path).unwrap();
        let report = dlpm::verify::verify(log.as_slice(), 5).unwrap();
        assert_eq!((report.failures, report.intervals), (Vec::new(), 20));
        let text = String::from_utf8(log).unwrap();
        let first = text.lines().next().unwrap();
        assert_eq!(first.matches("{\"row\":").count(), 50);
    }
}
