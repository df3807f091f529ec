//! Learns the idle floor of this machine while it is measured.
//!
//! ```text
//! let mut learning = Learning::start(&args.machine);
//! if let Some(floor) = learning.as_mut().and_then(|learning| learning.add(&ledger)) { … }    // after each ledger
//! ```

use std::{
    io,
    path::Path,
    thread::{self, JoinHandle},
};

use crate::{
    attribution::{ledger::Ledger, quiet::Quiet},
    cli::MachineArgs,
    log::date::date,
    sinks::terminal::say,
    sources::calibration::{Calibration, DEFAULT_PATH, LearnedFloor, MachineId},
};

/// What was learned, and what is about to be.
pub struct Learning {
    quiet: Quiet,
    floor: LearnedFloor,
    /// Writes the floor: a slow disk keeps no interval waiting.
    storing: Option<JoinHandle<io::Result<()>>>,
    /// The newest floor is not written.
    is_new: bool,
    /// The user was told that it cannot be written.
    is_told: bool,
}

impl Learning {
    /// Goes on from what was learned of this machine before, beside its calibration; `None` where another tree than this
    /// machine's `/sys` is read: what that shows is not learned of this machine.
    pub fn start(args: &MachineArgs) -> Option<Self> {
        let is_own = args.roots.sysfs == Path::new("/sys") || args.calibration != Path::new(DEFAULT_PATH);
        is_own.then(|| Self::beside(&args.calibration, &args.roots.procfs))
    }

    fn beside(calibration: &Path, procfs: &Path) -> Self {
        Self {
            quiet: Quiet::default(),
            floor: LearnedFloor::load(calibration, MachineId::read(procfs)),
            storing: None,
            is_new: false,
            is_told: false,
        }
    }

    /// Adds the next ledger. The floor, if it has just become lower: with it the policy `separate` is possible.
    pub fn add(&mut self, ledger: &Ledger) -> Option<&Calibration> {
        let minute = self.quiet.add(ledger);
        let is_lower = minute.is_some_and(|minute| {
            let date = || date(minute.end_unix_ns, super::local_timezone());
            self.floor.take(&minute, date).is_some()
        });
        self.is_new |= is_lower;
        self.store();
        self.floor.lowest().filter(|_| is_lower)
    }

    /// Begins to write what is new, unless something is being written.
    fn store(&mut self) {
        if self.storing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.end_storing();
        }
        if !self.is_new || self.storing.is_some() {
            return;
        }
        let Some(lowest) = self.floor.lowest().cloned() else {
            return;
        };
        self.is_new = false;
        let path = self.floor.path().to_owned();
        let thread = thread::Builder::new()
            .name("dlpm-floor".to_owned())
            .spawn(move || lowest.store(&path));
        match thread {
            Ok(thread) => self.storing = Some(thread),
            Err(error) => self.tell(&error),
        }
    }

    fn end_storing(&mut self) {
        // A panic in the thread has been reported where it happened.
        if let Some(Ok(Err(error))) = self.storing.take().map(JoinHandle::join) {
            self.tell(&error);
        }
    }

    fn tell(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_told, true) {
            say(&format!(
                "warning: the idle floor that this machine has shown cannot be written to {} ({error}), so that it is lost \
                 when dlpm ends: see that the directory is there and can be written",
                self.floor.path().display()
            ));
        }
    }
}

impl Drop for Learning {
    /// Waits until it is written.
    fn drop(&mut self) {
        self.end_storing();
        self.store();
        self.end_storing();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        attribution::{Options, attribute, energy_tree::Carries},
        interval::ZoneKind,
        sinks::testing::{interval, zone},
        sources::calibration::learned_path,
    };

    /// An interval of a second in which nothing ran, and the package drew so much.
    fn idle(seq: u64, package_w: u64) -> Ledger {
        let mut interval = interval(
            seq,
            vec![zone("package-0", ZoneKind::Package, Ok(package_w * 1_000_000))],
        );
        interval.usage.clear();
        for cpu in &mut interval.cpus {
            (cpu.busy_ns, cpu.idle_ns, cpu.lost_ns) = (0, cpu.interval_ns(), 0);
        }
        attribute(&interval, &Options::default(), &Carries::default())
    }

    #[test]
    fn a_quiet_minute_is_written_and_a_lower_one_replaces_it() {
        let folder = tempfile::tempdir().unwrap();
        let (calibration, procfs) = (folder.path().join("lib/calibration.json"), Path::new("/proc"));
        let path = learned_path(&calibration);
        let stored = || {
            let floor = Calibration::load(&path, &MachineId::read(procfs)).ok()?;
            Some((floor.is_learned(), floor.floors_mw["package-0/rest"]))
        };
        let mut learning = Learning::beside(&calibration, procfs);
        for seq in 0..59 {
            assert!(learning.add(&idle(seq, 30)).is_none());
        }
        assert!(!path.exists());
        assert_eq!(learning.add(&idle(59, 30)).unwrap().floors_mw["package-0/rest"], 30_000);
        assert!(learning.add(&idle(60, 30)).is_none());
        drop(learning);
        assert_eq!(stored(), Some((true, 30_000)));
        let mut learning = Learning::beside(&calibration, procfs);
        let lower = (0..120).filter(|&seq| learning.add(&idle(seq, if seq < 60 { 31 } else { 20 })).is_some());
        // After five of these seconds the mean is still above 30 W.
        assert_eq!(lower.count(), 60 - 5);
        drop(learning);
        assert_eq!(stored(), Some((true, 20_000)));
        assert_eq!(fs::read_dir(folder.path().join("lib")).unwrap().count(), 1);
    }

    #[test]
    fn a_floor_that_cannot_be_written_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("lib"), "a file").unwrap();
        let mut learning = Learning::beside(&folder.path().join("lib/calibration.json"), Path::new("/proc"));
        for seq in 0..61 {
            learning.add(&idle(seq, 30));
        }
        learning.end_storing();
        assert!(learning.is_told && learning.floor.lowest().is_some());
    }
}
