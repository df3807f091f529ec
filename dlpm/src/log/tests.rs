//! Every line that is written is read again, in any order of its keys.

use std::path::PathBuf;

use jiff::tz::TimeZone;
use serde_json::Value;

use super::{Event, LogError, LogLine, LogReader, PassedOver, date::unix_ns, exact::Exact};
use crate::verify::test_logs::{eventful, logs};

fn reader(log: &str) -> LogReader<'_> {
    let paris = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    LogReader::new(PathBuf::from("log"), log.as_bytes(), paris)
}

/// A word for each line, and what was passed over.
fn words(log: &str) -> (Vec<String>, PassedOver) {
    let mut reader = reader(log);
    let mut words = Vec::new();
    while let Some(line) = reader.next_line().unwrap() {
        words.push(match line {
            LogLine::Interval(interval) => interval.ledger.seq.to_string(),
            LogLine::Event(event) => format!("{event:?}").split([' ', '{']).next().unwrap().to_owned(),
            LogLine::SegmentEnd => "end".to_owned(),
            LogLine::Foreign(foreign) => format!("foreign {}", foreign.unix_ns),
            LogLine::Nothing => "nothing".to_owned(),
        });
    }
    (words, reader.passed_over())
}

fn error(log: &str) -> String {
    let mut reader = reader(log);
    loop {
        match reader.next_line() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it was read"),
            Err(error) => return error.to_string(),
        }
    }
}

fn rewritten(log: &str) -> String {
    log.lines()
        .map(|line| {
            let mut value: Value = serde_json::from_str(line).unwrap();
            value.sort_all_objects();
            format!("  {value} \r\n")
        })
        .collect()
}

#[test]
fn ledgers_come_back_as_they_were() {
    for log in logs().iter().chain([&eventful()]) {
        for log in [log.clone(), rewritten(log)] {
            let mut reader = reader(&log);
            let mut intervals = 0;
            for written in log.lines() {
                let written: Value = serde_json::from_str(written).unwrap();
                let LogLine::Interval(interval) = reader.next_line().unwrap().unwrap() else {
                    continue;
                };
                let exact = serde_json::to_value(Exact::of(&interval.ledger, interval.identity)).unwrap();
                assert_eq!(exact, written["dlpm"]);
                let metrics: Value = serde_json::from_str(interval.metrics.get()).unwrap();
                assert_eq!(metrics, written["metrics"]);
                let date = written["date"].as_str().unwrap();
                assert_eq!(Ok(interval.ledger.end_unix_ns), unix_ns(date, &TimeZone::UTC));
                intervals += 1;
            }
            assert!(intervals >= 3);
            assert_eq!(reader.passed_over(), PassedOver::default());
        }
    }
}

#[test]
fn events_and_segments_are_told_apart() {
    let (words, _) = words(&eventful());
    let of = |what: &str| words.iter().filter(|word| *word == what).count();
    assert_eq!((of("Gap"), of("ClockStep"), of("ZonesChanged")), (1, 1, 4), "{words:?}");
    assert!(of("Repeat") > 0 && of("end") > 3);

    let mut reader = reader(
        "{\"metrics\":{},\"dlpm\":{\"schema\":1,\"event\":\"phase_begin\",\"seq\":3,\"at_ns\":9,\"label\":\"a \\\"b\\\"\",\"x\":{}}}",
    );
    let line = reader.next_line().unwrap().unwrap();
    let LogLine::Event(Event::PhaseBegin { seq, at_ns, label }) = line else {
        panic!("{line:?}")
    };
    assert_eq!((seq, at_ns, label.as_str()), (3, 9, "a \"b\""));
}

#[test]
fn what_a_later_version_adds_is_passed_over() {
    let later = "{\"metrics\":{},\"dlpm\":{\"schema\":1,\"event\":\"eclipse\",\"zones\":[]}}\n";
    let log = format!("{later}\n[1]\n\"text\"\n{{\"metrics\":{{}}}}\n");
    let passed_over = PassedOver {
        unknown_events: 1,
        other_lines: 4,
        ..PassedOver::default()
    };
    let expected: Vec<String> = ["Unknown", "nothing", "nothing", "nothing", "nothing"]
        .map(str::to_owned)
        .into();
    assert_eq!(words(&log), (expected, passed_over));
    let with_key = logs()
        .swap_remove(0)
        .replace("\"schema\":1,", "\"schema\":1,\"later\":[{\"a\":1.5}],");
    assert_eq!(words(&with_key).0, words(&logs().swap_remove(0)).0);
}

#[test]
fn a_torn_end_is_passed_over_and_a_torn_middle_is_not() {
    let log = logs().swap_remove(0);
    let (whole, _) = words(&log);
    for cut in [1, 30, 1000] {
        let torn = format!("{log}{}", &log[..cut]);
        assert_eq!(words(&torn).0, whole);
        assert_eq!(words(&torn).1.torn_bytes, cut as u64);
    }
    assert_eq!(words(log.trim_end()).0, whole);
    let first_line = log.lines().next().unwrap().len();
    let says = error(&format!("{}\n{log}", &log[..first_line / 2]));
    assert!(says.starts_with("log:1: it is not JSON"), "{says}");
    assert!(error("what is this?").contains("log:1: it is not JSON"));
}

#[test]
fn lines_that_make_no_sense_are_errors() {
    let log = logs().swap_remove(0);
    let says = |log: &str, what: &str| {
        let says = error(log);
        assert!(says.contains(what) && says.starts_with("log:"), "{says}");
    };
    says(
        &log.replacen("\"schema\":1", "\"schema\":2", 1),
        "schema: expected 1, found 2",
    );
    says(&log.replacen("\"rows\"", "\"r\"", 1), "`rows`");
    says(&log.replacen("\"date\"", "\"d\"", 1), "no date");
    says(&log.replacen("+01:00", "+1", 1), "date: expected YYYY");
    says("{\"date\":\"2026-01-01 00:00:00\"}\n", "`metrics`");
    says("{\"metrics\":{\"cpu\":{}}}\n", "no date");
    says("12\n", "neither a sample nor an event");
    says(
        "{\"metrics\":{},\"dlpm\":{\"schema\":1,\"event\":\"gap\",\"from_seq\":1}}\n",
        "its event cannot be read: missing field `to_seq`",
    );
    says(
        "{\"metrics\":{},\"dlpm\":{\"schema\":1}}\n",
        "neither a sample nor an event",
    );
    let missing = LogReader::open(std::path::Path::new("/nowhere/at/all"));
    assert!(matches!(missing, Err(LogError::Io { .. })));
}

#[test]
fn dates_of_aipowermeter_are_local() {
    // Python writes NaN, which is not JSON.
    for power in ["60.5", "NaN", "-Infinity"] {
        let (words, _) = words(&format!(
            "{{\"date\": \"2023-07-27 17:21:57.146517\", \"metrics\": {{\"cpu\": {{\"intel_power\": {power}}}}}}}\n"
        ));
        assert_eq!(words, ["foreign 1690471317146517000"]);
    }
    let utc = |date| unix_ns(date, &TimeZone::UTC);
    assert_eq!(utc("1970-01-01 00:00:01"), Ok(1_000_000_000));
    assert_eq!(utc("1970-01-01T01:00:01.5+01:00"), Ok(1_500_000_000));
    assert!(utc("1970-01-01").is_ok_and(|unix_ns| unix_ns == 0));
    assert!(utc("yesterday").is_err());
}
