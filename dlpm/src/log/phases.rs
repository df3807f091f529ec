//! Which phases an interval belongs to.

use super::event::Event;
use crate::phases::OPEN_PHASES;

/// The phases that are open at one place of a log. An interval belongs to all of them.
///
/// A phase that begins again while it is open is the same one; its outermost end closes it. Phases end with their
/// trace, also where that was killed and nothing says so: in the next trace, `seq` starts again.
#[derive(Clone, Debug, Default)]
pub struct Phases {
    open: Vec<(String, u32)>,
    last_seq: Option<u64>,
    unmatched: u64,
    beyond: u64,
    /// Of those, how many have not ended.
    beyond_open: u64,
}

/// A change at a border.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Border {
    /// A phase opened.
    Opened(String),
    /// A phase was closed.
    Closed(String),
}

impl Phases {
    /// Takes the next event of the log; says what opened or was closed.
    pub fn event(&mut self, event: &Event) -> Vec<Border> {
        match event {
            Event::PhaseBegin { seq, label, .. } => {
                let mut borders = self.trace_of(*seq);
                borders.extend(self.begin(label));
                borders
            }
            Event::PhaseEnd { seq, label, .. } => {
                let mut borders = self.trace_of(*seq);
                borders.extend(self.end(label));
                borders
            }
            _ => Vec::new(),
        }
    }

    /// Takes the next interval of the log; says what was closed before it, because its trace had ended.
    pub fn interval(&mut self, seq: u64) -> Vec<Border> {
        let borders = self.trace_of(seq);
        self.last_seq = Some(seq);
        borders
    }

    /// Labels of the open phases, in the order in which they opened.
    pub fn open(&self) -> impl Iterator<Item = &str> {
        self.open.iter().map(|(label, _)| label.as_str())
    }

    /// Ends of phases that had not begun.
    pub fn unmatched(&self) -> u64 {
        self.unmatched
    }

    /// Begins that were passed over, since more phases were open than a trace allows.
    pub fn beyond(&self) -> u64 {
        self.beyond
    }

    /// Closes everything if `seq` is of a new trace.
    fn trace_of(&mut self, seq: u64) -> Vec<Border> {
        if self.last_seq.is_none_or(|last| last < seq) {
            return Vec::new();
        }
        self.last_seq = None;
        self.beyond_open = 0;
        self.open.drain(..).map(|(label, _)| Border::Closed(label)).collect()
    }

    fn begin(&mut self, label: &str) -> Option<Border> {
        if let Some((_, depth)) = self.open.iter_mut().find(|(open, _)| open == label) {
            *depth = depth.saturating_add(1);
            return None;
        }
        if self.open.len() >= OPEN_PHASES {
            self.beyond += 1;
            self.beyond_open += 1;
            return None;
        }
        self.open.push((label.to_owned(), 1));
        Some(Border::Opened(label.to_owned()))
    }

    fn end(&mut self, label: &str) -> Option<Border> {
        let Some(position) = self.open.iter().position(|(open, _)| open == label) else {
            if self.beyond_open > 0 {
                self.beyond_open -= 1;
            } else {
                self.unmatched += 1;
            }
            return None;
        };
        let (_, depth) = &mut self.open[position];
        *depth -= 1;
        if *depth > 0 {
            return None;
        }
        Some(Border::Closed(self.open.remove(position).0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(seq: u64, label: &str) -> Event {
        Event::PhaseBegin {
            seq,
            at_ns: 1,
            label: label.to_owned(),
        }
    }

    fn end(seq: u64, label: &str) -> Event {
        Event::PhaseEnd {
            seq,
            at_ns: 1,
            label: label.to_owned(),
        }
    }

    fn open(phases: &Phases) -> Vec<&str> {
        phases.open().collect()
    }

    #[test]
    fn phases_nest_and_overlap() {
        let mut phases = Phases::default();
        assert_eq!(phases.event(&begin(0, "train")), [Border::Opened("train".to_owned())]);
        phases.interval(0);
        phases.event(&begin(1, "epoch"));
        assert_eq!(phases.event(&begin(1, "train")), []);
        phases.interval(1);
        assert_eq!(open(&phases), ["train", "epoch"]);
        assert_eq!(phases.event(&end(2, "train")), []);
        assert_eq!(phases.event(&end(2, "train")), [Border::Closed("train".to_owned())]);
        assert_eq!(open(&phases), ["epoch"]);
        assert_eq!(phases.event(&end(2, "train")), []);
        assert_eq!(phases.unmatched(), 1);
    }

    #[test]
    fn no_more_phases_are_open_than_a_trace_allows() {
        let mut phases = Phases::default();
        let labels: Vec<String> = (0..100_000).map(|number| number.to_string()).collect();
        for label in &labels {
            phases.event(&begin(0, label));
        }
        assert_eq!(phases.open().count(), OPEN_PHASES);
        assert_eq!(phases.beyond(), 99_900);
        for label in labels.iter().rev() {
            phases.event(&end(1, label));
        }
        assert_eq!((phases.open().count(), phases.unmatched()), (0, 0));
        phases.event(&end(1, "other"));
        assert_eq!(phases.unmatched(), 1);
    }

    #[test]
    fn phases_end_with_their_trace() {
        let mut phases = Phases::default();
        phases.event(&begin(0, "a"));
        phases.interval(0);
        phases.interval(1);
        // A border before the first interval of the next trace, and one whose first interval says it.
        assert_eq!(
            phases.event(&begin(0, "b")),
            [Border::Closed("a".to_owned()), Border::Opened("b".to_owned())]
        );
        phases.interval(0);
        assert_eq!(open(&phases), ["b"]);
        assert_eq!(phases.interval(0), [Border::Closed("b".to_owned())]);
        assert_eq!(open(&phases), [""; 0]);
    }
}
