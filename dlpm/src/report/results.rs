//! Results of an experiment (accuracy, loss, …) beside the energy that was used until then.

use std::path::Path;

use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use crate::{
    files,
    log::{date::unix_ns, names::RESULTS_NAME},
};

/// The key of a result's date, which AIPowerMeter's reader wants.
pub const DATE_KEY: &str = "end_training_epoch";

/// What was used from the begin of the log to some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Whether any energy is known.
    pub known: bool,
    /// Energy of the listed processes in J, as far as it is known.
    pub listed_joules: f64,
    /// Energy of all leaves in J, as far as it is known.
    pub all_joules: f64,
    /// Time in s that was measured.
    pub measured_s: f64,
}

impl Spent {
    /// Between two moments: `part` of the way, from 0 to 1.
    fn between(before: Self, after: Self, part: f64) -> Self {
        let mix = |before: f64, after: f64| before + (after - before) * part;
        Self {
            known: after.known,
            listed_joules: mix(before.listed_joules, after.listed_joules),
            all_joules: mix(before.all_joules, after.all_joules),
            measured_s: mix(before.measured_s, after.measured_s),
        }
    }
}

/// The results of one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultEntry {
    /// When.
    pub unix_ns: i64,
    /// Metric and value.
    pub values: Vec<(String, f64)>,
    /// What was used until then; all of it for one that is dated after the log.
    pub spent: Spent,
}

/// All results, by their date.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// The oldest first.
    pub entries: Vec<ResultEntry>,
    /// Values that are not numbers, and are passed over.
    pub no_numbers: u64,
    placed: usize,
    spent: Spent,
}

/// How a metric came to a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reached {
    /// Before its first result, or at it.
    AtFirst(Spent),
    /// Between two results: interpolated in a straight line.
    Between(Spent),
    /// It did not; this value came closest.
    Never(f64),
    /// There is no such metric.
    Unknown,
}

impl Results {
    /// The results of a folder; empty without any. Dates without an offset are of `timezone`.
    ///
    /// # Errors
    ///
    /// A sentence, if the file is not such a file.
    pub fn of_folder(folder: &Path, timezone: &TimeZone) -> Result<Self, String> {
        let path = folder.join(RESULTS_NAME);
        let failed = |why: String| {
            format!(
                "{} cannot be read: {why}; mend it, or move it away and begin anew with `dlpm result`",
                path.display()
            )
        };
        let contents = files::small(&path).map_err(|error| failed(error.to_string()))?;
        let mut results = Self::default();
        for entry in entries(contents.as_deref().unwrap_or(b"[]")).map_err(failed)? {
            let date = entry.get(DATE_KEY).and_then(Value::as_str);
            let date = date.ok_or_else(|| failed(format!("a result has no `{DATE_KEY}`")))?;
            let values = entry.iter().filter(|(key, _)| *key != DATE_KEY);
            let numbers = values
                .clone()
                .filter_map(|(key, value)| Some((key.clone(), value.as_f64()?)));
            let numbers: Vec<(String, f64)> = numbers.collect();
            results.no_numbers += (values.count() - numbers.len()) as u64;
            results.entries.push(ResultEntry {
                unix_ns: unix_ns(date, timezone).map_err(failed)?,
                values: numbers,
                spent: Spent::default(),
            });
        }
        results.entries.sort_by_key(|entry| entry.unix_ns);
        Ok(results)
    }

    /// Takes the next interval of the log: what was used until each result in it.
    /// `joules` are those of the listed processes and of all leaves, where any of them is known.
    pub fn interval(&mut self, begin_unix_ns: i64, end_unix_ns: i64, joules: Option<(f64, f64)>) {
        let (listed_joules, all_joules) = joules.unwrap_or((0.0, 0.0));
        let before = self.spent;
        let length_ns = end_unix_ns.saturating_sub(begin_unix_ns);
        let after = Spent {
            known: before.known || joules.is_some(),
            listed_joules: before.listed_joules + listed_joules,
            all_joules: before.all_joules + all_joules,
            measured_s: before.measured_s + length_ns as f64 / 1e9,
        };
        while let Some(entry) = self
            .entries
            .get_mut(self.placed)
            .filter(|entry| entry.unix_ns <= end_unix_ns)
        {
            let part = entry.unix_ns.saturating_sub(begin_unix_ns) as f64 / length_ns.max(1) as f64;
            entry.spent = Spent::between(before, after, part.clamp(0.0, 1.0));
            self.placed += 1;
        }
        self.spent = after;
    }

    /// The log has ended.
    pub fn end(&mut self) {
        for entry in &mut self.entries[self.placed..] {
            entry.spent = self.spent;
        }
        self.placed = self.entries.len();
    }

    /// Each metric, in the order of its first result, with its newest value and what was used until then.
    pub fn newest(&self) -> Vec<(&str, f64, Spent)> {
        let mut newest: Vec<(&str, f64, Spent)> = Vec::new();
        for entry in &self.entries {
            for (metric, value) in &entry.values {
                match newest.iter_mut().find(|(known, ..)| known == metric) {
                    Some(known) => *known = (metric, *value, entry.spent),
                    None => newest.push((metric, *value, entry.spent)),
                }
            }
        }
        newest
    }

    /// When `metric` came to `target`: upwards or downwards, as it went from its first value to its last.
    pub fn reach(&self, metric: &str, target: f64) -> Reached {
        let of_entry = |entry: &ResultEntry| {
            let value = entry.values.iter().find(|(name, _)| name == metric)?.1;
            Some((value, entry.spent))
        };
        let mut values = self.entries.iter().filter_map(of_entry);
        let last = values.clone().next_back();
        let (Some((mut before, mut spent_before)), Some((last, _))) = (values.next(), last) else {
            return Reached::Unknown;
        };
        let rises = if last == before { before < target } else { before < last };
        let is_there = |value: f64| if rises { value >= target } else { value <= target };
        if is_there(before) {
            return Reached::AtFirst(spent_before);
        }
        let mut closest = before;
        for (value, spent) in values {
            if is_there(value) && !is_there(before) {
                let part = (target - before) / (value - before);
                return Reached::Between(Spent::between(spent_before, spent, part));
            }
            if (value - target).abs() < (closest - target).abs() {
                closest = value;
            }
            (before, spent_before) = (value, spent);
        }
        Reached::Never(closest)
    }
}

/// The results of a file: a list of objects, or an object of them, as AIPowerMeter's reader takes them.
///
/// # Errors
///
/// Why it is none.
pub fn entries(contents: &[u8]) -> Result<Vec<Map<String, Value>>, String> {
    let value: Value = serde_json::from_slice(contents).map_err(|error| format!("it is not JSON: {error}"))?;
    let values = match value {
        Value::Array(values) => values,
        Value::Object(map) => map.into_iter().map(|(_, value)| value).collect(),
        _ => return Err("it is not a list of results".to_owned()),
    };
    values
        .into_iter()
        .map(|value| match value {
            Value::Object(entry) => Ok(entry),
            _ => Err("a result is not an object".to_owned()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: i64 = 1_000_000_000;

    fn results(text: &str) -> Result<Results, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(RESULTS_NAME), text).unwrap();
        let mut results = Results::of_folder(folder.path(), &TimeZone::UTC)?;
        // 10 J a second for the listed processes, 20 J in all, from second 100 on.
        for second in 100..110 {
            results.interval(second * SECOND_NS, (second + 1) * SECOND_NS, Some((10.0, 20.0)));
        }
        results.end();
        Ok(results)
    }

    fn reached(results: &Results, metric: &str, target: f64) -> (f64, f64) {
        match results.reach(metric, target) {
            Reached::Between(spent) => (spent.listed_joules, spent.measured_s),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn energy_is_interpolated_between_results() {
        let results = results(
            r#"[{"end_training_epoch": "1970-01-01 00:01:45.500000", "accuracy": 0.7, "loss": 1.0},
                {"end_training_epoch": "1970-01-01 01:01:42.000000+01:00", "accuracy": 0.5, "loss": 2.0, "note": "x"},
                {"end_training_epoch": "1970-01-01 00:02:30", "accuracy": 0.9}]"#,
        )
        .unwrap();
        let spent: Vec<f64> = results.entries.iter().map(|entry| entry.spent.listed_joules).collect();
        assert_eq!(spent, [20.0, 55.0, 100.0]);
        assert_eq!(results.entries[1].spent.all_joules, 110.0);
        assert_eq!(results.no_numbers, 1);
        let (joules, seconds) = reached(&results, "accuracy", 0.6);
        assert!((joules - 37.5).abs() < 1e-9 && (seconds - 3.75).abs() < 1e-9);
        // A loss falls.
        assert!((reached(&results, "loss", 1.5).0 - 37.5).abs() < 1e-9);
        assert_eq!(results.reach("accuracy", 0.95), Reached::Never(0.9));
        assert_eq!(results.reach("loss", 0.5), Reached::Never(1.0));
        assert_eq!(results.reach("f1", 0.5), Reached::Unknown);
        // Passed before there was a result, on the way up or down.
        for (metric, passed) in [("accuracy", 0.4), ("loss", 2.5)] {
            assert!(matches!(results.reach(metric, passed), Reached::AtFirst(spent) if spent.measured_s == 2.0));
        }
        assert!(matches!(results.reach("accuracy", 0.5), Reached::AtFirst(spent) if spent.measured_s == 2.0));
        let newest: Vec<(&str, f64)> = results
            .newest()
            .iter()
            .map(|(metric, value, _)| (*metric, *value))
            .collect();
        assert_eq!(newest, [("accuracy", 0.9), ("loss", 1.0)]);
    }

    #[test]
    fn files_that_are_no_results_say_what_to_do() {
        for wrong in [
            "",
            "12",
            "[1]",
            "[{\"accuracy\":1}]",
            "[{\"end_training_epoch\":\"yesterday\"}]",
        ] {
            let error = results(wrong).unwrap_err();
            assert!(error.contains("mend it, or move it away"), "{error}");
        }
        assert!(results("{\"a\":{\"end_training_epoch\":\"1970-01-01\",\"x\":1}}").is_ok());
    }
}
