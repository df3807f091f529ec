//! GPUs: a leaf for each, and how it is split.
//!
//! The processes that used a GPU share its energy by their SM time, or by the time of its engines. Where that cannot say anything, a process that was
//! alone takes all, and a GPU without a process is idle; the rest is nobody's, and never split by memory: what a
//! process holds on a GPU says nothing about what it does there.

use std::collections::BTreeMap;

use crate::{
    attribution::{
        ledger::{GpuFacts, GpuUse, IdlePolicy, LeafZone, Method, Row, RowKey},
        share::Rules,
        split::split,
    },
    interval::{GpuReading, GpuUsage, ZoneKind},
};

/// Name of the zone of a GPU: `gpu-` and its UUID.
pub fn zone_name(uuid: &str) -> String {
    format!("gpu-{}", uuid.strip_prefix("GPU-").unwrap_or(uuid))
}

/// Name of the zone that has the energy of a GPU.
pub fn zone_of(gpu: &GpuReading) -> String {
    gpu.inside.clone().unwrap_or_else(|| zone_name(&gpu.uuid))
}

/// What the log shows of each GPU beside its energy, in an interval that ended at `end_ns`.
pub fn facts(readings: &[GpuReading], end_ns: u64) -> Vec<GpuFacts> {
    readings
        .iter()
        .map(|gpu| GpuFacts {
            zone: zone_of(gpu),
            usage: gpu.usage,
            inside: gpu.inside.is_some(),
            uuid: gpu.uuid.clone(),
            index: gpu.index,
            name: gpu.name.clone(),
            pci: gpu.pci.clone(),
            mig: gpu.mig,
            read_late_ns: gpu
                .read_at_ns
                .map(|at_ns| at_ns.cast_signed().saturating_sub(end_ns.cast_signed())),
            power_mw: gpu.power_mw,
            utilization_percent: gpu.utilization_percent,
            memory_used_bytes: gpu.memory_used_bytes,
            memory_total_bytes: gpu.memory_total_bytes,
            sm_time_missing: gpu.sm_time.clone().err(),
            lists_missing: gpu.lists.clone().err(),
            dropped_samples: gpu.dropped_samples,
            notes: gpu.notes.clone(),
        })
        .collect()
}

/// The leaf of each GPU that is not inside a package, in the order of `readings`.
pub fn leaves(readings: &[GpuReading], facts: &[GpuFacts], rows: &[Row], policy: IdlePolicy) -> Vec<LeafZone> {
    readings
        .iter()
        .zip(facts)
        .filter(|(_, facts)| !facts.inside)
        .map(|(gpu, facts)| LeafZone {
            zone: facts.zone.clone(),
            kind: ZoneKind::Gpu,
            rest: false,
            package: None,
            energy_uj: gpu.energy_uj.clone(),
            counter_uj: gpu.counter_uj,
            range_uj: None,
            source: gpu.source,
            method: method(facts, rows, policy),
            idle_floor_mw: None,
        })
        .collect()
}

/// How the energy of a GPU is split among `rows`.
///
/// Under [`IdlePolicy::Capacity`] a process that was alone has its share of the GPU's time too, where that is known.
pub fn method(gpu: &GpuFacts, rows: &[Row], policy: IdlePolicy) -> Method {
    let uses = || rows.iter().filter_map(|row| row.gpus.get(&gpu.zone));
    let processes: u64 = uses().map(|usage| u64::from(usage.processes)).sum();
    let sm_known = gpu.sm_time_missing.is_none();
    let by_usage = match gpu.usage {
        GpuUsage::Sm => Method::Sm,
        GpuUsage::EngineTime => Method::EngineTime,
    };
    let has_samples = uses().any(|usage| usage.sm_percent_us > 0);
    match processes {
        0 if gpu.lists_missing.is_none() => Method::NoProcess,
        0 => Method::NotSplit,
        _ if policy == IdlePolicy::Capacity && sm_known => by_usage,
        1 if gpu.lists_missing.is_none() => Method::SoleProcess,
        _ if has_samples => by_usage,
        _ => Method::NotSplit,
    }
}

/// How a leaf of a package is split, which is by `method` unless it is the energy of a GPU whose use is known.
pub fn method_inside(leaf: &str, method: Method, gpus: &[GpuFacts], rows: &[Row], policy: IdlePolicy) -> Method {
    let gpu = gpus.iter().find(|gpu| gpu.inside && gpu.zone == leaf);
    match gpu.map(|gpu| self::method(gpu, rows, policy)) {
        // Then it is not better than CPU time, which the other parts have.
        None | Some(Method::NotSplit) => method,
        Some(by_use) => by_use,
    }
}

/// Whether a leaf is split here.
pub fn is_gpu_method(method: Method) -> bool {
    matches!(
        method,
        Method::Sm | Method::EngineTime | Method::SoleProcess | Method::NoProcess | Method::NotSplit
    )
}

/// The part of a GPU's `energy_uj`, without an idle floor, that each row gets; adds up to `energy_uj`.
pub fn share(energy_uj: u64, leaf: &LeafZone, rows: &[Row], rules: &Rules<'_>) -> Vec<u64> {
    let sm = |row: &Row| row.gpus.get(&leaf.zone).map_or(0, |usage| usage.sm_percent_us);
    // 100 % over the interval, in percent × µs: 100 / 1000 of its ns.
    let capacity = u128::from(rules.length_ns) / 10;
    let used = rows.iter().fold(0, |sum: u128, row| sum + u128::from(sm(row)));
    let weight = |row: &Row| match leaf.method {
        Method::Sm | Method::EngineTime if row.key == RowKey::Idle && rules.idle_policy == IdlePolicy::Capacity => {
            capacity.saturating_sub(used)
        }
        Method::Sm | Method::EngineTime => sm(row).into(),
        Method::SoleProcess => row.gpus.get(&leaf.zone).map_or(0, |usage| usage.processes.into()),
        _ => 0,
    };
    let weights: Vec<u128> = rows.iter().map(weight).collect();
    split(energy_uj, &weights).unwrap_or_else(|| {
        let fallback = match leaf.method {
            Method::NoProcess => RowKey::Idle,
            _ => RowKey::Unattributed,
        };
        rows.iter()
            .map(|row| if row.key == fallback { energy_uj } else { 0 })
            .collect()
    })
}

/// Adds what another process or row did on GPUs.
pub fn add(sum: &mut BTreeMap<String, GpuUse>, other: &BTreeMap<String, GpuUse>) {
    for (zone, usage) in other {
        let sum = sum.entry(zone.clone()).or_default();
        sum.processes = sum.processes.saturating_add(usage.processes);
        sum.sm_percent_us = sum.sm_percent_us.saturating_add(usage.sm_percent_us);
        sum.mem_percent_us = match (sum.mem_percent_us, usage.mem_percent_us) {
            (Some(sum), Some(more)) => Some(sum.saturating_add(more)),
            (sum, more) => sum.or(more),
        };
        sum.memory_bytes = match (sum.memory_bytes, usage.memory_bytes) {
            (Some(sum), Some(more)) => Some(sum.saturating_add(more)),
            (sum, more) => sum.or(more),
        };
        for instance in &usage.instances {
            if !sum.instances.contains(instance) {
                sum.instances.push(instance.clone());
            }
        }
    }
}
