//! Which processes a filter lists: exactly the matching ones; the rest is `others`, and both laws close.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use dlpm_tests::{
    cgroup::Cgroup,
    command::{Dlpm, NOBODY},
    log::{LOG_NAME, Log, number},
    powercap::{Powercap, node},
    require_dlpm,
    tenant::Tenant,
    tenant_program,
    worker::cpu_clock_ns,
};
use serde_json::Value;
use tempfile::TempDir;

/// Every key of AIPowerMeter on a machine with all zones, without GPU.
const KEYS: [&str; 18] = [
    "per_process_cpu_uses",
    "absolute_cpu_time_per_pid",
    "per_process_mem_use_abs",
    "per_process_mem_use_percent",
    "per_process_mem_use_uss",
    "total_mem_use",
    "intel_power",
    "psys_power",
    "total_dram_power",
    "total_cpu_power",
    "uncore_power",
    "rel_intel_power",
    "per_process_cpu_power",
    "per_process_dram_power",
    "cpu_uses",
    "mem_use_abs",
    "mem_use_percent",
    "mem_use_uss",
];

fn tenant(name: &str) -> Tenant {
    Tenant::named(tenant_program!(), name, None, None)
}

/// Traces while a tree of counters moves, for some 0.6 s.
fn trace(arguments: &[&str]) -> Log {
    trace_beside(arguments, &[], |_| true).0
}

/// The same until its intervals are also `enough`, with the CPU time that processes used meanwhile, by the kernel's own
/// clocks and within the trace.
fn trace_beside(arguments: &[&str], pids: &[u32], enough: impl Fn(&[Value]) -> bool) -> (Log, Vec<u64>) {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let tree = Powercap::start(node());
    let mut dlpm = Dlpm::trace(&folder)
        .arg("--sysfs")
        .arg(tree.sysfs())
        .args(arguments)
        .start();
    dlpm.wait_for_lines(&folder, 1);
    let clocks = || -> Vec<u64> { pids.iter().map(|pid| cpu_clock_ns(*pid)).collect() };
    let before = clocks();
    dlpm.wait_for_samples(&folder, "enough intervals", |samples| {
        samples.len() >= 13 && enough(samples)
    });
    let used = clocks()
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect();
    dlpm.end_with(libc::SIGINT).exited(0);
    let log = Log::read(&folder);
    log.is_complete();
    (log, used)
}

/// All rows of these intervals.
fn rows(samples: &[Value]) -> impl Iterator<Item = &Value> {
    samples
        .iter()
        .flat_map(|sample| sample["dlpm"]["rows"].as_array().into_iter().flatten())
}

fn listed(log: &Log) -> BTreeSet<u32> {
    log.listed().into_keys().collect()
}

fn pids(tenants: &[&Tenant]) -> BTreeSet<u32> {
    tenants.iter().flat_map(|tenant| tenant.pids.iter().copied()).collect()
}

#[test]
fn a_slice_with_its_children_and_none_beside_it() {
    require_dlpm!();
    let node = Cgroup::create("node");
    let slice = node.create_inside("train.slice");
    let child = slice.create_inside("job1");
    let grandchild = child.create_inside("worker");
    // Names that only end or begin in the same way.
    let beside = node.create_inside("x-train.slice");
    let longer = node.create_inside("train.slicer");
    let tenants = [&slice, &child, &grandchild, &beside, &longer].map(|cgroup| {
        let tenant = tenant("tenant");
        cgroup.add(tenant.pid());
        tenant
    });
    let [a, b, c, d, e] = &tenants;

    // Each has its figures: memory is read about once a second, and on a busy machine some have long not run.
    let figured = pids(&[a, b, c]);
    let has_figure = |samples: &[Value], key: &str, pid: &str| {
        let mut figures = samples
            .iter()
            .filter_map(|sample| sample["metrics"]["cpu"][key].get(pid)?.as_f64());
        figures.any(|figure| figure > 0.0)
    };
    let (log, used) = trace_beside(&["--cgroup", &slice.path()[1..]], &[d.pid(), e.pid()], |samples| {
        let maps = KEYS
            .iter()
            .filter(|key| samples[0]["metrics"]["cpu"][**key].is_object());
        let each = maps.flat_map(|key| figured.iter().map(move |pid| (key, pid.to_string())));
        each.clone().count() > 0 && each.clone().all(|(key, pid)| has_figure(samples, key, &pid))
    });
    assert_eq!(listed(&log), pids(&[a, b, c]));
    for (tenant, cgroup) in [(a, &slice), (b, &child), (c, &grandchild)] {
        let mut rows = log.rows("process").filter(|row| row["tgid"] == tenant.pid()).peekable();
        assert!(rows.peek().is_some());
        assert!(rows.all(|row| row["cgroup"] == cgroup.path()), "{}", cgroup.path());
    }
    // A tenth for the switches, which the kernel's clocks of processes charge elsewhere.
    let used: u64 = used.iter().sum();
    assert!(
        log.cpu_ns("others") * 10 >= used * 9,
        "{} of {used} ns",
        log.cpu_ns("others")
    );
    assert!(log.energy_uj("others") > 0 && log.energy_uj("process") > 0);
    for key in KEYS {
        assert!(
            log.samples.iter().all(|sample| sample.cpu.contains_key(key)),
            "{key} is missing"
        );
    }
    drop(tenants);
}

#[test]
fn a_path_below_the_mount_is_the_same_cgroup() {
    require_dlpm!();
    let slice = Cgroup::create("by-path");
    let tenant = tenant("tenant");
    slice.add(tenant.pid());
    assert_eq!(listed(&trace(&["--cgroup", slice.path()])), pids(&[&tenant]));
}

#[test]
fn python_under_any_of_its_names() {
    require_dlpm!();
    let here = Cgroup::create("python");
    let python = tenant("python3.11");
    let renamed = Tenant::named(tenant_program!(), "python", Some("pt_main_thread"), None);
    let decoys = [
        tenant("pyton"),
        tenant("perl"),
        Tenant::named(tenant_program!(), "perl", Some("thread:python"), None),
    ];
    for tenant in decoys.iter().chain([&python, &renamed]) {
        here.add(tenant.pid());
    }

    let log = trace(&["--comm", "python"]);
    for row in log.rows("process") {
        let is_python = |name: &str| row[name].as_str().unwrap().contains("python");
        assert!(is_python("comm") || is_python("exec_comm"), "{row}");
    }
    let found = listed(&log);
    assert!(found.is_superset(&pids(&[&python, &renamed])), "{found:?}");
    assert!(found.is_disjoint(&pids(&decoys.each_ref())), "{found:?}");
    let row = log.rows("process").find(|row| row["tgid"] == renamed.pid()).unwrap();
    assert_eq!(
        (row["comm"].as_str(), row["exec_comm"].as_str()),
        (Some("pt_main_thread"), Some("python"))
    );
    assert!(log.cpu_ns("others") > 0 && log.energy_uj("others") > 0);

    // Other filters narrow: whatever else is called python on this machine is not in that cgroup.
    assert_eq!(
        listed(&trace(&["--comm", "python", "--cgroup", here.path()])),
        pids(&[&python, &renamed])
    );
    // Values of one filter are alternatives.
    let log = trace(&["--comm", "^pyton$", "--comm", "^python3", "--cgroup", here.path()]);
    assert_eq!(listed(&log), pids(&[&decoys[0], &python]));
    let log = trace(&[
        "--comm",
        "python",
        "--cgroup",
        here.path(),
        "--pid",
        &renamed.pid().to_string(),
    ]);
    assert_eq!(listed(&log), pids(&[&renamed]));
}

#[test]
fn the_processes_of_a_user() {
    require_dlpm!();
    let here = Cgroup::create("uid");
    let of_root = tenant("tenant");
    let of_nobody = Tenant::named(tenant_program!(), "tenant", None, Some(NOBODY));
    here.add(of_root.pid());
    here.add(of_nobody.pid());
    let log = trace(&["--uid", &NOBODY.to_string()]);
    assert!(listed(&log).contains(&of_nobody.pid()));
    assert!(log.rows("process").all(|row| row["uid"] == NOBODY));
    assert_eq!(
        listed(&trace(&["--uid", "root", "--cgroup", here.path()])),
        pids(&[&of_root])
    );
}

/// Starts a shell with this script, in which `$TENANT` says how a tenant is started.
fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script])
        .env("TENANT", format!("{} 1000 9000", tenant_program!().display()));
    command
}

#[test]
fn a_pid_with_all_its_descendants() {
    require_dlpm!();
    let here = Cgroup::create("tree");
    let outside = tenant("tenant");
    let tree = Tenant::start(
        shell("$TENANT 60000 & /bin/sh -c '$TENANT 60000; true' & wait; true"),
        2,
    );
    for pid in &tree.pids {
        here.add(*pid);
    }
    here.add(outside.pid());
    let found = listed(&trace(&["--pid", &tree.pid().to_string()]));
    let tenants: BTreeSet<u32> = tree.pids.iter().copied().filter(|pid| *pid != tree.pid()).collect();
    assert_eq!(tenants.len(), 2);
    assert!(
        found.is_superset(&tenants) && !found.contains(&outside.pid()),
        "{found:?}, not {tenants:?}"
    );
}

#[test]
fn a_command_with_a_daemon_that_forks_twice() {
    require_dlpm!();
    let outside = tenant("tenant");
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    // Nobody's child but init's when the shells in between are gone.
    let script = format!(
        "/bin/sh -c '{} 2000 4000 3000 detached >/dev/null & exit 0'; sleep 0.1; read end; exit 3",
        tenant_program!().display()
    );
    let mut dlpm = Dlpm::trace(&folder)
        .args(["--", "/bin/sh", "-c", &script])
        .piped_input()
        .start();
    dlpm.wait_for_samples(&folder, "the daemon's CPU time", |samples| {
        let detached = rows(samples).filter(|row| row["comm"] == "detached");
        detached.map(|row| number(&row["cpu_ns"])).sum::<u64>() > 12_000_000
    });
    dlpm.say("\n");
    let output = dlpm.wait().exited(3);
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains("detached"), "{}", output.stderr);
    let log = Log::read(&folder);
    let found = log.listed();
    assert!(!found.contains_key(&outside.pid()), "{found:?}");
    let detached = log.rows("process").filter(|row| row["comm"] == "detached");
    assert!(detached.map(|row| number(&row["cpu_ns"])).sum::<u64>() > 12_000_000);
    assert!(found.values().flatten().any(|name| name == "sleep"), "{found:?}");
}

#[test]
fn a_filter_that_matches_nothing_yet_waits() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let mut dlpm = Dlpm::trace(&folder).args(["--comm", "^late-comer$"]).start();
    dlpm.wait_for_lines(&folder, 3);
    let late = tenant("late-comer");
    let log = folder.join(LOG_NAME);
    dlpm.wait_until("the late process", || {
        fs::read_to_string(&log).unwrap().contains("\"late-comer\"")
    });
    dlpm.end_with(libc::SIGINT).exited(0);
    assert_eq!(listed(&Log::read(&folder)), pids(&[&late]));
}

#[test]
fn what_has_no_row_of_its_own_is_merged_by_cgroup() {
    require_dlpm!();
    let parent = Cgroup::create("merged");
    let groups = [parent.create_inside("a"), parent.create_inside("b")];
    let tenants: Vec<Tenant> = (0..6).map(|_| tenant("tenant")).collect();
    for (index, tenant) in tenants.iter().enumerate() {
        groups[index % 2].add(tenant.pid());
    }
    let log = trace(&["--cgroup", parent.path(), "--max-rows", "2"]);
    let mut merged = 0;
    for sample in &log.samples {
        let rows = |kind: &str| sample.rows().iter().filter(|row| row["row"] == kind).count();
        assert!(rows("process") <= 2, "{sample:?}");
        merged += rows("merged");
    }
    assert!(merged > 0);
    for row in log.rows("merged") {
        assert!(groups.iter().any(|group| row["cgroup"] == group.path()), "{row}");
        assert!(number(&row["processes"]) >= 1 && row.get("tgid").is_none(), "{row}");
    }
}

#[test]
fn memory_of_the_largest_consumers_without_a_filter() {
    require_dlpm!();
    let tenants: Vec<Tenant> = (0..3).map(|_| tenant("tenant")).collect();
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let mut dlpm = Dlpm::trace(&folder).start();
    // It is chosen once a second whose memory is read.
    let is_read = |row: &Value, tenant: &Tenant| {
        let memory = |field: &str| row["memory"][field].is_u64();
        row["tgid"] == tenant.pid() && memory("pss_bytes") && memory("uss_bytes")
    };
    dlpm.wait_for_samples(&folder, "memory of each", |samples| {
        let mut each = tenants.iter();
        samples.len() >= 45 && each.all(|tenant| rows(samples).any(|row| is_read(row, tenant)))
    });
    dlpm.end_with(libc::SIGINT).exited(0);
    let log = Log::read(&folder);
    for sample in &log.samples {
        let read = sample.rows().iter().filter(|row| row.get("memory").is_some()).count();
        assert!(read <= 50, "memory of {read} processes");
    }
    for tenant in &tenants {
        let row = log.rows("process").find(|row| is_read(row, tenant)).unwrap();
        let bytes = |field: &str| number(&row["memory"][field]);
        assert!(
            bytes("uss_bytes") > 0 && bytes("uss_bytes") <= bytes("pss_bytes"),
            "{row}"
        );
        assert!(bytes("pss_bytes") <= bytes("rss_bytes"), "{row}");
    }
}

#[test]
fn the_aliases_can_be_left_out() {
    require_dlpm!();
    let directory: TempDir = tempfile::tempdir().unwrap();
    let folder: &Path = &directory.path().join("log");
    Dlpm::trace(folder)
        .args(["--duration", "200ms", "--no-aliases"])
        .run()
        .exited(0);
    let log = Log::read(folder);
    assert!(log.samples.iter().all(|sample| !sample.cpu.contains_key("cpu_uses")));
}
