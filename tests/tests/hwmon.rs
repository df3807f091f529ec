//! Meters of the kernel's hardware monitors, through the whole program.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{fs, path::Path};

use dlpm_tests::{
    command::Dlpm,
    log::{Log, number},
    powercap::Powercap,
    require_dlpm,
};

/// Adds a chip as `acpi_power_meter` shows it.
fn add_chip(tree: &Powercap, id: &str, oem_info: &str, watts: u64) {
    let device = Path::new(tree.sysfs()).join("class/hwmon").join(id).join("device");
    fs::create_dir_all(&device).unwrap();
    for (file, content) in [
        ("name", "power_meter"),
        ("power1_average", &format!("{watts}000000")),
        ("power1_average_interval", "50"),
        ("power1_model_number", "Grace"),
        ("power1_oem_info", oem_info),
    ] {
        fs::write(device.join(file), format!("{content}\n")).unwrap();
    }
}

#[test]
fn grace_is_split_by_its_cpu_meter_and_shows_the_others() {
    require_dlpm!();
    let tree = Powercap::start(Vec::new());
    add_chip(&tree, "hwmon0", "Module Power Socket 0", 200);
    add_chip(&tree, "hwmon1", "CPU Power Socket 0", 50);
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    Dlpm::new(["trace", "--interval", "250ms", "--sysfs"])
        .arg(tree.sysfs())
        .arg("--output")
        .arg(&run)
        .args([
            "--",
            "sh",
            "-c",
            "for i in 1 2 3 4; do head -c 20M /dev/zero | gzip -1 > /dev/null; sleep 0.2; done",
        ])
        .run()
        .exited(0)
        .says(&["the kernel's hardware monitors (hwmon)"]);
    let log = Log::read(&run);
    log.is_complete();
    assert!(log.samples.len() > 2);
    for sample in &log.samples {
        let names: Vec<&str> = sample
            .zones()
            .iter()
            .map(|zone| zone["zone"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["package-0", "package-0/rest", "module-0"]);
        let length_ns = sample.end_ns() - sample.begin_ns();
        for (name, watts) in [("package-0", 50), ("module-0", 200)] {
            let zone = sample.zone(name).unwrap();
            assert_eq!(zone["source"], "hwmon_power");
            // A power that was not read for 2 s, on a machine that is overloaded, is not known.
            let Some(energy_uj) = zone["energy_uj"].as_u64() else {
                assert!(zone["reason"].as_str().unwrap().contains("was not read for"), "{zone}");
                continue;
            };
            assert!(energy_uj.abs_diff(length_ns * watts / 1000) <= 1, "{zone}");
        }
        if let Some(energy_uj) = sample.zone("package-0/rest").unwrap()["energy_uj"].as_u64() {
            assert_eq!(sample.rows_uj("package-0/rest"), energy_uj);
        }
    }
    let last = log.samples.last().unwrap();
    assert_eq!(number(&last.zone("package-0").unwrap()["package"]), 0);
    Dlpm::new(["verify"]).arg(&run).run().exited(0);
    let doctor = Dlpm::new(["doctor", "--sysfs"]).arg(tree.sysfs()).run();
    for says in [
        "package-0: counts; split by CPU time",
        "hwmon1 (power_meter) power1 `CPU Power Socket 0`, power in µW, integrated",
        "module-0: counts; shown, and never split",
    ] {
        assert!(doctor.stdout.contains(says), "{}", doctor.stdout);
    }
}

#[test]
fn a_board_beside_rapl_is_shown_and_added_to_nothing() {
    require_dlpm!();
    let tree = Powercap::start(dlpm_tests::powercap::node());
    add_chip(&tree, "hwmon0", "", 400);
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    Dlpm::new(["trace", "--interval", "100ms", "--sysfs"])
        .arg(tree.sysfs())
        .arg("--output")
        .arg(&run)
        .args(["--", "sleep", "0.5"])
        .run()
        .exited(0);
    Dlpm::new(["verify"]).arg(&run).run().exited(0);
    let log = Log::read(&run);
    for sample in &log.samples {
        let board = sample.zone("acpi-meter").unwrap();
        assert_eq!((&board["role"], &board["kind"]), (&"root".into(), &"board".into()));
        assert!(
            sample
                .rows()
                .iter()
                .all(|row| row["energy_uj"].get("acpi-meter").is_none())
        );
    }
}

/// A card of AMD that nobody uses, through the whole program: its energy is idle.
#[test]
fn a_card_of_another_maker_is_a_gpu_like_any() {
    require_dlpm!();
    let tree = Powercap::start(Vec::new());
    let device = Path::new(tree.sysfs()).join("class/drm/card0/device");
    fs::create_dir_all(device.join("hwmon/hwmon7")).unwrap();
    for (file, content) in [
        ("uevent", "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:0a:00.0"),
        ("vendor", "0x1002"),
        ("device", "0x744c"),
        ("hwmon/hwmon7/name", "amdgpu"),
        ("hwmon/hwmon7/power1_average", "60000000"),
    ] {
        fs::write(device.join(file), format!("{content}\n")).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, gpu) in [("all", "all"), ("named", "0000:0A:00.0")] {
        let run = folder.path().join(name);
        Dlpm::new(["trace", "--interval", "100ms", "--gpu", gpu, "--sysfs"])
            .arg(tree.sysfs())
            .arg("--output")
            .arg(&run)
            .args(["--", "sleep", "0.5"])
            .run()
            .exited(0);
        Dlpm::new(["verify"]).arg(&run).run().exited(0);
        let log = Log::read(&run);
        for sample in &log.samples {
            let zone = sample.zone("gpu-0000:0a:00.0").unwrap();
            assert_eq!((&zone["kind"], &zone["source"]), (&"gpu".into(), &"hwmon_power".into()));
            let Some(energy_uj) = zone["energy_uj"].as_u64() else {
                assert!(zone["reason"].as_str().unwrap().contains("was not read for"), "{zone}");
                continue;
            };
            let length_ns = sample.end_ns() - sample.begin_ns();
            assert!(energy_uj.abs_diff(length_ns * 60 / 1000) <= 1, "{zone}");
            assert_eq!(zone["method"], "no_process");
            let idle = sample.rows().iter().find(|row| row["row"] == "idle").unwrap();
            assert_eq!(number(&idle["energy_uj"]["gpu-0000:0a:00.0"]), energy_uj);
        }
    }
    let none = Dlpm::new(["trace", "--gpu", "0000:0b:00.0", "--sysfs"])
        .arg(tree.sysfs())
        .args(["--", "true"])
        .run();
    none.exited(125).says(&["of other makers there are 0000:0a:00.0"]);
    let doctor = Dlpm::new(["doctor", "--sysfs"]).arg(tree.sysfs()).run().stdout;
    assert!(
        doctor.contains("card0 0000:0a:00.0 (amdgpu 1002:744c; its power is integrated); split by engine time"),
        "{doctor}"
    );
}
