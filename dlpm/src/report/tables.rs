//! The tables of a report, for every way to write them.

use super::collect::Collected;
use crate::{
    aipowermeter::recorded::ForeignProcess,
    tables::{
        Column, Depth, Kind, Look, Row, Table, Unit, Value, consumers, given, gpus, largest,
        phases::{self, Inferences},
        zones,
    },
};

/// What tables are made of.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    /// The sums.
    pub collected: &'a Collected,
    /// How much of a table is shown.
    pub depth: Depth,
    /// Inferences in the window, if that was said.
    pub inferences: Option<Inferences>,
}

impl Tables<'_> {
    /// Zones, with who got what of them.
    pub fn zones(&self) -> Table {
        zones::zones(&self.collected.totals, self.depth)
    }

    /// Processes, and the rows that are none.
    pub fn processes(&self) -> Table {
        consumers::processes(&self.collected.totals, self.depth)
    }

    /// Listed processes, summed by cgroup.
    pub fn cgroups(&self) -> Table {
        consumers::cgroups(&self.collected.totals, self.depth)
    }

    /// Listed processes, summed by name.
    pub fn comms(&self) -> Table {
        consumers::comms(&self.collected.totals, &self.collected.comms, self.depth)
    }

    /// Listed processes, summed by whose they are.
    pub fn groups(&self) -> Table {
        consumers::groups(&self.collected.totals, &self.collected.groups, self.depth)
    }

    /// GPUs, and who used them.
    pub fn gpus(&self) -> Table {
        gpus::gpus(&self.collected.totals, &self.collected.gpus, self.depth)
    }

    /// Phases; people see the energy of `zones` as well if they want to.
    pub fn phases(&self, zones: bool) -> Table {
        let (totals, sums) = (&self.collected.totals, &self.collected.phases);
        phases::phases(totals, sums, self.depth, zones, self.inferences)
    }

    /// Zones of a log that AIPowerMeter recorded: watts, integrated.
    pub fn foreign_zones(&self) -> Table {
        let rows = self.collected.foreign.zones.iter().map(|(name, zone)| {
            let average = (zone.known_s > 0.0).then(|| zone.joules / zone.known_s);
            named(vec![
                Value::from(name.as_str()),
                Value::Real(zone.joules),
                Value::Real(zone.known_s),
                given(average, Value::Real),
                Value::Real(zone.peak_w),
            ])
        });
        Table {
            id: "aipowermeter",
            title: "Energy by AIPowerMeter's watts".to_owned(),
            notes: vec!["each sample's watts over the time since the sample before it".to_owned()],
            columns: vec![
                Column::new("zone", "zone", Unit::Plain).look(Look::Name),
                Column::new("joules", "J", Unit::Decimals(3)),
                Column::new("known_s", "s known", Unit::Decimals(3)),
                Column::new("average_w", "average W", Unit::Decimals(3)),
                Column::new("peak_w", "peak W", Unit::Decimals(3)),
            ],
            rows: rows.collect(),
        }
    }

    /// Processes of a log that AIPowerMeter recorded.
    pub fn foreign_processes(&self) -> Table {
        let size = |process: &&ForeignProcess| {
            let joules = process.package_joules.or(process.core_joules).unwrap_or(0.0);
            // Not negative, so that bits are in the order of values.
            joules.max(0.0).to_bits()
        };
        let processes = self.collected.foreign.processes.iter();
        let processes = processes.map(|(pid, process)| (vec![Value::from(pid.as_str())], process));
        let (processes, _) = largest(processes.collect(), self.depth.top, size);
        let number = |number: Option<f64>| given(number, Value::Real);
        let rows = processes.into_iter().map(|(mut values, process)| {
            let figures = [
                process.cpu_s,
                process.package_joules,
                process.core_joules,
                process.dram_joules,
            ];
            values.extend(figures.map(number));
            named(values)
        });
        Table {
            id: "aipowermeter-processes",
            title: "Its processes".to_owned(),
            notes: Vec::new(),
            columns: vec![
                Column::new("tgid", "pid", Unit::Plain).look(Look::Name),
                Column::new("cpu_s", "CPU time s", Unit::Decimals(3)),
                Column::new("package_joules", "package J", Unit::Decimals(3)),
                Column::new("core_joules", "core J", Unit::Decimals(3)),
                Column::new("dram_joules", "dram J", Unit::Decimals(3)),
            ],
            rows: rows.collect(),
        }
    }
}

fn named(values: Vec<Value>) -> Row {
    Row {
        kind: Kind::Named,
        values,
    }
}
