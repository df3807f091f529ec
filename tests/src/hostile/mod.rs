//! Folders from a stranger: a good one, changed at random, and what every reader has to keep to whatever is in it.

pub mod mutate;
mod watch;

use std::{
    fs::{self, File},
    num::NonZero,
    ops::Range,
    os::unix::{fs::symlink, net::UnixListener},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use dlpm::{
    printable::is_printable,
    sinks::folder::{FolderError, FolderMode, OutputFolder},
};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

pub use self::watch::{Limits, Used};
use self::{
    mutate::Random,
    watch::{Ran, run},
};
use crate::{
    log::{LOG_NAME, METADATA_NAME},
    synthetic::{Ran as Process, SECOND_NS, Synthetic},
};

/// The files beside the log.
const SIDE_FILES: [&str; 3] = [METADATA_NAME, "results_exp.json", "model_summary.json"];

/// Held while a log is continued in this process.
static APPENDING: Mutex<()> = Mutex::new(());

/// A good folder, in memory.
#[derive(Debug)]
pub struct Good {
    lines: Vec<Vec<u8>>,
    side_files: Vec<(&'static str, Vec<u8>)>,
}

impl Good {
    /// A log with processes, cgroups, two GPUs, phases, a gap, two traces and samples of AIPowerMeter, and all files that
    /// can be beside it.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Synthetic::new(folder.path());
        for second in 0..6 {
            match second {
                1 => log.phase("phase_begin", "train"),
                2 => log.phase("phase_begin", "epoch 1"),
                3 => log.phase("phase_end", "epoch 1"),
                4 => log.pause(3 * SECOND_NS),
                _ => {}
            }
            let process = |tgid, comm, cgroup, permille| Process {
                tgid,
                comm,
                cgroup,
                permille,
            };
            let rows = [
                process(4000, "python3", "/train.slice", 1500),
                process(90, "gzip", "/system.slice", 300),
            ];
            log.interval(SECOND_NS, 50, &[100, 200], &rows);
        }
        log.finish();
        let text = fs::read_to_string(folder.path().join(LOG_NAME)).unwrap();
        let mut lines: Vec<Vec<u8>> = text.lines().map(|line| format!("{line}\n").into_bytes()).collect();
        lines.extend_from_within(..);
        for second in 10..13 {
            let date = format!("2026-01-02 00:00:{second}.000000");
            let cpu = json!({"per_process_cpu_uses": {"7": 0.5}, "absolute_cpu_time_per_pid": {"7": 1.0},
                "intel_power": 20.0, "total_cpu_power": 15.0, "per_process_mem_use_abs": {"7": 5}});
            lines.push(format!("{}\n", json!({"date": date, "metrics": {"cpu": cpu}})).into_bytes());
        }
        lines.push(b"\"END OF RECORDING SEGMENT\"\n".to_vec());
        let date = "2026-01-01 00:00:03.000000+00:00";
        let side_files = [
            json!({"description": "run", "date": date, "dlpm": {"command_line": ["python3", "train.py"]}}),
            json!([{"end_training_epoch": date, "accuracy": 0.7, "loss": -1.5}]),
            json!({"total_params": 7, "total_mult_adds": 4_000_000, "dlpm": {"unsupported_ops": []}}),
        ];
        let side_files = SIDE_FILES
            .into_iter()
            .zip(side_files.map(|value| value.to_string().into_bytes()));
        Self {
            lines,
            side_files: side_files.collect(),
        }
    }

    /// Writes the folder with this number: up to six changes.
    pub fn write(&self, folder: &Path, number: u64) {
        let mut random = Random::new(number);
        let mut lines = self.lines.clone();
        let mut side_files = self.side_files.clone();
        // Each is the good one in some folders, so that no check hides what is behind it.
        for _ in 0..=random.below(6) {
            match random.below(4) {
                0 => mutate::text(&mut side_files[random.below(3)].1, &mut random),
                _ => mutate::log(&mut lines, &mut random),
            }
        }
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(LOG_NAME), lines.concat()).unwrap();
        for (name, contents) in side_files {
            fs::write(folder.join(name), contents).unwrap();
        }
        if random.below(20) == 0 {
            replace(folder, &mut random);
        }
    }
}

impl Default for Good {
    fn default() -> Self {
        Self::new()
    }
}

/// Puts something else in the place of a file.
fn replace(folder: &Path, random: &mut Random) {
    let names = [LOG_NAME, SIDE_FILES[0], SIDE_FILES[1], SIDE_FILES[2]];
    let path = folder.join(random.one(&names));
    let contents = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    match random.below(9) {
        0 => mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
        1 => fs::create_dir(&path).unwrap(),
        2 => symlink("/dev/zero", &path).unwrap(),
        3 => symlink(path.file_name().unwrap(), &path).unwrap(),
        4 => File::create(&path).unwrap().set_len(1 << 33).unwrap(),
        5 => drop(UnixListener::bind(&path).unwrap()),
        6 => fs::write(&path, [b"\xef\xbb\xbf", contents.as_slice()].concat()).unwrap(),
        7 => fs::write(&path, "").unwrap(),
        _ => {}
    }
}

/// Tries the folders with these numbers, some at a time. The most that a run used, and what was not kept to.
///
/// `write` makes the folder with a number, by [`Good::write`] in another process where many are tried: the kernel counts
/// the memory of a process from the peak of the one that started it, and some folders take much to make.
pub fn check_all(
    dlpm: &Path,
    numbers: Range<u64>,
    limits: Limits,
    write: &(dyn Fn(&Path, u64) + Sync),
) -> (Used, Vec<String>) {
    let next = AtomicU64::new(numbers.start);
    let found = Mutex::new((Used::default(), Vec::new()));
    let workers = 4 * thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if !numbers.contains(&number) {
                        return;
                    }
                    let folder = tempfile::tempdir().unwrap();
                    write(folder.path(), number);
                    let checked = check(dlpm, folder.path(), number, limits);
                    let mut found = found.lock().unwrap();
                    match checked {
                        Ok(used) => found.0.add(&used),
                        Err(why) => found.1.push(why),
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

/// Runs every reader on a folder, and continues its log. What each used.
///
/// # Errors
///
/// What was not kept to.
pub fn check(dlpm: &Path, folder: &Path, number: u64, limits: Limits) -> Result<Used, String> {
    let log = folder.to_str().unwrap();
    let out = tempfile::tempdir().unwrap();
    let out_of = |name: &str| out.path().join(name).to_str().unwrap().to_owned();
    let (page, picture, copy) = (out_of("page.html"), out_of("curve.svg"), out_of("copy"));
    let format = ["table", "json", "csv"][usize::try_from(number % 3).unwrap()];
    let by = ["zone", "process", "cgroup", "comm", "gpu", "phase"][usize::try_from(number / 3 % 6).unwrap()];
    let metric = ["zone:machine", "zone:package-0", "intel_power", "total_cpu_power"];
    let metric = metric[usize::try_from(number % 4).unwrap()];
    let report = if format == "csv" {
        vec!["report", log, "--format", format, "--by", by]
    } else {
        vec!["report", log, "--format", format]
    };
    let mut used = Used::default();
    let mut failures = Vec::new();
    for arguments in [
        report,
        vec!["report", log, "--list"],
        vec!["report", log, "--by", "node", "--format", format],
        vec!["report", log, "--html", &page],
        vec!["verify", log],
        vec!["plot", log, "-m", metric, "-o", &picture],
        vec!["convert", log, "--naive-dates", "-o", &copy],
    ] {
        let ran = run(dlpm, &arguments);
        used.add(&ran.used);
        if let Err(why) = judge(&ran, &arguments, limits) {
            failures.push(format!("dlpm {}: {why}", arguments.join(" ")));
        }
    }
    for file in [page, picture, format!("{copy}/{LOG_NAME}")] {
        if let Ok(contents) = fs::read(&file)
            && let Err(why) = shown(&contents)
        {
            failures.push(format!("{file}: {why}"));
        }
    }
    // As `dlpm trace --append` does before it traces, and again: what was repaired stays so.
    // One at a time: what a child used at its peak begins with the peak of the process that started it.
    let one_at_a_time = APPENDING.lock().unwrap();
    let continued = catch_unwind(AssertUnwindSafe(|| {
        let first = append(folder).map(drop);
        first
            .is_ok()
            .then(|| append(folder).map(|folder| folder.notes().to_vec()))
    }));
    drop(one_at_a_time);
    match continued {
        Err(_) => failures.push("--append panicked".to_owned()),
        Ok(Some(Err(error))) => failures.push(format!("--append refuses what it has repaired: {error}")),
        Ok(Some(Ok(notes))) if !notes.is_empty() => failures.push(format!("--append repairs again: {notes:?}")),
        Ok(_) => {}
    }
    if failures.is_empty() {
        Ok(used)
    } else {
        Err(format!("folder {number}: {}", failures.join("\n")))
    }
}

/// Continues a log. What another thread has started holds the lock until it is another program.
fn append(folder: &Path) -> Result<OutputFolder, FolderError> {
    for _ in 0..1000 {
        match OutputFolder::create(folder, FolderMode::Append) {
            Err(FolderError::InUse(_)) => thread::sleep(Duration::from_millis(1)),
            created => return created,
        }
    }
    OutputFolder::create(folder, FolderMode::Append)
}

fn judge(ran: &Ran, arguments: &[&str], limits: Limits) -> Result<(), String> {
    let Some(code) = ran.code else {
        return Err(format!("it did not end by itself: {}", ran.stderr_lossy()));
    };
    if !(0..=2).contains(&code) {
        return Err(format!("status {code}: {}", ran.stderr_lossy()));
    }
    if ran.used.cpu > limits.cpu || ran.used.peak_kib > limits.peak_kib {
        return Err(format!("it used {:?}", ran.used));
    }
    shown(&ran.stdout).map_err(|why| format!("standard output: {why}"))?;
    shown(&ran.stderr).map_err(|why| format!("standard error: {why}"))?;
    if code != 0 && ran.stdout.is_empty() && ran.stderr.is_empty() {
        return Err(format!("status {code}, and not a word"));
    }
    if code == 0 && arguments.contains(&"json") && serde_json::from_slice::<serde_json::Value>(&ran.stdout).is_err() {
        return Err("it is not JSON".to_owned());
    }
    Ok(())
}

/// Lines of characters that have a shape.
fn shown(output: &[u8]) -> Result<(), String> {
    let text = str::from_utf8(output).map_err(|error| error.to_string())?;
    match text
        .chars()
        .find(|character| *character != '\n' && !is_printable(*character))
    {
        None => Ok(()),
        Some(character) => Err(format!("it has U+{:04X}", u32::from(character))),
    }
}
