//! The PMU `power_core` (AMD, Linux 6.15 and later), whose event `energy-core` counts the energy of one core, on any CPU of
//! it: `drivers/…/perf/rapl.c` has one PMU for packages and one for cores.

use std::{collections::BTreeMap, path::Path};

use super::{
    Zone,
    pmu::{read_event, read_line},
};
use crate::{
    attribution::ledger::Core,
    interval::ZoneKind,
    sources::{
        energy::liveness::Seen,
        perf_event::Event,
        topology::{Topology, parse_cpu_list},
    },
};

const EVENT: &str = "energy-core";

/// A zone for each core that the PMU names a CPU of; none where it is not certain which CPUs a core has.
pub(super) fn find(sysfs: &Path, topology: &Topology, notes: &mut Vec<String>) -> Vec<Zone> {
    let directory = sysfs.join("bus/event_source/devices/power_core");
    if !directory.is_dir() {
        return Vec::new();
    }
    match cores(&directory, topology) {
        Ok(zones) => zones,
        Err(reason) => {
            notes.push(format!("power_core/{EVENT} is not counted: {reason}"));
            Vec::new()
        }
    }
}

fn cores(directory: &Path, topology: &Topology) -> Result<Vec<Zone>, String> {
    let line =
        |file: &str| read_line(&directory.join(file)).map_err(|error| format!("its `{file}` cannot be read: {error}"));
    let text = line("type")?;
    let pmu = text.parse().map_err(|_| format!("its type `{text}` is not a number"))?;
    let Some((config, scale)) = read_event(&directory.join("events"), EVENT)? else {
        return Err("the PMU has no such event".to_owned());
    };
    let cpus = parse_cpu_list(&line("cpumask")?).map_err(|error| error.to_string())?;
    let mut first_of: BTreeMap<Core, u32> = BTreeMap::new();
    for cpu in cpus {
        let core = topology.package_of(cpu).zip(topology.core_of(cpu));
        let core = core.ok_or_else(|| format!("it is not known which core CPU {cpu} is in"))?;
        match first_of.get(&core) {
            Some(first) if topology.share_core(*first, cpu) => {}
            Some(first) => {
                return Err(format!(
                    "CPUs {first} and {cpu} are of two cores that have the same number"
                ));
            }
            None => drop(first_of.insert(core, cpu)),
        }
    }
    for cpu in topology.cpus() {
        let first = topology
            .package_of(cpu)
            .zip(topology.core_of(cpu))
            .and_then(|core| first_of.get(&core));
        if let Some(first) = first.filter(|first| !topology.share_core(**first, cpu)) {
            return Err(format!(
                "CPUs {first} and {cpu} are of two cores that have the same number"
            ));
        }
    }
    let zones = first_of.into_iter().map(|((package, core), cpu)| {
        let event = Event { pmu, config };
        let mut zone = Zone::new(EVENT, ZoneKind::OneCore, Some(package), event, scale, &[cpu]);
        zone.core = Some(core);
        // These counters move as often as those of packages, but a core may rest while all are watched.
        zone.believed.learn(Seen::Moving);
        zone
    });
    Ok(zones.collect())
}
