//! The package: installed, upgraded and removed as an operator does it.

use std::{fs, path::Path};

use super::{
    faults::KEPT_AT_STOP,
    metered::{Page, STATE, adds_up, load_zones, remember_begin, total_uj},
    shell::{attempt, sh, wait_for},
};
use crate::agent::Kept;

/// Puts in the zones as a driver of the kernel's, and the package; starts the agent as the documents say.
pub fn installs() {
    load_zones();
    sh("dpkg -i /t/dlpm_*.deb");
    sh("getent group dlpm");
    // A package that starts to listen by itself would surprise.
    assert_eq!(attempt("systemctl is-enabled dlpm-agent").1.trim(), "disabled");
    assert_eq!(attempt("systemctl is-active dlpm-agent").1.trim(), "inactive");
    sh("dlpm doctor");
    sh("dlpm agent --check");
    // What it leaves at its stop, for the case after the reboot.
    fs::create_dir_all("/etc/systemd/system/dlpm-agent.service.d").unwrap();
    fs::write(
        "/etc/systemd/system/dlpm-agent.service.d/test.conf",
        format!(
            "[Service]\nReadWritePaths=/var/lib\nExecStopPost=/bin/sh -c 'rm -rf {KEPT_AT_STOP}; cp -a {STATE} {KEPT_AT_STOP}; cat \
             /sys/module/dlpm_rapl/parameters/total_uj > {KEPT_AT_STOP}/total_uj'\n"
        ),
    )
    .unwrap();
    sh("systemctl daemon-reload");
    let before = total_uj();
    sh("systemctl enable --now dlpm-agent");
    wait_for("/readyz", || attempt("curl -sf localhost:9942/readyz").0.then_some(()));
    remember_begin(&before);
    // The score is in the documents, for those who have to accept a service with rights.
    let security = sh("systemd-analyze security --no-pager dlpm-agent | tail -n 1");
    let score = security
        .split_whitespace()
        .find(|word| word.parse::<f64>().is_ok())
        .unwrap();
    let document = fs::read_to_string("/usr/share/doc/dlpm/docs/agent.md").unwrap();
    assert!(
        document.contains(&format!("an exposure of {score}")),
        "docs/agent.md does not say that `systemd-analyze security` finds {score}"
    );
}

/// A running agent is replaced, and its counters go on.
pub fn upgrades() {
    let pid = || sh("systemctl show --property MainPID --value dlpm-agent");
    let (before, intervals) = (pid(), intervals());
    sh("dpkg -i /t/dlpm_*.deb");
    assert_ne!(pid(), before, "the new version was not started");
    wait_for("an interval of the new version", || {
        (self::intervals() > intervals).then_some(())
    });
    adds_up();
}

/// Those in the agent's state, which is written before it is served.
fn intervals() -> u64 {
    let _ = Page::get();
    Kept::read(Path::new(STATE)).map_or(0, |kept| kept.intervals())
}

/// Without the package nothing runs; without its state nothing is left but what the operator wrote, and the group.
pub fn purges() {
    sh("dpkg -r dlpm");
    assert!(!attempt("systemctl is-active dlpm-agent").0, "it still runs");
    assert!(!attempt("pgrep -x dlpm").0, "a process is left");
    for path in [
        "/usr/bin/dlpm",
        "/usr/lib/systemd/system/dlpm-agent.service",
        "/run/dlpm",
    ] {
        assert!(!Path::new(path).exists(), "{path} is still there");
    }
    // What was measured is the operator's.
    assert!(Path::new(STATE).join("finished.jsonl").exists());
    sh("dpkg -P dlpm");
    assert!(!Path::new(STATE).exists());
    let left = sh(
        "find / -xdev \\( -path /t -o -path /home -o -path /tmp -o -path /var/log -o -path /var/lib/slurm -o -path \
         /var/lib/mysql \\) -prune -o -name '*dlpm*' -print | sort",
    );
    // What the operator has written, or copied for Prometheus.
    let own = [
        KEPT_AT_STOP,
        "/etc/prometheus/dlpm-alerts.yml",
        "/etc/prometheus/dlpm-rules.yml",
        "/etc/modprobe.d/dlpm_rapl.conf",
        "/etc/modules-load.d/dlpm_rapl.conf",
        "/etc/systemd/system/dlpm-agent.service.d",
    ];
    let left: Vec<&str> = left
        .lines()
        .filter(|path| !own.contains(path) && !path.ends_with("dlpm_rapl.ko"))
        .collect();
    assert_eq!(left, Vec::<&str>::new());
    sh("getent group dlpm");
}
