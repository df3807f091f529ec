//! Energy zones of the kernel itself, from the module in `tests/kernel-module`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use super::truth::{Module, counted_uj};
use crate::{
    command::{Dlpm, NOBODY},
    log::{LOG_NAME, Log, number},
};

const MODULE: Module = Module("dlpm_rapl");
const ZONES: &str = "/sys/class/powercap";

/// The zones as the module tells their totals: name, directory, and what they are in the log.
const NAMES: [(&str, &str, &str); 4] = [
    ("package-0", "intel-rapl:0", "package-0"),
    ("core", "intel-rapl:0:0", "package-0/core"),
    ("uncore", "intel-rapl:0:1", "package-0/uncore"),
    ("dram", "intel-rapl:0:2", "dram-0"),
];

/// What a counter holds at the most.
fn range_uj(directory: &str) -> u64 {
    let text = fs::read_to_string(format!("{ZONES}/{directory}/max_energy_range_uj")).unwrap();
    text.trim().parse().unwrap()
}

/// The joules of the log are the module's, over many wraps of every counter.
pub fn counters() {
    MODULE.load();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("log");
    let tenant = || {
        let times = ["400000", "20000", "300000"];
        Command::new("/bin/dlpm-tenant")
            .args(times)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut tenants = [tenant(), tenant()];
    let records = MODULE.records(|| {
        let mut dlpm = Dlpm::new(["trace", "--interval", "250ms", "--output"])
            .arg(&folder)
            .start();
        dlpm.wait_for_lines(&folder, 2);
        let begun = MODULE.record();
        dlpm.wait_until("wraps", || {
            let now = MODULE.record();
            let moved = now.total_uj.iter().zip(&begun.total_uj);
            let mut zones = moved.zip(NAMES);
            zones.all(|((now, then), (_, directory, _))| now - then > 4 * range_uj(directory))
        });
        dlpm.end_with(libc::SIGTERM).exited(0);
    });
    for tenant in &mut tenants {
        tenant.kill().unwrap();
        tenant.wait().unwrap();
    }
    let log = Log::read(&folder);
    log.is_complete();
    for (index, (name, directory, in_the_log)) in NAMES.into_iter().enumerate() {
        let zones: Vec<_> = log
            .samples
            .iter()
            .map(|sample| sample.zone(in_the_log).unwrap())
            .collect();
        let range_uj = range_uj(directory);
        for zone in &zones {
            assert_eq!(
                (zone["state"].as_str(), zone["source"].as_str()),
                (Some("ok"), Some("powercap")),
                "{zone}"
            );
            assert_eq!(number(&zone["range_uj"]), range_uj);
        }
        let energy_uj: u64 = zones.iter().map(|zone| number(&zone["energy_uj"])).sum();
        let counted_by_module = counted_uj(&records, index, &log);
        let counters: Vec<u64> = zones.iter().map(|zone| number(&zone["counter_uj"])).collect();
        let wraps = counters.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
        println!("{name}: {energy_uj} µJ in the log, {counted_by_module:?} µJ by the module, {wraps} wraps");
        assert!(counted_by_module.contains(&energy_uj), "{name}");
        assert!(wraps >= 4, "{name} wrapped {wraps} times");
        // To the microjoule, from the counter alone: every wrap is range + 1.
        let counted = wraps * (range_uj + 1) + counters[counters.len() - 1] - counters[0];
        let energies = zones[1..].iter().map(|zone| number(&zone["energy_uj"]));
        assert_eq!(energies.sum::<u64>(), counted, "{name}");
    }
    for tenant in tenants {
        assert!(log.listed().contains_key(&tenant.id()), "{tenant:?} has no row");
    }
    let verified = Dlpm::new(["verify"]).arg(&folder).run().exited(0);
    println!("{}", verified.stdout.lines().last().unwrap());
}

/// The kernel lets only root read a counter; anyone else gets a message that says what to do.
pub fn permissions() {
    MODULE.load();
    for (_, directory, _) in NAMES {
        let metadata = fs::metadata(format!("{ZONES}/{directory}/energy_uj")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o400, "{directory}");
    }
    let doctor = Dlpm::new(["doctor"]).as_user(NOBODY).run().exited(1);
    println!("{}", doctor.stdout);
    for part in ["intel-rapl:0/energy_uj", "Permission denied", "run dlpm as root"] {
        assert!(doctor.stdout.contains(part), "no `{part}`");
    }
}

/// A counter that the kernel cannot read is named, with the kernel's reason; the others go on.
pub fn errors() {
    MODULE.load();
    let set = |zone: &str| fs::write(MODULE.parameter("failing"), zone).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("log");
    let mut dlpm = Dlpm::new(["trace", "--interval", "200ms", "--output"])
        .arg(&folder)
        .start();
    dlpm.wait_for_lines(&folder, 4);
    set("3");
    let lines = || fs::read_to_string(folder.join(LOG_NAME)).map_or(0, |text| text.lines().count());
    let so_far = lines();
    dlpm.wait_for_lines(&folder, so_far + 4);
    set("-1");
    let so_far = lines();
    dlpm.wait_for_lines(&folder, so_far + 4);
    dlpm.end_with(libc::SIGTERM).exited(0);
    let log = Log::read(&folder);
    let mut states: Vec<&str> = Vec::new();
    for sample in &log.samples {
        let dram = sample.zone("dram-0").unwrap();
        let state = dram["state"].as_str().unwrap();
        if state != "ok" {
            assert!(dram["energy_uj"].is_null(), "{dram}");
            println!("{}", dram["reason"]);
        }
        assert_eq!(sample.zone("package-0").unwrap()["state"], "ok");
        if states.last() != Some(&state) {
            states.push(state);
        }
    }
    assert_eq!(states, ["ok", "invalid", "ok"]);
    let mut reasons = log
        .samples
        .iter()
        .filter_map(|sample| sample.zone("dram-0")?["reason"].as_str());
    // Whatever a driver returns, powercap makes EINVAL of it (`drivers/powercap/powercap_sys.c`, 5.10 to 7.3).
    assert!(reasons.any(|reason| reason.contains("energy_uj cannot be read: Invalid argument")));
}
