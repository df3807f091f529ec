//! Each guard on a tree of a machine that needs it.

mod over_time;

use std::fs;

use super::super::testing::*;
use super::*;

#[test]
fn client_intel_by_name_with_psys_beside() {
    let tree = laptop();
    let mut meter = tree.open().unwrap();
    for (id, uj) in [
        ("intel-rapl:0", 1_500),
        ("intel-rapl:0:0", 350),
        ("intel-rapl:0:1", 201),
        ("intel-rapl:1", 710),
    ] {
        tree.set(id, uj);
    }
    let readings = meter.take(SECOND);
    assert_eq!(
        energies(&readings),
        [
            ("package-0", Some(500)),
            ("package-0/core", Some(250)),
            ("package-0/uncore", Some(1)),
            ("dram-0", Some(0)),
            ("psys", Some(700)),
        ]
    );
    assert_eq!((readings[3].kind, readings[3].package), (ZoneKind::Dram, Some(0)));
    assert_eq!((readings[4].kind, readings[4].package), (ZoneKind::Psys, None));
    assert_eq!(
        (readings[0].counter_uj, readings[0].range_uj),
        (Some(1_500), Some(RANGE))
    );
    assert!(meter.ignored().is_empty(), "{:?}", meter.ignored());
}

#[test]
fn a_second_psys_is_the_same_platform() {
    let tree = laptop().zone("intel-rapl:2", "psys", 10, RANGE);
    let mut meter = tree.open().unwrap();
    tree.set("intel-rapl:1", 50);
    tree.set("intel-rapl:2", 60);
    let readings = meter.take(SECOND);
    let psys: Vec<_> = readings
        .iter()
        .filter(|reading| reading.kind == ZoneKind::Psys)
        .collect();
    assert_eq!(psys.len(), 1);
    assert_eq!(psys[0].energy_uj, Ok(40));
}

#[test]
fn two_sockets_without_cores() {
    let tree = two_sockets();
    let mut meter = tree.open().unwrap();
    tree.set("intel-rapl:0", 5_010);
    tree.set("intel-rapl:1", 7_020);
    tree.set("intel-rapl:1:0", 807);
    let readings = meter.take(SECOND);
    assert_eq!(
        energies(&readings),
        [
            ("package-0", Some(10)),
            ("dram-0", Some(0)),
            ("package-1", Some(20)),
            ("dram-1", Some(7)),
        ],
        "no zone is made up for the cores"
    );
    assert_eq!(readings[3].range_uj, Some(SMALL_RANGE));
}

#[test]
fn the_directory_number_says_nothing_about_the_package() {
    // As on machines where psys is registered first and packages come in any order.
    let tree = Tree::new()
        .zone("intel-rapl:0", "psys", 0, RANGE)
        .zone("intel-rapl:1", "package-1", 0, RANGE)
        .zone("intel-rapl:1:0", "dram", 0, RANGE)
        .zone("intel-rapl:2", "package-0", 0, RANGE)
        .zone("intel-rapl:2:0", "dram", 0, RANGE);
    let mut meter = tree.open().unwrap();
    tree.set("intel-rapl:1:0", 7);
    assert_eq!(
        energies(&meter.take(SECOND)),
        [
            ("package-0", Some(0)),
            ("dram-0", Some(0)),
            ("package-1", Some(0)),
            ("dram-1", Some(7)),
            ("psys", Some(0)),
        ]
    );
}

#[test]
fn twins_of_two_drivers_count_once() {
    let tree = laptop_with_mmio();
    let mut meter = tree.open().unwrap();
    tree.set("intel-rapl:0", 1_005);
    tree.set("intel-rapl-mmio:0", 1_004);
    assert_eq!(
        energies(&meter.take(SECOND)),
        [
            ("package-0", Some(5)),
            ("package-0/core", Some(0)),
            ("package-0/uncore", Some(0)),
            ("psys", Some(0)),
        ]
    );
    assert_eq!(meter.ignored().len(), 1);
    assert!(meter.ignored()[0].starts_with("intel-rapl-mmio:0 (package-0) is not counted"));
}

#[test]
fn a_zone_that_only_the_second_driver_has_counts() {
    let tree = laptop_with_mmio().zone("intel-rapl-mmio:0:0", "dram", 0, RANGE);
    let mut meter = tree.open().unwrap();
    tree.set("intel-rapl-mmio:0:0", 3);
    assert_eq!(energies(&meter.take(SECOND))[3], ("dram-0", Some(3)));
}

#[test]
fn the_core_zone_of_amd_is_one_core_and_no_part_of_the_split() {
    let tree = ryzen();
    let mut meter = tree.open().unwrap();
    tree.set("intel-rapl:0", 9_500);
    tree.set("intel-rapl:0:0", 1_040);
    let readings = meter.take(SECOND);
    assert_eq!(
        energies(&readings),
        [("package-0", Some(500)), ("package-0/single-core", Some(40))]
    );
    assert!(meter.ignored()[0].contains("one core"), "{:?}", meter.ignored());
    // All that is split is the rest, which is the whole package.
    let tree = crate::attribution::energy_tree::build(&readings, &Default::default(), Default::default());
    let leaves: Vec<_> = tree
        .leaves
        .iter()
        .map(|leaf| (leaf.zone.as_str(), leaf.energy_uj.clone()))
        .collect();
    assert_eq!(leaves, [("package-0/rest", Ok(500))]);
    let roots: Vec<_> = tree.roots.iter().map(|root| root.zone.as_str()).collect();
    assert_eq!(roots, ["package-0", "package-0/single-core"]);
}

#[test]
fn mirrors_of_amd_dies_count_once() {
    let tree = epyc();
    let mut meter = tree.open().unwrap();
    for second in 1..4 {
        // The package that is read second has counted on meanwhile.
        for (id, package, more) in [("0", 0, 0), ("1", 0, 9), ("2", 1, 0), ("3", 1, 7)] {
            tree.set(&format!("intel-rapl:{id}"), EPYC_UJ[package] + 100 * second + more);
        }
        tree.set("intel-rapl:0:0", 40 * second);
        assert_eq!(
            energies(&meter.take(second * SECOND)),
            [
                ("package-0", Some(100)),
                ("package-0/single-core", Some(40)),
                ("package-1", Some(100)),
                ("package-1/single-core", Some(0)),
            ]
        );
    }
    assert!(
        meter.ignored().iter().any(|note| note.contains("counted once")),
        "{:?}",
        meter.ignored()
    );
}

#[test]
fn amd_dies_whose_counters_differ_are_not_known() {
    let tree = epyc();
    tree.set("intel-rapl:1", EPYC_UJ[0] + 50_000_000);
    let readings = tree.open().unwrap().take(SECOND);
    assert!(reason(&readings, "package-0").contains("differ"));
    assert_eq!(readings[2].energy_uj, Ok(0), "the other package is not affected");
}

#[test]
fn dies_of_cascade_lake_ap_are_added_up() {
    let tree = cascade_lake_ap();
    let mut meter = tree.open().unwrap();
    for (zone, more) in [1, 20, 300, 4_000].into_iter().enumerate() {
        tree.set(&format!("intel-rapl:{zone}"), CASCADE_UJ[zone] + more);
    }
    tree.set("intel-rapl:3:0", 5);
    let readings = meter.take(SECOND);
    assert_eq!(
        energies(&readings),
        [
            ("package-0", Some(21)),
            ("dram-0", Some(0)),
            ("package-1", Some(4_300)),
            ("dram-1", Some(5)),
        ]
    );
    assert_eq!((readings[0].counter_uj, readings[0].range_uj), (None, None));
    // One die wraps, the other does not.
    tree.set("intel-rapl:0", RANGE - 4);
    let _ = meter.take(400 * SECOND);
    tree.set("intel-rapl:0", 5);
    tree.set("intel-rapl:1", CASCADE_UJ[1] + 120);
    assert_eq!(energies(&meter.take(401 * SECOND))[0], ("package-0", Some(10 + 100)));
}

#[test]
fn a_die_that_cannot_be_read_makes_its_package_unknown() {
    let tree = cascade_lake_ap();
    let mut meter = tree.open().unwrap();
    tree.remove("intel-rapl:1");
    let readings = meter.take(SECOND);
    assert!(reason(&readings, "package-0").starts_with("intel-rapl:1: "));
    assert_eq!(readings[2].energy_uj, Ok(0));
}

#[test]
fn a_die_without_a_zone_makes_its_package_unknown() {
    let tree = cascade_lake_ap().cpus(&[(4, 1, 2)]);
    let readings = tree.open().unwrap().take(SECOND);
    assert_eq!(readings[0].energy_uj, Ok(0));
    assert!(reason(&readings, "package-1").contains("die 2"), "{:?}", readings[2]);
}

#[test]
fn intel_dies_that_read_the_same_are_not_known_until_they_differ() {
    let tree = cascade_lake_ap();
    tree.set("intel-rapl:1", CASCADE_UJ[0]);
    let mut meter = tree.open().unwrap();
    let readings = meter.take(SECOND);
    assert!(reason(&readings, "package-0").contains("read the same"));
    assert!(reason(&readings, "dram-0").contains("read the same"));
    assert_eq!(readings[2].energy_uj, Ok(0));
    tree.set("intel-rapl:0", CASCADE_UJ[0] + 90_000_000);
    tree.set("intel-rapl:1", CASCADE_UJ[0] + 30_000_000);
    assert_eq!(energies(&meter.take(2 * SECOND))[0], ("package-0", Some(120_000_000)));
}

#[test]
fn dies_of_an_unknown_maker_are_judged_by_their_counters() {
    for (other_uj, known) in [(70, true), (60_000_000, false)] {
        let tree = Tree::new().zone("intel-rapl:0", "package-0-die-0", 70, RANGE).zone(
            "intel-rapl:1",
            "package-0-die-1",
            other_uj,
            RANGE,
        );
        let reading = tree.open().unwrap().take(SECOND).remove(0);
        assert_eq!(reading.energy_uj.is_ok(), known);
    }
}

#[test]
fn zones_that_are_not_understood_are_named() {
    let tree = Tree::new()
        .zone("intel-rapl:0", "package-zero", 0, RANGE)
        .zone("intel-rapl:0:0", "dram", 0, RANGE)
        .zone("intel-rapl:1", "core", 0, RANGE)
        .zone("dtpm:0", "cpu", 0, RANGE);
    fs::remove_file(tree.class("dtpm:0").join("energy_uj")).unwrap();
    let error = tree.open().unwrap_err();
    let EnergyError::Absent { ignored, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(ignored.len(), 4, "{ignored:?}");
    assert!(error.to_string().contains("package-zero"), "{error}");
}

#[test]
fn a_package_with_a_zone_of_its_own_needs_no_dies() {
    let tree = cascade_lake_ap().zone("intel-rapl:4", "package-0", 7, RANGE);
    let mut meter = tree.open().unwrap();
    tree.set("intel-rapl:4", 9);
    assert_eq!(energies(&meter.take(SECOND))[0], ("package-0", Some(2)));
}

#[test]
fn links_that_lead_nowhere_are_not_taken_for_a_missing_module() {
    for target in [
        "../../devices/virtual/powercap/intel-rapl/intel-rapl:0",
        "/nowhere/at/all",
        "itself",
    ] {
        let sysfs = tempfile::TempDir::new().unwrap();
        let class = sysfs.path().join("class/powercap");
        fs::create_dir_all(&class).unwrap();
        std::os::unix::fs::symlink(target, class.join("intel-rapl:0")).unwrap();
        let error = Powercap::open(sysfs.path(), 0).unwrap_err();
        assert!(error.is_absent());
        assert!(error.to_string().contains("/sys/devices"), "{error}");
        assert!(!error.to_string().contains("module"), "{error}");
    }
}

#[test]
fn no_tree_is_absent_and_says_what_to_do() {
    let sysfs = tempfile::TempDir::new().unwrap();
    let error = Powercap::open(sysfs.path(), 0).unwrap_err();
    assert!(error.is_absent());
    assert!(error.to_string().contains("--estimate"), "{error}");
    // A control type without a zone is the same.
    assert!(matches!(Tree::new().open(), Err(EnergyError::Absent { .. })));
}

/// Root may read any file, so a directory stands for a file that cannot be read.
fn make_unreadable(tree: &Tree, id: &str) {
    let path = tree.class(id).join("energy_uj");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
}

#[test]
fn unreadable_counters_name_the_remedy_if_none_can_be_read() {
    let tree = Tree::new()
        .zone("intel-rapl:0", "package-0", 0, RANGE)
        .zone("intel-rapl:1", "package-1", 0, RANGE);
    make_unreadable(&tree, "intel-rapl:0");
    let readings = tree.open().unwrap().take(SECOND);
    assert!(reason(&readings, "package-0").contains("cannot be read"));
    assert_eq!(readings[0].counter_uj, None);
    assert_eq!(readings[1].energy_uj, Ok(0));
    make_unreadable(&tree, "intel-rapl:1");
    let error = tree.open().unwrap_err();
    assert!(matches!(error, EnergyError::Unreadable { .. }));
    assert!(error.to_string().contains("run dlpm as root"), "{error}");
}

#[test]
fn a_counter_that_is_no_number_is_malformed() {
    let tree = Tree::new().zone("intel-rapl:0", "package-0", 0, RANGE);
    tree.file("class/powercap/intel-rapl:0/energy_uj", "many");
    assert!(matches!(tree.open(), Err(EnergyError::Malformed { .. })));
}
