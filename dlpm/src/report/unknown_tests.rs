//! Energy that is not known is unknown in every output, and never 0.

use std::fs;

use jiff::tz::TimeZone;
use serde_json::Value;

use super::{
    tables::Tables,
    tests::{collected, log_of},
    text::Text,
};
use crate::{
    attribution::{Options, attribute, energy_tree::Carries, ledger::Ledger},
    interval::{MeterSource, ZoneKind, ZoneReading},
    log::{names::LOG_NAME, window::Window},
    report::{collect::Collected, facts},
    report_html,
    sinks::testing::{all_zones, interval, zone},
    tables::{Depth, phases::Inferences, record},
};

/// A log in whose intervals these zones are lost, one list for each.
fn log(lost: &[&[&str]], zones: &[ZoneReading]) -> String {
    let mut carries = Carries::default();
    let ledgers: Vec<Ledger> = (0..)
        .zip(lost)
        .map(|(seq, lost)| {
            let mut zones = zones.to_vec();
            for zone in zones.iter_mut().filter(|zone| lost.contains(&zone.zone.as_str())) {
                zone.energy_uj = Err("it was lost".to_owned());
            }
            let mut interval = interval(seq, zones);
            if seq > 0 {
                // bash runs in the first interval only.
                interval.usage.retain(|usage| usage.process.tgid != 200);
            }
            let ledger = attribute(&interval, &Options::default(), &carries);
            carries = carries.after(&ledger);
            ledger
        })
        .collect();
    log_of(&ledgers, |_| String::new())
}

fn read(log: &str) -> Collected {
    collected(log, &Window::default()).unwrap()
}

/// What is printed of a log: tables, and the report's head.
fn text(collected: &Collected) -> String {
    let tables = tables(collected);
    let text = Text {
        collected,
        tables,
        width: 200,
        listed: None,
        timezone: &TimeZone::UTC,
        model: None,
        carbon: Some(facts::Carbon {
            grams_per_kwh: Some(400.0),
            pue: 1.0,
        }),
        targets: &[],
    };
    [
        text.head(),
        [
            tables.zones(),
            tables.processes(),
            tables.cgroups(),
            tables.comms(),
            tables.gpus(),
            tables.phases(true),
        ]
        .map(|table| table.text(200))
        .concat(),
        text.notes(),
    ]
    .concat()
}

fn json(collected: &Collected) -> Value {
    let tables = tables(collected);
    let record = facts::overview(collected, &TimeZone::UTC)
        .with("zones", tables.zones().records().into_iter().collect::<record::Cell>())
        .with(
            "processes",
            tables.processes().records().into_iter().collect::<record::Cell>(),
        )
        .with("comms", tables.comms().records().into_iter().collect::<record::Cell>());
    serde_json::to_value(&record).unwrap()
}

fn tables(collected: &Collected) -> Tables<'_> {
    Tables {
        collected,
        depth: Depth::ALL,
        inferences: Some(Inferences {
            count: 10,
            mult_adds: None,
        }),
    }
}

fn html(log: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(LOG_NAME), log).unwrap();
    report_html::render(folder.path(), &report_html::Options::default()).unwrap()
}

fn machine() -> Vec<ZoneReading> {
    vec![ZoneReading {
        source: MeterSource::Estimate,
        ..zone("machine", ZoneKind::Machine, Ok(15_000_000))
    }]
}

#[test]
fn where_nothing_is_known_no_figure_of_energy_is_a_number() {
    let package = all_zones();
    for (zones, lost) in [
        (&package[..1], &["package-0"][..]),
        (&package[..2], &["package-0", "package-0/core"]),
        (
            &package[..],
            &["package-0", "package-0/core", "package-0/uncore", "dram-0", "psys"],
        ),
        (&package[3..4], &["dram-0"]),
        (&machine(), &["machine"]),
    ] {
        let log = log(&[lost; 3], zones);
        let collected = read(&log);
        let text = text(&collected);
        let case = format!("{lost:?}\n{text}");
        assert!(collected.totals.energy().is_none(), "{case}");
        assert!(text.contains("unknown") && !text.contains("0.000 J"), "{case}");
        assert!(!text.contains("kWh") && !text.contains("balance closes"), "{case}");
        let figures = text
            .lines()
            .filter(|line| lost.iter().any(|zone| line.starts_with(zone)));
        for line in figures {
            assert!(!line.contains("0.000") && line.contains("0/3"), "{line}\n{case}");
        }
        for name in ["python3", "(idle)", "(kernel)"] {
            let line = text.lines().find(|line| line.contains(name)).unwrap();
            assert!(line.contains("unknown"), "{line}");
        }

        let json = json(&collected);
        for field in [
            "energy_uj",
            "joules",
            "kwh",
            "average_w",
            "peak_w",
            "listed_uj",
            "listed_joules",
            "closes",
            "difference_uj",
        ] {
            assert!(json["energy"][field].is_null(), "{field}: {}", json["energy"]);
        }
        for record in ["zones", "processes", "comms"]
            .iter()
            .flat_map(|table| json[table].as_array().unwrap())
        {
            for field in ["energy_uj", "joules", "average_w", "peak_w"] {
                assert!(record[field].is_null(), "{field}: {record}");
            }
        }
        let csv = record::csv(&tables(&collected).processes().records()).unwrap();
        let joules = csv
            .lines()
            .next()
            .unwrap()
            .split(',')
            .position(|name| name == "joules")
            .unwrap();
        for line in csv.lines().skip(1) {
            assert_eq!(line.split(',').nth(joules), Some(""), "{line}");
        }

        let html = html(&log);
        assert!(html.contains("unknown"), "{case}");
        assert!(!html.contains("0.000 J") && !html.contains("0.000 W"), "{case}");
    }
}

#[test]
fn what_ran_while_nothing_was_known_is_unknown_beside_what_is_known() {
    // bash ran in the first interval only, when the package was lost.
    let zones = &all_zones()[..1];
    let collected = read(&log(&[&["package-0"], &[], &[]], zones));
    let text = text(&collected);
    let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(line("bash").contains("unknown"), "{text}");
    assert!(!line("python3").contains("unknown"), "{text}");
    assert!(line("package-0 ").contains("2/3"), "{text}");
    assert!(
        text.contains("package-0 is not known in 1 of 3 intervals: it was lost"),
        "{text}"
    );
    assert!(
        text.contains("In 1 of 3 intervals a part of the energy is not known"),
        "{text}"
    );
    // 80 J in the two seconds in which they are known.
    let json = json(&collected);
    assert_eq!(
        (&json["energy"]["joules"], &json["energy"]["average_w"]),
        (&80.0.into(), &40.0.into())
    );
    assert_eq!(json["energy"]["unknown_intervals"], 1);
    let processes = json["processes"].as_array().unwrap();
    let bash = processes.iter().find(|process| process["comm"] == "bash").unwrap();
    assert!(bash["joules"].is_null() && bash["unknown_intervals"] == 1, "{bash}");
}

#[test]
fn one_kind_of_energy_can_be_unknown_beside_another() {
    let all = all_zones();
    for (lost, unknown, known) in [
        (&["dram-0"][..], "dram_uj", "cpu_uj"),
        (
            &["package-0", "package-0/core", "package-0/uncore"],
            "cpu_uj",
            "dram_uj",
        ),
    ] {
        let json = json(&read(&log(&[lost; 2], &all)));
        let python = json["processes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|process| process["comm"] == "python3");
        let python = python.unwrap();
        assert!(
            python[unknown].is_null() && python[known].is_u64() && python["energy_uj"].is_u64(),
            "{python}"
        );
    }
    // A core is known without its package: it is split, and the rest is unknown.
    let json = json(&read(&log(&[&["package-0"][..]; 2], &all[..2])));
    let of = |zone: &str| {
        let zones = json["zones"].as_array().unwrap();
        zones.iter().find(|found| found["zone"] == zone).unwrap()["joules"].clone()
    };
    assert_eq!((of("package-0/core"), of("package-0/rest")), (40.0.into(), Value::Null));
}

#[test]
fn a_package_that_is_one_leaf_says_so() {
    let collected = read(&log(
        &[&[], &["package-0/core"], &["package-0/core"]],
        &all_zones()[..2],
    ));
    let text = text(&collected);
    assert!(
        text.contains("package-0 is split as one leaf in 2 of 3 intervals: package-0/core is not known: it was lost"),
        "{text}"
    );
    let whole = text.lines().find(|line| line.starts_with("package-0/whole")).unwrap();
    assert!(whole.contains("2/3") && whole.contains("80.000"), "{whole}");
    let json = json(&collected);
    assert_eq!(json["energy"]["joules"], 120.0);
    assert_eq!(json["energy"]["closes"], true);
}

#[test]
fn a_log_without_a_meter_has_no_unknown_energy() {
    let text = text(&read(&log(&[&[], &[]], &[])));
    assert!(
        text.contains("there was no meter to split") && !text.contains("unknown"),
        "{text}"
    );
}
