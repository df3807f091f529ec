//! What a line is.

use std::borrow::Cow;

use jiff::tz::TimeZone;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{date::unix_ns, event::Event};
use crate::{attribution::ledger::Ledger, interval::Identity, sinks::line::SEGMENT_END, verify::record::Recorded};

/// A line of a log. What is borrowed is a piece of it.
#[derive(Debug)]
pub enum LogLine<'a> {
    /// An interval.
    Interval(Box<Interval<'a>>),
    /// Something that happened between intervals.
    Event(Event),
    /// A segment ends.
    SegmentEnd,
    /// A sample without exact part: AIPowerMeter wrote it.
    Foreign(Foreign<'a>),
    /// A line without meaning, which was passed over.
    Nothing,
}

/// An interval, as dlpm wrote it.
#[derive(Debug)]
pub struct Interval<'a> {
    /// The exact part. Its `end_unix_ns` is the date, to the microsecond.
    pub ledger: Ledger,
    /// What tells processes apart.
    pub identity: Identity,
    /// AIPowerMeter's fields, not parsed.
    pub metrics: &'a RawValue,
}

/// A sample that AIPowerMeter wrote.
#[derive(Clone, Copy, Debug)]
pub struct Foreign<'a> {
    /// Its date in nanoseconds since 1970.
    pub unix_ns: i64,
    /// Its fields, not parsed.
    pub metrics: &'a RawValue,
}

/// A line with an interval, or without an exact part.
#[derive(Deserialize)]
struct Sample<'a> {
    #[serde(borrow)]
    date: Option<Cow<'a, str>>,
    #[serde(borrow)]
    metrics: &'a RawValue,
    #[serde(borrow)]
    dlpm: Option<Recorded<'a>>,
}

/// A line with an event.
#[derive(Deserialize)]
struct EventLine {
    #[serde(rename = "metrics")]
    _metrics: IgnoredAny,
    dlpm: Event,
}

/// Whether the exact part of a line is that of an event.
#[derive(Deserialize)]
struct Marked {
    #[serde(rename = "dlpm")]
    _dlpm: Mark,
}

#[derive(Deserialize)]
struct Mark {
    #[serde(rename = "event")]
    _event: IgnoredAny,
}

/// Why a line is not a line of a log.
#[derive(Debug)]
pub enum Wrong {
    /// It is not JSON: maybe not whole.
    NotJson(String),
    /// It is, and makes no sense.
    Line(String),
}

impl Wrong {
    /// A sentence.
    pub fn why(self) -> String {
        match self {
            Self::NotJson(error) => format!("it is not JSON: {error}"),
            Self::Line(why) => why,
        }
    }
}

/// Reads `line`. Dates without an offset are of `timezone`.
///
/// # Errors
///
/// [`Wrong`].
pub fn read<'a>(line: &'a [u8], timezone: &TimeZone) -> Result<LogLine<'a>, Wrong> {
    let not_json = |error: &dyn std::fmt::Display| Wrong::NotJson(error.to_string());
    let line = str::from_utf8(line).map_err(|error| not_json(&error))?.trim_ascii();
    match line.as_bytes().first() {
        None => return Ok(LogLine::Nothing),
        // AIPowerMeter's reader passes over lists and other texts.
        Some(b'"' | b'[') => {
            let text: Option<String> = serde_json::from_str(line).ok();
            if text.is_none() {
                serde_json::from_str::<IgnoredAny>(line).map_err(|error| not_json(&error))?;
            }
            return Ok(match text.as_deref() {
                Some(SEGMENT_END) => LogLine::SegmentEnd,
                _ => LogLine::Nothing,
            });
        }
        Some(_) => {}
    }
    let error = match serde_json::from_str::<Sample>(line) {
        Ok(sample) => return sample.line(timezone).map_err(Wrong::Line),
        Err(error) => error,
    };
    // Events are few and short, so that samples are not searched for a mark of them first.
    if serde_json::from_str::<Marked>(line).is_ok() {
        return match serde_json::from_str::<EventLine>(line) {
            Ok(event) => Ok(LogLine::Event(event.dlpm)),
            Err(error) => Err(Wrong::Line(format!("its event cannot be read: {error}"))),
        };
    }
    Err(if error.is_data() {
        Wrong::Line(format!("it is neither a sample nor an event: {error}"))
    } else {
        not_json(&error)
    })
}

impl<'a> Sample<'a> {
    fn line(self, timezone: &TimeZone) -> Result<LogLine<'a>, String> {
        let metrics = self.metrics;
        let is_empty = metrics
            .get()
            .strip_prefix('{')
            .is_some_and(|rest| rest.trim_ascii_start() == "}");
        let date = match self.date {
            Some(date) => unix_ns(&date, timezone)?,
            None if self.dlpm.is_none() && is_empty => return Ok(LogLine::Nothing),
            None => return Err("it has no date".to_owned()),
        };
        let Some(recorded) = self.dlpm else {
            return Ok(LogLine::Foreign(Foreign { unix_ns: date, metrics }));
        };
        let read = recorded
            .checked()
            .and_then(|recorded| Ok((recorded.identity, recorded.ledger(date)?)));
        let (identity, ledger) = read.map_err(|why| format!("its exact part cannot be read: {why}"))?;
        Ok(LogLine::Interval(Box::new(Interval {
            ledger,
            identity,
            metrics,
        })))
    }
}
