//! Cores with energy zones of their own: who ran on which.

use super::{
    ledger::{Method, RowKey},
    *,
};
use crate::interval::{CpuInterval, Identity, MeterSource, Process, ProcessId, Usage, ZoneKind, ZoneReading};

const SECOND: u64 = 1_000_000_000;

fn id(tgid: u32) -> ProcessId {
    ProcessId { tgid, start_ns: 5 }
}

fn zone(zone: &str, kind: ZoneKind, energy_uj: Result<u64, &str>) -> ZoneReading {
    ZoneReading {
        zone: zone.to_owned(),
        kind,
        package: Some(0),
        energy_uj: energy_uj.map_err(str::to_owned),
        counter_uj: None,
        range_uj: None,
        source: MeterSource::Perf,
    }
}

/// A second of a package with two cores of two threads each: CPUs 0 and 2 are core 0, CPUs 1 and 3 are core 7.
fn interval(ran: &[(u32, u32, u64)], zones: Vec<ZoneReading>) -> Interval {
    let busy_ns = |cpu| ran.iter().filter(|ran| ran.1 == cpu).map(|ran| ran.2).sum();
    let cpu = |cpu| CpuInterval {
        cpu,
        package: Some(0),
        core: Some(if cpu % 2 == 0 { 0 } else { 7 }),
        begin_ns: 0,
        end_ns: SECOND,
        busy_ns: busy_ns(cpu),
        idle_ns: SECOND - busy_ns(cpu),
        ..CpuInterval::default()
    };
    let usage = |&(tgid, cpu, ns): &(u32, u32, u64)| Usage {
        process: id(tgid),
        cgroup_id: u64::from(tgid),
        cpu,
        ns,
        shared_ns: 0,
        counts: crate::interval::Counts::default(),
    };
    let process = |&(tgid, ..): &(u32, u32, u64)| {
        let process = Process {
            uid: Some(tgid),
            ..Process::default()
        };
        (id(tgid), process.into())
    };
    Interval {
        end_ns: SECOND,
        cpus: (0..4).map(cpu).collect(),
        usage: ran.iter().map(usage).collect(),
        processes: ran.iter().map(process).collect(),
        cgroups: ran
            .iter()
            .map(|ran| (u64::from(ran.0), format!("/{}", ran.0)))
            .collect(),
        zones,
        ..Interval::default()
    }
}

/// Core 0 draws 18 W, core 7 draws 2 W, and the package 30 W.
fn unequal() -> Vec<ZoneReading> {
    vec![
        zone("package-0", ZoneKind::Package, Ok(30_000_000)),
        zone("package-0/core-0", ZoneKind::OneCore, Ok(18_000_000)),
        zone("package-0/core-7", ZoneKind::OneCore, Ok(2_000_000)),
    ]
}

fn names(ledger: &Ledger) -> Vec<&str> {
    ledger.leaves.iter().map(|leaf| leaf.zone.as_str()).collect()
}

fn of(ledger: &Ledger, tgid: u32) -> &[u64] {
    let own = |row: &&Row| matches!(&row.key, RowKey::Process(process, _) if *process == id(tgid));
    &ledger.rows.iter().find(own).unwrap().energy_uj
}

fn of_fixed(ledger: &Ledger, key: RowKey) -> &[u64] {
    &ledger.rows.iter().find(|row| row.key == key).unwrap().energy_uj
}

/// The example of `docs/energy-meters.md`: with equal CPU time, one process used nine times the energy of the other.
#[test]
fn two_tenants_on_two_cores_get_exactly_the_energy_of_their_own() {
    let ran = [(1, 0, SECOND), (2, 1, SECOND)];
    let ledger = attribute(&interval(&ran, unequal()), &Options::default(), &Carries::default());
    assert_eq!(
        names(&ledger),
        ["package-0/core-0", "package-0/core-7", "package-0/rest"]
    );
    assert!(ledger.leaves.iter().all(|leaf| leaf.method == Method::CpuTime));
    assert_eq!(of(&ledger, 1), [18_000_000, 0, 5_000_000]);
    assert_eq!(of(&ledger, 2), [0, 2_000_000, 5_000_000]);
    // CPU time alone says 15 J each.
    let by_time = attribute(
        &interval(&ran, unequal()[..1].to_vec()),
        &Options::default(),
        &Carries::default(),
    );
    assert_eq!(
        (of(&by_time, 1), of(&by_time, 2)),
        (&[15_000_000][..], &[15_000_000][..])
    );
}

#[test]
fn threads_of_one_core_share_it_by_time_and_a_process_can_be_on_several() {
    let ran = [(1, 0, SECOND / 2), (2, 2, SECOND), (2, 1, SECOND / 4)];
    let ledger = attribute(&interval(&ran, unequal()), &Options::default(), &Carries::default());
    assert_eq!(of(&ledger, 1)[..2], [6_000_000, 0]);
    assert_eq!(of(&ledger, 2)[..2], [12_000_000, 2_000_000]);
    let capacity = Options {
        idle_policy: IdlePolicy::Capacity,
        ..Options::default()
    };
    let ledger = attribute(&interval(&ran, unequal()), &capacity, &Carries::default());
    // Of the 2 s of core 0, 1.5 s; of those of core 7, 0.25 s.
    assert_eq!(of(&ledger, 1)[0], 4_500_000);
    assert_eq!(of_fixed(&ledger, RowKey::Idle)[..2], [4_500_000, 1_750_000]);
}

#[test]
fn the_energy_of_a_core_that_nobody_ran_on_is_idle_and_its_floor_its_own() {
    let ran = [(1, 0, SECOND)];
    let ledger = attribute(&interval(&ran, unequal()), &Options::default(), &Carries::default());
    assert_eq!(of_fixed(&ledger, RowKey::Idle), [0, 2_000_000, 0]);
    let separate = Options {
        idle_policy: IdlePolicy::Separate,
        idle_floors_mw: [
            ("package-0/core-0", 500),
            ("package-0/core-7", 400),
            ("package-0/rest", 3_000),
        ]
        .map(|(zone, mw)| (zone.to_owned(), mw))
        .into(),
        ..Options::default()
    };
    let ledger = attribute(&interval(&ran, unequal()), &separate, &Carries::default());
    assert_eq!(of(&ledger, 1), [17_500_000, 0, 7_000_000]);
    assert_eq!(of_fixed(&ledger, RowKey::Idle), [500_000, 2_000_000, 3_000_000]);
}

#[test]
fn cores_that_count_more_than_their_package_or_are_not_known_make_it_one_leaf() {
    let ran = [(1, 0, SECOND), (2, 1, SECOND)];
    let mut zones = unequal();
    zones[1].energy_uj = Ok(60_000_000);
    let ledger = attribute(&interval(&ran, zones), &Options::default(), &Carries::default());
    assert_eq!(names(&ledger), ["package-0/whole"]);
    assert!(ledger.roots[0].parts_outside);
    let mut zones = unequal();
    zones[2].energy_uj = Err("CPU 1 is gone".to_owned());
    let ledger = attribute(&interval(&ran, zones), &Options::default(), &Carries::default());
    assert_eq!(names(&ledger), ["package-0/whole"]);
    assert!(
        ledger.roots[0]
            .one_leaf
            .as_ref()
            .unwrap()
            .contains("core-7 is not known")
    );
}

#[test]
fn one_user_and_two_intervals_as_one_see_the_same() {
    let ran = [(1, 0, SECOND / 2), (2, 2, SECOND), (2, 1, SECOND / 4)];
    let whole = interval(&ran, unequal());
    let seen = attribute(&whole.seen_by(2), &Options::default(), &Carries::default());
    let all = attribute(&whole, &Options::default(), &Carries::default());
    assert_eq!(of(&seen, 2), of(&all, 2));
    let mut next = whole.clone();
    (next.seq, next.begin_ns, next.end_ns) = (1, SECOND, 2 * SECOND);
    for cpu in &mut next.cpus {
        (cpu.begin_ns, cpu.end_ns) = (SECOND, 2 * SECOND);
    }
    let twice = attribute(
        &whole.followed_by(&next).unwrap(),
        &Options::default(),
        &Carries::default(),
    );
    let double = |energy_uj: &[u64]| energy_uj.iter().map(|uj| 2 * uj).collect::<Vec<_>>();
    assert_eq!(of(&twice, 1), double(of(&all, 1)));
}

#[test]
fn a_line_has_what_a_core_needs_and_gives_it_back() {
    let ran = [(1, 0, SECOND), (2, 1, SECOND)];
    let ledger = attribute(&interval(&ran, unequal()), &Options::default(), &Carries::default());
    let line = serde_json::to_value(crate::log::exact::Exact::of(&ledger, Identity::StartTime)).unwrap();
    let row = &line["rows"][0];
    assert_eq!(
        row["by_core"],
        serde_json::json!({"0/0": {"cpu_ns": SECOND, "smt_shared_ns": 0}})
    );
    assert_eq!(
        row["energy_uj"],
        serde_json::json!({"package-0/core-0": 18_000_000, "package-0/rest": 5_000_000}),
        "of a core where it was not, a row has no entry"
    );
    assert_eq!(line["cpus"][1]["core"], 7);
    let read = crate::log::exact::Exact::read(&line).unwrap();
    let again = read.ledger(ledger.end_unix_ns).unwrap();
    assert_eq!(again.rows, ledger.rows);
    assert_eq!(crate::verify::laws::check(&read, &again), [""; 0]);
    // A row that says it was elsewhere.
    let mut wrong = line.clone();
    wrong["rows"][0]["by_core"] = serde_json::json!({"0/7": {"cpu_ns": SECOND, "smt_shared_ns": 0}});
    let read = crate::log::exact::Exact::read(&wrong).unwrap();
    let failures = crate::verify::laws::check(&read, &read.ledger(0).unwrap()).join("\n");
    assert!(
        failures.contains("on core 0 of package 0 against its CPUs"),
        "{failures}"
    );
    wrong["rows"][0]["by_core"] = serde_json::json!({"0/x": {"cpu_ns": SECOND, "smt_shared_ns": 0}});
    assert!(crate::log::exact::Exact::read(&wrong).is_err());
}
