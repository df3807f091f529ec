//! The rules that AIPowerMeter's reader has for the files beside the log.

use std::path::Path;

use jiff::tz::TimeZone;
use serde_json::Value;

use crate::{
    files,
    log::{
        date::unix_ns,
        names::{METADATA_NAME, RESULTS_NAME},
    },
    report::{
        listing::is_reserved,
        results::{DATE_KEY, entries},
    },
};

/// What the reader cannot take of the files in `folder`, a sentence each with the file's name. A file that is not there
/// is none that it needs.
pub fn check(folder: &Path) -> Vec<String> {
    let mut failures = Vec::new();
    for (name, check) in [
        (METADATA_NAME, metadata as fn(&[u8]) -> Vec<String>),
        (RESULTS_NAME, results),
    ] {
        let found = match files::small(&folder.join(name)) {
            Ok(None) => Vec::new(),
            Ok(Some(contents)) => check(&contents),
            Err(error) => vec![format!("it cannot be read: {error}")],
        };
        failures.extend(found.into_iter().map(|what| format!("{name}: {what}")));
    }
    failures
}

fn metadata(contents: &[u8]) -> Vec<String> {
    let value: Value = match serde_json::from_slice(contents) {
        Ok(value) => value,
        Err(error) => return vec![format!("it is not JSON: {error}")],
    };
    let mut failures = Vec::new();
    if !value.get("description").is_some_and(Value::is_string) {
        failures.push("it has no `description`, which the reader prints".to_owned());
    }
    if !value.get("date").is_some_and(is_date) {
        failures.push("it has no `date` that Python 3.8 can read".to_owned());
    }
    failures
}

fn results(contents: &[u8]) -> Vec<String> {
    let entries = match entries(contents) {
        Ok(entries) => entries,
        Err(why) => return vec![why],
    };
    let mut failures = Vec::new();
    for (number, entry) in (1..).zip(&entries) {
        if !entry.get(DATE_KEY).is_some_and(is_date) {
            failures.push(format!("result {number} has no `{DATE_KEY}` that Python 3.8 can read"));
        }
        for (metric, value) in entry.iter().filter(|(metric, _)| *metric != DATE_KEY) {
            if !value.is_number() {
                failures.push(format!("{metric} of result {number} is not a number"));
            }
            if let Some(why) = is_reserved(metric) {
                failures.push(format!("a result cannot be called {metric}: {why}"));
            }
        }
    }
    failures
}

/// Whether Python 3.8 can read a date: no `Z`, and fractions of a second have 3 or 6 digits.
fn is_date(date: &Value) -> bool {
    let Some(date) = date.as_str().filter(|date| unix_ns(date, &TimeZone::UTC).is_ok()) else {
        return false;
    };
    let fraction = date.split_once('.').map(|(_, rest)| rest);
    let digits = fraction.map(|rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    !date.ends_with(['Z', 'z']) && digits.is_none_or(|digits| digits == 3 || digits == 6)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DATE: &str = "2026-01-01 00:00:00.000000+01:00";

    fn failures(name: &str, contents: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), contents).unwrap();
        check(folder.path()).join("\n")
    }

    #[test]
    fn files_that_the_reader_takes_pass() {
        assert_eq!(check(Path::new("/nowhere/at/all")), [""; 0]);
        let good = format!("{{\"description\":\"\",\"date\":\"{DATE}\",\"dlpm\":{{}}}}");
        assert_eq!(failures(METADATA_NAME, &good), "");
        for good in [
            "[]".to_owned(),
            format!("[{{\"end_training_epoch\":\"{DATE}\",\"accuracy\":0.5}}]"),
            "{\"a\":{\"end_training_epoch\":\"2026-01-01\",\"loss\":1}}".to_owned(),
        ] {
            assert_eq!(failures(RESULTS_NAME, &good), "");
        }
    }

    #[test]
    fn each_rule_is_proved_by_a_file_that_breaks_it() {
        for (contents, says) in [
            ("[".to_owned(), "not JSON"),
            (format!("{{\"date\":\"{DATE}\"}}"), "no `description`"),
            (
                "{\"description\":\"\",\"date\":\"2026-01-01T00:00:00Z\"}".to_owned(),
                "no `date`",
            ),
            ("{\"description\":\"\"}".to_owned(), "no `date`"),
        ] {
            let found = failures(METADATA_NAME, &contents);
            assert!(
                found.contains(says) && found.starts_with("metadata.json: "),
                "{contents}: {found}"
            );
        }
        let result = |rest: &str| format!("[{{\"end_training_epoch\":\"{DATE}\",{rest}}}]");
        for (contents, says) in [
            // What AIPowerMeter's own writer makes.
            (format!("{{\"date\":\"{DATE}\",\"metrics\":{{}}}}\n"), "not an object"),
            (format!("{0}\n{0}", result("\"accuracy\":1")), "not JSON"),
            ("7".to_owned(), "not a list"),
            ("[{\"accuracy\":1}]".to_owned(), "no `end_training_epoch`"),
            (
                "[{\"end_training_epoch\":1767225600,\"accuracy\":1}]".to_owned(),
                "no `end_training_epoch`",
            ),
            (
                "[{\"end_training_epoch\":\"2026-01-01 00:00:00.123456789\",\"accuracy\":1}]".to_owned(),
                "no `end_training_epoch`",
            ),
            (result("\"accuracy\":\"high\""), "not a number"),
            (result("\"intel_power\":1"), "cannot be called intel_power"),
            (result("\"nvidia_sm_use\":1"), "cannot be called nvidia_sm_use"),
        ] {
            let found = failures(RESULTS_NAME, &contents);
            assert!(
                found.contains(says) && found.starts_with("results_exp.json: "),
                "{contents}: {found}"
            );
        }
    }
}
