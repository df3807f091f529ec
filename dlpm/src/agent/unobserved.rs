//! What the meters counted while no agent was running. Pure: the counters at the end, and those of the first interval
//! after it.

use std::collections::BTreeMap;

use super::counters::Zone;
use crate::{
    attribution::{energy_tree::WHOLE, gpus},
    interval::{Interval, MeterSource, ZoneKind},
};

/// More power than a zone draws for long, in watts: what a counter may have counted beyond its range is not known after
/// that.
const LIMIT_W: u64 = 1_000;

/// Energy that no interval has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unobserved {
    /// µJ by device.
    pub devices_uj: BTreeMap<String, u64>,
    /// µJ by zone.
    pub zones_uj: BTreeMap<String, u64>,
    /// What roots still owe their parts, in µJ below 0: it goes on in the first interval.
    pub carries_uj: BTreeMap<String, i64>,
    /// Zones of which it is not known, or may be more: a sentence each.
    pub notes: Vec<String>,
}

/// A zone at the beginning of the first interval.
struct Begin<'a> {
    zone: String,
    kind: ZoneKind,
    source: MeterSource,
    energy_uj: &'a Result<u64, String>,
    counter_uj: Option<u64>,
    range_uj: Option<u64>,
}

impl Unobserved {
    /// From the zones and carries of the last snapshot, `down_ns` before the first interval began.
    pub fn between(
        zones: &BTreeMap<String, Zone>,
        carries_uj: &BTreeMap<String, i64>,
        down_ns: u64,
        first: &Interval,
    ) -> Self {
        let mut unobserved = Self::default();
        for begin in begins(first) {
            let Some(last) = zones.get(&begin.zone) else { continue };
            match counted_uj(last, &begin) {
                Ok(energy_uj) => {
                    unobserved.zones_uj.insert(begin.zone.clone(), energy_uj);
                    if begin.range_uj.is_some_and(|range_uj| may_wrap_twice(range_uj, down_ns)) {
                        unobserved.notes.push(format!(
                            "{}: its counter may have wrapped more than once while no agent was running, so at least \
                             the energy that it shows is counted as unobserved",
                            begin.zone
                        ));
                    }
                }
                Err(reason) => unobserved.notes.push(format!(
                    "{}: what it counted while no agent was running is not known: {reason}",
                    begin.zone
                )),
            }
        }
        unobserved.split(carries_uj, first);
        unobserved
    }

    /// From zones to devices: as in an interval, a root has a rest, and pays what it owes.
    fn split(&mut self, carries_uj: &BTreeMap<String, i64>, first: &Interval) {
        for zone in &first.zones {
            let Some(&whole_uj) = self.zones_uj.get(&zone.zone) else {
                continue;
            };
            match zone.kind {
                ZoneKind::Package | ZoneKind::Machine => {
                    let parts = || {
                        first
                            .zones
                            .iter()
                            .filter(|part| is_part(&part.zone, &zone.zone, part.kind))
                    };
                    let known = parts().all(|part| self.zones_uj.contains_key(&part.zone));
                    let parts_uj: i128 = match known {
                        true => parts().map(|part| i128::from(self.zones_uj[&part.zone])).sum(),
                        false => 0,
                    };
                    let carry_uj = carries_uj.get(&zone.zone).copied().unwrap_or(0);
                    let left_uj = i128::from(whole_uj) + i128::from(carry_uj) - parts_uj;
                    if known {
                        for part in parts() {
                            self.devices_uj.insert(part.zone.clone(), self.zones_uj[&part.zone]);
                        }
                    }
                    let rest = if known { "rest" } else { WHOLE };
                    let left_at_least_uj = u64::try_from(left_uj.max(0)).unwrap_or(u64::MAX);
                    self.devices_uj
                        .insert(format!("{}/{rest}", zone.zone), left_at_least_uj);
                    if left_uj < 0 {
                        let owed_uj = i64::try_from(left_uj).unwrap_or(i64::MIN);
                        self.carries_uj.insert(zone.zone.clone(), owed_uj);
                    }
                }
                ZoneKind::Core | ZoneKind::OneCore | ZoneKind::Uncore => {
                    let has_root = first
                        .zones
                        .iter()
                        .any(|root| root.kind == ZoneKind::Package && is_part(&zone.zone, &root.zone, zone.kind));
                    if !has_root {
                        self.devices_uj.insert(zone.zone.clone(), whole_uj);
                    }
                }
                ZoneKind::Dram => {
                    self.devices_uj.insert(zone.zone.clone(), whole_uj);
                }
                ZoneKind::SingleCore | ZoneKind::Psys | ZoneKind::Board | ZoneKind::Gpu => {}
            }
        }
        for gpu in first.gpus.iter().filter(|gpu| gpu.inside.is_none()) {
            let name = gpus::zone_name(&gpu.uuid);
            if let Some(&energy_uj) = self.zones_uj.get(&name) {
                self.devices_uj.insert(name, energy_uj);
            }
        }
    }
}

fn is_part(part: &str, root: &str, kind: ZoneKind) -> bool {
    matches!(kind, ZoneKind::Core | ZoneKind::OneCore | ZoneKind::Uncore)
        && crate::attribution::ledger::is_part(part, root)
}

fn begins(first: &Interval) -> impl Iterator<Item = Begin<'_>> {
    let zones = first.zones.iter().map(|zone| Begin {
        zone: zone.zone.clone(),
        kind: zone.kind,
        source: zone.source,
        energy_uj: &zone.energy_uj,
        counter_uj: zone.counter_uj,
        range_uj: zone.range_uj,
    });
    let gpus = first.gpus.iter().filter(|gpu| gpu.inside.is_none());
    let gpus = gpus.map(|gpu| Begin {
        zone: gpus::zone_name(&gpu.uuid),
        kind: ZoneKind::Gpu,
        source: gpu.source,
        energy_uj: &gpu.energy_uj,
        counter_uj: gpu.counter_uj,
        range_uj: None,
    });
    zones.chain(gpus)
}

/// Energy between the last reading of an agent and the beginning of the first interval.
fn counted_uj(last: &Zone, begin: &Begin<'_>) -> Result<u64, String> {
    match begin.source {
        MeterSource::Powercap | MeterSource::NvmlEnergy => {}
        MeterSource::Perf
        | MeterSource::Hwmon
        | MeterSource::HwmonPower
        | MeterSource::Estimate
        | MeterSource::NvmlPower => {
            return Err(format!(
                "{} has no counter that goes on without the agent",
                begin.kind.as_str()
            ));
        }
    }
    if last.source != begin.source {
        return Err("it is read in another way than before".to_owned());
    }
    let before_uj = last.counter_uj.ok_or("its last reading failed")?;
    let energy_uj = begin.energy_uj.as_ref().map_err(Clone::clone)?;
    let end_uj = begin.counter_uj.ok_or("its first reading failed")?;
    let begin_uj = match (end_uj.checked_sub(*energy_uj), begin.range_uj) {
        (Some(begin_uj), _) => begin_uj,
        // It wrapped within the interval.
        (None, Some(range_uj)) => (u128::from(end_uj) + u128::from(range_uj) + 1)
            .checked_sub((*energy_uj).into())
            .and_then(|begin_uj| u64::try_from(begin_uj).ok())
            .ok_or("its counter wrapped more than once within an interval")?,
        (None, None) => return Err("its counter was reset".to_owned()),
    };
    match (begin_uj.checked_sub(before_uj), begin.range_uj) {
        (Some(energy_uj), _) => Ok(energy_uj),
        (None, Some(range_uj)) => (range_uj.checked_sub(before_uj))
            .and_then(|left_uj| left_uj.checked_add(begin_uj)?.checked_add(1))
            .ok_or_else(|| "its range is another one than before".to_owned()),
        (None, None) => Err("its counter was reset".to_owned()),
    }
}

fn may_wrap_twice(range_uj: u64, down_ns: u64) -> bool {
    // W · ns = nJ.
    u128::from(down_ns) * u128::from(LIMIT_W) / 1_000 > u128::from(range_uj)
}
