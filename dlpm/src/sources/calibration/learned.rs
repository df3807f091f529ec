//! The floor that a machine has shown by itself: its quietest minute so far, kept beside the calibration.

use std::path::{Path, PathBuf};

use super::{Calibration, CalibrationError, LEARNED, MachineId};
use crate::attribution::quiet::QuietMinute;

/// Name of its file.
const NAME: &str = "learned-floor.json";

/// Where the learned floor of a machine is whose calibration is, or would be, in `calibration`.
pub fn learned_path(calibration: &Path) -> PathBuf {
    calibration.with_file_name(NAME)
}

/// The lowest quiet minute of a machine.
#[derive(Debug)]
pub struct LearnedFloor {
    path: PathBuf,
    machine: MachineId,
    lowest: Option<Calibration>,
}

impl LearnedFloor {
    /// What was learned of `machine` before; what is of another machine, or cannot be read, is replaced by the next quiet
    /// minute. `calibration` is where the calibration is.
    pub fn load(calibration: &Path, machine: MachineId) -> Self {
        let path = learned_path(calibration);
        let lowest = Calibration::load(&path, &machine);
        if let Err(error @ (CalibrationError::Unreadable { .. } | CalibrationError::OtherMachine { .. })) = &lowest {
            log::warn!("the learned idle floor is not used and will be learned anew: {error}");
        }
        Self {
            path,
            machine,
            lowest: lowest.ok(),
        }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lowest minute so far.
    pub fn lowest(&self) -> Option<&Calibration> {
        self.lowest.as_ref()
    }

    /// Takes a minute as the floor, if it is the first, or lower than the one before, or has leaves that it lacks. Where
    /// the machine has no longer all leaves of the one before, its hardware changed, and the floor starts anew. `date` is
    /// the wall clock at the end of the minute. The new floor, which [`Calibration::store`] writes to [`Self::path`].
    pub fn take(&mut self, minute: &QuietMinute, date: impl FnOnce() -> String) -> Option<&Calibration> {
        if !self.lowest.as_ref().is_none_or(|lowest| is_better(minute, lowest)) {
            return None;
        }
        let mut floor = Calibration::new(self.machine.clone(), date(), minute.length_ns, minute.busy_permille);
        floor.method = LEARNED.to_owned();
        floor.roots_mw.clone_from(&minute.roots_mw);
        floor.floors_mw.clone_from(&minute.floors_mw);
        self.lowest = Some(floor);
        self.lowest.as_ref()
    }
}

fn is_better(minute: &QuietMinute, lowest: &Calibration) -> bool {
    let before = &lowest.floors_mw;
    if before.keys().any(|leaf| !minute.leaves.contains(leaf)) {
        return true;
    }
    if before.keys().any(|leaf| !minute.floors_mw.contains_key(leaf)) {
        return false;
    }
    let sum_mw = |floors_mw: &std::collections::BTreeMap<String, u64>| {
        floors_mw.values().map(|floor_mw| u128::from(*floor_mw)).sum::<u128>()
    };
    minute.floors_mw.len() > before.len() || sum_mw(&minute.floors_mw) < sum_mw(before)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn machine(id: &str) -> MachineId {
        MachineId {
            machine_id: Some(id.to_owned()),
            cpu_model: Some("Xeon".to_owned()),
        }
    }

    /// A minute of a machine that has these leaves, of which those with a power were quiet.
    fn minute(leaves: &[(&str, Option<u64>)]) -> QuietMinute {
        let quiet = leaves
            .iter()
            .filter_map(|(leaf, mw)| Some(((*leaf).to_owned(), (*mw)?)));
        QuietMinute {
            length_ns: 60_000_000_000,
            end_unix_ns: 0,
            busy_permille: 7,
            roots_mw: [("package-0".to_owned(), 1)].into(),
            floors_mw: quiet.collect(),
            leaves: leaves.iter().map(|(leaf, _)| (*leaf).to_owned()).collect(),
        }
    }

    /// Whether each minute was taken, and the floors at the end.
    fn taken(minutes: &[&[(&str, Option<u64>)]]) -> (Vec<bool>, Vec<(String, u64)>) {
        let folder = tempfile::tempdir().unwrap();
        let mut floor = LearnedFloor::load(&folder.path().join("calibration.json"), machine("1"));
        let taken = minutes
            .iter()
            .map(|leaves| floor.take(&minute(leaves), || "d".to_owned()).is_some());
        let taken = taken.collect();
        let lowest = floor.lowest().unwrap();
        assert!(lowest.is_learned());
        (taken, lowest.floors_mw.clone().into_iter().collect())
    }

    fn floors(of: &[(&str, u64)]) -> Vec<(String, u64)> {
        of.iter().map(|(leaf, mw)| ((*leaf).to_owned(), *mw)).collect()
    }

    #[test]
    fn the_lowest_minute_is_kept_whole() {
        let minutes: [&[_]; 4] = [
            &[("core", Some(9)), ("rest", Some(5))],
            &[("core", Some(3)), ("rest", Some(11))],
            &[("core", Some(8)), ("rest", Some(5))],
            &[("core", Some(4)), ("rest", Some(9))],
        ];
        let (taken, lowest) = taken(&minutes);
        assert_eq!(taken, [true, false, true, false]);
        assert_eq!(lowest, floors(&[("core", 8), ("rest", 5)]), "never one leaf of each");
    }

    #[test]
    fn a_minute_with_more_leaves_is_better_and_one_with_fewer_is_not() {
        let minutes: [&[_]; 4] = [
            &[("core", Some(9)), ("gpu-a", None)],
            &[("core", Some(12)), ("gpu-a", Some(50))],
            &[("core", Some(1)), ("gpu-a", None)],
            &[("core", Some(2)), ("gpu-a", Some(50))],
        ];
        let (taken, lowest) = taken(&minutes);
        assert_eq!(taken, [true, true, false, true]);
        assert_eq!(lowest, floors(&[("core", 2), ("gpu-a", 50)]));
    }

    #[test]
    fn other_zones_are_another_machine() {
        let minutes: [&[_]; 3] = [
            &[("package-0/rest", Some(5)), ("package-1/rest", Some(5))],
            &[("package-0/rest", Some(90))],
            &[("package-0/whole", Some(95))],
        ];
        let (taken, lowest) = taken(&minutes);
        assert_eq!(taken, [true, true, true]);
        assert_eq!(lowest, floors(&[("package-0/whole", 95)]));
    }

    #[test]
    fn what_was_learned_is_found_again_on_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        let calibration = folder.path().join("lib/calibration.json");
        let mut floor = LearnedFloor::load(&calibration, machine("1"));
        assert!(floor.lowest().is_none());
        let path = floor.path().to_owned();
        assert_eq!(path, folder.path().join("lib/learned-floor.json"));
        let low = minute(&[("core", Some(9))]);
        floor
            .take(&low, || "2026-01-01".to_owned())
            .unwrap()
            .store(&path)
            .unwrap();
        let mut again = LearnedFloor::load(&calibration, machine("1"));
        assert_eq!(again.lowest(), floor.lowest());
        assert!(again.take(&low, String::new).is_none(), "as low is not lower");
        // Of another machine, or torn, it is not used.
        let mut other = LearnedFloor::load(&calibration, machine("2"));
        assert!(other.lowest().is_none());
        assert!(other.take(&minute(&[("core", Some(99))]), String::new).is_some());
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(LearnedFloor::load(&calibration, machine("1")).lowest().is_none());
    }
}
