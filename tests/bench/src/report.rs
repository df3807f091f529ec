//! `dlpm report` on a day of samples, beside Python's `json` reading the same lines.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use dlpm::{
    attribution::{Options as Attribution, attribute, energy_tree::Carries},
    interval::{
        CpuInterval, Identity, Interval, MachineMemory, MemoryReading, MeterSource, Process, ProcessId, Usage,
        ZoneKind, ZoneReading,
    },
    log::{Line, LineKind, rotation::Limit},
    sinks::{
        folder::{FolderMode, OutputFolder},
        segments::{Encoding, Segmenter},
    },
};

use super::{machine, stats::Spread};

/// Most memory that dlpm may ever hold.
pub const LARGEST_BYTES: u64 = 64 << 20;

/// What Python does with each line.
const PYTHON: &str = "import sys, json\nfor line in open(sys.argv[1]): json.loads(line)";

/// CPUs of the machine in the log.
const CPUS: u32 = 8;

const SECOND_NS: u64 = 1_000_000_000;

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
        generator.segmenter = generator.segmenter.rotating(Some(Limit::Bytes(ROTATE_BYTES)));
    }
    for number in 0..=lines {
        let lines = if number < lines {
            generator.lines()?
        } else {
            generator.segmenter.end()?
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
    for line in generator.segmenter.end()? {
        file.write_all(line.text().as_bytes())?;
    }
    file.flush()?;
    Ok(())
}

/// Rows that are there beside the processes: kernel, self, idle and unattributed.
const FIXED_ROWS: u32 = 4;

/// Makes the lines that `dlpm trace` would write on a machine where processes come and go, or on a node: a third of
/// its processes compute, a third run in every tenth interval, and a third sleep; memory is read every 10 s.
struct Generator {
    is_node: bool,
    rows: u32,
    seq: u64,
    random: u64,
    carries: Carries,
    counters: [u64; 5],
    segmenter: Segmenter,
}

impl Generator {
    fn new(rows: u32) -> Self {
        Self {
            is_node: false,
            rows,
            seq: 0,
            random: 0x9E37_79B9_7F4A_7C15,
            carries: Carries::default(),
            counters: [0; 5],
            segmenter: Segmenter::new(Encoding {
                identity: Identity::StartTime,
                aliases: true,
                timezone: jiff::tz::TimeZone::UTC,
            }),
        }
    }

    fn node(rows: u32) -> Self {
        Self {
            is_node: true,
            ..Self::new(rows)
        }
    }

    /// Whether a process of a node runs in this interval.
    fn runs(&self, number: u32) -> bool {
        !self.is_node
            || number.is_multiple_of(3)
            || (number % 3 == 1 && (self.seq + u64::from(number)).is_multiple_of(10))
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit.max(1)
    }

    fn next(&mut self) -> Result<String> {
        Ok(self.lines()?.iter().map(Line::text).collect())
    }

    fn lines(&mut self) -> Result<Vec<Line>> {
        let interval = self.interval();
        let ledger = attribute(&interval, &Attribution::default(), &self.carries);
        self.carries = self.carries.after(&ledger);
        self.seq += 1;
        Ok(self.segmenter.next(&ledger)?)
    }

    fn interval(&mut self) -> Interval {
        let seq = self.seq;
        let begin_ns = 5 * SECOND_NS + seq * SECOND_NS;
        let end_ns = begin_ns + SECOND_NS;
        let processes = self.rows.saturating_sub(FIXED_ROWS).max(1);
        let mut left = [SECOND_NS - 50_000_000; CPUS as usize];
        let mut usage = Vec::new();
        let mut described = std::collections::BTreeMap::new();
        let mut memory = std::collections::BTreeMap::new();
        for number in 0..processes {
            // Most stay; one in ten is another one in each interval.
            let tgid = if number % 10 == 9 && !self.is_node {
                100_000 + u32::try_from(seq % 1_000_000).unwrap_or(0) * processes + number
            } else {
                1_000 + number
            };
            let process = ProcessId {
                tgid,
                start_ns: 1_000_000 * u64::from(tgid) + 123_456,
            };
            let cpu = usize::try_from(self.below(u64::from(CPUS))).unwrap_or(0);
            let ns = self.below(left[cpu] / 3);
            left[cpu] -= ns;
            if self.runs(number) {
                usage.push(Usage {
                    process,
                    cgroup_id: u64::from(number % 7),
                    cpu: u32::try_from(cpu).unwrap_or(0),
                    ns,
                    shared_ns: ns / 4,
                });
            } else {
                left[cpu] += ns;
            }
            let named = Process {
                comm: format!("worker-{}", number % 12).into(),
                exec_comm: "python3.11".into(),
                uid: Some(1000 + number % 3),
                exited: number % 10 == 9,
                ..Process::default()
            };
            described.insert(process, named);
            let (pages, read_at_ns) = if self.is_node {
                let reading = seq / 10;
                let of_process = (u64::from(number) * 7_919 + reading * 104_729) % 1_000;
                (
                    1_000 * u64::from(number) + of_process,
                    3 * SECOND_NS + reading * 10 * SECOND_NS,
                )
            } else {
                (self.below(100_000), end_ns - 2_000_000_123)
            };
            let bytes = 100_000_000 + 4096 * pages;
            let reading = MemoryReading {
                pss_bytes: Some(bytes),
                uss_bytes: Some(bytes / 2),
                rss_bytes: bytes * 2,
                read_at_ns,
            };
            memory.insert(process, (u64::from(number % 7), reading));
        }
        let cpus = (0..CPUS)
            .map(|cpu| {
                let idle_ns = left[cpu as usize] + 50_000_000;
                CpuInterval {
                    cpu,
                    package: Some(0),
                    begin_ns,
                    end_ns,
                    busy_ns: SECOND_NS - idle_ns,
                    idle_ns,
                    lost_ns: 0,
                    switches: 1_234 + self.random % 1000,
                }
            })
            .collect();
        Interval {
            seq,
            begin_ns,
            end_ns,
            end_unix_ns: 1_767_225_600_000_000_000 + i64::try_from(seq * SECOND_NS).unwrap_or(0) + 123_456_789,
            energy_skew_ns: 20_123,
            seal_ns: 252_123,
            interrupts: Some(1),
            cpus,
            usage,
            processes: described
                .into_iter()
                .map(|(id, process)| (id, process.into()))
                .collect(),
            cgroups: (0..7)
                .map(|id| (id, format!("/user.slice/user-1000.slice/job-{id}.scope")))
                .collect(),
            memory: memory.into_iter().collect(),
            machine_memory: Some(MachineMemory {
                total_bytes: 64_000_000_000,
                available_bytes: 30_000_000_000,
                used_bytes: 28_000_000_000,
                free_bytes: None,
            }),
            zones: self.zones(),
            gpus: Vec::new(),
            gpu_owners: [].into(),
            self_tgid: 7,
            switch_cost: None,
            ..Interval::default()
        }
    }

    fn zones(&mut self) -> Vec<ZoneReading> {
        let zones = [
            ("package-0", ZoneKind::Package, 60_000_000),
            ("package-0/core", ZoneKind::Core, 35_000_000),
            ("package-0/uncore", ZoneKind::Uncore, 5_000_000),
            ("dram-0", ZoneKind::Dram, 9_000_000),
            ("psys", ZoneKind::Psys, 90_000_000),
        ];
        let mut readings = Vec::new();
        for (position, (name, kind, mean_uj)) in zones.into_iter().enumerate() {
            let energy_uj = mean_uj + self.below(mean_uj / 4);
            let range_uj = 262_143_328_850;
            self.counters[position] = (self.counters[position] + energy_uj) % (range_uj + 1);
            readings.push(ZoneReading {
                zone: name.to_owned(),
                kind,
                package: (kind != ZoneKind::Psys).then_some(0),
                energy_uj: Ok(energy_uj),
                counter_uj: Some(self.counters[position]),
                range_uj: Some(range_uj),
                source: MeterSource::Powercap,
            });
        }
        readings
    }
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
