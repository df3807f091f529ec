//! Units of systemd, of the system and of a user, and logins.

use std::fs;

use super::{
    metered::{Wanted, cgroup_of, finished},
    shell::{sh, sh_as},
};

/// systemd is the first process, and everything that is enabled has started.
pub fn boots() {
    assert_eq!(sh("systemctl is-system-running --wait"), "running");
    assert_eq!(sh("stat -f -c %T /sys/fs/cgroup"), "cgroup2fs");
    sh("systemd-analyze");
}

/// A service, one of a template, one in a slice with a name that has to be escaped, a scope, and what a timer starts.
pub fn units() {
    let unit = |name: &str, text: &str| fs::write(format!("/etc/systemd/system/{name}"), text).unwrap();
    unit("tmpl@.service", "[Service]\nExecStart=/t/dlpm-burn 1000\n");
    unit("timed.service", "[Service]\nExecStart=/t/dlpm-burn 1000\n");
    unit("timed.timer", "[Timer]\nOnActiveSec=1\nAccuracySec=100ms\n");
    sh("systemctl daemon-reload");
    sh("systemd-run --quiet --unit=plain /t/dlpm-burn 2000");
    sh("systemctl start \"tmpl@$(systemd-escape 'a/b c-d').service\"");
    sh(r"systemd-run --quiet --slice=team-ml --unit='we\x2dird@a:b_c' /t/dlpm-burn 1000");
    sh("systemd-run --quiet --scope --unit=scoped /t/dlpm-burn 1000 >/dev/null 2>&1 &");
    sh("systemctl start timed.timer");
    let wanted = [
        ("plain.service", "/system.slice/plain.service"),
        (
            r"tmpl@a-b\x20c\x2dd.service",
            r"/system.slice/system-tmpl.slice/tmpl@a-b\x20c\x2dd.service",
        ),
        (
            r"we\x2dird@a:b_c.service",
            r"/team.slice/team-ml.slice/we\x2dird@a:b_c.service",
        ),
        ("scoped.scope", "/system.slice/scoped.scope"),
        ("timed.service", "/system.slice/timed.service"),
    ];
    for (id, cgroup) in wanted {
        Wanted::new("unit", id, cgroup, 1000).label("unit", id).is_measured();
    }
    for (id, _) in wanted {
        sh(&format!("systemctl stop '{id}'"));
    }
    for (id, _) in wanted {
        finished(&format!("unit:{id}"));
    }
}

/// What a user's own manager starts.
pub fn user_units() {
    sh_as(
        "alice",
        1000,
        "systemd-run --user --quiet --unit=bench /t/dlpm-burn 1000",
    );
    let cgroup = "/user.slice/user-1000.slice/user@1000.service/app.slice/bench.service";
    Wanted::new("user_unit", "1000/bench.service", cgroup, 1000)
        .label("user", "alice")
        .label("unit", "1000/bench.service")
        .is_measured();
    sh_as("alice", 1000, "systemctl --user stop bench");
    finished("user_unit:1000/bench.service");
}

/// A login.
pub fn sessions() {
    sh("su - bob -c '/t/dlpm-burn 1000' >/dev/null 2>&1 </dev/null &");
    let cgroup = cgroup_of("/user.slice/user-1001.slice/session-");
    let id = cgroup.rsplit_once("session-").unwrap().1.trim_end_matches(".scope");
    Wanted::new("session", id, &cgroup, 1000)
        .label("user", "bob")
        .is_measured();
    sh("pkill -u bob dlpm-burn");
    finished(&format!("session:{id}"));
}

/// A user measures a command of their own with the agent's help.
pub fn trace_without_root() {
    // For the shell of the traced command, and not for the one that starts dlpm.
    let command = r"i=0; while [ \$i -lt 20000 ]; do i=\$((i+1)); done";
    let line = format!("dlpm trace --interval 1s --output /home/bob/log -- sh -c \"{command}\"");
    let said = sh_as("bob", 1001, &line);
    assert!(said.contains(" J"), "{said}");
    let verified = sh("dlpm verify /home/bob/log");
    assert!(verified.contains("close in all of them"), "{verified}");
    assert_eq!(sh("stat -c %U /home/bob/log/power_metrics.json"), "bob");
    // Another user's processes are not theirs to see.
    let said = sh("runuser -u bob -- dlpm trace --output /tmp/other --duration 1s --unit slurmd.service");
    assert!(said.contains("used 0.000 J"), "{said}");
    let log = fs::read_to_string("/tmp/other/power_metrics.json").unwrap();
    assert!(
        !log.contains("\"slurmd\""),
        "the name of another user's process is in the log"
    );
}
