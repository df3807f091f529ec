//! dlpm as people use it: a trace of a command, what is read back from its log, and the agent.

use std::{collections::BTreeMap, path::Path};

use crate::{
    agent,
    command::Dlpm,
    log::{LOG_NAME, Log, number},
    powercap::{Powercap, node},
};

/// Work of a shell, without a clock in it.
const WORK: &str = "i=0; while [ $i -lt 30000 ]; do i=$((i + 1)); done";

/// Traces work of a shell into a folder; its joules are what the options say.
fn trace(folder: &Path, options: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>) -> Log {
    let output = Dlpm::trace(folder).args(options).args(["--", "sh", "-c", WORK]).run();
    println!("{}{}", output.stdout, output.stderr);
    output.exited(0);
    let log = Log::read(folder);
    log.is_complete();
    log
}

/// CPU time in ns, and energy in µJ, of each process of the log, by name and pid.
fn processes(log: &Log) -> BTreeMap<(String, u64), (u64, u64)> {
    let mut processes = BTreeMap::<_, (u64, u64)>::new();
    for row in log.rows("process") {
        let name = row["comm"].as_str().unwrap_or_default().to_owned();
        let sums = processes.entry((name, number(&row["tgid"]))).or_default();
        sums.0 += number(&row["cpu_ns"]);
        let energy = row["energy_uj"].as_object().into_iter().flatten();
        sums.1 += energy.map(|(_, energy_uj)| number(energy_uj)).sum::<u64>();
    }
    processes
}

/// `trace`, `verify`, `report`, `doctor` and `agent`.
pub fn commands() {
    let folder = agent::folder();
    let output = folder.path().join("log");
    let mut tree = Powercap::paced_by(node(), &output.join(LOG_NAME));
    let log = trace(&output, ["--sysfs".as_ref(), tree.sysfs().as_os_str()]);
    let processes = processes(&log);
    println!("{processes:?}");
    assert!(
        processes
            .iter()
            .any(|((name, _), (cpu_ns, energy_uj))| name == "sh" && *cpu_ns > 0 && *energy_uj > 0),
        "the shell has no row with time and energy"
    );
    let verified = Dlpm::new(["verify"]).arg(&output).run().exited(0);
    assert!(verified.stdout.contains("close in all of them"), "{}", verified.stdout);
    let report = Dlpm::new(["report"])
        .arg(&output)
        .args(["--by", "process"])
        .run()
        .exited(0);
    println!("{}", report.stdout);
    assert!(report.stdout.contains("sh"), "the report names no shell");
    tree.stop();

    let doctor = Dlpm::new(["doctor"]).run().exited(0);
    println!("{}", doctor.stdout);
    let foreign = if cfg!(target_arch = "x86_64") {
        "smpro-hwmon"
    } else {
        "intel_rapl"
    };
    assert!(!doctor.stdout.contains(foreign), "advice for another processor");

    let tree = Powercap::start(node());
    let mut running = agent::agent(&tree, folder.path()).start();
    let kept = agent::wait_for_intervals(&mut running, folder.path(), 3);
    kept.adds_up();
    running.end_with(libc::SIGTERM).exited(0);
}

/// Says the CPU time of every process that was traced. In a machine whose clock counts instructions it is always the same.
pub fn repeats() {
    let folder = agent::folder();
    let log = trace(&folder.path().join("log"), ["--estimate", "idle=40,busy=12"]);
    let processes = processes(&log);
    let shell_ns = processes
        .iter()
        .filter(|((name, _), _)| name == "sh")
        .map(|(_, (cpu_ns, _))| *cpu_ns);
    assert!(
        shell_ns.sum::<u64>() > 1_000_000,
        "the shell has no CPU time: {processes:?}"
    );
    for ((name, tgid), (cpu_ns, energy_uj)) in processes {
        super::figure(&format!("{name} {tgid}: {cpu_ns} ns, {energy_uj} µJ"));
    }
}
