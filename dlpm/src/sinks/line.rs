//! Lines of `power_metrics.json`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::attribution::ledger::Ledger;

/// Ends a segment; AIPowerMeter's reader compares with exactly this string.
pub const SEGMENT_END: &str = "END OF RECORDING SEGMENT";

/// Version of the layout of the `dlpm` object.
pub const SCHEMA: u32 = 1;

/// What a line is, which is all that the writer has to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// A dated line. `None` if it stands for no interval of its own.
    Sample(Option<SampleFacts>),
    /// A line without date and metrics.
    Event,
    /// The end of a segment.
    SegmentEnd,
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
        let roots = ledger.roots.iter().map(|root| (&root.zone, &root.energy_uj));
        let leaves = ledger.leaves.iter().map(|leaf| (&leaf.zone, &leaf.energy_uj));
        Self {
            seq: ledger.seq,
            cpu_ns: ledger.cpus.iter().fold(0, |sum: u64, cpu| {
                sum.saturating_add(cpu.busy_ns).saturating_add(cpu.lost_ns)
            }),
            zones_uj: roots
                .chain(leaves)
                .filter_map(|(zone, energy_uj)| Some((zone.clone(), *energy_uj.as_ref().ok()?)))
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

    /// A line without date and metrics, which AIPowerMeter's reader passes over: `event` is the name of what
    /// happened, `details` an object of what there is to say about it.
    ///
    /// # Errors
    ///
    /// If `details` cannot be written as JSON.
    pub fn event(event: &str, details: &impl Serialize) -> serde_json::Result<Self> {
        Self::new(
            LineKind::Event,
            &EventLine {
                metrics: Empty {},
                dlpm: Event {
                    schema: SCHEMA,
                    event,
                    details,
                },
            },
        )
    }

    /// The line that ends a segment.
    pub fn segment_end() -> Self {
        Self {
            kind: LineKind::SegmentEnd,
            text: format!("\"{SEGMENT_END}\"\n"),
        }
    }

    /// The line with its newline.
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[derive(Serialize)]
struct EventLine<'a, T> {
    metrics: Empty,
    dlpm: Event<'a, T>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Event<'a, T> {
    schema: u32,
    event: &'a str,
    #[serde(flatten)]
    details: &'a T,
}
