//! A powercap tree whose counter follows the loads that dlpm runs: so many watts for each that is there, beside an offset.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    cpus,
    powercap::{LARGE_RANGE_UJ, Powercap},
};

/// The counter moves by a step in this time.
const STEP: Duration = Duration::from_millis(4);

/// What the meter counts.
#[derive(Clone, Copy, Debug)]
pub struct Law {
    /// What the machine draws without any load, in mW.
    pub idle_mw: u64,
    /// How much more it draws after each second, in mW.
    pub drift_mw: u64,
    /// What a load adds, in mW, by its name.
    pub load_mw: fn(&str) -> u64,
    /// Whether the kernel counts throttling all the time.
    pub throttles: bool,
}

impl Default for Law {
    fn default() -> Self {
        Self {
            idle_mw: 20_000,
            drift_mw: 0,
            load_mw: |load| if load == "fma" { 11_000 } else { 5_000 },
            throttles: false,
        }
    }
}

/// The tree. Its counter stops when this is dropped.
#[derive(Debug)]
pub struct Metered {
    tree: Powercap,
    dlpm: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Metered {
    /// Lets the counter of one package run. Each CPU is a core of it.
    pub fn start(law: Law) -> Self {
        let tree = Powercap::start(Vec::new());
        for cpu in cpus::online() {
            let directory = tree.sysfs().join(format!("devices/system/cpu/cpu{cpu}"));
            fs::remove_file(&directory).unwrap();
            write(&directory.join("topology/physical_package_id"), "0");
            write(&directory.join("topology/core_id"), &cpu.to_string());
            write(&directory.join("topology/thread_siblings_list"), &cpu.to_string());
        }
        let zone = tree.directory("intel-rapl:0");
        write(&zone.join("name"), "package-0");
        write(&zone.join("max_energy_range_uj"), &LARGE_RANGE_UJ.to_string());
        write(&zone.join("energy_uj"), "1000000");
        let (dlpm, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let feeder = Feeder {
            law,
            zone,
            throttled: tree
                .sysfs()
                .join("devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"),
            dlpm: Arc::clone(&dlpm),
            stop: Arc::clone(&stop),
        };
        let thread = thread::spawn(move || feeder.run());
        Self {
            tree,
            dlpm,
            stop,
            thread: Some(thread),
        }
    }

    /// For `--sysfs`.
    pub fn sysfs(&self) -> &Path {
        self.tree.sysfs()
    }

    /// The loads are the children of this process.
    pub fn watch(&self, pid: u32) {
        self.dlpm.store(pid, Ordering::Relaxed);
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Feeder {
    law: Law,
    zone: PathBuf,
    throttled: PathBuf,
    dlpm: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
}

impl Feeder {
    fn run(self) {
        // The meter of a machine does not wait for its tasks.
        // SAFETY: it sets the priority of this thread alone.
        let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
        let (begin, mut last) = (Instant::now(), Instant::now());
        // In pJ, so that no step is rounded.
        let mut total_pj: u128 = 1_000_000_000_000;
        let mut throttled = 0;
        while !self.stop.load(Ordering::Relaxed) {
            thread::sleep(STEP);
            let loads_mw: u64 = self.loads().iter().map(|load| (self.law.load_mw)(load)).sum();
            let power_mw = self.law.idle_mw + self.law.drift_mw * begin.elapsed().as_secs() + loads_mw;
            total_pj += u128::from(power_mw) * last.elapsed().as_nanos();
            last = Instant::now();
            write(&self.zone.join(".energy_uj"), &(total_pj / 1_000_000).to_string());
            fs::rename(self.zone.join(".energy_uj"), self.zone.join("energy_uj")).unwrap();
            if self.law.throttles {
                throttled += 1;
                write(&self.throttled, &throttled.to_string());
            }
        }
    }

    /// The names of the loads that run.
    fn loads(&self) -> Vec<String> {
        let pid = self.dlpm.load(Ordering::Relaxed);
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let load = |child: &str| {
            let line = fs::read(format!("/proc/{child}/cmdline")).ok()?;
            let mut words = line.split(|byte| *byte == 0).skip(1);
            (words.next()? == b"validate-load").then_some(())?;
            Some(String::from_utf8_lossy(words.next()?).into_owned())
        };
        children.split_whitespace().filter_map(load).collect()
    }
}

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{content}\n")).unwrap();
}
