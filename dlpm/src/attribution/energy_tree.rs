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
//!
//! A debt of the moment is paid by the rests that follow, and every package has one. A debt that has stood for
//! [`DEBT_INTERVALS`] intervals in a row, not counting those that are shorter than [`SHORT_NS`], and is no smaller than at
//! their beginning is none of the moment: these parts are not inside the package (as on some client CPUs), and what they leave of it cannot be known. Then the rest is invalid
//! for the remainder of the trace; package and parts stay what their meters say.

use std::collections::BTreeMap;

use crate::{
    attribution::ledger::{LeafZone, Ledger, Method, RootZone},
    interval::{MeterSource, SHORT_NS, ZoneKind, ZoneReading},
};

/// Intervals in a row in which a package may owe its parts.
pub const DEBT_INTERVALS: u32 = 30;

/// What each root zone carries from one interval to the next, by the name of the zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carries(BTreeMap<String, Debt>);

/// What a package owes its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Debt {
    /// At most 0.
    carry_uj: i64,
    /// Intervals in a row that have carried.
    intervals: u32,
    /// The first carry of them.
    first_uj: i64,
    /// The parts are not inside the package. This stays.
    outside: bool,
}

impl Carries {
    /// What `ledger` carries to the interval after it, without what was before. For a trace, see [`Carries::after`].
    pub fn of(ledger: &Ledger) -> Self {
        Self::default().after(ledger)
    }

    /// What was carried to `ledger`, as it says itself: with this, its tree can be made again.
    pub fn before(ledger: &Ledger) -> Self {
        let recorded = |root: &RootZone| Debt {
            carry_uj: root.previous_carry_uj,
            intervals: 0,
            first_uj: root.previous_carry_uj,
            outside: root.parts_outside,
        };
        let packages = ledger.roots.iter().filter(|root| root.kind == ZoneKind::Package);
        Self(packages.map(|root| (root.zone.clone(), recorded(root))).collect())
    }

    /// What `ledger` carries to the interval after it, where `self` is what was carried to it.
    #[must_use]
    pub fn after(&self, ledger: &Ledger) -> Self {
        let next = |root: &RootZone| {
            let before = self.0.get(&root.zone);
            let outside = root.parts_outside;
            if outside || root.carry_uj >= 0 {
                return outside.then_some(Debt {
                    carry_uj: 0,
                    intervals: 0,
                    first_uj: 0,
                    outside,
                });
            }
            // In a short interval the package may not have moved at all, so that nothing could be paid.
            let counts = u32::from(ledger.end_ns.saturating_sub(ledger.begin_ns) >= SHORT_NS);
            let (intervals, first_uj) =
                before.map_or((counts, root.carry_uj), |debt| (debt.intervals + counts, debt.first_uj));
            let outside = intervals > DEBT_INTERVALS && root.carry_uj <= first_uj;
            let again = intervals > DEBT_INTERVALS;
            Some(Debt {
                carry_uj: root.carry_uj,
                intervals: if again { 1 } else { intervals },
                first_uj: if again { root.carry_uj } else { first_uj },
                outside,
            })
        };
        Self(
            ledger
                .roots
                .iter()
                .filter_map(|root| Some((root.zone.clone(), next(root)?)))
                .collect(),
        )
    }

    fn get(&self, zone: &str) -> i64 {
        self.0.get(zone).map_or(0, |debt| debt.carry_uj.min(0))
    }

    /// Whether the parts of `zone` are not inside it.
    pub fn outside(&self, zone: &str) -> bool {
        self.0.get(zone).is_some_and(|debt| debt.outside)
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
        let parts_outside = root.kind == ZoneKind::Package && carries.outside(&root.zone);
        let mut carry_uj = 0;
        tree.leaves.extend(parts.iter().map(|part| meter_leaf(part)));
        if is_split(root.kind) {
            let rest = if parts_outside {
                Err(outside(root))
            } else {
                rest_of(root, &parts, previous_carry_uj)
            };
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
            parts_outside,
            source: root.source,
            method: match root.source {
                MeterSource::Estimate => Method::Estimate,
                _ => Method::Measured,
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
    is_split(kind) || matches!(kind, ZoneKind::Psys | ZoneKind::SingleCore)
}

/// Whether a root has a rest, and so leaves that are split.
fn is_split(kind: ZoneKind) -> bool {
    matches!(kind, ZoneKind::Package | ZoneKind::Machine)
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

fn outside(root: &ZoneReading) -> String {
    let zone = &root.zone;
    format!(
        "the parts of {zone} counted more than {zone} for {DEBT_INTERVALS} intervals in a row and it was not made up \
         for, so they are not inside it"
    )
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
mod tests;
