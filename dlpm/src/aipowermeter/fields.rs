//! The table of AIPowerMeter's fields: `metrics` of a line, of every generation of that tool.

use serde_json::Value;

/// What a field is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Watts.
    Watts,
    /// Bytes.
    Bytes,
    /// Percent.
    Percent,
    /// A part of 1.
    Fraction,
    /// CPU seconds in an interval.
    CpuSeconds,
}

/// The object of `metrics` that a field is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// `metrics.cpu`.
    Cpu,
    /// `metrics.gpu`.
    Gpu,
}

impl Group {
    /// Its key.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
        }
    }
}

/// A field of `metrics`.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// The object that it is in.
    pub group: Group,
    /// Its name.
    pub name: &'static str,
    /// What its maps go by, in this order.
    pub keys: &'static [&'static str],
    /// What it is counted in.
    pub unit: Unit,
    /// Its unit in words.
    pub unit_in_words: &'static str,
}

const MACHINE: &[&str] = &[];
const PID: &[&str] = &["PID"];
const GPU: &[&str] = &["GPU"];
const GPU_PID: &[&str] = &["GPU", "PID"];

/// Makes a constant of each row, and the list of all.
macro_rules! fields {
    ($($constant:ident: $group:ident $name:literal $keys:ident $unit:ident $words:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`, in ", $words, ".")]
            pub const $constant: Field = Field {
                group: Group::$group,
                name: $name,
                keys: $keys,
                unit: Unit::$unit,
                unit_in_words: $words,
            };
        )*
        /// All fields, in the order in which they are shown.
        pub const FIELDS: &[&Field] = &[$(&$constant),*];
    };
}

fields! {
    INTEL_POWER: Cpu "intel_power" MACHINE Watts "W";
    PSYS_POWER: Cpu "psys_power" MACHINE Watts "W";
    TOTAL_CPU_POWER: Cpu "total_cpu_power" MACHINE Watts "W";
    UNCORE_POWER: Cpu "uncore_power" MACHINE Watts "W";
    TOTAL_DRAM_POWER: Cpu "total_dram_power" MACHINE Watts "W";
    REL_INTEL_POWER: Cpu "rel_intel_power" PID Watts "W";
    PER_PROCESS_CPU_POWER: Cpu "per_process_cpu_power" PID Watts "W";
    PER_PROCESS_DRAM_POWER: Cpu "per_process_dram_power" PID Watts "W";
    PER_PROCESS_CPU_USES: Cpu "per_process_cpu_uses" PID Fraction "fraction of busy CPU time";
    ABSOLUTE_CPU_TIME_PER_PID: Cpu "absolute_cpu_time_per_pid" PID CpuSeconds "CPU seconds in the interval";
    PER_PROCESS_MEM_USE_ABS: Cpu "per_process_mem_use_abs" PID Bytes "bytes";
    PER_PROCESS_MEM_USE_USS: Cpu "per_process_mem_use_uss" PID Bytes "bytes";
    PER_PROCESS_MEM_USE_PERCENT: Cpu "per_process_mem_use_percent" PID Fraction "fraction of used memory";
    TOTAL_MEM_USE: Cpu "total_mem_use" MACHINE Bytes "bytes";
    CPU_USES: Cpu "cpu_uses" PID Fraction "fraction of busy CPU time";
    MEM_USE_ABS: Cpu "mem_use_abs" PID Bytes "bytes";
    MEM_USE_USS: Cpu "mem_use_uss" PID Bytes "bytes";
    MEM_USE_PERCENT: Cpu "mem_use_percent" PID Fraction "fraction of used memory";
    NVIDIA_POWER: Gpu "nvidia_power" MACHINE Watts "W";
    PER_GPU_NVIDIA_POWER: Gpu "per_gpu_nvidia_power" GPU Watts "W";
    NVIDIA_USE_RATE: Gpu "nvidia_use_rate" MACHINE Percent "percent";
    PER_GPU_NVIDIA_USE_RATE: Gpu "per_gpu_nvidia_use_rate" GPU Percent "percent";
    NVIDIA_MEMORY: Gpu "nvidia_memory" MACHINE Bytes "bytes";
    PER_GPU_NVIDIA_MEMORY: Gpu "per_gpu_nvidia_memory" GPU Bytes "bytes";
    NVIDIA_DRAW_ABSOLUTE: Gpu "nvidia_draw_absolute" MACHINE Watts "W";
    PER_GPU_POWER_DRAW: Gpu "per_gpu_power_draw" GPU Watts "W";
    NVIDIA_ESTIMATED_ATTRIBUTABLE_POWER_DRAW: Gpu "nvidia_estimated_attributable_power_draw" MACHINE Watts "W";
    PER_GPU_ATTRIBUTABLE_POWER: Gpu "per_gpu_attributable_power" GPU Watts "W";
    SM: Gpu "sm" GPU_PID Percent "percent of SM time";
    MEMORY: Gpu "memory" GPU_PID Bytes "bytes";
    PER_GPU_ATTRIBUTABLE_MEM_USE: Gpu "per_gpu_attributable_mem_use" GPU_PID Bytes "bytes";
    PER_GPU_PER_PID_UTILIZATION_ABSOLUTE: Gpu "per_gpu_per_pid_utilization_absolute" GPU_PID Fraction "fraction of SM time";
    PER_GPU_ABSOLUTE_PERCENT_USAGE: Gpu "per_gpu_absolute_percent_usage" GPU Fraction "fraction of SM time";
    PER_GPU_ESTIMATED_ATTRIBUTABLE_UTILIZATION: Gpu "per_gpu_estimated_attributable_utilization" GPU Fraction "fraction of used SM time";
}

/// Names of the CPU fields in 2021, each with the present name of the same value.
pub const ALIASES: [(&Field, &Field); 4] = [
    (&CPU_USES, &PER_PROCESS_CPU_USES),
    (&MEM_USE_ABS, &PER_PROCESS_MEM_USE_ABS),
    (&MEM_USE_PERCENT, &PER_PROCESS_MEM_USE_PERCENT),
    (&MEM_USE_USS, &PER_PROCESS_MEM_USE_USS),
];

/// Names that AIPowerMeter's reader makes itself.
const OF_READER: [&str; 3] = ["nvidia_attributable_power", "nvidia_mem_use", "nvidia_sm_use"];

/// The field with this name.
pub fn named(name: &str) -> Option<&'static Field> {
    FIELDS.iter().copied().find(|field| field.name == name)
}

/// Whether AIPowerMeter's reader knows a metric by this name.
pub fn is_reserved(name: &str) -> bool {
    named(name).is_some() || OF_READER.contains(&name)
}

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
        *self == INTEL_POWER || *self == REL_INTEL_POWER
    }

    /// Whether `metrics` has it.
    pub fn is_there(&self, metrics: &Value) -> bool {
        self.find(metrics).is_some()
    }

    /// What `metrics` has of it.
    pub fn find<'a>(&self, metrics: &'a Value) -> Option<&'a Value> {
        metrics
            .get(self.group.as_str())?
            .get(self.name)
            .filter(|value| !value.is_null())
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
