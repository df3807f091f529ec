//! What perf events counted, as integers that add up on each CPU.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Events that can be counted at once.
pub const MAX_EVENTS: usize = 4;

/// What each event of the trace counted, in their order; 0 where there are fewer. Zeros at the end are not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counts(pub [u64; MAX_EVENTS]);

impl Counts {
    /// Whether nothing was counted.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; MAX_EVENTS]
    }

    /// Adds others, event by event.
    pub fn add(&mut self, others: &Self) {
        for (sum, count) in self.0.iter_mut().zip(others.0) {
            *sum = sum.saturating_add(count);
        }
    }

    /// Whether only the first `events` of them are not 0.
    pub fn fit(&self, events: usize) -> bool {
        self.0.iter().skip(events).all(|count| *count == 0)
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let used = self.0.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        serializer.collect_seq(self.0.iter().take(used))
    }
}

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Vec::<u64>::deserialize(deserializer)?;
        let mut counts = Self::default();
        if written.len() > MAX_EVENTS {
            return Err(de::Error::invalid_length(written.len(), &"counts of at most 4 events"));
        }
        for (count, written) in counts.0.iter_mut().zip(written) {
            *count = written;
        }
        Ok(counts)
    }
}

/// What the events counted on one CPU. The counter law says that, for each event, `busy`, `idle` and `lost` add up to `last`
/// less `first`.
///
/// A CPU that is idle is not interrupted when an interval ends, so nobody reads its events then: what its idle task counts
/// belongs to the interval in which it leaves idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuCounts {
    /// Readings with which the interval began: those with which the one before ended.
    pub first: Counts,
    /// Readings with which it ended.
    pub last: Counts,
    /// Sum over the usage records of this CPU.
    pub busy: Counts,
    /// What was counted in idle time.
    pub idle: Counts,
    /// What cannot be said to be of anybody.
    pub lost: Counts,
    /// Readings that failed, or came after one that did. Where there are any, nothing is split by these counts.
    #[serde(default, skip_serializing_if = "is_none")]
    pub failed: u64,
}

fn is_none(failed: &u64) -> bool {
    *failed == 0
}

impl CpuCounts {
    /// The first event of which the counter law does not hold, with the sum and the difference.
    pub fn law_broken(&self) -> Option<(usize, u128, u64)> {
        (0..MAX_EVENTS).find_map(|event| {
            let sum: u128 = [&self.busy, &self.idle, &self.lost]
                .map(|counts| u128::from(counts.0[event]))
                .iter()
                .sum();
            let counted = self.last.0[event].wrapping_sub(self.first.0[event]);
            (sum != u128::from(counted)).then_some((event, sum, counted))
        })
    }

    /// This interval's and the next one's.
    pub fn followed_by(&self, next: &Self) -> Self {
        let sum = |one: Counts, other: &Counts| {
            let mut sum = one;
            sum.add(other);
            sum
        };
        Self {
            first: self.first,
            last: next.last,
            busy: sum(self.busy, &next.busy),
            idle: sum(self.idle, &next.idle),
            lost: sum(self.lost, &next.lost),
            failed: self.failed.saturating_add(next.failed),
        }
    }
}
