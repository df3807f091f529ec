//! Trees laid out as the kernel does it on machines that differ, with counters that a test sets.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tempfile::TempDir;

use super::{EnergyError, perf::Perf, powercap::Powercap};
use crate::interval::ZoneReading;

/// One second in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// Range of a counter whose unit is 2⁻¹⁴ J, as on most Intel CPUs.
pub const RANGE: u64 = 262_143_328_850;

/// Range of a counter whose unit is 2⁻¹⁶ J, as on AMD and for the memory of Intel servers.
pub const SMALL_RANGE: u64 = 65_532_610_987;

/// What RAPL's perf events say of their unit.
pub const RAPL_SCALE: &str = "2.3283064365386962890625e-10";

/// A root of `/sys` in a temporary directory.
pub struct Tree(TempDir);

impl Tree {
    /// An empty one: no CPUs, no zones.
    pub fn new() -> Self {
        let sysfs = TempDir::new().unwrap();
        fs::create_dir_all(sysfs.path().join("class/powercap")).unwrap();
        Self(sysfs)
    }

    /// The root.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file as a whole.
    pub fn file(&self, path: impl AsRef<Path>, content: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_extension("new");
        fs::write(&new, format!("{content}\n")).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Names the maker (`0000` Intel, `0002` AMD, `0009` Hygon).
    pub fn maker(self, vendor: &str) -> Self {
        self.file(
            "devices/system/cpu/modalias",
            &format!("cpu:type:x86,ven{vendor}fam0006mod0055:feature:,0000,0001"),
        );
        self
    }

    /// CPUs with their package and die, one thread a core.
    pub fn cpus(self, cpus: &[(u32, u32, u32)]) -> Self {
        for (cpu, package, die) in cpus {
            let topology = PathBuf::from(format!("devices/system/cpu/cpu{cpu}/topology"));
            self.file(topology.join("physical_package_id"), &package.to_string());
            self.file(topology.join("die_id"), &die.to_string());
            self.file(topology.join("thread_siblings_list"), &cpu.to_string());
        }
        self
    }

    /// A zone: its directory stands inside its parent's below the control type in `devices/virtual/powercap`, and the
    /// class has a link to it.
    pub fn zone(self, id: &str, name: &str, uj: u64, range_uj: u64) -> Self {
        let control_type = id.split(':').next().unwrap();
        if !self.class(control_type).exists() {
            self.link(control_type, control_type);
            self.file(format!("class/powercap/{control_type}/enabled"), "1");
        }
        let numbers = id.split(':').skip(1);
        let mut place = control_type.to_owned();
        let mut partial = control_type.to_owned();
        for number in numbers {
            partial = format!("{partial}:{number}");
            place = format!("{place}/{partial}");
        }
        self.link(id, &place);
        self.file(format!("class/powercap/{id}/name"), name);
        self.file(format!("class/powercap/{id}/enabled"), "0");
        self.file(
            format!("class/powercap/{id}/max_energy_range_uj"),
            &range_uj.to_string(),
        );
        self.set(id, uj);
        self
    }

    fn link(&self, id: &str, place: &str) {
        let devices = Path::new("devices/virtual/powercap").join(place);
        fs::create_dir_all(self.path().join(&devices)).unwrap();
        symlink(Path::new("../..").join(devices), self.class(id)).unwrap();
    }

    /// Takes a zone away, with the parts below it.
    pub fn remove(&self, id: &str) {
        let real = fs::canonicalize(self.class(id)).unwrap();
        for entry in fs::read_dir(self.path().join("class/powercap")).unwrap() {
            let link = entry.unwrap().path();
            if fs::canonicalize(&link).is_ok_and(|to| to.starts_with(&real)) {
                fs::remove_file(link).unwrap();
            }
        }
        fs::remove_dir_all(real).unwrap();
    }

    /// What a counter reads from now on.
    pub fn set(&self, id: &str, uj: u64) {
        self.file(format!("class/powercap/{id}/energy_uj"), &uj.to_string());
    }

    /// The directory of a zone.
    pub fn class(&self, id: &str) -> PathBuf {
        self.path().join("class/powercap").join(id)
    }

    /// The PMU `power` with some events, each with RAPL's scale.
    pub fn pmu(self, pmu_type: u32, cpumask: &str, events: &[(&str, u64)]) -> Self {
        let pmu = Path::new("bus/event_source/devices/power");
        self.file(pmu.join("type"), &pmu_type.to_string());
        self.file(pmu.join("cpumask"), cpumask);
        self.file(pmu.join("format/event"), "config:0-7");
        for (event, config) in events {
            let file = pmu.join("events").join(event);
            self.file(&file, &format!("event={config:#04x}"));
            self.file(format!("{}.scale", file.display()), RAPL_SCALE);
            self.file(format!("{}.unit", file.display()), "Joules");
        }
        self
    }

    /// The PMU `power_core`, whose event counts a CPU's clock as 1 W.
    pub fn core_pmu(self, pmu_type: u32, cpumask: &str) -> Self {
        let pmu = Path::new("bus/event_source/devices/power_core");
        self.file(pmu.join("type"), &pmu_type.to_string());
        self.file(pmu.join("cpumask"), cpumask);
        self.file(pmu.join("events/energy-core"), "event=0x00");
        self.file(pmu.join("events/energy-core.scale"), "1e-9");
        self.file(pmu.join("events/energy-core.unit"), "Joules");
        self
    }

    /// Numbers of cores within their package, and the threads of each.
    pub fn cores(self, cores: &[(u32, u32, &str)]) -> Self {
        for (cpu, core, threads) in cores {
            let topology = PathBuf::from(format!("devices/system/cpu/cpu{cpu}/topology"));
            self.file(topology.join("core_id"), &core.to_string());
            self.file(topology.join("thread_siblings_list"), threads);
        }
        self
    }

    /// A chip of the hardware monitors with these files, below its device as the old drivers have it.
    pub fn chip(self, id: &str, name: &str, files: &[(&str, &str)]) -> Self {
        let device = format!("class/hwmon/{id}/device");
        self.file(format!("{device}/name"), name);
        for (file, content) in files {
            self.file(format!("{device}/{file}"), content);
        }
        self
    }

    /// What a file of a chip says from now on.
    pub fn set_chip(&self, id: &str, file: &str, content: &str) {
        self.file(format!("class/hwmon/{id}/device/{file}"), content);
    }

    pub fn open(&self) -> Result<Powercap, EnergyError> {
        Powercap::open(self.path(), 0)
    }

    pub fn open_perf(&self) -> Result<Perf, EnergyError> {
        Perf::open(self.path(), 0)
    }
}

/// Counters that go on while this lives.
pub struct Moving {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Tree {
    /// Lets the counters of these zones go on, each by 1 mJ about once a millisecond.
    pub fn moving(&self, ids: &[&str]) -> Moving {
        let stop = Arc::new(AtomicBool::new(false));
        let files: Vec<PathBuf> = ids.iter().map(|id| self.class(id).join("energy_uj")).collect();
        let of_thread = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !of_thread.load(Ordering::Relaxed) {
                for file in &files {
                    // A test may have taken it away.
                    let Ok(text) = fs::read_to_string(file) else { continue };
                    let Ok(uj) = text.trim().parse::<u64>() else { continue };
                    let new = file.with_extension("next");
                    fs::write(&new, format!("{}\n", uj + 1000)).unwrap();
                    fs::rename(new, file).unwrap();
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        Moving {
            stop,
            thread: Some(thread),
        }
    }
}

/// Client Intel: cores and graphics inside the package, memory beside it, and the platform.
pub fn laptop() -> Tree {
    Tree::new()
        .maker("0000")
        .cpus(&[(0, 0, 0), (1, 0, 0)])
        .zone("intel-rapl:1", "psys", 10, RANGE)
        .zone("intel-rapl:0", "package-0", 1_000, RANGE)
        .zone("intel-rapl:0:2", "dram", 300, RANGE)
        .zone("intel-rapl:0:0", "core", 100, RANGE)
        .zone("intel-rapl:0:1", "uncore", 200, RANGE)
}

/// Client Intel whose package also has registers in memory, as since Ice Lake: the second driver shows it again.
pub fn laptop_with_mmio() -> Tree {
    Tree::new()
        .maker("0000")
        .cpus(&[(0, 0, 0), (1, 0, 0)])
        .zone("intel-rapl-mmio:0", "package-0", 1_000, RANGE)
        .zone("intel-rapl:0", "package-0", 1_000, RANGE)
        .zone("intel-rapl:0:0", "core", 100, RANGE)
        .zone("intel-rapl:0:1", "uncore", 200, RANGE)
        .zone("intel-rapl:1", "psys", 10, RANGE)
}

/// Server Intel with two sockets: packages and memory, no cores.
pub fn two_sockets() -> Tree {
    Tree::new()
        .maker("0000")
        .cpus(&[(0, 0, 0), (1, 1, 0)])
        .zone("intel-rapl:0", "package-0", 5_000, RANGE)
        .zone("intel-rapl:0:0", "dram", 600, SMALL_RANGE)
        .zone("intel-rapl:1", "package-1", 7_000, RANGE)
        .zone("intel-rapl:1:0", "dram", 800, SMALL_RANGE)
}

/// AMD: a package and one core of it.
pub fn ryzen() -> Tree {
    Tree::new()
        .maker("0002")
        .cpus(&[(0, 0, 0), (1, 0, 0)])
        .zone("intel-rapl:0", "package-0", 9_000, SMALL_RANGE)
        .zone("intel-rapl:0:0", "core", 1_000, SMALL_RANGE)
}

/// NVIDIA Grace with two sockets, as `acpi_power_meter` shows it: a chip for each meter.
pub fn grace() -> Tree {
    let mut tree = Tree::new().cpus(&[(0, 0, 0), (1, 1, 0)]);
    let mut number = 0;
    for socket in 0..2 {
        for (name, uw) in [("Module", 200), ("Grace", 80), ("CPU", 50), ("SysIO", 10)] {
            tree = tree.chip(
                &format!("hwmon{number}"),
                "power_meter",
                &[
                    ("power1_average", &format!("{uw}000000")),
                    ("power1_average_interval", "50"),
                    ("power1_model_number", "Grace"),
                    ("power1_oem_info", &format!("{name} Power Socket {socket}")),
                ],
            );
            number += 1;
        }
    }
    tree
}

/// What the counters of [`epyc`] read at first, by package.
pub const EPYC_UJ: [u64; 2] = [40_000_000_000, 9_000_000_000];

/// AMD with two sockets under a kernel before 6.12, which shows each package once per die, each with a core of the die.
pub fn epyc() -> Tree {
    let mut tree = Tree::new()
        .maker("0002")
        .cpus(&[(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)]);
    for (zone, (package, die)) in [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter().enumerate() {
        let id = format!("intel-rapl:{zone:x}");
        tree = tree
            .zone(
                &id,
                &format!("package-{package}-die-{die}"),
                EPYC_UJ[package],
                SMALL_RANGE,
            )
            .zone(&format!("{id}:0"), "core", 1_000_000 * zone as u64, SMALL_RANGE);
    }
    tree
}

/// What the counters of [`cascade_lake_ap`] read at first, in the order of the zones.
pub const CASCADE_UJ: [u64; 4] = [40_000_000_000, 9_000_000_000, 70_000_000_000, 8_000_000_000];

/// Cascade Lake-AP: two sockets with two dies each, a counter for every die and for its memory.
pub fn cascade_lake_ap() -> Tree {
    let mut tree = Tree::new()
        .maker("0000")
        .cpus(&[(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)]);
    for (zone, (package, die)) in [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter().enumerate() {
        let id = format!("intel-rapl:{zone:x}");
        tree = tree
            .zone(&id, &format!("package-{package}-die-{die}"), CASCADE_UJ[zone], RANGE)
            // A die without memory modules has a counter that stands still.
            .zone(&format!("{id}:0"), "dram", 0, SMALL_RANGE);
    }
    tree
}

/// The kernel's PMU of software events, whose event 0 (`PERF_COUNT_SW_CPU_CLOCK`) counts the nanoseconds of a CPU: a
/// meter of exactly one tick per nanosecond, through the same system calls.
pub const SOFTWARE_PMU: u32 = 1;

/// An event of [`SOFTWARE_PMU`] that counts nothing (`PERF_COUNT_SW_DUMMY`).
pub const DUMMY: u64 = 9;

/// Whether this process may count events of a whole CPU. Says so where a test is skipped, and fails where nothing may be
/// (`DLPM_REQUIRE_KERNEL=1`).
pub fn perf_allowed() -> bool {
    let tree = Tree::new().pmu(SOFTWARE_PMU, "0", &[("energy-pkg", 0)]);
    let Err(error) = tree.open_perf() else {
        return true;
    };
    let required = std::env::var_os("DLPM_REQUIRE_KERNEL").is_some_and(|value| value == "1");
    assert!(!required, "{error}");
    eprintln!("SKIPPED: {error}");
    false
}

/// Names and energies.
pub fn energies(readings: &[ZoneReading]) -> Vec<(&str, Option<u64>)> {
    readings
        .iter()
        .map(|reading| (reading.zone.as_str(), reading.energy_uj.clone().ok()))
        .collect()
}

/// Why a zone is not known.
pub fn reason<'a>(readings: &'a [ZoneReading], zone: &str) -> &'a str {
    let reading = readings.iter().find(|reading| reading.zone == zone).unwrap();
    reading.energy_uj.as_ref().unwrap_err()
}
