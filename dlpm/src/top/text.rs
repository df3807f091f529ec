//! Figures as text, and what a script reads.

use serde_json::{Value, json};

use super::{
    app::App,
    tally::{Tally, milliwatts},
};
use crate::attribution::{ledger::RowKey, split::split};

/// Rows in the order in which they are shown, with their names.
const ROWS: [(RowKey, &str); 5] = [
    (RowKey::Others, "others"),
    (RowKey::Kernel, "kernel"),
    (RowKey::SelfDlpm, "dlpm"),
    (RowKey::Idle, "idle"),
    (RowKey::Unattributed, "unattributed"),
];

/// The parts of the newest interval's power in mW, by name, and their sum: they add up, as the energies do. `listed` is
/// everybody who has a line.
pub fn parts(tally: &Tally) -> (Vec<(&'static str, u64)>, u64) {
    let fixed: Vec<(&str, u64)> = ROWS
        .iter()
        .filter_map(|(row, name)| Some((*name, tally.fixed.get(row)?.now_uj)))
        .collect();
    let of_fixed: u64 = fixed.iter().map(|(_, uj)| *uj).fold(0, u64::saturating_add);
    let mut parts = vec![("listed", tally.now_uj.saturating_sub(of_fixed))];
    parts.extend(fixed);
    let sum_mw = milliwatts(tally.now_uj, tally.length_ns);
    let weights: Vec<u128> = parts.iter().map(|(_, uj)| u128::from(*uj)).collect();
    let shares = split(sum_mw, &weights).unwrap_or_else(|| vec![0; parts.len()]);
    let named = parts.iter().zip(shares).map(|((name, _), mw)| (*name, mw));
    (named.collect(), sum_mw)
}

/// Milliwatts as watts.
pub fn watts(mw: u64) -> String {
    format!("{}.{:03}", mw / 1000, mw % 1000)
}

/// Energy in a unit that keeps it short.
pub fn joules(energy_uj: u128) -> String {
    let mj = energy_uj / 1000;
    match mj {
        0..100_000 => format!("{}.{:02}", mj / 1000, mj % 1000 / 10),
        100_000..10_000_000 => format!("{}", mj / 1000),
        10_000_000..10_000_000_000 => format!("{}.{}k", mj / 1_000_000, mj % 1_000_000 / 100_000),
        _ => format!("{}.{}M", mj / 1_000_000_000, mj % 1_000_000_000 / 100_000_000),
    }
}

/// Bytes in a unit that keeps them short.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    match (unit, tenths) {
        (0, _) => format!("{bytes}{}", UNITS[0]),
        (_, 0..100) => format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit]),
        _ => format!("{}{}", tenths / 10, UNITS[unit]),
    }
}

/// A part of a whole in tenths of a percent.
pub fn percent(part: u128, whole: u128) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let tenths = part * 1000 / whole;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// One frame for a script, as one line of JSON, in integers.
pub fn json(app: &App) -> String {
    let tally = app.shown();
    let (parts, _) = parts(tally);
    let rows: serde_json::Map<String, Value> = ROWS
        .iter()
        .filter_map(|(row, _)| {
            let fixed = tally.fixed.get(row)?;
            let value =
                json!({"energy_uj": fixed.now_uj, "since_start_uj": word(fixed.energy_uj), "cpu_ns": fixed.now_cpu_ns});
            Some((row.as_str().to_owned(), value))
        })
        .collect();
    let lines: Vec<Value> = app
        .lines()
        .into_iter()
        .map(|line| {
            json!({
                "name": line.entry.name,
                "pid": line.pid,
                "tenant": line.entry.tenant,
                "uid": line.entry.uid,
                "energy_uj": line.entry.now_uj,
                "gpu_uj": line.entry.now_gpu_uj,
                "cpu_ns": line.entry.now_cpu_ns,
                "since_start_uj": word(line.entry.energy_uj),
                "since_start_cpu_ns": word(line.entry.cpu_ns),
                "memory_bytes": line.entry.memory_bytes,
            })
        })
        .collect();
    let frame = json!({
        "node_id": app.node,
        "interval_ns": tally.length_ns,
        "since_start_ns": word(tally.passed_ns),
        "is_estimate": tally.is_estimate,
        "is_metered": tally.is_metered,
        "unknown_zones": tally.unknown,
        "energy_uj": tally.now_uj,
        "since_start_uj": word(tally.energy_uj),
        "power_mw": parts.iter().map(|(name, mw)| ((*name).to_owned(), Value::from(*mw))).collect::<serde_json::Map<_, _>>(),
        "view": app.view.as_str(),
        "lines": lines,
        "rows": rows,
    });
    format!("{frame}\n")
}

fn word(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// One frame for a script, as text: the screen without colours.
pub fn plain(app: &App, width: u16) -> String {
    let lines = app.lines().len();
    let height = u16::try_from(lines.saturating_add(super::screen::AROUND))
        .unwrap_or(u16::MAX)
        .clamp(8, 2000);
    let area = ratatui::layout::Rect::new(0, 0, width, height);
    let mut buffer = ratatui::buffer::Buffer::empty(area);
    super::screen::render(app, super::screen::Colours::None, area, &mut buffer);
    super::screen::text_of(&buffer)
}
