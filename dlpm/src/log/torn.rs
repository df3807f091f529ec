//! The end of a log that was being written when its trace ended.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    date::later,
    event::{Event, EventPart},
    line::{Line, LineKind, SampleLine},
    names::REPEAT_AFTER_NS,
};

/// Whether a line can be the beginning of one of ours, or zeros that a power cut left in its place.
pub fn looks_torn(line: &[u8]) -> bool {
    line.starts_with(b"{\"") || line.starts_with(b"\"") || line.trim_ascii() == b"{" || line.contains(&0)
}

#[derive(Deserialize)]
struct Sample<'a> {
    date: String,
    #[serde(borrow)]
    metrics: &'a RawValue,
    dlpm: Numbered,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

/// The line that says a sample again, which a segment of one sample needs before its end (see
/// [`REPEAT_AFTER_NS`]); `None` where it is not one of dlpm's.
pub fn again(line: &[u8]) -> Option<Line> {
    let sample: Sample = serde_json::from_slice(line).ok()?;
    let repeat = Event::Repeat { seq: sample.dlpm.seq };
    let line = SampleLine {
        date: later(&sample.date, REPEAT_AFTER_NS)?,
        metrics: sample.metrics,
        dlpm: EventPart::of(&repeat),
    };
    Line::new(LineKind::Sample(None), &line).ok()
}
