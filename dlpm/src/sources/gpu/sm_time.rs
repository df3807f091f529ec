//! From NVML's samples of utilisation to the SM time of each process: no NVML, no clock.
//!
//! A sample says how much of the SMs a process used in the sampling period that ended at its time stamp; in periods
//! in which it used nothing a process has no sample. So a sample stands for the time since the process's sample
//! before, but for no more than a period, which NVML does not tell: it is the shortest distance of two samples of one
//! process that a reading of the buffer has shown.

use std::collections::{BTreeMap, HashMap};

use super::records::LARGEST_PID;

/// What a sample stands for at most while the sampling period is not known (NVML samples at least once a second).
const LONGEST_PERIOD_US: u64 = 1_000_000;

/// Two samples of one process that are closer are one that was stored twice.
const SHORTEST_PERIOD_US: u64 = 1_000;

/// Time stamps are the wall clock's, which may be set a little between a sample and its reading.
const FUTURE_US: u64 = 10_000_000;

/// One sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) pid: u32,
    /// End of its period, µs since 1970.
    pub(super) at_us: u64,
    /// Part of the SMs in percent.
    pub(super) sm_percent: u32,
    /// Part of the time in which memory was read or written, in percent.
    pub(super) mem_percent: u32,
}

/// SM time of the processes of one GPU.
#[derive(Debug, Default)]
pub(super) struct SmTime {
    /// Time stamp of the newest sample; 0 before there was one.
    cursor_us: u64,
    /// Wall clock of the newest and of the last complete reading of the buffer; 0 before there was one.
    asked_us: u64,
    read_us: u64,
    period_us: Option<u64>,
    /// Time stamp of each process's newest sample, for as long as it matters.
    newest_us: HashMap<u32, u64>,
    percent_us: BTreeMap<u32, u64>,
    /// The same of memory, of samples in which that makes sense.
    mem_percent_us: BTreeMap<u32, u64>,
    dropped: u64,
}

impl SmTime {
    /// What NVML is to be asked for: samples newer than this. 0 is the whole buffer.
    ///
    /// The time stamps are the wall clock's. Where that was set back behind the newest sample, no sample would be
    /// newer until it has caught up: so the cursor goes back with it.
    pub(super) fn cursor_us(&mut self, unix_now_us: u64) -> u64 {
        if self.cursor_us > unix_now_us {
            self.cursor_us = unix_now_us;
            self.read_us = unix_now_us;
            self.newest_us.clear();
        }
        self.asked_us = unix_now_us;
        self.cursor_us
    }

    /// Adds the samples newer than the cursor.
    pub(super) fn see(&mut self, mut samples: Vec<Sample>) {
        // Some drivers fill what they do not use of the buffer with entries of no process, or repeat old ones.
        samples.retain(|sample| sample.pid != 0 && sample.at_us > self.cursor_us);
        let before = samples.len();
        // A sample from the future would keep the cursor there.
        let newest_us = match self.asked_us {
            0 => u64::MAX,
            asked_us => asked_us.saturating_add(FUTURE_US),
        };
        samples.retain(|sample| sample.sm_percent <= 100 && sample.pid <= LARGEST_PID && sample.at_us <= newest_us);
        self.dropped += (before - samples.len()) as u64;
        samples.sort_by_key(|sample| (sample.at_us, sample.pid));
        self.learn_period(&samples);

        // Without a period it is only known that the last reading did not have the sample.
        let begin_us = match self.period_us {
            Some(_) => self.cursor_us,
            None => self.cursor_us.max(self.read_us),
        };
        self.read_us = self.asked_us;
        for sample in samples {
            let last_us = self.newest_us.insert(sample.pid, sample.at_us);
            let since_us = sample.at_us.saturating_sub(last_us.unwrap_or(begin_us));
            let length_us = self.stands_for_us(since_us);
            let sum = self.percent_us.entry(sample.pid).or_default();
            *sum = sum.saturating_add(length_us * u64::from(sample.sm_percent));
            if sample.mem_percent <= 100 {
                let sum = self.mem_percent_us.entry(sample.pid).or_default();
                *sum = sum.saturating_add(length_us * u64::from(sample.mem_percent));
            }
            self.cursor_us = self.cursor_us.max(sample.at_us);
        }
        let cursor_us = self.cursor_us;
        self.newest_us
            .retain(|_, at_us| cursor_us.saturating_sub(*at_us) <= 10 * LONGEST_PERIOD_US);
    }

    /// SM time in percent × µs of each process that had samples since the last call, and the samples that made no
    /// sense.
    pub(super) fn take(&mut self) -> (BTreeMap<u32, u64>, u64) {
        (std::mem::take(&mut self.percent_us), std::mem::take(&mut self.dropped))
    }

    /// The use of memory of each process since the last call, integrated in the same way.
    pub(super) fn take_mem(&mut self) -> BTreeMap<u32, u64> {
        std::mem::take(&mut self.mem_percent_us)
    }

    fn learn_period(&mut self, samples: &[Sample]) {
        let mut last_us: HashMap<u32, u64> = HashMap::new();
        for sample in samples {
            if let Some(last_us) = last_us.insert(sample.pid, sample.at_us) {
                let distance_us = sample.at_us - last_us;
                if distance_us >= SHORTEST_PERIOD_US {
                    self.period_us = Some(
                        self.period_us
                            .map_or(distance_us, |period_us| period_us.min(distance_us)),
                    );
                }
            }
        }
    }

    /// The time that a sample stands for: the distance to the one before, if that is about a period.
    fn stands_for_us(&self, since_us: u64) -> u64 {
        let period_us = self.period_us.unwrap_or(LONGEST_PERIOD_US).min(LONGEST_PERIOD_US);
        if since_us <= period_us + period_us / 2 {
            since_us
        } else {
            period_us
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000_000;

    fn sample(pid: u32, at_us: u64, sm_percent: u32) -> Sample {
        Sample {
            pid,
            at_us: START + at_us,
            sm_percent,
            mem_percent: 0,
        }
    }

    /// After a first reading up to `START`, at a period of 100 ms.
    fn running() -> SmTime {
        let mut time = SmTime::default();
        time.see(vec![
            Sample {
                pid: 1,
                at_us: START - 100_000,
                sm_percent: 1,
                mem_percent: 0,
            },
            Sample {
                pid: 1,
                at_us: START,
                sm_percent: 1,
                mem_percent: 0,
            },
        ]);
        time.take();
        time
    }

    #[test]
    fn samples_are_weighed_by_their_time() {
        let mut time = running();
        assert_eq!(time.cursor_us(START + 5_000_000), START);
        time.see(vec![
            sample(1, 100_000, 70),
            sample(2, 100_000, 30),
            sample(1, 200_000, 50),
        ]);
        assert_eq!(time.cursor_us(START + 5_000_000), START + 200_000);
        assert_eq!(time.take().0, [(1, 12_000_000), (2, 3_000_000)].into());
        assert_eq!(time.take().0, [].into());
    }

    #[test]
    fn a_pause_is_not_filled() {
        let mut time = running();
        // Process 1 used nothing for 900 ms; process 2 begins.
        time.see(vec![sample(1, 1_000_000, 10), sample(2, 1_000_000, 10)]);
        assert_eq!(time.take().0, [(1, 1_000_000), (2, 1_000_000)].into());
        // Samples are not exactly a period apart.
        time.see(vec![sample(1, 1_140_000, 10)]);
        assert_eq!(time.take().0, [(1, 1_400_000)].into());
    }

    #[test]
    fn one_sample_for_each_process_stands_for_all_since_the_last() {
        let mut time = SmTime::default();
        time.see(vec![sample(1, 0, 50), sample(2, 10, 50)]);
        time.take();
        time.see(vec![
            sample(1, 500_000, 80),
            sample(2, 500_010, 20),
            sample(3, 400_010, 10),
        ]);
        assert_eq!(time.take().0, [(1, 40_000_000), (2, 10_000_000), (3, 4_000_000)].into());
        time.see(vec![sample(1, 9_000_000, 80)]);
        assert_eq!(time.take().0, [(1, 80_000_000)].into(), "a second at most");
    }

    #[test]
    fn the_first_sample_stands_for_no_time_before_the_trace() {
        let mut time = SmTime::default();
        assert_eq!(time.cursor_us(START), 0);
        time.see(vec![]);
        assert_eq!(time.cursor_us(START + 130_000), 0);
        time.see(vec![sample(1, 100_000, 50)]);
        assert_eq!(time.take().0, [(1, 5_000_000)].into());
    }

    #[test]
    fn sums_can_exceed_the_time() {
        let mut time = running();
        time.see((1..=3).map(|pid| sample(pid, 100_000, 90)).collect());
        assert_eq!(time.take().0.values().sum::<u64>(), 27_000_000);
    }

    #[test]
    fn what_makes_no_sense_is_left_out_and_counted() {
        let mut time = running();
        time.see(vec![
            sample(0, 100_000, 50),
            Sample {
                pid: 0,
                at_us: 0,
                sm_percent: 7_777,
                mem_percent: 0,
            },
            sample(1, 0, 50),
            sample(1, 100_000, 101),
            sample(2, 100_000, u32::MAX),
            sample(1, 100_000, 100),
            sample(1, 100_000, 100),
        ]);
        assert_eq!(time.take(), ([(1, 10_000_000)].into(), 2));
        assert_eq!(time.period_us, Some(100_000));
    }

    #[test]
    fn the_cursor_follows_a_clock_that_is_set_back() {
        let mut time = running();
        let now_us = START - 3_600_000_000;
        assert_eq!(time.cursor_us(now_us), now_us);
        time.see(vec![Sample {
            pid: 1,
            at_us: now_us + 100_000,
            sm_percent: 100,
            mem_percent: 0,
        }]);
        assert_eq!(time.take().0, [(1, 10_000_000)].into());
    }

    #[test]
    fn the_use_of_memory_is_integrated_beside_it() {
        let mut time = running();
        time.take_mem();
        let with = |pid, at_us, mem_percent| Sample {
            mem_percent,
            ..sample(pid, at_us, 80)
        };
        time.see(vec![with(1, 100_000, 30), with(2, 100_000, 101), with(1, 200_000, 10)]);
        assert_eq!(
            time.take_mem(),
            [(1, 4_000_000)].into(),
            "what makes no sense is left out"
        );
        assert_eq!(time.take().0, [(1, 16_000_000), (2, 8_000_000)].into());
        assert_eq!(time.take_mem(), [].into());
    }
}
