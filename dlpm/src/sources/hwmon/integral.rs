//! The integral of a power that is read again and again: pure, without file or clock.

/// Longer without a reading, nothing is said of what was drawn.
pub(super) const GAP_NS: u64 = 2_000_000_000;

/// Energy by the trapezoidal rule, with the newest power held from its reading on. What was held too high is taken off
/// what follows, so the total never falls.
#[derive(Clone, Debug, Default)]
pub(super) struct Integral {
    last: Option<Sample>,
    /// Up to the newest reading, in µW · ns, twice.
    sum: u128,
    /// The highest total that was given out.
    given_uj: u64,
    /// Why a part of it is missing since it was asked for last.
    fault: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at_ns: u64,
    uw: u64,
}

impl Integral {
    /// A reading at `at_ns` of CLOCK_MONOTONIC.
    pub(super) fn see(&mut self, uw: u64, at_ns: u64) {
        if let Some(last) = self.last {
            let passed_ns = at_ns.saturating_sub(last.at_ns);
            if passed_ns > GAP_NS {
                self.fault(not_read(passed_ns));
            }
            let twice = (u128::from(uw) + u128::from(last.uw)).saturating_mul(passed_ns.into());
            self.sum = self.sum.saturating_add(twice);
        }
        self.last = Some(Sample { at_ns, uw });
    }

    /// It could not be read.
    pub(super) fn miss(&mut self, reason: String) {
        self.last = None;
        self.fault(reason);
    }

    /// The newest power, in µW; `None` if it could not be read.
    pub(super) fn newest_uw(&self) -> Option<u64> {
        self.last.map(|last| last.uw)
    }

    /// Energy up to `now_ns` since the beginning, in µJ.
    ///
    /// # Errors
    ///
    /// A sentence, where a part of what passed since the last call is missing.
    pub(super) fn total_uj(&mut self, now_ns: u64) -> Result<u64, String> {
        if let Some(reason) = self.fault.take() {
            return Err(reason);
        }
        let last = self.last.ok_or("its power could not be read")?;
        let held_ns = now_ns.saturating_sub(last.at_ns);
        if held_ns > GAP_NS {
            return Err(not_read(held_ns));
        }
        let twice = self.sum + 2 * u128::from(last.uw) * u128::from(held_ns);
        // µW · ns = fJ.
        let total_uj = u64::try_from(twice / 2_000_000_000).unwrap_or(u64::MAX);
        self.given_uj = self.given_uj.max(total_uj);
        Ok(self.given_uj)
    }

    fn fault(&mut self, reason: String) {
        self.fault.get_or_insert(reason);
    }
}

fn not_read(passed_ns: u64) -> String {
    format!("its power was not read for {} ms", passed_ns / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;
    const WATT: u64 = 1_000_000;

    #[test]
    fn a_steady_power_is_exact_to_the_microjoule() {
        let mut integral = Integral::default();
        for step in 0..=20 {
            integral.see(50 * WATT, step * SECOND / 20);
        }
        assert_eq!(integral.total_uj(SECOND), Ok(50_000_000));
        assert_eq!(integral.total_uj(SECOND + SECOND / 100), Ok(50_500_000), "held");
        integral.see(50 * WATT, SECOND + SECOND / 50);
        assert_eq!(integral.total_uj(SECOND + SECOND / 50), Ok(51_000_000));
    }

    #[test]
    fn a_ramp_is_exact_between_readings() {
        let mut integral = Integral::default();
        // 50 W + 1 W/s for 10 s: 550 J.
        for second in 0..=10 {
            integral.see((50 + second) * WATT, second * SECOND);
        }
        assert_eq!(integral.total_uj(10 * SECOND), Ok(550_000_000));
    }

    #[test]
    fn what_was_held_too_high_is_taken_off_what_follows() {
        let mut integral = Integral::default();
        integral.see(100 * WATT, 0);
        assert_eq!(integral.total_uj(SECOND), Ok(100_000_000));
        integral.see(0, SECOND);
        assert_eq!(integral.total_uj(SECOND), Ok(100_000_000), "a total never falls");
        integral.see(100 * WATT, 2 * SECOND);
        assert_eq!(integral.total_uj(2 * SECOND), Ok(100_000_000), "50 J + 50 J");
        assert_eq!(integral.total_uj(3 * SECOND), Ok(200_000_000));
    }

    #[test]
    fn a_gap_and_a_failure_are_told_once() {
        let mut integral = Integral::default();
        assert!(integral.total_uj(0).is_err());
        integral.see(WATT, 0);
        assert_eq!(integral.total_uj(2 * SECOND), Ok(2_000_000));
        assert!(integral.total_uj(3 * SECOND).unwrap_err().contains("3000 ms"));
        integral.see(WATT, 4 * SECOND);
        assert!(integral.total_uj(4 * SECOND).unwrap_err().contains("4000 ms"));
        let begin_uj = integral.total_uj(4 * SECOND).unwrap();
        integral.miss("gone".to_owned());
        integral.see(WATT, 5 * SECOND);
        assert_eq!(integral.total_uj(5 * SECOND), Err("gone".to_owned()));
        assert_eq!(integral.total_uj(6 * SECOND), Ok(begin_uj + 1_000_000));
    }

    proptest! {
        /// Whatever is read, totals do not fall, and lie between those of the lowest and the highest power.
        #[test]
        fn every_power(powers in proptest::collection::vec(0u64..5_000 * WATT, 2..40), step_ns in 1u64..GAP_NS) {
            let mut integral = Integral::default();
            let (mut before_uj, mut least, mut most) = (0, u64::MAX, 0);
            for (at, &uw) in powers.iter().enumerate() {
                let at_ns = u64::try_from(at).unwrap() * step_ns;
                integral.see(uw, at_ns);
                (least, most) = (least.min(uw), most.max(uw));
                let total_uj = integral.total_uj(at_ns).unwrap();
                prop_assert!(total_uj >= before_uj);
                let of = |uw: u64| u128::from(uw) * u128::from(at_ns) / 1_000_000_000;
                prop_assert!((of(least)..=of(most)).contains(&u128::from(total_uj)));
                before_uj = total_uj;
            }
        }
    }
}
