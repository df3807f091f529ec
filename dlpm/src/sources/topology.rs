//! Which package a CPU is in and which hardware threads share a core, from `devices/system/cpu`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Largest CPU number that is believed: eight times the most that Linux can be built for. A damaged list such as
/// `0-4294967295` must not fill the memory.
const MAX_CPU: u32 = 65_535;

/// The CPUs of the machine, as far as sysfs tells.
///
/// A tree without `devices/system/cpu` gives an empty topology. An offline CPU has no topology directory: it is
/// unknown until it comes online and is read with [`Topology::refresh`].
#[derive(Clone, Debug, Default)]
pub struct Topology {
    root: PathBuf,
    possible: Vec<u32>,
    online: Vec<u32>,
    cpus: BTreeMap<u32, Cpu>,
    notes: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Cpu {
    package: Option<u32>,
    /// Kernels before 5.3 do not name dies.
    die: Option<u32>,
    /// Number of its core within the package.
    core: Option<u32>,
    threads: Vec<u32>,
}

/// A list of CPUs that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{list}` is not a list of CPUs such as `0-3,8`")]
pub struct CpuListError {
    list: String,
}

impl Topology {
    /// Reads the CPUs below `sysfs` (`/sys`). What is there but cannot be understood is left out and named in
    /// [`Topology::notes`].
    pub fn read(sysfs: &Path) -> Self {
        let mut topology = Self {
            root: sysfs.join("devices/system/cpu"),
            ..Self::default()
        };
        topology.possible = topology.read_list("possible");
        topology.online = topology.read_list("online");
        let entries = match fs::read_dir(&topology.root) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    topology.note(format!("{}: {error}", topology.root.display()));
                }
                return topology;
            }
        };
        let mut numbers: Vec<u32> = entries
            .filter_map(|entry| cpu_number(entry.ok()?.file_name().to_str()?))
            .collect();
        numbers.sort_unstable();
        for cpu in numbers {
            topology.refresh(cpu);
        }
        topology
    }

    /// Reads one CPU again, as when it came online. Returns whether it has a topology now; while it is offline, what
    /// was known before stays.
    pub fn refresh(&mut self, cpu: u32) -> bool {
        let directory = self.root.join(format!("cpu{cpu}/topology"));
        if !directory.is_dir() {
            return false;
        }
        let package = self.read_id(&directory, "physical_package_id", &format!("package of CPU {cpu}"));
        let die = self.read_id(&directory, "die_id", &format!("die of CPU {cpu}"));
        let core = self.read_id(&directory, "core_id", &format!("core of CPU {cpu}"));
        let threads = match self.read_file(&directory.join("thread_siblings_list")) {
            Some(text) => self.parse(&text, &format!("siblings of CPU {cpu}")),
            None => Vec::new(),
        };
        self.cpus.insert(
            cpu,
            Cpu {
                package,
                die,
                core,
                threads,
            },
        );
        true
    }

    /// The physical package (socket) of a CPU; `None` if it is not known.
    pub fn package_of(&self, cpu: u32) -> Option<u32> {
        self.cpus.get(&cpu)?.package
    }

    /// The die of a CPU within its package; `None` if it is not known.
    pub fn die_of(&self, cpu: u32) -> Option<u32> {
        self.cpus.get(&cpu)?.die
    }

    /// The core of a CPU, by its number within the package; `None` if it is not known.
    pub fn core_of(&self, cpu: u32) -> Option<u32> {
        self.cpus.get(&cpu)?.core
    }

    /// Whether the kernel says of either of two CPUs that they are hardware threads of one core.
    pub fn share_core(&self, one: u32, other: u32) -> bool {
        let names = |cpu, other| self.cpus.get(&cpu).is_some_and(|known| known.threads.contains(other));
        one == other || names(one, &other) || names(other, &one)
    }

    /// The CPUs that have a topology, in order.
    pub fn cpus(&self) -> impl Iterator<Item = u32> {
        self.cpus.keys().copied()
    }

    /// The dies of a package that have CPUs which are or were online; empty where the kernel names no dies. Numbers of
    /// dies begin anew in each package.
    pub fn dies_of(&self, package: u32) -> BTreeSet<u32> {
        let cpus = self.cpus.values().filter(|cpu| cpu.package == Some(package));
        cpus.filter_map(|cpu| cpu.die).collect()
    }

    /// Pairs of CPUs that are the two hardware threads of one core, the lower number first, in order.
    ///
    /// A core with more than two threads makes no pair: see [`Topology::more_than_two_threads`].
    pub fn siblings(&self) -> Vec<(u32, u32)> {
        let others = self.others_on_core();
        let only = |cpu: u32| match others.get(&cpu) {
            Some(set) if set.len() == 1 => set.first().copied(),
            _ => None,
        };
        others
            .keys()
            .filter_map(|&cpu| {
                let other = only(cpu)?;
                (cpu < other && only(other) == Some(cpu)).then_some((cpu, other))
            })
            .collect()
    }

    /// Whether a core has more than two hardware threads: the overlap of such threads is not measured.
    pub fn more_than_two_threads(&self) -> bool {
        self.others_on_core().values().any(|others| others.len() > 1)
    }

    /// CPUs that can ever be online; empty if sysfs does not say.
    pub fn possible_cpus(&self) -> &[u32] {
        &self.possible
    }

    /// CPUs that were online when the topology was read; empty if sysfs does not say.
    pub fn online_cpus(&self) -> &[u32] {
        &self.online
    }

    /// What was there but could not be understood, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// For each CPU, the other threads of its core. Both directions count, because the list of a CPU that was read
    /// while its sibling was offline does not name it.
    fn others_on_core(&self) -> BTreeMap<u32, BTreeSet<u32>> {
        let mut others: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for (&cpu, known) in &self.cpus {
            for &thread in known.threads.iter().filter(|&&thread| thread != cpu) {
                others.entry(cpu).or_default().insert(thread);
                others.entry(thread).or_default().insert(cpu);
            }
        }
        others
    }

    fn read_id(&mut self, directory: &Path, file: &str, what: &str) -> Option<u32> {
        let text = self.read_file(&directory.join(file))?;
        // The kernel writes -1 where the firmware names none.
        if text.starts_with('-') {
            return None;
        }
        let id = text.parse().ok();
        if id.is_none() {
            self.note(format!("{what}: `{text}` is not a number"));
        }
        id
    }

    fn read_list(&mut self, name: &str) -> Vec<u32> {
        match self.read_file(&self.root.join(name)) {
            Some(text) => self.parse(&text, &format!("list of {name} CPUs")),
            None => Vec::new(),
        }
    }

    fn parse(&mut self, text: &str, what: &str) -> Vec<u32> {
        parse_cpu_list(text).unwrap_or_else(|error| {
            self.note(format!("{what}: {error}"));
            Vec::new()
        })
    }

    fn read_file(&mut self, path: &Path) -> Option<String> {
        match fs::read_to_string(path) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.note(format!("{}: {error}", path.display()));
                }
                None
            }
        }
    }

    fn note(&mut self, note: String) {
        // A CPU that is refreshed often must not repeat the same complaint.
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// Numbers of a kernel CPU list such as `0-3,8`, ascending and once each; the empty list is valid.
///
/// # Errors
///
/// Where a part is not a number or a range, runs backwards, or is above 65,535.
pub fn parse_cpu_list(list: &str) -> Result<Vec<u32>, CpuListError> {
    let wrong = || CpuListError { list: list.to_owned() };
    let number = |text: &str| match text.parse::<u32>() {
        Ok(number) if number <= MAX_CPU => Ok(number),
        _ => Err(wrong()),
    };
    let mut cpus = BTreeSet::new();
    for part in list.trim().split(',').filter(|_| !list.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        cpus.extend(first..=last);
    }
    Ok(cpus.into_iter().collect())
}

/// `cpu12` → 12; other names (`cpufreq`, `cpuidle`) are not CPUs.
fn cpu_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("cpu")?;
    let number = digits.parse().ok()?;
    (digits.bytes().all(|byte| byte.is_ascii_digit()) && number <= MAX_CPU).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn cpu(sysfs: &TempDir, number: u32, package: &str, siblings: &str) {
        let directory = sysfs.path().join(format!("devices/system/cpu/cpu{number}/topology"));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("physical_package_id"), format!("{package}\n")).unwrap();
        fs::write(directory.join("thread_siblings_list"), format!("{siblings}\n")).unwrap();
    }

    #[test]
    fn two_packages_with_sibling_threads() {
        let sysfs = TempDir::new().unwrap();
        cpu(&sysfs, 0, "0", "0,2");
        cpu(&sysfs, 1, "1", "1,3");
        cpu(&sysfs, 2, "0", "0,2");
        cpu(&sysfs, 3, "1", "1,3");
        let root = sysfs.path().join("devices/system/cpu");
        fs::create_dir_all(root.join("cpufreq")).unwrap();
        fs::write(root.join("possible"), "0-7\n").unwrap();
        fs::write(root.join("online"), "0-3\n").unwrap();
        let topology = Topology::read(sysfs.path());
        assert_eq!(topology.package_of(2), Some(0));
        assert_eq!(topology.package_of(3), Some(1));
        assert_eq!(topology.package_of(4), None);
        assert_eq!(topology.siblings(), [(0, 2), (1, 3)]);
        assert!(!topology.more_than_two_threads());
        assert_eq!(topology.possible_cpus(), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(topology.online_cpus(), [0, 1, 2, 3]);
        assert!(topology.notes().is_empty());
    }

    #[test]
    fn an_absent_tree_is_empty_and_no_complaint() {
        let sysfs = TempDir::new().unwrap();
        let topology = Topology::read(sysfs.path());
        assert_eq!(topology.package_of(0), None);
        assert!(topology.siblings().is_empty() && topology.possible_cpus().is_empty());
        assert!(topology.notes().is_empty());
    }

    #[test]
    fn four_threads_a_core_make_no_pair() {
        let sysfs = TempDir::new().unwrap();
        for number in 0..4 {
            cpu(&sysfs, number, "0", "0-3");
        }
        cpu(&sysfs, 4, "0", "4-5");
        cpu(&sysfs, 5, "0", "4-5");
        let topology = Topology::read(sysfs.path());
        assert!(topology.more_than_two_threads());
        assert_eq!(topology.siblings(), [(4, 5)]);
    }

    #[test]
    fn a_package_that_the_firmware_does_not_name_is_unknown() {
        let sysfs = TempDir::new().unwrap();
        cpu(&sysfs, 0, "-1", "0");
        assert_eq!(Topology::read(sysfs.path()).package_of(0), None);
    }

    #[test]
    fn a_cpu_that_comes_online_later_is_read_then_and_kept_when_it_leaves() {
        let sysfs = TempDir::new().unwrap();
        cpu(&sysfs, 0, "0", "0");
        let mut topology = Topology::read(sysfs.path());
        assert!(!topology.refresh(1));
        assert_eq!(topology.package_of(1), None);
        cpu(&sysfs, 1, "0", "0-1");
        assert!(topology.refresh(1));
        assert_eq!(topology.package_of(1), Some(0));
        assert_eq!(
            topology.siblings(),
            [(0, 1)],
            "the stale list of CPU 0 does not hide the pair"
        );
        fs::remove_dir_all(sysfs.path().join("devices/system/cpu/cpu1/topology")).unwrap();
        assert!(!topology.refresh(1));
        assert_eq!(topology.package_of(1), Some(0));
    }

    #[test]
    fn what_cannot_be_understood_is_noted_once() {
        let sysfs = TempDir::new().unwrap();
        cpu(&sysfs, 0, "socket", "zero");
        let mut topology = Topology::read(sysfs.path());
        topology.refresh(0);
        assert_eq!(topology.notes().len(), 2, "{:?}", topology.notes());
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpu_list("0-3,8\n").unwrap(), [0, 1, 2, 3, 8]);
        assert_eq!(parse_cpu_list("5").unwrap(), [5]);
        assert_eq!(parse_cpu_list("\n").unwrap(), [0u32; 0]);
        for wrong in ["a", "3-1", "1,", "-1", "0-4294967295", "1-2-3", "70000"] {
            assert!(parse_cpu_list(wrong).is_err(), "{wrong}");
        }
    }
}
