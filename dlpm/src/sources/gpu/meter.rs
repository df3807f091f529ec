//! The two meters of a GPU, its counter and its power, and which of them is believed: no NVML, no clock.
//!
//! Both are read at the end of an interval and in between. A counter that stands still while the GPU draws power does
//! not measure; from then on energy is the integral of power, which has been running all along.

use super::energy::{EnergyCounter, PowerIntegral};
use crate::interval::MeterSource;

/// A counter that moves less often than this says nothing about an interval. Those of working GPUs move every 20 to
/// 100 ms.
const STILL_NS: u64 = 1_000_000_000;

/// The same where power is not told, so that nothing but the counter speaks against itself: a GPU that is awake draws
/// some watts.
const STILL_ALONE_NS: u64 = 3_000_000_000;

/// Less than any GPU draws that is awake, in mW.
const LEAST_MW: u64 = 1_000;

/// A counter that is known to move may be late by so much before an interval without a movement is in doubt.
const LATE_NS: u64 = 150_000_000;

/// Board power is a mean, and may lie above the board's limit for a moment: by this part of it, in percent.
const MARGIN_PERCENT: u64 = 25;

/// Energy of an interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// In µJ, or why it is not known.
    pub(super) energy_uj: Result<u64, String>,
    pub(super) source: MeterSource,
    /// The counter, if it is believed.
    pub(super) counter_uj: Option<u64>,
}

/// Counter and power of one GPU.
#[derive(Debug)]
pub(super) struct GpuMeter {
    counter: EnergyCounter,
    power: PowerIntegral,
    /// `Err`: there is no counter, or why it is not believed.
    believed: Result<(), Option<String>>,
    still: Option<Still>,
    /// The longest time that it was seen to stand still before it moved; `None` before it has moved.
    step_ns: Option<u64>,
    /// The last reading of power that was believed, in mW, and when it was read.
    last_power: Option<(u64, u64)>,
    limit_mw: Option<u64>,
}

/// A value of the counter, since it was first read.
#[derive(Clone, Copy, Debug)]
struct Still {
    mj: u64,
    since_ns: u64,
    last_ns: u64,
    /// Power over that time, in mW · ns, and the part of the time in which it is known.
    mw_ns: u128,
    known_ns: u64,
}

impl GpuMeter {
    /// `source` is the counter, if it has one.
    pub(super) fn new(source: MeterSource) -> Self {
        Self {
            counter: EnergyCounter::default(),
            power: PowerIntegral::default(),
            believed: match source {
                MeterSource::NvmlPower => Err(None),
                _ => Ok(()),
            },
            still: None,
            step_ns: None,
            last_power: None,
            limit_mw: None,
        }
    }

    /// The most that its board may draw, in mW, by its own word.
    pub(super) fn limit(&mut self, limit_mw: u64) {
        self.limit_mw = Some(limit_mw);
    }

    /// Where the energy comes from.
    pub(super) fn source(&self) -> MeterSource {
        match self.believed {
            Ok(()) => MeterSource::NvmlEnergy,
            Err(_) => MeterSource::NvmlPower,
        }
    }

    /// Why the counter that it has is not believed.
    pub(super) fn doubt(&self) -> Option<&str> {
        self.believed.as_ref().err()?.as_deref()
    }

    /// Whether both have to be read more often than otherwise: power is the energy, or may have to be.
    pub(super) fn is_urgent(&self) -> bool {
        let stands = |still: &Still| still.last_ns > still.since_ns;
        self.believed.is_err() || self.step_ns.is_none() || self.still.as_ref().is_none_or(stands)
    }

    /// A reading of power in mW: whether it can be.
    pub(super) fn see_power(&mut self, power: Result<u64, String>, at_ns: u64) -> bool {
        let possible = power.and_then(|mw| match self.limit_mw {
            Some(limit_mw) if mw > limit_mw + limit_mw * MARGIN_PERCENT / 100 => Err(format!(
                "its power reads {} W, and its board draws at most {} W",
                mw / 1000,
                limit_mw / 1000
            )),
            _ => Ok(mw),
        });
        match possible {
            Ok(mw) => {
                if let (Some(still), Some((last_mw, last_ns))) = (&mut self.still, self.last_power) {
                    let elapsed_ns = at_ns.saturating_sub(last_ns.max(still.since_ns));
                    still.mw_ns += u128::from(elapsed_ns) * u128::from(mw.min(last_mw));
                    still.known_ns += elapsed_ns;
                }
                self.last_power = Some((mw, at_ns));
                self.power.see(mw, at_ns);
                true
            }
            Err(reason) => {
                self.last_power = None;
                self.power.miss(reason);
                false
            }
        }
    }

    /// A reading of the counter in mJ, after one of power. `utilization_percent` is how busy the GPU is, if known.
    pub(super) fn see_counter(&mut self, mj: u64, at_ns: u64, utilization_percent: Option<u32>) {
        if self.believed.is_err() {
            return;
        }
        if mj == u64::MAX {
            self.believed = Err(Some(format!("its energy counter reads {mj} mJ")));
            return;
        }
        let same = self.still.filter(|still| still.mj == mj);
        let Some(mut still) = same else {
            if let Some(last) = self.still {
                // It may have moved at any time since it was last read.
                let step_ns = last.last_ns.saturating_sub(last.since_ns);
                self.step_ns = self.step_ns.max(Some(step_ns));
            }
            self.still = Some(Still {
                mj,
                since_ns: at_ns,
                last_ns: at_ns,
                mw_ns: 0,
                known_ns: 0,
            });
            return;
        };
        still.last_ns = at_ns;
        self.still = Some(still);
        let still_ns = at_ns.saturating_sub(still.since_ns);
        let milliseconds = still_ns / 1_000_000;
        let draws = still.draws_mw().filter(|mw| *mw >= LEAST_MW);
        let is_busy = utilization_percent.filter(|percent| *percent > 0);
        let reason = match (draws, is_busy) {
            _ if still_ns < STILL_NS => return,
            (Some(mw), _) => format!(" while it draws {} W", mw / 1000),
            (None, Some(percent)) => format!(" while it is busy to {percent} %"),
            (None, None) if still.known_ns == 0 && still_ns >= STILL_ALONE_NS => String::new(),
            _ => return,
        };
        self.believed = Err(Some(format!(
            "its energy counter has not moved for {milliseconds} ms{reason}"
        )));
    }

    /// The counter could not be read.
    pub(super) fn miss_counter(&mut self) {
        self.counter.miss();
        self.still = None;
    }

    /// Ends an interval, after a reading of power: `counter` is that of the counter (mJ, or why there is none), which
    /// [`Self::see_counter`] has seen, and `at_ns` its time.
    pub(super) fn take(&mut self, counter: Result<u64, String>, at_ns: u64, utilization_percent: Option<u32>) -> Taken {
        let integral = self.power.take().and_then(|uj| match utilization_percent {
            Some(percent) if uj == 0 && percent > 0 && self.last_power.is_some_and(|(mw, _)| mw == 0) => {
                Err(format!("its power reads 0 W while it is busy to {percent} %"))
            }
            _ => Ok(uj),
        });
        let by_power = |energy_uj| Taken {
            energy_uj,
            source: MeterSource::NvmlPower,
            counter_uj: None,
        };
        match &self.believed {
            Err(None) => return by_power(integral),
            Err(Some(doubt)) => {
                return by_power(integral.map_err(|reason| format!("{doubt}, and {reason}")));
            }
            Ok(()) => {}
        }
        let is_first = counter.is_err() || !self.counter.has_begun();
        let counter_uj = counter.as_ref().ok().and_then(|mj| mj.checked_mul(1000));
        let energy_uj = counter.and_then(|mj| self.counter.see(mj, at_ns, self.most_mw()));
        if is_first && let Ok(uj) = integral {
            // The counter was not there at both ends of the interval, and power was all the time.
            return by_power(Ok(uj));
        }
        let energy_uj = match self.in_doubt(at_ns) {
            Some(reason) if energy_uj == Ok(0) => Err(reason),
            _ => energy_uj,
        };
        Taken {
            energy_uj,
            source: MeterSource::NvmlEnergy,
            counter_uj,
        }
    }

    /// Why an interval in which the counter did not move may have had energy.
    fn in_doubt(&self, at_ns: u64) -> Option<String> {
        let still = self.still?;
        let still_ns = at_ns.saturating_sub(still.since_ns);
        let patience_ns = self.step_ns.map_or(0, |step_ns| step_ns.saturating_mul(2).max(LATE_NS));
        let mw = still.draws_mw().filter(|mw| *mw >= LEAST_MW)?;
        (still_ns > patience_ns).then(|| {
            format!(
                "its energy counter has not moved for {} ms while it draws {} W",
                still_ns / 1_000_000,
                mw / 1000
            )
        })
    }

    /// The most that it can draw, in mW.
    fn most_mw(&self) -> Option<u64> {
        self.limit_mw.map(|limit_mw| limit_mw + limit_mw * MARGIN_PERCENT / 100)
    }
}

impl Still {
    /// Mean power over the time in which the counter stands still; `None` if power is not known.
    fn draws_mw(&self) -> Option<u64> {
        (self.known_ns > 0).then(|| u64::try_from(self.mw_ns / u128::from(self.known_ns)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Reads a GPU every 50 ms and ends intervals of `interval_ms`: the energy and source of each, after the first
    /// reading. `counter` and `power` tell mJ and mW at a time in ms.
    fn run(
        meter: &mut GpuMeter,
        intervals: u64,
        interval_ms: u64,
        counter: impl Fn(u64) -> Result<u64, String>,
        power: impl Fn(u64) -> Result<u64, String>,
    ) -> Vec<Taken> {
        let mut taken = Vec::new();
        for at_ms in (0..=intervals * interval_ms).filter(|at_ms| at_ms % 50 == 0 || at_ms % interval_ms == 0) {
            meter.see_power(power(at_ms), at_ms * MS);
            match counter(at_ms) {
                Ok(mj) => meter.see_counter(mj, at_ms * MS, Some(90)),
                Err(_) => meter.miss_counter(),
            }
            if at_ms % interval_ms == 0 {
                taken.push(meter.take(counter(at_ms), at_ms * MS, Some(90)));
            }
        }
        assert!(taken.remove(0).energy_uj.unwrap_err().contains("first"));
        taken
    }

    fn counts(taken: &[Taken]) -> Vec<Option<u64>> {
        taken
            .iter()
            .map(|taken| taken.energy_uj.as_ref().ok().map(|uj| uj / 1_000_000))
            .collect()
    }

    fn new() -> GpuMeter {
        GpuMeter::new(MeterSource::NvmlEnergy)
    }

    const DRAWS: fn(u64) -> Result<u64, String> = |_| Ok(250_000);

    #[test]
    fn a_counter_that_never_moves_gives_way_to_power() {
        for value in [0, 123_456_789, u64::MAX] {
            let mut meter = new();
            let taken = run(&mut meter, 3, 1000, |_| Ok(value), DRAWS);
            assert_eq!(counts(&taken), [Some(250); 3], "{value}");
            assert!(
                taken
                    .iter()
                    .all(|taken| taken.source == MeterSource::NvmlPower && taken.counter_uj.is_none())
            );
            let doubt = meter.doubt().unwrap();
            assert!(
                doubt.contains("has not moved for 1000 ms while it draws 250 W") || value == u64::MAX,
                "{doubt}"
            );
            // Before a second has passed energy is not known, and never 0.
            let short = run(&mut new(), 20, 100, |_| Ok(value), DRAWS);
            let until = if value == u64::MAX { 0 } else { 9 };
            let expected: Vec<_> = (0..20).map(|number| (number >= until).then_some(25)).collect();
            assert_eq!(counts(&short), expected, "{value}");
        }
    }

    #[test]
    fn a_counter_that_stops_gives_way_to_power() {
        let mut meter = new();
        let taken = run(&mut meter, 6, 500, |at_ms| Ok(at_ms.min(1000) * 250), DRAWS);
        assert_eq!(
            counts(&taken),
            [Some(125), Some(125), None, Some(125), Some(125), Some(125)]
        );
        assert!(
            taken[2]
                .energy_uj
                .as_ref()
                .unwrap_err()
                .contains("has not moved for 500 ms")
        );
        assert_eq!(
            (taken[1].source, taken[3].source),
            (MeterSource::NvmlEnergy, MeterSource::NvmlPower)
        );
    }

    #[test]
    fn a_counter_that_moves_in_steps_is_believed() {
        for (step_ms, interval_ms) in [(20, 1000), (100, 1000), (100, 10), (100, 50), (500, 1000), (900, 250)] {
            let mut meter = new();
            // It is seen to move before the first interval, as a trace takes some time to start.
            for at_ms in [0, 1000] {
                meter.see_counter(at_ms, 0, None);
            }
            let counter = |at_ms: u64| Ok(1_000_000 + at_ms / step_ms * step_ms * 250);
            let taken = run(&mut meter, 20, interval_ms, counter, DRAWS);
            assert_eq!(meter.doubt(), None, "{step_ms} {interval_ms}");
            let known: u64 = taken.iter().filter_map(|taken| taken.energy_uj.as_ref().ok()).sum();
            let expected = 20 * interval_ms / step_ms * step_ms * 250_000;
            assert_eq!(known, expected, "{step_ms} {interval_ms}: no energy is lost");
        }
    }

    #[test]
    fn a_gpu_that_draws_nothing_may_stand_still() {
        let mut meter = new();
        for at_ms in (0..5000).step_by(50) {
            meter.see_power(Ok(0), at_ms * MS);
            meter.see_counter(7, at_ms * MS, Some(0));
        }
        assert_eq!(meter.doubt(), None);
        // Unless it works meanwhile, or its power is not known either.
        meter.see_counter(7, 5000 * MS, Some(1));
        assert!(meter.doubt().unwrap().contains("while it is busy to 1 %"));
        let mut meter = new();
        for at_ms in (0..=3000).step_by(50) {
            assert_eq!(meter.doubt(), None);
            meter.see_power(Err("no power".to_owned()), at_ms * MS);
            meter.see_counter(7, at_ms * MS, None);
        }
        let taken = meter.take(Ok(7), 3000 * MS, None);
        assert_eq!(
            taken.energy_uj.unwrap_err(),
            "its energy counter has not moved for 3000 ms, and no power"
        );
    }

    #[test]
    fn a_counter_that_cannot_be_read_gives_way_for_as_long() {
        let counter = |at_ms: u64| match at_ms {
            1001..3500 => Err("not supported".to_owned()),
            _ => Ok(at_ms * 250),
        };
        let taken = run(&mut new(), 6, 1000, counter, DRAWS);
        assert_eq!(counts(&taken), [Some(250); 6]);
        let sources: Vec<bool> = taken
            .iter()
            .map(|taken| taken.source == MeterSource::NvmlEnergy)
            .collect();
        assert_eq!(sources, [true, false, false, false, true, true]);
        // Without power it is not known, and why is the counter's reason.
        let taken = run(&mut new(), 2, 1000, counter, |_| Err("no power".to_owned()));
        assert_eq!(taken[1].energy_uj, Err("not supported".to_owned()));
    }

    #[test]
    fn power_above_the_limit_of_its_board_is_not_believed() {
        let mut meter = GpuMeter::new(MeterSource::NvmlPower);
        meter.limit(300_000);
        assert!(meter.see_power(Ok(375_000), 0));
        let _ = meter.take(Err(String::new()), 0, None);
        assert!(!meter.see_power(Ok(593_000), 500 * MS));
        assert!(meter.see_power(Ok(250_000), 1000 * MS));
        let taken = meter.take(Err(String::new()), 1000 * MS, None);
        assert_eq!(
            taken.energy_uj.unwrap_err(),
            "its power reads 593 W, and its board draws at most 300 W"
        );
        meter.see_power(Ok(250_000), 2000 * MS);
        assert_eq!(
            meter.take(Err(String::new()), 2000 * MS, None).energy_uj,
            Ok(250_000_000)
        );
        // So is a counter that counts more.
        let mut meter = new();
        meter.limit(300_000);
        let taken = run(&mut meter, 3, 2000, |at_ms| Ok(at_ms * 600), DRAWS);
        assert!(
            taken[2].energy_uj.as_ref().unwrap_err().contains("more than 375 W"),
            "{taken:?}"
        );
    }

    #[test]
    fn no_power_is_not_believed_of_a_gpu_that_works() {
        let mut meter = GpuMeter::new(MeterSource::NvmlPower);
        meter.see_power(Ok(0), 0);
        let _ = meter.take(Err(String::new()), 0, None);
        meter.see_power(Ok(0), 1000 * MS);
        let taken = meter.take(Err(String::new()), 1000 * MS, Some(95));
        assert!(taken.energy_uj.unwrap_err().contains("0 W while it is busy to 95 %"));
        meter.see_power(Ok(0), 2000 * MS);
        assert_eq!(meter.take(Err(String::new()), 2000 * MS, Some(0)).energy_uj, Ok(0));
    }
}
