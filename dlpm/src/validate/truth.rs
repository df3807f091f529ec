//! What is true of two loads that run side by side, as far as a meter can tell, and how far a method is from it: plain
//! arithmetic in whole microwatts and parts per million.
//!
//! With idle power `E0`, the power `Ei` of load i alone, and `Eij` of both, load i has caused between `Ei - E0` (it came
//! first) and `Eij - Ej` (it came second). The middle is the Shapley value of a game of two players, and those of both
//! loads add up to `Eij - E0`. What neither order explains is the interaction, `Eij - Ei - Ej + E0`.

use serde::{Deserialize, Serialize};

use super::random::Random;

/// One million: errors are parts of it.
pub const MILLION: i128 = 1_000_000;

/// Rounds up to which every resample is made. Of more, a fixed number of random ones.
const ENUMERATED: usize = 5;

/// Random resamples.
const RESAMPLES: usize = 2_000;

/// Quantiles of Student's t in thousandths, for 1, 2, … degrees of freedom (any table of it).
type Quantiles = [i128; 30];

/// How sure an interval is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sure {
    /// 95 % for one figure.
    OfOne,
    /// 95 % for two figures that are shown together (Bonferroni: 97.5 % each).
    OfTwo,
}

impl Sure {
    fn quantiles(self) -> &'static Quantiles {
        match self {
            // 97.5 %, since the interval has two ends.
            Self::OfOne => &[
                12_706, 4_303, 3_182, 2_776, 2_571, 2_447, 2_365, 2_306, 2_262, 2_228, 2_201, 2_179, 2_160, 2_145,
                2_131, 2_120, 2_110, 2_101, 2_093, 2_086, 2_080, 2_074, 2_069, 2_064, 2_060, 2_056, 2_052, 2_048,
                2_045, 2_042,
            ],
            // 98.75 %.
            Self::OfTwo => &[
                25_452, 6_205, 4_177, 3_495, 3_163, 2_969, 2_841, 2_752, 2_685, 2_634, 2_593, 2_560, 2_533, 2_510,
                2_490, 2_473, 2_458, 2_445, 2_433, 2_423, 2_414, 2_405, 2_398, 2_391, 2_385, 2_379, 2_373, 2_368,
                2_364, 2_360,
            ],
        }
    }
}

/// Mean powers of one round in µW, of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Powers {
    /// Of the idle machine.
    pub idle_uw: i128,
    /// Of either load alone.
    pub single_uw: [i128; 2],
    /// Of both at once.
    pub both_uw: i128,
}

impl Powers {
    /// What load `which` (0 or 1) adds to the idle machine.
    pub fn alone_uw(&self, which: usize) -> i128 {
        self.single(which) - self.idle_uw
    }

    /// What load `which` adds to the other one.
    pub fn added_uw(&self, which: usize) -> i128 {
        self.both_uw - self.single(1 - which.min(1))
    }

    /// What neither order explains.
    pub fn interaction_uw(&self) -> i128 {
        self.both_uw - self.single_uw[0] - self.single_uw[1] + self.idle_uw
    }

    /// What both draw above idle.
    pub fn dynamic_uw(&self) -> i128 {
        self.both_uw - self.idle_uw
    }

    fn single(&self, which: usize) -> i128 {
        self.single_uw[which.min(1)]
    }
}

/// What is true of one load in a pair, and what a method says, summed over rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// What it adds to the idle machine.
    pub alone_uw: i128,
    /// What it adds to the other load.
    pub added_uw: i128,
    /// What the method gives it above idle.
    pub predicted_uw: i128,
}

impl Claim {
    /// That of one round.
    pub fn of(powers: &Powers, which: usize, predicted_uw: i128) -> Self {
        Self {
            alone_uw: powers.alone_uw(which),
            added_uw: powers.added_uw(which),
            predicted_uw,
        }
    }

    /// The sum of several rounds.
    pub fn sum(claims: impl IntoIterator<Item = Self>) -> Self {
        claims.into_iter().fold(Self::default(), |sum, claim| Self {
            alone_uw: sum.alone_uw + claim.alone_uw,
            added_uw: sum.added_uw + claim.added_uw,
            predicted_uw: sum.predicted_uw + claim.predicted_uw,
        })
    }

    /// How far the method is from the middle of the truth, in ppm of it, with its sign; `None` where the load does not
    /// draw anything above idle, so that there is nothing to compare with.
    pub fn error_ppm(&self) -> Option<i128> {
        let twice_middle = self.twice_middle()?;
        Some(ratio(2 * self.predicted_uw - twice_middle, twice_middle))
    }

    /// How far the method is outside of the truth's interval, in ppm of its middle; 0 inside.
    pub fn outside_ppm(&self) -> Option<i128> {
        let twice_middle = self.twice_middle()?;
        let (low, high) = (self.alone_uw.min(self.added_uw), self.alone_uw.max(self.added_uw));
        let outside = (low - self.predicted_uw).max(self.predicted_uw - high).max(0);
        Some(ratio(2 * outside, twice_middle))
    }

    fn twice_middle(&self) -> Option<i128> {
        Some(self.alone_uw + self.added_uw).filter(|twice| *twice > 0)
    }
}

/// `part / whole` in ppm, rounded to the nearest; `whole` is above 0.
pub fn ratio(part: i128, whole: i128) -> i128 {
    let half = if part < 0 { -whole } else { whole };
    let doubled = part.saturating_mul(2 * MILLION).saturating_add(half);
    doubled.checked_div(whole.saturating_mul(2)).unwrap_or(0)
}

/// A figure with its 95 % interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// The figure, in ppm.
    pub ppm: i64,
    /// Its 95 % interval.
    pub low_ppm: i64,
    /// The upper end of it.
    pub high_ppm: i64,
}

impl Estimate {
    /// Half of the width of the interval.
    pub fn half_ppm(&self) -> i64 {
        self.high_ppm.saturating_sub(self.low_ppm) / 2
    }
}

/// The resamples of a bootstrap over `rounds`: each is as many rounds, drawn with replacement. Rounds are drawn, and
/// not cells, because all figures of a round share its idle and its single cells.
///
/// Of up to five rounds these are all there are, so the result does not depend on chance; of more, 2,000 from `seed`.
pub fn resamples(rounds: usize, seed: u64) -> Vec<Vec<usize>> {
    if rounds > ENUMERATED {
        let mut random = Random::new(seed);
        return (0..RESAMPLES)
            .map(|_| (0..rounds).map(|_| random.below(rounds)).collect())
            .collect();
    }
    let mut all = vec![Vec::new()];
    for _ in 0..rounds {
        let longer = |resample: &Vec<usize>| {
            let resample = resample.clone();
            (0..rounds).map(move |round| [resample.as_slice(), &[round]].concat())
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

/// A figure over all rounds with its interval: `figure` gives it for a choice of rounds.
///
/// The bootstrap gives the standard error; of few rounds it is too small by sqrt((n - 1) / n), and the normal quantile
/// as well, so both are made good: `figure ± t(n - 1) · sqrt(n / (n - 1)) · standard error`. Percentiles of three or
/// five rounds would hold the truth in 75 to 85 of 100 cases only. `resolution_ppm` is added on both sides.
pub fn estimate(
    rounds: usize,
    resamples: &[Vec<usize>],
    sure: Sure,
    resolution_ppm: i128,
    figure: impl Fn(&[usize]) -> Option<i128>,
) -> Option<Estimate> {
    let all: Vec<usize> = (0..rounds).collect();
    let value = figure(&all)?;
    let spread = standard_error(resamples, figure)?;
    let (n, freedom) = (i128::try_from(rounds).ok()?, rounds.checked_sub(2)?);
    let quantiles = sure.quantiles();
    let t = *quantiles.get(freedom).or(quantiles.last())?;
    // With sqrt(n / (n - 1)) in millionths.
    let factor = i128::try_from((u128::try_from(n * MILLION * MILLION / (n - 1)).ok()?).isqrt()).ok()?;
    let half = spread.checked_mul(t)?.checked_mul(factor)? / (1000 * MILLION) + 1 + resolution_ppm.max(0);
    let whole = |value: i128| i64::try_from(value).ok();
    Some(Estimate {
        ppm: whole(value)?,
        low_ppm: whole(value - half)?,
        high_ppm: whole(value + half)?,
    })
}

/// Standard deviation of a figure over the resamples, rounded up; `None` if some resample has none.
fn standard_error(resamples: &[Vec<usize>], figure: impl Fn(&[usize]) -> Option<i128>) -> Option<i128> {
    let values: Vec<i128> = resamples
        .iter()
        .map(|resample| figure(resample))
        .collect::<Option<_>>()?;
    let count = i128::try_from(values.len()).ok().filter(|count| *count > 0)?;
    let sum = values.iter().try_fold(0_i128, |sum, value| sum.checked_add(*value))?;
    let squares = values.iter().try_fold(0_i128, |squares, value| {
        // n·(x - mean), so that nothing is rounded.
        let distance = value.checked_mul(count)?.checked_sub(sum)?;
        squares.checked_add(distance.checked_mul(distance)? / count)
    })?;
    let variance = u128::try_from(squares / (count * count)).ok()?;
    i128::try_from(variance.isqrt()).ok().map(|spread| spread + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Idle 10 W, 5 W and 2 W more alone, 6 W more together: a shared clock that falls.
    const TURBO: Powers = Powers {
        idle_uw: 10_000_000,
        single_uw: [15_000_000, 12_000_000],
        both_uw: 16_000_000,
    };

    #[test]
    fn truth_is_an_interval_whose_middles_add_up() {
        assert_eq!((TURBO.alone_uw(0), TURBO.added_uw(0)), (5_000_000, 4_000_000));
        assert_eq!((TURBO.alone_uw(1), TURBO.added_uw(1)), (2_000_000, 1_000_000));
        assert_eq!(TURBO.interaction_uw(), -1_000_000);
        // 4.5 W + 1.5 W.
        assert_eq!(TURBO.dynamic_uw(), 6_000_000);
        let claim = |which, predicted_uw| Claim::of(&TURBO, which, predicted_uw);
        // Equal time says 3 W each.
        assert_eq!(claim(0, 3_000_000).error_ppm(), Some(-333_333));
        assert_eq!(claim(1, 3_000_000).error_ppm(), Some(1_000_000));
        assert_eq!(claim(0, 3_000_000).outside_ppm(), Some(222_222));
        assert_eq!(claim(1, 3_000_000).outside_ppm(), Some(666_667));
        for inside in [4_000_000, 4_700_000, 5_000_000] {
            assert_eq!(claim(0, inside).outside_ppm(), Some(0));
        }
        assert_eq!(claim(0, 4_500_000).error_ppm(), Some(0));
    }

    #[test]
    fn a_load_that_draws_nothing_has_no_error() {
        let powers = Powers {
            idle_uw: 10,
            single_uw: [10, 20],
            both_uw: 20,
        };
        assert_eq!(Claim::of(&powers, 0, 5).error_ppm(), None);
        assert_eq!(Claim::of(&powers, 0, 5).outside_ppm(), None);
        assert_eq!(Claim::of(&powers, 1, 5).error_ppm(), Some(-500_000));
    }

    #[test]
    fn all_resamples_of_few_rounds_are_made_and_a_fixed_number_of_many() {
        assert_eq!(resamples(2, 1), [[0, 0], [0, 1], [1, 0], [1, 1]]);
        assert_eq!((resamples(3, 1).len(), resamples(5, 1).len()), (27, 3125));
        assert_eq!(resamples(3, 1), resamples(3, 2));
        let many = resamples(8, 1);
        assert_eq!((many.len(), many[0].len()), (2000, 8));
        assert_eq!(many, resamples(8, 1));
        assert_ne!(many, resamples(8, 2));
    }

    #[test]
    fn the_interval_of_a_mean_is_that_of_student() {
        // 1, 2 and 6 thousand: mean 3,000, s = 2,645.75, half = 4.303 · s / sqrt(3) = 6,573.
        let values = [1_000_i128, 2_000, 6_000];
        let mean = |rounds: &[usize]| Some(rounds.iter().map(|round| values[*round]).sum::<i128>() / 3);
        let found = estimate(3, &resamples(3, 0), Sure::OfOne, 0, mean).unwrap();
        assert_eq!(found.ppm, 3_000);
        assert!((6_565..6_585).contains(&found.half_ppm()), "{found:?}");
        let wider = estimate(3, &resamples(3, 0), Sure::OfOne, 100, mean).unwrap();
        assert_eq!(wider.half_ppm(), found.half_ppm() + 100);
        let both = estimate(3, &resamples(3, 0), Sure::OfTwo, 0, mean).unwrap();
        assert!((9_470..9_490).contains(&both.half_ppm()), "{both:?}");
        // One round says nothing of its spread.
        assert_eq!(estimate(1, &resamples(1, 0), Sure::OfOne, 0, mean), None);
    }

    #[test]
    fn the_interval_holds_the_truth_in_about_19_of_20_cases() {
        // Sums of twelve uniform figures: nearly normal, without any library.
        let mut random = Random::new(11);
        let mut noise = || (0..12).map(|_| random.below(1000)).sum::<usize>() as i128 - 5994;
        for rounds in [3, 5] {
            let held = (0..400)
                .filter(|_| {
                    let values: Vec<i128> = (0..rounds).map(|_| 50_000 + noise()).collect();
                    let mean = |chosen: &[usize]| {
                        Some(chosen.iter().map(|round| values[*round]).sum::<i128>() / rounds as i128)
                    };
                    let found = estimate(rounds, &resamples(rounds, 0), Sure::OfOne, 0, mean).unwrap();
                    (found.low_ppm..=found.high_ppm).contains(&50_000)
                })
                .count();
            assert!((366..=396).contains(&held), "{held} of 400 with {rounds} rounds");
        }
    }

    proptest! {
        /// What one load gets too much, the other gets too little, whatever was measured.
        #[test]
        fn errors_of_both_loads_cancel(idle in 0_i128..1 << 40, first in 1_i128..1 << 40, second in 1_i128..1 << 40,
            both in 1_i128..1 << 41, part in 0_i128..=1000) {
            let powers = Powers { idle_uw: idle, single_uw: [idle + first, idle + second], both_uw: idle + both };
            let predicted = both * part / 1000;
            let claims = [Claim::of(&powers, 0, predicted), Claim::of(&powers, 1, both - predicted)];
            let distance = |claim: &Claim| 2 * claim.predicted_uw - claim.alone_uw - claim.added_uw;
            prop_assert_eq!(distance(&claims[0]), -distance(&claims[1]));
            for claim in claims {
                let (error, outside) = (claim.error_ppm(), claim.outside_ppm());
                prop_assert_eq!(error.is_some(), outside.is_some());
                if let (Some(error), Some(outside)) = (error, outside) {
                    prop_assert!(outside <= error.abs());
                }
            }
        }

        #[test]
        fn no_figures_overflow(values in proptest::collection::vec(any::<i64>(), 2..6)) {
            let rounds = values.len();
            let sum = |chosen: &[usize]| Some(chosen.iter().map(|round| i128::from(values[*round])).sum::<i128>());
            let _ = estimate(rounds, &resamples(rounds, 0), Sure::OfOne, 0, sum);
        }
    }
}
