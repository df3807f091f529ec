//! The line that tells on a terminal that the trace runs.

use crate::{
    attribution::ledger::{Ledger, RowKey},
    sinks::terminal,
    totals::Totals,
};

/// A line that is written over and over; nothing where standard error is not a terminal.
pub struct Progress {
    shown: bool,
    enabled: bool,
}

impl Progress {
    /// Shows nothing yet.
    pub fn new(wanted: bool) -> Self {
        Self {
            shown: false,
            enabled: wanted && terminal::has_terminal(),
        }
    }

    /// Shows the state of the trace after an interval, if the interval is long enough to show power.
    pub fn show(&mut self, ledger: &Ledger, totals: &Totals) {
        if !self.enabled || !ledger.tells_power() {
            return;
        }
        let listed = ledger
            .rows
            .iter()
            .filter(|row| matches!(row.key, RowKey::Process(..)))
            .count();
        let mut line = format!("{:.0} s, {listed} processes", to_f64(totals.duration_ns) / 1e9);
        let interval_ns = to_f64(u128::from(ledger.length_ns().max(1)));
        for root in &ledger.roots {
            match root.energy_uj {
                Ok(energy_uj) => {
                    let watts = to_f64(u128::from(energy_uj)) * 1e3 / interval_ns;
                    line.push_str(&format!(", {} {watts:.1} W ({})", root.zone, root.method.as_str()));
                }
                Err(_) => line.push_str(&format!(", {} unknown", root.zone)),
            }
        }
        terminal::overwrite(&line);
        self.shown = true;
    }

    /// Makes room for other output.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            terminal::overwrite("");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for the eye only")]
fn to_f64(value: u128) -> f64 {
    value as f64
}
