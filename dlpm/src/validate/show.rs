//! What people and programs see of a validation: one sentence, three tables, and what has to be known to read them.

use super::{
    LoadKind,
    file::{Header, Limits, Validation},
    methods::{self, EQUAL},
    truth::Estimate,
    verdict::{Pair, State, Summary, Verdict},
};
use crate::tables::{Column, Kind, Look, Row, Table, Unit, Value, record::Record};

/// The loads of a cell, in words.
pub fn beside(loads: &[LoadKind]) -> String {
    match loads {
        [] => "idle".to_owned(),
        [load] => format!("{} alone", load.as_str()),
        [load, others @ ..] => {
            let others: Vec<&str> = others.iter().map(|load| load.as_str()).collect();
            format!("{} beside {}", load.as_str(), others.join(" and "))
        }
    }
}

/// What may be concluded.
pub fn conclusion(verdict: &Verdict) -> String {
    if !verdict.holds() {
        return "Nothing may be concluded about any method here, because the measurement was refused.".to_owned();
    }
    let ours = verdict.methods.iter().filter(|summary| summary.method != EQUAL);
    let Some(best) = ours.min_by_key(|summary| summary.mean.ppm) else {
        return "Nothing may be concluded: no method applies here.".to_owned();
    };
    let title = methods::named(&best.method).map_or(best.method.as_str(), |method| method.title);
    let against = verdict.summary(EQUAL).map_or_else(String::new, |equal| {
        let than = match () {
            () if best.mean.high_ppm < equal.mean.low_ppm => "",
            () if equal.mean.high_ppm < best.mean.low_ppm => ", which is better",
            () => ", which is not clearly different",
        };
        format!(
            "; an equal split is off by {} on average{than}",
            percent(equal.mean.ppm)
        )
    });
    format!(
        "Of what two such loads draw above idle on this machine, the best method, {title}, gives each its part with an \
         error of {} on average ({} to {} with 95 % confidence) and {} at worst ({}){against}. A smaller difference \
         between the joules of two processes is not shown.",
        percent(best.mean.ppm),
        percent(best.mean.low_ppm.max(0)),
        percent(best.mean.high_ppm),
        percent(best.worst.ppm),
        beside(&best.worst_of),
    )
}

/// What has to be known, a sentence each.
pub fn notes(header: &Header, verdict: &Verdict) -> Vec<String> {
    let mut notes: Vec<String> = verdict
        .refusals
        .iter()
        .map(|refusal| format!("refused: {refusal}"))
        .collect();
    if header.shares_core {
        notes.push(format!(
            "dlpm shared CPU {} with a load: what dlpm used is in what that core drew",
            header.cpus[2]
        ));
    }
    if header.limits != Limits::default() {
        notes.push(format!(
            "the limits are not the usual ones: {} of a CPU for others, {} between idle cells, ± {} of a load alone, {} of \
             speed",
            permille(header.limits.foreign_permille),
            permille(header.limits.idle_permille),
            permille(header.limits.single_permille),
            permille(header.limits.slowdown_permille)
        ));
    }
    if header.energy_filtering.is_none() {
        notes.push(
            "whether the processor adds noise to its energy counters is not known: Linux shows it on Intel processors with \
             the module msr only"
                .to_owned(),
        );
    }
    if !verdict.throttling_known {
        notes.push(
            "whether a core was throttled is not known, since this kernel does not count it here (it does on Intel \
             processors): a load that is slower shows it"
                .to_owned(),
        );
    }
    let interfering: Vec<String> = pairs_in(verdict, State::Interfering);
    if !interfering.is_empty() {
        notes.push(format!(
            "does not count, since a load was slower or faster than alone: {}",
            interfering.join(", ")
        ));
    }
    let nothing = pairs_in(verdict, State::NothingToSplit);
    if !nothing.is_empty() {
        notes.push(format!(
            "does not count, since a load draws nothing above idle: {}",
            nothing.join(", ")
        ));
    }
    notes.push(
        "energy of memory (zones dram) is not compared, and neither is that of the package with the machine idle; an error \
         is one of what is above idle"
            .to_owned(),
    );
    notes
}

fn pairs_in(verdict: &Verdict, state: State) -> Vec<String> {
    let pairs = verdict.pairs.iter().filter(|pair| pair.state == state);
    pairs.map(|pair| beside(&pair.loads)).collect()
}

/// Where, when and how, in one line.
pub fn headline(header: &Header) -> String {
    let machine = &header.machine;
    format!(
        "{}, microcode {}, Linux {}; package-{} by {}; {} rounds of {:.1} s cells on CPUs {} and {}, dlpm on {}; seed {}",
        machine.cpu_model.as_deref().unwrap_or("unknown processor"),
        machine.microcode.as_deref().unwrap_or("unknown"),
        machine.kernel,
        header.package,
        header.source.as_str(),
        header.rounds,
        header.cell_ns as f64 / 1e9,
        header.cpus[0],
        header.cpus[1],
        header.cpus[2],
        header.seed,
    )
}

/// All tables.
pub fn tables(header: &Header, verdict: &Verdict) -> Vec<Table> {
    vec![methods_table(verdict), pairs(verdict), loads_table(header, verdict)]
}

fn row(values: Vec<Value>) -> Row {
    Row {
        kind: Kind::Named,
        values,
    }
}

/// A column of a figure in ppm: people read percent.
fn ppm(key: &str, title: &str) -> [Column; 2] {
    [
        Column::people(title, Unit::Decimals(1)),
        Column::programs(&format!("{key}_ppm"), Unit::Plain),
    ]
}

fn ppm_values(ppm: i64) -> [Value; 2] {
    [Value::Real(ppm as f64 / 10_000.0), Value::Signed(ppm.into())]
}

/// The same of an estimate, with its interval.
fn estimated(key: &str, title: &str) -> [Column; 5] {
    let [people, programs] = ppm(key, title);
    let end = |which: &str| Column::programs(&format!("{key}_{which}_ppm"), Unit::Plain);
    [
        people,
        Column::people("±", Unit::Decimals(1)),
        programs,
        end("low"),
        end("high"),
    ]
}

fn estimated_values(estimate: Estimate) -> [Value; 5] {
    let [people, programs] = ppm_values(estimate.ppm);
    let [half, _] = ppm_values(estimate.half_ppm());
    [
        people,
        half,
        programs,
        Value::Signed(estimate.low_ppm.into()),
        Value::Signed(estimate.high_ppm.into()),
    ]
}

/// A column of microwatts: people read watts.
fn power(key: &str, title: &str) -> [Column; 2] {
    [
        Column::people(title, Unit::Decimals(3)),
        Column::programs(&format!("{key}_uw"), Unit::Plain),
    ]
}

fn power_values(microwatts: i64) -> [Value; 2] {
    [Value::Real(microwatts as f64 / 1e6), Value::Signed(microwatts.into())]
}

fn methods_table(verdict: &Verdict) -> Table {
    let mut columns = vec![
        Column::new("method", "method", Unit::Plain).look(Look::Name),
        Column::programs("title", Unit::Plain),
    ];
    columns.extend(estimated("mean_error", "mean error %"));
    columns.extend(estimated("worst_error", "worst %"));
    columns.push(Column::new("worst_of", "where", Unit::Plain).look(Look::Aside));
    columns.extend(ppm("outside_mean", "outside, mean %"));
    columns.extend(ppm("outside_worst", "outside, worst %"));
    let of = |summary: &Summary| {
        let title = methods::named(&summary.method).map_or(summary.method.as_str(), |method| method.title);
        let mut values = vec![summary.method.as_str().into(), title.into()];
        values.extend(estimated_values(summary.mean));
        values.extend(estimated_values(summary.worst));
        values.push(Value::Text(beside(&summary.worst_of)));
        values.extend(ppm_values(summary.outside_mean_ppm));
        values.extend(ppm_values(summary.outside_worst_ppm));
        row(values)
    };
    Table {
        id: "methods",
        title: "Error of each method".to_owned(),
        notes: vec!["of what a load draws above idle, against the middle of the truth".to_owned()],
        columns,
        rows: verdict.methods.iter().map(of).collect(),
    }
}

/// The error of each method about each load of each pair.
pub fn pairs(verdict: &Verdict) -> Table {
    let names: Vec<&str> = methods::METHODS
        .iter()
        .map(|method| method.name)
        .filter(|name| verdict.pairs.iter().any(|pair| has(pair, name)))
        .collect();
    let mut columns = vec![
        Column::new("load", "load", Unit::Plain).look(Look::Name),
        Column::new("beside", "beside", Unit::Plain).look(Look::Aside),
    ];
    columns.extend(power("alone", "first W"));
    columns.extend(power("added", "second W"));
    columns.extend(power("interaction", "interaction W"));
    columns.extend(ppm("speed", "speed %"));
    for name in &names {
        columns.push(Column::people(name, Unit::Decimals(1)));
        columns.extend(["", "_low", "_high"].map(|end| Column::programs(&format!("{name}{end}_ppm"), Unit::Plain)));
    }
    columns.push(Column::new("state", "", Unit::Plain).look(Look::Aside));
    let mut rows = Vec::new();
    for pair in &verdict.pairs {
        for (which, side) in pair.sides.iter().enumerate() {
            let other = pair.loads[1 - which.min(1)];
            let mut values = vec![side.load.as_str().into(), other.as_str().into()];
            values.extend(power_values(side.alone_uw));
            values.extend(power_values(side.added_uw));
            values.extend(power_values(pair.interaction_uw));
            values.extend(ppm_values(side.speed_ppm));
            for name in &names {
                let error = side
                    .errors
                    .iter()
                    .find(|error| error.method == *name)
                    .map(|found| found.error);
                let number =
                    |of: fn(Estimate) -> i64| error.map_or(Value::Unknown, |error| Value::Signed(of(error).into()));
                values.push(error.map_or(Value::Unknown, |error| Value::Real(error.ppm as f64 / 10_000.0)));
                values.extend([
                    number(|error| error.ppm),
                    number(|error| error.low_ppm),
                    number(|error| error.high_ppm),
                ]);
            }
            values.push(pair.state.as_str().into());
            rows.push(row(values));
        }
    }
    Table {
        id: "pairs",
        title: "Pairs".to_owned(),
        notes: vec![
            "truth lies between what a load draws if it comes first and if it comes second; for each method its error in %"
                .to_owned(),
        ],
        columns,
        rows,
    }
}

fn has(pair: &Pair, method: &str) -> bool {
    let mut errors = pair.sides.iter().flat_map(|side| &side.errors);
    errors.any(|error| error.method == method)
}

fn loads_table(header: &Header, verdict: &Verdict) -> Table {
    let mut columns = vec![Column::new("load", "load", Unit::Plain).look(Look::Name)];
    columns.extend(power("above_idle", "above idle W"));
    columns.extend(ppm("uncertainty", "± % of all"));
    columns.extend([
        Column::people("units/s", Unit::Decimals(0)),
        Column::programs("units", Unit::Plain),
        Column::programs("ns", Unit::Plain),
        Column::new("detail", "what it does", Unit::Plain).look(Look::Aside),
    ]);
    let details = |load: LoadKind| {
        let at = header.loads.iter().position(|known| *known == load);
        at.and_then(|at| header.details.get(at)).map_or("", String::as_str)
    };
    let mut rows: Vec<Row> = Vec::new();
    for single in &verdict.singles {
        let mut values = vec![single.load.as_str().into()];
        values.extend(power_values(single.above_idle_uw));
        values.extend(ppm_values(single.half_ppm));
        values.extend([
            Value::Real(single.units as f64 * 1e9 / (single.ns.max(1)) as f64),
            Value::Whole(single.units.into()),
            Value::Whole(single.ns.into()),
            details(single.load).into(),
        ]);
        rows.push(row(values));
    }
    Table {
        id: "loads",
        title: format!("Loads alone (idle: {:.3} W)", verdict.idle_uw as f64 / 1e6),
        notes: Vec::new(),
        columns,
        rows,
    }
}

/// Everything, as a terminal of `width` columns shows it.
pub fn text(header: &Header, verdict: &Verdict, width: u16) -> String {
    let mut text = format!("{}\n{}\n", conclusion(verdict), headline(header));
    for table in tables(header, verdict) {
        text += &table.text(width);
    }
    text.push('\n');
    for note in notes(header, verdict) {
        text += &format!("note: {note}\n");
    }
    text
}

/// Everything, for programs.
pub fn record(validation: &Validation, verdict: &Verdict) -> Record {
    let header = &validation.header;
    let strings = |texts: Vec<String>| crate::tables::record::Cell::List(texts.into_iter().map(Into::into).collect());
    let mut record = Record::default()
        .with("validation", header.validation)
        .with("conclusion", conclusion(verdict))
        .with("holds", verdict.holds())
        .with(
            "refusals",
            strings(
                verdict
                    .refusals
                    .iter()
                    .map(|refusal| refusal.why.as_str().to_owned())
                    .collect(),
            ),
        )
        .with("notes", strings(notes(header, verdict)))
        .with("cpu_model", header.machine.cpu_model.as_deref())
        .with("microcode", header.machine.microcode.as_deref())
        .with("kernel", header.machine.kernel.as_str())
        .with("dlpm", header.dlpm.as_str())
        .with("date", header.date.as_str())
        .with("seed", header.seed)
        .with("rounds", header.rounds)
        .with("cell_ns", header.cell_ns)
        .with("shares_core", header.shares_core)
        .with("idle_uw", verdict.idle_uw);
    for table in tables(header, verdict) {
        record = record.with(
            table.id,
            table.records().into_iter().collect::<crate::tables::record::Cell>(),
        );
    }
    record
}

fn percent(ppm: i64) -> String {
    format!("{:.1} %", ppm as f64 / 10_000.0)
}

fn permille(limit: u32) -> String {
    format!("{:.1} %", f64::from(limit) / 10.0)
}
