//! The page that families of series are written to, whatever its format.

use std::io::Write as _;

use super::{Format, otlp, text};
use crate::agent::facts::Snapshot;

/// What a family of series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// It never falls.
    Counter,
    /// It may fall.
    Gauge,
    /// Labels, and the value 1.
    Info,
}

impl Type {
    /// What the names of its series end with.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Gauge => "",
            Self::Info => "_info",
        }
    }
}

/// A family of series. The name has no suffix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) unit: Option<&'static str>,
    pub(super) kind: Type,
    pub(super) help: &'static str,
}

/// A value of a series.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    /// A number of things.
    Count(u64),
    /// Millionths: µJ as joules.
    Micro(i128),
    /// Billionths: ns as seconds.
    Nano(i128),
}

impl Value {
    pub(super) fn micro(number: u64) -> Self {
        Self::Micro(number.into())
    }

    pub(super) fn nano(number: u64) -> Self {
        Self::Nano(number.into())
    }

    /// Whole, never rounded, as a decimal.
    pub(super) fn write(self, text: &mut Vec<u8>) {
        let (number, digits, unit) = match self {
            Self::Count(count) => (i128::from(count), 0, 1),
            Self::Micro(number) => (number, 6, 1_000_000),
            Self::Nano(number) => (number, 9, 1_000_000_000),
        };
        let (whole, fraction) = (number.unsigned_abs() / unit, number.unsigned_abs() % unit);
        let sign = if number < 0 { "-" } else { "" };
        // Writing into memory cannot fail.
        let _ = write!(text, "{sign}{whole}");
        if fraction > 0 {
            let _ = write!(text, ".{fraction:0digits$}");
            while text.pop_if(|digit| *digit == b'0').is_some() {}
        }
    }
}

/// Some labels of a series, in the form of one page. They are written once for all series that have them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels(pub(super) Vec<u8>);

/// A page that grows.
#[derive(Debug)]
pub(super) enum Page {
    Text(text::Writer),
    Otlp(otlp::Writer),
}

impl Page {
    /// An empty one. `version` is the one of dlpm, `capacity` is in bytes.
    pub(super) fn new(format: Format, snapshot: &Snapshot, version: &str, capacity: usize) -> Self {
        match format {
            Format::OpenMetrics | Format::Text => Self::Text(text::Writer::new(format, capacity)),
            Format::Otlp => Self::Otlp(otlp::Writer::new(snapshot, version, capacity)),
        }
    }

    /// These labels. Names are this program's own; values are anybody's.
    pub(super) fn labels<'a>(&self, pairs: impl IntoIterator<Item = (&'static str, &'a str)>) -> Labels {
        let mut labels = Labels::default();
        for (name, value) in pairs {
            match self {
                Self::Text(_) => text::label(&mut labels.0, name, value),
                Self::Otlp(_) => otlp::label(&mut labels.0, name, value),
            }
        }
        labels
    }

    /// Begins a family: its series follow by [`Series::put`], and no other family's between them.
    pub(super) fn family(&mut self, family: Family) -> Series<'_> {
        let since_unix_ns = match self {
            Self::Text(writer) => {
                writer.family(family);
                0
            }
            Self::Otlp(writer) => writer.family(family),
        };
        Series {
            page: self,
            since_unix_ns,
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        match self {
            Self::Text(writer) => writer.finish(),
            Self::Otlp(writer) => writer.finish(),
        }
    }
}

/// A family that is being written.
pub(super) struct Series<'a> {
    page: &'a mut Page,
    since_unix_ns: i64,
}

impl Series<'_> {
    /// When the counters that follow were 0: ns since 1970. Without this they count since the first interval.
    pub(super) fn since(&mut self, unix_ns: i64) -> &mut Self {
        self.since_unix_ns = unix_ns;
        self
    }

    /// One series with these labels: those of each element, one after another.
    pub(super) fn put(&mut self, labels: &[&Labels], value: Value) {
        match self.page {
            Page::Text(writer) => writer.put(labels, value),
            Page::Otlp(writer) => writer.put(labels, value, self.since_unix_ns),
        }
    }

    /// One series with these labels.
    pub(super) fn put_with<'a>(&mut self, pairs: impl IntoIterator<Item = (&'static str, &'a str)>, value: Value) {
        let labels = self.page.labels(pairs);
        self.put(&[&labels], value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: Value) -> String {
        let mut text = Vec::new();
        value.write(&mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn numbers_are_written_whole() {
        for (value, text) in [
            (Value::Count(0), "0"),
            (Value::Count(1_000), "1000"),
            (Value::micro(0), "0"),
            (Value::micro(1), "0.000001"),
            (Value::micro(1_500_000), "1.5"),
            (Value::micro(10_000_000), "10"),
            (Value::micro(u64::MAX), "18446744073709.551615"),
            (Value::Micro(-1), "-0.000001"),
            (Value::nano(1_000_000_010), "1.00000001"),
        ] {
            assert_eq!(written(value), text);
        }
    }

    proptest! {
        #[test]
        fn no_digit_is_lost(micro: u64) {
            let text = written(Value::micro(micro));
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            let read: u128 = format!("{whole}{fraction:0<6}").parse().unwrap();
            prop_assert_eq!(read, u128::from(micro));
        }
    }
}
