//! Values over time, in bins of equal length.
//!
//! The mean of a bin is exact: energy over time, whatever the lengths of the intervals. So an interval of 100 µs at the
//! border of a phase, in which RAPL's counter moves by a whole millisecond or not at all, makes no spike. Peaks do not
//! vanish either: each bin keeps the lowest and the highest value of the windows in it.

/// Shortest time over which a value is a peak, as in the tables: RAPL moves about once a millisecond.
pub use crate::totals::SHORTEST_PEAK_NS as SHORTEST_WINDOW_NS;

/// Largest value, either way, that is drawn: a larger one was not measured, and sums of such leave the range of floats.
pub const LARGEST: f64 = 1e15;

/// Smallest one above 0.
pub const SMALLEST: f64 = 1e-15;

/// A span of time that is cut into bins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeBins {
    length_ns: u64,
    count: usize,
}

impl TimeBins {
    /// At most `most` bins, none shorter than [`SHORTEST_WINDOW_NS`].
    pub fn new(length_ns: u64, most: usize) -> Self {
        let fit = usize::try_from(length_ns / SHORTEST_WINDOW_NS).unwrap_or(usize::MAX);
        Self {
            length_ns: length_ns.max(1),
            count: fit.min(most).max(1),
        }
    }

    /// The whole span in ns.
    pub fn length_ns(&self) -> u64 {
        self.length_ns
    }

    /// Number of bins.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where bin `index` begins, in ns; that of `count` is the end.
    pub fn edge_ns(&self, index: usize) -> u64 {
        let edge = u128::from(self.length_ns) * index as u128 / self.count as u128;
        u64::try_from(edge).unwrap_or(self.length_ns)
    }

    /// The bin that holds `at_ns`; the last one for what lies behind.
    fn bin_of(&self, at_ns: u64) -> usize {
        let index = u128::from(at_ns) * self.count as u128 / u128::from(self.length_ns);
        // Edges are rounded down, so that the time just before one can belong to the bin behind it.
        let index = usize::try_from(index).unwrap_or(self.count).min(self.count - 1);
        if index + 1 < self.count && self.edge_ns(index + 1) <= at_ns {
            index + 1
        } else {
            index
        }
    }
}

/// What one bin holds.
#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    /// Value × ns.
    sum: f64,
    covered_ns: u64,
    range: Option<(f64, f64)>,
}

/// Consecutive intervals that are together not yet long enough.
#[derive(Clone, Copy, Debug)]
struct Window {
    begin_ns: u64,
    end_ns: u64,
    sum: f64,
}

/// One curve.
#[derive(Clone, Debug)]
pub struct Series {
    time: TimeBins,
    bins: Vec<Bin>,
    window: Option<Window>,
}

impl Series {
    /// A curve without values.
    pub fn new(time: TimeBins) -> Self {
        Self {
            time,
            bins: vec![Bin::default(); time.count],
            window: None,
        }
    }

    /// The value of the interval from `begin_ns` to `end_ns` is `value`, on average. Intervals come in the order of time;
    /// what lies outside the span is left out, and a value beyond [`LARGEST`] is not known.
    pub fn add(&mut self, begin_ns: u64, end_ns: u64, value: f64) {
        let end_ns = end_ns.min(self.time.length_ns);
        if begin_ns >= end_ns || !value.is_finite() || value.abs() > LARGEST {
            return;
        }
        for index in self.time.bin_of(begin_ns)..=self.time.bin_of(end_ns - 1) {
            let from_ns = begin_ns.max(self.time.edge_ns(index));
            let to_ns = end_ns.min(self.time.edge_ns(index + 1));
            let covered_ns = to_ns.saturating_sub(from_ns);
            if let Some(bin) = self.bins.get_mut(index) {
                bin.sum += value * float(covered_ns);
                bin.covered_ns += covered_ns;
            }
        }
        let window = match self.window.take() {
            Some(window) if window.end_ns == begin_ns => window,
            // What was too short, before a gap, has its part of the mean and is not a peak.
            _ => Window {
                begin_ns,
                end_ns: begin_ns,
                sum: 0.0,
            },
        };
        let window = Window {
            end_ns,
            sum: window.sum + value * float(end_ns - begin_ns),
            ..window
        };
        let length_ns = window.end_ns - window.begin_ns;
        if length_ns < SHORTEST_WINDOW_NS {
            self.window = Some(window);
            return;
        }
        let value = window.sum / float(length_ns);
        for index in self.time.bin_of(window.begin_ns)..=self.time.bin_of(window.end_ns - 1) {
            if let Some(bin) = self.bins.get_mut(index) {
                let (low, high) = bin.range.unwrap_or((value, value));
                bin.range = Some((low.min(value), high.max(value)));
            }
        }
    }

    /// The bins of time.
    pub fn time(&self) -> TimeBins {
        self.time
    }

    /// Mean of a bin over the time that is known; `None` if nothing is, or so little that it means nothing.
    pub fn mean(&self, index: usize) -> Option<f64> {
        let bin = self.bins.get(index)?;
        self.is_known(bin).then(|| bin.sum / float(bin.covered_ns))
    }

    fn is_known(&self, bin: &Bin) -> bool {
        let width_ns = self.time.length_ns / self.time.count as u64;
        bin.covered_ns > 0 && bin.covered_ns >= (width_ns / 2).min(SHORTEST_WINDOW_NS / 2)
    }

    /// Lowest and highest value in a bin, never inside its mean.
    pub fn range(&self, index: usize) -> Option<(f64, f64)> {
        let mean = self.mean(index)?;
        let (low, high) = self.bins.get(index)?.range.unwrap_or((mean, mean));
        Some((low.min(mean), high.max(mean)))
    }

    /// Whether any value is known.
    pub fn is_empty(&self) -> bool {
        !self.bins.iter().any(|bin| self.is_known(bin))
    }

    /// Lowest and highest value of all.
    pub fn extent(&self) -> Option<(f64, f64)> {
        (0..self.time.count)
            .filter_map(|index| self.range(index))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Runs of bins in which something is known, as half-open ranges: between them are gaps.
    pub fn runs(&self) -> Vec<std::ops::Range<usize>> {
        let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
        for (index, bin) in self.bins.iter().enumerate() {
            if !self.is_known(bin) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.end == index => run.end = index + 1,
                _ => runs.push(index..index + 1),
            }
        }
        runs
    }
}

/// The nearest float; exact below 2^53.
fn float(integer: u64) -> f64 {
    integer as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn bins_are_never_shorter_than_a_window() {
        assert_eq!(TimeBins::new(100 * SECOND, 800).count(), 800);
        assert_eq!(TimeBins::new(95_000_000, 800).count(), 9);
        assert_eq!(TimeBins::new(0, 800).count(), 1);
    }

    #[test]
    fn what_cannot_be_measured_is_not_known() {
        for value in [1e308, -1e308, 1.1e15, f64::MAX, f64::INFINITY, f64::NAN] {
            let mut series = Series::new(TimeBins::new(2 * SECOND, 2));
            series.add(0, SECOND, value);
            series.add(SECOND, 2 * SECOND, 5.0);
            assert_eq!((series.mean(0), series.extent()), (None, Some((5.0, 5.0))), "{value}");
        }
    }

    #[test]
    fn a_long_interval_is_a_step() {
        let mut series = Series::new(TimeBins::new(4 * SECOND, 4));
        series.add(0, 2 * SECOND, 10.0);
        series.add(2 * SECOND, 4 * SECOND, 30.0);
        let means: Vec<_> = (0..4).map(|bin| series.mean(bin)).collect();
        assert_eq!(means, [Some(10.0), Some(10.0), Some(30.0), Some(30.0)]);
        assert_eq!(series.runs(), vec![0..4]);
    }

    #[test]
    fn a_gap_stays_a_gap() {
        let mut series = Series::new(TimeBins::new(5 * SECOND, 5));
        series.add(0, SECOND, 1.0);
        series.add(3 * SECOND, 5 * SECOND, 2.0);
        assert_eq!(series.runs(), vec![0..1, 3..5]);
        assert_eq!(series.mean(2), None);
    }

    #[test]
    fn a_peak_survives_in_the_range() {
        let mut series = Series::new(TimeBins::new(1000 * SECOND, 10));
        for second in 0..1000 {
            let watts = if second == 555 { 250.0 } else { 50.0 };
            series.add(second * SECOND, (second + 1) * SECOND, watts);
        }
        assert_eq!(series.mean(5), Some(52.0));
        assert_eq!(series.range(5), Some((50.0, 250.0)));
        assert_eq!(series.range(4), Some((50.0, 50.0)));
        assert_eq!(series.extent(), Some((50.0, 250.0)));
    }

    /// RAPL's update of a whole millisecond falls into an interval of 0.1 ms, and none into the one after it.
    #[test]
    fn a_very_short_interval_makes_no_spike() {
        let mut series = Series::new(TimeBins::new(SECOND, 800));
        let half = SECOND / 2;
        series.add(0, half, 40.0);
        series.add(half, half + 100_000, 400.0);
        series.add(half + 100_000, half + 1_000_000, 0.0);
        series.add(half + 1_000_000, SECOND, 40.0);
        let (low, high) = series.extent().unwrap();
        assert!(
            (36.0..40.1).contains(&low) && (39.9..44.0).contains(&high),
            "{low} {high}"
        );
    }

    #[test]
    fn a_short_rest_before_a_gap_is_no_peak() {
        let mut series = Series::new(TimeBins::new(10 * SECOND, 10));
        series.add(0, SECOND, 40.0);
        series.add(5 * SECOND, 5 * SECOND + 50_000, 4000.0);
        series.add(7 * SECOND, 8 * SECOND, 40.0);
        assert_eq!(series.extent(), Some((40.0, 40.0)));
        assert_eq!(series.runs(), vec![0..1, 7..8]);
    }

    proptest! {
        /// No joule is lost or made by binning, however intervals and bins lie.
        #[test]
        fn energy_is_kept(lengths in prop::collection::vec((1u64..3_000_000_000, 0u32..500), 1..60), most in 1usize..50) {
            let length_ns = lengths.iter().map(|(length, _)| length).sum();
            let mut series = Series::new(TimeBins::new(length_ns, most));
            let (mut at, mut sum) = (0, 0.0);
            for (length, value) in lengths {
                series.add(at, at + length, f64::from(value));
                at += length;
                sum += f64::from(value) * length as f64;
            }
            let binned: f64 = series.bins.iter().map(|bin| bin.sum).sum();
            prop_assert!((binned - sum).abs() <= sum * 1e-9);
            let covered: u64 = series.bins.iter().map(|bin| bin.covered_ns).sum();
            prop_assert_eq!(covered, length_ns);
        }
    }
}
