//! Filters by tenant: layouts of cgroups by name in the real tree, with processes in them.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use dlpm::sources::cgroups::CgroupTree;
use dlpm_tests::{
    cgroup::Cgroup,
    command::{Dlpm, NOBODY},
    log::{Log, number},
    powercap::{Powercap, node},
    require_dlpm,
    tenant::Tenant,
    tenant_program,
};
use serde_json::Value;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const POD: &str = "11111111_2222_3333_4444_555555555555";

/// Cgroups below each other, removed from the lowest on.
struct Nested(Vec<Cgroup>);

impl Nested {
    fn create(above: &Cgroup, path: &str) -> Self {
        let mut made: Vec<Cgroup> = Vec::new();
        for name in path.split('/') {
            let next = made.last().unwrap_or(above).create_inside(name);
            made.push(next);
        }
        made.reverse();
        Self(made)
    }

    fn deepest(&self) -> &Cgroup {
        &self.0[0]
    }

    fn process(&self) -> Tenant {
        let tenant = Tenant::named(tenant_program!(), "tenant", None, None);
        self.deepest().add(tenant.pid());
        tenant
    }
}

/// A trace that is to list exactly the processes of `listed`, of all that run meanwhile.
fn lists(arguments: &[String], listed: &[&Tenant]) -> Log {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let tree = Powercap::start(node());
    let mut dlpm = Dlpm::trace(&folder)
        .arg("--sysfs")
        .arg(tree.sysfs())
        .args(arguments)
        .start();
    dlpm.wait_for_samples(&folder, "enough intervals", |samples| samples.len() >= 5);
    dlpm.end_with(libc::SIGINT).exited(0);
    let log = Log::read(&folder);
    log.is_complete();
    let expected: BTreeSet<u32> = listed.iter().flat_map(|tenant| tenant.pids.iter().copied()).collect();
    let found: BTreeSet<u32> = log.listed().into_keys().collect();
    assert_eq!(found, expected, "{arguments:?}");
    assert!(log.cpu_ns("others") > 0 && log.energy_uj("process") > 0);
    for row in log.rows("process") {
        assert!(row["tenant"].is_string(), "{row}");
    }
    for (by, table) in [
        ("tenant", "tenants"),
        ("job", "jobs"),
        ("unit", "units"),
        ("user", "users"),
    ] {
        let rows = report(&folder, by, table);
        let sum: u64 = rows.values().sum();
        assert_eq!(sum, log.cpu_ns("process"), "{by}: {rows:?}");
    }
    let by_tenant = report(&folder, "tenant", "tenants");
    let of_log: BTreeSet<String> = log.rows("process").map(|row| text(&row["tenant"])).collect();
    assert_eq!(by_tenant.into_keys().collect::<BTreeSet<_>>(), of_log);
    log
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// CPU time by the name of the group, of a report of the log.
fn report(folder: &Path, by: &str, table: &str) -> BTreeMap<String, u64> {
    let ended = Dlpm::new(["report", "--format", "json", "--by", by])
        .arg(folder)
        .run()
        .exited(0);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let column = if by == "user" { "uid" } else { by };
    let rows = report[table].as_array().unwrap().iter();
    rows.map(|row| (text(&row[column]), number(&row["cpu_ns"]))).collect()
}

fn words(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|&argument| argument.to_owned()).collect()
}

#[test]
fn a_job_and_neither_its_neighbour_nor_a_lookalike() {
    require_dlpm!();
    let node = Cgroup::create("jobs");
    // Numbers of this test's own: the machine may have jobs.
    let (job, other) = (1_900_000_000 + process::id(), 1_800_000_000 + process::id());
    let scope = node.create_inside("n_slurmstepd.scope");
    let of_job = [
        Nested::create(&scope, &format!("job_{job}/step_batch/user/task_0")),
        Nested::create(&scope, &format!("job_{other}/step_0/user/task_0")),
    ];
    let step = Nested::create(&of_job[0].0[3], "step_0/user/task_0");
    let container = Nested::create(&step.0[1], &format!("libpod-{ID}"));
    // Whoever owns a directory makes in it what they like.
    let own = node.create_inside("own");
    let mount = find_mount();
    chown(mount.join(&own.path()[1..]), Some(NOBODY), Some(NOBODY)).unwrap();
    let lookalike = Nested::create(&own, &format!("n_slurmstepd.scope/job_{job}/step_0"));
    let [batch, neighbour, task, inside, false_one] =
        [&of_job[0], &of_job[1], &step, &container, &lookalike].map(Nested::process);
    let before = of_job[0].0[3].usage_ns();
    let log = lists(&words(&["--job", &job.to_string()]), &[&batch, &task, &inside]);
    let used = of_job[0].0[3].usage_ns() - before;
    let listed = log.cpu_ns("process");
    // The container in it is a tenant of its own, and the job's.
    let tenants: BTreeSet<String> = log.rows("process").map(|row| text(&row["tenant"])).collect();
    assert_eq!(tenants, [format!("slurm:{job}"), format!("podman:{ID}")].into());
    let of_container = |row: &&Value| row["inside"] == serde_json::json!([format!("slurm:{job}")]);
    assert!(log.rows("process").any(|row| of_container(&row)));
    // All that the kernel counted for the job lies around the trace.
    assert!(listed > 0 && listed <= used + used / 50, "{listed} of {used} ns");
    drop([batch, neighbour, task, inside, false_one]);
    drop((container, lookalike, step));
}

fn find_mount() -> PathBuf {
    let tree = CgroupTree::find(Path::new("/proc")).unwrap();
    tree.mount_point().to_owned()
}

#[test]
fn each_layout_by_its_kind_and_id() {
    require_dlpm!();
    let node = Cgroup::create("layouts");
    let layouts = [
        (
            "slurmstepd.scope/job_1900000001/step_0/user/task_0",
            "slurm:1900000001".to_owned(),
        ),
        (
            "slurm_n/uid_0/job_1900000002/step_0/task_0",
            "slurm:1900000002".to_owned(),
        ),
        ("oar/alice_1900000003", "oar:1900000003".to_owned()),
        (
            "pbs_jobs.service/jobs/1900000004.server",
            "pbs:1900000004.server".to_owned(),
        ),
        ("htcondor/condor_dlpm_slot1", "htcondor:condor_dlpm_slot1".to_owned()),
        (
            &format!("kubepods.slice/kubepods-pod{POD}.slice/cri-containerd-{ID}.scope"),
            format!("kubernetes:{ID}"),
        ),
        (
            &format!("kubepods/besteffort/pod22222222-2222/{ID}"),
            format!("kubernetes:{ID}"),
        ),
        (&format!("docker-{ID}.scope"), format!("docker:{ID}")),
        (&format!("libpod-{ID}.scope/container"), format!("podman:{ID}")),
        (&format!("crio-{ID}.scope"), format!("crio:{ID}")),
        ("lxc.payload.dlpm-test", "lxc:dlpm-test".to_owned()),
        (
            r"machine-qemu\x2d3\x2ddlpm\x2dtest.scope",
            "libvirt:dlpm-test".to_owned(),
        ),
        (
            "dlpm-test.slice/dlpm-test-a.service",
            "unit:dlpm-test-a.service".to_owned(),
        ),
    ];
    let made: Vec<Nested> = layouts.iter().map(|(path, _)| Nested::create(&node, path)).collect();
    let processes: Vec<Tenant> = made.iter().map(Nested::process).collect();
    let beside = Nested::create(&node, "dlpm-test.slice2/dlpm-test-b.service");
    let other = beside.process();
    let arguments: Vec<String> = layouts
        .iter()
        .flat_map(|(_, tenant)| ["--tenant".to_owned(), tenant.clone()])
        .collect();
    lists(&arguments, &processes.iter().collect::<Vec<_>>());
    // A unit by its name, which `--comm` narrows.
    let unit = words(&["--unit", "dlpm-test-a", "--comm", "^tenant$"]);
    lists(&unit, &[processes.last().unwrap()]);
    drop((processes, other));
}

#[test]
fn a_container_that_is_soon_gone_by_its_name() {
    require_dlpm!();
    let rootfs = tempfile::tempdir().unwrap();
    let name = "dlpm-test-web";
    let config = rootfs.path().join(format!("var/lib/docker/containers/{ID}"));
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    let node = Cgroup::create("short");
    // An interval that does not end before the container's file is gone.
    let mut dlpm = Dlpm::new(["trace", "--interval", "1h", "--container", name, "--rootfs"])
        .arg(rootfs.path())
        .arg("--output")
        .arg(&folder)
        .start();
    dlpm.wait_for_lines(&folder, 1);
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.v2.json"), format!("{{\"Name\": \"/{name}\"}}")).unwrap();
    let container = Nested::create(&node, &format!("docker-{ID}.scope"));
    let tenant = container.process();
    std::thread::sleep(Duration::from_millis(300));
    let pids = tenant.pids.clone();
    drop(tenant);
    container.deepest().wait_until_empty();
    drop(container);
    // It is looked for within 100 ms; on a busy machine later.
    std::thread::sleep(Duration::from_secs(2));
    fs::remove_dir_all(rootfs.path().join("var")).unwrap();
    dlpm.end_with(libc::SIGINT).exited(0);
    let log = Log::read(&folder);
    let listed: Vec<u32> = log.listed().into_keys().collect();
    assert_eq!(listed, pids);
}

/// Where Slurm or a runtime keeps to version 1, the paths of version 2 say nothing.
#[test]
fn a_job_in_a_version_1_hierarchy() {
    require_dlpm!();
    let hierarchy = Path::new("/sys/fs/cgroup/cpu");
    if !hierarchy.join("cgroup.procs").exists() || !hierarchy.join("tasks").exists() {
        return;
    }
    let job = 1_700_000_000 + process::id();
    let slurm = hierarchy.join(format!("slurm_dlpm-test-{}", process::id()));
    let step = slurm.join(format!("uid_0/job_{job}/step_0"));
    fs::create_dir_all(&step).unwrap();
    let tenant = Tenant::named(tenant_program!(), "tenant", None, None);
    fs::write(step.join("cgroup.procs"), tenant.pid().to_string()).unwrap();
    lists(&words(&["--job", &job.to_string()]), &[&tenant]);
    drop(tenant);
    for directory in step.ancestors().take(4) {
        for _ in 0..200 {
            if fs::remove_dir(directory).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn what_stands_for_nothing_is_refused() {
    for (option, value, said) in [
        ("--pod", "web-0", "NAMESPACE/NAME"),
        ("--tenant", "4711", "KIND:ID"),
        ("--tenant", "slurn:4711", "slurm"),
        ("--job", "", "empty name"),
    ] {
        let ended = Dlpm::new(["trace", option, value]).run().exited(2);
        assert!(ended.stderr.contains(said), "{option} {value}: {}", ended.stderr);
    }
}
