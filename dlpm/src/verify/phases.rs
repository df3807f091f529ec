//! Events of phases: each stands at a border of intervals, and what ends was begun.

use std::collections::HashSet;

use crate::{
    attribution::ledger::Ledger,
    log::differs,
    phases::{Border, OPEN_PHASES, Request, Verb},
};

/// What the events of a trace have said so far.
#[derive(Debug, Default)]
pub struct PhaseEvents {
    open: HashSet<String>,
    /// An event stood at the beginning of a trace of which there is no sample yet.
    at_start: bool,
    /// Events may be missing, so that not every phase that is open is known.
    incomplete: bool,
    /// Samples that were dropped, and after which there was none: borders between them cannot be checked.
    dropped: Option<(u64, u64)>,
    /// Borders of events since the last sample.
    waiting: Vec<Border>,
}

impl PhaseEvents {
    /// The first sample of a trace: what was open before ended with its own trace.
    pub fn new_trace(&mut self) {
        if !std::mem::take(&mut self.at_start) {
            *self = Self::default();
        }
    }

    /// Samples with these numbers are not in the log.
    pub fn dropped(&mut self, from_seq: u64, to_seq: u64) {
        let from_seq = self.dropped.map_or(from_seq, |(earlier, _)| earlier.min(from_seq));
        self.dropped = Some((from_seq, to_seq));
    }

    /// Events may be missing.
    pub fn lose_track(&mut self) {
        self.incomplete = true;
    }

    /// What is wrong with the event of a phase that begins or ends; `last` are number and end of the sample before it,
    /// where these are known.
    pub fn event(&mut self, begins: bool, border: Border, label: &str, last: Option<(u64, u64)>) -> Vec<String> {
        let event = if begins { "phase_begin" } else { "phase_end" };
        let Border { seq, at_ns } = border;
        let mut failures = Vec::new();
        if let Err(reason) = Request::new(Verb::Mark, label) {
            failures.push(format!("event {event}: {reason}"));
        }
        if seq == 0 && !self.at_start {
            *self = Self {
                at_start: true,
                ..Self::default()
            };
        }
        // Before the first sample of a trace the one before belongs to another.
        if let Some((last_seq, end_ns)) = last.filter(|_| seq != 0) {
            if last_seq.checked_add(1) != Some(seq) {
                failures.push(differs(&format!("event {event}: seq"), last_seq.saturating_add(1), seq));
            } else if at_ns != end_ns {
                failures.push(differs(&format!("event {event}: at_ns"), end_ns, at_ns));
            }
        }
        if let Some((from_seq, to_seq)) = self.dropped
            && !(from_seq..=to_seq.saturating_add(1)).contains(&seq)
        {
            failures.push(format!(
                "event {event}: seq: expected a border of the intervals {from_seq} to {to_seq}, which were dropped, \
                 found {seq}"
            ));
        }
        if let Some(before) = self.waiting.last()
            && (seq < before.seq || (seq == before.seq) != (at_ns == before.at_ns) || at_ns < before.at_ns)
        {
            failures.push(format!(
                "event {event}: seq {seq} and at_ns {at_ns} do not follow {} and {} of the event before",
                before.seq, before.at_ns
            ));
        }
        self.waiting.push(border);
        match (begins, self.open.contains(label)) {
            (true, false) if self.open.len() < OPEN_PHASES => {
                self.open.insert(label.to_owned());
            }
            (true, false) => {
                self.incomplete = true;
                failures.push(format!("event phase_begin: more than {OPEN_PHASES} phases are open"));
            }
            (true, true) if !self.incomplete => {
                failures.push(format!("event phase_begin: phase `{label}` is open already"));
            }
            (false, true) => {
                self.open.remove(label);
            }
            (false, false) if !self.incomplete => {
                failures.push(format!("event phase_end: no phase `{label}` is open"));
            }
            _ => {}
        }
        failures
    }

    /// What the next sample says against the events before it.
    pub fn before(&mut self, ledger: &Ledger) -> Option<String> {
        self.dropped = None;
        let next = Border {
            seq: ledger.seq,
            at_ns: ledger.begin_ns,
        };
        let waiting = std::mem::take(&mut self.waiting);
        let wrong = waiting.iter().find(|border| {
            border.seq > next.seq || border.at_ns > next.at_ns || (border.seq == next.seq && **border != next)
        })?;
        Some(format!(
            "an event of a phase before it has seq {} and at_ns {}; the interval has {} and begins at {}",
            wrong.seq, wrong.at_ns, next.seq, next.at_ns
        ))
    }
}
