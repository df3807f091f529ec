//! Goes through a log, interval by interval, on one axis.

use std::{collections::BTreeSet, path::Path};

use serde_json::value::RawValue;

use super::timeline::{Span, Timeline};
use crate::{
    attribution::ledger::Ledger,
    log::{LogError, LogLine, LogReader, PassedOver, window::Window},
    printable::printable,
    sources::timezone::local,
};

/// What an interval says.
#[derive(Clone, Copy, Debug)]
pub enum Sample<'a> {
    /// An interval of dlpm, with AIPowerMeter's fields, not parsed.
    Exact(&'a Ledger, &'a RawValue),
    /// A sample that AIPowerMeter wrote.
    Foreign(&'a RawValue),
}

/// Why a window holds no interval of a log that has some.
pub fn nothing(window: &Window, timeline: &Timeline) -> String {
    let (phases, _) = timeline.phases();
    if let Some(phase) = &window.phase
        && !phases.iter().any(|(label, ..)| label == phase)
    {
        let labels: BTreeSet<String> = phases.into_iter().map(|(label, ..)| printable(&label)).collect();
        let labels: Vec<String> = labels.into_iter().collect();
        if labels.is_empty() {
            return "the log has no phases: mark them with `dlpm mark` while the trace runs".to_owned();
        }
        return format!(
            "there is no phase `{}` in the log: it has {}",
            printable(phase),
            labels.join(", ")
        );
    }
    "no interval ends in that window: leave out --from, --to and --phase to see what the log has".to_owned()
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Scanned {
    /// Lines, but for a torn one at the end.
    pub lines: u64,
    /// The axis, with its phases.
    pub timeline: Timeline,
    /// From the first to the last interval that was wanted.
    pub wanted: Option<Span>,
    /// What was passed over.
    pub passed_over: PassedOver,
}

/// Hands every interval in the window to `each`, with its place on the axis. Reads `most_lines` lines at most: a second
/// reading of a log that grows sees what the first one saw.
///
/// # Errors
///
/// [`LogError`].
pub fn scan(
    path: &Path,
    window: &Window,
    most_lines: u64,
    each: impl FnMut(Sample<'_>, Span),
) -> Result<Scanned, LogError> {
    scan_lines(path, window, most_lines, |_| Ok(()), each)
}

/// Hands every line to `on_line` as well.
///
/// # Errors
///
/// [`LogError`]; what `on_line` finds wrong is about its line.
pub fn scan_lines(
    path: &Path,
    window: &Window,
    most_lines: u64,
    mut on_line: impl FnMut(&LogLine<'_>) -> Result<(), String>,
    mut each: impl FnMut(Sample<'_>, Span),
) -> Result<Scanned, LogError> {
    let timezone = &local().timezone;
    let mut reader = LogReader::open(path)?;
    let mut scanned = Scanned::default();
    while reader.number() < most_lines {
        let Some(line) = reader.next_line()? else { break };
        scanned.lines += 1;
        let read = on_line(&line);
        let timeline = &mut scanned.timeline;
        let wants = |end_unix_ns: i64, timeline: &Timeline| {
            let in_phase = |phase: &String| timeline.open_phases().any(|open| open == phase);
            window.phase.as_ref().is_none_or(in_phase)
                && window.holds(end_unix_ns, timeline.origin_unix_ns().unwrap_or(end_unix_ns), timezone)
        };
        match line {
            LogLine::Interval(interval) => {
                let span = timeline.interval(&interval.ledger);
                if wants(interval.ledger.end_unix_ns, timeline) {
                    join(&mut scanned.wanted, span);
                    each(Sample::Exact(&interval.ledger, interval.metrics), span);
                }
            }
            LogLine::Foreign(sample) => {
                if let Some(span) = timeline.foreign(sample.unix_ns)
                    && wants(sample.unix_ns, timeline)
                {
                    join(&mut scanned.wanted, span);
                    each(Sample::Foreign(sample.metrics), span);
                }
            }
            LogLine::Event(event) => timeline.event(&event),
            LogLine::SegmentEnd => timeline.segment_end(),
            LogLine::Nothing => {}
        }
        if let Err(why) = read {
            return Err(reader.error(why));
        }
    }
    scanned.passed_over = reader.passed_over();
    Ok(scanned)
}

fn join(all: &mut Option<Span>, span: Span) {
    *all = Some(Span {
        begin_ns: all.map_or(span.begin_ns, |all| all.begin_ns),
        end_ns: span.end_ns,
    });
}
