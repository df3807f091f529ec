//! Which metrics a log has.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Map, Value};

use crate::{
    aipowermeter::fields,
    log::{Event, LogLine, LogReader},
    printable::{self, printable},
    tables::{
        record::{self, Record},
        text::{grid, trimmed},
    },
};

/// Why a result cannot have this name: AIPowerMeter's reader knows metrics by their name alone.
pub fn is_reserved(name: &str) -> Option<&'static str> {
    if fields::is_reserved(name) {
        return Some("a metric of the log has that name, and AIPowerMeter's reader would show one for the other");
    }
    (name == super::results::DATE_KEY).then_some("that is the key of its date")
}

/// A metric.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Metric {
    unit: &'static str,
    per: &'static str,
    samples: u64,
}

/// The metrics of a log, those of the CPU first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing(BTreeMap<(u8, String), Metric>);

impl Listing {
    fn records(&self) -> Vec<Record> {
        let metrics = self.0.iter().map(|((_, name), metric)| {
            Record::default()
                .with("metric", name.as_str())
                .with("unit", metric.unit)
                .with("per", metric.per)
                .with("samples", metric.samples)
        });
        metrics.collect()
    }

    /// A list of objects.
    ///
    /// # Errors
    ///
    /// If it cannot be encoded.
    pub fn json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(&self.records())?;
        Ok(format!("{}\n", printable::json(&text)))
    }

    /// The same as CSV.
    ///
    /// # Errors
    ///
    /// If it cannot be encoded.
    pub fn csv(&self) -> Result<String> {
        record::csv(&self.records())
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let head = ["metric", "unit", "one for each", "samples"].map(str::to_owned);
        let mut table = grid(head.into(), 3, 140);
        for ((_, name), metric) in &self.0 {
            table.add_row([
                printable(name),
                metric.unit.to_owned(),
                metric.per.to_owned(),
                metric.samples.to_string(),
            ]);
        }
        format!("{}\n", trimmed(&table))
    }
}

/// Reads the log to its end, for the metrics that it has.
///
/// # Errors
///
/// Where the log cannot be read.
pub fn list(mut reader: LogReader) -> Result<Listing> {
    let mut metrics: BTreeMap<(u8, String), Metric> = BTreeMap::new();
    let mut add = |rank: u8, name: &str, unit: &'static str, per: &'static str| {
        let metric = metrics
            .entry((rank, name.to_owned()))
            .or_insert(Metric { unit, per, samples: 0 });
        metric.samples += 1;
    };
    loop {
        let metrics = match reader.next_line()? {
            None => break,
            Some(LogLine::Interval(interval)) => {
                for zone in interval.ledger.zones() {
                    add(2, &format!("zone:{}", zone.zone), "µJ in the interval, W", "zone");
                }
                interval.metrics
            }
            Some(LogLine::Foreign(sample)) => sample.metrics,
            Some(LogLine::Event(Event::PhaseBegin { label, .. })) => {
                add(3, &format!("phase:{label}"), "", "phase");
                continue;
            }
            Some(_) => continue,
        };
        let metrics: Keys = serde_json::from_str(metrics.get()).map_err(|error| anyhow::anyhow!("{error}"))?;
        for (rank, part) in [(0, metrics.cpu), (1, metrics.gpu)] {
            for (key, value) in part {
                let unit = fields::named(&key).map_or("?", |field| field.unit_in_words);
                add(rank, &key, unit, shape(rank, &key, &value));
            }
        }
    }
    Ok(Listing(metrics))
}

#[derive(serde::Deserialize)]
struct Keys {
    #[serde(default)]
    cpu: Map<String, Value>,
    #[serde(default)]
    gpu: Map<String, Value>,
}

/// What a metric has one value for.
fn shape(rank: u8, key: &str, value: &Value) -> &'static str {
    let Some(map) = value.as_object() else {
        return "machine";
    };
    match rank {
        0 => "pid",
        _ if key == "sm" || key == "memory" || map.values().any(Value::is_object) => "GPU and pid",
        _ => "GPU",
    }
}
