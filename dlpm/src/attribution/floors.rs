//! Idle floors: the power of the idle machine, by the name of the leaf that it was measured for.
//!
//! A package can be one leaf when it is calibrated and have parts when it is traced, or the other way round. The floor
//! of the whole is that of its leaves together; of the whole's floor each leaf has its part of the package's energy.

use std::collections::BTreeMap;

use crate::{
    attribution::{energy_tree::WHOLE, ledger::LeafZone},
    interval::ZoneKind,
};

/// Floor of the leaf at `position` of `leaves` in mW, from `floors_mw`; `None` if it was not measured.
pub fn floor_mw(floors_mw: &BTreeMap<String, u64>, leaves: &[LeafZone], position: usize) -> Option<u64> {
    let leaf = leaves.get(position)?;
    match of_zone(floors_mw, &leaf.zone)? {
        Floor::Of(floor_mw) => Some(floor_mw),
        Floor::PartOf(floor_mw) => {
            let package = below(&leaf.zone)?.0;
            let known = |leaf: &LeafZone| u128::from(leaf.energy_uj.as_ref().copied().unwrap_or(0));
            let inside = leaves
                .iter()
                .filter(|leaf| below(&leaf.zone).is_some_and(|(root, _)| root == package));
            let all_uj: u128 = inside.map(known).sum();
            let part_mw = (u128::from(floor_mw) * known(leaf)).checked_div(all_uj).unwrap_or(0);
            // At most the floor.
            u64::try_from(part_mw).ok()
        }
    }
}

/// Whether the leaf `zone` has a floor in `floors_mw`.
pub fn covers(floors_mw: &BTreeMap<String, u64>, zone: &str) -> bool {
    of_zone(floors_mw, zone).is_some()
}

/// Mean power in mW of so much energy in so much time, rounded to the nearest; 0 for no time.
pub fn mean_mw(energy_uj: u128, length_ns: u64) -> u64 {
    // µJ over ns are kilowatts.
    let length_ns = u128::from(length_ns);
    let milliwatts = energy_uj
        .saturating_mul(1_000_000)
        .saturating_add(length_ns / 2)
        .checked_div(length_ns);
    u64::try_from(milliwatts.unwrap_or(0)).unwrap_or(u64::MAX)
}

/// Whether a leaf can draw nothing at all: only a part of a package can, and the rest of one where its parts make all of
/// it. A package, its memory, a GPU and the platform draw power while they are on.
pub fn can_rest(kind: ZoneKind, rest: bool) -> bool {
    rest || matches!(
        kind,
        ZoneKind::Core | ZoneKind::OneCore | ZoneKind::Uncore | ZoneKind::SingleCore
    )
}

enum Floor {
    /// In mW.
    Of(u64),
    /// Of the whole package, in mW.
    PartOf(u64),
}

fn of_zone(floors_mw: &BTreeMap<String, u64>, zone: &str) -> Option<Floor> {
    if let Some(floor_mw) = floors_mw.get(zone) {
        return Some(Floor::Of(*floor_mw));
    }
    let (package, name) = below(zone)?;
    if name != WHOLE {
        return floors_mw.get(&format!("{package}/{WHOLE}")).copied().map(Floor::PartOf);
    }
    floors_mw.get(&format!("{package}/rest"))?;
    let inside = floors_mw
        .iter()
        .filter(|(zone, _)| below(zone).is_some_and(|(root, _)| root == package));
    Some(Floor::Of(
        inside.fold(0, |sum: u64, (_, floor_mw)| sum.saturating_add(*floor_mw)),
    ))
}

/// Root and name below it.
fn below(zone: &str) -> Option<(&str, &str)> {
    zone.split_once('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attribution::ledger::Method,
        interval::{MeterSource, ZoneKind},
    };

    fn leaves(energies: &[(&str, Result<u64, String>)]) -> Vec<LeafZone> {
        let leaf = |(zone, energy_uj): &(&str, Result<u64, String>)| LeafZone {
            zone: (*zone).to_owned(),
            kind: ZoneKind::Core,
            rest: false,
            package: Some(0),
            energy_uj: energy_uj.clone(),
            counter_uj: None,
            range_uj: None,
            source: MeterSource::Powercap,
            method: Method::CpuTime,
            idle_floor_mw: None,
        };
        energies.iter().map(leaf).collect()
    }

    fn floors_of(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|(zone, mw)| ((*zone).to_owned(), *mw)).collect()
    }

    #[test]
    fn a_leaf_has_the_floor_that_was_measured_for_it() {
        let floors = floors_of(&[("package-0/core", 3), ("package-0/rest", 5), ("gpu-a", 7)]);
        let of = leaves(&[
            ("package-0/core", Ok(1)),
            ("package-0/rest", Ok(1)),
            ("gpu-a", Ok(1)),
            ("dram-0", Ok(1)),
        ]);
        let all: Vec<Option<u64>> = (0..5).map(|at| floor_mw(&floors, &of, at)).collect();
        assert_eq!(all, [Some(3), Some(5), Some(7), None, None]);
    }

    #[test]
    fn the_floor_of_a_whole_is_that_of_its_leaves() {
        let floors = floors_of(&[
            ("package-0/core", 3),
            ("package-0/rest", 5),
            ("package-1/rest", 100),
            ("package-10/rest", 9),
        ]);
        let of = leaves(&[
            ("package-0/whole", Ok(1)),
            ("package-1/whole", Ok(1)),
            ("package-2/whole", Ok(1)),
        ]);
        let all: Vec<Option<u64>> = (0..3).map(|at| floor_mw(&floors, &of, at)).collect();
        assert_eq!(all, [Some(8), Some(100), None]);
        // The core alone is not all of a package.
        assert!(!covers(&floors_of(&[("package-0/core", 3)]), "package-0/whole"));
    }

    #[test]
    fn parts_share_the_floor_of_their_whole_by_energy() {
        let floors = floors_of(&[("package-0/whole", 1_000)]);
        let of = leaves(&[
            ("package-0/core", Ok(3)),
            ("package-0/rest", Ok(1)),
            ("package-1/rest", Ok(50)),
        ]);
        let all: Vec<Option<u64>> = (0..3).map(|at| floor_mw(&floors, &of, at)).collect();
        assert_eq!(all, [Some(750), Some(250), None]);
        let nothing = leaves(&[("package-0/core", Ok(0)), ("package-0/rest", Err("gone".into()))]);
        assert_eq!(floor_mw(&floors, &nothing, 0), Some(0));
        let largest = leaves(&[("package-0/core", Ok(u64::MAX)), ("package-0/rest", Ok(u64::MAX))]);
        assert_eq!(
            floor_mw(&floors_of(&[("package-0/whole", u64::MAX)]), &largest, 0),
            Some(u64::MAX / 2)
        );
    }
}
