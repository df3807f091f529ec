//! GPUs, and who used them.

use super::{Column, Depth, Kind, Look, Row, Table, Unit, Value, count, known, largest};
use crate::totals::{
    Share, Totals, ZoneTotal,
    gpus::{GpuUsage, Gpus},
};

/// For each GPU: listed processes, the rows that are not processes and got something of it, and its sum.
pub fn gpus(totals: &Totals, gpus: &Gpus, depth: Depth) -> Table {
    let mut rows = Vec::new();
    for (zone, gpu) in &gpus.totals {
        let mut add = |kind: Kind, [tgid, start_ns, comm]: [Value; 3], sm: Value, energy_uj: Option<u128>| {
            rows.push(Row {
                kind,
                values: vec![
                    Value::from(zone.as_str()),
                    count(gpu.index),
                    Value::from(gpu.name.as_str()),
                    Value::from(kind.word("process")),
                    tgid,
                    start_ns,
                    comm,
                    sm.clone(),
                    sm,
                    known(energy_uj, Value::Whole),
                    known(energy_uj, Value::Whole),
                ],
            });
        };
        let nobody = || [Value::None, Value::None, Value::None];
        let processes = gpu.processes.iter().map(|(id, process)| {
            let names = vec![count(id.tgid), count(id.start_ns), Value::from(&*process.comm)];
            (names, (*id, process))
        });
        let size =
            |(id, process): &(_, &crate::totals::gpus::GpuProcess)| (process.usage.energy_uj, std::cmp::Reverse(*id));
        let (processes, smaller) = largest(processes.collect(), depth.top, size);
        for (names, (_, process)) in processes {
            let usage = process.usage;
            let names = <[Value; 3]>::try_from(names).unwrap_or_else(|_| nobody());
            add(Kind::Named, names, count(usage.sm_percent_us), usage.energy());
        }
        let mut rest = gpu.other_processes;
        smaller.into_iter().for_each(|(_, process)| rest.add_all(process.usage));
        if rest != GpuUsage::default() {
            add(Kind::Smaller, nobody(), count(rest.sm_percent_us), rest.energy());
        }
        let total = totals.zones.iter().find(|total| total.zone == *zone);
        for share in Share::FIXED {
            let energy_uj = total.and_then(|total| total.shares_uj.get(&share));
            if let Some(energy_uj) = energy_uj.filter(|energy_uj| **energy_uj > 0) {
                add(Kind::Fixed(share), nobody(), Value::None, Some(*energy_uj));
            }
        }
        // SM time of those that are not listed is in no row.
        add(Kind::Total, nobody(), Value::None, total.and_then(ZoneTotal::energy));
    }
    Table {
        id: "gpus",
        title: "GPUs and the listed processes on them".to_owned(),
        notes: Vec::new(),
        columns: vec![
            Column::programs("zone", Unit::Plain),
            Column::new("index", "GPU", Unit::Plain).look(Look::Aside),
            Column::new("name", "product", Unit::Plain).look(Look::Common),
            Column::programs("row", Unit::Plain),
            Column::new("tgid", "pid", Unit::Plain).look(Look::Aside),
            Column::programs("start_ns", Unit::Plain),
            Column::new("comm", "command", Unit::Plain).look(Look::Name),
            Column::programs("sm_percent_us", Unit::Exact(8)),
            Column::new("sm_s", "SM time s", Unit::Float(8)),
            Column::new("energy_uj", "energy J", Unit::UJ),
            Column::programs("joules", Unit::JOULES),
        ],
        rows,
    }
}
