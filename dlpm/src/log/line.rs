//! Lines that are to be written.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    event::{Event, EventPart},
    names::SEGMENT_END,
};
use crate::attribution::ledger::Ledger;

/// What a line is, which is all that the writer has to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// A dated line. `None` if it stands for no interval of its own.
    Sample(Option<SampleFacts>),
    /// A line without date and metrics.
    Event,
    /// The end of a segment.
    SegmentEnd,
    /// Not a line: the file ends here, and the log goes on in another.
    Rotation,
}

/// What remains of a sample that has to be dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SampleFacts {
    /// Sequence number of the interval.
    pub seq: u64,
    /// CPU time of all rows but `idle`.
    pub cpu_ns: u64,
    /// µJ of every zone, roots and leaves, that is known.
    pub zones_uj: BTreeMap<String, u64>,
}

impl SampleFacts {
    /// The facts of a ledger.
    pub fn of(ledger: &Ledger) -> Self {
        Self {
            seq: ledger.seq,
            cpu_ns: ledger.cpus.iter().fold(0, |sum: u64, cpu| {
                sum.saturating_add(cpu.busy_ns).saturating_add(cpu.lost_ns)
            }),
            zones_uj: ledger
                .zones()
                .filter_map(|zone| Some((zone.zone.to_owned(), zone.known_uj()?)))
                .collect(),
        }
    }
}

/// One line, with its newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is.
    pub kind: LineKind,
    text: String,
}

impl Line {
    /// A line that holds `value` as JSON.
    ///
    /// # Errors
    ///
    /// If `value` cannot be written as JSON, which the types of this crate rule out.
    pub fn new(kind: LineKind, value: &impl Serialize) -> serde_json::Result<Self> {
        let mut text = serde_json::to_string(value)?;
        text.push('\n');
        Ok(Self { kind, text })
    }

    /// A line without date and metrics, which AIPowerMeter's reader passes over.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn event(event: &Event) -> serde_json::Result<Self> {
        let line = EventLine {
            metrics: Empty {},
            dlpm: EventPart::of(event),
        };
        Self::new(LineKind::Event, &line)
    }

    /// The line that ends a segment.
    pub fn segment_end() -> Self {
        Self {
            kind: LineKind::SegmentEnd,
            text: format!("\"{SEGMENT_END}\"\n"),
        }
    }

    /// The place where a file ends.
    pub fn rotation() -> Self {
        Self {
            kind: LineKind::Rotation,
            text: String::new(),
        }
    }

    /// The line with its newline.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A dated line.
#[derive(Debug, Serialize)]
pub struct SampleLine<M, E> {
    /// End of the interval.
    pub date: String,
    /// AIPowerMeter's fields.
    pub metrics: M,
    /// The exact part.
    pub dlpm: E,
}

#[derive(Serialize)]
struct EventLine<'a> {
    metrics: Empty,
    dlpm: EventPart<'a>,
}

#[derive(Serialize)]
struct Empty {}
