use super::super::testing::*;
use super::*;
use crate::sources::clock::monotonic_ns;

fn open(tree: &Tree) -> Hwmon {
    Hwmon::open(tree.path(), monotonic_ns()).unwrap()
}

fn names(hwmon: &Hwmon) -> Vec<String> {
    let named = |zone: &Zone| format!("{} ({})", zone.name, zone.called);
    hwmon.zones.iter().map(named).collect()
}

fn amd() -> Tree {
    Tree::new().maker("0002").cpus(&[(0, 0, 0), (1, 1, 0)]).chip(
        "hwmon4",
        "amd_energy",
        &[
            ("energy1_input", "100"),
            ("energy1_label", "Ecore000"),
            ("energy2_input", "200"),
            ("energy2_label", "Ecore001"),
            ("energy3_input", "5000000"),
            ("energy3_label", "Esocket0"),
            ("energy4_input", "7000000"),
            ("energy4_label", "Esocket1"),
        ],
    )
}

#[test]
fn grace_has_its_cpus_as_packages_and_the_rest_shown() {
    let tree = grace();
    let mut hwmon = open(&tree);
    assert_eq!(
        names(&hwmon),
        [
            "package-0 (hwmon2 (power_meter) power1 `CPU Power Socket 0`)",
            "package-1 (hwmon6 (power_meter) power1 `CPU Power Socket 1`)",
            "grace-0 (hwmon1 (power_meter) power1 `Grace Power Socket 0`)",
            "grace-1 (hwmon5 (power_meter) power1 `Grace Power Socket 1`)",
            "module-0 (hwmon0 (power_meter) power1 `Module Power Socket 0`)",
            "module-1 (hwmon4 (power_meter) power1 `Module Power Socket 1`)",
            "sysio-0 (hwmon3 (power_meter) power1 `SysIO Power Socket 0`)",
            "sysio-1 (hwmon7 (power_meter) power1 `SysIO Power Socket 1`)",
        ]
    );
    assert!(hwmon.ignored().is_empty());
    let before_ns = monotonic_ns();
    hwmon.take(before_ns);
    std::thread::sleep(std::time::Duration::from_millis(120));
    let now_ns = monotonic_ns();
    for (reading, watts) in hwmon.take(now_ns).into_iter().zip([50, 50, 80, 80, 200, 200, 10, 10]) {
        // W · ns = nJ, and at either end a part of a µJ is cut off.
        let expected_uj = (now_ns - before_ns) * watts / 1000;
        let energy_uj = reading.energy_uj.unwrap();
        assert!(energy_uj.abs_diff(expected_uj) <= 1, "{energy_uj} {expected_uj}");
        assert_eq!((reading.counter_uj, reading.source), (None, MeterSource::HwmonPower));
    }
}

#[test]
fn counters_of_sockets_count_and_those_of_cores_are_named_once() {
    let tree = amd();
    let mut hwmon = open(&tree);
    tree.set_chip("hwmon4", "energy3_input", "5000300");
    tree.set_chip("hwmon4", "energy4_input", "7000004");
    let readings = hwmon.take(monotonic_ns());
    assert_eq!(energies(&readings), [("package-0", Some(300)), ("package-1", Some(4))]);
    assert_eq!(readings[1].counter_uj, Some(7_000_004));
    assert_eq!(readings[1].source, MeterSource::Hwmon);
    let [note] = hwmon.ignored() else {
        panic!("{:?}", hwmon.ignored());
    };
    assert!(
        note.starts_with("hwmon4 (amd_energy) energy1 `Ecore000` and 1 more like it is not counted:"),
        "{note}"
    );
    // It fell: the driver was loaded again.
    tree.set_chip("hwmon4", "energy3_input", "10");
    assert!(reason(&hwmon.take(monotonic_ns()), "package-0").contains("fell"));
    tree.set_chip("hwmon4", "energy3_input", "17");
    assert_eq!(energies(&hwmon.take(monotonic_ns()))[0], ("package-0", Some(7)));
}

#[test]
fn a_chip_that_gets_another_number_is_found_again() {
    let tree = amd();
    let mut hwmon = open(&tree);
    let class = tree.path().join("class/hwmon");
    std::fs::rename(class.join("hwmon4"), class.join("hwmon9")).unwrap();
    assert!(reason(&hwmon.take(monotonic_ns()), "package-0").contains("cannot be read"));
    assert!(reason(&hwmon.take(monotonic_ns()), "package-0").contains("came back"));
    tree.set_chip("hwmon9", "energy3_input", "5000300");
    assert_eq!(energies(&hwmon.take(monotonic_ns()))[0], ("package-0", Some(300)));
    assert_eq!(
        hwmon.called("package-1"),
        Some("hwmon9 (amd_energy) energy4 `Esocket1`")
    );
}

#[test]
fn a_counter_and_a_power_of_one_thing_count_once() {
    let files = [
        ("energy1_input", "1000"),
        ("energy1_label", "Chip 0"),
        ("energy2_input", "9000"),
        ("energy2_label", "System"),
        ("energy3_input", "9000"),
        ("energy3_label", "Chip 0 Vdd"),
        ("power1_input", "64000000"),
        ("power1_label", "Chip 0"),
        ("power2_input", "54000000"),
        ("power2_label", "Chip 8"),
    ];
    let hwmon = open(&Tree::new().chip("hwmon0", "ibmpowernv", &files));
    assert_eq!(
        names(&hwmon),
        [
            "package-0 (hwmon0 (ibmpowernv) energy1 `Chip 0`)",
            "package-8 (hwmon0 (ibmpowernv) power2 `Chip 8`)",
            "system (hwmon0 (ibmpowernv) energy2 `System`)",
        ]
    );
    assert_eq!(hwmon.ignored().len(), 2, "{:?}", hwmon.ignored());
    assert!(
        hwmon.ignored()[1].contains("power1 `Chip 0` is not counted"),
        "{:?}",
        hwmon.ignored()
    );
}

#[test]
fn what_is_not_known_is_named_and_never_guessed() {
    let tree = Tree::new()
        .chip(
            "hwmon0",
            "ina226",
            &[("power1_input", "1"), ("power1_label", "VDD\u{1b}[31m_CPU")],
        )
        .chip("hwmon1", "amdgpu", &[("power1_average", "1")])
        .chip("hwmon2", "coretemp", &[("temp1_input", "1")]);
    let Err(EnergyError::NoHwmon { ignored, .. }) = Hwmon::open(tree.path(), 0) else {
        panic!("something was found");
    };
    assert_eq!(
        ignored,
        ["hwmon0 (ina226) power1 `VDD?[31m_CPU` is not counted: dlpm does not know what it covers"]
    );
    let error = Hwmon::open(Tree::new().path(), 0).unwrap_err();
    assert!(
        error.is_absent() && error.to_string().contains("acpi_power_meter"),
        "{error}"
    );
}

#[test]
fn a_power_that_firmware_does_not_know_is_no_energy() {
    let tree = Tree::new().chip(
        "hwmon0",
        "power_meter",
        &[
            ("power1_average", "4294967295000"),
            ("power1_oem_info", "CPU Power Socket 0"),
        ],
    );
    let mut hwmon = open(&tree);
    assert!(reason(&hwmon.take(monotonic_ns()), "package-0").contains("not known"));
}

#[test]
fn a_power_of_nothing_is_not_believed_until_it_moves() {
    let files = |name| [("power1_average", "0"), ("power1_oem_info", name)];
    let tree = Tree::new()
        .chip("hwmon0", "power_meter", &files("CPU Power Socket 0"))
        .chip("hwmon1", "power_meter", &files("Module Power Socket 0"));
    let mut hwmon = open(&tree);
    let take = |hwmon: &mut Hwmon| {
        let mut readings = hwmon.take(monotonic_ns());
        hwmon.judge(&mut readings, &Busy::default(), SECOND);
        readings
    };
    let readings = take(&mut hwmon);
    assert!(reason(&readings, "package-0").contains("does not measure"));
    assert!(reason(&readings, "module-0").contains("does not measure"));
    assert_eq!(hwmon.never_moved(), ["module-0".to_owned()].into());
    tree.set_chip("hwmon0", "power1_average", "1000000");
    tree.set_chip("hwmon1", "power1_average", "1000000");
    while hwmon.sampler.as_ref().unwrap().newest_uw(1) != Some(1_000_000) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(5));
    let readings = take(&mut hwmon);
    assert!(
        reason(&readings, "package-0").contains("began to count"),
        "{readings:?}"
    );
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert!(take(&mut hwmon).iter().all(|reading| reading.energy_uj.is_ok()));
    assert!(hwmon.never_moved().is_empty());
}
