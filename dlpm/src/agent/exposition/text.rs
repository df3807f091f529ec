//! The two text formats: how a family of series is written.
//!
//! OpenMetrics 1.0 (<https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>) and version
//! 0.0.4 of Prometheus's text format. The encoder of the crate `prometheus-client` takes values as floats and knows the
//! first format alone; here joules are written from integers, so that no digit is lost.

use std::io::Write as _;

use super::{
    Format,
    page::{Family, Labels, Type, Value},
};

/// A text that grows.
#[derive(Debug)]
pub(super) struct Writer {
    is_open_metrics: bool,
    text: Vec<u8>,
    /// The name of the series of the family that is being written.
    name: (&'static str, &'static str),
}

impl Writer {
    pub(super) fn new(format: Format, capacity: usize) -> Self {
        Self {
            is_open_metrics: format == Format::OpenMetrics,
            text: Vec::with_capacity(capacity),
            name: ("", ""),
        }
    }

    pub(super) fn family(&mut self, family: Family) {
        let suffix = family.kind.suffix();
        let (suffix_of_name, kind) = match (self.is_open_metrics, family.kind) {
            (true, Type::Info) => ("", "info"),
            // The older format has no suffixes: they are part of the name. Nor has it this type.
            (false, Type::Info) => (suffix, "gauge"),
            (true, Type::Counter) => ("", "counter"),
            (false, Type::Counter) => (suffix, "counter"),
            (_, Type::Gauge) => ("", "gauge"),
        };
        let (name, help) = (family.name, family.help);
        self.line(format_args!("# HELP {name}{suffix_of_name} {help}"));
        self.line(format_args!("# TYPE {name}{suffix_of_name} {kind}"));
        if let (true, Some(unit)) = (self.is_open_metrics, family.unit) {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        self.name = (name, suffix);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing into memory cannot fail.
        let _ = self.text.write_fmt(line);
        self.text.push(b'\n');
    }

    pub(super) fn put(&mut self, labels: &[&Labels], value: Value) {
        let text = &mut self.text;
        text.extend_from_slice(self.name.0.as_bytes());
        text.extend_from_slice(self.name.1.as_bytes());
        let mut first = true;
        for label in labels.iter().filter(|label| !label.0.is_empty()) {
            text.push(if first { b'{' } else { b',' });
            text.extend_from_slice(&label.0);
            first = false;
        }
        if !first {
            text.push(b'}');
        }
        text.push(b' ');
        value.write(text);
        text.push(b'\n');
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.is_open_metrics {
            self.text.extend_from_slice(b"# EOF\n");
        }
        self.text
    }
}

/// Adds `name="value"`, after a comma if it is not the first.
pub(super) fn label(text: &mut Vec<u8>, name: &'static str, value: &str) {
    if !text.is_empty() {
        text.push(b',');
    }
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b"=\"");
    for character in value.chars() {
        match character {
            '\\' => text.extend_from_slice(b"\\\\"),
            '"' => text.extend_from_slice(b"\\\""),
            '\n' => text.extend_from_slice(b"\\n"),
            character if crate::printable::is_printable(character) => {
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            // Labels are printable when they get here. A line break of another kind would end the line.
            _ => text.push(b'?'),
        }
    }
    text.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::{exposition::page::Page, facts::Snapshot};

    fn page(format: Format) -> Page {
        Page::new(format, &Snapshot::default(), "", 0)
    }

    proptest! {
        #[test]
        fn a_label_stays_in_its_quotes(value: String) {
            let labels = page(Format::Text).labels([("name", value.as_str())]);
            let text = String::from_utf8(labels.0).unwrap();
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
        let mut page = page(Format::Text);
        let family = Family {
            name: "x_seconds",
            unit: Some("seconds"),
            kind: Type::Counter,
            help: "Time.",
        };
        let [none, a, b] = [&[][..], &[("a", "1")], &[("b", "2")]].map(|pairs| page.labels(pairs.iter().copied()));
        let mut series = page.family(family);
        series.put(&[], Value::Count(1));
        series.put(&[&none, &a, &none, &b], Value::Count(2));
        let text = String::from_utf8(page.finish()).unwrap();
        assert_eq!(
            text,
            "# HELP x_seconds_total Time.\n# TYPE x_seconds_total counter\nx_seconds_total 1\n\
             x_seconds_total{a=\"1\",b=\"2\"} 2\n"
        );
    }

    #[test]
    fn open_metrics_has_units_and_an_end() {
        let mut page = page(Format::OpenMetrics);
        let family = |name, unit, kind| Family {
            name,
            unit,
            kind,
            help: "Help.",
        };
        page.family(family("x_joules", Some("joules"), Type::Counter))
            .put(&[], Value::micro(1));
        page.family(family("y", None, Type::Info))
            .put_with([("a", "1")], Value::Count(1));
        let text = String::from_utf8(page.finish()).unwrap();
        assert_eq!(
            text,
            "# HELP x_joules Help.\n# TYPE x_joules counter\n# UNIT x_joules joules\nx_joules_total 0.000001\n\
             # HELP y Help.\n# TYPE y info\ny_info{a=\"1\"} 1\n# EOF\n"
        );
    }
}
