use super::*;
use crate::{
    attribution::{Options, attribute},
    interval::Interval,
};

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

fn package(whole: Result<u64, &str>, core: Result<u64, &str>, uncore: Result<u64, &str>, carry_uj: i64) -> EnergyTree {
    let zones = [
        zone("package-0", ZoneKind::Package, whole),
        zone("package-0/core", ZoneKind::Core, core),
        zone("package-0/uncore", ZoneKind::Uncore, uncore),
    ];
    let debt = Debt {
        carry_uj,
        intervals: 1,
        first_uj: carry_uj,
        outside: false,
    };
    build(&zones, &Carries([("package-0".to_owned(), debt)].into()))
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

/// Traces a package of which its core zone counts these numbers, in seconds: the rests.
fn trace(whole_and_core: impl IntoIterator<Item = (u64, u64)>) -> Vec<Result<u64, String>> {
    trace_in(1_000_000_000, whole_and_core)
}

fn trace_in(interval_ns: u64, whole_and_core: impl IntoIterator<Item = (u64, u64)>) -> Vec<Result<u64, String>> {
    let mut carries = Carries::default();
    whole_and_core
        .into_iter()
        .map(|(whole, core)| {
            let interval = Interval {
                zones: vec![
                    zone("package-0", ZoneKind::Package, Ok(whole)),
                    zone("package-0/core", ZoneKind::Core, Ok(core)),
                ],
                end_ns: interval_ns,
                ..Interval::default()
            };
            let ledger = attribute(&interval, &Options::default(), &carries);
            // The ledger says all that is needed to make its tree again.
            let again = build(&interval.zones, &Carries::before(&ledger));
            assert_eq!((&again.roots, &again.leaves), (&ledger.roots, &ledger.leaves));
            carries = carries.after(&ledger);
            assert_eq!(ledger.leaves[0].energy_uj, Ok(core), "the parts are what they are");
            ledger.leaves[1].energy_uj.clone()
        })
        .collect()
}

#[test]
fn parts_that_exceed_their_package_for_good_are_not_inside_it() {
    for excess_uj in [1, 1_000] {
        let rests = trace(std::iter::repeat_n((10_000, 10_000 + excess_uj), 100));
        let (owing, outside) = rests.split_at(DEBT_INTERVALS as usize + 1);
        assert!(owing.iter().all(|rest| *rest == Ok(0)), "{owing:?}");
        assert!(outside.iter().all(Result::is_err), "it stays: {outside:?}");
        assert!(outside[0].clone().unwrap_err().contains("not inside it"));
    }
    // Also where the excess begins late and lasts.
    let rests = trace((0..200).map(|at| if at < 50 { (10_000, 9_000) } else { (9_000, 10_000) }));
    assert_eq!(rests.iter().filter(|rest| rest.is_err()).count(), 200 - 50 - 31);
}

/// Marks can make a hundred intervals between two steps of a meter.
#[test]
fn a_debt_in_short_intervals_is_one_of_the_moment() {
    let steps = |at: u64| match at % 100 {
        0 => (0, 5_000),
        99 => (6_000, 0),
        _ => (0, 0),
    };
    let rests = trace_in(SHORT_NS - 1, (0..1_000).map(steps));
    assert!(rests.iter().all(Result::is_ok));
    assert_eq!(rests.iter().map(|rest| rest.as_ref().unwrap()).sum::<u64>(), 10_000);
    // Where intervals are long enough for the package to move, the same debt is not of the moment.
    assert!(trace_in(SHORT_NS, (0..1_000).map(steps)).iter().any(Result::is_err));
}

#[test]
fn a_debt_of_the_moment_is_paid_and_forgotten() {
    // Large, paid over more intervals than the limit.
    let rests = trace((0..300).map(|at| if at % 150 == 0 { (1_000, 5_000) } else { (1_000, 900) }));
    assert!(rests.iter().all(Result::is_ok));
    assert!(rests[149].as_ref().is_ok_and(|rest| *rest > 0));
    // Small ones that come and go, for ever.
    let rests = trace((0..1_000).map(|at| if at % 3 == 0 { (1_000, 1_050) } else { (1_000, 960) }));
    assert!(rests.iter().all(Result::is_ok));
}

#[test]
fn the_register_of_one_core_is_shown_and_no_part() {
    let tree = build(
        &[
            zone("package-0", ZoneKind::Package, Ok(100)),
            zone("package-0/single-core", ZoneKind::SingleCore, Ok(30)),
        ],
        &Carries::default(),
    );
    assert_eq!(energies(&tree), [Some(100)]);
    assert_eq!(tree.leaves[0].zone, "package-0/rest");
    let single_core = &tree.roots[1];
    assert_eq!(
        (single_core.energy_uj.clone(), single_core.method),
        (Ok(30), Method::Measured)
    );
}
