//! The tables of the page.

use super::survey::Survey;
use crate::{
    tables::figures::{UNKNOWN, decimal, percent, watts},
    totals::{Amount, Peak, Share, Totals, phases::PhaseTotal},
};

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Text; from the log, or ours.
    Text(String),
    /// A figure, and what it is sorted by.
    Number(String, f64),
    /// There is none.
    Absent,
}

impl Cell {
    fn decimal(value: u128, digits: u32) -> Self {
        Self::Number(decimal(value, digits, 3), value as f64)
    }

    fn watts(energy_uj: u128, duration_ns: u128) -> Self {
        Self::Number(
            watts(energy_uj, duration_ns),
            energy_uj as f64 / (duration_ns as f64).max(1.0),
        )
    }

    /// µJ as joules; a word where they are not known.
    fn joules(energy_uj: Option<u128>) -> Self {
        energy_uj.map_or_else(
            || Self::Text(UNKNOWN.to_owned()),
            |energy_uj| Self::decimal(energy_uj, 6),
        )
    }

    fn average(energy_uj: Option<u128>, known_ns: u128) -> Self {
        energy_uj.map_or(Self::Absent, |energy_uj| Self::watts(energy_uj, known_ns))
    }

    fn peak(peak: &Peak) -> Self {
        match peak.interval() {
            Some((energy_uj, length_ns)) => Self::watts(energy_uj, length_ns.into()),
            None => Self::Absent,
        }
    }

    fn percent(part: u128, whole: u128) -> Self {
        Self::Number(percent(part, whole), part as f64 / (whole as f64).max(1.0))
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its name, for links and tests.
    pub id: &'static str,
    /// Heading.
    pub title: &'static str,
    /// A sentence below it.
    pub note: String,
    /// Titles of the columns.
    pub header: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Cell>>,
}

/// All tables that the log has something for.
pub fn all(survey: &Survey, top: usize) -> Vec<Table> {
    let mut tables = Vec::new();
    if survey.collected.totals.intervals > 0 {
        tables.push(consumers(survey, top));
        tables.extend(cgroups(survey, top));
        tables.extend(phases(survey, top));
        tables.extend(balance(&survey.collected.totals));
    }
    tables.extend(foreign_zones(survey));
    tables
}

fn amount_header(totals: &Totals) -> Vec<String> {
    let estimate = if totals.is_estimate() { " (estimate)" } else { "" };
    let mut header = vec!["CPU time s".to_owned()];
    if totals.has_energy() {
        header.push(format!("energy J{estimate}"));
        header.push(format!("average W{estimate}"));
        header.push(format!("peak W{estimate}"));
    }
    header.push("share".to_owned());
    header
}

/// `peak` is `None` for a sum of groups.
fn amount(totals: &Totals, amount: Amount, peak: Option<&Peak>) -> Vec<Cell> {
    let mut cells = vec![Cell::decimal(amount.cpu_ns, 9)];
    if totals.has_energy() {
        cells.push(Cell::joules(amount.energy()));
        cells.push(Cell::average(amount.energy(), totals.known_ns));
        cells.push(peak.map_or(Cell::Absent, Cell::peak));
        cells.push(match amount.energy().zip(totals.energy()) {
            Some((energy_uj, all_uj)) => Cell::percent(energy_uj, all_uj),
            None => Cell::Absent,
        });
    } else {
        cells.push(Cell::percent(amount.cpu_ns, totals.used_ns()));
    }
    cells
}

/// The rows that are not processes; their name is the cell with the number `name_at` of `names`.
fn fixed(totals: &Totals, names: usize, name_at: usize) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for share in Share::FIXED {
        let Some(usage) = totals.shares.get(&share) else {
            continue;
        };
        let mut cells = named(names, name_at, &format!("({})", share.as_str()));
        cells.extend(amount(totals, usage.amount, Some(&usage.peak)));
        // Idle time is not part of the time that was used.
        if share == Share::Idle && !totals.has_energy() {
            cells.pop();
            cells.push(Cell::Absent);
        }
        rows.push(cells);
    }
    rows
}

fn named(names: usize, name_at: usize, name: &str) -> Vec<Cell> {
    (0..names)
        .map(|index| {
            if index == name_at {
                Cell::Text(name.to_owned())
            } else {
                Cell::Absent
            }
        })
        .collect()
}

fn consumers(survey: &Survey, top: usize) -> Table {
    let totals = &survey.collected.totals;
    let mut processes: Vec<_> = totals.processes.iter().collect();
    processes.sort_by(|(key_a, a), (key_b, b)| {
        let size = |amount: Amount| (amount.energy_uj, amount.cpu_ns);
        size(b.amount).cmp(&size(a.amount)).then(key_a.cmp(key_b))
    });
    let mut rest = totals.listed().amount;
    let mut rows = Vec::new();
    let count = processes.len();
    for ((id, cgroup), total) in processes.into_iter().take(top) {
        let mut cells = vec![
            Cell::Number(id.tgid.to_string(), id.tgid.into()),
            Cell::Text(total.comm.to_string()),
            Cell::Text(cgroup.to_string()),
        ];
        cells.extend(amount(totals, total.amount, Some(&total.peak)));
        rows.push(cells);
        rest = rest.without(total.amount);
    }
    if !rest.is_nothing() {
        let mut cells = named(3, 1, "(smaller ones)");
        cells.extend(amount(totals, rest, None));
        rows.push(cells);
    }
    rows.extend(fixed(totals, 3, 1));
    let header = ["pid", "command", "cgroup"].map(str::to_owned);
    Table {
        id: "consumers",
        title: "Consumers",
        note: match count > top {
            true => format!("The {top} largest processes; together with the rows in brackets they are everything."),
            false => "Together with the rows in brackets they are everything.".to_owned(),
        },
        header: header.into_iter().chain(amount_header(totals)).collect(),
        rows,
    }
}

fn cgroups(survey: &Survey, top: usize) -> Option<Table> {
    let totals = &survey.collected.totals;
    if totals.cgroups.len() < 2 {
        return None;
    }
    let mut cgroups: Vec<_> = totals.cgroups.iter().collect();
    cgroups.sort_by_key(|(name, usage)| (std::cmp::Reverse((usage.amount.energy_uj, usage.amount.cpu_ns)), *name));
    let mut rest = totals.listed().amount;
    let mut rows = Vec::new();
    for (name, usage) in cgroups.into_iter().take(top) {
        let mut cells = vec![Cell::Text(name.clone())];
        cells.extend(amount(totals, usage.amount, Some(&usage.peak)));
        rows.push(cells);
        rest = rest.without(usage.amount);
    }
    if !rest.is_nothing() {
        let mut cells = named(1, 0, "(smaller ones)");
        cells.extend(amount(totals, rest, None));
        rows.push(cells);
    }
    Some(Table {
        id: "cgroups",
        title: "Cgroups",
        note: "Listed processes of each cgroup itself, without the cgroups below it.".to_owned(),
        header: std::iter::once("cgroup".to_owned())
            .chain(amount_header(totals))
            .collect(),
        rows,
    })
}

/// What was used while each phase was open.
fn phases(survey: &Survey, top: usize) -> Option<Table> {
    let phases = &survey.collected.phases;
    let totals = &survey.collected.totals;
    let mut sums: Vec<_> = phases.in_order();
    sums.retain(|(_, total)| total.totals.intervals > 0);
    if sums.is_empty() {
        return None;
    }
    let left_out = sums.len().saturating_sub(top);
    let estimate = if totals.is_estimate() { " (estimate)" } else { "" };
    let mut header = ["phase", "times", "duration s", "CPU time s", "listed CPU time s"]
        .map(str::to_owned)
        .to_vec();
    if totals.has_energy() {
        let energy = ["energy J", "listed energy J", "average W", "peak W"];
        header.extend(energy.map(|title| format!("{title}{estimate}")));
    }
    let row = |label: Option<&str>, total: &PhaseTotal| {
        let (sums, listed) = (&total.totals, total.totals.listed().amount);
        let mut cells = vec![
            Cell::Text(label.unwrap_or("(no phase)").to_owned()),
            label.map_or(Cell::Absent, |_| {
                Cell::Number(total.count.to_string(), total.count as f64)
            }),
            Cell::decimal(sums.duration_ns, 9),
            Cell::decimal(sums.used_ns(), 9),
            Cell::decimal(listed.cpu_ns, 9),
        ];
        if totals.has_energy() {
            cells.extend([
                Cell::joules(sums.energy()),
                Cell::joules(listed.energy()),
                Cell::average(sums.energy(), sums.known_ns),
                Cell::peak(&sums.peak),
            ]);
        }
        cells
    };
    let mut rows: Vec<_> = sums
        .into_iter()
        .take(top)
        .map(|(label, total)| row(Some(label), total))
        .collect();
    if phases.without.totals.intervals > 0 {
        rows.push(row(None, &phases.without));
    }
    let more = if left_out > 0 {
        format!(" {left_out} more phases are left out.")
    } else {
        String::new()
    };
    Some(Table {
        id: "phases",
        title: "Phases",
        note: format!("What was used while each was open. Phases can overlap: their sum is not the total.{more}"),
        header,
        rows,
    })
}

/// Watts of a log of AIPowerMeter, integrated.
fn foreign_zones(survey: &Survey) -> Option<Table> {
    let foreign = &survey.collected.foreign;
    if foreign.zones.is_empty() {
        return None;
    }
    let number = |value: f64| Cell::Number(format!("{value:.3}"), value);
    let rows = foreign.zones.iter().map(|(zone, sum)| {
        let average = if sum.known_s > 0.0 {
            number(sum.joules / sum.known_s)
        } else {
            Cell::Absent
        };
        vec![
            Cell::Text(zone.clone()),
            number(sum.joules),
            number(sum.known_s),
            average,
            number(sum.peak_w),
        ]
    });
    Some(Table {
        id: "aipowermeter",
        title: "Energy by AIPowerMeter's watts",
        note: "Each sample's watts over the time since the sample before it, in a log without exact part.".to_owned(),
        header: ["zone", "J", "known s", "average W", "peak W"]
            .map(str::to_owned)
            .to_vec(),
        rows: rows.collect(),
    })
}

/// Joules of each zone, and of the rows that share them.
fn balance(totals: &Totals) -> Option<Table> {
    if totals.zones.is_empty() {
        return None;
    }
    let shares: Vec<Share> = Share::ALL
        .into_iter()
        .filter(|share| totals.shares.contains_key(share))
        .collect();
    let mut header: Vec<String> = ["zone", "method", "J", "average W", "peak W", "known in"]
        .map(str::to_owned)
        .into();
    header.extend(shares.iter().map(|share| format!("{} J", share.as_str())));
    header.push("difference µJ".to_owned());
    let rows = totals.zones.iter().map(|zone| {
        let methods: Vec<&str> = zone.methods.iter().map(|method| method.as_str()).collect();
        let mut cells = vec![
            Cell::Text(zone.zone.clone()),
            Cell::Text(methods.join(", ")),
            Cell::joules(zone.energy()),
            Cell::average(zone.energy(), zone.known_ns),
            Cell::peak(&zone.peak),
            Cell::Number(format!("{} of {}", zone.known, totals.intervals), zone.known as f64),
        ];
        let of_share = |share: &Share| zone.share(*share).map_or(Cell::Absent, |uj| Cell::decimal(uj, 6));
        cells.extend(shares.iter().map(of_share));
        // What is only shown is split among nobody.
        cells.push(if zone.has_parts() && zone.known > 0 {
            Cell::Number(zone.difference_uj.to_string(), zone.difference_uj as f64)
        } else {
            Cell::Absent
        });
        cells
    });
    Some(Table {
        id: "balance",
        title: "Energy balance",
        note: "What each zone counted and who got it. The difference is what is left over: 0 where everything adds up."
            .to_owned(),
        header,
        rows: rows.collect(),
    })
}
