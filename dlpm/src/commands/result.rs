//! `dlpm result`: adds results of an experiment to its folder.

use std::{fs, process::ExitCode};

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::caller;
use crate::{
    cli::ResultArgs,
    log::{
        date,
        names::{LOG_NAME, RESULTS_NAME},
        window::Moment,
    },
    report::{
        listing::is_reserved,
        results::{DATE_KEY, entries},
    },
    sinks::beside,
};

/// Runs the command; its errors are printed.
pub fn run(args: &ResultArgs) -> ExitCode {
    super::status(add(args))
}

fn add(args: &ResultArgs) -> Result<()> {
    let log = args.folder.join(LOG_NAME);
    if let Err(error) = fs::metadata(&log) {
        bail!(
            "{} cannot be read: {error}; give the folder that `dlpm trace --output` writes or wrote",
            log.display()
        );
    }
    let timezone = super::local_timezone();
    let unix_ns = match &args.date {
        None => i64::try_from(Timestamp::now().as_nanosecond())?,
        Some(Moment::AfterBegin(_)) => {
            bail!("give --date a date or unix seconds: a time since the start of the log is not known here")
        }
        Some(moment) => moment.unix_ns(0, timezone),
    };
    let mut entry = Map::new();
    entry.insert(DATE_KEY.to_owned(), date::date(unix_ns, timezone).into());
    for (metric, value) in &args.values {
        if let Some(why) = is_reserved(metric) {
            bail!("a result cannot be called `{metric}`: {why}; choose another name");
        }
        if entry.insert(metric.clone(), (*value).into()).is_some() {
            bail!("{metric} is given twice; add results of two moments one after the other, with --date");
        }
    }
    let identity = caller::identity()?;
    beside::update(&args.folder, RESULTS_NAME, identity, |old| added(old, entry))?.map_err(|why| {
        anyhow::anyhow!(
            "{} cannot be continued: {why}; repair it, or move it away and start again. It was left as it is",
            args.folder.join(RESULTS_NAME).display()
        )
    })
}

/// The file with one more result, as one list.
fn added(old: Option<Vec<u8>>, entry: Map<String, Value>) -> Result<Vec<u8>, String> {
    let mut results = match old {
        Some(old) => entries(&old)?,
        None => Vec::new(),
    };
    for (number, result) in (1..).zip(&results) {
        if !result.get(DATE_KEY).is_some_and(Value::is_string) {
            return Err(format!("its result {number} has no `{DATE_KEY}`"));
        }
    }
    results.push(entry);
    // One a line, so that a version control shows what came.
    let lines: Result<Vec<String>, _> = results.iter().map(serde_json::to_string).collect();
    let lines = lines.map_err(|error| error.to_string())?;
    Ok(format!("[\n{}\n]\n", lines.join(",\n")).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: f64) -> Map<String, Value> {
        let mut entry = Map::new();
        entry.insert(DATE_KEY.to_owned(), "2026-01-01 00:00:00.000000+00:00".into());
        entry.insert("accuracy".to_owned(), value.into());
        entry
    }

    #[test]
    fn results_are_one_list() {
        let first = added(None, entry(0.5)).unwrap();
        let second = added(Some(first), entry(0.75)).unwrap();
        let list: Value = serde_json::from_slice(&second).unwrap();
        assert_eq!(list, serde_json::json!([entry(0.5), entry(0.75)]));
        let object = br#"{"a": {"end_training_epoch": "2026-01-01", "accuracy": 1}}"#;
        let list = added(Some(object.to_vec()), entry(0.5)).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&list)
                .unwrap()
                .as_array()
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn a_file_that_is_none_is_not_touched() {
        // What AIPowerMeter's own writer makes is not what its reader takes.
        for wrong in [
            "{\"date\": \"2026-01-01\", \"metrics\": {}}\n",
            "[{\"accuracy\": 1}]",
            "[",
            "7",
            "",
        ] {
            assert!(added(Some(wrong.as_bytes().to_vec()), entry(0.5)).is_err(), "{wrong}");
        }
    }
}
