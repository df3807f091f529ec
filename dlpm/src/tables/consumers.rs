//! Who used how much: processes, their names, cgroups, and the rows that are not processes.

use std::collections::{BTreeMap, HashSet};

use super::{Column, Depth, Kind, Look, Row, Table, Unit, Value, average, count, given, highest, known, largest};
use crate::{
    interval::ZoneKind,
    totals::{
        Amount, Peak, Share, Totals, Usage,
        comms::Comms,
        groups::{self, Grouping},
    },
};

/// What a row shows.
struct Used {
    kind: Kind,
    amount: Amount,
    /// `None` for a sum of groups.
    peak: Option<Peak>,
}

/// A column, and what it has of a row.
type Field<'a> = (Column, Box<dyn Fn(&Used) -> Value + 'a>);

/// What stands in a table of groups beside their names.
fn usage<'a>(totals: &'a Totals, depth: Depth) -> Vec<Field<'a>> {
    fn field<'a>(column: Column, value: impl Fn(&Used) -> Value + 'a) -> Field<'a> {
        (column, Box::new(value))
    }
    let has = |wanted: &dyn Fn(ZoneKind) -> bool| totals.zones.iter().any(|zone| zone.leaf && wanted(zone.kind));
    let kinds = [
        has(&|kind| !matches!(kind, ZoneKind::Dram | ZoneKind::Gpu)),
        has(&|kind| kind == ZoneKind::Dram),
        has(&|kind| kind == ZoneKind::Gpu),
    ];
    let several = depth.details && kinds.iter().filter(|has| **has).count() > 1;
    let [cpu, dram, gpu] = kinds.map(|has| has && several);
    let mut fields = vec![
        field(Column::programs("cpu_ns", Unit::NS), |used| count(used.amount.cpu_ns)),
        field(Column::new("cpu_s", "CPU time s", Unit::SECONDS), |used| {
            count(used.amount.cpu_ns)
        }),
    ];
    if !totals.has_energy() {
        // Idle time is not part of the time that was used.
        fields.push(field(
            Column::people("share", Unit::Share).look(Look::Bar),
            |used| match used.kind {
                Kind::Fixed(Share::Idle) | Kind::Total => Value::None,
                _ => Value::Part(used.amount.cpu_ns, totals.used_ns()),
            },
        ));
        return fields;
    }
    let energy = |part: fn(&Amount) -> Option<u128>| move |used: &Used| known(part(&used.amount), Value::Whole);
    fields.extend([
        field(Column::new("energy_uj", "energy J", Unit::UJ), energy(Amount::energy)),
        field(
            Column::new("cpu_uj", "CPU J", Unit::UJ).shown_if(cpu),
            energy(Amount::cpu),
        ),
        field(
            Column::new("dram_uj", "DRAM J", Unit::UJ).shown_if(dram),
            energy(Amount::dram),
        ),
        field(
            Column::new("gpu_uj", "GPU J", Unit::UJ).shown_if(gpu),
            energy(Amount::gpu),
        ),
        field(Column::programs("joules", Unit::JOULES), energy(Amount::energy)),
        field(Column::new("average_w", "average W", Unit::Watts), |used| {
            average(used.amount.energy(), totals.known_ns)
        }),
        field(
            Column::new("peak_w", "peak W", Unit::Watts).shown_if(depth.details && depth.each),
            |used| given(used.peak, highest),
        ),
        field(
            Column::new("energy_share", "share", Unit::Share).look(Look::Bar),
            |used| match used.amount.energy().zip(totals.energy()) {
                Some((part, whole)) => Value::Part(part, whole),
                None => Value::Unknown,
            },
        ),
        field(Column::programs("unknown_intervals", Unit::Plain), |used| {
            count(used.amount.unknown_intervals)
        }),
    ]);
    fields
}

/// What is in a table of groups.
struct Groups {
    id: &'static str,
    title: &'static str,
    /// The word for a row with a name.
    row: &'static str,
    /// Columns of names.
    names: Vec<Column>,
    groups: Vec<(Vec<Value>, Usage)>,
    /// Whether the rows that are not processes follow.
    fixed: bool,
}

impl Groups {
    /// The largest groups, a row for what else the listed processes used, and the other rows.
    fn table(self, totals: &Totals, depth: Depth) -> Table {
        let fields = usage(totals, depth);
        let names = self.names.len();
        let row = |kind: Kind, names: Vec<Value>, amount: Amount, peak: Option<Peak>| {
            let used = Used { kind, amount, peak };
            let word = Value::from(kind.word(self.row));
            let values = fields.iter().map(|(_, value)| value(&used));
            Row {
                kind,
                values: std::iter::once(word).chain(names).chain(values).collect(),
            }
        };
        let unnamed = |kind, amount, peak| row(kind, vec![Value::None; names], amount, peak);
        let listed = totals.listed().amount;
        let (groups, _) = largest(self.groups, depth.top, |usage| {
            (usage.amount.energy_uj, usage.amount.cpu_ns)
        });
        let rest = groups
            .iter()
            .fold(listed, |rest, (_, usage)| rest.without(usage.amount));
        let mut rows: Vec<Row> = groups
            .into_iter()
            .map(|(names, usage)| row(Kind::Named, names, usage.amount, Some(usage.peak)))
            .collect();
        if !rest.is_nothing() {
            rows.push(unnamed(Kind::Smaller, rest, None));
        }
        let mut all = listed;
        for share in Share::FIXED.into_iter().filter(|_| self.fixed) {
            if let Some(usage) = totals.shares.get(&share) {
                rows.push(unnamed(Kind::Fixed(share), usage.amount, Some(usage.peak)));
            }
        }
        let mut peak = totals.listed().peak;
        if self.fixed {
            (all, peak) = (totals.all(), totals.peak);
        }
        rows.push(unnamed(Kind::Total, all, Some(peak)));
        let columns = self
            .names
            .into_iter()
            .chain(fields.into_iter().map(|(column, _)| column));
        Table {
            id: self.id,
            title: self.title.to_owned(),
            notes: Vec::new(),
            columns: std::iter::once(Column::programs("row", Unit::Plain))
                .chain(columns)
                .collect(),
            rows,
        }
    }
}

/// The processes that used most, and all that are not listed processes; together they are everything.
pub fn processes(totals: &Totals, depth: Depth) -> Table {
    if !depth.each {
        return folded(totals, depth);
    }
    let processes = totals.processes.iter().map(|((id, cgroup), total)| {
        let names = vec![
            count(id.tgid),
            count(id.start_ns),
            Value::from(&*total.comm),
            Value::from(&**cgroup),
        ];
        let usage = Usage {
            amount: total.amount,
            peak: total.peak,
        };
        (names, usage)
    });
    Groups {
        id: "processes",
        title: "Processes",
        row: "process",
        names: vec![
            Column::new("tgid", "pid", Unit::Plain).look(Look::Aside),
            Column::programs("start_ns", Unit::Plain),
            Column::new("comm", "command", Unit::Plain).look(Look::Name),
            Column::new("cgroup", "cgroup", Unit::Plain).look(Look::Common),
        ],
        groups: processes.collect(),
        fixed: true,
    }
    .table(totals, depth)
}

/// Processes of one name in one row.
#[derive(Default)]
struct Namesakes<'a> {
    tgids: HashSet<(u32, u64)>,
    cgroups: HashSet<&'a str>,
    usage: Usage,
}

fn folded(totals: &Totals, depth: Depth) -> Table {
    let mut names: BTreeMap<&str, Namesakes> = BTreeMap::new();
    for ((id, cgroup), total) in &totals.processes {
        let entry = names.entry(&total.comm).or_default();
        entry.tgids.insert((id.tgid, id.start_ns));
        entry.cgroups.insert(cgroup);
        entry.usage.amount.add(total.amount);
    }
    // Where every name is in several, that says nothing.
    let tells = names.values().any(|namesakes| namesakes.cgroups.len() == 1);
    let groups = names.into_iter().map(|(comm, namesakes)| {
        let mut tgids = namesakes.tgids.iter();
        let (pid, name) = match (tgids.next(), namesakes.tgids.len()) {
            (Some((tgid, _)), 1) => (count(*tgid), comm.to_owned()),
            (_, number) => (Value::None, format!("{comm} x{number}")),
        };
        let mut cgroups = namesakes.cgroups.iter();
        let cgroup = match (cgroups.next(), namesakes.cgroups.len()) {
            (Some(cgroup), 1) => (*cgroup).to_owned(),
            (_, number) => format!("({number} cgroups)"),
        };
        let cgroup = given(tells.then_some(cgroup), Value::Text);
        (vec![Value::Text(name), pid, cgroup], namesakes.usage)
    });
    Groups {
        id: "consumers",
        title: "Biggest consumers",
        row: "comm",
        names: vec![
            Column::people("command", Unit::Plain).look(Look::Name),
            Column::people("pid", Unit::Plain).look(Look::Aside),
            Column::people("cgroup", Unit::Plain).look(Look::Common),
        ],
        groups: groups.collect(),
        fixed: true,
    }
    .table(totals, depth)
}

/// Listed processes, summed by cgroup.
pub fn cgroups(totals: &Totals, depth: Depth) -> Table {
    let cgroups = totals.cgroups.iter();
    Groups {
        id: "cgroups",
        title: "By cgroup",
        row: "cgroup",
        names: vec![Column::new("cgroup", "cgroup", Unit::Plain).look(Look::Name)],
        groups: cgroups
            .map(|(cgroup, usage)| (vec![Value::from(cgroup.as_str())], *usage))
            .collect(),
        fixed: false,
    }
    .table(totals, Depth { each: true, ..depth })
}

/// Listed processes, summed by their names at each time.
pub fn comms(totals: &Totals, comms: &Comms, depth: Depth) -> Table {
    let names = comms.totals.iter();
    Groups {
        id: "comms",
        title: "By name of the process",
        row: "comm",
        names: vec![
            Column::new("comm", "command", Unit::Plain).look(Look::Name),
            Column::new("processes", "processes", Unit::Plain),
        ],
        groups: names
            .map(|(comm, total)| (vec![Value::from(comm.as_str()), count(total.processes)], total.usage))
            .collect(),
        fixed: false,
    }
    .table(totals, Depth { each: true, ..depth })
}

/// Listed processes, summed by whose they are; what is in no group is one row.
pub fn groups(totals: &Totals, groups: &groups::Groups, depth: Depth) -> Table {
    let (id, title, name) = match groups.grouping {
        Some(Grouping::Job) => ("jobs", "By job", Column::new("job", "job", Unit::Plain)),
        Some(Grouping::User) => ("users", "By user", Column::new("uid", "uid", Unit::Plain)),
        Some(Grouping::Unit) => ("units", "By unit", Column::new("unit", "unit", Unit::Plain)),
        Some(Grouping::Tenant) | None => ("tenants", "By tenant", Column::new("tenant", "tenant", Unit::Plain)),
    };
    let named = groups.totals.iter().map(|(name, usage)| {
        let name = name.as_deref().unwrap_or("(none)");
        (vec![Value::from(name)], *usage)
    });
    Groups {
        id,
        title,
        row: groups.grouping.map_or("tenant", Grouping::as_str),
        names: vec![name.look(Look::Name)],
        groups: named.collect(),
        fixed: false,
    }
    .table(totals, Depth { each: true, ..depth })
}
