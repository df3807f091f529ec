//! What holds for every split by what events counted.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    counters::{self, FAR_ENOUGH, Model, Weights},
    ledger::{LeafZone, Method, RowKey},
    properties::{interval, number, options},
    *,
};
use crate::interval::{Counts, CpuCounts, CpuInterval, MeterSource, ProcessId, ZoneKind};

fn counts() -> impl Strategy<Value = Counts> {
    [number(), number(), number(), number()].prop_map(Counts)
}

fn weights(most: u64) -> impl Strategy<Value = Weights> {
    let weight = move || prop_oneof![1 => Just(0), 4 => 0..=most];
    ([weight(), weight(), weight(), weight()], weight(), vec(weight(), 3)).prop_map(|(events, fj_per_ns, idle_mw)| {
        Weights {
            fj_per_event: Counts(events),
            fj_per_ns,
            idle_mw: ["package-0", "package-1", "package-2"]
                .map(str::to_owned)
                .into_iter()
                .zip(idle_mw)
                .collect(),
        }
    })
}

prop_compose! {
    /// An interval in which events were counted.
    fn counted()(
        interval in interval(),
        of_usage in vec(counts(), 30),
        of_cpus in vec((counts(), counts(), prop_oneof![9 => Just(0), 1 => 1..4u64]), 5),
    ) -> Interval {
        let mut interval = Interval { events: ["a", "b", "c", "d"].map(str::to_owned).into(), ..interval };
        for (usage, counts) in interval.usage.iter_mut().zip(of_usage) {
            usage.counts = counts;
        }
        for (cpu, (idle, lost, failed)) in interval.cpus.iter_mut().zip(of_cpus) {
            cpu.counts = Some(CpuCounts { idle, lost, failed, ..CpuCounts::default() });
        }
        interval
    }
}

/// The rows of an interval on one package, and a leaf of it that is split by counters.
fn rows_and_leaf(interval: &Interval) -> (Vec<Row>, LeafZone) {
    let mut interval = interval.clone();
    for cpu in &mut interval.cpus {
        cpu.package = Some(0);
    }
    let rows = rows::claimants(&interval, &Selection::default(), usize::MAX);
    let leaf = LeafZone {
        zone: "package-0/rest".to_owned(),
        kind: ZoneKind::Package,
        rest: true,
        package: Some(0),
        energy_uj: Ok(0),
        counter_uj: None,
        range_uj: None,
        source: MeterSource::Powercap,
        method: Method::Counters,
        idle_floor_mw: None,
    };
    (rows, leaf)
}

/// The positions of rows that ran on the package.
fn that_ran(rows: &[Row], wanted: fn(&RowKey) -> bool) -> Vec<usize> {
    let ran = |row: &Row| wanted(&row.key) && row.by_package.contains_key(&Some(0));
    (0..rows.len()).filter(|at| ran(&rows[*at])).collect()
}

fn rules(weights: &Weights) -> Rules<'_> {
    Rules {
        length_ns: 1_000_000_000,
        smt_weight_permille: 550,
        idle_policy: IdlePolicy::Proportional,
        memory_known: true,
        weights: Some(weights),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_count_and_weight_closes(
        interval in counted(),
        options in options(),
        weights in weights(u64::MAX),
    ) {
        let options = Options { weights: Some(weights), ..options };
        let ledger = attribute(&interval, &options, &Carries::default());
        for (position, leaf) in ledger.leaves.iter().enumerate() {
            let Ok(energy_uj) = leaf.energy_uj else { continue };
            let of_rows: u128 = ledger.rows.iter().map(|row| u128::from(row.energy_uj[position])).sum();
            prop_assert_eq!(of_rows, u128::from(energy_uj));
        }
        // Who is split by counters has a model that is used, and the other way round.
        for leaf in ledger.leaves.iter().filter(|leaf| leaf.method == Method::Counters) {
            let root = ledger.roots.iter().find(|root| leaf.belongs_to(root)).unwrap();
            prop_assert_eq!(&root.model.as_ref().unwrap().unused, &None);
        }
        for root in &ledger.roots {
            let is_of_a_package = root.kind == ZoneKind::Package;
            prop_assert_eq!(root.model.is_some(), is_of_a_package);
        }
    }

    #[test]
    fn more_counts_never_give_less_energy(
        interval in counted(),
        weights in weights(1 << 40),
        energy_uj in number(),
        which: Index,
        event in 0..4usize,
        more in 0..2_000_000_000u64,
    ) {
        let (rows, leaf) = rows_and_leaf(&interval);
        let ran = that_ran(&rows, |_| true);
        prop_assume!(!ran.is_empty());
        let which = ran[which.index(ran.len())];
        let mut counted_more = rows.clone();
        let usage = counted_more[which].by_package.get_mut(&Some(0)).unwrap();
        usage.counts.0[event] = usage.counts.0[event].saturating_add(more);
        let before = share::share(energy_uj, &leaf, &rows, &rules(&weights));
        let after = share::share(energy_uj, &leaf, &counted_more, &rules(&weights));
        // Without any weight all is idle.
        if rows[which].key != RowKey::Idle {
            prop_assert!(after[which] >= before[which]);
        }
    }

    #[test]
    fn scaling_all_weights_changes_nothing(
        interval in counted(),
        weights in weights(1 << 30),
        energy_uj in number(),
        scale in 1..1000u64,
    ) {
        let (rows, leaf) = rows_and_leaf(&interval);
        let scaled = Weights {
            fj_per_event: Counts(weights.fj_per_event.0.map(|fj| fj * scale)),
            fj_per_ns: weights.fj_per_ns * scale,
            idle_mw: weights.idle_mw.clone(),
        };
        prop_assert_eq!(
            share::share(energy_uj, &leaf, &rows, &rules(&weights)),
            share::share(energy_uj, &leaf, &rows, &rules(&scaled))
        );
    }

    #[test]
    fn splitting_a_task_changes_the_others_by_1_uj_at_most(
        interval in counted(),
        weights in weights(1 << 40),
        energy_uj in number(),
        which: Index,
        parts in [number(), number(), number(), number()],
    ) {
        let (rows, leaf) = rows_and_leaf(&interval);
        let ran = that_ran(&rows, |key| matches!(key, RowKey::Process(..)));
        prop_assume!(!ran.is_empty());
        let which = ran[which.index(ran.len())];
        let mut halves = rows.clone();
        let usage = halves[which].by_package.get_mut(&Some(0)).unwrap();
        // Where a sibling was busy, half a nanosecond of weight could be lost with the half of an odd number.
        usage.smt_shared_ns = 0;
        let whole = halves.clone();
        let mut other = halves[which].clone();
        let (one, other_half) = (
            halves[which].by_package.get_mut(&Some(0)).unwrap(),
            other.by_package.get_mut(&Some(0)).unwrap(),
        );
        other_half.cpu_ns = one.cpu_ns / 3;
        one.cpu_ns -= other_half.cpu_ns;
        for (event, part) in parts.into_iter().enumerate() {
            other_half.counts.0[event] = part.min(one.counts.0[event]);
            one.counts.0[event] -= other_half.counts.0[event];
        }
        other.key = RowKey::Process(ProcessId { tgid: 1000, start_ns: 1 }, "/".into());
        halves.push(other);
        let before = share::share(energy_uj, &leaf, &whole, &rules(&weights));
        let after = share::share(energy_uj, &leaf, &halves, &rules(&weights));
        for (position, (one, other)) in before.iter().zip(&after).enumerate() {
            prop_assert!(position == which || one.abs_diff(*other) <= 1);
        }
    }
}

/// One package of one CPU on which two tasks ran for half a second each, and the first counted ten times as much.
pub(crate) fn unequal(package_uj: u64) -> Interval {
    let usage = |tgid, count| crate::interval::Usage {
        process: ProcessId { tgid, start_ns: 1 },
        ns: 500_000_000,
        counts: Counts([count, 0, 0, 0]),
        ..crate::interval::Usage::default()
    };
    Interval {
        end_ns: 1_000_000_000,
        usage: vec![usage(10, 1_000_000), usage(11, 100_000)],
        cpus: vec![CpuInterval {
            package: Some(0),
            end_ns: 1_000_000_000,
            busy_ns: 1_000_000_000,
            counts: Some(CpuCounts {
                last: Counts([1_100_000, 0, 0, 0]),
                busy: Counts([1_100_000, 0, 0, 0]),
                ..CpuCounts::default()
            }),
            ..CpuInterval::default()
        }],
        events: ["instructions".to_owned()].into(),
        zones: vec![crate::interval::ZoneReading {
            zone: "package-0".to_owned(),
            kind: ZoneKind::Package,
            package: Some(0),
            energy_uj: Ok(package_uj),
            counter_uj: None,
            range_uj: None,
            source: MeterSource::Powercap,
        }],
        self_tgid: 1,
        ..Interval::default()
    }
}

/// 10 µJ an instruction, nothing for time, and 4 W of the idle package.
fn by_instructions() -> Options {
    Options {
        weights: Some(Weights {
            fj_per_event: Counts([10_000_000_000, 0, 0, 0]),
            fj_per_ns: 0,
            idle_mw: [("package-0".to_owned(), 4_000)].into(),
        }),
        ..Options::default()
    }
}

fn of_processes(ledger: &Ledger) -> Vec<u64> {
    let rows = ledger.rows.iter().filter(|row| matches!(row.key, RowKey::Process(..)));
    rows.map(|row| row.energy_uj[0]).collect()
}

#[test]
fn equal_time_is_not_equal_energy_where_counts_are_weighed() {
    let ledger = attribute(&unequal(15_000_000), &by_instructions(), &Carries::default());
    assert_eq!(ledger.leaves[0].method, Method::Counters);
    let model = ledger.roots[0].model.clone().unwrap();
    // 4 J of the idle package, 11 J of instructions.
    assert_eq!((model.predicted_uj, model.unused), (Some(15_000_000), None));
    // 15 J over 10 : 1.
    assert_eq!(of_processes(&ledger), [13_636_364, 1_363_636]);
    let by_time = attribute(&unequal(15_000_000), &Options::default(), &Carries::default());
    assert_eq!(of_processes(&by_time), [7_500_000, 7_500_000]);
    assert_eq!(by_time.leaves[0].method, Method::CpuTime);
}

#[test]
fn a_model_that_is_far_from_the_meter_is_not_used_until_it_is_near_again() {
    let mut carries = Carries::default();
    let mut methods = Vec::new();
    // 30 J are twice the model's 15.
    for package_uj in [15, 30, 30, 30, 15, 15, 15, 15].map(|joules| joules * 1_000_000) {
        let ledger = attribute(&unequal(package_uj), &by_instructions(), &carries);
        carries = carries.after(&ledger);
        methods.push(ledger.leaves[0].method == Method::Counters);
        let model: &Model = ledger.roots[0].model.as_ref().unwrap();
        assert_eq!(model.unused.is_none(), methods[methods.len() - 1]);
        if let Some(reason) = &model.unused {
            assert!(reason.contains("20 % from the meter"), "{reason}");
        }
    }
    // Far in the 2nd, 3rd and 4th; five are remembered, so that the last of three is forgotten with the 7th.
    assert_eq!(methods, [true, true, true, false, false, false, true, true]);
    assert_eq!(FAR_ENOUGH, 3);
}

#[test]
fn counts_that_are_not_whole_are_not_weighed() {
    let mut interval = unequal(15_000_000);
    interval.cpus[0].counts.as_mut().unwrap().failed = 1;
    let ledger = attribute(&interval, &by_instructions(), &Carries::default());
    assert_eq!(ledger.leaves[0].method, Method::CpuTime);
    let reason = ledger.roots[0].model.as_ref().unwrap().unused.clone().unwrap();
    assert!(reason.contains("CPU 0"), "{reason}");
    // Nor for a package that nobody calibrated, nor where a task's share is one of all time.
    let mut others = by_instructions();
    others.weights.as_mut().unwrap().idle_mw.clear();
    let capacity = Options {
        idle_policy: IdlePolicy::Capacity,
        ..by_instructions()
    };
    for (options, word) in [(others, "package-0"), (capacity, "capacity")] {
        let ledger = attribute(&unequal(15_000_000), &options, &Carries::default());
        assert_eq!(ledger.leaves[0].method, Method::CpuTime);
        let reason = ledger.roots[0].model.as_ref().unwrap().unused.clone().unwrap();
        assert!(reason.contains(word), "{reason}");
    }
    assert!(counters::weights(&attribute(&unequal(1), &Options::default(), &Carries::default())).is_none());
}
