//! What runs at a context switch while it is measured: yardsticks, dlpm, and tools of others.

use std::{
    collections::HashSet,
    ffi::CString,
    fs,
    io::{BufRead, BufReader},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{BtfTracePoint, loaded_programs},
};
use dlpm::sources::{
    cpu_time::{Config, CpuTime, Pace},
    events::{self, Counted, EventName},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::traced::Traced;

/// How long a tool may take to attach its programs.
const PATIENCE: Duration = Duration::from_secs(60);

/// CPU time per pid: the time since the last switch on a CPU, added to the process that goes out.
const BPFTRACE: &str = "tracepoint:sched:sched_switch { $now = nsecs; \
                        if (@since[cpu]) { @ns[pid] = sum($now - @since[cpu]); } @since[cpu] = $now; }";

/// Reads the CPU time of every process once a second, as tools without eBPF do: says how many, and its own CPU time.
const PSUTIL: &str = "
import psutil, sys, time
while True:
    begun = time.process_time_ns()
    times = [process.info['cpu_times'] for process in psutil.process_iter(['pid', 'cpu_times'])]
    print(len(times), time.process_time_ns() - begun, flush=True)
    time.sleep(1)
";

/// Three events of the kernel, which every machine has.
pub const SOFTWARE: &[&str] = &["context-switches", "page-faults", "cpu-migrations"];

/// The time stamp counter, which stands for a counter of the processor that is read by an instruction.
pub const TSC: &[&str] = &["msr/tsc/"];

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contender {
    /// Nothing runs.
    Nothing,
    /// A program of the object of yardsticks.
    Yardstick(&'static str),
    /// dlpm's programs, loaded by this process and never sealed; as if two CPUs were threads of one core, or not.
    Programs {
        /// With siblings.
        siblings: bool,
    },
    /// The same without what turns idle CPUs.
    Interrupting,
    /// The same, with perf events that are counted.
    Counting(&'static [&'static str]),
    /// `dlpm trace` in intervals of 1 s.
    Trace(PathBuf),
    /// bpftrace, see [`BPFTRACE`].
    Bpftrace,
    /// libbpf-tools: histograms of the time on the CPU by pid.
    Cpudist,
    /// psutil, see [`PSUTIL`].
    Psutil,
}

impl Contender {
    /// As the tables call it.
    pub fn name(&self) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::Yardstick("floor") => "the floor: clock, cpu, pid and tgid, cgroup id, one store".to_owned(),
            Self::Yardstick("clock") => "clock, cpu, one store".to_owned(),
            Self::Yardstick(name) => format!("{name} program"),
            Self::Programs { siblings: false } => "dlpm's `on_switch`".to_owned(),
            Self::Programs { siblings: true } => "dlpm's `on_switch`, SMT siblings".to_owned(),
            Self::Interrupting => "dlpm's `on_switch`, idle CPUs are interrupted".to_owned(),
            Self::Counting(events) => format!("dlpm's `on_switch`, counting {}", events.join(", ")),
            Self::Trace(program) => format!("`{} trace`", program.file_name().unwrap_or_default().display()),
            Self::Bpftrace => "bpftrace, sum of ns per pid".to_owned(),
            Self::Cpudist => "libbpf-tools `cpudist -P`".to_owned(),
            Self::Psutil => "psutil, every process once a second".to_owned(),
        }
    }

    /// Whether it has a program at the switch.
    pub fn has_program(&self) -> bool {
        !matches!(self, Self::Nothing | Self::Psutil)
    }

    /// The file without which it cannot run.
    pub fn needs(&self) -> Option<&'static str> {
        match self {
            Self::Bpftrace => Some("/usr/bin/bpftrace"),
            Self::Cpudist => Some("/usr/sbin/cpudist"),
            Self::Psutil => Some("/usr/lib/python3/dist-packages/psutil/__init__.py"),
            _ => None,
        }
    }

    /// Starts it and waits until its programs are loaded.
    ///
    /// # Errors
    ///
    /// Where it cannot be started, or does not load anything.
    pub fn start(&self, yardsticks: &Path) -> Result<Running> {
        let (holder, pid) = match self {
            Self::Nothing => (Holder::Nothing, None),
            Self::Yardstick(name) => (Holder::Yardstick(Box::new(attach(yardsticks, name)?)), None),
            Self::Programs { siblings } => {
                let mut config = Config::default();
                if *siblings {
                    config.siblings = vec![(0, 1)];
                }
                (Holder::Programs(Box::new(CpuTime::start(&config)?)), None)
            }
            Self::Interrupting => {
                let config = Config {
                    pace: Pace::Interrupt,
                    ..Config::default()
                };
                (Holder::Programs(Box::new(CpuTime::start(&config)?)), None)
            }
            Self::Counting(events) => {
                let config = Config {
                    events: opened(events)?,
                    ..Config::default()
                };
                (Holder::Programs(Box::new(CpuTime::start(&config)?)), None)
            }
            Self::Trace(program) => {
                let trace = Traced::start(program, Duration::from_secs(1), &[])?;
                let pid = trace.pid();
                (Holder::Trace(trace), Some(pid))
            }
            Self::Bpftrace => tool(Command::new("bpftrace").args(["-e", BPFTRACE]), Stdio::null())?,
            Self::Cpudist => tool(Command::new("/usr/sbin/cpudist").args(["-P", "1000000"]), Stdio::null())?,
            Self::Psutil => tool(Command::new("/usr/bin/python3").args(["-c", PSUTIL]), Stdio::piped())?,
        };
        let mut running = Running {
            holder,
            programs: Vec::new(),
        };
        if self.has_program() {
            running.programs = self.programs_of(pid.unwrap_or_else(std::process::id))?;
        }
        Ok(running)
    }

    /// Ids of the programs of a process that run at a context switch.
    fn programs_of(&self, pid: u32) -> Result<Vec<u32>> {
        let begun = Instant::now();
        loop {
            let held = held_programs(pid)?;
            let mut found = Vec::new();
            for info in loaded_programs() {
                // One that was unloaded meanwhile is an error.
                let Ok(info) = info else { continue };
                let name = info.name_as_str().unwrap_or_default();
                let is_wanted = match self {
                    Self::Yardstick(yardstick) => name == *yardstick,
                    _ => name.contains("switch"),
                };
                if is_wanted && held.contains(&info.id()) {
                    found.push(info.id());
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
            if begun.elapsed() > PATIENCE {
                bail!("{} loads no program", self.name());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A contender at work; it ends when this is dropped.
pub struct Running {
    holder: Holder,
    programs: Vec<u32>,
}

#[expect(dead_code, reason = "what is held only has to live")]
enum Holder {
    Nothing,
    Yardstick(Box<Ebpf>),
    Programs(Box<CpuTime>),
    Trace(Traced),
    Tool(Tool),
}

impl Running {
    /// Nanoseconds and runs of its programs at the switch, while the kernel counts.
    pub fn runs(&self) -> (u64, u64) {
        let of_it = loaded_programs()
            .flatten()
            .filter(|info| self.programs.contains(&info.id()));
        of_it.fold((0, 0), |(ns, runs), info| {
            let run_ns = u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
            // Several programs of one tool run one after another at the same switch.
            (ns + run_ns, runs.max(info.run_count()))
        })
    }

    /// The next line that the tool prints, if it is one.
    pub fn line(&mut self) -> Option<String> {
        let Holder::Tool(tool) = &mut self.holder else {
            return None;
        };
        let mut line = String::new();
        tool.output
            .as_mut()?
            .read_line(&mut line)
            .ok()
            .filter(|bytes| *bytes > 0)?;
        Some(line)
    }

    /// The trace, where it is one.
    pub fn trace(&mut self) -> Option<&mut Traced> {
        match &mut self.holder {
            Holder::Trace(trace) => Some(trace),
            _ => None,
        }
    }
}

/// These events on every CPU.
fn opened(names: &[&str]) -> Result<Arc<[Counted]>> {
    let wanted: Result<Vec<EventName>, String> = names.iter().map(|name| name.parse()).collect();
    let opened = events::open(Path::new("/sys"), &wanted.map_err(anyhow::Error::msg)?);
    match opened.missing.first() {
        Some((name, reason)) => bail!("{name} is not counted: {reason}"),
        None => Ok(opened.events),
    }
}

/// Whether this machine has an event of its processor that is counted without a performance monitoring unit.
pub fn has_tsc() -> bool {
    opened(TSC).is_ok()
}

fn attach(object: &Path, name: &'static str) -> Result<Ebpf> {
    let cpus = aya::util::nr_cpus()
        .map_err(|(_, error)| error)
        .context("the possible CPUs")?;
    let mut ebpf = EbpfLoader::new()
        .map_max_entries("LINES", u32::try_from(cpus)?)
        .load_file(object)
        .with_context(|| format!("{} cannot be loaded", object.display()))?;
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    let program: &mut BtfTracePoint = program.try_into()?;
    program.load("sched_switch", &Btf::from_sys_fs()?)?;
    program.attach()?;
    Ok(ebpf)
}

/// A program of somebody else, interrupted when this is dropped.
struct Tool {
    child: Child,
    /// Where what it prints is wanted.
    output: Option<BufReader<ChildStdout>>,
}

fn tool(command: &mut Command, stdout: Stdio) -> Result<(Holder, Option<u32>)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let output = child.stdout.take().map(BufReader::new);
    let pid = child.id();
    Ok((Holder::Tool(Tool { child, output }), Some(pid)))
}

impl Drop for Tool {
    fn drop(&mut self) {
        self.output = None;
        // bpftrace has been seen to go on after one signal.
        for _ in 0..20 {
            if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
                let _ = kill_process(pid, Signal::INT);
            }
            for _ in 0..25 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ids of the programs that a process has a descriptor of.
fn held_programs(pid: u32) -> Result<HashSet<u32>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&folder).with_context(|| format!("{folder}: has it ended?"))?;
    let ids = entries.flatten().filter_map(|entry| {
        // A descriptor may be closed meanwhile.
        let text = fs::read_to_string(entry.path()).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
    });
    Ok(ids.collect())
}

/// tracefs, which tools for classic tracepoints need: mounted here where it was not, until this is dropped.
pub struct Tracefs(bool);

impl Tracefs {
    const PLACE: &str = "/sys/kernel/tracing";

    /// Mounts it where it is missing.
    ///
    /// # Errors
    ///
    /// Where the kernel has none, or does not let it be mounted.
    pub fn ensure() -> Result<Self> {
        if Path::new(Self::PLACE).join("events/sched").exists() {
            return Ok(Self(false));
        }
        let place = CString::new(Path::new(Self::PLACE).as_os_str().as_bytes())?;
        // SAFETY: all strings are terminated and live through the call; tracefs needs no data.
        let result = unsafe {
            libc::mount(
                c"tracefs".as_ptr(),
                place.as_ptr(),
                c"tracefs".as_ptr(),
                0,
                std::ptr::null(),
            )
        };
        if result != 0 {
            return Err(std::io::Error::last_os_error()).context("tracefs cannot be mounted");
        }
        eprintln!("tracefs is mounted at {} as long as this runs", Self::PLACE);
        Ok(Self(true))
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        if self.0
            && let Ok(place) = CString::new(Self::PLACE)
        {
            // SAFETY: the string is terminated. Detached, it goes when the last file of it is closed.
            unsafe { libc::umount2(place.as_ptr(), libc::MNT_DETACH) };
        }
    }
}
