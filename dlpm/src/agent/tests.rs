//! What holds for every sequence of intervals, ends, caps and restarts.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, prelude::*};

use super::{admission::Admission, amounts::Amounts, counters::*, record::Change, unobserved::Unobserved};
use crate::{
    attribution::{Options, attribute, energy_tree::Carries, ledger::Ledger},
    interval::Interval,
    sinks::testing::{all_zones, id, interval},
    tenants::{Kind, Label, Node, Tenant},
};

/// The tests' interval, with its processes in these tenants (python in two cgroups, bash in one).
fn with_tenants(seq: u64, tenants: &[Tenant]) -> Interval {
    let mut interval = interval(seq, all_zones());
    interval.tenants.clear();
    let mut paths: Vec<String> = interval.cgroups.values().cloned().collect();
    paths.sort();
    for (path, tenant) in paths.into_iter().zip(tenants) {
        interval.tenants.insert(path, Arc::new(tenant.clone()));
    }
    interval
}

fn ledger_of(interval: &Interval) -> Ledger {
    attribute(interval, &Options::default(), &Carries::default())
}

fn is_exact(counters: &Counters) -> bool {
    (0..counters.devices.len()).all(|device| counters.difference_uj(device) == 0)
        && counters.difference_ns() == 0
        && counters.energy_law_broken == 0
}

fn node(id: &str) -> Node {
    Tenant::of(Kind::Docker, id).node
}

fn tenant() -> impl Strategy<Value = Tenant> {
    (0..6u8, any::<bool>()).prop_map(|(number, named)| {
        let mut tenant = Tenant::of(Kind::Docker, &number.to_string());
        if named {
            tenant.labels.insert(Label::ContainerName, "web".into());
        }
        tenant
    })
}

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<Tenant>),
    Open(Tenant),
    End(u8),
    Retire(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => vec(tenant(), 0..4).prop_map(Step::Add),
        1 => tenant().prop_map(Step::Open),
        2 => (0..6u8).prop_map(Step::End),
        1 => (0..6u8).prop_map(Step::Retire),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Nothing is lost, no counter falls, and what ended is in its lines.
    #[test]
    fn every_device_adds_up_to_its_meter(steps in vec(step(), 1..40), cap in 1..7usize) {
        let (mut counters, mut admission) = (Counters::default(), Admission::new(cap));
        let (mut seq, mut lines) = (0, Vec::new());
        let mut kept = Counters::default();
        for step in steps {
            let before = counters.clone();
            match step {
                Step::Add(tenants) => {
                    counters.add(&ledger_of(&with_tenants(seq, &tenants)), &mut admission);
                    seq += 1;
                }
                Step::Open(tenant) => counters.open(&Arc::new(tenant), 5, &mut admission),
                Step::End(id) => counters.end(&node(&id.to_string()), 7),
                Step::Retire(id) => counters.retire(&node(&id.to_string())),
            }
            prop_assert!(is_exact(&counters), "{counters:?}");
            prop_assert!(counters.accounts.len() <= cap);
            for (node, account) in &before.accounts {
                let now = counters.accounts.get(node);
                prop_assert!(now.is_none_or(|now| now.used.cpu_ns >= account.used.cpu_ns));
                prop_assert!(now.is_some() || account.end.is_some(), "only what ended is retired");
                // A series keeps its labels once it has counted anything.
                prop_assert!(now.is_none_or(|now| account.used.is_nothing() || now.tenant == account.tenant));
            }
            for (remainder, used) in &before.remainders {
                prop_assert!(counters.remainders[remainder].cpu_ns >= used.cpu_ns);
            }
            // The change since the last record, by way of its text, makes the same counters.
            let change = serde_json::to_string(&Change::between(&kept, &counters)).unwrap();
            serde_json::from_str::<Change>(&change).unwrap().apply(&mut kept);
            prop_assert_eq!(&kept, &counters);
            lines.extend(counters.finished.iter().cloned());
            counters.written(counters.finished_count);
        }
        // What tenants used is in the lines of what ended, or has been used since.
        let mut of_tenants = Amounts::default();
        for account in counters.accounts.values() {
            of_tenants.add(&account.used);
        }
        of_tenants.add(&counters.remainders.remove(&Remainder::Retired).unwrap_or_default());
        let mut told = Amounts::default();
        for line in &lines {
            told.add(&line.used);
        }
        for account in counters.accounts.values() {
            told.add(&account.used.without(&account.before));
        }
        prop_assert!(of_tenants.without(&told).is_nothing() && told.without(&of_tenants).is_nothing());
        let numbers: Vec<u64> = lines.iter().map(|line| line.number).collect();
        prop_assert_eq!(numbers, (1..=counters.finished_count).collect::<Vec<_>>());
    }

    /// However the counters stood, what lies between an end and the next beginning is in one row, and carries are paid.
    #[test]
    fn what_was_counted_meanwhile_is_unobserved(
        package_uj in 0..2_000_000u64, core_uj in 0..1_000_000u64, dram_uj in 0..1_000_000u64, carry_uj in -500_000..=0i64,
        wraps in any::<bool>(),
    ) {
        let (mut counters, mut admission) = (Counters::default(), Admission::new(10));
        let first = with_tenants(0, &[]);
        counters.add(&ledger_of(&first), &mut admission);
        if carry_uj < 0 {
            counters.carries_uj.insert("package-0".to_owned(), carry_uj);
        }
        let meanwhile = BTreeMap::from([
            ("package-0", package_uj), ("package-0/core", core_uj), ("dram-0", dram_uj), ("package-0/uncore", 0), ("psys", 9),
        ]);
        let mut next = with_tenants(0, &[]);
        for zone in &mut next.zones {
            let range_uj = if wraps { zone.counter_uj.unwrap() + 1 } else { u64::MAX - 1 };
            let moved = meanwhile[zone.zone.as_str()] + zone.energy_uj.clone().unwrap();
            let last = counters.zones.get_mut(&zone.zone).unwrap();
            last.range_uj = Some(range_uj);
            zone.range_uj = Some(range_uj);
            zone.counter_uj = Some(
                u64::try_from((u128::from(last.counter_uj.unwrap()) + u128::from(moved)) % (u128::from(range_uj) + 1))
                    .unwrap(),
            );
            // One wrap at most can be told.
            prop_assume!(!wraps || (meanwhile[zone.zone.as_str()] <= range_uj && zone.energy_uj.clone().unwrap() <= range_uj));
        }
        let unobserved = Unobserved::between(&counters.zones, &counters.carries_uj, 0, &next);
        prop_assert_eq!(unobserved.notes.len(), 0, "{:?}", unobserved.notes);
        let carried = unobserved.carries_uj.get("package-0").copied().unwrap_or(0);
        let of_package: u64 =
            ["package-0/core", "package-0/uncore", "package-0/rest"].iter().map(|leaf| unobserved.devices_uj[*leaf]).sum();
        prop_assert_eq!(
            i128::from(of_package),
            i128::from(package_uj) + i128::from(carry_uj) - i128::from(carried)
        );
        prop_assert_eq!(unobserved.devices_uj["dram-0"], dram_uj);
        counters.add_unobserved(&unobserved);
        prop_assert!(is_exact(&counters));
        prop_assert_eq!(
            counters.zones["psys"].energy_uj,
            first.zones.iter().find(|zone| zone.zone == "psys").unwrap().energy_uj.clone().unwrap() + 9
        );
    }
}

#[test]
fn a_tenant_beyond_the_cap_is_in_others_for_as_long_as_it_lives() {
    let (mut counters, mut admission) = (Counters::default(), Admission::new(1));
    let tenants = [Tenant::of(Kind::Docker, "a"), Tenant::of(Kind::Docker, "b")];
    counters.add(&ledger_of(&with_tenants(0, &tenants)), &mut admission);
    let kept: Vec<Node> = counters.accounts.keys().cloned().collect();
    assert_eq!((kept.len(), counters.refused_count), (1, 1));
    counters.end(&kept[0], 1);
    counters.retire(&kept[0]);
    counters.add(&ledger_of(&with_tenants(1, &tenants)), &mut admission);
    // There is room again, but not for the one that was refused.
    assert_eq!(counters.accounts.keys().cloned().collect::<Vec<_>>(), kept);
    assert_eq!(counters.refused_count, 1);
    assert!(counters.remainders[&Remainder::Others].cpu_ns > 0);
}

#[test]
fn a_unit_that_is_started_again_goes_on_with_its_counter() {
    let (mut counters, mut admission) = (Counters::default(), Admission::new(10));
    let unit = [Tenant::of(Kind::Unit, "a.service"), Tenant::of(Kind::Unit, "a.service")];
    counters.add(&ledger_of(&with_tenants(0, &unit)), &mut admission);
    counters.end(&unit[0].node, 1);
    let first = counters.accounts[&unit[0].node].used.clone();
    counters.add(&ledger_of(&with_tenants(1, &unit)), &mut admission);
    let account = &counters.accounts[&unit[0].node];
    assert_eq!(account.end, None);
    assert_eq!(account.used.cpu_ns, 2 * first.cpu_ns);
    counters.end(&unit[0].node, 2);
    let lives: Vec<u64> = counters.finished.iter().map(|line| line.used.cpu_ns).collect();
    assert_eq!(lives, [first.cpu_ns, first.cpu_ns]);
}

#[test]
fn a_counter_says_since_when_it_counts() {
    let (mut counters, mut admission) = (Counters::default(), Admission::new(10));
    let tenants = ["a", "b"].map(|id| Tenant::of(Kind::Docker, id));
    let since = |counters: &Counters| -> Vec<i64> {
        let accounts = tenants.iter().map(|tenant| &counters.accounts[&tenant.node]);
        accounts.map(|account| account.since_unix_ns).collect()
    };
    let first = ledger_of(&with_tenants(0, &tenants[..1]));
    counters.add(&first, &mut admission);
    let begun_unix_ns = first.end_unix_ns - i64::try_from(first.length_ns()).unwrap();
    assert_eq!(counters.begun_unix_ns, begun_unix_ns);
    // One that is found by its cgroup, in the interval in which it came.
    counters.open(&Arc::new(tenants[1].clone()), i64::MAX, &mut admission);
    let second = ledger_of(&with_tenants(1, &tenants));
    counters.add(&second, &mut admission);
    assert_eq!(since(&counters), [0, first.end_unix_ns]);
    // One that goes on keeps it; one that was forgotten begins again.
    counters.end(&tenants[0].node, second.end_unix_ns);
    counters.end(&tenants[1].node, second.end_unix_ns);
    counters.retire(&tenants[1].node);
    let third = ledger_of(&with_tenants(2, &tenants));
    counters.add(&third, &mut admission);
    assert_eq!(since(&counters), [0, second.end_unix_ns]);
    assert_eq!(counters.begun_unix_ns, begun_unix_ns);
    assert_eq!(counters.end_unix_ns, third.end_unix_ns);
}

#[test]
fn users_and_namespaces_are_summed_for_ever() {
    let (mut counters, mut admission) = (Counters::default(), Admission::new(0));
    let mut tenant = Tenant::of(Kind::Kubernetes, "c");
    tenant.labels.insert(Label::PodNamespace, "lab".into());
    let mut interval = with_tenants(0, &[tenant.clone(), tenant.clone(), tenant]);
    let process = Arc::make_mut(interval.processes.get_mut(&id(100)).unwrap());
    process.uid = Some(4242);
    let ledger = ledger_of(&interval);
    counters.add(&ledger, &mut admission);
    counters.add(&ledger, &mut admission);
    let of_user = &counters.groups[&Group::User(4242)];
    assert_eq!(of_user.cpu_ns, 2 * 1_000_000_000, "{of_user:?}");
    assert!(counters.groups[&Group::Namespace("lab".into())].cpu_ns >= of_user.cpu_ns);
}

#[test]
fn a_counter_that_ends_with_the_agent_is_not_invented() {
    let (mut counters, mut admission) = (Counters::default(), Admission::new(10));
    let mut first = with_tenants(0, &[]);
    for zone in &mut first.zones {
        zone.source = crate::interval::MeterSource::Perf;
    }
    counters.add(&ledger_of(&first), &mut admission);
    let unobserved = Unobserved::between(&counters.zones, &counters.carries_uj, 0, &first);
    assert_eq!(unobserved.devices_uj, BTreeMap::new());
    assert_eq!(unobserved.notes.len(), first.zones.len());
    // A wrap that nobody saw is told.
    for zone in &mut first.zones {
        zone.source = crate::interval::MeterSource::Powercap;
    }
    let mut counters = Counters::default();
    counters.add(&ledger_of(&first), &mut admission);
    let next = with_tenants(1, &[]);
    let unobserved = Unobserved::between(&counters.zones, &counters.carries_uj, 3_600_000_000_000, &next);
    assert_eq!(unobserved.notes.len(), next.zones.len(), "{unobserved:?}");
}
