//! The rules that AIPowerMeter's reader has for a log, found by running it; each broken one makes it crash or
//! integrate over a gap.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::sinks::line::SEGMENT_END;

static DATE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d$").unwrap());

/// What is wrong with a log, a sentence each.
pub fn violations(log: &str) -> Vec<String> {
    let mut checker = Checker::default();
    if !log.is_empty() && !log.ends_with('\n') {
        checker.broken("the last line is not whole");
    }
    for line in log.lines() {
        checker.number += 1;
        match serde_json::from_str(line) {
            Ok(line) => checker.line(&line),
            Err(error) => checker.broken(&format!("not JSON: {error}")),
        }
    }
    if !checker.segment.is_empty() {
        checker.broken("the log does not end with the end of a segment");
    }
    checker.violations
}

#[derive(Default)]
struct Checker {
    number: usize,
    /// Date and keys of the samples since the last segment end.
    segment: Vec<(String, Vec<String>)>,
    violations: Vec<String>,
}

impl Checker {
    fn broken(&mut self, what: &str) {
        self.violations.push(format!("line {}: {what}", self.number));
    }

    fn line(&mut self, line: &Value) {
        match line {
            Value::String(text) if text == SEGMENT_END => self.segment_end(),
            Value::Object(line) => match line.get("metrics") {
                Some(Value::Object(metrics)) if metrics.contains_key("cpu") => self.sample(line, &metrics["cpu"]),
                Some(Value::Object(metrics)) if metrics.is_empty() && !line.contains_key("date") => {}
                _ => self.broken("no metrics, or a date without them"),
            },
            _ => self.broken("neither an object nor the end of a segment"),
        }
    }

    fn segment_end(&mut self) {
        let segment = std::mem::take(&mut self.segment);
        if segment.len() < 2 {
            self.broken(&format!("a segment of {} samples", segment.len()));
        }
        let Some((_, last)) = segment.last() else { return };
        for key in segment.iter().flat_map(|(_, keys)| keys) {
            if !last.contains(key) {
                self.broken(&format!("the last sample of the segment lacks {key}"));
            }
        }
        if !segment.is_sorted_by(|(a, _), (b, _)| a < b) {
            self.broken("dates do not rise");
        }
    }

    fn sample(&mut self, line: &serde_json::Map<String, Value>, cpu: &Value) {
        let date = line.get("date").and_then(Value::as_str).unwrap_or_default();
        if !DATE.is_match(date) {
            self.broken(&format!("date {date:?}"));
        }
        let Some(cpu) = cpu.as_object() else {
            return self.broken("metrics.cpu is no object");
        };
        if cpu.keys().next().is_none_or(|key| key != "per_process_cpu_uses") {
            self.broken("the first key is one that may be missing");
        }
        for (key, value) in cpu {
            let is_flat = match value {
                Value::Number(_) => true,
                Value::Object(map) => map.values().all(Value::is_number),
                _ => false,
            };
            if !is_flat {
                self.broken(&format!("{key} is neither a number nor a flat map of numbers"));
            }
        }
        let needs = |key, needed: &[&str]| !cpu.contains_key(key) || needed.iter().all(|key| cpu.contains_key(*key));
        let memory = ["per_process_mem_use_abs", "per_process_mem_use_uss", "total_mem_use"];
        if !needs("total_dram_power", &memory) || !needs("per_process_mem_use_abs", &memory[1..2]) {
            self.broken("memory keys are missing");
        }
        self.segment.push((date.to_owned(), cpu.keys().cloned().collect()));
    }
}

mod tests {
    use std::{fs, path::Path, time::Duration};

    use proptest::{collection::vec, prelude::*, sample::subsequence};

    use super::*;
    use crate::{
        attribution::ledger::Ledger,
        interval::{MeterSource, ZoneKind, ZoneReading},
        sinks::{
            folder::{FolderMode, LOG_NAME},
            testing::{all_zones, ledger, log_of, metadata, segmenter, segmenter_with, zone},
            writer::{BACKLOG_BYTES, LogOptions, LogWriter},
        },
    };

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
        ledgers[1].machine_memory = None;
        let log = traced(&ledgers);
        accepted(&log, 2);
        assert_eq!(log.matches("\"total_mem_use\":9000000000").count(), 4);
        assert!(log.contains("{\"zone\":\"dram-0\",\"state\":\"absent\"}"));

        let mut never = run(0..2, &all_zones());
        never.iter_mut().for_each(|ledger| ledger.machine_memory = None);
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
            steps in vec((subsequence(all_zones(), 0..=5), vec(0..12u8, 5), 0..10u8, 0..10u8, 0..10u8), 0..8),
            aliases: bool,
        ) {
            let mut segmenter = segmenter_with(aliases);
            let mut log = String::new();
            let mut seq = 0;
            let mut zones = all_zones();
            for (other_zones, states, memory, gap, clock) in steps {
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
                seq += if gap == 0 { 2 } else { 1 };
                let mut ledger = ledger(seq, now);
                if memory == 0 {
                    ledger.machine_memory = None;
                }
                if clock == 0 {
                    ledger.end_unix_ns -= 3_600_000_000_000;
                }
                for line in segmenter.next(&ledger).unwrap() {
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
}
