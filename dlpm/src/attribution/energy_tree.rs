//! From the zones that meters count to what is split.
//!
//! A package contains its core (or the zones of each core) and uncore zones and a rest; DRAM is not inside it; psys and the meters of boards cover
//! more, or parts that others have as well, and are never added to anything or split.
//!
//! The counters of a package and its parts are not read at one instant, so that for a moment the parts can exceed the
//! whole. Then the rest is 0 and the (negative) difference is carried: the package's next delta contains what its
//! parts counted early. So over the leaves of a package of which all are known
//!
//! `sum of leaves = energy + previous carry - carry`.
//!
//! A package of which a part is not known is one leaf, its *whole*, and its parts are shown and not split. What it
//! owes them from before is paid by the whole, so the equation holds across the change. A package that is not known
//! itself leaves its parts known: they are split, the rest is not known, and the carry starts again at 0, because the
//! delta that would have settled it is the one that is missing.
//!
//! Every package has a debt of the moment, and the rests that follow pay it. A debt is a contradiction if it grows
//! beyond what two readings at different moments can differ by ([`Span::bound_uj`]), or if it grew in [`GROWTHS`]
//! intervals (not counting those that are shorter than [`SHORT_NS`](crate::interval::SHORT_NS)) and nothing of it was paid in between. Then these
//! parts are not inside the package (as on some client CPUs), and for the remainder of the trace the package is one
//! leaf. So at any moment, all leaves together exceed their package by the bound of one interval at most.

use std::collections::BTreeMap;

use crate::{
    attribution::{
        counters,
        ledger::{self, LeafZone, Ledger, Method, RootZone},
    },
    interval::{METER_STEP_NS, MeterSource, ZoneKind, ZoneReading},
};

/// Name below its root of the leaf of a package that is split as a whole.
pub const WHOLE: &str = "whole";

/// Intervals in which a debt may grow before any of it is paid.
pub const GROWTHS: u32 = 10;

/// The part of a carry's bound that does not depend on what was counted, in µJ: 500 W, the rating of the largest
/// sockets, for 2 ms, the update period of RAPL at both ends.
pub const LEAST_BOUND_UJ: u64 = 1_000_000;

/// What each root zone carries from one interval to the next, by the name of the zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carries(BTreeMap<String, Debt>);

/// What a package owes its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Debt {
    /// At most 0.
    carry_uj: i64,
    /// Intervals in which it grew since any of it was paid.
    growths: u32,
    /// The parts are not inside the package. This stays.
    outside: bool,
    /// In which intervals the model of counters was far from the meter, see [`counters::far_after`].
    far: u8,
}

impl Carries {
    /// What `ledger` carries to the interval after it, without what was before. For a trace, see [`Carries::after`].
    pub fn of(ledger: &Ledger) -> Self {
        Self::default().after(ledger)
    }

    /// What roots owe their parts, in µJ below 0, by name.
    pub fn owed(carries_uj: &BTreeMap<String, i64>) -> Self {
        let owed = carries_uj.iter().map(|(zone, carry_uj)| {
            let debt = Debt {
                carry_uj: *carry_uj,
                ..Debt::default()
            };
            (zone.clone(), debt)
        });
        Self(owed.collect())
    }

    /// What was carried to `ledger`, as it says itself: with this, its tree can be made again.
    pub fn before(ledger: &Ledger) -> Self {
        let recorded = |root: &RootZone| Debt {
            carry_uj: root.previous_carry_uj,
            growths: 0,
            outside: root.parts_outside,
            far: root.model.as_ref().map_or(0, |model| model.far_before),
        };
        let packages = ledger.roots.iter().filter(|root| root.kind == ZoneKind::Package);
        Self(packages.map(|root| (root.zone.clone(), recorded(root))).collect())
    }

    /// What `ledger` carries to the interval after it, where `self` is what was carried to it.
    #[must_use]
    pub fn after(&self, ledger: &Ledger) -> Self {
        // In a short interval the package may not have moved at all, so that nothing could be paid.
        let counts = ledger.tells_power();
        let next = |root: &RootZone| {
            let before = self.0.get(&root.zone).copied().unwrap_or_default();
            let growths = match root.carry_uj.cmp(&root.previous_carry_uj) {
                _ if root.carry_uj >= 0 => 0,
                std::cmp::Ordering::Less => before.growths + u32::from(counts),
                std::cmp::Ordering::Equal => before.growths,
                std::cmp::Ordering::Greater => 0,
            };
            let debt = Debt {
                carry_uj: root.carry_uj,
                growths,
                outside: root.parts_outside || growths >= GROWTHS,
                far: counters::far_after(root, ledger.length_ns()).unwrap_or(before.far),
            };
            (debt != Debt::default()).then_some(debt)
        };
        let packages = ledger.roots.iter().filter(|root| root.kind == ZoneKind::Package);
        Self(
            packages
                .filter_map(|root| Some((root.zone.clone(), next(root)?)))
                .collect(),
        )
    }

    fn get(&self, zone: &str) -> i64 {
        self.0.get(zone).map_or(0, |debt| debt.carry_uj.min(0))
    }

    /// In which intervals the model of `zone` was far from the meter.
    pub fn far(&self, zone: &str) -> u8 {
        self.0.get(zone).map_or(0, |debt| debt.far)
    }

    /// Whether the parts of `zone` were not inside it before the interval.
    pub fn outside(&self, zone: &str) -> bool {
        self.0.get(zone).is_some_and(|debt| debt.outside)
    }
}

/// When the meters were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Length of the interval in ns.
    pub length_ns: u64,
    /// How long sealing and reading took at either end, at most, in ns (`energy_skew_ns`).
    pub skew_ns: u64,
}

impl Span {
    /// That of a ledger.
    pub fn of(ledger: &Ledger) -> Self {
        Self {
            length_ns: ledger.length_ns(),
            skew_ns: ledger.energy_skew_ns,
        }
    }

    /// What a package can owe parts that counted `parts_uj`, in µJ: [`LEAST_BOUND_UJ`], and what they counted, at their
    /// mean power, in one step of a slow meter and while the meters were read at both ends.
    pub fn bound_uj(self, parts_uj: u128) -> u128 {
        let apart_ns = u128::from(METER_STEP_NS) + 2 * u128::from(self.skew_ns);
        let length_ns = u128::from(self.length_ns).max(apart_ns);
        let counted_uj = parts_uj
            .checked_mul(apart_ns)
            .map_or(parts_uj, |product| product / length_ns);
        u128::from(LEAST_BOUND_UJ) + counted_uj
    }

    /// Whether a debt of `carry_uj` (at most 0) after `previous_carry_uj` is a contradiction: it grew, and is more than
    /// two meters that are read at different moments can differ by.
    pub fn contradicts(self, previous_carry_uj: i128, carry_uj: i128, parts_uj: u128) -> bool {
        carry_uj < previous_carry_uj && carry_uj.unsigned_abs() > self.bound_uj(parts_uj)
    }
}

/// Roots and leaves of one interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnergyTree {
    /// What meters read and what other zones are part of, and parts that are shown and not split.
    pub roots: Vec<RootZone>,
    /// What is split.
    pub leaves: Vec<LeafZone>,
}

/// Makes the tree. Parts belong to the root whose name their own begins with (`package-0/core` to `package-0`).
pub fn build(zones: &[ZoneReading], carries: &Carries, span: Span) -> EnergyTree {
    let mut tree = EnergyTree::default();
    let roots = || zones.iter().filter(|zone| is_root(zone.kind));
    for root in roots() {
        if !is_split(root.kind) {
            tree.roots.push(shown(root));
            continue;
        }
        let parts: Vec<&ZoneReading> = zones
            .iter()
            .filter(|zone| is_part(zone.kind) && is_part_of(zone, root))
            .collect();
        let previous_carry_uj = carries.get(&root.zone);
        let split = Split::of(root, &parts, previous_carry_uj, carries.outside(&root.zone), span);
        tree.roots.push(RootZone {
            previous_carry_uj,
            carry_uj: split.carry_uj,
            one_leaf: split.one_leaf.clone(),
            parts_outside: split.parts_outside,
            ..shown(root)
        });
        if split.one_leaf.is_some() {
            tree.roots.extend(parts.iter().map(|part| shown(part)));
        } else {
            tree.leaves.extend(parts.iter().map(|part| meter_leaf(part)));
        }
        tree.leaves.push(split.leaf(root));
    }
    // DRAM, and parts whose package has no meter.
    let has_root = |zone: &ZoneReading| is_part(zone.kind) && roots().any(|root| is_part_of(zone, root));
    let alone = zones.iter().filter(|zone| !is_root(zone.kind) && !has_root(zone));
    tree.leaves.extend(alone.map(meter_leaf));
    tree
}

/// How a root is split.
#[derive(Debug)]
struct Split {
    /// Why it is one leaf, and not its parts and a rest.
    one_leaf: Option<String>,
    parts_outside: bool,
    carry_uj: i64,
    /// Energy of the rest, or of the one leaf.
    energy_uj: Result<u64, String>,
}

impl Split {
    fn of(root: &ZoneReading, parts: &[&ZoneReading], previous_carry_uj: i64, outside: bool, span: Span) -> Self {
        let whole_uj = match &root.energy_uj {
            Ok(whole_uj) => i128::from(*whole_uj) + i128::from(previous_carry_uj),
            Err(reason) => {
                return Self {
                    one_leaf: outside.then(|| not_inside(root)),
                    parts_outside: outside,
                    carry_uj: 0,
                    energy_uj: Err(reason.clone()),
                };
            }
        };
        let unknown = parts
            .iter()
            .find_map(|part| Some((&part.zone, part.energy_uj.as_ref().err()?)));
        let parts_uj = sum_uj(parts.iter().copied());
        // Every u64, and a handful of them, fit.
        let rest_uj = whole_uj - i128::try_from(parts_uj).unwrap_or(i128::MAX);
        let outside = outside
            || unknown.is_none() && span.contradicts(previous_carry_uj.into(), rest_uj.min(0), parts_uj)
            || i64::try_from(rest_uj.min(0)).is_err();
        let one_leaf = match unknown {
            _ if outside => Some(not_inside(root)),
            Some((part, reason)) => Some(format!("{part} is not known: {reason}")),
            None => None,
        };
        let left_uj = if one_leaf.is_some() { whole_uj } else { rest_uj };
        Self {
            one_leaf,
            parts_outside: outside,
            carry_uj: i64::try_from(left_uj.min(0)).unwrap_or(i64::MIN),
            energy_uj: Ok(u64::try_from(left_uj.max(0)).unwrap_or(u64::MAX)),
        }
    }

    /// The rest of `root`, or all of it.
    fn leaf(self, root: &ZoneReading) -> LeafZone {
        let rest = self.one_leaf.is_none();
        LeafZone {
            zone: format!("{}/{}", root.zone, if rest { "rest" } else { WHOLE }),
            kind: root.kind,
            rest,
            package: root.package,
            energy_uj: self.energy_uj,
            counter_uj: None,
            range_uj: None,
            source: root.source,
            method: split_method(root),
            idle_floor_mw: None,
        }
    }
}

/// A zone that nothing is split of.
fn shown(zone: &ZoneReading) -> RootZone {
    RootZone {
        zone: zone.zone.clone(),
        kind: zone.kind,
        package: zone.package,
        energy_uj: zone.energy_uj.clone(),
        counter_uj: zone.counter_uj,
        range_uj: zone.range_uj,
        previous_carry_uj: 0,
        carry_uj: 0,
        one_leaf: None,
        parts_outside: false,
        model: None,
        source: zone.source,
        method: match zone.source {
            MeterSource::Estimate => Method::Estimate,
            _ => Method::Measured,
        },
    }
}

/// What the meters read, of which `ledger` was made.
pub fn readings(ledger: &Ledger) -> Vec<ZoneReading> {
    let roots = ledger.roots.iter().map(|root| ZoneReading {
        zone: root.zone.clone(),
        kind: root.kind,
        package: root.package,
        energy_uj: root.energy_uj.clone(),
        counter_uj: root.counter_uj,
        range_uj: root.range_uj,
        source: root.source,
    });
    // GPUs are in no tree, and what is left of a root was not read.
    let meters = ledger
        .leaves
        .iter()
        .filter(|leaf| leaf.kind != ZoneKind::Gpu && !is_split(leaf.kind));
    let leaves = meters.map(|leaf| ZoneReading {
        zone: leaf.zone.clone(),
        kind: leaf.kind,
        package: leaf.package,
        energy_uj: leaf.energy_uj.clone(),
        counter_uj: leaf.counter_uj,
        range_uj: leaf.range_uj,
        source: leaf.source,
    });
    roots.chain(leaves).collect()
}

/// What the parts of `root` counted in µJ, as far as it is known.
pub fn parts_uj(zones: &[ZoneReading], root: &RootZone) -> u128 {
    sum_uj(
        zones
            .iter()
            .filter(|zone| is_part(zone.kind) && is_below(&zone.zone, root.kind, &root.zone)),
    )
}

fn sum_uj<'a>(zones: impl Iterator<Item = &'a ZoneReading>) -> u128 {
    zones
        .filter_map(|zone| zone.energy_uj.as_ref().ok())
        .map(|energy_uj| u128::from(*energy_uj))
        .sum()
}

fn is_root(kind: ZoneKind) -> bool {
    is_split(kind) || matches!(kind, ZoneKind::Psys | ZoneKind::Board | ZoneKind::SingleCore)
}

/// Whether a root has a rest, and so leaves that are split.
pub fn is_split(kind: ZoneKind) -> bool {
    matches!(kind, ZoneKind::Package | ZoneKind::Machine)
}

fn is_part(kind: ZoneKind) -> bool {
    matches!(kind, ZoneKind::Core | ZoneKind::OneCore | ZoneKind::Uncore)
}

fn is_part_of(zone: &ZoneReading, root: &ZoneReading) -> bool {
    is_below(&zone.zone, root.kind, &root.zone)
}

fn is_below(zone: &str, kind: ZoneKind, root: &str) -> bool {
    kind == ZoneKind::Package && ledger::is_part(zone, root)
}

fn not_inside(root: &ZoneReading) -> String {
    let zone = &root.zone;
    format!("the parts of {zone} counted more than {zone} can contain, so they are not inside it")
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
