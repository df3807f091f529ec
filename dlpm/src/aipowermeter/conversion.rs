//! Lines of a log in a form that other versions of AIPowerMeter's reader take. Numbers are copied, not read.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    aipowermeter::fields::ALIASES,
    log::{Kind, Line},
    printable,
};

/// Length of `+HH:MM`.
const OFFSET_LENGTH: usize = 6;

/// What is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conversion {
    /// Dates lose their offset: the local time of the machine that wrote them remains.
    pub naive_dates: bool,
    /// The CPU field names of 2021 go.
    pub no_aliases: bool,
    /// No ends of segments, and no events, which have no date: readers before 2023-06-30 fail on both.
    pub no_marker: bool,
    /// The exact part goes, and events with it.
    pub strip_exact: bool,
}

/// What becomes of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Converted {
    /// This is written, with a newline at its end.
    Sample(String),
    /// This is written, and is not a sample.
    Other(String),
    /// A segment ends here; it is written if there is a line.
    SegmentEnd(Option<String>),
    /// Nothing is written.
    Dropped,
}

/// An object whose values are copied as they are, in their order.
#[derive(Debug, Default)]
struct Object<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    entries.push((Cow::Owned(key), Cow::Borrowed(value)));
                }
                Ok(Object(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, &**value)?;
        }
        map.end()
    }
}

impl<'a> Object<'a> {
    fn get(&self, key: &str) -> Option<&RawValue> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| &**value)
    }

    fn set(&mut self, key: &str, value: &impl Serialize) -> serde_json::Result<()> {
        let value: Cow<'a, RawValue> = Cow::Owned(to_raw_value(value)?);
        if let Some(entry) = self.0.iter_mut().find(|(known, _)| known == key) {
            entry.1 = value;
        }
        Ok(())
    }
}

impl Conversion {
    /// Whether lines stay as they are.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// What becomes of a line, which has no newline.
    ///
    /// # Errors
    ///
    /// A sentence on why it is not a line of a log.
    pub fn line(&self, line: &str) -> Result<Converted, String> {
        let line = line.trim_ascii();
        let not_json = |error: serde_json::Error| format!("it is not JSON: {error}");
        match Kind::of_line(line.as_bytes()).map_err(|error| format!("it is not JSON: {error}"))? {
            Kind::SegmentEnd => {
                let end = (!self.no_marker).then(|| Line::segment_end().text().to_owned());
                return Ok(Converted::SegmentEnd(end));
            }
            // Events, and what later versions may add.
            Kind::Event | Kind::Undated if !self.no_marker && !self.strip_exact => {
                return Ok(Converted::Other(format!("{}\n", printable::json(line))));
            }
            // Its files are one in the copy.
            Kind::Continues => return Ok(Converted::Dropped),
            Kind::Event | Kind::Undated | Kind::Nothing | Kind::List => return Ok(Converted::Dropped),
            Kind::Foreign => return Err("it is neither a sample nor an event".to_owned()),
            Kind::Sample | Kind::Repeat => {}
        }
        let mut object: Object = serde_json::from_str(line).map_err(not_json)?;
        if self.naive_dates {
            let date = object.get("date").map_or("", RawValue::get);
            let date: String = serde_json::from_str(date).map_err(not_json)?;
            object.set("date", &naive(&date)).map_err(not_json)?;
        }
        if self.no_aliases
            && let Some(metrics) = object.get("metrics").map(ToOwned::to_owned)
        {
            let mut metrics: Object = serde_json::from_str(metrics.get()).map_err(not_json)?;
            if let Some(cpu) = metrics.get("cpu").map(ToOwned::to_owned) {
                let mut cpu: Object = serde_json::from_str(cpu.get()).map_err(not_json)?;
                cpu.0
                    .retain(|(key, _)| !ALIASES.iter().any(|(alias, _)| *alias.name == **key));
                metrics.set("cpu", &cpu).map_err(not_json)?;
            }
            object.set("metrics", &metrics).map_err(not_json)?;
        }
        if self.strip_exact {
            object.0.retain(|(key, _)| key != "dlpm");
        }
        let text = serde_json::to_string(&object).map_err(not_json)?;
        Ok(Converted::Sample(format!("{}\n", printable::json(&text))))
    }
}

/// A date without its offset.
fn naive(date: &str) -> &str {
    let sign_at = date.len().saturating_sub(OFFSET_LENGTH);
    match date.as_bytes().get(sign_at) {
        Some(b'+' | b'-') if date.len() > "YYYY-MM-DD".len() + OFFSET_LENGTH => date.get(..sign_at).unwrap_or(date),
        _ => date.strip_suffix('Z').unwrap_or(date),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::test_logs::{eventful, logs};

    const LINE: &str = r#"{"date":"2026-01-01 01:00:07.000000+01:00","metrics":{"cpu":{"per_process_cpu_uses":{"7":0.30000000000000004},"intel_power":1e1,"cpu_uses":{"7":0.3}},"gpu":{"sm":{}}},"dlpm":{"schema":1}}"#;

    fn converted(conversion: Conversion, line: &str) -> String {
        match conversion.line(line).unwrap() {
            Converted::Sample(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_was_asked_for_changes() {
        let none = Conversion::default();
        assert!(none.is_nothing());
        assert_eq!(converted(none, LINE), format!("{LINE}\n"));
        let naive_dates = Conversion {
            naive_dates: true,
            ..none
        };
        assert_eq!(
            converted(naive_dates, LINE),
            format!("{}\n", LINE.replace("+01:00", ""))
        );
        let no_aliases = Conversion {
            no_aliases: true,
            ..none
        };
        assert_eq!(
            converted(no_aliases, LINE),
            format!("{}\n", LINE.replace(r#","cpu_uses":{"7":0.3}"#, ""))
        );
        let strip_exact = Conversion {
            strip_exact: true,
            ..none
        };
        assert_eq!(
            converted(strip_exact, LINE),
            format!("{}\n", LINE.replace(r#","dlpm":{"schema":1}"#, ""))
        );
    }

    #[test]
    fn lines_without_a_date_go_with_what_they_are_about() {
        let event = "{\"metrics\":{},\"dlpm\":{\"schema\":1,\"event\":\"gap\"}}";
        let end = "\"END OF RECORDING SEGMENT\"";
        let none = Conversion::default();
        let no_marker = Conversion {
            no_marker: true,
            ..none
        };
        let strip_exact = Conversion {
            strip_exact: true,
            ..none
        };
        assert_eq!(none.line(event), Ok(Converted::Other(format!("{event}\n"))));
        assert_eq!(none.line(end), Ok(Converted::SegmentEnd(Some(format!("{end}\n")))));
        assert_eq!(no_marker.line(event), Ok(Converted::Dropped));
        assert_eq!(no_marker.line(end), Ok(Converted::SegmentEnd(None)));
        assert_eq!(strip_exact.line(event), Ok(Converted::Dropped));
        assert!(none.line("{\"date\"").is_err_and(|error| error.contains("not JSON")));
    }

    #[test]
    fn dates_lose_their_offset() {
        assert_eq!(naive("2026-01-01 00:00:00.000000-05:30"), "2026-01-01 00:00:00.000000");
        assert_eq!(naive("2026-01-01T00:00:00Z"), "2026-01-01T00:00:00");
        for plain in [
            "2026-01-01 00:00:00.000000",
            "2026-01-01 00:00:00",
            "2026-01-01",
            "",
            "é",
        ] {
            assert_eq!(naive(plain), plain);
        }
    }

    /// What is not asked for is not changed by a digit.
    #[test]
    fn whole_logs_stay_the_same() {
        for log in logs().iter().chain([&eventful()]) {
            let same: String = log
                .lines()
                .map(|line| match Conversion::default().line(line).unwrap() {
                    Converted::Sample(text) | Converted::Other(text) | Converted::SegmentEnd(Some(text)) => text,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(same, *log);
        }
    }
}
