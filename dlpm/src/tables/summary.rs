//! What a trace found, for a terminal.

use super::{Depth, answer, consumers, figures::counted, notes::notes, phases::phases, zones::zones};
use crate::{
    printable::printable,
    totals::{Totals, phases::PhaseTotals},
};

/// Columns of a summary.
const WIDTH: u16 = 100;

/// Rows of a table of a summary.
const TOP: usize = 15;

/// What a summary is made of.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a> {
    /// The sums.
    pub totals: &'a Totals,
    /// The same by phase.
    pub phases: &'a PhaseTotals,
    /// Whose energy was asked for.
    pub listed: Option<&'a str>,
    /// Whether each process has a row of its own.
    pub each: bool,
    /// What the measuring cost.
    pub cost: &'a str,
    /// What else was dropped or is absent, a sentence each.
    pub notes: &'a [String],
}

impl Summary<'_> {
    /// The answer, phases, the biggest consumers, cgroups if there are several, energy by zone, and what is missing.
    pub fn text(&self) -> String {
        let totals = self.totals;
        let depth = Depth {
            top: TOP,
            details: false,
            each: self.each,
        };
        let mut text = format!(
            "\n{}\n{}; {} on {}\n",
            answer::headline(totals, &answer::who(self.listed, totals)),
            answer::how(totals),
            counted(totals.intervals, "interval"),
            counted(totals.cpu.cpus as u64, "CPU"),
        );
        text += &phases(totals, self.phases, depth, false, None).text(WIDTH);
        text += &consumers::processes(totals, depth).text(WIDTH);
        if totals.cgroups.len() > 1 {
            text += &consumers::cgroups(totals, depth).text(WIDTH);
        }
        text += &zones(totals, depth).text(WIDTH);
        if !self.cost.is_empty() {
            text += &format!("\n{}", self.cost);
        }
        let more = self.notes.iter().map(|note| printable(note));
        text + &list(notes(totals).into_iter().chain(more))
    }
}

/// Sentences, a line each.
pub fn list(notes: impl Iterator<Item = String>) -> String {
    let lines: String = notes.map(|note| format!("  * {note}\n")).collect();
    if lines.is_empty() {
        return lines;
    }
    format!("\nNotes\n{lines}")
}
