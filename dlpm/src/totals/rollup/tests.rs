//! Sums that close, whatever happens meanwhile.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    tenants::{Kind, Node},
    totals::owners::{Owner, by_owner},
    verify::{
        test_logs::{Odd, ledgers, written},
        verify,
    },
};

const SECOND_NS: u64 = 1_000_000_000;

fn rolled_up(ledgers: &[Ledger], length_s: u64) -> Vec<Ledger> {
    let mut rollups = Rollups::new(length_s * SECOND_NS);
    let mut ended: Vec<Ledger> = ledgers.iter().flat_map(|ledger| rollups.add(ledger)).collect();
    ended.extend(rollups.end());
    assert!(rollups.end().is_none());
    ended
}

/// µJ by owner and leaf, and CPU time.
fn sums(ledgers: &[Ledger]) -> BTreeMap<(Owner, String), u64> {
    let mut sums = BTreeMap::new();
    for ledger in ledgers {
        for (owner, used) in by_owner(ledger) {
            // What nobody is told to own has a row of its own kind.
            let owner = match owner {
                Owner::Untold => Owner::Tenant(Tenant::unknown().node),
                owner => owner,
            };
            let leaves = ledger.leaves.iter().map(|leaf| leaf.zone.clone()).zip(used.energy_uj);
            for (leaf, amount) in leaves.chain([("cpu".to_owned(), used.cpu_ns)]) {
                *sums.entry((owner.clone(), leaf)).or_default() += amount;
            }
        }
    }
    sums.retain(|_, sum| *sum > 0);
    sums
}

#[test]
fn a_row_for_each_tenant_and_a_ledger_for_each_minute() {
    let ledgers = ledgers(&[Odd::Nothing; 20]);
    let minutes = rolled_up(&ledgers, 10);
    assert_eq!(minutes.len(), 2);
    for (seq, minute) in (0..).zip(&minutes) {
        assert_eq!((minute.seq, minute.rollup), (seq, Some(10)));
        assert!(minute.length_ns() >= 10 * SECOND_NS && minute.cgroups.is_empty());
        assert!(minute.rows.is_sorted_by(|one, next| one.key < next.key));
        let tenants = minute.rows.iter().filter_map(|row| match &row.key {
            RowKey::Tenant(node) => Some(node.to_string()),
            _ => None,
        });
        assert_eq!(
            tenants.collect::<Vec<_>>(),
            ["slurm:7", "unit:a.service", "unknown:unknown"]
        );
        assert!(minute.rows.iter().all(|row| row.key.cgroup().is_none()));
    }
    assert_eq!(minutes[0].end_ns, minutes[1].begin_ns);
    assert_eq!(minutes[1].end_unix_ns, ledgers[19].end_unix_ns);
    let switches: u64 = ledgers.iter().map(Ledger::switches).sum();
    assert_eq!(minutes.iter().map(Ledger::switches).sum::<u64>(), switches);
    let job = Owner::Tenant(Node {
        kind: Kind::Slurm,
        id: "7".into(),
    });
    assert!(sums(&minutes).keys().any(|(owner, _)| *owner == job));
    assert_eq!(sums(&minutes), sums(&ledgers));
}

#[test]
fn what_changes_ends_it_early() {
    for (odd, expected) in [
        (Odd::Nothing, vec![6]),
        (Odd::Unknown, vec![3, 1, 2]),
        (Odd::Gap, vec![3, 3]),
        (Odd::CpuAway, vec![3, 1, 2]),
    ] {
        let mut all = vec![Odd::Nothing; 6];
        all[3] = odd;
        let ended = rolled_up(&ledgers(&all), 60);
        let lengths: Vec<u64> = ended.iter().filter_map(|ledger| ledger.rollup).collect();
        assert_eq!(lengths, expected, "{odd:?}");
    }
    let mut by_policy = ledgers(&[Odd::Nothing; 2]);
    by_policy[1].smt_weight_permille = 700;
    assert_eq!(rolled_up(&by_policy, 60).len(), 2);
    // Who used a GPU, and so how it is split, changes from one interval to the next.
    let mut by_method = ledgers(&[Odd::Nothing; 2]);
    by_method[1].leaves[0].method = Method::Sm;
    by_method[1].leaves[0].idle_floor_mw = Some(1);
    let ended = rolled_up(&by_method, 60);
    assert_eq!((ended.len(), ended[0].leaves[0].method), (1, Method::Mixed));
    assert_eq!(ended[0].leaves[0].idle_floor_mw, None);
}

#[test]
fn a_log_of_them_is_proved() {
    let mut all = vec![Odd::Nothing; 40];
    (all[9], all[20], all[33]) = (Odd::Unknown, Odd::Gap, Odd::CpuAway);
    let log = written(&rolled_up(&ledgers(&all), 10));
    let report = verify(log.as_bytes(), 9).unwrap();
    assert_eq!(report.failures, []);
    assert_eq!(report.rollups, (report.intervals, 40));
    let refused = |from: &str, to: &str, says: &str| {
        let report = verify(log.replacen(from, to, 1).as_bytes(), 20).unwrap();
        let found = report.failures.iter().flat_map(|failure| &failure.what);
        let found: Vec<&String> = found.collect();
        assert!(
            found.iter().any(|what| what.contains(says)),
            "not `{says}` but {found:?}"
        );
    };
    let number = |key: &str| {
        let (_, rest) = log.split_once(key).unwrap();
        let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next().unwrap();
        (format!("{key}{digits}"), digits.parse::<u64>().unwrap())
    };
    let (busy, ns) = number("\"busy_ns\":");
    refused(&busy, &format!("\"busy_ns\":{}", ns + 1), "time law");
    let (rows_at, uj) = number("\"energy_uj\":{\"package-0/core\":");
    refused(
        &rows_at,
        &format!("\"energy_uj\":{{\"package-0/core\":{}", uj + 1),
        "energy law",
    );
    let (counter, uj) =
        number("\"zone\":\"package-0\",\"role\":\"root\",\"kind\":\"package\",\"package\":0,\"energy_uj\":");
    let more = counter.trim_end_matches(char::is_numeric);
    refused(&counter, &format!("{more}{}", uj + 1), "of all leaves of package-0");
    refused("\"rollup\":", "\"rollup\":0,\"was\":", "a roll-up is of no interval");
}

fn odd() -> impl Strategy<Value = Odd> {
    prop_oneof![
        12 => Just(Odd::Nothing),
        1 => prop::sample::select(vec![Odd::Unknown, Odd::Gap, Odd::CpuAway]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn nothing_is_lost_and_everything_is_proved(odds in vec(odd(), 1..40), length_s in 1..12u64) {
        let ledgers = ledgers(&odds);
        let ended = rolled_up(&ledgers, length_s);
        prop_assert_eq!(sums(&ended), sums(&ledgers));
        prop_assert_eq!(ended.iter().filter_map(|ledger| ledger.rollup).sum::<u64>(), ledgers.len() as u64);
        let report = verify(written(&ended).as_bytes(), 9).unwrap();
        prop_assert_eq!(report.failures, []);
    }
}
