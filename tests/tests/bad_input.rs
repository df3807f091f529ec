//! Every way to ask for what cannot be had: one paragraph with the next step, an exit code, and nothing left behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use dlpm_tests::{
    cgroup::Cgroup,
    command::{Dlpm, NOBODY, Output, give, world_readable},
    log::{LOG_NAME, Log},
    powercap::{Powercap, node},
    require_dlpm,
};
use tempfile::TempDir;

/// Numbers of `include/uapi/linux/capability.h`.
const CAP_DAC_OVERRIDE: libc::c_ulong = 1;
const CAP_DAC_READ_SEARCH: libc::c_ulong = 2;
const CAP_SYS_ADMIN: libc::c_ulong = 21;
const CAP_PERFMON: libc::c_ulong = 38;
const CAP_BPF: libc::c_ulong = 39;

/// Where a trace would write, and must not.
struct Nowhere {
    directory: TempDir,
}

impl Nowhere {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        world_readable(&directory);
        Self { directory }
    }

    fn folder(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn trace(&self) -> Dlpm {
        Dlpm::trace(&self.folder()).args(["--duration", "1s"])
    }

    /// Asserts the failure, with 1 and, where a command would have been traced, 125.
    #[track_caller]
    fn fails(&self, prepare: impl Fn(Dlpm) -> Dlpm, parts: &[&str]) {
        prepare(self.trace()).run().fails(1, parts);
        let marker = self.directory.path().join("started");
        prepare(self.trace())
            .args(["--", "/bin/touch"])
            .arg(&marker)
            .run()
            .fails(125, parts);
        assert!(!marker.exists(), "the command was started");
        assert!(!self.folder().exists(), "a folder was left behind");
    }

    /// Asserts that the command line itself is refused.
    #[track_caller]
    fn is_refused(&self, arguments: &[&str], parts: &[&str]) {
        let dlpm = Dlpm::new(["trace", "--output"]).arg(self.folder());
        let Output { stdout, stderr, .. } = dlpm.args(arguments).run().exited(2).says(parts);
        assert!(stdout.is_empty() && stderr.starts_with("error: "), "{stderr}");
        assert!(!self.folder().exists(), "a folder was left behind");
    }
}

/// A `/proc` of files, with these mounts.
fn procfs(mounts: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("self")).unwrap();
    fs::create_dir_all(root.path().join("sys/kernel")).unwrap();
    fs::write(root.path().join("self/mountinfo"), mounts).unwrap();
    root
}

#[test]
fn not_root() {
    require_dlpm!();
    let nowhere = Nowhere::new();
    nowhere.fails(|dlpm| dlpm.as_user(NOBODY), &["user 65534", "sudo dlpm", "CAP_BPF"]);
}

#[test]
fn root_without_its_capabilities() {
    require_dlpm!();
    let nowhere = Nowhere::new();
    nowhere.fails(
        |dlpm| dlpm.without_capabilities(&[CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF]),
        &["runs as root", "--privileged"],
    );
}

#[test]
fn a_kernel_that_is_too_old() {
    require_dlpm!();
    let nowhere = Nowhere::new();
    let proc = procfs("");
    fs::write(proc.path().join("sys/kernel/osrelease"), "5.4.0-generic\n").unwrap();
    nowhere.fails(|dlpm| dlpm.arg("--procfs").arg(proc.path()), &["5.4.0-generic", "5.10"]);
}

#[test]
fn no_cgroup_v2() {
    require_dlpm!();
    let nowhere = Nowhere::new();
    let proc = procfs("30 20 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n");
    nowhere.fails(
        |dlpm| dlpm.arg("--procfs").arg(proc.path()),
        &["cgroup v2", "mount -t cgroup2"],
    );
}

#[test]
fn roots_that_are_no_directories() {
    require_dlpm!();
    let nowhere = Nowhere::new();
    for option in ["--procfs", "--sysfs"] {
        nowhere.fails(|dlpm| dlpm.args([option, "/no/such/tree"]), &[option, "/no/such/tree"]);
    }
}

#[test]
fn an_unknown_cgroup_with_those_that_are_near() {
    require_dlpm!();
    let nowhere = Nowhere::new();
    let there = Cgroup::create("training.slice");
    let misspelt = there.path()[1..].replace("training", "trainign");
    nowhere.fails(
        |dlpm| dlpm.args(["--cgroup", &misspelt]),
        &["no cgroup", "Did you mean", there.path()],
    );
    for odd in ["", "../..", "/no/such/cgroup/at/all"] {
        nowhere.fails(|dlpm| dlpm.args(["--cgroup", odd]), &["no cgroup", "find /"]);
    }
}

#[test]
fn an_ambiguous_cgroup_with_the_candidates() {
    require_dlpm!();
    let nowhere = Nowhere::new();
    let parents = [Cgroup::create("a"), Cgroup::create("b")];
    let children = parents.each_ref().map(|parent| parent.create_inside("twin.slice"));
    let paths = children.each_ref().map(Cgroup::path);
    nowhere.fails(
        |dlpm| dlpm.args(["--cgroup", "twin.slice"]),
        &["2 cgroups", paths[0], paths[1], "leading `/`"],
    );
    // The last parts of the path tell them apart.
    let enough = &paths[0][1..];
    Dlpm::trace(&nowhere.folder())
        .args(["--duration", "50ms", "--cgroup", enough])
        .run()
        .exited(0);
    drop(children);
}

#[test]
fn a_cgroup_of_version_1_only() {
    require_dlpm!();
    let nowhere = Nowhere::new();
    // A hierarchy of plain folders, which every machine can have.
    let v1 = tempfile::tempdir().unwrap();
    fs::create_dir(v1.path().join("old.slice")).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let v2: String = mounts
        .lines()
        .filter(|line| line.contains(" - cgroup2 "))
        .map(|line| format!("{line}\n"))
        .collect();
    let proc = procfs(&format!(
        "{v2}30 20 0:26 / {} rw - cgroup cgroup rw,memory\n",
        v1.path().display()
    ));
    nowhere.fails(
        |dlpm| dlpm.args(["--cgroup", "old.slice", "--procfs"]).arg(proc.path()),
        &["v1 hierarchy only", "old.slice", "cgroup.procs"],
    );
    // The machine's own, if it has one.
    let Some(mount) = mounts
        .lines()
        .find(|line| line.contains(" - cgroup cgroup "))
        .and_then(|line| line.split(' ').nth(4))
    else {
        return;
    };
    let group = V1Group(Path::new(mount).join(format!("dlpm-test-v1-{}", std::process::id())));
    fs::create_dir(&group.0).unwrap();
    let name = group.0.file_name().unwrap().to_str().unwrap();
    nowhere.fails(|dlpm| dlpm.args(["--cgroup", name]), &["v1 hierarchy only", mount]);
    nowhere.fails(|dlpm| dlpm.arg("--cgroup").arg(&group.0), &["v1 hierarchy only", mount]);
}

struct V1Group(PathBuf);

impl Drop for V1Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn processes_and_users_that_are_not_there() {
    require_dlpm!();
    let nowhere = Nowhere::new();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let pid = gone.id().to_string();
    nowhere.fails(|dlpm| dlpm.args(["--pid", &pid]), &[&pid, "gone", "pgrep"]);
    nowhere.fails(|dlpm| dlpm.args(["--uid", "no-such-user"]), &["no-such-user", "--uid"]);
    nowhere.fails(|dlpm| dlpm.args(["--uid", "4294967295"]), &["4294967295", "--uid"]);
}

#[test]
fn what_cannot_be_understood() {
    require_dlpm!();
    let nowhere = Nowhere::new();
    for (arguments, parts) in [
        (["--comm", "py(thon"], ["unclosed group", "backslash"]),
        (["--comm", ""], ["empty pattern", "--comm"]),
        (["--pid", "0"], ["--pid", "0"]),
        (["--pid", "python"], ["--pid", "python"]),
        (["--interval", "0s"], ["--interval", "traces nothing"]),
        (["--interval", "1us"], ["10ms", "1h"]),
        (["--interval", "9999h"], ["10ms", "1h"]),
        (["--interval", "-1s"], ["--interval", "negative"]),
        (["--interval", "5"], ["--interval", "unit"]),
        (["--estimate", "40"], ["idle=20,busy=3.5", "`40`"]),
        (["--estimate", "idle=40,busy=-1"], ["idle=20,busy=3.5", "-1"]),
        (["--estimate", "idle=40"], ["idle=20,busy=3.5", "`busy` is missing"]),
        (["--max-rows", "0"], ["--max-rows", "0"]),
    ] {
        nowhere.is_refused(&arguments, &parts);
    }
    nowhere.is_refused(&["--append", "--overwrite"], &["--append", "--overwrite"]);
    nowhere.is_refused(&["--as-root"], &["COMMAND"]);
}

#[test]
fn folders_that_cannot_be_written() {
    require_dlpm!();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "something of mine").unwrap();
    for folder in [file.clone(), file.join("below")] {
        Dlpm::trace(&folder).run().fails(1, &["file", "--output"]);
        Dlpm::trace(&folder)
            .args(["--", "true"])
            .run()
            .fails(125, &["file", "--output"]);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "something of mine");
    Dlpm::trace(Path::new("/proc/dlpm-log"))
        .run()
        .fails(1, &["/proc/dlpm-log", "--output"]);
    // A folder that holds a folder where the log should be.
    let odd = directory.path().join("odd");
    fs::create_dir_all(odd.join(LOG_NAME)).unwrap();
    Dlpm::trace(&odd).run().fails(1, &[LOG_NAME, "folder"]);
}

#[test]
fn energy_counters_that_cannot_be_read() {
    require_dlpm!();
    let nowhere = Nowhere::new();
    let mut tree = Powercap::start(node());
    tree.stop();
    let counters: Vec<PathBuf> = [
        "intel-rapl:0",
        "intel-rapl:0:0",
        "intel-rapl:0:1",
        "intel-rapl:0:2",
        "intel-rapl:1",
    ]
    .map(|zone| tree.directory(zone).join("energy_uj"))
    .to_vec();
    // Of another user, for a root that may not look at those.
    for counter in &counters {
        give(counter, NOBODY);
        fs::set_permissions(counter, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    }
    nowhere.fails(
        |dlpm| {
            dlpm.arg("--sysfs")
                .arg(tree.sysfs())
                .without_capabilities(&[CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH])
        },
        &["energy_uj", "Permission denied", "CAP_DAC_READ_SEARCH"],
    );
    for counter in &counters {
        fs::write(counter, "many\n").unwrap();
    }
    nowhere.fails(
        |dlpm| dlpm.arg("--sysfs").arg(tree.sysfs()),
        &["energy_uj", "`many`", "--sysfs"],
    );
    // An estimate is used where nothing else can be split; the meter that is there and broken is named all the same.
    Dlpm::trace(&nowhere.folder())
        .args(["--duration", "100ms", "--estimate", "idle=1,busy=1", "--sysfs"])
        .arg(tree.sysfs())
        .run()
        .exited(0)
        .says(&[
            "energy_uj",
            "`many`",
            "--sysfs",
            "every figure of energy is an estimate",
        ]);
}

#[test]
fn inside_another_namespace_it_says_what_it_cannot_see() {
    require_dlpm!();
    let nowhere = Nowhere::new();
    Dlpm::trace(&nowhere.folder())
        .args(["--duration", "100ms"])
        .in_cgroup_namespace()
        .run()
        .exited(0)
        .says(&["cgroup namespace", "--cgroupns=host"]);
    assert!(
        Log::read(&nowhere.folder()).metadata["dlpm"]["notes"]
            .to_string()
            .contains("cgroup namespace")
    );
}

#[test]
fn inside_another_pid_namespace_too() {
    require_dlpm!();
    let nowhere = Nowhere::new();
    Dlpm::trace(&nowhere.folder())
        .args(["--duration", "100ms"])
        .in_pid_namespace()
        .run()
        .exited(0)
        .says(&["pid namespace", "--pid=host"]);
    // CPU time is exact all the same.
    Log::read(&nowhere.folder()).is_complete();
}

#[test]
fn doctor_lists_every_source_and_hook() {
    require_dlpm!();
    let tree = Powercap::start(node());
    let output = Dlpm::new(["doctor", "--sysfs"]).arg(tree.sysfs()).run().exited(0);
    for part in [
        "kernel",
        "topology",
        "CPU time",
        "identity",
        "cgroups",
        "memory",
        "energy powercap        found; counting: package-0, package-0/core, package-0/uncore, dram-0, psys; can be split: \
         package-0, package-0/core, package-0/uncore, dram-0\n",
        "package-0: counts; split by CPU time",
        "package-0/core: counts; split by CPU time",
        "dram-0: counts; split by memory",
        "psys: counts; shown, and never split",
        "energy perf            not found: ",
        "energy estimate        is available everywhere",
        "energy of a trace      energy is measured: the kernel's powercap zones",
        "idle floor",
        "sched_switch",
        "sched_wakeup_new",
        "sched_process_exec",
        "task_rename",
        "sched_process_exit",
        "can trace",
    ] {
        assert!(output.stdout.contains(part), "no `{part}` in:\n{}", output.stdout);
    }
    assert!(!output.stdout.contains("BROKEN"), "{}", output.stdout);

    let none = Powercap::start(Vec::new());
    let output = Dlpm::new(["doctor", "--sysfs"]).arg(none.sysfs()).run().exited(0);
    let energy = output
        .stdout
        .lines()
        .find(|line| line.contains("energy counter"))
        .unwrap();
    assert!(energy.contains("missing") && energy.contains("--estimate"), "{energy}");

    let output = Dlpm::new(["doctor"]).as_user(NOBODY).run().exited(1);
    for part in ["BROKEN", "sudo dlpm", "cannot trace"] {
        assert!(output.stdout.contains(part), "no `{part}` in:\n{}", output.stdout);
    }
}
