//! Which metrics a log has.

use std::{collections::BTreeMap, io::BufRead};

use anyhow::Result;
use serde_json::{Map, Value};

use crate::{
    cli::Format,
    log::{Event, LogLine, LogReader},
    printable::{self, printable},
    tables::{
        record::{self, Record},
        text::{grid, trimmed},
    },
};

/// AIPowerMeter's names and their units.
const UNITS: [(&str, &str); 34] = [
    ("per_process_cpu_uses", "fraction of busy CPU time"),
    ("absolute_cpu_time_per_pid", "CPU seconds in the interval"),
    ("per_process_mem_use_abs", "bytes"),
    ("per_process_mem_use_percent", "fraction of used memory"),
    ("per_process_mem_use_uss", "bytes"),
    ("total_mem_use", "bytes"),
    ("intel_power", "W"),
    ("psys_power", "W"),
    ("total_dram_power", "W"),
    ("total_cpu_power", "W"),
    ("uncore_power", "W"),
    ("rel_intel_power", "W"),
    ("per_process_cpu_power", "W"),
    ("per_process_dram_power", "W"),
    ("cpu_uses", "fraction of busy CPU time"),
    ("mem_use_abs", "bytes"),
    ("mem_use_percent", "fraction of used memory"),
    ("mem_use_uss", "bytes"),
    ("nvidia_power", "W"),
    ("nvidia_draw_absolute", "W"),
    ("nvidia_use_rate", "percent"),
    ("nvidia_memory", "bytes"),
    ("nvidia_estimated_attributable_power_draw", "W"),
    ("per_gpu_nvidia_power", "W"),
    ("per_gpu_nvidia_use_rate", "percent"),
    ("per_gpu_nvidia_memory", "bytes"),
    ("per_gpu_power_draw", "W"),
    ("per_gpu_attributable_power", "W"),
    ("per_gpu_attributable_mem_use", "bytes"),
    ("per_gpu_per_pid_utilization_absolute", "fraction of SM time"),
    ("per_gpu_absolute_percent_usage", "fraction of SM time"),
    ("per_gpu_estimated_attributable_utilization", "fraction of used SM time"),
    ("sm", "percent of SM time"),
    ("memory", "bytes"),
];

/// Names that AIPowerMeter's reader makes itself.
const OF_READER: [&str; 3] = ["nvidia_attributable_power", "nvidia_mem_use", "nvidia_sm_use"];

/// Why a result cannot have this name: AIPowerMeter's reader knows metrics by their name alone.
pub fn is_reserved(name: &str) -> Option<&'static str> {
    if UNITS.iter().any(|(known, _)| *known == name) || OF_READER.contains(&name) {
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

/// Reads the log to its end; a table, JSON or CSV of its metrics.
///
/// # Errors
///
/// Where the log cannot be read.
pub fn list<R: BufRead>(mut reader: LogReader<R>, format: Format) -> Result<String> {
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
                let unit = UNITS
                    .iter()
                    .find(|(known, _)| *known == key)
                    .map_or("?", |(_, unit)| unit);
                add(rank, &key, unit, shape(rank, &key, &value));
            }
        }
    }
    let records: Vec<Record> = metrics
        .iter()
        .map(|((_, name), metric)| {
            Record::default()
                .with("metric", name.as_str())
                .with("unit", metric.unit)
                .with("per", metric.per)
                .with("samples", metric.samples)
        })
        .collect();
    match format {
        Format::Json => Ok(format!(
            "{}\n",
            printable::json(&serde_json::to_string_pretty(&records)?)
        )),
        Format::Csv => record::csv(&records),
        Format::Table => {
            let mut table = grid(
                ["metric", "unit", "one for each", "samples"].map(str::to_owned).into(),
                3,
                140,
            );
            for ((_, name), metric) in &metrics {
                table.add_row([
                    printable(name),
                    metric.unit.to_owned(),
                    metric.per.to_owned(),
                    metric.samples.to_string(),
                ]);
            }
            Ok(format!("{}\n", trimmed(&table)))
        }
    }
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
