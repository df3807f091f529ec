//! Phases in a log: where their events may stand, and what short intervals say to AIPowerMeter's reader.

use serde_json::Value;

use super::{
    test_logs::phased,
    tests::{accepted, refused},
};
use crate::log::names::SEGMENT_END;

/// The log with the line that holds `mark` replaced by these lines.
fn with(mark: &str, lines: &[String]) -> String {
    let log = phased();
    let (mut found, mut changed) = (0, String::new());
    for line in log.lines() {
        if line.contains(mark) {
            found += 1;
            lines.iter().for_each(|line| changed += &format!("{line}\n"));
        } else {
            changed += &format!("{line}\n");
        }
    }
    assert_eq!(found, 1, "{mark}");
    changed
}

fn line(mark: &str) -> String {
    phased().lines().find(|line| line.contains(mark)).unwrap().to_owned()
}

const BEGIN_A: &str = r#""event":"phase_begin","seq":1,"at_ns":81001000240609,"label":"a""#;
const END_A: &str = r#""event":"phase_end","seq":4,"#;

#[test]
fn phases_of_a_trace_are_accepted() {
    let report = accepted(&phased());
    assert_eq!((report.intervals, report.segments), (9, 3));
    assert_eq!(phased().matches("phase_begin").count(), 4);
    assert!(phased().contains(BEGIN_A), "{}", line("phase_begin"));
}

#[test]
fn an_event_stands_at_its_border() {
    let changed = |from: &str, to: &str| {
        let changed = line(BEGIN_A).replace(from, to);
        with(BEGIN_A, &[changed])
    };
    refused(
        &changed("\"seq\":1", "\"seq\":2"),
        "event phase_begin: seq: expected 1, found 2",
    );
    refused(&changed("\"at_ns\":8", "\"at_ns\":9"), "event phase_begin: at_ns");
    refused(&changed("\"at_ns\"", "\"at\""), "lacks a field");
    refused(
        &changed("\"label\":\"a\"", "\"label\":\" a\""),
        "not a label for a phase",
    );
    refused(&changed("\"seq\":1", "\"seq\":0"), "do not follow");
    // Behind the next sample.
    let (event, sample) = (line(END_A), line("\"seq\":4,\"begin_ns\""));
    let moved = with(END_A, &[]).replace(&sample, &format!("{sample}\n{event}"));
    refused(&moved, "event phase_end: seq: expected 5, found 4");
}

#[test]
fn what_ends_was_begun() {
    refused(&with(BEGIN_A, &[]), "no phase `a` is open");
    refused(
        &with(BEGIN_A, &[line(BEGIN_A), line(BEGIN_A)]),
        "phase `a` is open already",
    );
    // The next trace begins anew, also after one that was killed.
    let killed = with(END_A, &[]).replace(r#""event":"phase_end","seq":9,"#, r#""event":"later","seq":9,"#);
    accepted(&(killed + &phased()));
}

/// Samples that found no room on the disk take no events with them.
#[test]
fn events_of_samples_that_were_dropped_stand_after_the_sums() {
    let log = phased();
    let is_dropped = |line: &str| {
        let seq = serde_json::from_str::<Value>(line)
            .unwrap()
            .pointer("/dlpm/seq")
            .and_then(Value::as_u64);
        line.contains("\"begin_ns\"") && seq.is_some_and(|seq| (1..4).contains(&seq))
    };
    let event = |from: u64, to: u64| {
        format!(
            "\"{SEGMENT_END}\"\n{{\"metrics\":{{}},\"dlpm\":{{\"schema\":1,\"event\":\"dropped\",\"intervals\":{},\
             \"from_seq\":{from},\"to_seq\":{to},\"cpu_ns\":1,\"zones\":{{}}}}}}\n",
            to - from + 1
        )
    };
    let repeat = |line: &str| {
        let mut repeat: Value = serde_json::from_str(line).unwrap();
        repeat["dlpm"] = serde_json::json!({"schema": 1, "event": "repeat", "seq": 0});
        let date = repeat["date"].as_str().unwrap();
        let date = date.replace(".000", ".001");
        repeat["date"] = date.into();
        format!("{repeat}\n")
    };
    let dropped = |from: u64, to: u64| {
        let (mut kept, mut done) = (String::new(), false);
        for line in log.lines() {
            if line.contains("\"event\":\"phase_begin\",\"seq\":1,") && !done {
                kept += &repeat(log.lines().next().unwrap());
                kept += &event(from, to);
                done = true;
            }
            if !is_dropped(line) {
                kept += &format!("{line}\n");
            }
        }
        kept
    };
    accepted(&dropped(1, 3));
    refused(
        &dropped(2, 3),
        "expected a border of the intervals 2 to 3, which were dropped, found 1",
    );
    refused(
        &dropped(1, 2),
        "expected a border of the intervals 1 to 2, which were dropped, found 4",
    );
    let late = format!("{END_A}\"at_ns\":9");
    refused(
        &dropped(1, 3).replace(&format!("{END_A}\"at_ns\":8"), &late),
        "an event of a phase before it",
    );
    refused(
        &dropped(1, 3).replace("\"event\":\"phase_end\",\"seq\":2", "\"event\":\"phase_end\",\"seq\":5"),
        "do not follow",
    );
}

#[test]
fn a_short_interval_repeats_the_metrics_before_it() {
    let log = phased();
    let metrics = |seq: u64| {
        let line = log
            .lines()
            .find(|line| line.contains(&format!("\"seq\":{seq},\"begin_ns\"")))
            .unwrap();
        serde_json::from_str::<Value>(line).unwrap()["metrics"].clone()
    };
    assert_eq!(metrics(1), metrics(0));
    assert_eq!((metrics(3), metrics(4)), (metrics(2), metrics(2)));
    assert_ne!(metrics(5), metrics(2));
    // The first of a segment has its own, until one is long enough.
    assert_ne!(metrics(6), metrics(5));
    assert_ne!(metrics(7), metrics(6));
    assert_ne!(metrics(8), metrics(7));
    let changed = line("\"seq\":3,\"begin_ns\"").replacen("\"psys_power\":1", "\"psys_power\":2", 1);
    refused(
        &with("\"seq\":3,\"begin_ns\"", &[changed]),
        "which a short interval repeats",
    );
}
