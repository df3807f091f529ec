//! What tools without eBPF count: they read the CPU time of processes once a second.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// Nanoseconds by the path of the cgroup.
pub type ByGroup = BTreeMap<String, u64>;

const PERIOD: Duration = Duration::from_secs(1);

/// Python that has psutil, as `cargo xtask bench` installs it.
const PYTHON: &str = "/usr/bin/python3";
const PSUTIL_FILE: &str = "/usr/lib/python3/dist-packages/psutil/__init__.py";

/// As AIPowerMeter does: user and system time of each process that is there at both ends of a loop, the one less the
/// other. Looks once more when its input ends, and prints nanoseconds by cgroup.
const PSUTIL: &str = r#"
import json, psutil, select, sys
groups = set(sys.argv[1:])
places, before, spent = {}, {}, dict.fromkeys(groups, 0.0)
def place(pid):
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            return next((line[3:].strip() for line in file if line.startswith("0::")), None)
    except OSError:
        return None
def look():
    global before
    now = {}
    for process in psutil.process_iter(["pid", "create_time", "cpu_times"]):
        info = process.info
        if info["cpu_times"] is None:
            continue
        key = info["pid"], info["create_time"]
        if key not in places:
            places[key] = place(info["pid"])
        if places[key] in groups:
            now[key] = info["cpu_times"].user + info["cpu_times"].system
    for key, time in now.items():
        if key in before:
            spent[places[key]] += time - before[key]
    before = now
look()
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 1.0)[0]:
    look()
look()
print(json.dumps({group: round(seconds * 1e9) for group, seconds in spent.items()}), flush=True)
"#;

/// A sampler on psutil at work; killed when this is dropped.
pub struct Psutil {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Psutil {
    /// Starts one that watches these cgroups.
    ///
    /// # Errors
    ///
    /// Where there is no psutil.
    pub fn start(groups: &[&str]) -> Result<Self> {
        if !Path::new(PSUTIL_FILE).exists() {
            bail!("{PSUTIL_FILE} is not there (Debian's package python3-psutil)");
        }
        let mut child = Command::new(PYTHON)
            .args(["-c", PSUTIL])
            .args(groups)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {PYTHON}"))?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let mut sampler = Self { child, output };
        if sampler.line()?.trim() != "ready" {
            bail!("the sampler on psutil does not start");
        }
        Ok(sampler)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    /// Takes a last sample: what it counted.
    ///
    /// # Errors
    ///
    /// Where it has failed.
    pub fn finish(mut self) -> Result<ByGroup> {
        drop(self.child.stdin.take());
        let line = self.line()?;
        serde_json::from_str(&line).context("the sampler on psutil has failed")
    }
}

impl Drop for Psutil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A scanner of `/proc/PID/stat`, in a thread of its own.
///
/// It counts as much as one can: what a process used since the scan before, or, where it is new, since its start. What a
/// process uses after the last scan that finds it is missed, and so is one that no scan finds.
pub struct Scanner {
    stop: Sender<()>,
    thread: JoinHandle<ByGroup>,
}

impl Scanner {
    /// Starts one that watches these cgroups.
    pub fn start(groups: &[&str]) -> Self {
        let mut scan = Scan {
            spent: groups.iter().map(|&group| (group.to_owned(), 0)).collect(),
            before: HashMap::new(),
        };
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            loop {
                scan.look();
                if stopped.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout) {
                    scan.look();
                    return scan.spent;
                }
            }
        });
        Self { stop, thread }
    }

    /// Scans once more: what it counted.
    ///
    /// # Errors
    ///
    /// Where the thread has failed.
    pub fn finish(self) -> Result<ByGroup> {
        let _ = self.stop.send(());
        self.thread.join().ok().context("the scanner has failed")
    }
}

/// A process: its pid, and its start in ticks.
type Id = (u32, u64);

struct Scan {
    spent: ByGroup,
    /// Each process of the scan before: its cgroup, if that is watched, and its ticks.
    before: HashMap<Id, (Option<String>, u64)>,
}

impl Scan {
    fn look(&mut self) {
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        let mut now = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let stat = fs::read_to_string(entry.path().join("stat"));
            let Some((start, ticks)) = stat.ok().as_deref().and_then(start_and_ticks) else {
                continue;
            };
            let (group, ticks_before) = self
                .before
                .remove(&(pid, start))
                .unwrap_or_else(|| (group_of(&entry.path()), 0));
            if let Some(spent) = group.as_ref().and_then(|group| self.spent.get_mut(group)) {
                *spent += ticks.saturating_sub(ticks_before) * tick_ns;
            }
            now.insert((pid, start), (group, ticks));
        }
        self.before = now;
    }
}

fn group_of(process: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(process.join("cgroup"))
        .ok()?
        .read_to_string(&mut text)
        .ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("0::").map(str::to_owned))
}

/// Fields 22 (start), and 14 plus 15 (user and system time), in ticks: man 5 `proc_pid_stat`.
fn start_and_ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let field = |number: usize| after_name.split_ascii_whitespace().nth(number - 3)?.parse::<u64>().ok();
    Some((field(22)?, field(14)? + field(15)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 0 0 0 50 6 0 0 20 0 1 0 4711 0 0";
        assert_eq!(start_and_ticks(stat), Some((4711, 56)));
        assert_eq!(start_and_ticks("7 (a) S 1"), None);
        assert_eq!(start_and_ticks(""), None);
    }
}
