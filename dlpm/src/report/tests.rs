//! Sums of logs are the sums of their ledgers.

use std::path::PathBuf;

use jiff::tz::TimeZone;
use proptest::{collection::vec, prelude::*, sample::subsequence};
use serde_json::Value;

use super::{collect::Collected, facts, notes::notes, results::Results, tables::Tables};
use crate::{
    attribution::ledger::Ledger,
    log::{
        LogReader,
        window::{Moment, Window},
    },
    sinks::testing::{all_zones, ledger, segmenter},
    tables::{Depth, Table, record::Cell},
    totals::Totals,
    verify::test_logs::{eventful, logs},
};

const SECOND_NS: i64 = 1_000_000_000;

/// Date of the end of interval 0 of a test's log.
const FIRST_END_NS: i64 = 1_767_225_600_000_000_000;

pub fn collected(log: &str, window: &Window) -> Result<Collected, String> {
    let reader = LogReader::new(PathBuf::from("log"), log.as_bytes(), TimeZone::UTC);
    Collected::read(reader, window, &TimeZone::UTC, Results::default(), None).map_err(|error| error.to_string())
}

fn whole(log: &str) -> Collected {
    collected(log, &Window::default()).unwrap()
}

/// A log of `ledgers`, with lines of text before some of them.
pub fn log_of(ledgers: &[Ledger], before: impl Fn(usize) -> String) -> String {
    let mut segmenter = segmenter();
    let mut log = String::new();
    for (position, ledger) in ledgers.iter().enumerate() {
        log += &before(position);
        segmenter
            .next(ledger)
            .unwrap()
            .iter()
            .for_each(|line| log += line.text());
    }
    log += &before(ledgers.len());
    segmenter.end().unwrap().iter().for_each(|line| log += line.text());
    log
}

fn phase(event: &str, seq: usize, label: &str) -> String {
    format!(
        "{{\"metrics\":{{}},\"dlpm\":{{\"schema\":1,\"event\":\"phase_{event}\",\"seq\":{seq},\"at_ns\":1,\
         \"label\":\"{label}\"}}}}\n"
    )
}

fn ledgers(count: u64) -> Vec<Ledger> {
    (0..count).map(|seq| ledger(seq, all_zones())).collect()
}

/// Joules and CPU time of all sums, so that two of them can be compared.
fn figures(totals: &Totals) -> String {
    let mut processes: Vec<_> = totals.processes.iter().collect();
    processes.sort_by_key(|(key, _)| (*key).clone());
    format!(
        "{:?}",
        (
            (totals.intervals, totals.duration_ns, &totals.cpu),
            &totals.zones,
            &totals.shares,
            processes,
            &totals.cgroups
        )
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn totals_are_the_sums_of_the_ledgers(
        steps in vec((subsequence(all_zones(), 0..=5), vec(0..6u8, 5), 0..4u64), 1..8),
        shuffled: bool,
    ) {
        let mut expected = Totals::default();
        let mut energy_uj = 0u128;
        let mut ledgers = Vec::new();
        let mut seq = 0;
        for (mut zones, states, skip) in steps {
            for (zone, state) in zones.iter_mut().zip(states) {
                if state == 0 {
                    zone.energy_uj = Err("reset".to_owned());
                }
            }
            let ledger = ledger(seq, zones);
            seq += 1 + skip;
            expected.add(&ledger);
            energy_uj += ledger.leaves.iter().filter_map(|leaf| leaf.energy_uj.clone().ok()).map(u128::from).sum::<u128>();
            ledgers.push(ledger);
        }
        let mut log = log_of(&ledgers, |_| String::new());
        if shuffled {
            log = log
                .lines()
                .map(|line| {
                    let mut value: Value = serde_json::from_str(line).unwrap();
                    value.sort_all_objects();
                    format!("{value}\n")
                })
                .collect();
        }
        let collected = whole(&log);
        prop_assert_eq!(figures(&collected.totals), figures(&expected));
        prop_assert_eq!(collected.totals.energy_uj(), energy_uj);
        let shares: u128 = collected.totals.shares.values().map(|usage| usage.amount.energy_uj).sum();
        prop_assert_eq!(shares, energy_uj);
        let comms: u128 = collected.comms.totals.values().map(|total| total.usage.amount.energy_uj).sum();
        prop_assert_eq!(comms, collected.totals.listed().amount.energy_uj);
        prop_assert_eq!(facts::difference_uj(&collected.totals), 0);
    }

    /// Every interval is in one of the windows that follow each other.
    #[test]
    fn windows_share_the_log(cuts in vec(0..9_000_000_000i64, 0..4)) {
        let log = log_of(&ledgers(8), |_| String::new());
        let mut cuts: Vec<i64> = cuts.into_iter().map(|cut| FIRST_END_NS - SECOND_NS + cut).collect();
        cuts.sort_unstable();
        let borders: Vec<Option<i64>> = [None].into_iter().chain(cuts.into_iter().map(Some)).chain([None]).collect();
        let mut sum = 0;
        for pair in borders.windows(2) {
            let window = Window { from: pair[0].map(Moment::Unix), to: pair[1].map(Moment::Unix), phase: None };
            let part = collected(&log, &window).unwrap();
            prop_assert_eq!(part.totals.intervals + part.outside, 8);
            sum += part.totals.energy_uj();
        }
        prop_assert_eq!(sum, whole(&log).totals.energy_uj());
    }
}

#[test]
fn eventful_logs_are_added_up() {
    for log in logs() {
        let collected = whole(&log);
        assert!(collected.totals.intervals >= 3 && collected.traces == 1 && collected.segments == 1);
        assert_eq!(facts::difference_uj(&collected.totals), 0);
    }
    let collected = whole(&eventful());
    assert_eq!((collected.traces, collected.totals.intervals), (2, 17));
    assert_eq!((collected.missing.gaps, collected.missing.clock_steps), (1, 1));
    let notes = notes(&collected).join("\n");
    for says in [
        "package-0 is not known in 1 of 17",
        "1 intervals are missing",
        "clock jumped 1 times",
    ] {
        assert!(notes.contains(says), "{notes}");
    }
    let all = [logs().concat(), eventful()].concat();
    assert!(whole(&all).totals.mixed_policies);
}

#[test]
fn what_was_dropped_is_in_no_sum() {
    let dropped = "{\"metrics\":{},\"dlpm\":{\"schema\":1,\"event\":\"dropped\",\"intervals\":3,\"from_seq\":2,\"to_seq\":4,\
                   \"cpu_ns\":2500000000,\"zones\":{\"package-0\":9000000}}}\n";
    let log = log_of(&ledgers(2), |position| {
        if position == 1 {
            dropped.to_owned()
        } else {
            String::new()
        }
    });
    let collected = whole(&log);
    assert_eq!(collected.totals.intervals, 2);
    assert_eq!(
        (collected.missing.dropped, collected.missing.dropped_uj["package-0"]),
        (3, 9_000_000)
    );
    let notes = notes(&collected).join("\n");
    assert!(
        notes.contains(
            "3 intervals found no room on the disk; they are in no table: 2.500 s of CPU time, package-0 9.000 J"
        ),
        "{notes}"
    );
}

#[test]
fn phases_have_whole_intervals() {
    let log = log_of(&ledgers(6), |position| match position {
        0 => phase("begin", 0, "train"),
        2 => phase("begin", 2, "eval"),
        3 => phase("end", 3, "train"),
        4 => phase("end", 4, "eval") + &phase("begin", 4, "train"),
        5 => phase("end", 5, "train"),
        _ => String::new(),
    });
    let all = whole(&log);
    let intervals: Vec<(&str, u64, u64)> = all
        .phases
        .in_order()
        .iter()
        .map(|(label, total)| (*label, total.count, total.totals.intervals))
        .collect();
    assert_eq!(intervals, [("train", 2, 4), ("eval", 1, 2)]);
    assert_eq!(all.phases.without.totals.intervals, 1);
    let train = &all.phases.totals["train"].totals;
    assert_eq!(train.energy_uj(), 4 * 48_000_000);
    let window = Window {
        phase: Some("eval".to_owned()),
        ..Window::default()
    };
    let eval = collected(&log, &window).unwrap();
    assert_eq!((eval.totals.intervals, eval.outside), (2, 4));
    assert_eq!(eval.totals.listed(), all.phases.totals["eval"].totals.listed());

    // The trace was killed: its phase ends with it.
    let open = log_of(&ledgers(2), |position| {
        if position == 1 {
            phase("begin", 1, "train")
        } else {
            String::new()
        }
    });
    let twice = open.clone() + &log_of(&ledgers(3), |_| String::new());
    let collected = whole(&twice);
    assert_eq!(collected.phases.totals["train"].totals.intervals, 1);
    assert_eq!((collected.traces, collected.phases.without.totals.intervals), (2, 4));
}

#[test]
fn windows_and_results_go_by_date() {
    let log = log_of(&ledgers(4), |_| String::new());
    let window = Window {
        from: Some(Moment::AfterBegin(SECOND_NS)),
        to: Some(Moment::AfterBegin(3 * SECOND_NS + 1)),
        phase: None,
    };
    let part = collected(&log, &window).unwrap();
    assert_eq!((part.totals.intervals, part.outside), (2, 2));
    assert_eq!(part.begin_unix_ns, Some(FIRST_END_NS));
    assert_eq!(part.end_unix_ns, Some(FIRST_END_NS + 2 * SECOND_NS));
    let after = Window {
        from: Some(Moment::Unix(FIRST_END_NS + 100 * SECOND_NS)),
        ..Window::default()
    };
    assert!(collected(&log, &after).unwrap().is_empty());
}

#[test]
fn tables_hold_every_microjoule() {
    let log = log_of(&ledgers(3), |_| String::new());
    let all = whole(&log);
    for top in [0, 1, usize::MAX] {
        let tables = Tables {
            collected: &all,
            depth: Depth { top, ..Depth::ALL },
            inferences: None,
        };
        let sum = |table: Table, name: &str| -> u128 {
            table
                .records()
                .iter()
                .map(|record| match record.get(name) {
                    Some(Cell::Whole(number)) => *number,
                    _ => 0,
                })
                .sum()
        };
        assert_eq!(sum(tables.processes(), "energy_uj"), all.totals.energy_uj());
        let busy_ns = all.totals.cpu.interval_ns;
        assert_eq!(sum(tables.processes(), "cpu_ns"), busy_ns);
        let listed = all.totals.listed().amount;
        for table in [tables.cgroups(), tables.comms()] {
            assert_eq!(sum(table.clone(), "energy_uj"), listed.energy_uj);
            assert_eq!(sum(table, "cpu_ns"), listed.cpu_ns);
        }
    }
}

#[test]
fn a_log_of_aipowermeter_is_read_too() {
    let sample = |second: u32, power: &str| {
        format!(
            "{{\"date\": \"2023-07-27 17:21:{second:02}.146517\", \"metrics\": {{\"cpu\": {{\"intel_power\": {power}, \
             \"psys_power\": -1, \"rel_intel_power\": {{\"9\": 2.0}}}}}}}}\n"
        )
    };
    let log = sample(1, "99.0") + &sample(3, "10.0") + &sample(4, "20.0") + "\"END OF RECORDING SEGMENT\"\n";
    let collected = whole(&log);
    assert_eq!(
        (
            collected.totals.intervals,
            collected.foreign.samples,
            collected.segments
        ),
        (0, 3, 1)
    );
    assert_eq!(collected.foreign.zones["package"].joules, 40.0);
    assert_eq!(collected.foreign.processes["9"].package_joules, Some(6.0));
    let error = super::tests::collected(
        &log.replace("{\"cpu\"", "[{\"cpu\"").replace("}}}}", "}}]}"),
        &Window::default(),
    );
    assert!(error.is_err_and(|error| error.starts_with("log:1: ")), "it was read");
}
