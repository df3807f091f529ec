use proptest::prelude::*;

use super::*;
use crate::{
    attribution::{Options, attribute},
    interval::{Interval, SHORT_NS},
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
        ..Debt::default()
    };
    build(&zones, &Carries([("package-0".to_owned(), debt)].into()), SECOND)
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
    assert_eq!((tree.roots[0].carry_uj, tree.roots[0].one_leaf.clone()), (0, None));
    // Also where some of them are not known either.
    assert_eq!(
        energies(&package(Err("reset"), Err("gone"), Ok(15), 0)),
        [None, Some(15), None]
    );
    assert_eq!(energies(&package(Err("reset"), Err("gone"), Err("gone"), 0)), [None; 3]);
}

#[test]
fn a_package_with_an_unknown_part_is_one_leaf() {
    for (core, uncore, unknown) in [
        (Ok(60), Err("gone"), "package-0/uncore"),
        (Err("gone"), Ok(15), "package-0/core"),
        (Err("gone"), Err("away"), "package-0/core"),
    ] {
        let tree = package(Ok(100), core, uncore, 0);
        let leaves: Vec<_> = tree.leaves.iter().map(|leaf| (leaf.zone.as_str(), leaf.rest)).collect();
        assert_eq!(leaves, [("package-0/whole", false)]);
        assert_eq!(energies(&tree), [Some(100)]);
        let roots: Vec<_> = tree.roots.iter().map(|root| (root.zone.as_str(), root.kind)).collect();
        assert_eq!(
            roots,
            [
                ("package-0", ZoneKind::Package),
                ("package-0/core", ZoneKind::Core),
                ("package-0/uncore", ZoneKind::Uncore)
            ],
            "parts are shown"
        );
        assert_eq!(tree.roots[0].one_leaf, Some(format!("{unknown} is not known: gone")));
        assert!(!tree.roots[0].parts_outside);
        // What was counted early is paid by the whole.
        let tree = package(Ok(100), core, uncore, -30);
        assert_eq!((energies(&tree), tree.roots[0].carry_uj), (vec![Some(70)], 0));
        let tree = package(Ok(100), core, uncore, -130);
        assert_eq!((energies(&tree), tree.roots[0].carry_uj), (vec![Some(0)], -30));
    }
}

#[test]
fn what_no_carry_can_hold_is_a_contradiction() {
    let tree = package(Ok(7), Ok(u64::MAX), Ok(u64::MAX), 0);
    assert_eq!(energies(&tree), [Some(7)]);
    assert_eq!((tree.roots[0].carry_uj, tree.roots[0].parts_outside), (0, true));
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
        SECOND,
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

const SECOND: Span = Span {
    length_ns: 1_000_000_000,
    skew_ns: 0,
};

/// A trace of packages of which their core zone counted these numbers.
struct Trace {
    length_ns: u64,
    carries: Carries,
}

impl Trace {
    fn new(length_ns: u64) -> Self {
        Self {
            length_ns,
            carries: Carries::default(),
        }
    }

    fn next(&mut self, whole: Result<u64, &str>, core: Result<u64, &str>) -> Ledger {
        let interval = Interval {
            zones: vec![
                zone("package-0", ZoneKind::Package, whole),
                zone("package-0/core", ZoneKind::Core, core),
            ],
            end_ns: self.length_ns,
            ..Interval::default()
        };
        let ledger = attribute(&interval, &Options::default(), &self.carries);
        // The ledger says all that is needed to make its tree again.
        let again = build(&readings(&ledger), &Carries::before(&ledger), Span::of(&ledger));
        assert_eq!((&again.roots, &again.leaves), (&ledger.roots, &ledger.leaves));
        self.carries = self.carries.after(&ledger);
        ledger
    }
}

fn trace_in(length_ns: u64, whole_and_core: impl IntoIterator<Item = (u64, u64)>) -> Vec<Ledger> {
    let mut trace = Trace::new(length_ns);
    let both = whole_and_core.into_iter();
    both.map(|(whole, core)| trace.next(Ok(whole), Ok(core))).collect()
}

fn trace(whole_and_core: impl IntoIterator<Item = (u64, u64)>) -> Vec<Ledger> {
    trace_in(1_000_000_000, whole_and_core)
}

fn outside(ledger: &Ledger) -> bool {
    ledger.roots[0].parts_outside
}

fn leaves_uj(ledger: &Ledger) -> u64 {
    ledger
        .leaves
        .iter()
        .filter_map(|leaf| leaf.energy_uj.clone().ok())
        .sum()
}

#[test]
fn parts_far_above_their_package_are_not_inside_it() {
    // Watts of package and core, and intervals of which each is so long: at most so many are believed.
    for (package_w, core_w, length_ms, believed) in [
        (20, 50, 1_000, 0),
        (20, 50, 100, 1),
        (20, 50, 20, 4),
        (20, 2_000, 10, 1),
        (45, 50, 1_000, 1),
        (0, 50, 1_000, 0),
        (200, 201, 1_000, 9),
        (1, 1_000, 60_000, 0),
    ] {
        let uj = |watts: u64| watts * length_ms * 1_000;
        let ledgers = trace_in(
            length_ms * 1_000_000,
            std::iter::repeat_n((uj(package_w), uj(core_w)), 200),
        );
        let case = format!("core {core_w} W in {package_w} W, {length_ms} ms");
        let first = ledgers.iter().position(outside).expect(&case);
        assert!(first <= believed + 1, "{case}: {first}");
        assert!(ledgers[first..].iter().all(outside), "{case}: it stays");
        let last = &ledgers[199];
        assert_eq!(
            (last.leaves.len(), last.leaves[0].zone.as_str()),
            (1, "package-0/whole"),
            "{case}"
        );
        assert!(
            last.roots[0].one_leaf.as_ref().unwrap().contains("not inside it"),
            "{case}"
        );
        assert_eq!(last.roots[1].energy_uj, Ok(uj(core_w)), "{case}: its reading is shown");
        // At no moment have the leaves more than the package and the bound; in the end they are even.
        let bound_uj = Span::of(last).bound_uj(uj(core_w).into());
        let mut excess_uj = 0i128;
        for ledger in &ledgers {
            excess_uj += i128::from(leaves_uj(ledger)) - i128::from(uj(package_w));
            assert!(excess_uj <= i128::try_from(bound_uj).unwrap(), "{case}: {excess_uj}");
        }
        assert_eq!(excess_uj, i128::from(-last.roots[0].carry_uj), "{case}");
        assert!(package_w == 0 || excess_uj == 0, "{case}: {excess_uj}");
    }
}

#[test]
fn a_debt_that_only_grows_is_a_contradiction() {
    for excess_uj in [1, 1_000, 50_000] {
        let ledgers = trace(std::iter::repeat_n((10_000_000, 10_000_000 + excess_uj), 40));
        let first = ledgers.iter().position(outside).unwrap();
        assert_eq!(first, GROWTHS as usize, "an excess of {excess_uj} µJ");
    }
    // Also where it begins late.
    let ledgers = trace((0..200).map(|at| if at < 50 { (10_000, 9_000) } else { (9_000, 10_000) }));
    assert_eq!(ledgers.iter().position(outside), Some(50 + GROWTHS as usize));
}

/// Marks can make a hundred intervals between two steps of a meter.
#[test]
fn a_debt_in_short_intervals_is_one_of_the_moment() {
    let steps = |at: u64| match at % 100 {
        0..20 => (0, 250),
        99 => (6_000, 0),
        _ => (0, 0),
    };
    let ledgers = trace_in(SHORT_NS - 1, (0..1_000).map(steps));
    assert!(!ledgers.iter().any(outside));
    assert_eq!(ledgers.iter().map(leaves_uj).sum::<u64>(), 60_000);
    // Where intervals are long enough for the package to move, the same debt is not of the moment.
    assert!(trace_in(SHORT_NS, (0..1_000).map(steps)).iter().any(outside));
}

#[test]
fn a_debt_of_the_moment_is_paid_and_forgotten() {
    // Large, and paid over many intervals.
    let ledgers = trace((0..300).map(|at| if at % 150 == 0 { (1_000, 5_000) } else { (1_000, 900) }));
    assert!(!ledgers.iter().any(outside));
    assert!(ledgers[149].leaves[1].energy_uj.as_ref().is_ok_and(|rest| *rest > 0));
    // Small ones that come and go, for ever.
    let ledgers = trace((0..1_000).map(|at| if at % 3 == 0 { (1_000, 1_050) } else { (1_000, 960) }));
    assert!(!ledgers.iter().any(outside));
}

/// A meter that is read between the steps of package and core: power in W, step and interval in ms.
#[test]
fn what_readings_at_different_moments_differ_by_is_believed() {
    for (package_w, core_w, step_ms, interval_ms) in [
        (400, 380, 1, 10),
        (400, 399, 1, 100),
        (30, 28, 1, 1_000),
        (30, 29, 20, 10),
        (300, 290, 50, 100),
        (300, 290, 100, 1_000),
        (500, 480, 2, 5),
    ] {
        // The core shows its step one reading before the package.
        let counted = |watts: u64, ms: u64| ms / step_ms * step_ms * watts * 1_000;
        let (mut before, mut ledgers) = ((0, 0), Vec::new());
        let mut trace = Trace::new(interval_ms * 1_000_000);
        for at in 1..500u64 {
            let now_ms = at * interval_ms;
            let now = (counted(package_w, now_ms), counted(core_w, now_ms + step_ms));
            ledgers.push(trace.next(Ok(now.0 - before.0), Ok(now.1 - before.1)));
            before = now;
        }
        let case = format!("{core_w} of {package_w} W, steps of {step_ms} ms, intervals of {interval_ms} ms");
        assert!(!ledgers.iter().any(outside), "{case}");
    }
    // A machine so busy that reading took 300 ms: the core counted for so much longer.
    let interval = |skew_ns| Span {
        length_ns: 1_000_000_000,
        skew_ns,
    };
    assert!(!interval(300_000_000).contradicts(0, -90_000_000, 390_000_000));
    assert!(interval(0).contradicts(0, -90_000_000, 390_000_000));
}

#[test]
fn the_register_of_one_core_is_shown_and_no_part() {
    let tree = build(
        &[
            zone("package-0", ZoneKind::Package, Ok(100)),
            zone("package-0/single-core", ZoneKind::SingleCore, Ok(30)),
        ],
        &Carries::default(),
        SECOND,
    );
    assert_eq!(energies(&tree), [Some(100)]);
    assert_eq!(tree.leaves[0].zone, "package-0/rest");
    let single_core = &tree.roots[1];
    assert_eq!(
        (single_core.energy_uj.clone(), single_core.method),
        (Ok(30), Method::Measured)
    );
}

proptest! {
    /// Meters fail and come back, parts are ahead and behind: whatever happens, the leaves of the intervals in which
    /// all of them are known add up to the package and what is carried, and nobody gets the energy of a part twice.
    #[test]
    fn leaves_add_up_over_every_change(
        counted in prop::collection::vec((0..40_000_000u64, 0..45_000_000u64, 0..8u8), 1..60),
    ) {
        let mut trace = Trace::new(1_000_000_000);
        let (mut owed_uj, mut was_outside) = (0i128, false);
        for (whole_uj, core_uj, state) in counted {
            let whole = if state == 1 || state == 3 { Err("reset") } else { Ok(whole_uj) };
            let core = if state == 2 || state == 3 { Err("gone") } else { Ok(core_uj) };
            let ledger = trace.next(whole, core);
            let root = &ledger.roots[0];
            prop_assert_eq!(i128::from(root.previous_carry_uj), owed_uj);
            owed_uj = root.carry_uj.into();
            let names: Vec<&str> = ledger.leaves.iter().map(|leaf| leaf.zone.as_str()).collect();
            let one_leaf = root.parts_outside || whole.is_ok() && core.is_err();
            prop_assert_eq!(root.one_leaf.is_some(), one_leaf);
            prop_assert_eq!(names, if one_leaf { vec!["package-0/whole"] } else { vec!["package-0/core", "package-0/rest"] });
            match (whole, one_leaf) {
                (Ok(whole_uj), _) => {
                    prop_assert!(ledger.leaves.iter().all(|leaf| leaf.energy_uj.is_ok()));
                    let due_uj = i128::from(whole_uj) + i128::from(root.previous_carry_uj) - i128::from(root.carry_uj);
                    prop_assert_eq!(i128::from(leaves_uj(&ledger)), due_uj);
                    if one_leaf {
                        prop_assert!(root.carry_uj >= root.previous_carry_uj, "a whole makes no debt");
                        prop_assert!(leaves_uj(&ledger) <= whole_uj);
                    }
                }
                (Err(_), true) => prop_assert!(ledger.leaves[0].energy_uj.is_err() && root.carry_uj == 0),
                (Err(_), false) => {
                    prop_assert_eq!(ledger.leaves[0].energy_uj.as_ref().ok(), core.as_ref().ok());
                    prop_assert!(ledger.leaves[1].energy_uj.is_err() && root.carry_uj == 0);
                }
            }
            let bound_uj = Span::of(&ledger).bound_uj(45_000_000);
            prop_assert!(u128::from(root.carry_uj.unsigned_abs()) <= bound_uj);
            prop_assert!(!was_outside || root.parts_outside, "it stays");
            was_outside = root.parts_outside;
        }
    }
}
