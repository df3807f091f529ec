//! Whether a counter measures at all: one that counted nothing while its CPUs were busy is not believed.
//!
//! Counters that exist and never move are common: the platform's zone of many machines and virtual machines, a socket
//! whose registers the firmware does not serve, the cores of some servers. Their zeros look like measurements.
//!
//! A package with a busy CPU draws far more than 0.1 W, and its counter moves about once a millisecond. To be safe on
//! slower firmware and coarser units, nothing is said before the counter stood still for [`STILL_NS`], with as much CPU
//! time in its package as makes [`STEPS`] steps of its unit at 0.1 W.

/// A counter has to stand still for so long before it is doubted.
const STILL_NS: u64 = 1_000_000_000;

/// The same for a counter that was not seen to move twice within a tenth of a second: emulated registers move once a
/// second (QEMU's `rapl=true`).
const SLOW_STILL_NS: u64 = 10_000_000_000;

/// CPU time that a counter's package needs at least before the counter is doubted.
const BUSY_NS: u64 = 100_000_000;

/// Steps of the counter's unit that a busy CPU would have made at 0.1 W. One step of 1 µJ takes 10 µs there.
const STEPS: u64 = 100;
const STEP_NS_PER_UJ: u64 = 10_000;

/// What the log says of a counter that is not believed.
pub(in crate::sources) const SILENT: &str = "it counted nothing while its CPUs were busy, so it does not measure";

/// What the log says of the interval in which it begins to count.
const WOKE: &str = "it began to count in this interval, after it had counted nothing while its CPUs were busy";

/// How a counter behaved so far. Pure: no file, no clock.
#[derive(Clone, Debug)]
pub(in crate::sources) struct Liveness {
    /// Not believed.
    silent: bool,
    /// It was seen to move.
    moved: bool,
    /// It was not seen to move twice in a short time.
    slow: bool,
    still_ns: u64,
    busy_ns: u64,
}

/// How a counter behaved when all of them were watched at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sources) enum Seen {
    /// It moved twice or more within a tenth of a second.
    Moving,
    /// It moved once.
    Slow,
    /// It did not move while its CPUs were busy.
    Silent,
    /// Nothing can be said.
    Nothing,
}

/// What passed since the reading before.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::sources) struct Passed {
    /// Time.
    pub length_ns: u64,
    /// CPU time of tasks on the CPUs that the counter covers.
    pub busy_ns: u64,
    /// Smallest step of the counter, in microjoules, rounded up.
    pub unit_uj: u64,
}

impl Liveness {
    /// A counter of which nothing is known: it is believed.
    pub fn new() -> Self {
        Self {
            silent: false,
            moved: false,
            slow: true,
            still_ns: 0,
            busy_ns: 0,
        }
    }

    /// What was seen at the start.
    pub fn learn(&mut self, seen: Seen) {
        match seen {
            Seen::Moving => (self.silent, self.moved, self.slow) = (false, true, false),
            Seen::Slow => (self.silent, self.moved) = (false, true),
            Seen::Silent => self.silent = true,
            Seen::Nothing => {}
        }
    }

    /// Whether it is not believed.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// Whether it is not believed and never was seen to move.
    pub fn never_moved(&self) -> bool {
        self.silent && !self.moved
    }

    /// Takes the energy of an interval, `None` if it is not known; the reason if it is not to be believed.
    pub fn observe(&mut self, energy_uj: Option<u64>, passed: Passed) -> Option<&'static str> {
        match energy_uj {
            // Where a reading failed, nobody knows whether the counter moved.
            None => (self.still_ns, self.busy_ns) = (0, 0),
            Some(0) => {
                self.still_ns = self.still_ns.saturating_add(passed.length_ns);
                self.busy_ns = self.busy_ns.saturating_add(passed.busy_ns);
                let patience_ns = if self.slow { SLOW_STILL_NS } else { STILL_NS };
                self.silent |= self.still_ns >= patience_ns && is_busy(self.busy_ns, passed.unit_uj);
                return self.silent.then_some(SILENT);
            }
            Some(_) => {
                (self.still_ns, self.busy_ns, self.moved) = (0, 0, true);
                // Nobody knows since when it counts.
                return std::mem::take(&mut self.silent).then_some(WOKE);
            }
        }
        None
    }
}

/// Whether a counter must have moved in this CPU time of its package.
pub(in crate::sources) fn is_busy(busy_ns: u64, unit_uj: u64) -> bool {
    busy_ns >= BUSY_NS.max(unit_uj.saturating_mul(STEPS * STEP_NS_PER_UJ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn moving() -> Liveness {
        let mut liveness = Liveness::new();
        liveness.learn(Seen::Moving);
        liveness
    }

    fn passed(length_ns: u64, busy_ns: u64) -> Passed {
        Passed {
            length_ns,
            busy_ns,
            unit_uj: 61,
        }
    }

    #[test]
    fn a_counter_that_stops_while_its_cpus_are_busy_is_not_believed_until_it_moves() {
        let mut liveness = moving();
        assert_eq!(liveness.observe(Some(5), passed(SECOND, SECOND)), None);
        assert_eq!(liveness.observe(Some(0), passed(SECOND, SECOND)), Some(SILENT));
        assert_eq!(
            liveness.observe(Some(0), passed(SECOND, 0)),
            Some(SILENT),
            "it stays so"
        );
        assert_eq!(liveness.observe(Some(7), passed(SECOND, SECOND)), Some(WOKE));
        assert_eq!(liveness.observe(Some(7), passed(SECOND, SECOND)), None);
        assert!(!liveness.never_moved());
    }

    #[test]
    fn an_idle_machine_proves_nothing() {
        let mut liveness = moving();
        for _ in 0..50 {
            assert_eq!(liveness.observe(Some(0), passed(SECOND, SECOND / 1000)), None);
        }
        // 50 ms so far.
        assert_eq!(liveness.observe(Some(0), passed(SECOND, SECOND / 20)), Some(SILENT));
    }

    #[test]
    fn short_intervals_prove_something_together_only() {
        let mut liveness = moving();
        for interval in 0..150 {
            let believed = liveness.observe(Some(0), passed(SECOND / 100, SECOND / 100)).is_none();
            assert_eq!(believed, interval < 99, "interval {interval}");
        }
        let mut liveness = moving();
        for interval in 0..1000 {
            let energy_uj = u64::from(interval % 40 == 0);
            assert_eq!(
                liveness.observe(Some(energy_uj), passed(SECOND / 100, SECOND / 100)),
                None
            );
        }
    }

    #[test]
    fn a_coarse_unit_needs_more_time() {
        let mut liveness = moving();
        // Steps of 10 mJ: 10 s of one CPU.
        let passed = Passed {
            unit_uj: 10_000,
            ..passed(SECOND, SECOND)
        };
        for _ in 0..9 {
            assert_eq!(liveness.observe(Some(0), passed), None);
        }
        assert_eq!(liveness.observe(Some(0), passed), Some(SILENT));
    }

    #[test]
    fn a_counter_that_moves_once_a_second_is_believed() {
        let mut liveness = Liveness::new();
        liveness.learn(Seen::Slow);
        for interval in 0..100 {
            let energy_uj = u64::from(interval % 9 == 0);
            assert_eq!(liveness.observe(Some(energy_uj), passed(SECOND, SECOND)), None);
        }
    }

    #[test]
    fn a_reading_that_failed_proves_nothing() {
        let mut liveness = moving();
        for _ in 0..10 {
            assert_eq!(liveness.observe(Some(0), passed(SECOND / 4, SECOND)), None);
            assert_eq!(liveness.observe(None, passed(SECOND, SECOND)), None);
        }
    }

    #[test]
    fn what_was_silent_at_the_start_is_not_believed_from_the_first_interval_on() {
        let mut liveness = Liveness::new();
        liveness.learn(Seen::Silent);
        assert!(liveness.never_moved());
        assert_eq!(liveness.observe(Some(0), passed(1, 0)), Some(SILENT));
        assert_eq!(liveness.observe(Some(3), passed(1, 0)), Some(WOKE));
        assert!(!liveness.is_silent());
    }
}
