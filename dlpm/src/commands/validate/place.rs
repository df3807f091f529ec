//! Which CPUs a validation uses: two cores of one kind in one package, and a third core for dlpm.

use std::{collections::BTreeMap, path::Path};

use crate::{
    sources::{conditions::capacity, topology::Topology},
    validate::{Refusal, Why},
};

/// Where loads and dlpm run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The package of both loads.
    pub package: u32,
    /// CPUs of core A, core B, and dlpm.
    pub cpus: [u32; 3],
    /// Whether dlpm is on a core of a load.
    pub shares_core: bool,
}

/// A CPU that may be used, and its package.
pub type Allowed = BTreeMap<u32, u32>;

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// CPUs of core A, core B, and dlpm.
    pub cpus: Option<[u32; 3]>,
    /// Whether dlpm may share a core with a load.
    pub share_core: bool,
}

/// Chooses CPUs of `allowed` (those that are online, may be used, and are in a package with a meter or beside one), loads
/// on one of the `metered` packages.
///
/// # Errors
///
/// Where there are too few cores, or those that were named do not fit.
pub fn choose(
    wanted: Wanted,
    allowed: &Allowed,
    metered: &[u32],
    topology: &Topology,
    sysfs: &Path,
) -> Result<Place, Refusal> {
    if let Some(cpus) = wanted.cpus {
        return named(cpus, wanted.share_core, allowed, metered, topology);
    }
    // One CPU of each core, the lowest.
    let mut cores: Vec<u32> = Vec::new();
    for &cpu in allowed.keys() {
        if !cores.iter().any(|core| topology.share_core(*core, cpu)) {
            cores.push(cpu);
        }
    }
    for package in metered {
        let mut kinds: BTreeMap<Option<u64>, Vec<u32>> = BTreeMap::new();
        for cpu in cores.iter().filter(|cpu| allowed.get(cpu) == Some(package)) {
            kinds.entry(capacity(sysfs, *cpu)).or_default().push(*cpu);
        }
        // Of the kind that there is most of (of two, the faster one), the highest numbers: interrupts are often handled by
        // the first CPUs.
        let Some((_, kind)) = kinds.into_iter().max_by_key(|(capacity, cpus)| (cpus.len(), *capacity)) else {
            continue;
        };
        let [.., a, b] = *kind.as_slice() else { continue };
        if let Some(dlpm) = cores.iter().find(|cpu| **cpu != a && **cpu != b) {
            return Ok(Place {
                package: *package,
                cpus: [a, b, *dlpm],
                shares_core: false,
            });
        }
        if wanted.share_core {
            return Ok(Place {
                package: *package,
                cpus: [a, b, a],
                shares_core: true,
            });
        }
    }
    Err(Refusal::new(
        Why::TooFewCores,
        format!(
            "two loads and dlpm need three cores, two of them of one kind in a package with a meter, and {} may be used",
            match cores.len() {
                1 => "1 core".to_owned(),
                cores => format!("{cores} cores"),
            }
        ),
    ))
}

fn named(
    cpus: [u32; 3],
    share_core: bool,
    allowed: &Allowed,
    metered: &[u32],
    topology: &Topology,
) -> Result<Place, Refusal> {
    let refused = |seen: String| Err(Refusal::new(Why::TooFewCores, seen));
    let [a, b, dlpm] = cpus;
    if let Some(cpu) = cpus.iter().find(|cpu| !allowed.contains_key(cpu)) {
        return refused(format!(
            "CPU {cpu} is offline, may not be used, or is in no known package"
        ));
    }
    let package = allowed.get(&a).copied().unwrap_or_default();
    if allowed.get(&b) != Some(&package) {
        return refused(format!("CPUs {a} and {b} are in two packages"));
    }
    if !metered.contains(&package) {
        return refused(format!("package {package}, where CPUs {a} and {b} are, has no meter"));
    }
    if topology.share_core(a, b) {
        return refused(format!("CPUs {a} and {b} are one core"));
    }
    let shares_core = topology.share_core(a, dlpm) || topology.share_core(b, dlpm);
    if shares_core && !share_core {
        return refused(format!("CPU {dlpm} is on the core of a load"));
    }
    Ok(Place {
        package,
        cpus,
        shares_core,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Two packages of so many cores with two threads each, as `/sys` shows them; core numbers of the second are small.
    fn machine(cores: u32, capacities: &[&str]) -> (tempfile::TempDir, Topology, Allowed) {
        let sysfs = tempfile::tempdir().unwrap();
        let all = 2 * cores;
        let mut allowed = Allowed::new();
        for cpu in 0..2 * all {
            let core = cpu % all;
            let folder = sysfs.path().join(format!("devices/system/cpu/cpu{cpu}"));
            fs::create_dir_all(folder.join("topology")).unwrap();
            let write = |file: &str, text: String| fs::write(folder.join(file), text + "\n").unwrap();
            write("topology/physical_package_id", (core / cores).to_string());
            write("topology/core_id", core.to_string());
            write("topology/thread_siblings_list", format!("{core},{}", core + all));
            if let Some(capacity) = capacities.get(core as usize) {
                write("cpu_capacity", (*capacity).to_owned());
            }
            allowed.insert(cpu, core / cores);
        }
        let topology = Topology::read(sysfs.path());
        (sysfs, topology, allowed)
    }

    const AUTO: Wanted = Wanted {
        cpus: None,
        share_core: false,
    };

    #[test]
    fn loads_are_on_two_cores_of_a_metered_package_and_dlpm_on_a_third() {
        let (sysfs, topology, allowed) = machine(4, &[]);
        let choose = |wanted: Wanted, metered: &[u32]| choose(wanted, &allowed, metered, &topology, sysfs.path());
        let place = choose(AUTO, &[0, 1]).unwrap();
        assert_eq!((place.package, place.cpus, place.shares_core), (0, [2, 3, 0], false));
        assert_eq!(choose(AUTO, &[1]).unwrap().cpus, [6, 7, 0]);
        assert_eq!(choose(AUTO, &[]).unwrap_err().why, Why::TooFewCores);
        let named = |cpus: [u32; 3], share_core, metered: &[u32]| {
            let cpus = Some(cpus);
            choose(Wanted { cpus, share_core }, metered)
        };
        assert_eq!(named([0, 1, 2], false, &[0]).unwrap().cpus, [0, 1, 2]);
        for (cpus, says) in [
            ([0, 8, 2], "are one core"),
            ([0, 4, 2], "in two packages"),
            ([0, 99, 2], "CPU 99 is offline"),
            ([0, 1, 9], "CPU 9 is on the core of a load"),
        ] {
            let refusal = named(cpus, false, &[0]).unwrap_err().to_string();
            assert!(refusal.contains(says) && refusal.contains("--cpus"), "{refusal}");
        }
        assert!(named([0, 1, 9], true, &[0]).unwrap().shares_core);
        assert!(
            named([0, 1, 2], false, &[1])
                .unwrap_err()
                .to_string()
                .contains("has no meter")
        );
    }

    #[test]
    fn both_cores_are_of_one_kind() {
        let (sysfs, topology, allowed) = machine(4, &["1024", "1024", "446", "446"]);
        let place = choose(AUTO, &allowed, &[0], &topology, sysfs.path()).unwrap();
        assert_eq!(place.cpus, [0, 1, 2]);
        let (sysfs, topology, allowed) = machine(2, &["1024", "446"]);
        assert!(choose(AUTO, &allowed, &[0], &topology, sysfs.path()).is_err());
    }

    #[test]
    fn two_cores_are_too_few_unless_dlpm_may_share_one() {
        let (sysfs, topology, allowed) = machine(2, &[]);
        let two: Allowed = allowed.into_iter().filter(|(_, package)| *package == 0).collect();
        let choose = |share_core| choose(Wanted { cpus: None, share_core }, &two, &[0], &topology, sysfs.path());
        let refusal = choose(false).unwrap_err();
        assert!(refusal.to_string().contains("2 cores may be used"), "{refusal}");
        assert!(refusal.to_string().contains("--share-core"), "{refusal}");
        let place = choose(true).unwrap();
        assert_eq!((place.cpus, place.shares_core), ([0, 1, 0], true));
    }
}
