//! Sums by phase.

use std::collections::BTreeMap;

use super::Totals;
use crate::attribution::ledger::Ledger;

/// Phases that are kept apart at most: a mistake in a loop must not fill the memory.
const LABELS: usize = 2_000;

/// Sums of a phase.
#[derive(Clone, Debug, Default)]
pub struct PhaseTotal {
    /// How often it was open over at least one interval, once for each begin.
    pub count: u64,
    /// Open, and no interval of it was added.
    fresh: bool,
    /// Position of its first begin among those of all phases.
    order: usize,
    /// Sums of its intervals; no processes and cgroups.
    pub totals: Totals,
}

/// Sums by phase. Phases can nest and overlap, so that an interval may be in several.
#[derive(Clone, Debug, Default)]
pub struct PhaseTotals {
    /// By label.
    pub totals: BTreeMap<String, PhaseTotal>,
    /// Intervals that are in no phase.
    pub without: PhaseTotal,
    /// Begins of phases that are not kept apart, as there are too many.
    pub beyond: u64,
}

impl PhaseTotals {
    /// A phase begins, which was not open.
    pub fn begin(&mut self, label: &str) {
        let order = self.totals.len();
        match self.totals.get_mut(label) {
            Some(total) => total.fresh = true,
            None if order < LABELS => {
                let total = PhaseTotal {
                    fresh: true,
                    order,
                    ..PhaseTotal::default()
                };
                self.totals.insert(label.to_owned(), total);
            }
            None => self.beyond += 1,
        }
    }

    /// Adds an interval to the phases that are open in it.
    pub fn add<'a>(&mut self, ledger: &Ledger, open: impl Iterator<Item = &'a str>) {
        let mut is_in_one = false;
        for label in open {
            is_in_one = true;
            if let Some(total) = self.totals.get_mut(label) {
                total.count += u64::from(std::mem::take(&mut total.fresh));
                total.totals.add_sums(ledger);
            }
        }
        if !is_in_one {
            self.without.totals.add_sums(ledger);
        }
    }

    /// Labels and sums of the phases that have an interval, in the order in which they first began.
    pub fn in_order(&self) -> Vec<(&str, &PhaseTotal)> {
        let mut totals: Vec<_> = self
            .totals
            .iter()
            .map(|(label, total)| (label.as_str(), total))
            .collect();
        totals.sort_by_key(|(_, total)| total.order);
        totals
    }
}
