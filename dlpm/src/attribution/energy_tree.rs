//! From the zones that meters count to what is split.
//!
//! A package contains its core and uncore zones and a rest; DRAM is beside it; psys covers the platform and is never
//! added to anything or split.
//!
//! The counters of a package and its parts are not read at one instant, so that for a moment the parts can exceed the
//! whole. Then the rest is 0 and the (negative) difference is carried: the package's next delta contains what its
//! parts counted early. So over the leaves of a package of which all are known
//!
//! `sum of leaves = energy + previous carry - carry`.
//!
//! Where the package or a part of it is not known, the rest is not known either, the equation says nothing, and the
//! carry starts again at 0: the delta that would have settled it is the one that is missing or cannot be split.

use std::collections::BTreeMap;

use crate::{
    attribution::ledger::{LeafZone, Ledger, Method, RootZone},
    interval::{MeterSource, ZoneKind, ZoneReading},
};

/// What each root zone carries from one interval to the next, by the name of the zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carries(BTreeMap<String, i64>);

impl Carries {
    /// What each root carries, by the name of the zone: µJ, at most 0.
    pub fn new(carries: BTreeMap<String, i64>) -> Self {
        Self(carries)
    }

    /// What `ledger` carries to the interval after it.
    pub fn of(ledger: &Ledger) -> Self {
        Self(
            ledger
                .roots
                .iter()
                .filter(|root| root.carry_uj != 0)
                .map(|root| (root.zone.clone(), root.carry_uj))
                .collect(),
        )
    }

    fn get(&self, zone: &str) -> i64 {
        self.0.get(zone).copied().unwrap_or(0).min(0)
    }
}

/// Roots and leaves of one interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnergyTree {
    /// What meters read and what other zones are part of.
    pub roots: Vec<RootZone>,
    /// What is split.
    pub leaves: Vec<LeafZone>,
}

/// Makes the tree. Parts belong to the root whose name their own begins with (`package-0/core` to `package-0`).
pub fn build(zones: &[ZoneReading], carries: &Carries) -> EnergyTree {
    let mut tree = EnergyTree::default();
    let roots = || zones.iter().filter(|zone| is_root(zone.kind));
    for root in roots() {
        let parts: Vec<&ZoneReading> = zones
            .iter()
            .filter(|zone| is_part(zone.kind) && is_part_of(zone, root))
            .collect();
        let previous_carry_uj = if root.kind == ZoneKind::Package {
            carries.get(&root.zone)
        } else {
            0
        };
        let mut carry_uj = 0;
        tree.leaves.extend(parts.iter().map(|part| meter_leaf(part)));
        if root.kind != ZoneKind::Psys {
            let rest = rest_of(root, &parts, previous_carry_uj);
            carry_uj = rest.as_ref().map_or(0, |(_, carry_uj)| *carry_uj);
            tree.leaves.push(LeafZone {
                zone: format!("{}/rest", root.zone),
                kind: root.kind,
                rest: true,
                package: root.package,
                energy_uj: rest.map(|(rest_uj, _)| rest_uj),
                counter_uj: None,
                range_uj: None,
                source: root.source,
                method: split_method(root),
                idle_floor_mw: None,
            });
        }
        tree.roots.push(RootZone {
            zone: root.zone.clone(),
            kind: root.kind,
            package: root.package,
            energy_uj: root.energy_uj.clone(),
            counter_uj: root.counter_uj,
            range_uj: root.range_uj,
            previous_carry_uj,
            carry_uj,
            source: root.source,
            method: match root.source {
                MeterSource::Estimate => Method::Estimate,
                MeterSource::Powercap | MeterSource::NvmlEnergy | MeterSource::NvmlPower => Method::Measured,
            },
        });
    }
    // DRAM, and parts whose package has no meter.
    let has_root = |zone: &ZoneReading| is_part(zone.kind) && roots().any(|root| is_part_of(zone, root));
    let alone = zones.iter().filter(|zone| !is_root(zone.kind) && !has_root(zone));
    tree.leaves.extend(alone.map(meter_leaf));
    tree
}

fn is_root(kind: ZoneKind) -> bool {
    matches!(kind, ZoneKind::Package | ZoneKind::Psys | ZoneKind::Machine)
}

fn is_part(kind: ZoneKind) -> bool {
    matches!(kind, ZoneKind::Core | ZoneKind::Uncore)
}

fn is_part_of(zone: &ZoneReading, root: &ZoneReading) -> bool {
    root.kind == ZoneKind::Package
        && zone
            .zone
            .strip_prefix(root.zone.as_str())
            .is_some_and(|below| below.starts_with('/'))
}

/// The rest of `root` and the carry to the next interval, in µJ.
fn rest_of(root: &ZoneReading, parts: &[&ZoneReading], previous_carry_uj: i64) -> Result<(u64, i64), String> {
    let whole_uj = root.energy_uj.as_ref().map_err(Clone::clone)?;
    let mut rest_uj = i128::from(*whole_uj) + i128::from(previous_carry_uj);
    for part in parts {
        match &part.energy_uj {
            Ok(part_uj) => rest_uj -= i128::from(*part_uj),
            Err(reason) => return Err(format!("{} is not known: {reason}", part.zone)),
        }
    }
    if let Ok(rest_uj) = u64::try_from(rest_uj) {
        return Ok((rest_uj, 0));
    }
    i64::try_from(rest_uj)
        .map(|carry_uj| (0, carry_uj))
        .map_err(|_| format!("the parts of {} exceed it by {} uJ", root.zone, -rest_uj))
}

fn meter_leaf(zone: &ZoneReading) -> LeafZone {
    LeafZone {
        zone: zone.zone.clone(),
        kind: zone.kind,
        rest: false,
        package: zone.package,
        energy_uj: zone.energy_uj.clone(),
        counter_uj: zone.counter_uj,
        range_uj: zone.range_uj,
        source: zone.source,
        method: split_method(zone),
        idle_floor_mw: None,
    }
}

fn split_method(zone: &ZoneReading) -> Method {
    match (zone.source, zone.kind) {
        (MeterSource::Estimate, _) => Method::Estimate,
        (_, ZoneKind::Dram) => Method::Memory,
        _ => Method::CpuTime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str, kind: ZoneKind, energy_uj: Result<u64, &str>) -> ZoneReading {
        ZoneReading {
            zone: name.into(),
            kind,
            package: Some(0),
            energy_uj: energy_uj.map_err(Into::into),
            counter_uj: Some(1),
            range_uj: Some(2),
            source: MeterSource::Powercap,
        }
    }

    fn package(
        whole: Result<u64, &str>,
        core: Result<u64, &str>,
        uncore: Result<u64, &str>,
        carry_uj: i64,
    ) -> EnergyTree {
        let zones = [
            zone("package-0", ZoneKind::Package, whole),
            zone("package-0/core", ZoneKind::Core, core),
            zone("package-0/uncore", ZoneKind::Uncore, uncore),
        ];
        build(&zones, &Carries([("package-0".to_owned(), carry_uj)].into()))
    }

    fn energies(tree: &EnergyTree) -> Vec<Option<u64>> {
        tree.leaves.iter().map(|leaf| leaf.energy_uj.clone().ok()).collect()
    }

    #[test]
    fn the_rest_is_what_core_and_uncore_leave() {
        let tree = package(Ok(100), Ok(60), Ok(15), 0);
        let names: Vec<&str> = tree.leaves.iter().map(|leaf| leaf.zone.as_str()).collect();
        assert_eq!(names, ["package-0/core", "package-0/uncore", "package-0/rest"]);
        assert_eq!(energies(&tree), [Some(60), Some(15), Some(25)]);
        assert_eq!(tree.roots[0].carry_uj, 0);
        assert_eq!(tree.roots[0].method, Method::Measured);
        assert_eq!(tree.leaves[2].counter_uj, None);
    }

    #[test]
    fn parts_that_exceed_the_package_are_carried() {
        let ahead = package(Ok(70), Ok(60), Ok(15), 0);
        assert_eq!(energies(&ahead), [Some(60), Some(15), Some(0)]);
        assert_eq!(ahead.roots[0].carry_uj, -5);
        let after = package(Ok(80), Ok(60), Ok(15), -5);
        assert_eq!(energies(&after), [Some(60), Some(15), Some(0)]);
        assert_eq!((after.roots[0].previous_carry_uj, after.roots[0].carry_uj), (-5, 0));
        // A debt larger than one interval's rest is paid over several.
        assert_eq!(package(Ok(80), Ok(60), Ok(15), -12).roots[0].carry_uj, -7);
        assert_eq!(
            package(Ok(90), Ok(60), Ok(15), 9).roots[0].previous_carry_uj,
            0,
            "never above 0"
        );
    }

    #[test]
    fn an_unknown_package_leaves_its_parts_known() {
        let tree = package(Err("reset"), Ok(60), Ok(15), -5);
        assert_eq!(energies(&tree), [Some(60), Some(15), None]);
        assert_eq!(tree.leaves[2].energy_uj, Err("reset".into()));
        assert_eq!(tree.roots[0].carry_uj, 0);
    }

    #[test]
    fn an_unknown_part_makes_the_rest_unknown() {
        let tree = package(Ok(100), Ok(60), Err("gone"), -5);
        assert_eq!(energies(&tree), [Some(60), None, None]);
        assert_eq!(
            tree.leaves[2].energy_uj,
            Err("package-0/uncore is not known: gone".into())
        );
        assert_eq!((tree.roots[0].energy_uj.clone(), tree.roots[0].carry_uj), (Ok(100), 0));
    }

    #[test]
    fn what_no_carry_can_hold_is_unknown() {
        let tree = package(Ok(0), Ok(u64::MAX), Ok(u64::MAX), i64::MIN);
        assert_eq!(energies(&tree), [Some(u64::MAX), Some(u64::MAX), None]);
        assert_eq!(tree.roots[0].carry_uj, 0);
    }

    #[test]
    fn dram_psys_and_machine_stand_alone() {
        let machine = ZoneReading {
            package: None,
            source: MeterSource::Estimate,
            ..zone("machine", ZoneKind::Machine, Ok(7))
        };
        let tree = build(
            &[
                zone("psys", ZoneKind::Psys, Ok(500)),
                zone("dram-0", ZoneKind::Dram, Ok(9)),
                zone("package-1/core", ZoneKind::Core, Ok(3)),
                machine,
            ],
            &Carries::default(),
        );
        let roots: Vec<_> = tree
            .roots
            .iter()
            .map(|root| (root.zone.as_str(), root.method))
            .collect();
        assert_eq!(roots, [("psys", Method::Measured), ("machine", Method::Estimate)]);
        let leaves: Vec<_> = tree
            .leaves
            .iter()
            .map(|leaf| (leaf.zone.as_str(), leaf.method, leaf.rest, leaf.counter_uj))
            .collect();
        assert_eq!(
            leaves,
            [
                ("machine/rest", Method::Estimate, true, None),
                ("dram-0", Method::Memory, false, Some(1)),
                ("package-1/core", Method::CpuTime, false, Some(1)),
            ]
        );
    }
}
