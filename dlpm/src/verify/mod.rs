//! Proof of a log from the log alone: what each line says is computed again from what it was made of.
//!
//! Nothing here compares texts or checksums. A line that another JSON library wrote anew is the same line; one
//! microjoule that moved from one row to another is found, because the leaf is split again under the recorded policy
//! and weights. One line is held at a time, so that a log may be of any length.

pub mod chain;
mod counted;
mod events;
pub mod files;
pub mod finished;
pub(crate) mod laws;
mod metrics;
mod phases;
mod sequence;

#[cfg(test)]
mod phase_tests;
#[cfg(test)]
mod tamper_tests;
#[cfg(test)]
pub(crate) mod test_logs;
#[cfg(test)]
mod tests;

use std::{
    io::{self, BufRead},
    path::PathBuf,
};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    aipowermeter::rules::{self, ReaderRules},
    attribution::ledger::Ledger,
    files::Beyond,
    log::{Event, Kind, chain::Lines, exact::Exact},
};
use chain::Chain;
use finished::Runs;
use sequence::{Expected, Sequence};

/// Failures that are kept of one line: one wrong number makes several sums wrong.
const PER_LINE: usize = 4;

/// A line that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The file.
    pub path: PathBuf,
    /// Number of the line in it, from 1.
    pub line: u64,
    /// What is wrong, with what was expected and what was found: a sentence each, the first few.
    pub what: Vec<String>,
    /// How many more there are.
    pub more: usize,
}

/// What a log was found to be.
#[derive(Debug, Default)]
pub struct Report {
    /// Lines.
    pub lines: u64,
    /// Intervals with an exact part.
    pub intervals: u64,
    /// Of these, the ones that are sums of several: how many, and of how many.
    pub rollups: (u64, u64),
    /// Segments that were ended.
    pub segments: u64,
    /// Traces that wrote to the log.
    pub traces: u64,
    /// What the roll-ups say of tenants.
    pub runs: Runs,
    /// Somebody still writes to it, so that its last segment has no end yet.
    pub is_written: bool,
    /// The first lines that fail.
    pub failures: Vec<Failure>,
    /// Lines that fail.
    pub failed_lines: u64,
}

impl Report {
    /// Whether there is no interval, so that there is nothing to prove.
    pub fn proves_nothing(&self) -> bool {
        self.intervals == 0
    }
}

/// Reads a log to its end and proves it; keeps the first `keep` lines that fail.
///
/// # Errors
///
/// If `log` cannot be read.
pub fn verify(log: impl BufRead + Send, keep: usize) -> io::Result<Report> {
    verify_lines(&mut Lines::new(PathBuf::new(), log), keep, false)
}

/// The same for the lines of all files of a log. Of one to which somebody still writes, it is not wrong that its last segment
/// is open, or that its last line is not whole yet.
///
/// # Errors
///
/// If they cannot be read; [`Lines::path`] is the file.
pub fn verify_lines(lines: &mut Lines, keep: usize, is_written: bool) -> io::Result<Report> {
    let mut verifier = Verifier::default();
    verifier.report.is_written = is_written;
    let mut line = Vec::new();
    while let Some(read) = lines.next(&mut line)? {
        if is_written && !line.ends_with(b"\n") {
            break;
        }
        verifier.report.lines += 1;
        let failures = match read {
            Ok(()) => verifier.line(&line, lines),
            Err(beyond) => verifier.beyond(beyond),
        };
        verifier.keep(failures, keep, lines);
        if read == Err(Beyond::Length) {
            break;
        }
    }
    let mut failures = if is_written { Vec::new() } else { verifier.rules.end() };
    failures.extend(verifier.chain.end());
    verifier.keep(failures, keep, lines);
    Ok(verifier.report)
}

#[derive(Default)]
struct Verifier {
    report: Report,
    rules: ReaderRules,
    sequence: Sequence,
    chain: Chain,
}

impl Verifier {
    /// The next line goes beyond a limit.
    fn beyond(&mut self, beyond: Beyond) -> Vec<String> {
        self.sequence.lose_track();
        let rest = match beyond {
            Beyond::Length => ", so that the log is not read to its end",
            Beyond::Values => "",
        };
        vec![format!("{beyond}{rest}")]
    }

    /// What is wrong with the next line.
    fn line(&mut self, line: &[u8], lines: &Lines) -> Vec<String> {
        let mut failures = Vec::new();
        if !line.ends_with(b"\n") {
            failures.push("the last line is not whole; `dlpm trace --append` repairs that".to_owned());
        }
        let value: Value = match serde_json::from_slice(line) {
            Ok(value) => value,
            Err(error) => {
                failures.push(format!("it is not JSON: {error}"));
                return failures;
            }
        };
        let kind = Kind::of_value(&value);
        failures.extend(self.rules.line(kind, &value));
        let event = (kind != Kind::Sample).then(|| Event::deserialize(&value["dlpm"]));
        let known = event.as_ref().and_then(|event| event.as_ref().ok());
        failures.extend(self.chain.line(line, lines.number() == 1, lines.path(), known));
        if lines.total() == 1 && self.chain.begins_later() {
            self.sequence.lose_track();
        }
        match kind {
            Kind::SegmentEnd => {
                self.report.segments += 1;
                self.sequence.segment_end();
            }
            Kind::Event | Kind::Repeat | Kind::Continues => match event {
                Some(Ok(Event::Repeat { seq })) => failures.extend(self.sequence.repeat(seq, &value)),
                Some(Ok(event)) => failures.extend(self.sequence.event(event)),
                _ => {
                    let event = value["dlpm"]["event"].as_str().unwrap_or_default();
                    failures.push(format!("event {event} lacks a field"));
                }
            },
            _ => failures.extend(self.sample(&value)),
        }
        failures
    }

    fn sample(&mut self, line: &Value) -> Vec<String> {
        let Some(exact) = line.get("dlpm") else {
            return vec!["it has no exact part (`dlpm`): another tool may have written it".to_owned()];
        };
        self.report.intervals += 1;
        let read = Exact::read(exact).and_then(|recorded| {
            let ledger = recorded.ledger(rules::unix_ns(line))?;
            Ok((recorded, ledger))
        });
        let (recorded, ledger): (Exact, Ledger) = match read {
            Ok(read) => read,
            Err(reason) => {
                self.sequence.lose_track();
                return vec![format!("its exact part cannot be read: {reason}")];
            }
        };
        if let Some(intervals) = ledger.rollup {
            self.report.rollups.0 += 1;
            self.report.runs.add(&ledger);
            self.report.rollups.1 = self.report.rollups.1.saturating_add(intervals);
        }
        let mut failures = laws::check(&recorded, &ledger);
        let (new_trace, out_of_sequence) = self.sequence.sample(&ledger, &line["metrics"]);
        self.report.traces += u64::from(new_trace);
        failures.extend(out_of_sequence);
        let found = &line["metrics"];
        match self.sequence.expected_metrics(&ledger) {
            Expected::Own => {
                let memory = self.sequence.machine_memory();
                failures.extend(metrics::check(&found["cpu"], &ledger, memory));
                failures.extend(metrics::check_gpu(found.get("gpu"), &ledger));
            }
            Expected::Repeated(metrics) => {
                metrics::compare("metrics, which a short interval repeats", metrics, found, &mut failures);
            }
            Expected::Unknown => {}
        }
        failures
    }

    fn keep(&mut self, mut what: Vec<String>, keep: usize, lines: &Lines) {
        if what.is_empty() {
            return;
        }
        self.report.failed_lines += 1;
        if self.report.failures.len() < keep {
            let more = what.len().saturating_sub(PER_LINE);
            what.truncate(PER_LINE);
            self.report.failures.push(Failure {
                path: lines.path().to_owned(),
                line: lines.number(),
                what,
                more,
            });
        }
    }
}
