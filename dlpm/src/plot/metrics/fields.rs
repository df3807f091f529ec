//! AIPowerMeter's fields.

use serde_json::Value;

use super::Unit;

/// A field of `metrics`.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// `cpu` or `gpu`: the object that it is in.
    group: &'static str,
    /// What its maps go by, in this order.
    pub keys: &'static [&'static str],
    /// What it is counted in.
    pub unit: Unit,
}

const fn field(group: &'static str, name: &'static str, keys: &'static [&'static str], unit: Unit) -> Field {
    Field {
        name,
        group,
        keys,
        unit,
    }
}

const PID: &[&str] = &["PID"];
const GPU: &[&str] = &["GPU"];
const GPU_PID: &[&str] = &["GPU", "PID"];

/// All of them, of every generation of that tool.
pub const FIELDS: [Field; 34] = [
    field("cpu", "intel_power", &[], Unit::Watts),
    field("cpu", "psys_power", &[], Unit::Watts),
    field("cpu", "total_cpu_power", &[], Unit::Watts),
    field("cpu", "uncore_power", &[], Unit::Watts),
    field("cpu", "total_dram_power", &[], Unit::Watts),
    field("cpu", "rel_intel_power", PID, Unit::Watts),
    field("cpu", "per_process_cpu_power", PID, Unit::Watts),
    field("cpu", "per_process_dram_power", PID, Unit::Watts),
    field("cpu", "per_process_cpu_uses", PID, Unit::Fraction),
    field("cpu", "absolute_cpu_time_per_pid", PID, Unit::CpuSeconds),
    field("cpu", "per_process_mem_use_abs", PID, Unit::Bytes),
    field("cpu", "per_process_mem_use_uss", PID, Unit::Bytes),
    field("cpu", "per_process_mem_use_percent", PID, Unit::Fraction),
    field("cpu", "total_mem_use", &[], Unit::Bytes),
    field("cpu", "cpu_uses", PID, Unit::Fraction),
    field("cpu", "mem_use_abs", PID, Unit::Bytes),
    field("cpu", "mem_use_uss", PID, Unit::Bytes),
    field("cpu", "mem_use_percent", PID, Unit::Fraction),
    field("gpu", "nvidia_power", &[], Unit::Watts),
    field("gpu", "per_gpu_nvidia_power", GPU, Unit::Watts),
    field("gpu", "nvidia_use_rate", &[], Unit::Percent),
    field("gpu", "per_gpu_nvidia_use_rate", GPU, Unit::Percent),
    field("gpu", "nvidia_memory", &[], Unit::Bytes),
    field("gpu", "per_gpu_nvidia_memory", GPU, Unit::Bytes),
    field("gpu", "nvidia_draw_absolute", &[], Unit::Watts),
    field("gpu", "per_gpu_power_draw", GPU, Unit::Watts),
    field("gpu", "nvidia_estimated_attributable_power_draw", &[], Unit::Watts),
    field("gpu", "per_gpu_attributable_power", GPU, Unit::Watts),
    field("gpu", "sm", GPU_PID, Unit::Percent),
    field("gpu", "memory", GPU_PID, Unit::Bytes),
    field("gpu", "per_gpu_attributable_mem_use", GPU_PID, Unit::Bytes),
    field("gpu", "per_gpu_per_pid_utilization_absolute", GPU_PID, Unit::Fraction),
    field("gpu", "per_gpu_absolute_percent_usage", GPU, Unit::Fraction),
    field("gpu", "per_gpu_estimated_attributable_utilization", GPU, Unit::Fraction),
];

impl Field {
    /// How it is written: `sm:GPU:PID`.
    pub fn form(&self) -> String {
        let keys = self.keys.iter().flat_map(|key| [":", key]);
        std::iter::once(self.name).chain(keys).collect()
    }

    /// Whether it tells of memory: who is not listed may have some.
    pub fn is_memory(&self) -> bool {
        self.unit == Unit::Bytes || self.name.contains("mem_use")
    }

    /// Whether it is made of the packages, for which an estimate can stand.
    pub fn is_of_packages(&self) -> bool {
        matches!(self.name, "intel_power" | "rel_intel_power")
    }

    /// Whether `metrics` has it.
    pub fn is_there(&self, metrics: &Value) -> bool {
        self.find(metrics).is_some()
    }

    /// What `metrics` has of it.
    pub fn find<'a>(&self, metrics: &'a Value) -> Option<&'a Value> {
        metrics.get(self.group)?.get(self.name).filter(|value| !value.is_null())
    }

    /// Its value; the sum of all without keys.
    pub fn value(&self, metrics: &Value, keys: &[String]) -> Option<f64> {
        let mut value = self.find(metrics)?;
        for key in keys {
            value = value.get(key)?;
        }
        sum(value)
    }
}

/// A number, or the sum of what a map or (in old logs) a list holds.
fn sum(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        // `all` is the sum of the other entries.
        Value::Object(map) => {
            let parts: Vec<f64> = map
                .iter()
                .filter(|(key, _)| *key != "all")
                .filter_map(|(_, value)| sum(value))
                .collect();
            (!parts.is_empty()).then(|| parts.iter().sum())
        }
        Value::Array(list) => {
            let parts: Vec<f64> = list.iter().filter_map(sum).collect();
            (!parts.is_empty()).then(|| parts.iter().sum())
        }
        _ => None,
    }
}
