//! What a line is: the one place that decides it.

use std::borrow::Cow;

use jiff::tz::TimeZone;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, value::RawValue};

use super::{date::unix_ns, event::Event, exact::Exact, names::SEGMENT_END};
use crate::{attribution::ledger::Ledger, interval::Identity};

/// What a line is, by its outer form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A segment ends.
    SegmentEnd,
    /// A sample, with or without an exact part.
    Sample,
    /// The sample before it, said again.
    Repeat,
    /// Something that happened between intervals.
    Event,
    /// The event that is the first line of a file of a log that was rotated.
    Continues,
    /// Something without a date that is not an event.
    Undated,
    /// A line without meaning, such as another text.
    Nothing,
    /// A list: AIPowerMeter's reader passes over it, and neither tool writes one.
    List,
    /// Not a line of a log.
    Foreign,
}

/// An object, as far as its kind depends on it.
#[derive(Deserialize)]
struct Outside<'a> {
    date: Option<IgnoredAny>,
    #[serde(borrow)]
    metrics: Option<&'a RawValue>,
    #[serde(borrow)]
    dlpm: Option<&'a RawValue>,
}

/// The mark of an event in an exact part.
#[derive(Deserialize)]
struct Mark {
    event: Option<String>,
}

impl Kind {
    /// What a line is that was read as a value.
    pub fn of_value(line: &Value) -> Self {
        match line {
            Value::String(text) => Self::of_text(text),
            Value::Array(_) => Self::List,
            Value::Object(line) => {
                let dated = line.get("date").is_some_and(|date| !date.is_null());
                let metrics = line
                    .get("metrics")
                    .map(|metrics| metrics.as_object().is_some_and(|all| all.is_empty()));
                let exact = line.get("dlpm").map(|exact| exact.get("event").and_then(Value::as_str));
                Self::of_object(dated, metrics, exact)
            }
            _ => Self::Foreign,
        }
    }

    /// What a line is; it is read no further than that needs.
    ///
    /// # Errors
    ///
    /// Why it is not JSON: maybe it is not whole.
    pub fn of_line(line: &[u8]) -> Result<Self, String> {
        let not_json = |error: &dyn std::fmt::Display| error.to_string();
        let line = str::from_utf8(line).map_err(|error| not_json(&error))?.trim_ascii();
        match line.as_bytes().first() {
            None => Ok(Self::Nothing),
            Some(b'"') => {
                let text: String = serde_json::from_str(line).map_err(|error| not_json(&error))?;
                Ok(Self::of_text(&text))
            }
            Some(b'{') => {
                let line: Outside = serde_json::from_str(line).map_err(|error| not_json(&error))?;
                let mark: Option<Option<Mark>> = line.dlpm.map(|exact| serde_json::from_str(exact.get()).ok());
                let event = mark.as_ref().map(|mark| mark.as_ref()?.event.as_deref());
                Ok(Self::of_object(line.date.is_some(), line.metrics.map(is_empty), event))
            }
            first => {
                serde_json::from_str::<IgnoredAny>(line).map_err(|error| not_json(&error))?;
                Ok(if first == Some(&b'[') {
                    Self::List
                } else {
                    Self::Foreign
                })
            }
        }
    }

    fn of_text(text: &str) -> Self {
        if text == SEGMENT_END {
            Self::SegmentEnd
        } else {
            Self::Nothing
        }
    }

    /// What an object is: whether it has a date, whether its metrics are empty, if it has some, and the event that its
    /// exact part is about, if it has one.
    fn of_object(dated: bool, metrics_empty: Option<bool>, exact: Option<Option<&str>>) -> Self {
        match (metrics_empty, exact, dated) {
            (None, ..) => Self::Foreign,
            (_, Some(Some("repeat")), _) => Self::Repeat,
            (_, Some(Some("continues")), _) => Self::Continues,
            (_, Some(Some(_)), _) => Self::Event,
            (_, _, true) => Self::Sample,
            (Some(true), None, false) => Self::Nothing,
            _ => Self::Undated,
        }
    }
}

fn is_empty(metrics: &RawValue) -> bool {
    let inside = metrics.get().strip_prefix('{');
    inside.is_some_and(|rest| rest.trim_ascii_start() == "}")
}

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
    dlpm: Option<Exact<'a>>,
}

/// A line with an event.
#[derive(Deserialize)]
struct EventLine {
    #[serde(rename = "metrics")]
    _metrics: IgnoredAny,
    dlpm: Event,
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
    let text = str::from_utf8(line).map_err(|error| not_json(&error))?.trim_ascii();
    // Nearly all lines are intervals: these are read once.
    let sample = text.starts_with('{').then(|| serde_json::from_str::<Sample>(text));
    let error = match sample {
        Some(Ok(sample)) => return sample.line(timezone).map_err(Wrong::Line),
        Some(Err(error)) => Some(error),
        None => None,
    };
    match Kind::of_line(text.as_bytes()) {
        Ok(Kind::SegmentEnd) => Ok(LogLine::SegmentEnd),
        Ok(Kind::Nothing | Kind::List) => Ok(LogLine::Nothing),
        Ok(Kind::Event | Kind::Repeat | Kind::Continues) => match serde_json::from_str::<EventLine>(text) {
            Ok(event) => Ok(LogLine::Event(event.dlpm)),
            Err(error) => Err(Wrong::Line(format!("its event cannot be read: {error}"))),
        },
        Ok(kind) => {
            let what = match kind {
                Kind::Sample => "its exact part cannot be read",
                _ => "it is neither a sample nor an event",
            };
            let why = error.map(|error| format!(": {error}")).unwrap_or_default();
            Err(Wrong::Line(format!("{what}{why}")))
        }
        Err(why) => Err(Wrong::NotJson(why)),
    }
}

impl<'a> Sample<'a> {
    fn line(self, timezone: &TimeZone) -> Result<LogLine<'a>, String> {
        let metrics = self.metrics;
        let kind = Kind::of_object(
            self.date.is_some(),
            Some(is_empty(metrics)),
            self.dlpm.as_ref().map(|_| None),
        );
        let Some(date) = self.date else {
            return match kind {
                Kind::Nothing => Ok(LogLine::Nothing),
                _ => Err("it has no date".to_owned()),
            };
        };
        let date = unix_ns(&date, timezone)?;
        let Some(exact) = self.dlpm else {
            return Ok(LogLine::Foreign(Foreign { unix_ns: date, metrics }));
        };
        let read = exact
            .checked()
            .and_then(|exact| Ok((exact.identity, exact.ledger(date)?)));
        let (identity, ledger) = read.map_err(|why| format!("its exact part cannot be read: {why}"))?;
        Ok(LogLine::Interval(Box::new(Interval {
            ledger,
            identity,
            metrics,
        })))
    }
}
