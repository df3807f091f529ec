//! What each zone of energy counted, and who got it.

use super::{Column, Depth, Kind, Look, Row, Table, Unit, Value, average, count, given, highest, known};
use crate::{
    interval::ZoneKind,
    totals::{Share, Totals, ZoneTotal},
};

/// Energy of each zone, and of the rows that share it.
pub fn zones(totals: &Totals, depth: Depth) -> Table {
    let partly = totals.zones.iter().any(|zone| zone.known != totals.intervals);
    let mut columns = vec![
        Column::new("zone", "zone", Unit::Plain).look(Look::Name),
        Column::programs("role", Unit::Plain),
        Column::programs("kind", Unit::Plain),
        Column::new("methods", "method", Unit::Plain).look(Look::Common),
        Column::new("energy_uj", "J", Unit::UJ),
        Column::programs("joules", Unit::JOULES),
        Column::programs("known_intervals", Unit::Plain),
        Column::programs("known_ns", Unit::NS),
        Column::new("average_w", "W", Unit::Watts),
        Column::new("peak_w", "peak W", Unit::Watts).shown_if(depth.details),
        Column::people("known", Unit::Plain).shown_if(partly),
        Column::programs("invalid_intervals", Unit::Plain),
        Column::programs("reason", Unit::Plain),
        Column::programs("one_leaf_intervals", Unit::Plain),
        Column::programs("one_leaf", Unit::Plain),
    ];
    columns.extend(Share::ALL.iter().map(|share| {
        let title = match share {
            Share::Unattributed => "unattr.",
            share => share.as_str(),
        };
        let column = Column::new(share.as_str(), title, Unit::UJ).inside("shares_uj");
        // Those that are not among the rows got nothing.
        column.shown_if(totals.shares.contains_key(share))
    }));
    columns.push(Column::new("difference_uj", "diff. µJ", Unit::Plain));
    let row = |zone: &ZoneTotal| {
        let mut values = vec![
            Value::from(zone.zone.as_str()),
            Value::from(if zone.leaf { "leaf" } else { "root" }),
            Value::from(zone.kind.as_str()),
            Value::Words(zone.methods.iter().map(|method| method.as_str()).collect()),
            known(zone.energy(), Value::Whole),
            known(zone.energy(), Value::Whole),
            count(zone.known),
            count(zone.known_ns),
            average(zone.energy(), zone.known_ns),
            highest(zone.peak),
            Value::Text(format!("{}/{}", zone.known, totals.intervals)),
            count(zone.invalid),
            given(zone.reason.clone(), Value::Text),
            count(zone.one_leaf),
            given(zone.one_leaf_reason.clone(), Value::Text),
        ];
        values.extend(Share::ALL.iter().map(|share| match zone.shares_uj.get(share) {
            Some(_) => known(zone.share(*share), Value::Whole),
            None => Value::None,
        }));
        let closes = zone.has_parts() && zone.known > 0;
        values.push(given(closes.then_some(zone.difference_uj), Value::Signed));
        Row {
            kind: Kind::Named,
            values,
        }
    };
    // There can be hundreds of cores.
    let is_told = |zone: &&ZoneTotal| depth.details || zone.kind != ZoneKind::OneCore;
    let cores = totals.zones.iter().filter(|zone| !is_told(zone)).count();
    let mut notes = Vec::new();
    if cores > 0 {
        notes.push(format!(
            "zones of {cores} single cores are left out here; `dlpm report` lists them"
        ));
    }
    if partly {
        notes.push("known: intervals in which the energy of the zone is known, of all".to_owned());
    }
    Table {
        id: "zones",
        title: "Energy by zone, and who got it, in joules".to_owned(),
        notes,
        columns,
        rows: totals.zones.iter().filter(is_told).map(row).collect(),
    }
}
