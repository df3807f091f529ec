//! What becomes of idle energy in a trace: the policy that the user named, or the one that this machine allows.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::{
    attribution::{
        floors, gpus,
        ledger::{IdlePolicy, Method},
    },
    cli::{IdleChoice, MachineArgs},
    commands::calibrate,
    sources::{
        calibration::{Calibration, CalibrationError, DEFAULT_PATH, MachineId, learned_path},
        energy::meter::Meter,
        gpu::Gpus,
    },
};

/// The idle policy of a trace.
#[derive(Debug, Default)]
pub struct Idle {
    /// The policy.
    pub policy: IdlePolicy,
    /// Floors in mW by leaf, where the policy makes use of them.
    pub floors_mw: BTreeMap<String, u64>,
    /// What the user has to know of it, a sentence each.
    pub notes: Vec<String>,
    /// Whether a floor that is learned from now on is to be used: there are meters, the policy was left to dlpm, and there
    /// is no calibration.
    pub learns: bool,
}

/// Leaves that are split by time or by use of a GPU, and can have a floor.
struct Leaves {
    /// Power of the idle machine by the user's estimate, in mW.
    estimated_mw: BTreeMap<String, u64>,
    measured: Vec<String>,
    of_gpus: Vec<String>,
}

/// Chooses the policy and finds its floors.
///
/// # Errors
///
/// If the user named `separate`, and a leaf has no floor.
pub fn choose(args: &MachineArgs, meter: &mut Meter, gpus: &Gpus) -> Result<Idle> {
    match args.idle_policy {
        IdleChoice::Named(IdlePolicy::Separate) => separate(args, Leaves::of(meter, gpus)),
        IdleChoice::Named(policy) => Ok(Idle {
            policy,
            ..Idle::default()
        }),
        IdleChoice::Auto => Ok(auto(args, Leaves::of(meter, gpus))),
    }
}

impl Leaves {
    fn of(meter: &mut Meter, gpus: &Gpus) -> Self {
        let mut estimated_mw = BTreeMap::new();
        if let Some(estimate) = meter.estimate() {
            // Half of the estimate is the power of the idle machine.
            estimated_mw.insert("machine/rest".to_owned(), estimate.idle_mw);
        }
        Self {
            measured: measured(meter),
            estimated_mw,
            of_gpus: gpus.uuids().map(gpus::zone_name).collect(),
        }
    }
}

fn separate(args: &MachineArgs, leaves: Leaves) -> Result<Idle> {
    let mut idle = Idle {
        policy: IdlePolicy::Separate,
        ..Idle::default()
    };
    let needed: Vec<&str> = leaves
        .measured
        .iter()
        .chain(&leaves.of_gpus)
        .map(String::as_str)
        .collect();
    if !needed.is_empty() {
        let known = known(&args.calibration, &args.roots.procfs, &needed)?;
        idle.notes.push(known.note());
        idle.floors_mw = known.floor.floors_mw;
    }
    if !leaves.estimated_mw.is_empty() {
        idle.notes.push(ESTIMATED.to_owned());
        idle.floors_mw.extend(leaves.estimated_mw);
    }
    Ok(idle)
}

/// `separate` where the floor of all that is split by time is known, or at least that of a GPU where there is nothing
/// else; otherwise `proportional`.
fn auto(args: &MachineArgs, leaves: Leaves) -> Idle {
    if leaves.measured.is_empty() && leaves.of_gpus.is_empty() {
        return match leaves.estimated_mw.is_empty() {
            true => Idle::default(),
            false => Idle {
                policy: IdlePolicy::Separate,
                floors_mw: leaves.estimated_mw,
                notes: vec![ESTIMATED.to_owned()],
                learns: false,
            },
        };
    }
    let needed: Vec<&str> = leaves.measured.iter().map(String::as_str).collect();
    let known = known(&args.calibration, &args.roots.procfs, &needed);
    let has_floor = |zone: &str| {
        let known = known.as_ref().ok();
        known.is_some_and(|known| floors::covers(&known.floor.floors_mw, zone))
    };
    let without: Vec<&str> = leaves
        .of_gpus
        .iter()
        .map(String::as_str)
        .filter(|zone| !has_floor(zone))
        .collect();
    let only_gpus = leaves.measured.is_empty() && leaves.estimated_mw.is_empty();
    let no_gpu_has_one = without.len() == leaves.of_gpus.len();
    let mut idle = Idle {
        policy: IdlePolicy::Separate,
        learns: known.as_ref().map_or(true, |known| known.floor.is_learned()),
        ..Idle::default()
    };
    match known {
        Err(error) if leaves.estimated_mw.is_empty() => return proportional(&why(&error)),
        Ok(known) if only_gpus && no_gpu_has_one => {
            return proportional(&format!("{} has no floor of a GPU", known.path.display()));
        }
        Ok(known) => {
            idle.notes.push(known.note());
            idle.floors_mw = known.floor.floors_mw;
        }
        Err(_) => {}
    }
    if !leaves.estimated_mw.is_empty() {
        idle.notes.push(ESTIMATED.to_owned());
        idle.floors_mw.extend(leaves.estimated_mw);
    }
    if !without.is_empty() {
        idle.notes.push(format!(
            "no idle floor is known of {}, so its idle energy goes to whoever uses it: `dlpm calibrate` measures the floor",
            without.join(", ")
        ));
    }
    idle
}

const ESTIMATED: &str = "the idle floor is the estimate's idle watts; nothing measured it, and it goes to the row idle (idle policy separate)";

/// The floor of what a meter measures, where a trace looks for it by itself; `None` where it measures nothing.
pub fn of_meter(procfs: &Path, meter: &mut Meter) -> Option<Result<Known, CalibrationError>> {
    let leaves = measured(meter);
    let needed: Vec<&str> = leaves.iter().map(String::as_str).collect();
    (!needed.is_empty()).then(|| known(Path::new(DEFAULT_PATH), procfs, &needed))
}

/// Leaves that have a floor, but for those of an estimate.
fn measured(meter: &mut Meter) -> Vec<String> {
    let leaves = calibrate::leaves(meter).leaves.into_iter();
    let by_time = leaves.filter(|leaf| !leaf.method.is_by_memory() && leaf.method != Method::Estimate);
    by_time.map(|leaf| leaf.zone).collect()
}

/// A floor that can be used.
pub struct Known {
    floor: Calibration,
    path: PathBuf,
    /// Why the calibration is not used, if what was learned is used instead.
    instead: Option<CalibrationError>,
}

/// The calibration of this machine, or else what was learned of it, if every one of `leaves` has a floor there.
///
/// # Errors
///
/// What is wrong with the calibration, if neither can be used.
pub fn known(calibration: &Path, procfs: &Path, leaves: &[&str]) -> Result<Known, CalibrationError> {
    let machine = MachineId::read(procfs);
    let load = |path: &Path| {
        let floor = Calibration::load(path, &machine)?;
        floor.covers(path, leaves.iter().copied())?;
        Ok(floor)
    };
    let error = match load(calibration) {
        Ok(floor) => {
            return Ok(Known {
                floor,
                path: calibration.to_owned(),
                instead: None,
            });
        }
        Err(error) => error,
    };
    let path = learned_path(calibration);
    match load(&path) {
        Ok(floor) => Ok(Known {
            floor,
            path,
            instead: Some(error),
        }),
        Err(_) => Err(error),
    }
}

impl Known {
    /// Where the floor is from, and what becomes of it.
    pub fn note(&self) -> String {
        let Calibration {
            date, busy_permille, ..
        } = &self.floor;
        let how = match self.floor.is_learned() {
            true => format!(
                "was learned: this machine's quietest minute so far ended on {date}, with {}.{} % of CPU time busy",
                busy_permille / 10,
                busy_permille % 10
            ),
            false => format!("was measured on {date}"),
        };
        let unused = match &self.instead {
            Some(error) if !matches!(error, CalibrationError::Missing(_)) => format!("; {}", why(error)),
            _ => String::new(),
        };
        format!(
            "the idle floor {how} ({}{unused}); it goes to the row idle (idle policy separate)",
            self.path.display()
        )
    }
}

fn proportional(why: &str) -> Idle {
    let note = format!(
        "idle energy goes to whoever runs (idle policy proportional), since the power of this idle machine is not known \
         ({why}): run `dlpm calibrate` once while the machine is quiet, or name a policy with --idle-policy"
    );
    Idle {
        notes: vec![note],
        learns: true,
        ..Idle::default()
    }
}

/// The error without its remedy.
pub fn why(error: &CalibrationError) -> String {
    match error {
        CalibrationError::Missing(path) => format!("{} is not there", path.display()),
        CalibrationError::Unreadable { path, cause } => format!("{} cannot be read: {cause}", path.display()),
        CalibrationError::OtherMachine { path, what, .. } => {
            format!("{} is of a machine with another {what}", path.display())
        }
        CalibrationError::ZoneMissing { path, zone } => format!("{} has no floor of {zone}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser as _;

    use super::*;
    use crate::{
        attribution::quiet::QuietMinute,
        cli::{Cli, Command},
        sources::calibration::LearnedFloor,
    };

    fn args(calibration: &Path) -> MachineArgs {
        let words = ["dlpm", "trace", "--calibration"].map(str::to_owned);
        let words = words.into_iter().chain([calibration.display().to_string()]);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Trace(args) => args.machine,
            _ => unreachable!(),
        }
    }

    fn leaves(measured: &[&str], of_gpus: &[&str], estimated_mw: Option<u64>) -> Leaves {
        let owned = |zones: &[&str]| zones.iter().map(|zone| (*zone).to_owned()).collect();
        Leaves {
            estimated_mw: estimated_mw
                .map(|mw| ("machine/rest".to_owned(), mw))
                .into_iter()
                .collect(),
            measured: owned(measured),
            of_gpus: owned(of_gpus),
        }
    }

    /// What `auto` makes of these leaves where that was calibrated.
    fn chosen(calibrated: Option<&[(&str, u64)]>, leaves: Leaves) -> (IdlePolicy, Vec<(String, u64)>, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calibration.json");
        let args = args(&path);
        if let Some(floors) = calibrated {
            let machine = MachineId::read(&args.roots.procfs);
            let mut calibration = Calibration::new(machine, "2026-01-01".to_owned(), 60_000_000_000, 1);
            calibration.floors_mw = floors.iter().map(|(zone, mw)| ((*zone).to_owned(), *mw)).collect();
            calibration.store(&path).unwrap();
        }
        let idle = auto(&args, leaves);
        (idle.policy, idle.floors_mw.into_iter().collect(), idle.notes.join("\n"))
    }

    fn floors(of: &[(&str, u64)]) -> Vec<(String, u64)> {
        of.iter().map(|(zone, mw)| ((*zone).to_owned(), *mw)).collect()
    }

    #[test]
    fn a_known_floor_is_separate() {
        let calibrated = [("gpu-a", 7), ("package-0/core", 3), ("package-0/rest", 5)];
        for (leaves, of) in [
            (
                leaves(&["package-0/core", "package-0/rest"], &[], None),
                &calibrated[..],
            ),
            (leaves(&["package-0/whole"], &["gpu-a"], None), &calibrated),
            (leaves(&[], &["gpu-a"], None), &calibrated),
        ] {
            let (policy, floors_mw, notes) = chosen(Some(&calibrated), leaves);
            assert_eq!((policy, floors_mw), (IdlePolicy::Separate, floors(of)));
            assert!(
                notes.contains("was measured on 2026-01-01") && !notes.contains("no idle floor"),
                "{notes}"
            );
        }
        let (policy, floors_mw, notes) = chosen(None, leaves(&[], &[], Some(40_000)));
        assert_eq!(
            (policy, floors_mw),
            (IdlePolicy::Separate, floors(&[("machine/rest", 40_000)]))
        );
        assert!(notes.contains("nothing measured it"), "{notes}");
    }

    #[test]
    fn what_was_learned_is_used_where_there_is_no_calibration() {
        let folder = tempfile::tempdir().unwrap();
        let args = args(&folder.path().join("calibration.json"));
        let machine = MachineId::read(&args.roots.procfs);
        let learn = |machine: &MachineId, floors: &[(&str, u64)]| {
            let mut floor = LearnedFloor::load(&args.calibration, machine.clone());
            let minute = QuietMinute {
                length_ns: 60_000_000_000,
                end_unix_ns: 0,
                busy_permille: 13,
                roots_mw: BTreeMap::new(),
                floors_mw: floors.iter().map(|(zone, mw)| ((*zone).to_owned(), *mw)).collect(),
                leaves: floors.iter().map(|(zone, _)| (*zone).to_owned()).collect(),
            };
            let path = floor.path().to_owned();
            floor
                .take(&minute, || "2026-02-03".to_owned())
                .unwrap()
                .store(&path)
                .unwrap();
        };
        let auto = || {
            let idle = auto(&args, leaves(&["package-0/rest"], &[], None));
            (idle.policy, idle.learns, idle.notes.join("\n"))
        };
        learn(&machine, &[("package-0/rest", 5)]);
        let (policy, learns, notes) = auto();
        assert_eq!((policy, learns), (IdlePolicy::Separate, true));
        for says in [
            "was learned",
            "2026-02-03",
            "1.3 % of CPU time busy",
            "learned-floor.json",
        ] {
            assert!(notes.contains(says), "{says} in {notes}");
        }
        let named = separate(&args, leaves(&["package-0/rest"], &[], None)).unwrap();
        assert_eq!(named.floors_mw["package-0/rest"], 5);
        // A calibration comes first, if it is one of these zones.
        let mut calibration = Calibration::new(machine.clone(), "2026-01-01".to_owned(), 60_000_000_000, 1);
        calibration.floors_mw = [("package-1/rest".to_owned(), 7)].into();
        calibration.store(&args.calibration).unwrap();
        let (_, learns, notes) = auto();
        assert!(learns && notes.contains("was learned"), "{notes}");
        assert!(
            notes.contains("calibration.json has no floor of package-0/rest"),
            "{notes}"
        );
        calibration.floors_mw = [("package-0/rest".to_owned(), 7)].into();
        calibration.store(&args.calibration).unwrap();
        let (policy, learns, notes) = auto();
        assert_eq!((policy, learns), (IdlePolicy::Separate, false));
        assert!(notes.contains("was measured on 2026-01-01"), "{notes}");
        // What was learned of another machine, or of other zones, is not used.
        fs::remove_file(&args.calibration).unwrap();
        let other = MachineId {
            machine_id: Some("another".to_owned()),
            cpu_model: Some("another".to_owned()),
        };
        learn(&other, &[("package-0/rest", 5)]);
        assert_eq!(auto().0, IdlePolicy::Proportional);
        learn(&machine, &[("package-1/rest", 5)]);
        let (policy, learns, notes) = auto();
        assert_eq!((policy, learns), (IdlePolicy::Proportional, true));
        assert!(notes.contains("calibration.json is not there"), "{notes}");
    }

    #[test]
    fn without_a_floor_the_next_step_is_named() {
        let other = [("package-1/rest", 5)];
        for (calibrated, leaves, why) in [
            (None, leaves(&["package-0/rest"], &[], None), "is not there"),
            (
                Some(&other[..]),
                leaves(&["package-0/rest"], &[], None),
                "has no floor of package-0/rest",
            ),
            (Some(&other[..]), leaves(&[], &["gpu-a"], None), "has no floor of a GPU"),
            (
                Some(&[("package-0/core", 1)]),
                leaves(&["package-0/whole"], &[], None),
                "has no floor of package-0/whole",
            ),
        ] {
            let (policy, floors_mw, notes) = chosen(calibrated, leaves);
            assert_eq!((policy, floors_mw), (IdlePolicy::Proportional, Vec::new()), "{notes}");
            assert!(notes.contains(why) && notes.contains("run `dlpm calibrate`"), "{notes}");
            assert_eq!(notes.lines().count(), 1, "{notes}");
        }
        let nothing = chosen(None, leaves(&[], &[], None));
        assert_eq!(nothing, (IdlePolicy::Proportional, Vec::new(), String::new()));
    }

    #[test]
    fn a_gpu_without_a_floor_does_not_take_that_of_the_others() {
        let calibrated = [("package-0/rest", 5), ("gpu-a", 7)];
        let (policy, _, notes) = chosen(
            Some(&calibrated),
            leaves(&["package-0/rest"], &["gpu-a", "gpu-b"], None),
        );
        assert_eq!(policy, IdlePolicy::Separate);
        assert!(notes.contains("no idle floor is known of gpu-b,"), "{notes}");
        let (policy, floors_mw, notes) = chosen(None, leaves(&[], &["gpu-a"], Some(9)));
        assert_eq!(
            (policy, floors_mw),
            (IdlePolicy::Separate, floors(&[("machine/rest", 9)]))
        );
        assert!(notes.contains("no idle floor is known of gpu-a,"), "{notes}");
    }
}
