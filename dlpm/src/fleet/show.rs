//! What is shown of the sums of many nodes: tables and records.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::{
    read::Collected,
    sums::{By, Line, Sums},
};
use crate::{
    log::date::date,
    tables::{
        Column, Kind, Look, Row, Table, Unit, Value, count,
        figures::counted,
        known, largest,
        record::{Cell, Record},
    },
    totals::{Amount, Share},
};

/// What a row without a name is called.
const NONE: &str = "(none)";

/// A column of amounts, and its value.
type Field<'a> = (Column, Box<dyn Fn(&Amount, Kind) -> Value + 'a>);

fn fields(total: &Amount) -> Vec<Field<'_>> {
    fn energy<'a>(column: Column, part: fn(&Amount) -> Option<u128>, shown: bool) -> Field<'a> {
        (
            column.shown_if(shown),
            Box::new(move |amount, _| known(part(amount), Value::Whole)),
        )
    }
    let parts = [total.cpu(), total.dram(), total.gpu()];
    let several = parts.iter().flatten().count() > 1;
    let [cpu, dram, gpu] = parts.map(|part| part.is_some() && several);
    let has_energy = total.energy().is_some();
    vec![
        (
            Column::programs("cpu_ns", Unit::NS),
            Box::new(|amount, _| count(amount.cpu_ns)),
        ),
        (
            Column::new("cpu_s", "CPU time s", Unit::SECONDS),
            Box::new(|amount, _| count(amount.cpu_ns)),
        ),
        energy(
            Column::new("energy_uj", "energy J", Unit::UJ),
            Amount::energy,
            has_energy,
        ),
        energy(Column::new("cpu_uj", "CPU J", Unit::UJ), Amount::cpu, cpu),
        energy(Column::new("dram_uj", "DRAM J", Unit::UJ), Amount::dram, dram),
        energy(Column::new("gpu_uj", "GPU J", Unit::UJ), Amount::gpu, gpu),
        energy(Column::programs("joules", Unit::JOULES), Amount::energy, false),
        (
            Column::new("energy_share", "share", Unit::Share)
                .look(Look::Bar)
                .shown_if(has_energy),
            Box::new(move |amount, kind| match amount.energy().zip(total.energy()) {
                Some((part, whole)) if kind != Kind::Total => Value::Part(part, whole),
                _ => Value::None,
            }),
        ),
        (
            Column::programs("unknown_intervals", Unit::Plain),
            Box::new(|amount, _| count(amount.unknown_intervals)),
        ),
    ]
}

/// The largest rows of a table, the sum of the others, what no process has, and the sum of all.
pub fn table(collected: &Collected, sums: &Sums, top: usize) -> Table {
    let fleet = &collected.fleet;
    let by = sums.by;
    let (id, title) = match by {
        By::Node => ("nodes", "By node"),
        By::Job => ("jobs", "By job"),
        By::User => ("users", "By user"),
        By::Account => ("accounts", "By account"),
        By::Tenant => ("tenants", "By tenant"),
        By::Unit => ("units", "By unit"),
    };
    let mut names = vec![Column::new(by.as_str(), by.as_str(), Unit::Plain).look(Look::Name)];
    if by == By::Job {
        names.push(Column::new("cluster", "cluster", Unit::Plain).look(Look::Common));
    }
    if by != By::Node {
        names.push(Column::new("node_count", "nodes", Unit::Plain));
        names.push(Column::programs("nodes", Unit::Plain));
    }
    names.push(Column::new("lives", "ended", Unit::Plain).shown_if(fleet.lives > 0));
    names.extend(["begin_unix_ns", "end_unix_ns"].map(|key| Column::programs(key, Unit::Plain)));
    let fields = fields(&fleet.total);
    let row = |kind: Kind, names: Vec<Value>, amount: &Amount| Row {
        kind,
        values: [Value::from(kind.word(by.as_str()))]
            .into_iter()
            .chain(names)
            .chain(fields.iter().map(|(_, value)| value(amount, kind)))
            .collect(),
    };
    let rows = sums.rows.iter().map(|(key, line)| {
        let text = |text: &Option<Arc<str>>, absent: Value| text.as_deref().map_or(absent, Value::from);
        let mut values = vec![text(&key.name, NONE.into())];
        if by == By::Job {
            values.push(text(&key.cluster, Value::None));
        }
        (values, line)
    });
    let (shown, others) = largest(rows.collect(), top, |line: &&Line| {
        (line.amount.energy_uj, line.amount.cpu_ns)
    });
    let mut rows = Vec::new();
    for (mut values, line) in shown {
        if by != By::Node {
            values.push(count(line.nodes.len() as u64));
            values.push(Value::Names(
                line.nodes.iter().map(|node| fleet.node(*node).to_owned()).collect(),
            ));
        }
        values.push(count(line.lives));
        values.extend([line.begin_unix_ns, line.end_unix_ns].map(|unix_ns| Value::Signed(unix_ns.into())));
        rows.push(row(Kind::Named, values, &line.amount));
    }
    let unnamed = || vec![Value::None; names.len()];
    let mut smaller = sums.smaller;
    others.iter().for_each(|line| smaller.add(line.amount));
    if sums.folded > 0 || !others.is_empty() {
        rows.push(row(Kind::Smaller, unnamed(), &smaller));
    }
    for share in Share::FIXED.into_iter().filter(|_| by != By::Node) {
        if let Some(amount) = fleet.fixed.get(&share) {
            rows.push(row(Kind::Fixed(share), unnamed(), amount));
        }
    }
    rows.push(row(Kind::Total, unnamed(), &fleet.total));
    let columns = [Column::programs("row", Unit::Plain)].into_iter().chain(names);
    Table {
        id,
        title: title.to_owned(),
        notes: Vec::new(),
        columns: columns.chain(fields.into_iter().map(|(column, _)| column)).collect(),
        rows,
    }
}

/// All tables.
pub fn tables(collected: &Collected, top: usize) -> Vec<Table> {
    let sums = collected.fleet.tables.iter();
    sums.map(|sums| table(collected, sums, top)).collect()
}

/// What was added up, in one line.
pub fn headline(collected: &Collected, timezone: &TimeZone) -> String {
    let fleet = &collected.fleet;
    let mut parts = vec![counted(fleet.nodes().len() as u64, "node")];
    if collected.files > 0 {
        parts.push(format!("{} that have ended", counted(fleet.lives, "tenant")));
    }
    if collected.logs > 0 {
        let intervals = counted(fleet.intervals, "interval");
        parts.push(format!("{} with {intervals}", counted(collected.logs, "log")));
    }
    let span = fleet.span_unix_ns.map_or_else(String::new, |(begin, end)| {
        format!("; from {} to {}", date(begin, timezone), date(end, timezone))
    });
    format!("{}{span}", parts.join(", "))
}

/// The facts and the tables for programs.
pub fn record(collected: &Collected, top: usize) -> Record {
    let fleet = &collected.fleet;
    let total = &fleet.total;
    let sum = Record::default()
        .with("cpu_ns", total.cpu_ns)
        .with("energy_uj", total.energy())
        .with("cpu_uj", total.cpu())
        .with("dram_uj", total.dram())
        .with("gpu_uj", total.gpu());
    let facts = Record::default()
        .with("nodes", fleet.nodes().len() as u64)
        .with("files", collected.files)
        .with("logs", collected.logs)
        .with("lives", fleet.lives)
        .with("intervals", fleet.intervals)
        .with("lines_in_two_files", collected.again)
        .with("outside", collected.outside)
        .with("not_read", collected.trouble_count)
        .with("estimate", fleet.is_estimate)
        .with("begin_unix_ns", fleet.span_unix_ns.map(|(begin, _)| begin))
        .with("end_unix_ns", fleet.span_unix_ns.map(|(_, end)| end));
    let list = |texts: &[String]| Cell::List(texts.iter().map(|text| Cell::from(text.as_str())).collect());
    let mut record = Record::default()
        .with("report_schema", 1_u32)
        .with("fleet", facts)
        .with("total", sum)
        .with("notes", list(&collected.notes))
        .with("troubles", list(&collected.troubles));
    for table in tables(collected, top) {
        record = record.with(table.id, table.records().into_iter().collect::<Cell>());
    }
    record
}
