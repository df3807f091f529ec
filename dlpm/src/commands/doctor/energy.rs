//! What `dlpm doctor` says of the meters: for each source whether it is there, whether it moves, what of it can be split
//! and what is wrong with it; the same for each zone; and which of them a trace uses.

use super::State;
use crate::{
    cli::Roots,
    commands::trace::idle,
    interval::{MeterSource, ZoneKind, ZoneReading},
    sources::{
        energy::{
            EnergyError,
            meter::{EnergySource, Survey},
        },
        topology::Topology,
    },
};

pub(super) fn add_energy(roots: &Roots, topology: &Topology, add: &mut impl FnMut(State, &str, String)) {
    let survey = Survey::of(&roots.sysfs, EnergySource::Auto, topology);
    let mut splits = false;
    for (name, found, readings) in [
        ("powercap", survey.powercap(), &survey.of_powercap),
        ("perf", survey.perf(), &survey.of_perf),
        ("hwmon", survey.hwmon(), &survey.of_hwmon),
    ] {
        splits |= add_source(name, found, readings, &survey, add);
    }
    add(
        State::Ok,
        "energy estimate",
        format!(
            "is available everywhere and splits the whole machine; used {}with `--estimate idle=W,busy=W`",
            if splits {
                "by `--energy-source estimate` "
            } else {
                "here "
            }
        ),
    );
    match survey.choose(None, topology) {
        Ok(mut found) => {
            let state = if splits { State::Ok } else { State::Missing };
            add(state, "energy of a trace", found.choice);
            for problem in found.problems {
                add(State::Missing, "energy of a trace", problem);
            }
            match idle::of_meter(&roots.procfs, &mut found.meter) {
                None => {}
                Some(Ok(known)) => add(State::Ok, "idle floor", known.note()),
                Some(Err(error)) => add(
                    State::Missing,
                    "idle floor",
                    format!(
                        "is not known ({}), so that idle energy goes to whoever runs: run `dlpm calibrate` while the machine \
                         is quiet; `dlpm agent` learns it in a quiet minute",
                        idle::why(&error)
                    ),
                ),
            }
        }
        Err(error) => add(State::Missing, "energy of a trace", error.to_string()),
    }
}

/// Whether it has anything that can be split by CPU time.
fn add_source(
    name: &str,
    found: Result<Vec<String>, &EnergyError>,
    readings: &[ZoneReading],
    survey: &Survey,
    add: &mut impl FnMut(State, &str, String),
) -> bool {
    let what = format!("energy {name}");
    let notes = match found {
        Ok(notes) => notes,
        Err(error) => {
            let found = if error.is_absent() {
                "not found"
            } else {
                "found, and cannot be read"
            };
            add(State::Missing, &what, format!("{found}: {error}"));
            return false;
        }
    };
    let names = |wanted: &dyn Fn(&&ZoneReading) -> bool| {
        let names: Vec<&str> = readings
            .iter()
            .filter(wanted)
            .map(|reading| reading.zone.as_str())
            .collect();
        if names.is_empty() {
            "nothing".to_owned()
        } else {
            names.join(", ")
        }
    };
    let is_split =
        |reading: &&ZoneReading| !matches!(reading.kind, ZoneKind::Psys | ZoneKind::Board | ZoneKind::SingleCore);
    let counts = |reading: &&ZoneReading| reading.energy_uj.is_ok();
    let splits = readings
        .iter()
        .any(|reading| is_split(&reading) && counts(&reading) && reading.kind != ZoneKind::Dram);
    let wrong = readings.iter().filter(|reading| !counts(reading)).count();
    add(
        if wrong == 0 && readings.iter().any(|reading| counts(&reading)) && (splits || name == "hwmon") {
            State::Ok
        } else {
            State::Missing
        },
        &what,
        format!(
            "found; counting: {}; can be split: {}{}",
            names(&counts),
            names(&|reading| is_split(reading) && counts(reading)),
            match wrong {
                0 => String::new(),
                _ => format!("; not believed: {}", names(&|reading| !counts(reading))),
            }
        ),
    );
    for reading in readings {
        let zone = format!("energy {name} zone");
        let (state, how) = match (&reading.energy_uj, reading.kind) {
            (Err(reason), _) => (State::Missing, reason.clone()),
            (Ok(_), ZoneKind::Psys | ZoneKind::Board) => (State::Ok, "counts; shown, and never split".to_owned()),
            (Ok(_), ZoneKind::SingleCore) => (State::Ok, "one core of the package; shown, and never split".to_owned()),
            (Ok(_), ZoneKind::Dram) => (State::Ok, "counts; split by memory".to_owned()),
            (Ok(_), ZoneKind::OneCore) => (State::Ok, "can be read; split by CPU time on that core".to_owned()),
            (Ok(_), ZoneKind::Uncore) => (State::Ok, "can be read; split by CPU time".to_owned()),
            (Ok(_), _) => (State::Ok, "counts; split by CPU time".to_owned()),
        };
        let meter = match reading.source {
            MeterSource::HwmonPower => "power in µW, integrated",
            MeterSource::Perf => "counter of 2⁻³² J",
            _ => "counter of µJ",
        };
        let meter = match survey.called(&reading.zone).filter(|_| name == "hwmon") {
            Some(called) => format!("{called}, {meter}"),
            None => meter.to_owned(),
        };
        let covers = covers(reading.kind);
        add(
            state,
            &zone,
            format!("{}: {how}; covers {covers}; {meter}", reading.zone),
        );
    }
    for note in notes {
        add(State::Ok, &format!("energy {name} note"), note);
    }
    splits
}

/// What a zone covers, in words.
fn covers(kind: ZoneKind) -> &'static str {
    match kind {
        ZoneKind::Package => "a CPU package, with its cores and its uncore",
        ZoneKind::Core => "the cores of a package",
        ZoneKind::OneCore => "one core, with its threads",
        ZoneKind::SingleCore => "one core of a package",
        ZoneKind::Uncore => "graphics and the like of a package",
        ZoneKind::Dram => "the memory of a package",
        ZoneKind::Psys => "the platform, with its packages",
        ZoneKind::Board => "what its name says, with or without the CPUs",
        ZoneKind::Machine => "the machine",
        ZoneKind::Gpu => "a GPU, with its memory and its board",
    }
}
