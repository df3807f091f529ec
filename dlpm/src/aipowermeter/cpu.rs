//! AIPowerMeter's fields: `metrics.cpu` of a line, with that tool's names, shapes and units.
//!
//! Figures are floats here and nowhere else in the log; each is made from the integers of the exact part. Its reader
//! takes scalars and flat maps of numbers only, so that what is not known is left out, never `null`.

use serde::Serialize;

use super::{
    fields::{self, Field},
    values::{ByPid, Value, Values},
};
use crate::{
    attribution::ledger::{LeafZone, Ledger, Row, RowKey},
    interval::{MachineMemory, ZoneKind},
};

/// The fields that need a meter.
const METERED: [&Field; 8] = [
    &fields::INTEL_POWER,
    &fields::PSYS_POWER,
    &fields::TOTAL_DRAM_POWER,
    &fields::TOTAL_CPU_POWER,
    &fields::UNCORE_POWER,
    &fields::REL_INTEL_POWER,
    &fields::PER_PROCESS_CPU_POWER,
    &fields::PER_PROCESS_DRAM_POWER,
];

/// The object `metrics.cpu`. The reader takes the duration of a recording from its first key, which therefore is one
/// that every line has.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct CpuMetrics(Values);

impl CpuMetrics {
    /// The metrics of `ledger`. `machine` is the newest reading of the machine's memory, which may be older than the
    /// ledger; `aliases` adds the names that AIPowerMeter used in 2021.
    pub fn of(ledger: &Ledger, machine: Option<MachineMemory>, aliases: bool) -> Self {
        let figures = Figures::of(ledger);
        let watts = Watts(ledger.length_ns());
        let used_bytes = machine.map_or(0, |machine| machine.total_bytes.saturating_sub(machine.available_bytes));
        let total_mem_use = machine.map(|machine| machine.used_bytes);
        // The reader prints DRAM beside the memory of the machine, and fails without that.
        let dram_uj = figures
            .of_leaves(|leaf| leaf.kind == ZoneKind::Dram)
            .filter(|_| total_mem_use.is_some());
        // Where a package is one leaf, its core is shown and not split.
        let core_uj = figures
            .of_leaves(|leaf| leaf.kind == ZoneKind::Core)
            .filter(|_| ledger.roots.iter().all(|root| root.kind != ZoneKind::Core));
        let package = figures.package_kind();
        let resident = figures.per_process(|row| row.memory.map(|memory| memory.resident_bytes()));
        let cpu_ns = figures.per_process(|row| Some(row.cpu_ns()));
        let uss_bytes = figures.per_process(|row| row.memory.and_then(|memory| memory.uss_bytes));
        let rel_intel_power = package
            .and_then(|kind| figures.of_leaves(|leaf| is_inside(leaf, kind)))
            .and_then(|sum| watts.per_process(&sum));

        let mut values = Values::default();
        let mut put = |field, value: Option<Value>| values.put(field, value);
        put(
            &fields::PER_PROCESS_CPU_USES,
            Some(fractions(&cpu_ns, figures.busy_ns()).into()),
        );
        put(
            &fields::ABSOLUTE_CPU_TIME_PER_PID,
            Some(cpu_ns.map(|ns| float(ns) / 1e9).into()),
        );
        put(&fields::PER_PROCESS_MEM_USE_ABS, Some(resident.clone().into()));
        put(
            &fields::PER_PROCESS_MEM_USE_PERCENT,
            Some(fractions(&resident, used_bytes).into()),
        );
        put(&fields::PER_PROCESS_MEM_USE_USS, Some(uss_bytes.into()));
        put(&fields::TOTAL_MEM_USE, total_mem_use.map(Value::Integer));
        let mut put_watts = |field, uj: Option<u64>| put(field, uj.and_then(|uj| watts.of(uj)).map(Value::Number));
        put_watts(&fields::INTEL_POWER, package.and_then(|kind| figures.of_roots(kind)));
        put_watts(&fields::PSYS_POWER, figures.of_roots(ZoneKind::Psys));
        put_watts(&fields::TOTAL_DRAM_POWER, dram_uj.as_ref().map(|sum| sum.total_uj));
        put_watts(&fields::TOTAL_CPU_POWER, figures.of_meters(ZoneKind::Core));
        put_watts(&fields::UNCORE_POWER, figures.of_meters(ZoneKind::Uncore));
        put(&fields::REL_INTEL_POWER, rel_intel_power.map(Value::from));
        let mut put_split = |field, sum: Option<LeafSum>| {
            put(field, sum.and_then(|sum| watts.per_process(&sum)).map(Value::from));
        };
        put_split(&fields::PER_PROCESS_CPU_POWER, core_uj);
        put_split(&fields::PER_PROCESS_DRAM_POWER, dram_uj);
        if aliases {
            for (alias, original) in fields::ALIASES {
                let value = values.get(original).cloned();
                values.put(alias, value);
            }
        }
        Self(values)
    }

    /// Which of the keys that need a meter are there, in a fixed order.
    pub fn power_keys(&self) -> [bool; 8] {
        METERED.map(|field| self.0.get(field).is_some())
    }
}

/// Whether a leaf is part of what `intel_power` covers: the packages, or the estimated machine.
fn is_inside(leaf: &LeafZone, root: ZoneKind) -> bool {
    match root {
        ZoneKind::Machine => leaf.kind == ZoneKind::Machine,
        _ => matches!(
            leaf.kind,
            ZoneKind::Core | ZoneKind::OneCore | ZoneKind::Uncore | ZoneKind::Package
        ),
    }
}

/// Energy of some leaves.
struct LeafSum {
    total_uj: u64,
    by_pid: ByPid<u64>,
}

/// Sums over a ledger, `None` where there is nothing to sum or a part is not known.
struct Figures<'a> {
    ledger: &'a Ledger,
}

impl<'a> Figures<'a> {
    fn of(ledger: &'a Ledger) -> Self {
        Self { ledger }
    }

    /// The kind of root that `intel_power` is made of.
    fn package_kind(&self) -> Option<ZoneKind> {
        [ZoneKind::Package, ZoneKind::Machine]
            .into_iter()
            .find(|kind| self.ledger.roots.iter().any(|root| root.kind == *kind))
    }

    fn busy_ns(&self) -> u64 {
        self.ledger.cpus.iter().fold(0, |sum: u64, cpu| {
            sum.saturating_add(cpu.busy_ns).saturating_add(cpu.lost_ns)
        })
    }

    fn of_roots(&self, kind: ZoneKind) -> Option<u64> {
        let roots = self.ledger.roots.iter().filter(|root| root.kind == kind);
        known_sum(roots.map(|root| root.energy_uj.as_ref().ok().copied()))
    }

    /// Of meters that are split or only shown.
    fn of_meters(&self, kind: ZoneKind) -> Option<u64> {
        let roots = self.ledger.roots.iter().filter(|root| root.kind == kind);
        let leaves = self.ledger.leaves.iter().filter(|leaf| leaf.kind == kind);
        let energies = roots
            .map(|root| &root.energy_uj)
            .chain(leaves.map(|leaf| &leaf.energy_uj));
        known_sum(energies.map(|energy_uj| energy_uj.as_ref().ok().copied()))
    }

    fn of_leaves(&self, wanted: impl Fn(&LeafZone) -> bool) -> Option<LeafSum> {
        let leaves = || self.ledger.leaves.iter().enumerate().filter(|(_, leaf)| wanted(leaf));
        let total_uj = known_sum(leaves().map(|(_, leaf)| leaf.energy_uj.as_ref().ok().copied()))?;
        let positions: Vec<usize> = leaves().map(|(position, _)| position).collect();
        let by_pid = self.per_process(|row| {
            let energies = positions.iter().filter_map(|position| row.energy_uj.get(*position));
            Some(energies.fold(0, |sum: u64, uj| sum.saturating_add(*uj)))
        });
        Some(LeafSum { total_uj, by_pid })
    }

    /// `value` summed over the rows of each pid. The rows are in the order of their pids.
    fn per_process(&self, value: impl Fn(&Row) -> Option<u64>) -> ByPid<u64> {
        let mut by_pid = ByPid(Vec::with_capacity(self.ledger.rows.len()));
        for row in &self.ledger.rows {
            if let (RowKey::Process(id, _), Some(value)) = (&row.key, value(row)) {
                by_pid.add(id.tgid, value);
            }
        }
        by_pid
    }
}

fn known_sum(values: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    values.reduce(|sum, value| Some(sum?.saturating_add(value?))).flatten()
}

/// Makes watts of µJ over so many nanoseconds; there are none over no time.
#[derive(Clone, Copy)]
struct Watts(u64);

impl Watts {
    fn of(self, uj: u64) -> Option<f64> {
        (self.0 > 0).then(|| float(uj) / float(self.0) * 1000.0)
    }

    fn per_process(self, sum: &LeafSum) -> Option<ByPid<f64>> {
        (self.0 > 0).then(|| sum.by_pid.map(|uj| self.of(uj).unwrap_or_default()))
    }
}

fn fractions(parts: &ByPid<u64>, whole: u64) -> ByPid<f64> {
    if whole == 0 {
        return ByPid::default();
    }
    parts.map(|part| float(part) / float(whole))
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
        interval::{MeterSource, ZoneReading},
        sinks::testing::{all_zones, ledger, zone},
    };

    fn metrics(zones: Vec<ZoneReading>, aliases: bool) -> Value {
        let ledger = ledger(0, zones);
        serde_json::to_value(CpuMetrics::of(&ledger, ledger.machine_memory, aliases)).unwrap()
    }

    #[test]
    fn every_field_has_its_definition() {
        // 1.5 s were busy or lost; energy follows them: python has 1 / 1.5 of it, bash 0.25 / 1.5.
        let third = 20.0 / 3.0;
        let expected = json!({
            "per_process_cpu_uses": {"100": 1.0 / 1.5, "200": 0.25 / 1.5, "300": 0.0},
            "absolute_cpu_time_per_pid": {"100": 1.0, "200": 0.25, "300": 0.0},
            "per_process_mem_use_abs": {"100": 3_000_000_000u64, "300": 1_000_000_000},
            "per_process_mem_use_percent": {"100": 0.3, "300": 0.1},
            "per_process_mem_use_uss": {"100": 1_500_000_000, "300": 500_000_000},
            "total_mem_use": 9_000_000_000u64,
            "intel_power": 40.0,
            "psys_power": 60.0,
            "total_dram_power": 8.0,
            "total_cpu_power": 20.0,
            "uncore_power": 4.0,
            "rel_intel_power": {"100": 4.0 * third, "200": third, "300": 0.0},
            "per_process_cpu_power": {"100": 2.0 * third, "200": third / 2.0, "300": 0.0},
            "per_process_dram_power": {"100": 2.4, "200": 0.0, "300": 0.8},
        });
        let metrics = metrics(all_zones(), false);
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&metrics), keys(&expected));
        for (key, expected) in expected.as_object().unwrap() {
            close(&metrics[key], expected, key);
        }
    }

    /// Equal but for the µJ that a split rounds.
    fn close(value: &Value, expected: &Value, key: &str) {
        match expected {
            Value::Object(map) => {
                assert_eq!(value.as_object().unwrap().len(), map.len(), "{key}");
                map.iter().for_each(|(pid, expected)| close(&value[pid], expected, key));
            }
            _ => {
                let (value, expected) = (value.as_f64().unwrap(), expected.as_f64().unwrap());
                assert!((value - expected).abs() <= 3e-6, "{key}: {value}, not {expected}");
            }
        }
    }

    #[test]
    fn aliases_repeat_their_originals() {
        let metrics = metrics(all_zones(), true);
        for (alias, original) in [
            ("cpu_uses", "per_process_cpu_uses"),
            ("mem_use_abs", "per_process_mem_use_abs"),
            ("mem_use_percent", "per_process_mem_use_percent"),
            ("mem_use_uss", "per_process_mem_use_uss"),
        ] {
            assert_eq!(metrics[alias], metrics[original]);
            assert!(metrics[alias].is_object());
        }
    }

    #[test]
    fn what_is_absent_or_not_known_is_left_out() {
        let none = metrics(Vec::new(), false);
        assert_eq!(none.as_object().unwrap().len(), 6, "{none}");

        let mut reset = all_zones();
        reset[2].energy_uj = Err("reset".to_owned());
        let reset = metrics(reset, false);
        assert_eq!(reset["intel_power"], 40.0);
        // The package is one leaf, and split as a whole; its core is shown.
        assert_eq!(reset["total_cpu_power"], 20.0);
        assert!(reset.get("uncore_power").is_none() && reset.get("per_process_cpu_power").is_none());
        assert_eq!(reset["rel_intel_power"]["100"], 26.666_667);

        // One package of two says nothing about the sum.
        let mut two = all_zones();
        two.push(zone("package-1", ZoneKind::Package, Err("reset")));
        let two = metrics(two, false);
        assert!(two.get("intel_power").is_none() && two.get("total_cpu_power").is_some());
    }

    #[test]
    fn an_estimate_fills_intel_power() {
        let machine = ZoneReading {
            source: MeterSource::Estimate,
            ..zone("machine", ZoneKind::Machine, Ok(15_000_000))
        };
        let metrics = metrics(vec![machine], false);
        assert_eq!(metrics["intel_power"], 15.0);
        assert_eq!(metrics["rel_intel_power"]["100"], 10.0);
        assert!(metrics.get("total_cpu_power").is_none());
    }

    #[test]
    fn no_time_and_no_memory_give_no_figures() {
        let mut ledger = ledger(0, all_zones());
        ledger.cpus.clear();
        ledger.end_ns = ledger.begin_ns;
        let metrics = serde_json::to_value(CpuMetrics::of(&ledger, None, false)).unwrap();
        assert_eq!(metrics["per_process_cpu_uses"], json!({}));
        assert_eq!(metrics["per_process_mem_use_percent"], json!({}));
        assert!(metrics.get("intel_power").is_none() && metrics.get("rel_intel_power").is_none());
    }
}
