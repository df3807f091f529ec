use super::*;
use std::{fs, os::unix::fs::symlink};

const SECOND: u64 = 1_000_000_000;

struct Trees {
    sysfs: tempfile::TempDir,
    procfs: tempfile::TempDir,
}

impl Trees {
    fn new() -> Self {
        Self {
            sysfs: tempfile::tempdir().unwrap(),
            procfs: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.sysfs.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{content}\n")).unwrap();
    }

    /// A card with a chip of its hardware monitor, if it has files.
    fn card(&self, number: u32, driver: &str, address: &str, files: &[(&str, &str)]) {
        let device = format!("class/drm/card{number}/device");
        self.file(
            &format!("{device}/uevent"),
            &format!("DRIVER={driver}\nPCI_CLASS=30000\nPCI_SLOT_NAME={address}"),
        );
        self.file(&format!("{device}/vendor"), "0x8086");
        self.file(&format!("{device}/device"), "0x56a0");
        for (file, content) in files {
            self.file(&format!("{device}/hwmon/hwmon3/{file}"), content);
        }
    }

    /// An open GPU of a process, whose pid is its start as well.
    fn open(&self, tgid: u32, number: u32, info: &str) {
        let directory = self.procfs.path().join(tgid.to_string());
        fs::create_dir_all(directory.join("fd")).unwrap();
        fs::create_dir_all(directory.join("fdinfo")).unwrap();
        let _ = symlink("/dev/dri/renderD128", directory.join(format!("fd/{number}")));
        fs::write(directory.join(format!("fdinfo/{number}")), info).unwrap();
    }

    fn start(&self) -> Drm {
        Drm::start(self.sysfs.path(), None, 0)
    }

    /// The readings of the interval that ends at so many seconds, in which these processes ran.
    fn next(&self, drm: &mut Drm, at_s: u64, ran: &[u32], uncore: Option<&str>) -> Vec<GpuReading> {
        let ran: Vec<ProcessId> = ran
            .iter()
            .map(|&tgid| ProcessId {
                tgid,
                start_ns: tgid.into(),
            })
            .collect();
        let taken = drm.take(at_s * SECOND);
        drm.readings(taken, self.procfs.path(), &ran, at_s * SECOND, uncore)
    }
}

fn client(driver: &str, address: &str, client: u64, engines: &str) -> String {
    format!("drm-driver: {driver}\ndrm-pdev: {address}\ndrm-client-id: {client}\n{engines}\n")
}

fn processes(reading: &GpuReading) -> Vec<(u32, u64)> {
    reading
        .processes
        .iter()
        .map(|process| (process.pid, process.sm_percent_us))
        .collect()
}

const ARC: &str = "0000:03:00.0";

#[test]
fn a_card_of_intel_has_its_counter_and_the_engine_time_of_each_process() {
    let trees = Trees::new();
    let files = [("name", "i915"), ("energy1_input", "1000")];
    trees.card(1, "i915", ARC, &files);
    let mut drm = trees.start();
    assert_eq!(drm.describe(), ["card1 0000:03:00.0 (i915 8086:56a0; energy counter)"]);
    let render = |ns: u64| client("i915", ARC, 7, &format!("drm-engine-render: {ns} ns"));
    trees.open(5, 3, &render(100));
    // The same client, inherited.
    trees.open(6, 3, &render(100));
    trees.next(&mut drm, 1, &[5, 6], None);
    trees.file("class/drm/card1/device/hwmon/hwmon3/energy1_input", "30001000");
    trees.open(5, 3, &render(100 + SECOND / 2));
    trees.open(6, 3, &render(100 + SECOND / 2));
    let readings = trees.next(&mut drm, 2, &[5], None);
    assert_eq!(readings.len(), 1);
    assert_eq!(
        (readings[0].energy_uj.clone(), readings[0].counter_uj),
        (Ok(30_000_000), Some(30_001_000))
    );
    assert_eq!(processes(&readings[0]), [(5, 50_000_000)]);
    assert_eq!(
        (readings[0].usage, readings[0].source),
        (GpuUsage::EngineTime, MeterSource::Hwmon)
    );
    // Nobody uses it, though both have it open.
    trees.file("class/drm/card1/device/hwmon/hwmon3/energy1_input", "35001000");
    let readings = trees.next(&mut drm, 3, &[5], None);
    assert_eq!(
        (processes(&readings[0]), readings[0].energy_uj.clone()),
        (vec![], Ok(5_000_000))
    );
}

#[test]
fn a_counter_that_stands_still_while_engines_are_busy_is_not_believed() {
    let trees = Trees::new();
    trees.card(
        0,
        "xe",
        ARC,
        &[
            ("name", "xe"),
            ("energy1_input", "5"),
            ("energy1_label", "pkg"),
            ("energy2_input", "9"),
            ("energy2_label", "card"),
        ],
    );
    let mut drm = trees.start();
    let cycles = |cycles: u64, total: u64| {
        client(
            "xe",
            ARC,
            1,
            &format!("drm-cycles-rcs: {cycles}\ndrm-total-cycles-rcs: {total}"),
        )
    };
    trees.open(5, 3, &cycles(0, 1000));
    trees.next(&mut drm, 1, &[5], None);
    trees.open(5, 3, &cycles(500, 2000));
    let reading = trees.next(&mut drm, 2, &[5], None).remove(0);
    assert_eq!(processes(&reading), [(5, 50_000_000)], "half of the cycles");
    assert!(
        reading
            .energy_uj
            .unwrap_err()
            .contains("counted nothing while its engines were busy")
    );
    assert_eq!(reading.counter_uj, Some(9), "the card, which contains its chip");
}

#[test]
fn a_card_of_amd_has_its_power_integrated_and_rocm_is_sampled() {
    let trees = Trees::new();
    trees.card(
        0,
        "amdgpu",
        "0000:0a:00.0",
        &[("name", "amdgpu"), ("power1_average", "100000000")],
    );
    trees.file("class/drm/card0/device/mem_info_vram_total", "17163091968");
    let mut drm = trees.start();
    assert!(drm.describe()[0].contains("its power is integrated"));
    let gfx = |ns: u64| client("amdgpu", "0000:0a:00.0", 1, &format!("drm-engine-gfx: {ns} ns"));
    trees.open(5, 3, &gfx(0));
    trees.next(&mut drm, 1, &[5], None);
    trees.open(5, 3, &gfx(SECOND / 4));
    let reading = trees.next(&mut drm, 2, &[5], None).remove(0);
    assert_eq!(processes(&reading), [(5, 25_000_000)]);
    assert_eq!(
        (reading.source, reading.power_mw),
        (MeterSource::HwmonPower, Some(100_000))
    );
    assert_eq!(reading.memory_total_bytes, Some(17_163_091_968));
    assert!(reading.notes.is_empty());

    // 0000:0a:00.0 is bus 10: 2560. 104 compute units of four SIMDs.
    let node = "class/kfd/kfd/topology/nodes/1";
    trees.file(&format!("{node}/gpu_id"), "4711");
    trees.file(
        &format!("{node}/properties"),
        "cpu_cores_count 0\nsimd_count 416\nsimd_per_cu 4\nlocation_id 2560\ndomain 0",
    );
    trees.file("class/kfd/kfd/proc/77/vram_4711", "1000");
    trees.file("class/kfd/kfd/proc/77/stats_4711/cu_occupancy", "52");
    trees.file("class/kfd/kfd/proc/78/vram_815", "1000");
    let mut drm = trees.start();
    trees.next(&mut drm, 1, &[5], None);
    let reading = trees.next(&mut drm, 2, &[5], None).remove(0);
    assert_eq!(processes(&reading), [(77, 50_000_000)]);
    assert!(reading.notes[0].contains("sampled"));
    // Where the kernel does not tell it, nothing is split.
    fs::remove_dir_all(trees.sysfs.path().join("class/kfd/kfd/proc/77/stats_4711")).unwrap();
    let reading = trees.next(&mut drm, 3, &[5], None).remove(0);
    assert!(reading.sm_time.unwrap_err().contains("ROCm"));
}

#[test]
fn graphics_inside_a_package_have_its_uncore() {
    let trees = Trees::new();
    trees.card(0, "i915", "0000:00:02.0", &[]);
    let mut drm = trees.start();
    assert!(drm.describe()[0].contains("inside a CPU package"));
    let render = |ns: u64| client("i915", "0000:00:02.0", 7, &format!("drm-engine-render: {ns} ns"));
    trees.open(5, 3, &render(0));
    assert!(
        trees.next(&mut drm, 1, &[5], None).is_empty(),
        "a package without that zone"
    );
    trees.open(5, 3, &render(SECOND));
    let reading = trees.next(&mut drm, 2, &[5], Some("package-0/uncore")).remove(0);
    assert_eq!(reading.inside.as_deref(), Some("package-0/uncore"));
    assert_eq!(processes(&reading), [(5, 100_000_000)]);
}

#[test]
fn what_cannot_be_measured_is_named_and_displays_are_not() {
    let trees = Trees::new();
    trees.card(
        0,
        "amdgpu",
        "0000:c4:00.0",
        &[("name", "amdgpu"), ("power1_average", "9"), ("in1_label", "vddnb")],
    );
    trees.card(1, "panfrost", "", &[]);
    trees.card(2, "ast", "0000:02:00.0", &[]);
    trees.card(3, "i915", ARC, &[("name", "i915"), ("energy1_input", "5")]);
    trees.file("class/drm/card3/device/power/runtime_status", "suspended");
    fs::create_dir_all(trees.sysfs.path().join("class/drm/card3-HDMI-A-1")).unwrap();
    let drm = trees.start();
    assert!(drm.is_empty());
    let notes = drm.notes().join("\n");
    for says in [
        "card0 (amdgpu) is not measured: its power is that of the whole chip",
        "card1 (panfrost)",
        "it sleeps",
    ] {
        assert!(notes.contains(says), "{notes}");
    }
    assert_eq!(drm.notes().len(), 3, "{notes}");
    let named = Drm::start(trees.sysfs.path(), Some(&[ARC.to_uppercase()]), 0);
    assert_eq!(named.addresses().collect::<Vec<_>>(), [ARC]);
}

#[test]
fn a_driver_that_tells_no_client_splits_nothing() {
    let trees = Trees::new();
    trees.card(0, "i915", ARC, &[("name", "i915"), ("energy1_input", "5")]);
    let mut drm = trees.start();
    trees.open(5, 3, "pos: 0");
    let reading = trees.next(&mut drm, 1, &[5], None).remove(0);
    assert!(reading.lists.unwrap_err().contains("/proc/PID/fdinfo"));
}
