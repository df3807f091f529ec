//! A thread that reads powers 20 times a second: firmware can take long to answer, and a border must not wait for it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{integral::Integral, number};
use crate::sources::clock::monotonic_ns;

/// Distance of two readings: a mean of 50 ms is what `acpi_power_meter` tells on Grace.
const PERIOD: Duration = Duration::from_millis(50);

/// What ACPI has for "not known" (0xFFFFFFFF mW), in µW.
const UNKNOWN_UW: u64 = 0xFFFF_FFFF * 1000;

/// A power that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Power {
    /// A file that tells µW.
    pub path: PathBuf,
    /// More than this in µW is not believed.
    pub most_uw: u64,
    /// While this file says that the device is suspended, it is left alone: a reading would wake it.
    pub status: Option<PathBuf>,
}

#[derive(Debug)]
struct Shared {
    end: AtomicBool,
    powers: Vec<(Mutex<Power>, Mutex<Integral>)>,
}

/// Powers that are integrated until this is dropped.
#[derive(Debug)]
pub struct Sampler(Arc<Shared>);

impl Sampler {
    /// Reads each once, and goes on in a thread.
    ///
    /// # Errors
    ///
    /// Where no thread can be started.
    pub fn start(powers: Vec<Power>) -> io::Result<Self> {
        let powers = powers.into_iter().map(|power| (Mutex::new(power), Mutex::default()));
        let shared = Arc::new(Shared {
            end: AtomicBool::new(false),
            powers: powers.collect(),
        });
        shared.look();
        let of_thread = Arc::clone(&shared);
        if !shared.powers.is_empty() {
            thread::Builder::new().name("dlpm-hwmon".to_owned()).spawn(move || {
                while !of_thread.end.load(Ordering::Relaxed) {
                    thread::sleep(PERIOD);
                    of_thread.look();
                }
            })?;
        }
        Ok(Self(shared))
    }

    /// Energy of a power up to `now_ns` since the start, in µJ.
    ///
    /// # Errors
    ///
    /// A sentence, where a part of what passed since the last call is missing.
    pub fn total_uj(&self, which: usize, now_ns: u64) -> Result<u64, String> {
        self.integral(which).total_uj(now_ns)
    }

    /// The newest power in µW; `None` if it could not be read.
    pub fn newest_uw(&self, which: usize) -> Option<u64> {
        self.integral(which).newest_uw()
    }

    /// Reads another file from now on: a driver that is loaded again numbers its chips anew.
    pub fn moved_to(&self, which: usize, path: PathBuf) {
        locked(&self.0.powers[which].0).path = path;
    }

    fn integral(&self, which: usize) -> MutexGuard<'_, Integral> {
        locked(&self.0.powers[which].1)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // It is not waited for: firmware may hold the thread.
        self.0.end.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn look(&self) {
        for (power, integral) in &self.powers {
            let power = locked(power).clone();
            let read = power.read();
            let at_ns = monotonic_ns();
            match read {
                Ok(uw) => locked(integral).see(uw, at_ns),
                Err(reason) => locked(integral).miss(reason),
            }
        }
    }
}

impl Power {
    fn read(&self) -> Result<u64, String> {
        if self.status.as_deref().is_some_and(is_suspended) {
            return Err("it sleeps (runtime suspend)".to_owned());
        }
        let uw = number(&self.path).map_err(|error| format!("{} cannot be read: {error}", self.path.display()))?;
        if uw == UNKNOWN_UW {
            return Err("its firmware says that its power is not known".to_owned());
        }
        if uw > self.most_uw {
            return Err(format!(
                "it reads {} W, more than the {} W that it can draw",
                uw / 1_000_000,
                self.most_uw / 1_000_000
            ));
        }
        Ok(uw)
    }
}

/// Whether a device sleeps, or is about to, by its `power/runtime_status`. One whose state the kernel does not tell is
/// awake.
pub fn is_suspended(status: &Path) -> bool {
    super::text(status).is_ok_and(|text| matches!(text.as_str(), "suspended" | "suspending"))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn powers_that_cannot_be_are_not_known() {
        let tree = tempfile::tempdir().unwrap();
        let path = tree.path().join("power1_average");
        let status = tree.path().join("runtime_status");
        let power = Power {
            path: path.clone(),
            most_uw: 2_000_000_000,
            status: Some(status.clone()),
        };
        assert!(power.read().unwrap_err().contains("cannot be read"));
        for (content, says) in [
            ("4294967295000", "not known"),
            ("2000000001", "more than the 2000 W"),
            ("-5", "`-5`"),
            ("\u{1b}[2J", "cannot be read"),
        ] {
            fs::write(&path, content).unwrap();
            let reason = power.read().unwrap_err();
            assert!(reason.contains(says), "{reason}");
        }
        fs::write(&path, "42000000\n").unwrap();
        assert_eq!(power.read(), Ok(42_000_000));
        fs::write(&status, "suspended\n").unwrap();
        assert!(power.read().unwrap_err().contains("sleeps"));
    }

    #[test]
    fn a_power_is_integrated_from_the_start_on() {
        let tree = tempfile::tempdir().unwrap();
        let path = tree.path().join("power1_average");
        fs::write(&path, "3000000\n").unwrap();
        let power = Power {
            path,
            most_uw: 2_000_000_000,
            status: None,
        };
        let before_ns = monotonic_ns();
        let sampler = Sampler::start(vec![power]).unwrap();
        let began_ns = monotonic_ns();
        assert_eq!(sampler.newest_uw(0), Some(3_000_000));
        thread::sleep(PERIOD * 3);
        let now_ns = monotonic_ns();
        // 3 W are 3 µJ per µs.
        match sampler.total_uj(0, now_ns) {
            Ok(total_uj) => {
                let of = |ns: u64| ns * 3 / 1000;
                assert!((of(now_ns - began_ns)..=of(now_ns - before_ns)).contains(&total_uj));
            }
            Err(reason) => assert!(reason.contains("was not read for"), "{reason}"),
        }
    }
}
