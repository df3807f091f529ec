//! The rules that AIPowerMeter's reader has for a log, found by running it; each broken one makes it crash or
//! integrate over a gap.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{
    aipowermeter::fields,
    log::{Kind, date::as_written, differs},
};

/// Keys that every sample has. The reader takes the duration of a recording from the first key, whichever that is.
const ALWAYS: [&str; 5] = [
    fields::PER_PROCESS_CPU_USES.name,
    fields::ABSOLUTE_CPU_TIME_PER_PID.name,
    fields::PER_PROCESS_MEM_USE_ABS.name,
    fields::PER_PROCESS_MEM_USE_PERCENT.name,
    fields::PER_PROCESS_MEM_USE_USS.name,
];

/// Keys that the reader takes of `metrics.gpu`; it crashes without one.
const GPU_SCALARS: [&str; 3] = [
    fields::NVIDIA_MEMORY.name,
    fields::NVIDIA_POWER.name,
    fields::NVIDIA_USE_RATE.name,
];
const GPU_MAPS: [&str; 3] = [
    fields::PER_GPU_NVIDIA_MEMORY.name,
    fields::PER_GPU_NVIDIA_POWER.name,
    fields::PER_GPU_NVIDIA_USE_RATE.name,
];

/// What has been read of a log.
#[derive(Debug, Default)]
pub struct ReaderRules {
    segment: Option<Segment>,
}

/// The samples since the last segment end.
#[derive(Debug, Default)]
struct Segment {
    samples: u64,
    keys: BTreeSet<String>,
    last_keys: BTreeSet<String>,
}

impl ReaderRules {
    /// What the reader cannot take of the next line, a sentence each.
    pub fn line(&mut self, kind: Kind, line: &Value) -> Vec<String> {
        match line {
            Value::String(_) if kind == Kind::SegmentEnd => self.segment_end(),
            Value::Object(line) => match line.get("metrics") {
                Some(Value::Object(metrics)) if metrics.contains_key("cpu") => {
                    self.sample(line, &metrics["cpu"], metrics.get("gpu"))
                }
                Some(Value::Object(metrics)) if metrics.is_empty() && !line.contains_key("date") => Vec::new(),
                _ => vec!["it has no `metrics`, or a date without them".to_owned()],
            },
            _ => vec!["it is neither an object nor the end of a segment".to_owned()],
        }
    }

    /// What is wrong with the end of the log.
    pub fn end(&self) -> Vec<String> {
        self.segment
            .iter()
            .map(|_| {
                "the log does not end with the end of a segment: the trace still runs, or was killed (`dlpm trace \
                 --append` repairs that)"
                    .to_owned()
            })
            .collect()
    }

    fn segment_end(&mut self) -> Vec<String> {
        let segment = self.segment.take().unwrap_or_default();
        if segment.samples < 2 {
            return vec![format!(
                "a segment of {} samples ends here; the reader needs two",
                segment.samples
            )];
        }
        segment
            .keys
            .difference(&segment.last_keys)
            .map(|key| format!("the last sample of the segment that ends here lacks {key}"))
            .collect()
    }

    fn sample(&mut self, line: &Map<String, Value>, cpu: &Value, gpu: Option<&Value>) -> Vec<String> {
        let mut failures = Vec::new();
        if parse_date(line.get("date")).is_none() {
            let found = line.get("date").unwrap_or(&Value::Null);
            failures.push(differs("date", "YYYY-MM-DD HH:MM:SS.ffffff±HH:MM", found));
        }
        let Some(cpu) = cpu.as_object() else {
            failures.push("metrics.cpu is not an object".to_owned());
            return failures;
        };
        if cpu.keys().next().is_none_or(|key| !ALWAYS.contains(&key.as_str())) {
            failures.push("the first key of metrics.cpu is one that may be missing".to_owned());
        }
        for (key, value) in cpu {
            let is_flat = match value {
                Value::Number(_) => true,
                Value::Object(map) => map.values().all(Value::is_number),
                _ => false,
            };
            if !is_flat {
                failures.push(format!("{key} is neither a number nor a flat map of numbers"));
            }
        }
        let needs = |key, needed: &[&str]| !cpu.contains_key(key) || needed.iter().all(|key| cpu.contains_key(*key));
        let memory = [
            fields::PER_PROCESS_MEM_USE_ABS.name,
            fields::PER_PROCESS_MEM_USE_USS.name,
            fields::TOTAL_MEM_USE.name,
        ];
        if !needs(fields::TOTAL_DRAM_POWER.name, &memory) || !needs(fields::PER_PROCESS_MEM_USE_ABS.name, &memory[1..2])
        {
            failures.push("keys of memory are missing".to_owned());
        }
        let gpu_keys = gpu.map(|gpu| gpu_keys(gpu, &mut failures)).unwrap_or_default();
        let segment = self.segment.get_or_insert_default();
        segment.samples += 1;
        segment.last_keys = cpu.keys().cloned().chain(gpu_keys).collect();
        segment.keys.extend(segment.last_keys.iter().cloned());
        failures
    }
}

/// The keys of `metrics.gpu` that have to be in every sample of a segment: also each GPU in the maps.
fn gpu_keys(gpu: &Value, failures: &mut Vec<String>) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for key in GPU_SCALARS {
        if !gpu.get(key).is_some_and(Value::is_number) {
            failures.push(format!("metrics.gpu has no number {key}"));
        }
        keys.insert(key.to_owned());
    }
    for key in GPU_MAPS {
        match gpu.get(key).and_then(Value::as_object) {
            Some(map) if !map.is_empty() && map.values().all(Value::is_number) => {
                keys.extend(map.keys().map(|index| format!("{key} of {index}")));
            }
            _ => failures.push(format!("metrics.gpu has no map {key} with a number for each GPU")),
        }
    }
    keys
}

/// The date of a line in nanoseconds since 1970, to the microsecond; 0 if it has none.
pub fn unix_ns(line: &Value) -> i64 {
    parse_date(line.get("date")).unwrap_or(0)
}

fn parse_date(date: Option<&Value>) -> Option<i64> {
    as_written(date?.as_str()?)
}
