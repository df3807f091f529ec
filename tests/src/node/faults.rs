//! What happens on a node: daemons die and start again, and so does the machine.

use std::{collections::BTreeMap, fs, path::Path};

use super::{
    containers::burning_in_containerd,
    metered::{Page, STATE, adds_up, finished, remember_begin},
    shell::{attempt, sh, wait_for},
    slurm,
};
use crate::agent::{ByDevice, Kept, energy_of, finished as lines_in};

/// A copy of the agent's folder as it was when the agent had stopped.
pub const KEPT_AT_STOP: &str = "/var/lib/dlpm-at-stop";

/// A job goes on while its daemon is away, under the same id, and ends once.
pub fn slurmd_is_killed() {
    let job = slurm::submit("alice", "--job-name=survivor -n1", "/t/dlpm-burn 1000");
    let wanted = job.wanted("survivor", 1000);
    wanted.is_measured();
    let before = cpu_ns("slurm", &job.id);
    sh("systemctl kill --signal=KILL slurmd; sleep 2; systemctl restart slurmd");
    slurm::wait_until_idle();
    assert!(cpu_ns("slurm", &job.id) >= before, "a counter fell");
    wanted.is_measured();
    sh(&format!("scancel {}", job.id));
    finished(&job.node());
    assert_eq!(lines_of(&job.node()).len(), 1);
    adds_up();
}

/// So does a container.
pub fn containerd_restarts() {
    let wanted = burning_in_containerd("survivor");
    wanted.is_measured();
    let before = cpu_ns("containerd", "default:survivor");
    sh("systemctl restart containerd");
    assert!(cpu_ns("containerd", "default:survivor") >= before, "a counter fell");
    wanted.is_measured();
    sh("ctr task kill --signal KILL survivor; sleep 1; ctr container rm survivor");
    finished(&wanted.node());
    assert_eq!(lines_of(&wanted.node()).len(), 1);
}

/// The agent stops, and is killed; no counter falls, and what the zones counted meanwhile is a row of its own.
pub fn agent_restarts() {
    sh("systemd-run --quiet --unit=witness /t/dlpm-burn 2000");
    wait_for("the witness", || {
        (cpu_ns("unit", "witness.service") >= Some(1_000_000_000)).then_some(())
    });
    for line in [
        "systemctl restart dlpm-agent",
        "systemctl kill --signal=KILL --kill-who=main dlpm-agent",
    ] {
        let (tenant_ns, intervals, unobserved) = (cpu_ns("unit", "witness.service"), intervals(), unobserved_uj());
        sh(line);
        // Without a failure of the unit: systemd starts it again.
        wait_for("an interval after the restart", || {
            (self::intervals() > intervals).then_some(())
        });
        let after_ns = wait_for("the witness after the restart", || cpu_ns("unit", "witness.service"));
        println!("  witness: {tenant_ns:?} ns, and {after_ns} ns after `{line}`");
        assert!(Some(after_ns) >= tenant_ns, "a counter fell");
        assert!(unobserved_uj() > unobserved, "the time without an agent had no energy");
        adds_up();
    }
    sh("systemctl stop witness");
    finished("unit:witness.service");
    assert_eq!(lines_of("unit:witness.service").len(), 1);
}

/// After a start of the machine: the counters begin anew and say so, and all of the last start is in `finished.jsonl`.
pub fn reboots() {
    assert_eq!(sh("systemctl is-system-running --wait"), "running");
    wait_for("/readyz", || attempt("curl -sf localhost:9942/readyz").0.then_some(()));
    let journal = sh("journalctl --no-pager --boot --unit dlpm-agent --output cat");
    assert!(
        journal.contains("the machine was started again, so the counters begin at 0"),
        "the agent does not say that its state is new"
    );
    remember_begin(&ZERO.map(|zone| (zone.to_owned(), 0)).into());
    let last = Kept::read(Path::new(KEPT_AT_STOP)).unwrap();
    last.adds_up();
    // The counters of the zones when the machine went down were the module's.
    let text = fs::read_to_string(Path::new(KEPT_AT_STOP).join("total_uj")).unwrap();
    let totals = ZERO.iter().zip(text.split_whitespace());
    for (zone, total) in totals {
        assert!(last.counters[*zone] <= total.parse().unwrap(), "{zone}");
    }
    // What each tenant had used is what its lines say, also of those that ran until then.
    let lines = lines_in(Path::new(STATE));
    let boot_id = last_boot(&lines);
    let mut sums: BTreeMap<String, ByDevice> = BTreeMap::new();
    for line in lines.iter().filter(|line| line["boot_id"] == boot_id) {
        let sum = sums.entry(line["tenant"].as_str().unwrap().to_owned()).or_default();
        for (device, energy_uj) in energy_of(line) {
            *sum.entry(device).or_default() += energy_uj;
        }
    }
    let mut ran_until_then = 0;
    for (node, used) in &last.tenants {
        let used: ByDevice = used
            .iter()
            .filter(|(_, uj)| **uj > 0)
            .map(|(name, uj)| (name.clone(), *uj))
            .collect();
        let sum = sums.get(node).cloned().unwrap_or_default();
        let sum: ByDevice = sum.into_iter().filter(|(_, uj)| *uj > 0).collect();
        assert_eq!(used, sum, "{node}");
        ran_until_then += usize::from(!last.ended.contains(node));
    }
    println!(
        "  {} tenants, of which {ran_until_then} ran until the machine went down",
        last.tenants.len()
    );
    assert!(ran_until_then > 0);
    adds_up();
}

const ZERO: [&str; 4] = ["package-0", "package-0/core", "package-0/uncore", "dram-0"];

/// The start of the machine that most lines are of that is not this one.
fn last_boot(lines: &[serde_json::Value]) -> serde_json::Value {
    let now = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let other = lines.iter().find(|line| line["boot_id"] != now.trim());
    other.unwrap()["boot_id"].clone()
}

fn lines_of(node: &str) -> Vec<serde_json::Value> {
    let lines = lines_in(Path::new(STATE)).into_iter();
    lines.filter(|line| line["tenant"] == node).collect()
}

fn cpu_ns(kind: &str, id: &str) -> Option<u64> {
    wait_for("the agent's page", Page::get).cpu_ns(kind, id)
}

fn intervals() -> u64 {
    Kept::read(Path::new(STATE)).map_or(0, |kept| kept.intervals())
}

fn unobserved_uj() -> u64 {
    Kept::read(Path::new(STATE)).map_or(0, |kept| kept.row_uj("unobserved"))
}
