use super::super::testing::*;
use super::*;
use std::{fs, thread, time::Duration};

/// A PMU number that no kernel gives out.
const NO_PMU: u32 = 4_000_000;

fn shape(perf: &Perf) -> Vec<(String, u64, Vec<u32>)> {
    perf.zones
        .iter()
        .map(|zone| {
            (
                zone.name(),
                zone.event.config,
                zone.cpus.iter().map(|one| one.cpu).collect(),
            )
        })
        .collect()
}

fn zone(name: &str, config: u64, cpus: &[u32]) -> (String, u64, Vec<u32>) {
    (name.to_owned(), config, cpus.to_vec())
}

const CLIENT: [(&str, u64); 5] = [
    ("energy-cores", 1),
    ("energy-pkg", 2),
    ("energy-ram", 3),
    ("energy-gpu", 4),
    ("energy-psys", 5),
];

#[test]
fn events_of_client_intel() {
    let tree = laptop().pmu(NO_PMU, "0", &CLIENT);
    let perf = Perf::find(tree.path()).unwrap();
    assert_eq!(
        shape(&perf),
        [
            zone("package-0", 2, &[0]),
            zone("package-0/core", 1, &[0]),
            zone("package-0/uncore", 4, &[0]),
            zone("dram-0", 3, &[0]),
            zone("psys", 5, &[0]),
        ]
    );
    assert!(perf.ignored().is_empty(), "{:?}", perf.ignored());
    assert_eq!(perf.zones[0].event.pmu, NO_PMU);
    assert_eq!(perf.zones[0].scale, Scale::parse(RAPL_SCALE).unwrap());
}

#[test]
fn each_socket_is_read_on_its_own_cpu_and_psys_once() {
    let tree = two_sockets().pmu(NO_PMU, "0-1", &[("energy-pkg", 2), ("energy-psys", 5)]);
    assert_eq!(
        shape(&Perf::find(tree.path()).unwrap()),
        [
            zone("package-0", 2, &[0]),
            zone("package-1", 2, &[1]),
            zone("psys", 5, &[0])
        ]
    );
}

#[test]
fn dies_are_added_up_on_intel_and_count_once_on_amd() {
    let tree = cascade_lake_ap().pmu(NO_PMU, "0-3", &[("energy-pkg", 2)]);
    let perf = Perf::find(tree.path()).unwrap();
    assert_eq!(
        shape(&perf),
        [zone("package-0", 2, &[0, 1]), zone("package-1", 2, &[2, 3])]
    );
    let tree = epyc().pmu(NO_PMU, "0-3", &[("energy-pkg", 2), ("energy-cores", 1)]);
    let perf = Perf::find(tree.path()).unwrap();
    assert_eq!(shape(&perf), [zone("package-0", 2, &[0]), zone("package-1", 2, &[2])]);
    assert_eq!(perf.ignored().len(), 3, "{:?}", perf.ignored());
    assert!(perf.ignored()[0].contains("one core"));
}

#[test]
fn dies_of_an_unknown_maker_are_not_known() {
    let tree = Tree::new()
        .cpus(&[(0, 0, 0), (1, 0, 1)])
        .pmu(SOFTWARE_PMU, "0-1", &[("energy-pkg", 0)]);
    let mut perf = tree.open_perf().unwrap();
    assert!(reason(&perf.take(SECOND), "package-0").contains("modalias"));
}

#[test]
fn what_is_not_understood_is_named() {
    let tree = laptop().pmu(NO_PMU, "0", &CLIENT);
    let events = "bus/event_source/devices/power/events";
    tree.file(format!("{events}/energy-cores.unit"), "Watts");
    tree.file(format!("{events}/energy-ram"), "event=0x03,umask=0x1");
    tree.file(format!("{events}/energy-gpu.scale"), "some");
    fs::remove_file(tree.path().join(events).join("energy-psys.scale")).unwrap();
    let perf = Perf::find(tree.path()).unwrap();
    assert_eq!(shape(&perf), [zone("package-0", 2, &[0])]);
    assert_eq!(perf.ignored().len(), 4, "{:?}", perf.ignored());
}

#[test]
fn a_machine_without_the_pmu_and_a_damaged_one() {
    let error = laptop().open_perf().unwrap_err();
    assert!(
        error.is_absent() && error.to_string().contains("PERF_EVENTS_INTEL_RAPL"),
        "{error}"
    );
    let error = laptop().pmu(NO_PMU, "0", &[]).open_perf().unwrap_err();
    assert!(error.is_absent(), "{error}");
    for mask in ["", "all"] {
        let error = laptop().pmu(NO_PMU, mask, &CLIENT).open_perf().unwrap_err();
        assert!(matches!(error, EnergyError::Malformed { .. }), "{error}");
    }
}

#[test]
fn events_that_cannot_be_opened_name_the_remedy_if_none_can() {
    if !perf_allowed() {
        return;
    }
    let error = laptop().pmu(NO_PMU, "0", &CLIENT).open_perf().unwrap_err();
    assert!(matches!(error, EnergyError::Refused { cpu: 0, .. }), "{error:?}");
    assert!(error.to_string().contains("CAP_PERFMON"), "{error}");
    // 0xff is not a software event.
    let tree = laptop().pmu(SOFTWARE_PMU, "0", &[("energy-pkg", 0), ("energy-ram", 0xff)]);
    let readings = tree.open_perf().unwrap().take(SECOND);
    assert!(readings[0].energy_uj.is_ok());
    assert!(reason(&readings, "dram-0").contains("energy-ram cannot be read on CPU 0"));
}

/// The whole way, through `perf_event_open(2)`: with the scale 10⁻⁹ J a CPU's clock is a meter of 1 W.
#[test]
fn a_clock_as_a_meter_counts_one_watt_per_cpu() {
    if !perf_allowed() {
        return;
    }
    let tree = Tree::new().maker("0000").pmu(SOFTWARE_PMU, "0", &[("energy-pkg", 0)]);
    tree.file("bus/event_source/devices/power/events/energy-pkg.scale", "1e-9");
    let before_ns = monotonic_ns();
    let mut perf = tree.open_perf().unwrap();
    let opened_ns = monotonic_ns();
    let (mut sum_uj, mut first_uj) = (0, None);
    let mut least_ns = 0;
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(2));
        least_ns = monotonic_ns() - opened_ns;
        let reading = perf.take(monotonic_ns()).remove(0);
        let energy_uj = reading.energy_uj.unwrap();
        sum_uj += energy_uj;
        let start_uj = *first_uj.get_or_insert(reading.counter_uj.unwrap() - energy_uj);
        assert_eq!(reading.counter_uj.unwrap() - start_uj, sum_uj, "no fraction is lost");
        assert_eq!((reading.range_uj, reading.source), (None, MeterSource::Perf));
    }
    let most_ns = monotonic_ns() - before_ns;
    // 1 % for the two clocks.
    assert!(
        sum_uj * 1000 >= least_ns - least_ns / 100 - 1000,
        "{sum_uj} µJ in {least_ns} ns"
    );
    assert!(
        sum_uj * 1000 <= most_ns + most_ns / 100 + 1000,
        "{sum_uj} µJ in {most_ns} ns"
    );
}

#[test]
fn an_event_that_was_not_counted_all_the_time_is_no_reading() {
    let last = Last {
        running_ns: 5 * SECOND,
        after_ns: 100 * SECOND,
    };
    let counted = |running_ns| Counted {
        ticks: 7,
        running_ns: 5 * SECOND + running_ns,
    };
    assert!(check_running(last, counted(SECOND), 101 * SECOND).is_ok());
    assert!(check_running(last, counted(SECOND - SECOND / 200), 101 * SECOND).is_ok());
    assert!(
        check_running(last, counted(2 * SECOND), 101 * SECOND).is_ok(),
        "the reading was late"
    );
    let error = check_running(last, counted(SECOND / 2), 101 * SECOND).unwrap_err();
    assert!(error.to_string().contains("500 of 1000 ms"), "{error}");
    assert!(check_running(last, counted(0), 100 * SECOND + 10_000_000).is_err());
}

#[test]
fn an_event_that_is_lost_spoils_the_interval_and_starts_again() {
    if !perf_allowed() {
        return;
    }
    let tree = Tree::new().maker("0000").pmu(SOFTWARE_PMU, "0", &[("energy-pkg", 0)]);
    let mut perf = tree.open_perf().unwrap();
    perf.zones[0].event.pmu = NO_PMU;
    perf.zones[0].cpus[0].event = None;
    assert!(reason(&perf.take(SECOND), "package-0").contains("cannot be read"));
    perf.zones[0].event.pmu = SOFTWARE_PMU;
    assert!(reason(&perf.take(2 * SECOND), "package-0").contains("came back"));
    assert!(perf.take(3 * SECOND)[0].energy_uj.is_ok());
}

/// AMD with two cores of two threads, numbered as the firmware likes.
fn ryzen_with_cores() -> Tree {
    ryzen()
        .cpus(&[(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)])
        .cores(&[(0, 0, "0,2"), (1, 9, "1,3"), (2, 0, "0,2"), (3, 9, "1,3")])
        .pmu(NO_PMU, "0", &[("energy-pkg", 2), ("energy-psys", 5)])
}

#[test]
fn each_core_is_read_on_one_cpu() {
    for mask in ["0-1", "0-3"] {
        let tree = ryzen_with_cores().core_pmu(NO_PMU, mask);
        let perf = Perf::find(tree.path()).unwrap();
        assert_eq!(
            shape(&perf),
            [
                zone("package-0", 2, &[0]),
                zone("package-0/core-0", 0, &[0]),
                zone("package-0/core-9", 0, &[1]),
                zone("psys", 5, &[0])
            ]
        );
        assert!(perf.has_cores_of(0) && !perf.has_cores_of(1));
        assert!(perf.ignored().is_empty(), "{:?}", perf.ignored());
    }
}

#[test]
fn cores_that_are_not_certain_are_left_out_with_the_reason() {
    let same_number = |tree: Tree| tree.cores(&[(1, 0, "1,3"), (3, 0, "1,3")]);
    let without = |tree: Tree| {
        fs::remove_file(tree.path().join("devices/system/cpu/cpu1/topology/core_id")).unwrap();
        tree
    };
    let event = "bus/event_source/devices/power_core/events/energy-core";
    let other_unit = |tree: Tree| {
        tree.file(format!("{event}.unit"), "Watts");
        tree
    };
    let no_event = |tree: Tree| {
        fs::remove_file(tree.path().join(event)).unwrap();
        tree
    };
    let cases: [(&dyn Fn(Tree) -> Tree, &str); 4] = [
        (&same_number, "CPUs 0 and 1 are of two cores that have the same number"),
        (&without, "it is not known which core CPU 1 is in"),
        (&other_unit, "its unit is `Watts`"),
        (&no_event, "no such event"),
    ];
    for (change, says) in cases {
        let tree = change(ryzen_with_cores().core_pmu(NO_PMU, "0-1"));
        let perf = Perf::find(tree.path()).unwrap();
        assert_eq!(shape(&perf), [zone("package-0", 2, &[0]), zone("psys", 5, &[0])]);
        assert!(perf.ignored()[0].contains(says), "{:?}", perf.ignored());
    }
}
