//! The two text formats: how a family of series is written.
//!
//! OpenMetrics 1.0 (<https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>) and version
//! 0.0.4 of Prometheus's text format. The encoder of the crate `prometheus-client` takes values as floats and knows the
//! first format alone; here joules are written from integers, so that no digit is lost.

use std::fmt::Write as _;

use super::Format;

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

/// A family of series. The name has no suffix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) unit: Option<&'static str>,
    pub(super) kind: Type,
    pub(super) help: &'static str,
}

/// A value of a series. Decimals are written whole, never rounded.
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
}

/// An exposition that grows.
#[derive(Debug)]
pub(super) struct Page {
    format: Format,
    text: String,
}

impl Page {
    pub(super) fn new(format: Format, capacity: usize) -> Self {
        Self {
            format,
            text: String::with_capacity(capacity),
        }
    }

    /// Begins a family: its series follow by [`Series::put`], and no other family's between them.
    pub(super) fn family(&mut self, family: Family) -> Series<'_> {
        let suffix = match family.kind {
            Type::Counter => "_total",
            Type::Gauge => "",
            Type::Info => "_info",
        };
        let (suffix_of_name, kind) = match (self.format, family.kind) {
            (Format::OpenMetrics, Type::Info) => ("", "info"),
            // The older format has no suffixes: they are part of the name. Nor has it this type.
            (Format::Text, Type::Info) => (suffix, "gauge"),
            (Format::OpenMetrics, Type::Counter) => ("", "counter"),
            (Format::Text, Type::Counter) => (suffix, "counter"),
            (_, Type::Gauge) => ("", "gauge"),
        };
        let (name, help) = (family.name, family.help);
        self.line(format_args!("# HELP {name}{suffix_of_name} {help}"));
        self.line(format_args!("# TYPE {name}{suffix_of_name} {kind}"));
        if let (Format::OpenMetrics, Some(unit)) = (self.format, family.unit) {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        Series {
            page: self,
            name,
            suffix,
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing into a string cannot fail.
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text.into_bytes()
    }
}

/// A family that is being written.
pub(super) struct Series<'a> {
    page: &'a mut Page,
    name: &'static str,
    suffix: &'static str,
}

impl Series<'_> {
    /// One series with these labels, as [`labels`] writes them. It may be called several times: `labels` joins them.
    pub(super) fn put(&mut self, labels: &[&str], value: Value) {
        let text = &mut self.page.text;
        text.push_str(self.name);
        text.push_str(self.suffix);
        let mut first = true;
        for label in labels.iter().filter(|label| !label.is_empty()) {
            text.push(if first { '{' } else { ',' });
            text.push_str(label);
            first = false;
        }
        if !first {
            text.push('}');
        }
        text.push(' ');
        number(text, value);
        text.push('\n');
    }
}

fn number(text: &mut String, value: Value) {
    let (number, digits, unit) = match value {
        Value::Count(count) => (i128::from(count), 0, 1),
        Value::Micro(number) => (number, 6, 1_000_000),
        Value::Nano(number) => (number, 9, 1_000_000_000),
    };
    let (whole, fraction) = (number.unsigned_abs() / unit, number.unsigned_abs() % unit);
    let sign = if number < 0 { "-" } else { "" };
    let _ = write!(text, "{sign}{whole}");
    if fraction > 0 {
        let _ = write!(text, ".{fraction:0digits$}");
        text.truncate(text.trim_end_matches('0').len());
    }
}

/// `name="value"` for each, joined by commas. Names are this program's own; values are anybody's.
pub(super) fn labels<'a>(pairs: impl IntoIterator<Item = (&'static str, &'a str)>) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                character if crate::printable::is_printable(character) => text.push(character),
                // Labels are printable when they get here. A line break of another kind would end the line.
                _ => text.push('?'),
            }
        }
        text.push('"');
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: Value) -> String {
        let mut text = String::new();
        number(&mut text, value);
        text
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

        #[test]
        fn a_label_stays_in_its_quotes(value: String) {
            let text = labels([("name", value.as_str())]);
            prop_assert_eq!(text.lines().count(), 1);
            let inside = text.strip_prefix("name=\"").unwrap().strip_suffix('"').unwrap();
            let mut characters = inside.chars();
            while let Some(character) = characters.next() {
                prop_assert_ne!(character, '"');
                if character == '\\' {
                    prop_assert!(matches!(characters.next(), Some('\\' | '"' | 'n')));
                }
            }
        }
    }

    #[test]
    fn labels_are_joined() {
        let mut page = Page::new(Format::Text, 0);
        let family = Family {
            name: "x_seconds",
            unit: Some("seconds"),
            kind: Type::Counter,
            help: "Time.",
        };
        let mut series = page.family(family);
        series.put(&[], Value::Count(1));
        series.put(&["", "a=\"1\"", "", "b=\"2\""], Value::Count(2));
        let text = String::from_utf8(page.finish()).unwrap();
        assert_eq!(
            text,
            "# HELP x_seconds_total Time.\n# TYPE x_seconds_total counter\nx_seconds_total 1\n\
             x_seconds_total{a=\"1\",b=\"2\"} 2\n"
        );
    }

    #[test]
    fn open_metrics_has_units_and_an_end() {
        let mut page = Page::new(Format::OpenMetrics, 0);
        let family = |name, unit, kind| Family {
            name,
            unit,
            kind,
            help: "Help.",
        };
        page.family(family("x_joules", Some("joules"), Type::Counter))
            .put(&[], Value::micro(1));
        page.family(family("y", None, Type::Info))
            .put(&["a=\"1\""], Value::Count(1));
        let text = String::from_utf8(page.finish()).unwrap();
        assert_eq!(
            text,
            "# HELP x_joules Help.\n# TYPE x_joules counter\n# UNIT x_joules joules\nx_joules_total 0.000001\n\
             # HELP y Help.\n# TYPE y info\ny_info{a=\"1\"} 1\n# EOF\n"
        );
    }
}
