//! What the library plays: GPUs whose power and processes are functions of time, in milliseconds after the scenario's
//! start. What goes wrong is not a matter of time: a test says when, in a file that is read at each call ([`Control`]).

use serde::{Deserialize, Serialize};

/// A machine with GPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// CLOCK_MONOTONIC (ns) of the start; when the library is initialised, if 0.
    pub start_ns: u64,
    /// Code that initialisation returns instead of success, as 9 for a driver that is not loaded.
    pub init_error: Option<u32>,
    /// Initialisation never returns.
    pub init_hangs: bool,
    /// Functions that answer "function not found", as where the library is newer than the driver.
    pub missing: Vec<String>,
    /// Time that each call about a device takes, in µs.
    pub latency_us: u64,
    /// The CPU time of all calls stands in the file [`ACCOUNT_NAME`](crate::account::ACCOUNT_NAME) beside the library.
    pub account: bool,
    /// The GPUs, by index.
    pub devices: Vec<Device>,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Device {
    /// As `GPU-…`.
    pub uuid: String,
    /// Name of the product.
    pub name: String,
    /// PCI address, as `00000000:65:00.0`.
    pub pci: String,
    /// Power over time: linear between these points, constant before the first and after the last.
    pub power: Vec<PowerPoint>,
    /// What the energy counter shows at the start, in mJ.
    pub counter_mj: u64,
    /// The most that its board may be set to draw, in mW; not told, if absent.
    pub power_limit_mw: Option<u64>,
    /// Functions that this GPU does not support.
    pub unsupported: Vec<String>,
    /// All its memory.
    pub memory_total_bytes: u64,
    /// Distance of two utilisation samples.
    pub sample_period_ms: u64,
    /// Number of sampling moments that the buffer keeps.
    pub sample_history: u64,
    /// Entries that hold no sample (pid 0, nonsense for a percentage) stand among the samples.
    pub junk_samples: bool,
    /// Its processes.
    pub processes: Vec<Process>,
    /// A handle from before a fault stays lost after it.
    pub renews_handles: bool,
    /// In MIG mode: its instances.
    pub mig: Option<Vec<Instance>>,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            uuid: "GPU-00000000-0000-0000-0000-000000000000".to_owned(),
            name: "Fake GPU".to_owned(),
            pci: "00000000:01:00.0".to_owned(),
            power: Vec::new(),
            counter_mj: 1_000_000,
            power_limit_mw: None,
            unsupported: Vec::new(),
            memory_total_bytes: 80 << 30,
            sample_period_ms: 100,
            sample_history: 100,
            junk_samples: false,
            processes: Vec::new(),
            renews_handles: false,
            mig: None,
        }
    }
}

/// Power at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerPoint {
    /// When.
    pub at_ms: u64,
    /// How much, in mW.
    pub mw: u64,
}

/// A process on a GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// Begin of its use of the GPU.
    pub from_ms: u64,
    /// End of it; never, if absent.
    pub to_ms: Option<u64>,
    /// SM utilisation in percent while it uses the GPU.
    pub sm: u32,
    /// Memory; not available, if absent.
    pub memory_bytes: Option<u64>,
    /// Stands in the list of graphics processes.
    pub graphics: bool,
    /// Does not stand in the list of compute processes.
    pub no_compute: bool,
    /// Position of its MIG instance.
    pub instance: Option<usize>,
}

/// A MIG instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// As `MIG-…`.
    pub uuid: String,
}

/// What a test does to a GPU, from one call to the next: the file [`Control::name`] beside the library.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Calls do not work.
    pub fault: Option<Fault>,
    /// Number of faults that have begun.
    pub faults_begun: usize,
    /// Functions that fail, each with its code.
    pub failing: Vec<(String, u32)>,
    /// The counter stands still at this value, in mJ.
    pub counter_mj: Option<u64>,
    /// The counter started again from 0 at this moment, in ns after the scenario's start.
    pub counter_reset_ns: Option<u64>,
    /// The power that it says it draws, in mW.
    pub power_mw: Option<u64>,
}

/// A GPU that does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The code that calls return; absent, they do not return before the fault is over.
    pub code: Option<u32>,
}

impl Control {
    /// The name of the file for a GPU.
    pub fn name(index: usize) -> String {
        format!("control-{index}.json")
    }
}

impl Device {
    /// Energy from the start to `at_ns` after it, in µJ, rounded down.
    pub fn energy_uj(&self, at_ns: u64) -> u64 {
        let points = self.curve();
        let mut sum = 0; // twice the integral, in mW · ns
        for pair in points.windows(2) {
            let [(from_ns, from_mw), (to_ns, to_mw)] = [pair[0], pair[1]];
            if at_ns >= to_ns {
                sum += u128::from(to_ns - from_ns) * u128::from(from_mw + to_mw);
            } else if at_ns > from_ns {
                sum += u128::from(at_ns - from_ns) * u128::from(from_mw + self.power_mw(at_ns));
            }
        }
        if let Some((last_ns, mw)) = points.last() {
            sum += u128::from(at_ns.saturating_sub(*last_ns)) * u128::from(2 * mw);
        }
        u64::try_from(sum / 2_000_000).unwrap_or(u64::MAX)
    }

    /// Power at `at_ns` after the start.
    pub fn power_mw(&self, at_ns: u64) -> u64 {
        let points = self.curve();
        let next = points.iter().position(|(point_ns, _)| *point_ns > at_ns);
        match (next, points.last()) {
            (Some(next), _) => {
                let ((from_ns, from_mw), (to_ns, to_mw)) = (points[next - 1], points[next]);
                let weigh = |mw: u64, ns: u64| u128::from(mw) * u128::from(ns);
                let sum = weigh(from_mw, to_ns - at_ns) + weigh(to_mw, at_ns - from_ns);
                u64::try_from(sum / u128::from(to_ns - from_ns)).unwrap_or(u64::MAX)
            }
            (None, Some((_, mw))) => *mw,
            (None, None) => 0,
        }
    }

    /// The power curve in ns, with a point at 0.
    fn curve(&self) -> Vec<(u64, u64)> {
        let mut points: Vec<(u64, u64)> = self
            .power
            .iter()
            .map(|point| (point.at_ms * 1_000_000, point.mw))
            .collect();
        points.sort_by_key(|(at_ns, _)| *at_ns);
        if let Some(&(first_ns, mw)) = points.first()
            && first_ns > 0
        {
            points.insert(0, (0, mw));
        }
        points
    }

    /// The energy counter at `at_ns` after the start, in mJ, where it started again at `reset_ns`.
    pub fn counter_mj(&self, at_ns: u64, reset_ns: Option<u64>) -> u64 {
        match reset_ns {
            Some(reset_ns) => (self.energy_uj(at_ns) - self.energy_uj(reset_ns)) / 1000,
            None => self.counter_mj + self.energy_uj(at_ns) / 1000,
        }
    }

    /// Samples newer than `after_us`, with time stamps in µs after the start, oldest first: (time, pid, percent).
    ///
    /// A sample stands at the end of its period, and a process that used the GPU for a part of it has that part.
    pub fn samples(&self, at_ns: u64, after_us: Option<u64>) -> Vec<(u64, u32, u32)> {
        let period_us = self.sample_period_ms.max(1) * 1000;
        let newest = at_ns / 1000 / period_us;
        let oldest = newest.saturating_sub(self.sample_history.max(1)) + 1;
        let mut samples = Vec::new();
        for tick in oldest.max(1)..=newest {
            let (from_us, to_us) = ((tick - 1) * period_us, tick * period_us);
            if after_us.is_some_and(|after_us| to_us <= after_us) {
                continue;
            }
            for process in &self.processes {
                let begin_us = from_us.max(process.from_ms * 1000);
                let end_us = to_us.min(process.to_ms.map_or(u64::MAX, |ms| ms * 1000));
                let sm = u64::from(process.sm) * end_us.saturating_sub(begin_us) / period_us;
                if sm > 0 {
                    samples.push((to_us, process.pid, u32::try_from(sm).unwrap_or(u32::MAX)));
                }
            }
        }
        samples
    }

    /// The processes at `at_ns` after the start.
    pub fn processes_at(&self, at_ns: u64) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(move |process| {
            at_ns >= process.from_ms * 1_000_000 && process.to_ms.is_none_or(|to_ms| at_ns < to_ms * 1_000_000)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> Device {
        let point = |at_ms, mw| PowerPoint { at_ms, mw };
        Device {
            power: vec![point(1000, 100_000), point(3000, 300_000)],
            counter_mj: 7,
            ..Device::default()
        }
    }

    #[test]
    fn energy_is_the_integral_of_power() {
        let device = ramp();
        let ms = 1_000_000;
        assert_eq!(device.power_mw(2000 * ms), 200_000);
        // 100 W for 1 s; then 100 to 200 W over 1 s; 200 to 300 W; 300 W for 1 s.
        for (at_ms, joules) in [(0, 0), (1000, 100), (2000, 250), (3000, 500), (4000, 800)] {
            assert_eq!(device.energy_uj(at_ms * ms), joules * 1_000_000, "{at_ms} ms");
        }
        assert_eq!(device.counter_mj(1000 * ms, None), 100_007);
        assert_eq!(device.counter_mj(3000 * ms, Some(2000 * ms)), 250_000);
    }

    #[test]
    fn samples_stand_at_the_end_of_their_period() {
        let device = Device {
            processes: vec![Process {
                pid: 9,
                from_ms: 150,
                to_ms: Some(300),
                sm: 80,
                ..Process::default()
            }],
            sample_history: 3,
            ..Device::default()
        };
        let at = 300_000_000;
        assert_eq!(device.samples(at, None), [(200_000, 9, 40), (300_000, 9, 80)]);
        assert_eq!(device.samples(at, Some(200_000)), [(300_000, 9, 80)]);
        assert_eq!(device.samples(at, Some(300_000)), []);
        assert_eq!(device.samples(599_000_000, None), [(300_000, 9, 80)]);
        assert_eq!(device.samples(600_000_000, None), []);
    }
}
