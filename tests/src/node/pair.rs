//! Two nodes under one Slurm and one Prometheus: what a job used on both is the same by all ways to add it up.

use std::{fs, path::Path};

use serde_json::Value;

use super::{
    OUT, documents,
    metered::{STATE, finished},
    monitoring::query,
    shell::{attempt, sh, wait_for},
    slurm::{self, joules},
};
use crate::agent::energy_of;

/// While this is missing, the second node waits for the first.
const RELEASED: &str = "/tmp/released";

/// The other node may read the agent, as Prometheus of a site does.
pub fn opens() {
    fs::create_dir_all("/etc/dlpm").unwrap();
    fs::write(
        "/etc/dlpm/agent.toml",
        "listen = [\"0.0.0.0:9942\"]\nallow_open = true\n",
    )
    .unwrap();
    sh("dlpm agent --check && systemctl restart dlpm-agent");
    wait_for("/readyz", || attempt("curl -sf localhost:9942/readyz").0.then_some(()));
}

/// The second node joins the first one's cluster, when that is there.
pub fn joins() {
    wait_long("the controller of node1", "sinfo --noheader");
    documents::follow("slurm.md");
    sh("systemctl start slurmd");
    slurm::wait_until_idle();
}

/// Until the first node is done with it.
pub fn waits() {
    wait_long("node1 to release this node", &format!("test -e {RELEASED}"));
}

/// What the other node does takes longer than anything on this one. A line is said now and then, so that the host knows that
/// this node lives.
fn wait_long(what: &str, done: &str) {
    for _ in 0..12 {
        if attempt(&format!(
            "for i in $(seq 160); do {done} && exit 0; sleep 1; done; exit 1"
        ))
        .0
        {
            return;
        }
    }
    panic!("waited in vain for {what}");
}

/// Prometheus reads both nodes.
pub fn prometheus() {
    duckdb();
    let scrape = "/usr/share/dlpm/prometheus/scrape.yml";
    sh(&format!(
        "sed -i '/^scrape_configs/d' /etc/prometheus/prometheus.yml && sed 's/\"localhost:9942\"/\"node1:9942\", \
         \"node2:9942\"/' {scrape} >> /etc/prometheus/prometheus.yml"
    ));
    sh("cp /usr/share/dlpm/prometheus/dlpm-*.yml /etc/prometheus/ && systemctl start prometheus");
    wait_for("a scrape of both nodes", || {
        let ready = attempt("curl -sf localhost:9090/-/ready").0;
        let up = || query("sum(up{job=\"dlpm\"})").iter().any(|(_, up)| *up > 1.5);
        (ready && up()).then_some(())
    });
}

/// A job on both nodes.
pub fn job() {
    wait_for("both nodes to take jobs", || {
        let states = sh("sinfo --noheader --Node --format=%t");
        (states.split_whitespace().filter(|state| *state == "idle").count() == 2).then_some(())
    });
    let line = "--nodes=2 --ntasks=2 --ntasks-per-node=1 --job-name=wide";
    let job = slurm::submit_anywhere("alice", line, "srun /t/dlpm-burn 2000");
    job.wanted("wide", 2000).is_measured();
    // On the other node it has as much.
    wait_for("the other node's half", || {
        let found = query(&format!(
            "dlpm_tenant_cpu_seconds_total{{slurm_job_id=\"{}\",instance=\"node2:9942\"}}",
            job.id
        ));
        found.iter().any(|(_, seconds)| *seconds >= 2.0).then_some(())
    });
    sh(&format!("scancel {}", job.id));
    finished(&job.node());

    // In sacct: an object of each node.
    let stored: u64 = job.stored(2).iter().map(joules).sum();
    // In the lines of both nodes.
    let other = format!("{OUT}/node2");
    fs::create_dir_all(&other).unwrap();
    sh(&format!(
        "srun --nodelist=node2 cat {STATE}/finished.jsonl > {other}/finished.jsonl"
    ));
    sh(&format!(
        "mkdir -p {OUT}/node1 && cp {STATE}/finished.jsonl {OUT}/node1/"
    ));
    let lines: u64 = ["node1", "node2"]
        .map(|node| line_uj(node, &job.node()))
        .into_iter()
        .sum();
    assert_eq!(stored, lines, "sacct and finished.jsonl");
    // In Prometheus, once it has the last value of both.
    wait_for("Prometheus to have what both nodes counted", || {
        let sum = query(&format!(
            "sum by (slurm_job_id) (max_over_time(dlpm_tenant_energy_joules_total{{slurm_job_id=\"{}\"}}[1h]))",
            job.id
        ));
        let [(_, value)] = &sum[..] else { return None };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "joules of a test"
        )]
        let uj = (value * 1e6).round() as u64;
        // Prometheus adds floating-point numbers.
        (uj.abs_diff(lines) <= 1).then_some(())
    });
    // By dlpm itself, and by DuckDB.
    let report = format!("dlpm report --format json {OUT}/node1/finished.jsonl {OUT}/node2/finished.jsonl");
    let report: Value = serde_json::from_str(&sh(&report)).unwrap();
    let rows = report["jobs"].as_array().unwrap();
    let row = rows.iter().find(|row| row["job"] == job.node()).unwrap();
    assert_eq!(
        (row["energy_uj"].as_u64(), row["nodes"].as_array().map(Vec::len)),
        (Some(lines), Some(2))
    );
    fs::write("/tmp/by_job.py", BY_JOB).unwrap();
    let summed = sh(&format!(
        "python3 /tmp/by_job.py {OUT}/node'*'/finished.jsonl {}",
        job.node()
    ));
    assert_eq!(summed.parse(), Ok(lines), "DuckDB");
}

/// Prints the µJ of a job in the lines of all nodes.
const BY_JOB: &str = "
import duckdb, sys
database = duckdb.connect()
database.execute(f\"SET VARIABLE files = '{sys.argv[1]}'\").fetchall()
database.execute(open('/usr/share/doc/dlpm/examples/fleet.sql').read()).fetchall()
(used,), = database.execute('SELECT energy_uj FROM by_job WHERE job = ?', [sys.argv[2]]).fetchall()
print(used)
";

/// DuckDB for Python, as `docs/fleet.md` needs it. It is on the disk with the test: a node has no way to PyPI.
fn duckdb() {
    sh(
        "mkdir -p /usr/local/lib/python3.11/dist-packages && cp -r /t/duckdb/* /usr/local/lib/python3.11/dist-packages/",
    );
    sh("python3 -c 'import duckdb; print(duckdb.__version__)'");
}

/// µJ of a tenant in a node's lines.
fn line_uj(node: &str, tenant: &str) -> u64 {
    let lines = crate::agent::finished(Path::new(&format!("{OUT}/{node}")));
    let own = lines.iter().filter(|line| line["tenant"] == tenant);
    own.flat_map(|line| energy_of(line).into_values()).sum()
}

/// What `docs/fleet.md` tells an operator to do.
pub fn follow() {
    documents::follow("fleet.md");
}

/// Lets the second node go.
pub fn releases() {
    sh(&format!("srun --nodelist=node2 touch {RELEASED}"));
}
