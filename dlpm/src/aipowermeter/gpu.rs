//! AIPowerMeter's fields: `metrics.gpu` of a line, with that tool's names, shapes and units of three generations.
//!
//! GPUs are named by their index. Its reader wants every GPU that is there to have a number in each of the maps that
//! it takes; so the GPUs here are those whose energy is known, and a line in which there is none has no `metrics.gpu`.

use serde::Serialize;

use super::{
    fields,
    values::{ByGpu, ByPid, Value, Values},
};
use crate::{
    attribution::ledger::{GpuFacts, GpuUse, Ledger, Row, RowKey},
    interval::GpuUsage,
};

/// The object `metrics.gpu`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct GpuMetrics(Values);

impl GpuMetrics {
    /// The metrics of `ledger`; `None` without a GPU whose energy is known.
    pub fn of(ledger: &Ledger) -> Option<Self> {
        let length_ns = ledger.length_ns();
        if length_ns == 0 {
            return None;
        }
        let gpus: Vec<Gpu<'_>> = ledger
            .gpus
            .iter()
            // Its names are NVIDIA's.
            .filter(|facts| facts.usage == GpuUsage::Sm)
            .filter_map(|facts| Gpu::of(facts, ledger))
            .collect();
        if gpus.is_empty() {
            return None;
        }
        let watts = |uj: u64| float(uj) / float(length_ns) * 1000.0;
        let total = |of: &dyn Fn(&Gpu<'_>) -> u64| gpus.iter().fold(0, |sum: u64, gpu| sum.saturating_add(of(gpu)));
        let draw = watts(total(&|gpu| gpu.energy_uj));
        let attributable = watts(total(&|gpu| gpu.listed_uj));
        // 100 % over the interval, in percent × µs.
        let percent = |percent_us: u64| float(percent_us) / (float(length_ns) / 1000.0);

        let use_rate = |gpu: &Gpu<'_>| {
            let measured = gpu.facts.utilization_percent.map(f64::from);
            measured.unwrap_or_else(|| percent(gpu.sm_percent_us).min(100.0))
        };
        let used_bytes = |gpu: &Gpu<'_>| gpu.facts.memory_used_bytes.unwrap_or(gpu.memory_bytes);
        let number = |of: &dyn Fn(&Gpu<'_>) -> f64| by_gpu(&gpus, of);
        let mut attributable_power = number(&|gpu| watts(gpu.listed_uj));
        attributable_power.insert("all".to_owned(), attributable);
        let memory = by_gpu(&gpus, &|gpu| gpu.listed_by_pid(|usage| usage.memory_bytes));
        let sm = by_gpu(&gpus, &|gpu| {
            gpu.listed_by_pid(|usage| Some(usage.sm_percent_us)).map(percent)
        });
        let mean_use_rate = gpus
            .iter()
            .fold(0.0, |sum, gpu| sum + use_rate(gpu) / float(gpus.len() as u64));

        let mut values = Values::default();
        let mut put = |field, value: Value| values.put(field, Some(value));
        put(&fields::NVIDIA_POWER, draw.into());
        put(&fields::NVIDIA_USE_RATE, mean_use_rate.into());
        put(&fields::NVIDIA_MEMORY, total(&used_bytes).into());
        put(
            &fields::PER_GPU_NVIDIA_POWER,
            number(&|gpu| watts(gpu.energy_uj)).into(),
        );
        put(&fields::PER_GPU_NVIDIA_USE_RATE, number(&use_rate).into());
        put(&fields::PER_GPU_NVIDIA_MEMORY, by_gpu(&gpus, &used_bytes).into());
        put(&fields::NVIDIA_DRAW_ABSOLUTE, draw.into());
        put(&fields::NVIDIA_ESTIMATED_ATTRIBUTABLE_POWER_DRAW, attributable.into());
        put(&fields::PER_GPU_POWER_DRAW, number(&|gpu| watts(gpu.energy_uj)).into());
        put(&fields::PER_GPU_ATTRIBUTABLE_POWER, attributable_power.into());
        put(&fields::PER_GPU_ATTRIBUTABLE_MEM_USE, memory.clone().into());
        let absolute: ByGpu<ByPid<f64>> = sm
            .iter()
            .map(|(index, sm)| (index.clone(), sm.map(|percent| percent / 100.0)))
            .collect();
        put(&fields::PER_GPU_PER_PID_UTILIZATION_ABSOLUTE, absolute.into());
        let used = number(&|gpu| percent(gpu.listed_sm_percent_us) / 100.0);
        put(&fields::PER_GPU_ABSOLUTE_PERCENT_USAGE, used.into());
        let share = number(&|gpu| fraction(gpu.listed_sm_percent_us, gpu.sm_percent_us));
        put(&fields::PER_GPU_ESTIMATED_ATTRIBUTABLE_UTILIZATION, share.into());
        put(&fields::SM, sm.into());
        put(&fields::MEMORY, memory.into());
        Some(Self(values))
    }
}

/// A value of each GPU, by its index.
fn by_gpu<T>(gpus: &[Gpu<'_>], of: &dyn Fn(&Gpu<'_>) -> T) -> ByGpu<T> {
    gpus.iter().map(|gpu| (gpu.facts.index.to_string(), of(gpu))).collect()
}

/// A GPU whose energy is known.
struct Gpu<'a> {
    facts: &'a GpuFacts,
    rows: &'a [Row],
    energy_uj: u64,
    /// What the listed processes have of it.
    listed_uj: u64,
    /// SM time of all processes, and of the listed ones.
    sm_percent_us: u64,
    listed_sm_percent_us: u64,
    /// Memory of all processes that tell theirs.
    memory_bytes: u64,
}

impl<'a> Gpu<'a> {
    fn of(facts: &'a GpuFacts, ledger: &'a Ledger) -> Option<Self> {
        let position = ledger.leaves.iter().position(|leaf| leaf.zone == facts.zone)?;
        let energy_uj = *ledger.leaves.get(position)?.energy_uj.as_ref().ok()?;
        let mut gpu = Self {
            facts,
            rows: &ledger.rows,
            energy_uj,
            listed_uj: 0,
            sm_percent_us: 0,
            listed_sm_percent_us: 0,
            memory_bytes: 0,
        };
        for row in &ledger.rows {
            let is_listed = matches!(row.key, RowKey::Process(..) | RowKey::Merged(_));
            let sm_percent_us = gpu.of_row(row).map_or(0, |usage| usage.sm_percent_us);
            gpu.sm_percent_us = gpu.sm_percent_us.saturating_add(sm_percent_us);
            let memory_bytes = gpu.of_row(row).and_then(|usage| usage.memory_bytes).unwrap_or(0);
            gpu.memory_bytes = gpu.memory_bytes.saturating_add(memory_bytes);
            if is_listed {
                gpu.listed_sm_percent_us = gpu.listed_sm_percent_us.saturating_add(sm_percent_us);
                let row_uj = row.energy_uj.get(position).copied().unwrap_or(0);
                gpu.listed_uj = gpu.listed_uj.saturating_add(row_uj);
            }
        }
        Some(gpu)
    }

    fn of_row(&self, row: &'a Row) -> Option<&'a GpuUse> {
        row.gpus.get(&self.facts.zone)
    }

    /// A number of each listed process that has one, rows of one pid summed. The rows are in the order of their pids.
    fn listed_by_pid(&self, value: impl Fn(&GpuUse) -> Option<u64>) -> ByPid<u64> {
        let mut by_pid = ByPid::default();
        for row in self.rows {
            if let (RowKey::Process(id, _), Some(value)) = (&row.key, self.of_row(row).and_then(&value)) {
                by_pid.add(id.tgid, value);
            }
        }
        by_pid
    }
}

fn fraction(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { float(part) / float(whole) }
}

/// The nearest float; exact below 2^53.
fn float(integer: u64) -> f64 {
    integer as f64
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        attribution::{Options, attribute, energy_tree::Carries},
        interval::{GpuProcess, GpuReading, Interval, MeterSource},
        sinks::testing::{id, interval},
    };

    fn process(pid: u32, sm_percent_us: u64, memory_bytes: Option<u64>) -> GpuProcess {
        GpuProcess {
            pid,
            sm_percent_us,
            mem_percent_us: None,
            memory_bytes,
            instances: Vec::new(),
        }
    }

    fn gpu(index: u32, energy_uj: Result<u64, &str>, processes: Vec<GpuProcess>) -> GpuReading {
        GpuReading {
            uuid: format!("GPU-{index}"),
            index,
            name: "GPU".to_owned(),
            pci: String::new(),
            energy_uj: energy_uj.map_err(str::to_owned),
            counter_uj: None,
            source: MeterSource::NvmlEnergy,
            read_at_ns: None,
            power_mw: None,
            utilization_percent: None,
            memory_used_bytes: None,
            memory_total_bytes: None,
            usage: GpuUsage::Sm,
            inside: None,
            mig: false,
            sm_time: Ok(()),
            lists: Ok(()),
            dropped_samples: 0,
            notes: Vec::new(),
            processes,
        }
    }

    /// One second; python 100 is listed, bash 200 too, dlpm (9) is a row of its own.
    fn metrics(gpus: Vec<GpuReading>) -> Value {
        let interval = Interval {
            gpus,
            gpu_owners: [(100, (id(100), 1)), (200, (id(200), 3)), (9, (id(9), 3))].into(),
            ..interval(0, Vec::new())
        };
        let ledger = attribute(&interval, &Options::default(), &Carries::default());
        serde_json::to_value(GpuMetrics::of(&ledger)).unwrap()
    }

    #[test]
    fn every_field_has_its_definition() {
        let shared = vec![
            process(100, 50_000_000, Some(3_000)),
            process(200, 10_000_000, None),
            process(9, 20_000_000, Some(500)),
        ];
        let first = GpuReading {
            utilization_percent: Some(90),
            memory_used_bytes: Some(4_000),
            ..gpu(0, Ok(160_000_000), shared)
        };
        let second = gpu(2, Ok(40_000_000), vec![process(9, 5_000_000, Some(70))]);
        let expected = json!({
            "nvidia_power": 200.0,
            "nvidia_use_rate": 47.5,
            "nvidia_memory": 4_070,
            "per_gpu_nvidia_power": {"0": 160.0, "2": 40.0},
            "per_gpu_nvidia_use_rate": {"0": 90.0, "2": 5.0},
            "per_gpu_nvidia_memory": {"0": 4_000, "2": 70},
            "nvidia_draw_absolute": 200.0,
            "nvidia_estimated_attributable_power_draw": 120.0,
            "per_gpu_power_draw": {"0": 160.0, "2": 40.0},
            "per_gpu_attributable_power": {"0": 120.0, "2": 0.0, "all": 120.0},
            "per_gpu_attributable_mem_use": {"0": {"100": 3_000}, "2": {}},
            "per_gpu_per_pid_utilization_absolute": {"0": {"100": 0.5, "200": 0.1}, "2": {}},
            "per_gpu_absolute_percent_usage": {"0": 0.6, "2": 0.0},
            "per_gpu_estimated_attributable_utilization": {"0": 0.75, "2": 0.0},
            "sm": {"0": {"100": 50.0, "200": 10.0}, "2": {}},
            "memory": {"0": {"100": 3_000}, "2": {}},
        });
        assert_eq!(metrics(vec![first, second]), expected);
    }

    #[test]
    fn a_gpu_that_is_not_known_is_left_out_and_none_is_no_object() {
        let found = metrics(vec![gpu(0, Err("lost"), vec![]), gpu(1, Ok(5_000_000), vec![])]);
        assert_eq!(found["per_gpu_nvidia_power"], json!({"1": 5.0}));
        assert_eq!(found["nvidia_power"], 5.0);
        assert_eq!(metrics(vec![gpu(0, Err("lost"), vec![])]), Value::Null);
        assert_eq!(metrics(vec![]), Value::Null);
    }
}
