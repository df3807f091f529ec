//! What a log holds: the sums of the tables, and its axis.

use std::path::Path;

use serde_json::Value;

use crate::{
    log::{LogError, window::Window},
    plot::{
        metrics::Inventory,
        scan::{Sample, Scanned, scan_lines},
    },
    report::collect::Collected,
    sources::timezone::local,
    totals::Amount,
};

/// Sums of a log, in bounded memory.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Lines, axis and phases.
    pub scanned: Scanned,
    /// What `dlpm report` shows.
    pub collected: Collected,
    /// What AIPowerMeter recorded, where that is all.
    pub inventory: Inventory,
}

impl Survey {
    /// Reads a log.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    pub fn of(folder: &Path, window: &Window) -> Result<Self, LogError> {
        let timezone = &local().timezone;
        let mut collected = Collected::default();
        let mut inventory = Inventory::default();
        let scanned = scan_lines(
            folder,
            window,
            u64::MAX,
            |line| collected.line(line, window, timezone),
            |sample, _| {
                if let Sample::Foreign(raw) = sample
                    && let Ok(metrics) = serde_json::from_str::<Value>(raw.get())
                {
                    inventory.add_fields(&metrics);
                }
            },
        )?;
        collected.passed_over = scanned.passed_over;
        Ok(Self {
            scanned,
            collected,
            inventory,
        })
    }

    /// Whether rows are weighed by energy, where any is known; else by CPU time.
    pub fn by_energy(&self) -> bool {
        self.collected.totals.energy().is_some()
    }

    /// What decides who is large.
    pub fn size(&self, amount: &Amount) -> u128 {
        if self.by_energy() {
            amount.energy_uj
        } else {
            amount.cpu_ns
        }
    }
}
