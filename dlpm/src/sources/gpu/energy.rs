//! From a GPU's counter or its power to the energy of an interval: no NVML, no clock.

/// More power than one GPU can draw, in mW.
const LIMIT_MW: u64 = 10_000_000;

/// A counter moves in steps, at the rate of the GPU's own measurements (10 to 100 ms), so a step may fall just inside
/// a short interval. A second at the limit.
const STEP_NS: u64 = 1_000_000_000;

/// Between two readings of power that lie further apart, power may have been anything.
const LONGEST_GAP_NS: u64 = 2_000_000_000;

/// The counter of a GPU, in mJ since its driver was loaded.
#[derive(Debug, Default)]
pub(super) struct EnergyCounter {
    /// The last reading: mJ, and CLOCK_MONOTONIC.
    last: Option<(u64, u64)>,
    /// When the last value was first read.
    moved_ns: Option<u64>,
}

impl EnergyCounter {
    /// Whether the next reading ends an interval.
    pub(super) fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// Energy in µJ since the last reading. `most_mw` is what the GPU can draw at most, if known.
    ///
    /// # Errors
    ///
    /// A sentence for the log, where there was none, or where the counter started again.
    pub(super) fn see(&mut self, mj: u64, at_ns: u64, most_mw: Option<u64>) -> Result<u64, String> {
        let limit_mw = most_mw.unwrap_or(LIMIT_MW).min(LIMIT_MW);
        // Where it did not move it may have been late in the last interval, too.
        let moved_ns = match self.last {
            Some((last_mj, _)) if last_mj == mj => self.moved_ns,
            _ => self.moved_ns.replace(at_ns),
        };
        let Some((last_mj, last_ns)) = self.last.replace((mj, at_ns)) else {
            return Err("this is the first reading of its counter, or the first after a failure".to_owned());
        };
        let elapsed_ns = at_ns.saturating_sub(moved_ns.unwrap_or(last_ns).min(last_ns));
        let Some(delta_mj) = mj.checked_sub(last_mj) else {
            return Err(format!(
                "its counter fell from {last_mj} to {mj} mJ: the GPU was reset, or its driver was loaded again"
            ));
        };
        // mW · ns = 1e-12 J, so 1e9 of them are one mJ.
        let most_mj = u128::from(limit_mw) * u128::from(elapsed_ns.saturating_add(STEP_NS)) / 1_000_000_000;
        if u128::from(delta_mj) > most_mj {
            return Err(format!(
                "its counter went from {last_mj} to {mj} mJ in {} ms, more than {} W",
                elapsed_ns / 1_000_000,
                limit_mw / 1000
            ));
        }
        delta_mj
            .checked_mul(1000)
            .ok_or_else(|| "the energy is larger than 64 bits of microjoules".to_owned())
    }

    /// The counter could not be read: the next reading is a new beginning.
    pub(super) fn miss(&mut self) {
        *self = Self::default();
    }
}

/// The integral of power over time, by the trapezoidal rule.
#[derive(Debug, Default)]
pub(super) struct PowerIntegral {
    /// The last reading: mW, and CLOCK_MONOTONIC.
    last: Option<(u64, u64)>,
    /// Twice the integral since the last `take`, in mW · ns, less what was taken of it: half a µJ is never lost.
    doubled_mw_ns: u128,
    fault: Option<String>,
}

impl PowerIntegral {
    /// A reading of power.
    pub(super) fn see(&mut self, mw: u64, at_ns: u64) {
        match self.last.replace((mw, at_ns)) {
            None => self.fault("this is the first reading of its power, or the first after a failure".to_owned()),
            Some((last_mw, last_ns)) => {
                let elapsed_ns = at_ns.saturating_sub(last_ns);
                if elapsed_ns > LONGEST_GAP_NS {
                    self.fault(format!("its power was not read for {} ms", elapsed_ns / 1_000_000));
                } else if mw.max(last_mw) > LIMIT_MW {
                    self.fault(format!("its power reads {} W", mw.max(last_mw) / 1000));
                } else {
                    self.doubled_mw_ns += u128::from(elapsed_ns) * u128::from(mw + last_mw);
                }
            }
        }
    }

    /// Power could not be read.
    pub(super) fn miss(&mut self, reason: String) {
        self.last = None;
        self.fault(reason);
    }

    /// Energy in µJ since the last `take`.
    ///
    /// # Errors
    ///
    /// A sentence for the log, where power was not known all the time.
    pub(super) fn take(&mut self) -> Result<u64, String> {
        const DOUBLED_MW_NS_PER_UJ: u128 = 2_000_000;
        let uj = self.doubled_mw_ns / DOUBLED_MW_NS_PER_UJ;
        self.doubled_mw_ns %= DOUBLED_MW_NS_PER_UJ;
        match self.fault.take() {
            Some(reason) => {
                self.doubled_mw_ns = 0;
                Err(reason)
            }
            None => u64::try_from(uj).map_err(|_| "the energy is larger than 64 bits of microjoules".to_owned()),
        }
    }

    fn fault(&mut self, reason: String) {
        // The first cause says most.
        self.fault.get_or_insert(reason);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_counter_counts_from_its_first_reading() {
        let mut counter = EnergyCounter::default();
        assert!(counter.see(5_000, 0, None).unwrap_err().contains("first"));
        assert_eq!(counter.see(5_250, SECOND, None), Ok(250_000));
        assert_eq!(counter.see(5_250, 2 * SECOND, None), Ok(0));
    }

    #[test]
    fn a_reset_spoils_one_interval() {
        let mut counter = EnergyCounter::default();
        let _ = counter.see(5_000, 0, None);
        assert!(counter.see(4_999, SECOND, None).unwrap_err().contains("reset"));
        assert_eq!(counter.see(5_009, 2 * SECOND, None), Ok(10_000));
        counter.miss();
        assert!(counter.see(9_000, 3 * SECOND, None).is_err());
        assert_eq!(counter.see(9_001, 4 * SECOND, None), Ok(1_000));
    }

    #[test]
    fn more_than_a_gpu_can_draw_is_refused() {
        let mut counter = EnergyCounter::default();
        let _ = counter.see(0, 0, None);
        // A step within a short interval is real; 10 kW for 2 s and a step is the most.
        assert_eq!(counter.see(700, 10_000, None), Ok(700_000));
        assert_eq!(
            counter.see(700 + 30_000_000, 2 * SECOND + 10_000, None),
            Ok(30_000_000_000)
        );
        assert!(
            counter
                .see(90_000_000, 3 * SECOND, None)
                .unwrap_err()
                .contains("10000 W")
        );
        assert!(counter.see(u64::MAX, 4 * SECOND, None).is_err());
    }

    #[test]
    fn power_is_integrated_by_trapezoids() {
        let mut power = PowerIntegral::default();
        power.see(100_000, 0);
        assert!(power.take().is_err(), "no beginning");
        power.see(300_000, SECOND);
        power.see(300_000, 2 * SECOND);
        assert_eq!(power.take(), Ok(500_000_000));
        assert_eq!(power.take(), Ok(0));
    }

    #[test]
    fn power_that_was_not_known_spoils_the_interval() {
        let mut power = PowerIntegral::default();
        power.see(100_000, 0);
        let _ = power.take();
        power.miss("gone".to_owned());
        power.see(100_000, SECOND);
        assert_eq!(power.take(), Err("gone".to_owned()));
        power.see(100_000, 2 * SECOND);
        assert_eq!(power.take(), Ok(100_000_000));
        power.see(100_000, 5 * SECOND);
        assert!(power.take().unwrap_err().contains("3000 ms"));
        power.see(u64::from(u32::MAX), 6 * SECOND);
        assert!(power.take().is_err());
    }

    proptest! {
        /// However often it is taken, no µJ is lost: the parts are the whole, but for the last incomplete one.
        #[test]
        fn the_parts_of_an_integral_are_the_whole(
            readings in prop::collection::vec((0u64..700_000, 1u64..LONGEST_GAP_NS, any::<bool>()), 1..50),
        ) {
            let (mut power, mut at_ns, mut last_mw) = (PowerIntegral::default(), 0, 0);
            power.see(0, 0);
            let _ = power.take();
            let (mut whole, mut taken) = (0u128, 0u128);
            for (mw, step_ns, take) in readings {
                at_ns += step_ns;
                whole += u128::from(step_ns) * u128::from(mw + last_mw);
                last_mw = mw;
                power.see(mw, at_ns);
                if take {
                    taken += u128::from(power.take().unwrap());
                }
            }
            taken += u128::from(power.take().unwrap());
            prop_assert_eq!(taken, whole / 2_000_000);
        }
    }
}
