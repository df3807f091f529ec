//! What happens to zones while they are read.

use std::fs;

use super::super::super::testing::*;
use proptest::prelude::*;

#[test]
fn polls_between_see_every_wrap() {
    let tree = Tree::new().zone("intel-rapl:0", "package-0", RANGE - 5, RANGE);
    let mut meter = tree.open().unwrap();
    let step = RANGE / 200;
    let mut total = RANGE - 5;
    let mut polled = 0;
    for second in 1..=500 {
        total += step;
        tree.set("intel-rapl:0", total % (RANGE + 1));
        meter.poll(second * SECOND);
        polled += step;
    }
    assert_eq!(energies(&meter.take(500 * SECOND)), [("package-0", Some(polled))]);
}

#[test]
fn a_zone_that_vanishes_and_returns_is_invalid_until_it_has_a_baseline() {
    let tree = two_sockets();
    let mut meter = tree.open().unwrap();
    tree.remove("intel-rapl:1");
    let gone = meter.take(SECOND);
    assert_eq!(gone[0].energy_uj, Ok(0), "other zones are not affected");
    assert!(gone[2].energy_uj.is_err() && gone[3].energy_uj.is_err());
    assert_eq!(gone[2].counter_uj, None);
    // The driver numbers anew: what was zone 1 is zone 2 now.
    let tree = tree
        .zone("intel-rapl:2", "package-1", 90_000, RANGE)
        .zone("intel-rapl:2:0", "dram", 70, SMALL_RANGE);
    let came_back = meter.take(2 * SECOND);
    assert!(reason(&came_back, "package-1").contains("came back"));
    assert!(reason(&came_back, "dram-1").contains("came back"));
    assert_eq!(came_back[2].counter_uj, Some(90_000));
    tree.set("intel-rapl:2", 90_001);
    assert_eq!(energies(&meter.take(3 * SECOND))[2], ("package-1", Some(1)));
}

#[test]
fn a_zone_that_was_replaced_between_two_readings_is_another_one() {
    let tree = two_sockets();
    let mut meter = tree.open().unwrap();
    // Kept, so that the new directory cannot get the inode of the old one.
    fs::create_dir(tree.path().join("away")).unwrap();
    let devices = tree.path().join("devices/virtual/powercap/intel-rapl");
    for id in ["intel-rapl:0", "intel-rapl:1"] {
        fs::rename(devices.join(id), tree.path().join("away").join(id)).unwrap();
        fs::remove_file(tree.class(id)).unwrap();
        fs::remove_file(tree.class(&format!("{id}:0"))).unwrap();
    }
    let tree = tree
        .zone("intel-rapl:0", "package-1", 7_900, RANGE)
        .zone("intel-rapl:1", "package-0", 5_100, RANGE);
    let readings = meter.take(SECOND);
    for zone in ["package-0", "package-1"] {
        assert!(reason(&readings, zone).contains("went away"), "{readings:?}");
    }
    tree.set("intel-rapl:0", 7_901);
    tree.set("intel-rapl:1", 5_102);
    let readings = meter.take(2 * SECOND);
    assert_eq!(
        (readings[0].energy_uj.clone(), readings[2].energy_uj.clone()),
        (Ok(2), Ok(1))
    );
}

#[test]
fn a_reset_and_an_impossible_jump_are_not_known() {
    for (id, jump) in [("intel-rapl:0", 3), ("intel-rapl:0", 1_000 + 2_200_000_001)] {
        let tree = laptop();
        let mut meter = tree.open().unwrap();
        tree.set(id, jump);
        let readings = meter.take(SECOND);
        assert!(reason(&readings, "package-0").contains("reset"), "{readings:?}");
        assert_eq!(readings[1].energy_uj, Ok(0));
        tree.set(id, jump + 5);
        assert_eq!(meter.take(2 * SECOND)[0].energy_uj, Ok(5), "the new baseline");
    }
}

#[test]
fn without_a_range_energy_counts_and_the_limitation_is_named() {
    let tree = Tree::new().zone("intel-rapl:0", "package-0", 10, RANGE);
    fs::remove_file(tree.class("intel-rapl:0").join("max_energy_range_uj")).unwrap();
    let mut meter = tree.open().unwrap();
    assert_eq!(meter.ignored().len(), 1);
    tree.set("intel-rapl:0", 30);
    let reading = meter.take(SECOND).remove(0);
    assert_eq!((reading.energy_uj, reading.range_uj), (Ok(20), None));
    tree.set("intel-rapl:0", 29);
    assert!(meter.take(2 * SECOND)[0].energy_uj.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Through the files: whatever the positions of the dies' counters, their sum is what they counted.
    #[test]
    fn dies_at_every_position(start in prop_oneof![0..=RANGE, RANGE - 2_000_000..=RANGE], apart in 100_000_000..RANGE - 100_000_000, steps in prop::collection::vec((0u64..1_000_000, 0u64..1_000_000), 1..6)) {
        let plus = |a: u64, b: u64| (a + b) % (RANGE + 1);
        let tree = Tree::new()
            .maker("0000")
            .zone("intel-rapl:0", "package-0-die-0", start, RANGE)
            .zone("intel-rapl:1", "package-0-die-1", plus(start, apart), RANGE);
        let mut meter = tree.open().unwrap();
        let (mut first, mut second) = (start, plus(start, apart));
        for (at, (one, other)) in (1..).zip(steps) {
            (first, second) = (plus(first, one), plus(second, other));
            tree.set("intel-rapl:0", first);
            tree.set("intel-rapl:1", second);
            prop_assert_eq!(meter.take(at * SECOND).remove(0).energy_uj, Ok(one + other));
        }
    }
}
