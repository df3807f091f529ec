//! Which package's zones cover which CPUs: what the names of zones say against what the CPUs say.
//!
//! Both come from the firmware, by different ways, and do not always agree: zones are numbered otherwise than sockets,
//! there are more of them, or fewer, or the CPUs name no package at all. What belongs together is then not known, and
//! energy is neither called idle nor given to anybody ([`Coverage::problems`]).

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    interval::{CpuInterval, ZoneKind},
    sources::topology::Topology,
};

/// Packages of zones and of CPUs, as found at the start.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Packages that have zones.
    zones: BTreeSet<u32>,
    /// The only package zone's number, where all CPUs that name their package name the same one: the zone is theirs,
    /// whatever the numbers are. With the number that the CPUs say, if they say one.
    only: Option<(u32, Option<u32>)>,
    /// What the CPUs said at the start; `None` for those that name no package.
    cpus: BTreeMap<u32, Option<u32>>,
}

impl Coverage {
    /// Holds the packages of zones against those of CPUs.
    pub fn new(zones: impl IntoIterator<Item = u32>, topology: &Topology) -> Self {
        let zones: BTreeSet<u32> = zones.into_iter().collect();
        let mut cpus: BTreeMap<u32, Option<u32>> = topology.online_cpus().iter().map(|&cpu| (cpu, None)).collect();
        cpus.extend(topology.cpus().map(|cpu| (cpu, topology.package_of(cpu))));
        let named: BTreeSet<u32> = cpus.values().filter_map(|package| *package).collect();
        let only = match (zones.len(), zones.first(), named.len()) {
            (1, Some(&zone), 0 | 1) => Some((zone, named.first().copied())),
            _ => None,
        };
        Self { zones, only, cpus }
    }

    /// The package of a CPU by the number that its zones have; `None` if it is not known.
    pub fn package_of(&self, cpu: u32, topology: &Topology) -> Option<u32> {
        let said = topology.package_of(cpu);
        match self.only {
            Some((zone, of_cpus)) if said.is_none() || said == of_cpus => Some(zone),
            _ => said,
        }
    }

    /// Whether the zones' numbers are those that the CPUs say, or the CPUs say none.
    pub fn is_renumbered(&self) -> bool {
        self.only
            .is_some_and(|(zone, of_cpus)| of_cpus.is_some_and(|package| package != zone))
    }

    /// Packages that have CPUs and no zone, with these CPUs; empty if no package has a zone.
    pub fn uncovered(&self, cpus: &[CpuInterval]) -> BTreeMap<u32, Vec<u32>> {
        let mut uncovered: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for cpu in cpus.iter().filter(|_| !self.zones.is_empty()) {
            if let Some(package) = cpu.package.filter(|package| !self.zones.contains(package)) {
                uncovered.entry(package).or_default().push(cpu.cpu);
            }
        }
        uncovered
    }

    /// What does not match, a sentence each; nothing if no package has a zone.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.zones.is_empty() {
            return problems;
        }
        match self.only {
            Some((zone, Some(package))) if zone != package => {
                problems.push(format!(
                    "the only package with an energy zone is package-{zone}, and the CPUs call theirs {package}: they are \
                     taken to be the same"
                ));
                return problems;
            }
            Some((zone, None)) => {
                problems.push(format!(
                    "devices/system/cpu below --sysfs does not say which package the CPUs are in: package-{zone}, the \
                     only one with an energy zone, is taken for that of all CPUs"
                ));
                return problems;
            }
            _ => {}
        }
        let mut of_package: BTreeMap<Option<u32>, Vec<u32>> = BTreeMap::new();
        for (&cpu, &package) in &self.cpus {
            let package = self.only.map_or(package, |(zone, _)| package.or(Some(zone)));
            of_package.entry(package).or_default().push(cpu);
        }
        let without_cpus: Vec<u32> = self
            .zones
            .iter()
            .copied()
            .filter(|&zone| !of_package.contains_key(&Some(zone)))
            .collect();
        if !without_cpus.is_empty() {
            let names: Vec<String> = without_cpus
                .iter()
                .map(|package| format!("package-{package}"))
                .collect();
            problems.push(format!(
                "no CPU says that it is in {}: energy that is counted there goes to `unattributed`",
                names.join(", ")
            ));
        }
        for (package, cpus) in &of_package {
            let which = which(cpus);
            match package {
                Some(package) if !self.zones.contains(package) => problems.push(no_zone(*package, &which)),
                Some(_) => {}
                None => problems.push(format!(
                    "it is not known which package {which} in: the energy of what runs there is not known"
                )),
            }
        }
        problems
    }
}

/// What is said of CPUs whose package has no zone.
pub(super) fn no_zone(package: u32, which: &str) -> String {
    format!("{which} in package {package}, which has no energy zone: the energy of what runs there is not known")
}

/// Whether energy of a zone of this kind is split by the time of CPUs.
pub(super) fn is_split_by_time(kind: ZoneKind) -> bool {
    matches!(kind, ZoneKind::Package | ZoneKind::Core | ZoneKind::OneCore)
}

/// `CPU 3 is`, or `CPUs 0-3,8 are`.
pub(super) fn which(cpus: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(cpu) => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let words: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    match cpus {
        [_] => format!("CPU {} is", words.join(",")),
        _ => format!("CPUs {} are", words.join(",")),
    }
}

/// CPU time of tasks, for each CPU that a zone may cover.
#[derive(Clone, Debug, Default)]
pub(super) struct Busy(Vec<OneCpu>);

#[derive(Clone, Copy, Debug)]
struct OneCpu {
    package: Option<u32>,
    die: Option<u32>,
    core: Option<u32>,
    busy_ns: u64,
}

impl Busy {
    /// Of an interval, whose CPUs have the packages of their zones.
    pub fn of(cpus: &[CpuInterval], topology: &Topology) -> Self {
        let mut busy = Self::default();
        for cpu in cpus {
            busy.0.push(OneCpu {
                package: cpu.package,
                die: topology.die_of(cpu.cpu),
                core: cpu.core,
                busy_ns: cpu.busy_ns.saturating_add(cpu.lost_ns),
            });
        }
        busy
    }

    /// One more CPU.
    pub fn add(&mut self, package: Option<u32>, die: Option<u32>, busy_ns: u64) {
        self.0.push(OneCpu {
            package,
            die,
            core: None,
            busy_ns,
        });
    }

    /// CPU time that must have shown in the zone of one core.
    pub fn of_core(&self, package: Option<u32>, core: u32) -> u64 {
        let cpus = self.0.iter();
        let own = cpus.filter(|cpu| cpu.package == package && cpu.core == Some(core));
        own.fold(0, |sum: u64, cpu| sum.saturating_add(cpu.busy_ns))
    }

    /// CPU time that must have shown in a zone. For the register of one core it is what each of the CPUs had, as it is
    /// not known which core it is. A package whose CPUs are not known counts as long as the machine is on, too: it is
    /// held against all CPUs.
    pub fn of_zone(&self, kind: ZoneKind, package: Option<u32>, die: Option<u32>) -> u64 {
        let in_package =
            |cpu: &&OneCpu| cpu.package == package && (die.is_none() || cpu.die.is_none() || cpu.die == die);
        let sum =
            |cpus: &mut dyn Iterator<Item = &OneCpu>| cpus.fold(0, |sum: u64, cpu| sum.saturating_add(cpu.busy_ns));
        match kind {
            ZoneKind::SingleCore => self
                .0
                .iter()
                .filter(in_package)
                .map(|cpu| cpu.busy_ns)
                .min()
                .unwrap_or(0),
            // Graphics can rest while the CPUs work.
            ZoneKind::Uncore => 0,
            // Cores can be switched off as a whole, so that others prove nothing.
            ZoneKind::Core => sum(&mut self.0.iter().filter(in_package)),
            _ if package.is_none() || !self.0.iter().any(|cpu| cpu.package == package) => sum(&mut self.0.iter()),
            _ => sum(&mut self.0.iter().filter(in_package)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Tree, *};

    fn coverage(zones: &[u32], cpus: &[(u32, u32, u32)]) -> (Coverage, Topology, Tree) {
        let tree = Tree::new().cpus(cpus);
        let topology = Topology::read(tree.path());
        (Coverage::new(zones.iter().copied(), &topology), topology, tree)
    }

    #[test]
    fn zones_and_cpus_that_match_are_no_problem() {
        for (zones, cpus) in [
            (vec![0], vec![(0, 0, 0), (1, 0, 0)]),
            (vec![0, 1], vec![(0, 0, 0), (1, 1, 0)]),
            (vec![3], vec![(0, 3, 0)]),
            (vec![], vec![(0, 0, 0), (1, 1, 0)]),
        ] {
            let (coverage, topology, _tree) = coverage(&zones, &cpus);
            assert_eq!(coverage.problems(), [""; 0]);
            assert_eq!(coverage.package_of(0, &topology), Some(cpus[0].1));
            assert!(!coverage.is_renumbered());
        }
    }

    #[test]
    fn the_only_zone_of_the_only_socket_is_its_own_whatever_its_number() {
        for (zone, cpus) in [(1, vec![(0, 0, 0), (1, 0, 0)]), (0, vec![(0, 2, 0)]), (7, vec![])] {
            let (coverage, topology, _tree) = coverage(&[zone], &cpus);
            assert_eq!(coverage.problems().len(), 1);
            assert!(coverage.problems()[0].contains(&format!("package-{zone}")));
            assert_eq!(coverage.package_of(0, &topology), Some(zone));
        }
    }

    #[test]
    fn zones_without_cpus_and_cpus_without_a_zone_are_named() {
        let all: Vec<u32> = (0..16).collect();
        let (many, topology, _tree) = coverage(&all, &[(0, 0, 0), (1, 0, 0)]);
        assert_eq!(many.problems().len(), 1);
        assert!(
            many.problems()[0].contains("package-1, package-2"),
            "{:?}",
            many.problems()
        );
        assert_eq!(many.package_of(1, &topology), Some(0));

        let (one, topology, _tree) = coverage(&[0], &[(0, 0, 0), (1, 1, 0), (2, 1, 0), (5, 1, 0)]);
        assert!(one.problems()[0].starts_with("CPUs 1-2,5 are in package 1, which has no energy zone"));
        assert_eq!(one.package_of(5, &topology), Some(1));

        let (neither, topology, _tree) = coverage(&[4, 5], &[]);
        assert!(neither.problems()[0].contains("package-4, package-5"));
        assert_eq!(neither.package_of(0, &topology), None);
    }

    #[test]
    fn cpu_time_counts_for_the_zones_that_cover_it() {
        let mut busy = Busy::default();
        busy.add(Some(0), Some(0), 5);
        busy.add(Some(0), Some(1), 7);
        busy.add(Some(1), Some(0), 100);
        let of = |kind, package, die| busy.of_zone(kind, package, die);
        assert_eq!(of(ZoneKind::Package, Some(0), None), 12);
        assert_eq!(of(ZoneKind::Package, Some(0), Some(1)), 7);
        assert_eq!(of(ZoneKind::Dram, Some(1), None), 100);
        assert_eq!(of(ZoneKind::Psys, None, None), 112);
        assert_eq!(
            of(ZoneKind::SingleCore, Some(0), None),
            5,
            "the core that is read may be the one that was idle"
        );
        assert_eq!(of(ZoneKind::Uncore, Some(0), None), 0);
        assert_eq!(of(ZoneKind::Package, Some(9), None), 112);
        assert_eq!(of(ZoneKind::Core, Some(9), None), 0);
    }
}
