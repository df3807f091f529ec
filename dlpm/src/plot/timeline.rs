//! Where intervals and phases lie on one axis.

use std::collections::HashMap;

use crate::{
    attribution::ledger::Ledger,
    log::{
        Event,
        names::CLOCK_STEP_NS,
        phases::{Border, Phases},
    },
};

/// Phases that are kept at most; their number goes on.
const PHASES: usize = 20_000;

/// A piece of the axis, in ns since the begin of the first interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it begins.
    pub begin_ns: u64,
    /// Where it ends.
    pub end_ns: u64,
}

/// Lays the lines of a log on an axis, in their order.
///
/// The axis goes by the dates, so that a pause between two traces of a folder, or a suspended machine, is a gap. Intervals
/// whose own clock says that they follow each other do so to the nanosecond. Where the wall clock was set back, the axis
/// goes on.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    origin_unix_ns: Option<i64>,
    /// What is added to dates, because the clock was set back.
    shift_ns: i64,
    end_ns: u64,
    /// CLOCK_MONOTONIC and number of the newest interval.
    last: Option<(u64, u64)>,
    /// The sample of AIPowerMeter that the next one continues.
    last_foreign_unix_ns: Option<i64>,
    gaps: u64,
    gaps_ns: u64,
    phases: Phases,
    begins: HashMap<String, u64>,
    closed: Vec<(String, u64, u64)>,
    more_phases: u64,
}

impl Timeline {
    /// Where the next interval of dlpm lies.
    pub fn interval(&mut self, ledger: &Ledger) -> Span {
        let length_ns = ledger.length_ns();
        let follows = self.last == Some((ledger.begin_ns, ledger.seq.wrapping_sub(1)));
        for border in self.phases.interval(ledger.seq) {
            self.border(border);
        }
        self.last = Some((ledger.end_ns, ledger.seq));
        self.last_foreign_unix_ns = None;
        self.place(ledger.end_unix_ns, length_ns, follows)
    }

    /// Where the next sample of AIPowerMeter lies: from the one before it in the same segment; `None` for the first one,
    /// of which nobody knows when it began.
    pub fn foreign(&mut self, unix_ns: i64) -> Option<Span> {
        let length_ns = match self.last_foreign_unix_ns.replace(unix_ns) {
            Some(last) => u64::try_from(unix_ns.saturating_sub(last)).unwrap_or(0),
            None => 0,
        };
        let follows = length_ns > 0;
        let span = self.place(unix_ns, length_ns, follows);
        follows.then_some(span)
    }

    /// A segment ends.
    pub fn segment_end(&mut self) {
        self.last_foreign_unix_ns = None;
    }

    /// An event.
    pub fn event(&mut self, event: &Event) {
        for border in self.phases.event(event) {
            self.border(border);
        }
    }

    /// Labels of the phases that are open.
    pub fn open_phases(&self) -> impl Iterator<Item = &str> {
        self.phases.open()
    }

    /// Begin of the axis by the wall clock, in ns since 1970; `None` without any interval.
    pub fn origin_unix_ns(&self) -> Option<i64> {
        self.origin_unix_ns
    }

    /// End of the newest interval.
    pub fn end_ns(&self) -> u64 {
        self.end_ns
    }

    /// Number of gaps, and their length in ns.
    pub fn gaps(&self) -> (u64, u64) {
        (self.gaps, self.gaps_ns)
    }

    /// All phases until now, those that are still open ending here: label, begin and end; and how many more there were.
    pub fn phases(&self) -> (Vec<(String, u64, u64)>, u64) {
        let open = self
            .begins
            .iter()
            .map(|(label, begin)| (label.clone(), *begin, self.end_ns));
        (self.closed.iter().cloned().chain(open).collect(), self.more_phases)
    }

    fn place(&mut self, end_unix_ns: i64, length_ns: u64, follows: bool) -> Span {
        let length = i64::try_from(length_ns).unwrap_or(i64::MAX);
        let origin = *self
            .origin_unix_ns
            .get_or_insert_with(|| end_unix_ns.saturating_sub(length));
        let by_date = end_unix_ns
            .saturating_sub(origin)
            .saturating_add(self.shift_ns)
            .saturating_sub(length);
        let end = i64::try_from(self.end_ns).unwrap_or(i64::MAX);
        let late = by_date.saturating_sub(end);
        let begin_ns = if (follows && late.abs() <= CLOCK_STEP_NS) || late < 0 {
            if late < -CLOCK_STEP_NS {
                self.shift_ns = self.shift_ns.saturating_sub(late);
            }
            self.end_ns
        } else {
            u64::try_from(by_date).unwrap_or(self.end_ns)
        };
        if begin_ns > self.end_ns {
            self.gaps += 1;
            self.gaps_ns += begin_ns - self.end_ns;
        }
        self.end_ns = begin_ns.saturating_add(length_ns);
        Span {
            begin_ns,
            end_ns: self.end_ns,
        }
    }

    fn border(&mut self, border: Border) {
        match border {
            Border::Opened(label) => drop(self.begins.insert(label, self.end_ns)),
            Border::Closed(label) => {
                let Some(begin_ns) = self.begins.remove(&label) else {
                    return;
                };
                if self.closed.len() < PHASES {
                    self.closed.push((label, begin_ns, self.end_ns));
                } else {
                    self.more_phases += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attribution::ledger::IdlePolicy, sinks::testing};

    const SECOND: u64 = 1_000_000_000;

    /// An interval of a second that ends at these times by both clocks.
    fn ledger(seq: u64, end_ns: u64, end_unix_ns: i64) -> Ledger {
        Ledger {
            seq,
            begin_ns: end_ns - SECOND,
            end_ns,
            end_unix_ns,
            idle_policy: IdlePolicy::Proportional,
            ..testing::ledger(0, Vec::new())
        }
    }

    fn seconds(span: Span) -> (f64, f64) {
        (span.begin_ns as f64 / 1e9, span.end_ns as f64 / 1e9)
    }

    #[test]
    fn intervals_follow_each_other_and_pauses_are_gaps() {
        let mut timeline = Timeline::default();
        let unix = 1_700_000_000_000_000_000;
        assert_eq!(seconds(timeline.interval(&ledger(0, 10 * SECOND, unix))), (0.0, 1.0));
        // The date is a little late.
        let next = ledger(1, 11 * SECOND, unix + 1_000_300_000);
        assert_eq!(seconds(timeline.interval(&next)), (1.0, 2.0));
        // An appended trace, of another boot.
        let appended = ledger(0, 3 * SECOND, unix + 61_000_000_000);
        assert_eq!(seconds(timeline.interval(&appended)), (61.0, 62.0));
        assert_eq!(timeline.gaps(), (1, 59 * SECOND));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_turn_the_axis() {
        let mut timeline = Timeline::default();
        let unix = 1_700_000_000_000_000_000;
        timeline.interval(&ledger(0, 10 * SECOND, unix));
        let hour = 3_600_000_000_000;
        assert_eq!(
            seconds(timeline.interval(&ledger(1, 11 * SECOND, unix - hour))),
            (1.0, 2.0)
        );
        assert_eq!(
            seconds(timeline.interval(&ledger(2, 12 * SECOND, unix - hour + 1_000_000_000))),
            (2.0, 3.0)
        );
        assert_eq!(timeline.gaps(), (0, 0));
    }

    #[test]
    fn a_sample_of_aipowermeter_lasts_from_the_one_before() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.foreign(5_000_000_000), None);
        assert_eq!(timeline.foreign(7_000_000_000).map(seconds), Some((0.0, 2.0)));
        timeline.segment_end();
        assert_eq!(timeline.foreign(20_000_000_000), None);
        assert_eq!(timeline.foreign(21_000_000_000).map(seconds), Some((15.0, 16.0)));
    }

    #[test]
    fn phases_lie_between_their_borders() {
        let mut timeline = Timeline::default();
        let unix = 1_700_000_000_000_000_000;
        timeline.interval(&ledger(0, 10 * SECOND, unix));
        let label = "train".to_owned();
        timeline.event(&Event::PhaseBegin {
            seq: 1,
            at_ns: 10 * SECOND,
            label: label.clone(),
        });
        timeline.interval(&ledger(1, 11 * SECOND, unix + 1_000_000_000));
        timeline.event(&Event::PhaseEnd {
            seq: 2,
            at_ns: 11 * SECOND,
            label: label.clone(),
        });
        timeline.interval(&ledger(2, 12 * SECOND, unix + 2_000_000_000));
        assert_eq!(timeline.phases(), (vec![(label, SECOND, 2 * SECOND)], 0));
    }
}
