//! What is missing or not exact in sums.

use super::figures::decimal;
use crate::{
    interval::ZoneKind,
    printable::printable,
    totals::{Totals, ZoneTotal},
};

/// What is missing or not exact, a sentence each.
pub fn notes(totals: &Totals) -> Vec<String> {
    let mut notes = Vec::new();
    if totals.is_estimate() {
        let whole = totals.zones.iter().filter(|zone| zone.leaf).all(ZoneTotal::is_estimate);
        // The platform's zone can be measured beside it, and is part of no sum.
        let psys = totals.zones.iter().any(|zone| zone.kind == ZoneKind::Psys);
        notes.push(format!(
            "{} an estimate, made from the watts given with --estimate; {}",
            if whole { "energy is" } else { "a part of the energy is" },
            match psys {
                true if whole => "nothing but psys measured any",
                _ => "nothing measured it",
            }
        ));
    }
    if totals.cpu.violations > 0 {
        notes.push(format!(
            "busy, idle and lost time do not add up to the interval in {} intervals of a CPU: please report this",
            totals.cpu.violations
        ));
    }
    if totals.cpu.lost_ns > 0 {
        notes.push(format!(
            "{} s of CPU time found no room in the maps; they are in the row unattributed",
            decimal(totals.cpu.lost_ns, 9, 6)
        ));
    }
    notes.extend(totals.zones.iter().flat_map(|zone| zone_notes(zone, totals.intervals)));
    if totals.folded_processes > 0 {
        notes.push(format!(
            "{} small processes are summed up by cgroup only{}",
            totals.folded_processes,
            if totals.folded_running {
                ", some of which may appear with a part of what they used"
            } else {
                ""
            }
        ));
    }
    if totals.folded_cgroups.0 > 0 {
        notes.push(format!("{} small cgroups are summed up", totals.folded_cgroups.0));
    }
    notes
}

fn zone_notes(zone: &ZoneTotal, intervals: u64) -> Vec<String> {
    let because = |reason: &Option<String>| {
        reason
            .as_ref()
            .map_or_else(String::new, |reason| format!(": {}", printable(reason)))
    };
    let mut notes = Vec::new();
    if zone.invalid > 0 {
        notes.push(format!(
            "{} is not known in {} of {intervals} intervals{}",
            zone.zone,
            zone.invalid,
            because(&zone.reason)
        ));
    }
    if zone.one_leaf > 0 {
        notes.push(format!(
            "{} is split as one leaf in {} of {intervals} intervals{}",
            zone.zone,
            zone.one_leaf,
            because(&zone.one_leaf_reason)
        ));
    }
    notes
}
