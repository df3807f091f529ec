//! What was used while each phase was open.

use super::{Column, Depth, Kind, Look, Row, Table, Unit, Value, average, count, given, highest, known};
use crate::totals::{
    Totals,
    phases::{PhaseTotal, PhaseTotals},
};

/// Energy of a number of inferences, in the figures that are made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inferences {
    /// How many.
    pub count: u64,
    /// Multiply-adds of one, if they are known.
    pub mult_adds: Option<u64>,
}

impl Inferences {
    /// Joules of one inference.
    pub fn joules(self, energy_uj: u128) -> f64 {
        energy_uj as f64 / 1e6 / self.count as f64
    }

    /// Energy of one multiply-add in pJ.
    pub fn picojoules(self, energy_uj: u128) -> Option<f64> {
        let mult_adds = u128::from(self.mult_adds?) * u128::from(self.count);
        (mult_adds > 0).then(|| energy_uj as f64 * 1e6 / mult_adds as f64)
    }
}

/// Phases in the order in which they began, and what is in none; no rows without phases. `zones`: people see the energy
/// of each zone as well.
pub fn phases(
    totals: &Totals,
    phases: &PhaseTotals,
    depth: Depth,
    zones: bool,
    inferences: Option<Inferences>,
) -> Table {
    let mut sums: Vec<(Option<&str>, &PhaseTotal)> = phases
        .in_order()
        .into_iter()
        .filter(|(_, total)| total.totals.intervals > 0)
        .map(|(label, total)| (Some(label), total))
        .collect();
    let left_out = sums.len().saturating_sub(depth.top);
    sums.truncate(depth.top);
    if !sums.is_empty() && phases.without.totals.intervals > 0 {
        sums.push((None, &phases.without));
    }
    let has_energy = totals.has_energy();
    let parts: Vec<_> = totals.zones.iter().filter(|_| has_energy).collect();
    let details = depth.details;
    let mut columns = vec![
        Column::programs("phase", Unit::Plain),
        Column::people("phase", Unit::Plain).look(Look::Name),
        Column::new("count", "times", Unit::Plain),
        Column::programs("intervals", Unit::Plain),
        Column::programs("duration_ns", Unit::NS),
        Column::new("duration_s", "s", Unit::SECONDS),
        Column::programs("cpu_ns", Unit::NS),
        Column::programs("listed_cpu_ns", Unit::NS),
        Column::new("listed_cpu_s", "CPU time s", Unit::SECONDS).shown_if(details || !has_energy),
        Column::new("idle_time_share", "idle", Unit::Share).shown_if(details),
    ];
    if has_energy {
        columns.extend([
            Column::programs("energy_uj", Unit::UJ),
            Column::new("listed_uj", "energy J", Unit::UJ),
            Column::programs("listed_joules", Unit::JOULES),
            Column::people("average W", Unit::Watts),
            Column::people("peak W", Unit::Watts),
            Column::programs("average_w", Unit::Watts),
            Column::programs("peak_w", Unit::Watts),
            Column::people("share", Unit::Share).look(Look::Bar),
        ]);
        columns.extend(parts.iter().map(|zone| {
            let title = format!("{} J", zone.zone);
            Column {
                title: Some(title).filter(|_| zones),
                ..Column::programs(&zone.zone, Unit::UJ).inside("zones_uj")
            }
        }));
        columns.push(Column::programs("unknown_intervals", Unit::Plain));
        if inferences.is_some() {
            columns.push(Column::new("joules_per_inference", "J/inference", Unit::Decimals(6)));
            columns.push(Column::new("pj_per_mac", "pJ/MAC", Unit::Decimals(3)));
        }
    }
    let row = |(label, total): (Option<&str>, &PhaseTotal)| {
        let (of, listed) = (&total.totals, total.totals.listed());
        let (all_uj, listed_uj) = (of.energy(), listed.amount.energy());
        let mut values = vec![
            given(label, Value::from),
            Value::from(label.unwrap_or("(no phase)")),
            given(label, |_| count(total.count)),
            count(of.intervals),
            count(of.duration_ns),
            count(of.duration_ns),
            count(of.used_ns()),
            count(listed.amount.cpu_ns),
            count(listed.amount.cpu_ns),
            Value::Part(of.cpu.idle_ns, of.cpu.interval_ns),
        ];
        if has_energy && of.has_energy() {
            values.extend([
                known(all_uj, Value::Whole),
                known(listed_uj, Value::Whole),
                known(listed_uj, Value::Whole),
                average(listed_uj, of.known_ns),
                highest(listed.peak),
                average(all_uj, of.known_ns),
                highest(of.peak),
                // Of all phases together, so that bars can be compared.
                known(listed_uj.zip(totals.energy()), |(part, whole)| Value::Part(part, whole)),
            ]);
            values.extend(parts.iter().map(|zone| {
                let mut found = of.zones.iter();
                let found = found.find(|found| found.zone == zone.zone && found.leaf == zone.leaf);
                // A leaf that a package does not have in this phase is not unknown.
                given(found, |found| known(found.energy(), Value::Whole))
            }));
            values.push(count(listed.amount.unknown_intervals));
            if let Some(inferences) = inferences {
                values.push(known(listed_uj, |uj| Value::Real(inferences.joules(uj))));
                values.push(known(listed_uj.and_then(|uj| inferences.picojoules(uj)), Value::Real));
            }
        }
        Row {
            kind: Kind::Named,
            values,
        }
    };
    let rows = sums.into_iter().map(row).collect();
    let mut notes = vec!["of the listed processes; phases can overlap: their sum is not the total".to_owned()];
    if inferences.is_some() {
        notes.push("J/inference and pJ/MAC: as if all inferences had been in that phase".to_owned());
    }
    if left_out > 0 {
        notes.push(format!("{left_out} more phases are left out"));
    }
    Table {
        id: "phases",
        title: "Phases".to_owned(),
        notes,
        columns,
        rows,
    }
}
