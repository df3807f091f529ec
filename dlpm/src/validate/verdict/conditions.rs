//! What spoils a validation.

use super::{
    Pair, Single, State,
    table::{Table, permille},
};
use crate::validate::{Cell, LoadKind, Refusal, Why, file::Header, show::beside, truth::ratio};

/// What single cells and the idle machine show so far; asked after each cell, so that nobody waits for nothing.
pub fn refusals(header: &Header, cells: &[Cell]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let limits = &header.limits;
    let named = |cell: &Cell| format!("{} in round {}", beside(&cell.loads()), cell.round + 1);
    if let Some((cell, reason)) = cells
        .iter()
        .find_map(|cell| Some((cell, cell.power_uw(header.package).err()?)))
    {
        refusals.push(Refusal::new(
            Why::MeterFailed,
            format!("package-{} is not known of {} ({reason})", header.package, named(cell)),
        ));
    }
    if cells.iter().any(|cell| cell.on_battery) {
        refusals.push(Refusal::new(
            Why::Battery,
            "the machine runs on battery, which saves power as it empties",
        ));
    }
    if let Some(cell) = cells.iter().find(|cell| cell.throttled.is_some_and(|count| count > 0)) {
        refusals.push(Refusal::new(
            Why::Throttling,
            format!("the kernel counted that a core was throttled during {}", named(cell)),
        ));
    }
    let foreign_ppm = |cell: &Cell| ratio(cell.foreign_ns().into(), i128::from(cell.ledger.length_ns()).max(1));
    if let Some(cell) = cells
        .iter()
        .max_by_key(|cell| foreign_ppm(cell))
        .filter(|cell| foreign_ppm(cell) > permille(limits.foreign_permille))
    {
        refusals.push(Refusal::new(
            Why::ForeignLoad,
            format!(
                "others used {} of a CPU during {}, and the limit is {}",
                percent(foreign_ppm(cell)),
                named(cell),
                percent(permille(limits.foreign_permille))
            ),
        ));
    }
    let idle: Vec<i128> = cells
        .iter()
        .filter(|cell| cell.runs.is_empty())
        .filter_map(|cell| cell.power_uw(header.package).ok())
        .collect();
    let (least, most) = (idle.iter().min(), idle.iter().max());
    if let (Some(least), Some(most)) = (least, most) {
        let moved_ppm = ratio(most - least, (*least).max(1));
        if moved_ppm > permille(limits.idle_permille) {
            refusals.push(Refusal::new(
                Why::UnstableIdle,
                format!(
                    "the idle machine drew from {} to {}, which is {} apart, and the limit is {}",
                    watts(*least),
                    watts(*most),
                    percent(moved_ppm),
                    percent(permille(limits.idle_permille))
                ),
            ));
        }
    }
    refusals
}

pub(super) fn of_singles(header: &Header, table: &Table, singles: &[Single]) -> Vec<Refusal> {
    let limits = &header.limits;
    let mut refusals = Vec::new();
    if let Some(single) = singles
        .iter()
        .max_by_key(|single| single.half_ppm)
        .filter(|single| i128::from(single.half_ppm) > permille(limits.single_permille))
    {
        refusals.push(Refusal::new(
            Why::UncertainLoad,
            format!(
                "the power with {} alone is known to ± {} only, and the limit is ± {}",
                single.load.as_str(),
                percent(single.half_ppm.into()),
                percent(permille(limits.single_permille))
            ),
        ));
    }
    let moved = |load: LoadKind| {
        let speeds = table.speeds(&[load], 0);
        let (slowest, fastest) = (speeds.iter().min()?, speeds.iter().max()?);
        Some(ratio(fastest - slowest, (*slowest).max(1)))
    };
    if let Some((load, moved_ppm)) = header
        .loads
        .iter()
        .filter_map(|load| Some((load, moved(*load)?)))
        .max_by_key(|(_, moved_ppm)| *moved_ppm)
        .filter(|(_, moved_ppm)| *moved_ppm > permille(limits.slowdown_permille))
    {
        refusals.push(Refusal::new(
            Why::UnstableSpeed,
            format!(
                "{} alone did {} more work in a second of one round than of another, and the limit is {}",
                load.as_str(),
                percent(moved_ppm),
                percent(permille(limits.slowdown_permille))
            ),
        ));
    }
    refusals
}

pub(super) fn of_pairs(pairs: &[Pair]) -> Option<Refusal> {
    if pairs.iter().any(|pair| pair.state == State::Used) {
        return None;
    }
    let sides = pairs.iter().flat_map(|pair| &pair.sides);
    let slowed = sides.max_by_key(|side| side.speed_ppm.abs())?;
    Some(match pairs.iter().any(|pair| pair.state == State::Interfering) {
        true => Refusal::new(
            Why::Interference,
            format!(
                "in every pair a load was slower or faster than alone: {} by {}",
                slowed.load.as_str(),
                percent(slowed.speed_ppm.unsigned_abs().into())
            ),
        ),
        false => Refusal::new(Why::NothingToSplit, "in every pair a load draws nothing above idle"),
    })
}

fn percent(ppm: i128) -> String {
    format!("{:.1} %", ppm as f64 / 10_000.0)
}

fn watts(microwatts: i128) -> String {
    format!("{:.3} W", microwatts as f64 / 1e6)
}
