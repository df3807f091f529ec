use super::*;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

const SECOND: u64 = 1_000_000_000;
const RANGE: u64 = 262_143_328_850;

struct Tree(TempDir);

impl Tree {
    fn new() -> Self {
        let sysfs = TempDir::new().unwrap();
        fs::create_dir_all(sysfs.path().join("class/powercap/intel-rapl")).unwrap();
        fs::write(sysfs.path().join("class/powercap/intel-rapl/enabled"), "1\n").unwrap();
        Self(sysfs)
    }

    /// As in the real tree: the entries of the class are links into the devices.
    fn zone(self, id: &str, name: &str, uj: u64) -> Self {
        let directory = self.0.path().join("devices").join(id);
        fs::create_dir_all(&directory).unwrap();
        symlink(Path::new("../../devices").join(id), self.directory(id)).unwrap();
        fs::write(directory.join("name"), format!("{name}\n")).unwrap();
        fs::write(directory.join("max_energy_range_uj"), format!("{RANGE}\n")).unwrap();
        self.set(id, uj);
        self
    }

    fn set(&self, id: &str, uj: u64) {
        fs::write(self.directory(id).join("energy_uj"), format!("{uj}\n")).unwrap();
    }

    fn directory(&self, id: &str) -> PathBuf {
        self.0.path().join("class/powercap").join(id)
    }

    fn open(&self) -> Result<Powercap, EnergyError> {
        Powercap::open(self.0.path(), 0)
    }
}

fn energies(readings: &[ZoneReading]) -> Vec<(&str, Option<u64>)> {
    readings
        .iter()
        .map(|reading| (reading.zone.as_str(), reading.energy_uj.clone().ok()))
        .collect()
}

fn laptop() -> Tree {
    Tree::new()
        .zone("intel-rapl:1", "psys", 10)
        .zone("intel-rapl:0", "package-0", 1_000)
        .zone("intel-rapl:0:2", "dram", 300)
        .zone("intel-rapl:0:0", "core", 100)
        .zone("intel-rapl:0:1", "uncore", 200)
}

#[test]
fn zones_by_name_with_their_energy() {
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
    assert_eq!(readings[0].kind, ZoneKind::Package);
    assert_eq!((readings[3].kind, readings[3].package), (ZoneKind::Dram, Some(0)));
    assert_eq!((readings[4].kind, readings[4].package), (ZoneKind::Psys, None));
    assert_eq!(
        (readings[0].counter_uj, readings[0].range_uj),
        (Some(1_500), Some(RANGE))
    );
    assert!(meter.ignored().is_empty(), "{:?}", meter.ignored());
}

#[test]
fn the_directory_number_says_nothing_about_the_package() {
    // As on machines where psys is registered first and packages come in any order.
    let tree = Tree::new()
        .zone("intel-rapl:0", "psys", 0)
        .zone("intel-rapl:1", "package-1", 0)
        .zone("intel-rapl:1:0", "dram", 0)
        .zone("intel-rapl:2", "package-0", 0)
        .zone("intel-rapl:2:0", "dram", 0);
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
fn the_same_zone_from_a_second_driver_counts_once() {
    let tree = Tree::new()
        .zone("intel-rapl-mmio:0", "package-0", 0)
        .zone("intel-rapl-mmio:0:0", "dram", 0)
        .zone("intel-rapl:0", "package-0", 0);
    let mut meter = tree.open().unwrap();
    tree.set("intel-rapl:0", 5);
    tree.set("intel-rapl-mmio:0", 4);
    assert_eq!(
        energies(&meter.take(SECOND)),
        [("package-0", Some(5)), ("dram-0", Some(0))]
    );
    assert_eq!(meter.ignored().len(), 1);
    assert!(meter.ignored()[0].starts_with("intel-rapl-mmio:0 (package-0) is not counted"));
}

#[test]
fn zones_that_are_not_understood_are_named() {
    let tree = Tree::new()
        .zone("intel-rapl:0", "package-0-die-0", 0)
        .zone("intel-rapl:0:0", "dram", 0)
        .zone("intel-rapl:1", "core", 0)
        .zone("dtpm:0", "cpu", 0);
    fs::remove_file(tree.directory("dtpm:0").join("energy_uj")).unwrap();
    let error = tree.open().unwrap_err();
    let EnergyError::Absent { ignored, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(ignored.len(), 4, "{ignored:?}");
    assert!(error.to_string().contains("package-0-die-0"), "{error}");
}

#[test]
fn no_tree_is_absent_and_says_what_to_do() {
    let sysfs = TempDir::new().unwrap();
    let error = Powercap::open(sysfs.path(), 0).unwrap_err();
    assert!(matches!(error, EnergyError::Absent { .. }));
    assert!(error.to_string().contains("--estimate"), "{error}");
    // A control type without a zone is the same.
    assert!(matches!(Tree::new().open(), Err(EnergyError::Absent { .. })));
}

/// Root may read any file, so a directory stands for a file that cannot be read.
fn make_unreadable(tree: &Tree, id: &str) {
    let path = tree.directory(id).join("energy_uj");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
}

#[test]
fn unreadable_counters_name_the_remedy_if_none_can_be_read() {
    let tree = Tree::new()
        .zone("intel-rapl:0", "package-0", 0)
        .zone("intel-rapl:1", "package-1", 0);
    make_unreadable(&tree, "intel-rapl:0");
    let readings = tree.open().unwrap().take(SECOND);
    assert!(readings[0].energy_uj.as_ref().unwrap_err().contains("cannot be read"));
    assert_eq!(readings[0].counter_uj, None);
    assert_eq!(readings[1].energy_uj, Ok(0));
    make_unreadable(&tree, "intel-rapl:1");
    let error = tree.open().unwrap_err();
    assert!(matches!(error, EnergyError::Unreadable { .. }));
    assert!(error.to_string().contains("run dlpm as root"), "{error}");
}

#[test]
fn a_counter_that_is_no_number_is_malformed() {
    let tree = Tree::new().zone("intel-rapl:0", "package-0", 0);
    fs::write(tree.directory("intel-rapl:0").join("energy_uj"), "many\n").unwrap();
    assert!(matches!(tree.open(), Err(EnergyError::Malformed { .. })));
}

#[test]
fn polls_between_see_every_wrap() {
    let tree = Tree::new().zone("intel-rapl:0", "package-0", RANGE - 5);
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
    let tree = laptop();
    let mut meter = tree.open().unwrap();
    let name = tree.directory("intel-rapl:0");
    let away = tree.directory("away");
    fs::rename(&name, &away).unwrap();
    assert!(meter.take(SECOND)[0].energy_uj.is_err());
    fs::rename(&away, &name).unwrap();
    tree.set("intel-rapl:0", 5_000);
    let came_back = meter.take(2 * SECOND);
    assert!(came_back[0].energy_uj.as_ref().unwrap_err().contains("came back"));
    assert_eq!(came_back[0].counter_uj, Some(5_000));
    assert_eq!(came_back[1].energy_uj, Ok(0), "other zones are not affected");
    tree.set("intel-rapl:0", 5_001);
    assert_eq!(meter.take(3 * SECOND)[0].energy_uj, Ok(1));
}

#[test]
fn without_a_range_energy_counts_and_the_limitation_is_named() {
    let tree = Tree::new().zone("intel-rapl:0", "package-0", 10);
    fs::remove_file(tree.directory("intel-rapl:0").join("max_energy_range_uj")).unwrap();
    let mut meter = tree.open().unwrap();
    assert_eq!(meter.ignored().len(), 1);
    tree.set("intel-rapl:0", 30);
    let reading = meter.take(SECOND).remove(0);
    assert_eq!((reading.energy_uj, reading.range_uj), (Ok(20), None));
    tree.set("intel-rapl:0", 29);
    assert!(meter.take(2 * SECOND)[0].energy_uj.is_err());
}
