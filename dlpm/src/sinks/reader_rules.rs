//! Every log that the sinks write keeps the rules of AIPowerMeter's reader, and proves itself.

use std::{fs, path::Path, time::Duration};

use proptest::{collection::vec, prelude::*, sample::subsequence};

use crate::{
    attribution::{Options, attribute, energy_tree::Carries, ledger::Ledger},
    interval::{GpuProcess, GpuReading, Interval, MeterSource, ZoneKind, ZoneReading},
    log::names::{LOG_NAME, SEGMENT_END},
    phases::{Border, Phases, Request},
    sinks::{
        folder::FolderMode,
        segments::phase_events,
        testing::{
            all_zones, id, interval, ledger, ledger_without_memory, log_of, metadata, segmenter, segmenter_with, zone,
        },
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
        rotates: false,
        budget: None,
        listens: true,
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

/// A log with one GPU, of one segment.
fn gpu_log() -> String {
    let gpu = GpuReading {
        uuid: "GPU-7".to_owned(),
        index: 0,
        name: "GPU".to_owned(),
        pci: String::new(),
        energy_uj: Ok(160_000_000),
        counter_uj: None,
        source: MeterSource::NvmlEnergy,
        read_at_ns: None,
        power_mw: None,
        utilization_percent: Some(90),
        memory_used_bytes: Some(4_000),
        memory_total_bytes: None,
        usage: crate::interval::GpuUsage::Sm,
        inside: None,
        mig: false,
        sm_time: Ok(()),
        lists: Ok(()),
        dropped_samples: 0,
        notes: Vec::new(),
        processes: vec![GpuProcess {
            pid: 100,
            sm_percent_us: 50_000_000,
            mem_percent_us: None,
            memory_bytes: Some(3_000),
            instances: Vec::new(),
        }],
    };
    let ledgers: Vec<Ledger> = (0..3)
        .map(|seq| {
            let interval = Interval {
                gpus: vec![gpu.clone()],
                gpu_owners: [(100, (id(100), 1))].into(),
                ..interval(seq, all_zones())
            };
            attribute(&interval, &Options::default(), &Carries::default())
        })
        .collect();
    traced(&ledgers)
}

#[test]
fn gpus_are_in_every_sample() {
    accepted(&gpu_log(), 1);
}

/// `log` with one change in its last sample, which is line `number` from 1.
fn in_line(log: &str, number: usize, from: &str, to: &str) -> String {
    let mut lines: Vec<String> = log.lines().map(str::to_owned).collect();
    assert!(lines[number - 1].contains(from), "{from} is not in line {number}");
    lines[number - 1] = lines[number - 1].replacen(from, to, 1);
    lines.join("\n") + "\n"
}

/// Every hard rule that the reader has for the log, and a log that breaks it and nothing else that is checked before.
#[test]
fn each_rule_is_proved_by_a_log_that_breaks_it() {
    let good = traced(&run(0..3, &all_zones()));
    let end = format!("\"{SEGMENT_END}\"\n");
    let whole = good.strip_suffix(&end).unwrap();
    let dated = "{\"date\":\"2026-01-01 02:00:00.000000+01:00\",\"metrics\":{}}\n";
    let put = |from: &str, to: &str| in_line(&good, 3, from, to);
    let mut cases = vec![
        // Each line is whole JSON.
        ("no newline at the end", good.trim_end().to_owned(), "not whole"),
        ("a torn line", format!("{whole}{}", &good[..500]), "not JSON"),
        ("an empty line", format!("{good}\n"), "not JSON"),
        // An object has metrics; a sample has a date.
        ("no metrics", format!("{{\"dlpm\":{{}}}}\n{good}"), "no `metrics`"),
        (
            "a sample without a date",
            put("\"date\":", "\"day\":"),
            "date: expected",
        ),
        // No other kinds of lines.
        ("a number", format!("12\n{good}"), "neither an object"),
        ("null", format!("null\n{good}"), "neither an object"),
        (
            "a text that says date",
            format!("\"no date\"\n{good}"),
            "neither an object",
        ),
        (
            "a list that holds date",
            format!("[\"date\"]\n{good}"),
            "neither an object",
        ),
        // Ends of segments.
        ("an end first", format!("{end}{good}"), "a segment of 0 samples"),
        ("two ends in a row", format!("{good}{end}"), "a segment of 0 samples"),
        ("no end", whole.to_owned(), "does not end with the end of a segment"),
        (
            "a dated line before the end",
            format!("{whole}{dated}{end}"),
            "a date without them",
        ),
        (
            "one sample only",
            format!("{}\n{end}", good.lines().next().unwrap()),
            "a segment of 1 samples",
        ),
        // Dates.
        ("a date with Z", put("+01:00", "Z"), "date: expected"),
        (
            "nanoseconds",
            put(".000000+01:00", ".000000000+01:00"),
            "date: expected",
        ),
        // Values of metrics.cpu.
        (
            "a map in a map",
            put("\"intel_power\":40.0", "\"intel_power\":{\"0\":{\"1\":40.0}}"),
            "intel_power is neither",
        ),
        (
            "a text",
            put("\"intel_power\":40.0", "\"intel_power\":\"40\""),
            "intel_power is neither",
        ),
        (
            "null in a map",
            put("\"rel_intel_power\":{", "\"rel_intel_power\":{\"1\":null,"),
            "rel_intel_power is neither",
        ),
        (
            "null",
            put("\"psys_power\":60.0", "\"psys_power\":null"),
            "psys_power is neither",
        ),
        (
            "a first key that may be null",
            put(
                "\"cpu\":{\"per_process_cpu_uses\"",
                "\"cpu\":{\"intel_power2\":1.0,\"per_process_cpu_uses\"",
            ),
            "the first key",
        ),
        // Memory beside DRAM, and USS beside PSS.
        (
            "DRAM without memory",
            put("\"total_mem_use\":9000000000,", ""),
            "keys of memory are missing",
        ),
        (
            "PSS without USS",
            put("\"per_process_mem_use_uss\":", "\"per_process_mem_use_us\":"),
            "keys of memory are missing",
        ),
    ];
    // The last sample of a segment has every metric.
    for key in [
        "psys_power",
        "total_dram_power",
        "uncore_power",
        "rel_intel_power",
        "mem_use_uss",
    ] {
        cases.push((
            "a last sample that lacks a key",
            put(&format!("\"{key}\":"), &format!("\"other_{key}\":")),
            "the last sample of the segment that ends here lacks",
        ));
    }
    for (what, bad, says) in &cases {
        let found = violations(bad);
        assert!(found.iter().any(|what| what.contains(says)), "{what}: {found:#?}");
    }
}

#[test]
fn each_rule_of_gpus_is_proved_by_a_log_that_breaks_it() {
    let good = gpu_log();
    let put = |from: &str, to: &str| in_line(&good, 3, from, to);
    for key in ["nvidia_power", "nvidia_use_rate", "nvidia_memory"] {
        let bad = put(&format!("\"{key}\":"), &format!("\"other_{key}\":"));
        let says = format!("metrics.gpu has no number {key}");
        assert!(violations(&bad).iter().any(|what| what.contains(&says)), "{key}");
    }
    for key in [
        "per_gpu_nvidia_power",
        "per_gpu_nvidia_use_rate",
        "per_gpu_nvidia_memory",
    ] {
        let says = format!("metrics.gpu has no map {key}");
        for (from, to) in [
            (format!("\"{key}\":"), format!("\"other_{key}\":")),
            (
                format!("\"{key}\":{{\"0\":"),
                format!("\"{key}\":{{}},\"{key}_\":{{\"0\":"),
            ),
            (format!("\"{key}\":{{"), format!("\"{key}\":{{\"1\":null,")),
        ] {
            let found = violations(&put(&from, &to));
            assert!(found.iter().any(|what| what.contains(&says)), "{from}: {found:#?}");
        }
    }
    let mut without: Vec<String> = good.lines().map(str::to_owned).collect();
    let mut last: serde_json::Value = serde_json::from_str(&without[2]).unwrap();
    for gpu in [serde_json::json!({}), serde_json::Value::Null] {
        last["metrics"]["gpu"] = gpu;
        without[2] = last.to_string();
        let found = violations(&(without.join("\n") + "\n"));
        assert!(
            found.iter().any(|what| what.contains("metrics.gpu has no number")),
            "{found:#?}"
        );
    }
    last["metrics"].as_object_mut().unwrap().remove("gpu");
    without[2] = last.to_string();
    let found = violations(&(without.join("\n") + "\n"));
    let says = "the last sample of the segment that ends here lacks nvidia_power";
    assert!(found.iter().any(|what| what.contains(says)), "{found:#?}");
}
