//! Zones of single cores, through the whole program: the kernel's software clock stands for the PMU, and counts 1 W for
//! each core, and 3 W more for the package.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{fs, path::Path};

use dlpm_tests::{
    command::Dlpm,
    cpus,
    log::{Log, number},
    powercap::Powercap,
    require_dlpm, worker,
};

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{content}\n")).unwrap();
}

/// CPUs that are a core each, of one package, and the two PMUs.
fn tree() -> Powercap {
    let tree = Powercap::start(Vec::new());
    let root = Path::new(tree.sysfs());
    let mut all = Vec::new();
    for cpu in cpus::online() {
        let directory = root.join(format!("devices/system/cpu/cpu{cpu}"));
        fs::remove_file(&directory).unwrap();
        write(&directory.join("topology/physical_package_id"), "0");
        write(&directory.join("topology/core_id"), &format!("{}", cpu + 3));
        write(&directory.join("topology/thread_siblings_list"), &cpu.to_string());
        all.push(cpu.to_string());
    }
    let package = format!("{}e-9", all.len() + 3);
    for (pmu, mask, event, scale) in [
        ("power", "0", "energy-pkg", package.as_str()),
        ("power_core", all.join(",").as_str(), "energy-core", "1e-9"),
    ] {
        let pmu = root.join("bus/event_source/devices").join(pmu);
        write(&pmu.join("type"), "1");
        write(&pmu.join("cpumask"), mask);
        write(&pmu.join("events").join(event), "event=0x00");
        write(&pmu.join(format!("events/{event}.unit")), "Joules");
        write(&pmu.join(format!("events/{event}.scale")), scale);
    }
    tree
}

#[test]
fn each_core_goes_to_who_ran_on_it() {
    require_dlpm!();
    let tree = tree();
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let mut spinner = worker!("spin", 0);
    spinner.go();
    let output = Dlpm::new(["trace", "--interval", "100ms", "--duration", "1500ms", "--output"])
        .arg(&run)
        .arg("--sysfs")
        .arg(tree.sysfs())
        .run()
        .exited(0)
        .says(&["each core by the event power_core/energy-core"]);
    let summary = &output.stdout;
    assert!(summary.contains("single cores are left out here"), "{summary}");
    assert!(!summary.contains("package-0/core-3"), "{summary}");
    let report = Dlpm::new(["report"]).arg(&run).run().exited(0).stdout;
    assert!(report.contains("package-0/core-3"), "{report}");
    Dlpm::new(["verify"]).arg(&run).run().exited(0);
    let log = Log::read(&run);
    log.is_complete();
    assert!(!log.samples.is_empty());
    for sample in &log.samples {
        let mut leaves_uj = 0;
        for cpu in cpus::online() {
            let name = format!("package-0/core-{}", cpu + 3);
            let energy_uj = number(&sample.zone(&name).unwrap()["energy_uj"]);
            leaves_uj += energy_uj;
            assert_eq!(sample.rows_uj(&name), energy_uj);
            let on_core = |row: &&serde_json::Value| row["by_core"].get(format!("0/{}", cpu + 3)).is_some();
            // Whoever has a part was there.
            for row in sample.rows().iter().filter(|row| row["energy_uj"].get(&name).is_some()) {
                assert!(on_core(&row), "{row}");
            }
        }
        leaves_uj += number(&sample.zone("package-0/rest").unwrap()["energy_uj"]);
        assert_eq!(leaves_uj, number(&sample.zone("package-0").unwrap()["energy_uj"]));
        // The process that stays on CPU 0 has nothing of any other core.
        let of_spinner = sample.rows().iter().find(|row| row["tgid"] == spinner.pid());
        let by_core: Vec<&String> = of_spinner.unwrap()["by_core"].as_object().unwrap().keys().collect();
        assert_eq!(by_core, ["0/3"]);
    }
    let doctor = Dlpm::new(["doctor", "--sysfs"]).arg(tree.sysfs()).run().stdout;
    assert!(
        doctor.contains("package-0/core-3: can be read; split by CPU time on that core; covers one core"),
        "{doctor}"
    );
}
