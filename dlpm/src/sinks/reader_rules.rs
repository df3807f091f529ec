//! Every log that the sinks write keeps the rules of AIPowerMeter's reader, and proves itself.

use std::{fs, path::Path, time::Duration};

use proptest::{collection::vec, prelude::*, sample::subsequence};

use crate::{
    attribution::ledger::Ledger,
    interval::{MeterSource, ZoneKind, ZoneReading},
    phases::{Border, Phases, Request},
    sinks::{
        folder::{FolderMode, LOG_NAME},
        line::SEGMENT_END,
        segments::phase_events,
        testing::{all_zones, ledger, ledger_without_memory, log_of, metadata, segmenter, segmenter_with, zone},
        writer::{BACKLOG_BYTES, LogOptions, LogWriter},
    },
    verify::verify,
};

/// What is wrong with a log, a sentence each.
pub fn violations(log: &str) -> Vec<String> {
    let report = verify(log.as_bytes(), usize::MAX).unwrap();
    let of_line = |failure: crate::verify::Failure| {
        let line = failure.line;
        failure.what.into_iter().map(move |what| format!("line {line}: {what}"))
    };
    report.failures.into_iter().flat_map(of_line).collect()
}

fn trace(folder: &Path, mode: FolderMode, ledgers: &[Ledger]) -> String {
    let options = LogOptions {
        folder: folder.to_owned(),
        mode,
        identity: None,
        metadata: metadata(),
        backlog_bytes: BACKLOG_BYTES,
    };
    let writer = LogWriter::start(options).unwrap();
    let mut segmenter = segmenter();
    for ledger in ledgers {
        writer.write(segmenter.next(ledger).unwrap());
    }
    writer.write(segmenter.end().unwrap());
    let report = writer.finish(metadata(), Duration::from_secs(5));
    assert!(report.complete && report.problems.is_empty(), "{report:?}");
    log_of(folder)
}

fn traced(ledgers: &[Ledger]) -> String {
    let folder = tempfile::tempdir().unwrap();
    trace(folder.path(), FolderMode::New, ledgers)
}

fn run(seqs: std::ops::Range<u64>, zones: &[ZoneReading]) -> Vec<Ledger> {
    seqs.map(|seq| ledger(seq, zones.to_vec())).collect()
}

#[track_caller]
fn accepted(log: &str, segments: usize) {
    assert_eq!(violations(log), [""; 0], "in:\n{log}");
    assert_eq!(log.matches(SEGMENT_END).count(), segments, "in:\n{log}");
}

fn without(kind: ZoneKind) -> Vec<ZoneReading> {
    all_zones().into_iter().filter(|zone| zone.kind != kind).collect()
}

#[test]
fn whatever_zones_there_are() {
    accepted(&traced(&run(0..3, &all_zones())), 1);
    accepted(&traced(&run(0..3, &without(ZoneKind::Dram))), 1);
    accepted(&traced(&run(0..3, &without(ZoneKind::Core))), 1);
    accepted(&traced(&run(0..3, &[])), 1);
    let estimate = ZoneReading {
        source: MeterSource::Estimate,
        ..zone("machine", ZoneKind::Machine, Ok(1_000_000))
    };
    accepted(&traced(&run(0..3, &[estimate])), 1);
}

#[test]
fn few_samples() {
    accepted(&traced(&[]), 0);
    accepted(&traced(&run(0..1, &all_zones())), 1);
    accepted(&traced(&run(0..2, &all_zones())), 1);
}

#[test]
fn a_zone_that_is_invalid_for_a_while() {
    let mut reset = all_zones();
    reset[1].energy_uj = Err("counter was reset".to_owned());
    let mut ledgers = run(0..3, &all_zones());
    ledgers.extend(run(3..4, &reset));
    ledgers.extend(run(4..6, &all_zones()));
    let log = traced(&ledgers);
    accepted(&log, 3);
    let invalid = log
        .lines()
        .find(|line| line.contains("\"seq\":3,\"begin_ns\""))
        .unwrap();
    assert!(!invalid.contains("total_cpu_power") && invalid.contains("\"intel_power\":40.0"));
    assert!(log.contains("\"event\":\"zones_changed\",\"seq\":3") && log.contains("counter was reset"));
}

#[test]
fn a_zone_that_vanishes_and_memory_that_cannot_be_read() {
    let mut ledgers = run(0..2, &all_zones());
    ledgers.extend(run(2..4, &without(ZoneKind::Dram)));
    ledgers[1] = ledger_without_memory(1, all_zones());
    let log = traced(&ledgers);
    accepted(&log, 2);
    assert_eq!(log.matches("\"total_mem_use\":9000000000").count(), 4);
    assert!(log.contains("{\"zone\":\"dram-0\",\"state\":\"absent\"}"));

    let never: Vec<Ledger> = (0..2).map(|seq| ledger_without_memory(seq, all_zones())).collect();
    let log = traced(&never);
    accepted(&log, 1);
    assert!(!log.contains("total_dram_power"));
}

#[test]
fn gaps_and_clocks_that_jump() {
    let mut ledgers = run(0..2, &all_zones());
    ledgers.extend(run(3..6, &all_zones()));
    ledgers[4].end_unix_ns -= 3_600_000_000_000;
    let log = traced(&ledgers);
    accepted(&log, 3);
    assert!(log.contains("\"event\":\"gap\",\"from_seq\":1,\"to_seq\":3"));
    assert!(log.contains("\"event\":\"clock_step\",\"seq\":5,\"step_ns\":-3600000000000"));
}

#[test]
fn a_log_that_was_torn_and_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    let log = trace(folder.path(), FolderMode::New, &run(0..3, &all_zones()));
    let whole = log.strip_suffix(&format!("\"{SEGMENT_END}\"\n")).unwrap();
    fs::write(folder.path().join(LOG_NAME), format!("{whole}{}", &whole[..777])).unwrap();
    assert!(!violations(&log_of(folder.path())).is_empty());

    let mut later = run(0..2, &all_zones());
    later.iter_mut().for_each(|ledger| ledger.end_unix_ns += 60_000_000_000);
    let continued = trace(folder.path(), FolderMode::Append, &later);
    accepted(&continued, 2);
    assert!(continued.starts_with(&log));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_happens_to_zones_memory_and_clocks(
        steps in vec((subsequence(all_zones(), 0..=5), vec(0..12u8, 5), 0..10u8, 0..10u8, 0..10u8, any::<bool>()), 0..8),
        aliases: bool,
    ) {
        let mut segmenter = segmenter_with(aliases);
        let mut log = String::new();
        let mut seq = None;
        let mut zones = all_zones();
        let mut phases = Phases::default();
        for (other_zones, states, memory, gap, clock, marked) in steps {
            // Most steps change nothing.
            if gap > 7 {
                zones = other_zones;
            }
            let mut now = zones.clone();
            for (zone, state) in now.iter_mut().zip(states) {
                if state == 0 {
                    zone.energy_uj = Err("reset".to_owned());
                }
            }
            let number = seq.map_or(0, |seq| seq + if gap == 0 { 2 } else { 1 });
            seq = Some(number);
            let mut ledger = if memory == 0 {
                ledger_without_memory(number, now)
            } else {
                ledger(number, now)
            };
            if clock == 0 {
                ledger.end_unix_ns -= 3_600_000_000_000;
            }
            let request = Request::parse(b"mark x").unwrap();
            let changes = if marked { phases.apply(&request).unwrap() } else { Vec::new() };
            let border = Border { seq: number + 1, at_ns: ledger.end_ns };
            for line in segmenter.next(&ledger).unwrap().into_iter().chain(phase_events(border, &changes).unwrap()) {
                log += line.text();
            }
        }
        for line in segmenter.end().unwrap() {
            log += line.text();
        }
        prop_assert_eq!(violations(&log), Vec::<String>::new());
    }
}

#[test]
fn the_checker_finds_what_it_is_for() {
    let good = traced(&run(0..3, &all_zones()));
    let end = format!("\"{SEGMENT_END}\"\n");
    for bad in [
        good.replace(&end, ""),
        format!("{good}{end}"),
        format!("{end}{good}"),
        format!("{good}\n"),
        good.replacen("+01:00", "Z", 1),
        good.replacen("\"total_mem_use\":9000000000,", "", 1),
        good.replacen("\"psys_power\":60.0", "\"psys_power\":null", 1),
        good.replacen("\"per_process_cpu_uses\"", "\"other\"", 1),
        format!("12\n{good}"),
        format!("{{\"date\":\"x\"}}\n{good}"),
    ] {
        assert!(!violations(&bad).is_empty(), "accepted:\n{bad}");
    }
}
