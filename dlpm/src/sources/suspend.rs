//! Whether the machine slept: then no meter of the interval can be believed.
//!
//! A suspend stops CLOCK_MONOTONIC and not CLOCK_BOOTTIME, while energy counters go on, stop or start again as the
//! firmware likes.

use rustix::time::ClockId;

use super::clock::{clock_ns, monotonic_ns};
use crate::interval::{GpuReading, ZoneReading};

/// The kernel knows how long it slept to the millisecond or better; less is not a suspend.
const SHORTEST_NS: u64 = 1_000_000;

/// How long the machine has slept since it was booted: CLOCK_BOOTTIME - CLOCK_MONOTONIC, from the least to the most that
/// it can be.
///
/// The two clocks cannot be read at one instant. Read one after the other, a busy machine that takes the CPU away in between
/// would look like one that slept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suspended {
    /// In nanoseconds.
    pub least_ns: u64,
    /// In nanoseconds.
    pub most_ns: u64,
}

impl Suspended {
    /// Reads the clocks.
    pub fn read() -> Self {
        let before_ns = monotonic_ns();
        let boot_ns = clock_ns(ClockId::Boottime);
        Self::between(before_ns, boot_ns, monotonic_ns())
    }

    /// From CLOCK_BOOTTIME, read between two readings of CLOCK_MONOTONIC.
    pub fn between(before_ns: u64, boot_ns: u64, after_ns: u64) -> Self {
        Self {
            least_ns: boot_ns.saturating_sub(after_ns),
            most_ns: boot_ns.saturating_sub(before_ns),
        }
    }

    /// For how long the machine certainly slept since `earlier`, in nanoseconds; 0 if it may not have.
    pub fn since(self, earlier: Self) -> u64 {
        self.least_ns.saturating_sub(earlier.most_ns)
    }
}

/// Makes every zone invalid if the machine slept for `slept_ns` since the last reading.
pub fn mark(zones: &mut [ZoneReading], slept_ns: u64) {
    if let Some(reason) = reason(slept_ns) {
        zones.iter_mut().for_each(|zone| zone.energy_uj = Err(reason.clone()));
    }
}

/// The same of GPUs.
pub fn mark_gpus(gpus: &mut [GpuReading], slept_ns: u64) {
    if let Some(reason) = reason(slept_ns) {
        gpus.iter_mut().for_each(|gpu| gpu.energy_uj = Err(reason.clone()));
    }
}

fn reason(slept_ns: u64) -> Option<String> {
    (slept_ns >= SHORTEST_NS).then(|| {
        format!(
            "the machine was suspended for {} ms: its meters may have gone on or started again",
            slept_ns / 1_000_000
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::{MeterSource, ZoneKind};
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn zones() -> Vec<ZoneReading> {
        [("package-0", ZoneKind::Package), ("psys", ZoneKind::Psys)]
            .into_iter()
            .map(|(zone, kind)| ZoneReading {
                zone: zone.to_owned(),
                kind,
                package: None,
                energy_uj: Ok(5),
                counter_uj: Some(9),
                range_uj: None,
                source: MeterSource::Powercap,
            })
            .collect()
    }

    #[test]
    fn a_jump_of_the_boot_clock_makes_every_zone_invalid() {
        let asleep_before = 20 * SECOND;
        let earlier = Suspended::between(100 * SECOND, 100 * SECOND + asleep_before, 100 * SECOND + 50);
        let now = Suspended::between(
            101 * SECOND,
            101 * SECOND + asleep_before + 7 * SECOND,
            101 * SECOND + 50,
        );
        let mut marked = zones();
        mark(&mut marked, now.since(earlier));
        for zone in marked {
            assert!(zone.energy_uj.unwrap_err().contains("suspended for 6999 ms"));
        }
    }

    #[test]
    fn this_machine_does_not_sleep_while_it_tests() {
        let earlier = Suspended::read();
        let mut all = zones();
        mark(&mut all, Suspended::read().since(earlier));
        assert_eq!(all, zones());
    }

    proptest! {
        /// However long the CPU was away between the readings of the clocks, that is not a suspend.
        #[test]
        fn delays_are_no_suspend(asleep in 0..SECOND, delays in prop::array::uniform4(0..SECOND), length in 0..SECOND) {
            let at = |mut now: u64, first: u64, second: u64| {
                let before = now;
                now += first;
                let boot = now + asleep;
                now += second;
                (Suspended::between(before, boot, now), now)
            };
            let (earlier, now) = at(SECOND, delays[0], delays[1]);
            let (later, _) = at(now + length, delays[2], delays[3]);
            prop_assert_eq!(later.since(earlier), 0);
        }
    }
}
