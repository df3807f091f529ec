//! Energy of each core, from the module `dlpm_cores`: the PMU `power_core` of AMD, in the kernel.

use std::fs;

use super::truth::{Module, counted_uj};
use crate::{
    command::Dlpm,
    log::{Log, number},
    worker::Worker,
};

const MODULE: Module = Module("dlpm_cores");

/// How much more a busy core 1 draws than a busy core 0, at the least: 20 W and 5 W in the module, which idle with 1 W each.
const DEARER: u64 = 3;

/// The leaf of the core that a CPU is.
fn leaf(cpu: u32) -> String {
    let number = |file: &str| -> u32 {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/{file}");
        fs::read_to_string(path).unwrap().trim().parse().unwrap()
    };
    format!("package-{}/core-{}", number("physical_package_id"), number("core_id"))
}

/// Two processes that use the same CPU time, each on a core of its own, get the energy of their own core.
pub fn cores() {
    MODULE.load();
    let leaves = [leaf(0), leaf(1)];
    let mut workers = ["0", "1"].map(|cpu| Worker::start("/bin/dlpm-worker", &["spin", cpu]));
    workers.iter_mut().for_each(Worker::go);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("log");
    let records = MODULE.records(|| {
        let mut dlpm = Dlpm::new(["trace", "--energy-source", "perf", "--interval", "200ms", "--output"])
            .arg(&folder)
            .start();
        dlpm.wait_for_lines(&folder, 20);
        dlpm.end_with(libc::SIGTERM).exited(0);
    });
    let log = Log::read(&folder);
    log.is_complete();
    for (index, name) in leaves.iter().enumerate() {
        let zones: Vec<_> = log.samples.iter().map(|sample| sample.zone(name).unwrap()).collect();
        for zone in &zones {
            assert_eq!(
                (zone["state"].as_str(), zone["source"].as_str()),
                (Some("ok"), Some("perf")),
                "{zone}"
            );
        }
        let energy_uj: u64 = zones.iter().map(|zone| number(&zone["energy_uj"])).sum();
        let counted = counted_uj(&records, 1 + index, &log);
        println!("{name}: {energy_uj} µJ in the log, {counted:?} µJ by the module");
        assert!(counted.contains(&energy_uj), "{name}");
        // Whoever was on the core has all of it, to the microjoule, and nobody else has any.
        let rows_uj: u64 = log.samples.iter().map(|sample| sample.rows_uj(name)).sum();
        assert_eq!(rows_uj, energy_uj, "{name}");
    }
    let used = [0, 1].map(|index: usize| {
        let pid = workers[index].pid();
        let (mut cpu_ns, mut energy_uj) = (0, 0);
        for row in log.rows("process").filter(|row| row["tgid"] == pid) {
            cpu_ns += number(&row["cpu_ns"]);
            energy_uj += row["energy_uj"].get(&leaves[index]).map_or(0, number);
            assert!(row["energy_uj"].get(&leaves[1 - index]).is_none(), "{row}");
        }
        (cpu_ns, energy_uj)
    });
    println!("CPU time in ns and energy in µJ: {used:?}");
    let [(cheap_ns, cheap_uj), (dear_ns, dear_uj)] = used;
    // By CPU time alone both would have the same.
    assert!(cheap_ns.abs_diff(dear_ns) < cheap_ns.max(dear_ns) / 4, "{used:?}");
    assert!(dear_uj > DEARER * cheap_uj, "{used:?}");
    Dlpm::new(["verify"]).arg(&folder).run().exited(0);
}
