//! Sums by phase.

use std::collections::BTreeMap;

use super::{
    log::Event,
    phases::{Border, Phases},
};
use crate::{attribution::ledger::Ledger, sinks::totals::Totals};

/// Phases that are told apart at most: a mistake in a loop must not fill the memory.
const LABELS: usize = 2_000;

/// Sums of a phase.
#[derive(Clone, Debug, Default)]
pub struct PhaseTotal {
    /// How often it was open over at least one interval, once for each begin.
    pub count: u64,
    /// Open, and no interval of it was added.
    fresh: bool,
    /// Position of its first begin among those of all phases.
    pub order: usize,
    /// Sums of its intervals; no processes and cgroups.
    pub totals: Totals,
}

/// Sums by phase. Phases can nest and overlap, so that an interval may be in several.
#[derive(Clone, Debug, Default)]
pub struct PhaseTotals {
    /// What is open.
    pub phases: Phases,
    /// By label.
    pub totals: BTreeMap<String, PhaseTotal>,
    /// Intervals that are in no phase.
    pub without: PhaseTotal,
    /// Begins of phases that are not told apart, as there are too many.
    beyond: u64,
}

impl PhaseTotals {
    /// Takes the next event.
    pub fn event(&mut self, event: &Event) {
        for border in self.phases.event(event) {
            let Border::Opened(label) = border else { continue };
            let order = self.totals.len();
            match self.totals.get_mut(&label) {
                Some(total) => total.fresh = true,
                None if order < LABELS => {
                    let total = PhaseTotal {
                        fresh: true,
                        order,
                        ..PhaseTotal::default()
                    };
                    self.totals.insert(label, total);
                }
                None => self.beyond += 1,
            }
        }
    }

    /// Takes the next interval: closes what an earlier trace left open.
    pub fn begin_interval(&mut self, seq: u64) {
        self.phases.interval(seq);
    }

    /// Adds the interval to the open phases.
    pub fn add(&mut self, ledger: &Ledger) {
        let mut is_in_one = false;
        for label in self.phases.open() {
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

    /// Begins of phases that are not told apart, as there are too many, or too many are open.
    pub fn beyond(&self) -> u64 {
        self.beyond + self.phases.beyond()
    }

    /// Whether the phase is open.
    pub fn is_open(&self, label: &str) -> bool {
        self.phases.open().any(|open| open == label)
    }

    /// Labels and sums, in the order in which the phases first began.
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
