//! How often marks may change something: each such mark ends an interval on every busy CPU, and is a line of a log.

use std::time::{Duration, Instant};

/// Marks a second on average.
pub const MARKS_A_SECOND: u32 = 200;

/// Marks in a row, on top of that.
pub const MARKS_IN_A_ROW: u32 = 1_000;

/// A bucket that empties at a steady rate (the generic cell rate algorithm of ITU-T I.371, in time instead of tokens).
#[derive(Debug)]
pub struct MarkRate {
    /// The time that one mark uses up.
    period: Duration,
    in_a_row: u32,
    /// When what was taken is used up.
    empty_at: Option<Instant>,
}

impl Default for MarkRate {
    /// That of one trace.
    fn default() -> Self {
        Self::times(1)
    }
}

impl MarkRate {
    /// So many times the rate of one trace, and the marks in a row.
    pub fn times(factor: u32) -> Self {
        let factor = factor.max(1);
        Self {
            period: Duration::from_secs(1) / MARKS_A_SECOND.saturating_mul(factor),
            in_a_row: MARKS_IN_A_ROW.saturating_mul(factor),
            empty_at: None,
        }
    }

    /// Whether one more mark may begin something now.
    pub fn allows(&self, now: Instant) -> bool {
        let used = self
            .empty_at
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        used + self.period <= self.period * self.in_a_row
    }

    /// A mark has changed something. Those that end a phase are never refused, so they may take more than there is: at
    /// most one for each phase that is open.
    pub fn take(&mut self, now: Instant) {
        self.empty_at = Some(self.empty_at.map_or(now, |at| at.max(now)) + self.period);
    }
}

/// What is said to a mark that comes too early.
pub fn refusal() -> String {
    format!(
        "marks come too fast: {MARKS_A_SECOND} a second are taken after {MARKS_IN_A_ROW} in a row; mark fewer and \
         longer phases, such as epochs instead of batches"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marks of a client that never waits, until it is refused.
    fn taken(rate: &mut MarkRate, now: Instant) -> u32 {
        let mut marks = 0;
        while rate.allows(now) {
            rate.take(now);
            marks += 1;
        }
        marks
    }

    #[test]
    fn a_burst_is_free_and_what_follows_has_the_stated_rate() {
        let (mut rate, start) = (MarkRate::default(), Instant::now());
        assert_eq!(taken(&mut rate, start), MARKS_IN_A_ROW);
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(taken(&mut rate, after(4)), 0);
        assert_eq!(taken(&mut rate, after(5)), 1);
        assert_eq!(taken(&mut rate, after(1_005)), MARKS_A_SECOND);
        assert_eq!(taken(&mut rate, after(60_000)), MARKS_IN_A_ROW);
    }

    #[test]
    fn several_traces_have_several_times_as_much() {
        let (mut rate, start) = (MarkRate::times(2), Instant::now());
        assert_eq!(taken(&mut rate, start), 2 * MARKS_IN_A_ROW);
        assert_eq!(taken(&mut rate, start + Duration::from_secs(1)), 2 * MARKS_A_SECOND);
    }

    #[test]
    fn a_steady_client_within_the_rate_is_never_refused() {
        let (mut rate, start) = (MarkRate::default(), Instant::now());
        for mark in 0..10_000 {
            let now = start + rate.period * mark;
            assert!(rate.allows(now));
            rate.take(now);
        }
    }

    #[test]
    fn ends_take_more_than_there_is_and_are_paid_back() {
        let (mut rate, start) = (MarkRate::default(), Instant::now());
        assert_eq!(taken(&mut rate, start), MARKS_IN_A_ROW);
        for _ in 0..MARKS_IN_A_ROW {
            rate.take(start);
        }
        assert!(!rate.allows(start + rate.period * MARKS_IN_A_ROW));
        assert!(rate.allows(start + rate.period * (MARKS_IN_A_ROW + 1)));
    }
}
