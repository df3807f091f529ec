//! Sums over a log that AIPowerMeter wrote itself: watts integrated, and nothing that adds up exactly.
//!
//! A sample's watts are taken to have held since the sample before it in the same segment, as it is an average over
//! that time (rectangles, not trapezoids). The first sample of a segment has none before it: its energy is not known.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{aipowermeter::fields, log::Foreign};

/// Pids that are told apart at most.
const PIDS: usize = 10_000;

/// Watts of the machine, and what the zone is called here.
const ZONES: [(&str, &str); 5] = [
    (fields::INTEL_POWER.name, "package"),
    (fields::TOTAL_CPU_POWER.name, "core"),
    (fields::UNCORE_POWER.name, "uncore"),
    (fields::TOTAL_DRAM_POWER.name, "dram"),
    (fields::PSYS_POWER.name, "psys"),
];

/// Watts of GPUs, newest name first.
const PER_GPU: [&str; 2] = [fields::PER_GPU_NVIDIA_POWER.name, fields::PER_GPU_POWER_DRAW.name];

/// Power of one zone, integrated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForeignZone {
    /// Energy in J.
    pub joules: f64,
    /// Time in s over which it is known.
    pub known_s: f64,
    /// Highest power in W.
    pub peak_w: f64,
}

impl ForeignZone {
    fn add(&mut self, watts: f64, length_s: f64) {
        self.joules += watts * length_s;
        self.known_s += length_s;
        self.peak_w = self.peak_w.max(watts);
    }
}

/// What a process used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ForeignProcess {
    /// CPU time in s, where it was recorded.
    pub cpu_s: Option<f64>,
    /// Energy of packages in J (`rel_intel_power`).
    pub package_joules: Option<f64>,
    /// Energy of cores in J (`per_process_cpu_power`).
    pub core_joules: Option<f64>,
    /// Energy of DRAM in J (`per_process_dram_power`).
    pub dram_joules: Option<f64>,
}

/// What was used between two samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Between {
    /// Date of the first of them.
    pub begin_unix_ns: i64,
    /// Energy of the recorded processes in J: packages (cores, where packages are not split), DRAM, GPUs.
    pub listed_joules: f64,
    /// Energy of packages, DRAM and GPUs in J.
    pub all_joules: f64,
}

/// Sums over such a log.
#[derive(Clone, Debug, Default)]
pub struct ForeignTotals {
    /// Samples.
    pub samples: u64,
    /// Samples whose energy is not known, as they are the first of their segment.
    pub first_samples: u64,
    /// Time in s between the samples of each segment.
    pub duration_s: f64,
    /// By name.
    pub zones: BTreeMap<String, ForeignZone>,
    /// By pid.
    pub processes: BTreeMap<String, ForeignProcess>,
    /// Pids that are not told apart.
    pub other_pids: u64,
    /// Samples that are dated before the one before them, and are not counted.
    pub backwards: u64,
    newest_unix_ns: Option<i64>,
}

impl ForeignTotals {
    /// A sample that is not wanted: the next one holds since then.
    pub fn skip(&mut self, sample: &Foreign) {
        self.newest_unix_ns = Some(sample.unix_ns);
    }

    /// A segment ends.
    pub fn segment_end(&mut self) {
        self.newest_unix_ns = None;
    }

    /// Adds a sample, and says what was used since the one before; the first after [`Self::segment_end`] only begins one.
    ///
    /// # Errors
    ///
    /// A sentence, if its metrics are not such metrics.
    pub fn add(&mut self, sample: &Foreign) -> Result<Option<Between>, String> {
        let metrics: Map<String, Value> = serde_json::from_str(sample.metrics.get())
            .map_err(|error| format!("its metrics cannot be read: {error}"))?;
        self.samples += 1;
        let Some(before) = self.newest_unix_ns.replace(sample.unix_ns) else {
            self.first_samples += 1;
            return Ok(None);
        };
        let length_s = (sample.unix_ns.saturating_sub(before)) as f64 / 1e9;
        if length_s < 0.0 {
            self.backwards += 1;
            return Ok(None);
        }
        self.duration_s += length_s;
        let mut between = Between {
            begin_unix_ns: before,
            ..Between::default()
        };
        let cpu = metrics.get("cpu").and_then(Value::as_object);
        let gpu = metrics.get("gpu").and_then(Value::as_object);
        let number = |key: &str| cpu.and_then(|cpu| watts(cpu.get(key)?));
        for (key, zone) in ZONES {
            if let Some(watts) = number(key) {
                self.zones.entry(zone.to_owned()).or_default().add(watts, length_s);
                // Cores and uncore are inside the package, psys is around it.
                if matches!(zone, "package" | "dram") {
                    between.all_joules += watts * length_s;
                }
            }
        }
        let per_gpu = PER_GPU.iter().find_map(|key| gpu?.get(*key)?.as_object());
        for (index, value) in per_gpu.into_iter().flatten() {
            if let Some(watts) = watts(value) {
                self.zones
                    .entry(format!("gpu {index}"))
                    .or_default()
                    .add(watts, length_s);
                between.all_joules += watts * length_s;
            }
        }
        let entries = |key: &str| cpu.and_then(|cpu| cpu.get(key)?.as_object()).into_iter().flatten();
        let sum = |key: &str| entries(key).filter_map(|(_, value)| value.as_f64()).sum::<f64>() * length_s;
        let mut of_cpu = [fields::REL_INTEL_POWER.name, fields::PER_PROCESS_CPU_POWER.name].into_iter();
        let of_cpu = of_cpu.find(|key| cpu.is_some_and(|cpu| cpu.contains_key(*key)));
        between.listed_joules += of_cpu.map_or(0.0, sum) + sum(fields::PER_PROCESS_DRAM_POWER.name);
        let of_gpus = gpu.and_then(|gpu| gpu.get(fields::PER_GPU_ATTRIBUTABLE_POWER.name)?.get("all")?.as_f64());
        between.listed_joules += of_gpus.unwrap_or(0.0) * length_s;
        self.per_pid(entries(fields::ABSOLUTE_CPU_TIME_PER_PID.name), 1.0, |process| {
            &mut process.cpu_s
        });
        self.per_pid(entries(fields::REL_INTEL_POWER.name), length_s, |process| {
            &mut process.package_joules
        });
        self.per_pid(entries(fields::PER_PROCESS_CPU_POWER.name), length_s, |process| {
            &mut process.core_joules
        });
        self.per_pid(entries(fields::PER_PROCESS_DRAM_POWER.name), length_s, |process| {
            &mut process.dram_joules
        });
        Ok(Some(between))
    }

    /// Adds each value times `scale` to a sum of its pid.
    fn per_pid<'a>(
        &mut self,
        entries: impl Iterator<Item = (&'a String, &'a Value)>,
        scale: f64,
        sum: impl Fn(&mut ForeignProcess) -> &mut Option<f64>,
    ) {
        for (pid, value) in entries {
            let Some(value) = value.as_f64() else { continue };
            if !self.processes.contains_key(pid) && self.processes.len() >= PIDS {
                self.other_pids += 1;
                continue;
            }
            *sum(self.processes.entry(pid.clone()).or_default()).get_or_insert(0.0) += value * scale;
        }
    }
}

/// A power; a negative one stands for a zone that is not there. Old logs have lists of one.
fn watts(value: &Value) -> Option<f64> {
    let value = match value {
        Value::Array(values) => values.first()?,
        value => value,
    };
    value.as_f64().filter(|watts| *watts >= 0.0)
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn add(totals: &mut ForeignTotals, second: i64, metrics: &str) -> Option<Between> {
        let metrics = RawValue::from_string(metrics.to_owned()).unwrap();
        totals
            .add(&Foreign {
                unix_ns: second * 1_000_000_000,
                metrics: &metrics,
            })
            .unwrap()
    }

    #[test]
    fn watts_hold_since_the_sample_before() {
        let mut totals = ForeignTotals::default();
        let cpu = |power: u32| {
            format!(
                "{{\"cpu\":{{\"intel_power\":{power},\"psys_power\":-1,\"uncore_power\":[2.0],\
                 \"rel_intel_power\":{{\"7\":5.0}},\"absolute_cpu_time_per_pid\":{{\"7\":0.25}},\
                 \"per_process_dram_power\":{{\"7\":null}}}},\
                 \"gpu\":{{\"per_gpu_power_draw\":{{\"0\":100.0}}}}}}"
            )
        };
        assert_eq!(add(&mut totals, 10, &cpu(1000)), None);
        let between = Between {
            begin_unix_ns: 10_000_000_000,
            listed_joules: 10.0,
            all_joules: 220.0,
        };
        assert_eq!(add(&mut totals, 12, &cpu(10)), Some(between));
        add(&mut totals, 13, &cpu(30));
        totals.segment_end();
        add(&mut totals, 99, &cpu(1000));
        assert_eq!((totals.samples, totals.first_samples, totals.duration_s), (4, 2, 3.0));
        let package = &totals.zones["package"];
        assert_eq!((package.joules, package.known_s, package.peak_w), (50.0, 3.0, 30.0));
        assert_eq!(totals.zones["gpu 0"].joules, 300.0);
        assert_eq!(totals.zones["uncore"].joules, 6.0);
        assert!(!totals.zones.contains_key("psys") && !totals.zones.contains_key("dram"));
        let process = totals.processes["7"];
        assert_eq!(
            (process.cpu_s, process.package_joules, process.dram_joules),
            (Some(0.5), Some(15.0), None)
        );
        add(&mut totals, 98, &cpu(10));
        assert_eq!(totals.backwards, 1);
        let metrics = RawValue::from_string("[]".to_owned()).unwrap();
        assert!(
            totals
                .add(&Foreign {
                    unix_ns: 0,
                    metrics: &metrics
                })
                .is_err()
        );
    }
}
