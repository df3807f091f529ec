//! What holds for GPUs in every interval, in addition to what holds for every leaf.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::{
    ledger::{Method, RowKey},
    properties::{interval, number, options, process_id},
    *,
};
use crate::interval::{GpuProcess, GpuReading, MeterSource, ProcessId};

/// A GPU, and who some pids are.
pub(super) fn gpu() -> impl Strategy<Value = (GpuReading, BTreeMap<u32, (ProcessId, u64)>)> {
    let process = (
        0..12u32,
        prop_oneof![1 => Just(0), 2 => number()],
        prop::option::of(number()),
    );
    let known =
        |probability| prop::bool::weighted(probability).prop_map(|known| known.then_some(()).ok_or("no".to_owned()));
    (
        0..3u32,
        prop_oneof![5 => number().prop_map(Ok), 1 => Just(Err("lost".to_owned()))],
        vec(process, 0..5),
        known(0.7),
        known(0.8),
        vec((process_id(), 0..4u64), 0..4),
    )
        .prop_map(|(index, energy_uj, processes, sm_time, lists, owners)| {
            let processes: BTreeMap<u32, _> = processes
                .into_iter()
                .map(|(pid, sm, memory)| (pid, (sm, memory)))
                .collect();
            let gpu = GpuReading {
                uuid: format!("GPU-{index}"),
                index,
                name: "GPU".into(),
                pci: "00000000:01:00.0".into(),
                energy_uj,
                counter_uj: None,
                source: MeterSource::NvmlEnergy,
                read_at_ns: None,
                power_mw: None,
                utilization_percent: None,
                memory_used_bytes: None,
                memory_total_bytes: None,
                usage: crate::interval::GpuUsage::Sm,
                inside: None,
                mig: false,
                sm_time,
                lists,
                dropped_samples: 0,
                notes: Vec::new(),
                processes: processes
                    .into_iter()
                    .map(|(pid, (sm_percent_us, memory_bytes))| GpuProcess {
                        pid,
                        sm_percent_us,
                        mem_percent_us: None,
                        memory_bytes,
                        instances: Vec::new(),
                    })
                    .collect(),
            };
            (
                gpu,
                owners.into_iter().map(|(id, cgroup)| (id.tgid, (id, cgroup))).collect(),
            )
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// A GPU's energy goes where its method says, and to no row that did nothing there.
    #[test]
    fn a_gpu_is_split_by_its_method(interval in interval(), options in options()) {
        let ledger = attribute(&interval, &options, &Carries::default());
        for (gpu, facts) in interval.gpus.iter().zip(&ledger.gpus) {
            let position = ledger.leaves.iter().position(|leaf| leaf.zone == facts.zone).unwrap();
            let leaf = &ledger.leaves[position];
            let uses = ledger.rows.iter().filter_map(|row| row.gpus.get(&facts.zone));
            let of_rows: u32 = uses.map(|usage| usage.processes).sum();
            prop_assert_eq!(of_rows as usize, gpu.processes.len());
            let Ok(energy_uj) = leaf.energy_uj else { continue };
            let floor_mw = leaf.idle_floor_mw.unwrap_or(0);
            let floor_uj = u128::from(floor_mw) * u128::from(interval.end_ns) / 1_000_000;
            let of_key = |key: &RowKey| {
                let row = ledger.rows.iter().find(|row| row.key == *key).unwrap();
                row.energy_uj[position]
            };
            let floor_uj = u64::try_from(floor_uj).unwrap_or(u64::MAX).min(energy_uj);
            match leaf.method {
                Method::NoProcess => prop_assert_eq!(of_key(&RowKey::Idle), energy_uj),
                Method::NotSplit => {
                    prop_assert_eq!(of_key(&RowKey::Idle), floor_uj);
                    prop_assert_eq!(of_key(&RowKey::Unattributed), energy_uj - floor_uj);
                }
                Method::Sm | Method::SoleProcess => {
                    if options.idle_policy != IdlePolicy::Capacity {
                        prop_assert_eq!(of_key(&RowKey::Idle), floor_uj);
                    }
                    for row in ledger.rows.iter().filter(|row| row.energy_uj[position] > 0) {
                        let takes_rest = matches!(row.key, RowKey::Idle | RowKey::Unattributed);
                        prop_assert!(takes_rest || row.gpus.contains_key(&facts.zone), "{row:?}");
                    }
                }
                other => prop_assert!(false, "{other:?}"),
            }
            prop_assert_eq!(leaf.method == Method::NoProcess, gpu.processes.is_empty() && gpu.lists.is_ok());
            let is_alone = gpu.processes.len() == 1 && gpu.lists.is_ok();
            if is_alone && options.idle_policy == IdlePolicy::Proportional {
                let row = ledger.rows.iter().find(|row| row.gpus.contains_key(&facts.zone)).unwrap();
                prop_assert_eq!(row.energy_uj[position], energy_uj);
            }
        }
    }
}
