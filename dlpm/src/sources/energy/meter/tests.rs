use super::super::testing::*;
use super::*;

/// The kernel's software events stand for the PMU: they can be opened everywhere.
fn with_pmu(tree: Tree) -> Tree {
    tree.pmu(SOFTWARE_PMU, "0", &[("energy-pkg", 0)])
}

/// A zone whose counter cannot be read.
fn unreadable() -> Tree {
    let tree = Tree::new().zone("intel-rapl:0", "package-0", 0, RANGE);
    make_unreadable(&tree, "intel-rapl:0");
    tree
}

fn make_unreadable(tree: &Tree, id: &str) {
    let file = tree.class(id).join("energy_uj");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(file).unwrap();
}

fn psys_alone() -> Tree {
    Tree::new()
        .cpus(&[(0, 0, 0), (1, 0, 0)])
        .zone("intel-rapl:0", "psys", 10, RANGE)
}

const LAPTOP: [&str; 5] = [
    "intel-rapl:0",
    "intel-rapl:0:0",
    "intel-rapl:0:1",
    "intel-rapl:0:2",
    "intel-rapl:1",
];

fn watts() -> Option<Estimate> {
    Some("idle=20,busy=3".parse().unwrap())
}

fn find(tree: &Tree, wanted: EnergySource, estimate: Option<Estimate>) -> Result<Found, EnergyError> {
    find_meter(tree.path(), wanted, estimate, &Topology::read(tree.path()))
}

/// The sources in use, and everything that is said.
fn found(tree: &Tree, wanted: EnergySource, estimate: Option<Estimate>) -> (String, String) {
    match find(tree, wanted, estimate) {
        Ok(found) => {
            let words = [
                (found.meter.powercap.is_some(), "powercap"),
                (found.meter.perf.is_some(), "perf"),
                (found.meter.hwmon.is_some(), "hwmon"),
                (found.meter.estimate.is_some(), "estimate"),
            ];
            let words: Vec<&str> = words
                .into_iter()
                .filter(|(used, _)| *used)
                .map(|(_, word)| word)
                .collect();
            let says = [vec![found.choice], found.problems, found.ignored].concat();
            (words.join(" "), says.join("\n"))
        }
        Err(error) => ("error".to_owned(), error.to_string()),
    }
}

/// One CPU of package 0 that was busy for so long, and one that was idle.
fn cpus(busy_ns: u64) -> Vec<CpuInterval> {
    let cpu = |cpu, busy_ns| CpuInterval {
        cpu,
        package: Some(0),
        busy_ns,
        ..CpuInterval::default()
    };
    vec![cpu(0, busy_ns), cpu(1, 0)]
}

/// The zones of the next interval.
fn interval(meter: &mut Meter, tree: &Tree, number: u64, cpus: &[CpuInterval]) -> Vec<ZoneReading> {
    let topology = Topology::read(tree.path());
    let (begin_ns, end_ns) = (number * SECOND, (number + 1) * SECOND);
    let mut readings = meter.take(monotonic_ns());
    meter.judge(&mut readings, begin_ns, end_ns, cpus, &topology);
    readings
}

#[test]
fn auto_takes_the_first_that_can_be_split_and_says_which() {
    if !perf_allowed() {
        return;
    }
    use EnergySource::Auto;
    for (tree, moves, estimate, words, says) in [
        (with_pmu(laptop()), true, None, "powercap", "powercap zones"),
        (with_pmu(laptop()), true, watts(), "powercap", "--estimate is not used"),
        (with_pmu(Tree::new()), true, None, "perf", "there are no powercap zones"),
        (with_pmu(Tree::new()), true, watts(), "perf", "--estimate is not used"),
        (
            with_pmu(unreadable()),
            true,
            None,
            "perf",
            "powercap zones cannot be read",
        ),
        (
            with_pmu(laptop()),
            false,
            None,
            "powercap perf",
            "powercap zones cannot be split",
        ),
        (Tree::new(), true, watts(), "estimate", "is an estimate"),
        (Tree::new(), true, None, "", "--estimate"),
        (
            laptop(),
            false,
            watts(),
            "powercap estimate",
            "package-0 (powercap): it counted nothing",
        ),
        (laptop(), false, None, "powercap", "--estimate idle=W,busy=W"),
        (unreadable(), true, None, "error", "run dlpm as root"),
        (unreadable(), true, watts(), "estimate", "run dlpm as root"),
        (
            Tree::new().pmu(4_000_000, "0", &[("energy-pkg", 2)]),
            true,
            None,
            "error",
            "CAP_PERFMON",
        ),
    ] {
        let ids: Vec<&str> = LAPTOP.into_iter().filter(|id| tree.class(id).exists()).collect();
        let _moving = moves.then(|| tree.moving(&ids));
        let (used, text) = found(&tree, Auto, estimate);
        assert_eq!(used, words, "{text}");
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn what_is_asked_for_is_used_or_is_an_error_with_the_next_step() {
    if !perf_allowed() {
        return;
    }
    use EnergySource::{Estimate, Perf, Powercap};
    for (tree, wanted, estimate, words, says) in [
        (with_pmu(laptop()), Powercap, None, "powercap", ""),
        (with_pmu(laptop()), Perf, None, "perf", ""),
        (with_pmu(laptop()), Estimate, watts(), "estimate", "is an estimate"),
        (laptop(), Perf, watts(), "error", "--energy-source auto"),
        (with_pmu(Tree::new()), Powercap, watts(), "error", "intel_rapl_msr"),
        (laptop(), Estimate, None, "error", "--estimate idle=W,busy=W"),
        (psys_alone(), Powercap, None, "error", "no energy that can be split"),
        (
            psys_alone(),
            Powercap,
            watts(),
            "powercap estimate",
            "powercap was asked for",
        ),
        (
            Tree::new().pmu(SOFTWARE_PMU, "0", &[("energy-psys", 0)]),
            Perf,
            None,
            "error",
            "perf has no energy that can be split",
        ),
    ] {
        let ids: Vec<&str> = LAPTOP.into_iter().filter(|id| tree.class(id).exists()).collect();
        let _moving = tree.moving(&ids);
        let (used, text) = found(&tree, wanted, estimate);
        assert_eq!(used, words, "{text}");
        assert!(text.contains(says), "{text}");
    }
}

/// The first command of the README: the kernel exposes an event of the platform that always reads 0.
#[test]
fn a_dead_platform_zone_hides_nothing_and_is_not_shown() {
    if !perf_allowed() {
        return;
    }
    let dead = |tree: Tree| tree.pmu(SOFTWARE_PMU, "0", &[("energy-psys", DUMMY)]);
    let tree = dead(Tree::new().cpus(&[(0, 0, 0), (1, 0, 0)]));
    let mut meters = find(&tree, EnergySource::Auto, watts()).unwrap();
    assert!(
        meters.choice.contains("every figure of energy is an estimate"),
        "{}",
        meters.choice
    );
    assert!(
        meters.problems.join(" ").contains("psys (perf): it counted nothing"),
        "{:?}",
        meters.problems
    );
    let readings = interval(&mut meters.meter, &tree, 0, &cpus(SECOND));
    assert_eq!(energies(&readings), [("machine", Some(23_000_000))]);
    // Beside powercap's zones.
    let tree = dead(two_sockets());
    let moving = tree.moving(&["intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1", "intel-rapl:1:0"]);
    let mut meters = find(&tree, EnergySource::Auto, None).unwrap();
    drop(moving);
    let readings = interval(&mut meters.meter, &tree, 0, &cpus(0));
    let names: Vec<&str> = readings.iter().map(|reading| reading.zone.as_str()).collect();
    assert_eq!(names, ["package-0", "dram-0", "package-1", "dram-1"]);
}

#[test]
fn the_platform_is_shown_beside_any_source() {
    if !perf_allowed() {
        return;
    }
    for (tree, estimate, expected) in [
        (with_pmu(psys_alone()), None, vec!["package-0", "psys"]),
        (psys_alone(), watts(), vec!["psys", "machine"]),
        (psys_alone(), None, vec!["psys"]),
        (
            Tree::new()
                .zone("intel-rapl:0", "package-0", 0, RANGE)
                .pmu(SOFTWARE_PMU, "0", &[("energy-psys", 0)]),
            None,
            vec!["package-0", "psys"],
        ),
    ] {
        let _moving = tree.moving(&["intel-rapl:0"]);
        let mut meters = find(&tree, EnergySource::Auto, estimate).unwrap();
        let readings = interval(&mut meters.meter, &tree, 0, &cpus(SECOND));
        let names: Vec<&str> = readings.iter().map(|reading| reading.zone.as_str()).collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn a_platform_zone_that_wakes_is_shown_from_then_on() {
    let tree = psys_alone();
    let mut meter = find(&tree, EnergySource::Auto, watts()).unwrap().meter;
    let cpus = cpus(SECOND);
    assert_eq!(interval(&mut meter, &tree, 0, &cpus).len(), 1);
    tree.set("intel-rapl:0", 4_000);
    let readings = interval(&mut meter, &tree, 1, &cpus);
    assert!(reason(&readings, "psys").contains("began to count"), "{readings:?}");
    tree.set("intel-rapl:0", 4_700);
    assert_eq!(energies(&interval(&mut meter, &tree, 2, &cpus))[0], ("psys", Some(700)));
}

#[test]
fn one_dead_socket_of_two_is_invalid_and_the_other_goes_on() {
    let tree = two_sockets();
    let moving = tree.moving(&["intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1:0"]);
    let mut found = find(&tree, EnergySource::Auto, watts()).unwrap();
    drop(moving);
    assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
    assert!(found.problems[0].starts_with("package-1 (powercap): it counted nothing"));
    let readings = interval(&mut found.meter, &tree, 0, &cpus(0));
    assert!(readings[0].energy_uj.is_ok(), "{readings:?}");
    assert!(reason(&readings, "package-1").contains("it counted nothing"));
    // It wakes: what it counted first began nobody knows when.
    tree.set("intel-rapl:1", 9_000_000);
    let readings = interval(&mut found.meter, &tree, 1, &cpus(0));
    assert!(reason(&readings, "package-1").contains("began to count"));
    tree.set("intel-rapl:1", 9_000_500);
    assert_eq!(
        energies(&interval(&mut found.meter, &tree, 2, &cpus(0)))[2],
        ("package-1", Some(500))
    );
}

#[test]
fn a_dead_die_makes_its_package_invalid() {
    let tree = cascade_lake_ap();
    let moving = tree.moving(&["intel-rapl:0", "intel-rapl:2", "intel-rapl:3", "intel-rapl:3:0"]);
    let mut found = find(&tree, EnergySource::Auto, None).unwrap();
    drop(moving);
    let readings = interval(&mut found.meter, &tree, 0, &cpus(0));
    assert!(
        reason(&readings, "package-0").starts_with("intel-rapl:1: it counted nothing"),
        "{readings:?}"
    );
    assert!(readings[2].energy_uj.is_ok(), "{readings:?}");
}

#[test]
fn dead_cores_and_dead_memory_are_not_believed() {
    let tree = laptop();
    let moving = tree.moving(&["intel-rapl:0", "intel-rapl:1"]);
    let mut found = find(&tree, EnergySource::Auto, None).unwrap();
    drop(moving);
    let readings = interval(&mut found.meter, &tree, 0, &cpus(0));
    for zone in ["package-0/core", "dram-0"] {
        assert!(reason(&readings, zone).contains("it counted nothing"), "{readings:?}");
    }
    // Graphics may rest.
    assert_eq!(energies(&readings)[2], ("package-0/uncore", Some(0)));
}

#[test]
fn the_twin_of_a_dead_or_unreadable_zone_takes_over() {
    for dead in [true, false] {
        let tree = laptop_with_mmio();
        if !dead {
            make_unreadable(&tree, "intel-rapl:0");
        }
        let moving = tree.moving(&["intel-rapl-mmio:0", "intel-rapl:0:0", "intel-rapl:1"]);
        let mut found = find(&tree, EnergySource::Auto, watts()).unwrap();
        drop(moving);
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        let notes = found.ignored.join("\n");
        assert!(
            notes.contains("intel-rapl-mmio:0 has the same name and is read in its place"),
            "{notes}"
        );
        let uj: u64 = std::fs::read_to_string(tree.class("intel-rapl-mmio:0").join("energy_uj"))
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let _ = interval(&mut found.meter, &tree, 0, &cpus(0));
        tree.set("intel-rapl-mmio:0", uj + 1_000);
        let readings = interval(&mut found.meter, &tree, 1, &cpus(0));
        assert_eq!(energies(&readings)[0], ("package-0", Some(1_000)));
    }
}

#[test]
fn a_twin_takes_over_from_a_zone_that_fails_or_stops_during_the_trace() {
    for fails in [true, false] {
        let tree = laptop_with_mmio();
        let moving = tree.moving(&["intel-rapl-mmio:0", "intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"]);
        let mut meter = find(&tree, EnergySource::Auto, None).unwrap().meter;
        drop(moving);
        let _ = interval(&mut meter, &tree, 0, &cpus(0));
        if fails {
            make_unreadable(&tree, "intel-rapl:0");
        }
        let mut twin_uj = 5_000_000;
        let mut states = Vec::new();
        for number in 1..8 {
            twin_uj += 300;
            tree.set("intel-rapl-mmio:0", twin_uj);
            let readings = interval(&mut meter, &tree, number, &cpus(SECOND));
            states.push(readings[0].energy_uj.clone().ok());
        }
        // The interval in which it failed, and those in which the twin has no reading at its beginning.
        let lost = states.iter().take_while(|state| state.is_none()).count();
        assert!((1..=3).contains(&lost), "{states:?}");
        assert!(states[lost..].iter().all(|state| *state == Some(300)), "{states:?}");
    }
}

#[test]
fn perf_takes_over_for_a_package_that_powercap_does_not_measure() {
    if !perf_allowed() {
        return;
    }
    // Package 1 has no CPU here that could be read, so package 0 is the dead one.
    let tree = two_sockets().pmu(SOFTWARE_PMU, "0", &[("energy-pkg", 0)]);
    let _moving = tree.moving(&["intel-rapl:1", "intel-rapl:1:0"]);
    let mut found = find(&tree, EnergySource::Auto, None).unwrap();
    let readings = interval(&mut found.meter, &tree, 0, &cpus(0));
    let sources: Vec<_> = readings
        .iter()
        .map(|reading| (reading.zone.as_str(), reading.source))
        .collect();
    assert_eq!(
        sources,
        [
            ("package-1", MeterSource::Powercap),
            ("dram-1", MeterSource::Powercap),
            ("package-0", MeterSource::Perf)
        ]
    );
    assert!(found.choice.contains("for package 0"), "{}", found.choice);
}

#[test]
fn a_package_without_a_zone_is_a_zone_that_is_not_known() {
    let tree = Tree::new()
        .cpus(&[(0, 0, 0), (1, 0, 0), (2, 1, 0), (3, 1, 0)])
        .zone("intel-rapl:0", "package-0", 5, RANGE)
        .zone("intel-rapl:1", "psys", 5, RANGE);
    let moving = tree.moving(&["intel-rapl:0", "intel-rapl:1"]);
    let mut found = find(&tree, EnergySource::Auto, None).unwrap();
    drop(moving);
    assert!(
        found.problems[0].starts_with("CPUs 2-3 are in package 1, which has no energy zone"),
        "{:?}",
        found.problems
    );
    let mut cpus = cpus(SECOND);
    cpus.push(CpuInterval {
        cpu: 3,
        package: Some(1),
        ..CpuInterval::default()
    });
    let readings = interval(&mut found.meter, &tree, 0, &cpus);
    let names: Vec<&str> = readings.iter().map(|reading| reading.zone.as_str()).collect();
    assert_eq!(names, ["package-0", "package-1", "psys"]);
    assert!(
        reason(&readings, "package-1").starts_with("CPU 3 is in package 1"),
        "{readings:?}"
    );
}

/// The zones of a meter, with who reads each.
fn zones(found: &mut Found) -> Vec<String> {
    let readings = found.meter.take(monotonic_ns());
    let named = |reading: &ZoneReading| format!("{} {}", reading.zone, reading.source.as_str());
    readings.iter().map(named).collect()
}

#[test]
fn a_machine_whose_only_meters_are_monitors_is_measured_by_them() {
    let tree = grace();
    let mut grace = find(&tree, EnergySource::Auto, watts()).unwrap();
    assert_eq!(
        grace.choice,
        "energy is measured: the kernel's hardware monitors (hwmon); there are no powercap zones"
    );
    assert_eq!(
        zones(&mut grace)[..2],
        ["package-0 hwmon_power", "package-1 hwmon_power"]
    );
    assert_eq!(zones(&mut grace).len(), 8);
    assert!(grace.problems.is_empty(), "{:?}", grace.problems);
    let busy = cpus(SECOND);
    assert!(
        interval(&mut grace.meter, &tree, 1, &busy)
            .iter()
            .all(|zone| zone.energy_uj.is_ok())
    );
    let error = find(&laptop(), EnergySource::Hwmon, None).unwrap_err();
    assert!(error.to_string().contains("no hardware monitor"), "{error}");
    let error = find(&grace_without_cpus(), EnergySource::Hwmon, None).unwrap_err();
    assert!(
        matches!(error, EnergyError::CannotSplit { wanted: "hwmon", .. }),
        "{error}"
    );
}

/// A board alone.
fn grace_without_cpus() -> Tree {
    let files = [
        ("power1_average", "200000000"),
        ("power1_oem_info", "Module Power Socket 0"),
    ];
    Tree::new().chip("hwmon0", "power_meter", &files)
}

#[test]
fn the_same_watt_is_never_counted_by_two_sources() {
    let tree = ryzen()
        .chip(
            "hwmon0",
            "amd_energy",
            &[("energy1_input", "5"), ("energy1_label", "Esocket0")],
        )
        .chip("hwmon1", "power_meter", &[("power1_average", "90000000")]);
    let _moving = tree.moving(&["intel-rapl:0"]);
    let mut both = find(&tree, EnergySource::Auto, None).unwrap();
    assert_eq!(
        zones(&mut both),
        [
            "package-0 powercap",
            "package-0/single-core powercap",
            "acpi-meter hwmon_power"
        ]
    );
    let said = both.ignored.join("\n");
    assert!(
        said.contains("hwmon0 (amd_energy) energy1 `Esocket0` is not counted: powercap counts package 0 already"),
        "{said}"
    );
    assert!(both.problems.is_empty(), "{:?}", both.problems);
    // The driver's counter does not move here, so nothing is split.
    let alone = find(&tree, EnergySource::Hwmon, watts()).unwrap();
    assert!(
        alone
            .choice
            .starts_with("hwmon was asked for and has nothing that can be split"),
        "{}",
        alone.choice
    );
    assert!(
        alone.choice.ends_with("shown in addition: acpi-meter"),
        "{}",
        alone.choice
    );
}

#[test]
fn a_board_alone_is_shown_and_nothing_is_split() {
    let mut board = find(&grace_without_cpus(), EnergySource::Auto, None).unwrap();
    assert_eq!(zones(&mut board), ["module-0 hwmon_power"]);
    assert!(
        board.choice.contains("module-0 alone, and nothing of it is split"),
        "{}",
        board.choice
    );
    assert!(board.problems[0].contains("--estimate"), "{:?}", board.problems);
}
