//! One recording: from the intervals of a machine to the lines of a log, without any IO.

use anyhow::{Context, Result};

use crate::{
    attribution::{Options, attribute, energy_tree::Carries, ledger::Ledger, selection::Selection},
    interval::Interval,
    log::{Event, Line, rotation::Limit},
    phases::{Border, Change, Phases, Request},
    sinks::segments::{Encoding, Segmenter, phase_events},
    totals::{Totals, phases::PhaseTotals},
};

/// A selection, phases, segments and sums.
pub struct Recorder {
    options: Options,
    carries: Carries,
    phases: Phases,
    /// Where the newest interval that was recorded ended.
    border: Border,
    segmenter: Segmenter,
    totals: Totals,
    phase_totals: PhaseTotals,
    /// Phases that are open in the next interval that is recorded.
    open: Vec<String>,
}

impl Recorder {
    /// One that has recorded nothing. `rotate` says when a file of the log ends.
    pub fn new(options: Options, encoding: Encoding, rotate: Option<Limit>) -> Self {
        Self {
            options,
            carries: Carries::default(),
            phases: Phases::default(),
            border: Border { seq: 0, at_ns: 0 },
            segmenter: Segmenter::new(encoding).rotating(rotate),
            totals: Totals::default(),
            phase_totals: PhaseTotals::default(),
            open: Vec::new(),
        }
    }

    /// Who is listed.
    pub fn selection(&self) -> &Selection {
        &self.options.selection
    }

    /// Sums of what was recorded.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The same by phase.
    pub fn phase_totals(&self) -> &PhaseTotals {
        &self.phase_totals
    }

    /// Whether a request begins a phase that is not open.
    pub fn begins(&self, request: &Request) -> bool {
        self.phases.begins(request)
    }

    /// What a request changes at the end of the open interval.
    ///
    /// # Errors
    ///
    /// Why it is refused (a sentence).
    pub fn apply(&mut self, request: &Request) -> Result<Vec<Change>, String> {
        self.phases.apply(request)
    }

    /// Forgets the phases that are open: their borders were lost, so they end with the log.
    pub fn lose_phases(&mut self) {
        self.phases = Phases::default();
        self.open.clear();
    }

    /// Goes on with phases that were begun elsewhere.
    pub fn go_on_with(&mut self, phases: Phases) {
        self.phases = phases;
    }

    /// Records an interval, at whose end `changes` happen: its ledger, and the lines for it.
    ///
    /// # Errors
    ///
    /// Where a ledger cannot be written as JSON.
    pub fn record(&mut self, interval: &Interval, changes: &[Change]) -> Result<(Ledger, Vec<Line>)> {
        let ledger = self.attribute(interval);
        let mut lines = self.add(&ledger)?;
        lines.extend(self.change(changes)?);
        Ok((ledger, lines))
    }

    /// Who used which energy in the next interval.
    pub fn attribute(&self, interval: &Interval) -> Ledger {
        attribute(interval, &self.options, &self.carries)
    }

    /// Records a ledger: the lines for it.
    ///
    /// # Errors
    ///
    /// Where it cannot be written as JSON.
    pub fn add(&mut self, ledger: &Ledger) -> Result<Vec<Line>> {
        self.carries = self.carries.after(ledger);
        self.totals.add(ledger);
        self.phase_totals.add(ledger, self.open.iter().map(String::as_str));
        self.border = Border {
            seq: ledger.seq + 1,
            at_ns: ledger.end_ns,
        };
        Ok(self.segmenter.next(ledger)?)
    }

    /// Records what changes at the end of the newest interval that was recorded: the lines for it.
    ///
    /// # Errors
    ///
    /// As [`Self::add`].
    pub fn change(&mut self, changes: &[Change]) -> Result<Vec<Line>> {
        for change in changes {
            match change {
                Change::Begin(label) => {
                    self.open.push(label.clone());
                    self.phase_totals.begin(label);
                }
                Change::End(label) => self.open.retain(|open| open != label),
            }
        }
        Ok(phase_events(self.border, changes)?)
    }

    /// The open segment ends with something that happened to intervals that are not recorded: the lines for it.
    ///
    /// # Errors
    ///
    /// As [`Self::add`].
    pub fn interrupt(&mut self, event: &Event) -> Result<Vec<Line>> {
        let mut lines = self.segmenter.end()?;
        lines.push(Line::event(event)?);
        Ok(lines)
    }

    /// The last lines: phases that are open end with the last interval that there is.
    ///
    /// # Errors
    ///
    /// Where they cannot be written as JSON.
    pub fn end(&mut self) -> Result<Vec<Line>> {
        let ends: Vec<Change> = self.open.drain(..).rev().map(Change::End).collect();
        let mut lines = phase_events(self.border, &ends)?;
        lines.extend(self.segmenter.end().context("the end of the log")?);
        Ok(lines)
    }
}
