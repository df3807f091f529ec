//! Slurm of Debian: jobs that share the CPUs, steps, arrays, short jobs and cancelled ones.

use std::fs;

use serde_json::Value;

use super::{
    documents::follow,
    metered::{Page, Wanted, adds_up, finished},
    shell::{sh, wait_for},
};
use crate::agent::energy_of;

/// Where jobs are, on this node.
fn scope() -> String {
    format!("/system.slice/{}_slurmstepd.scope", sh("hostname"))
}

/// A job that was submitted.
#[derive(Debug)]
pub struct Job {
    /// Its number.
    pub id: String,
    /// What sacct calls it: a task of an array is ARRAY_TASK.
    shown: String,
    user: String,
}

impl Job {
    /// What the agent has to say of it when it sleeps.
    pub fn wanted(&self, name: &str, burned_ms: u64) -> Wanted {
        Wanted::new("slurm", &self.id, format!("{}/job_{}", scope(), self.id), burned_ms)
            .label("slurm_job_id", &self.id)
            .label("job_name", name)
            .label("partition", "main")
            .label("account", "lab")
            .label("user", &self.user)
    }

    /// Kind and id, as `finished.jsonl` has them.
    pub fn node(&self) -> String {
        format!("slurm:{}", self.id)
    }

    /// The objects of its `AdminComment`, one for each node, once there are so many.
    #[track_caller]
    pub fn stored(&self, nodes: usize) -> Vec<Value> {
        wait_for(&format!("the joules of job {} in sacct", self.id), || {
            let told = sh(&format!(
                "sacct --noheader --parsable2 --allocations --jobs {} --format AdminComment",
                self.shown
            ));
            let list: Vec<Value> = serde_json::from_str(&told.trim().replace('`', "\"")).ok()?;
            (list.len() == nodes).then_some(list)
        })
    }

    /// It has ended, and what sacct shows is what the agent counted.
    #[track_caller]
    pub fn is_stored(&self) {
        let line = finished(&self.node());
        let uj: u64 = energy_of(&line).values().sum();
        let stored = self.stored(1);
        assert_eq!(joules(&stored[0]), uj, "{stored:?} of {line}");
    }
}

/// µJ of an object that `dlpm job --json` printed.
pub fn joules(object: &Value) -> u64 {
    let text = object["joules"].to_string();
    // With every digit, so that no rounding stands between it and the integer.
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let micro = format!("{part:0<6}");
    assert_eq!(micro.len(), 6, "{text}");
    whole.parse::<u64>().unwrap() * 1_000_000 + micro.parse::<u64>().unwrap()
}

/// Submits a job on this node that runs these lines. `options` are those of sbatch.
#[track_caller]
pub fn submit(user: &str, options: &str, lines: &str) -> Job {
    submit_anywhere(user, &format!("--nodelist=$(hostname) {options}"), lines)
}

/// Submits one on any node.
#[track_caller]
pub fn submit_anywhere(user: &str, options: &str, lines: &str) -> Job {
    let script = format!("/tmp/{user}.sh");
    fs::write(&script, format!("#!/bin/sh\n{lines}\n")).unwrap();
    // With --uid alone the job would have root's group.
    let id = sh(&format!(
        "sbatch --parsable --uid={user} --gid={user} --account=lab --mem=100 --chdir=/tmp --output=/tmp/slurm-%j.out {options} \
         {script}"
    ));
    Job {
        shown: id.clone(),
        id,
        user: user.to_owned(),
    }
}

/// Slurm with its accounting, as a site has it before dlpm comes.
pub fn starts() {
    sh("systemctl start mariadb");
    sh(
        "mariadb -e 'create user slurm@localhost identified via unix_socket; grant all on slurm_acct_db.* to slurm@localhost'",
    );
    sh("systemctl start slurmdbd");
    wait_for("slurmdbd", || {
        super::shell::attempt("sacctmgr --immediate add cluster dlpm")
            .0
            .then_some(())
    });
    sh("sacctmgr --immediate add account lab && sacctmgr --immediate add user alice,bob account=lab");
    sh("systemctl start slurmctld slurmd");
    wait_until_idle();
}

/// Waits until this node takes jobs.
#[track_caller]
pub fn wait_until_idle() {
    wait_for("the node to take jobs", || {
        let state = sh("sinfo --noheader --nodes=$(hostname) --format=%t");
        ["idle", "mix", "alloc"].contains(&state.trim()).then_some(())
    });
}

/// What `docs/slurm.md` tells an operator to do.
pub fn documents() {
    follow("slurm.md");
    wait_until_idle();
}

/// Two jobs that share the CPUs, one with a step beside its script, one with a name that nobody expects.
pub fn jobs() {
    let steps = "srun --overlap --ntasks=2 --job-name=step /t/dlpm-burn 1000 &\n/t/dlpm-burn 8000";
    let first = submit("alice", "--job-name=train-a -n2", steps);
    let second = submit("bob", "--job-name='bench bob/ä' -n2", "/t/dlpm-burn 10000");
    first.wanted("train-a", 10_000).strictly().is_measured();
    second.wanted("bench bob/ä", 10_000).strictly().is_measured();
    let running = sh(&format!("dlpm job {}", first.id));
    assert!(running.contains("train-a"), "{running}");
    adds_up();
    // The second is cancelled, and the first as well, since it sleeps.
    sh(&format!("scancel {} {}", first.id, second.id));
    first.is_stored();
    second.is_stored();
    let ended = sh(&format!("dlpm job {}", second.id));
    assert!(ended.contains("bench bob/ä"), "{ended}");
}

/// An array, a job of a second, and one that is cancelled while it works.
pub fn many() {
    let array = submit(
        "alice",
        "--job-name=array --array=1-3 -n1",
        "timeout 1 /t/dlpm-burn 60000; exit 0",
    );
    let short = submit("bob", "--job-name=short -n1", "timeout 1 /t/dlpm-burn 60000; exit 0");
    let busy = submit("bob", "--job-name=busy -n1", "/t/dlpm-burn 1000000");
    wait_for("the busy job to work", || {
        let used = Page::get()?.cpu_ns("slurm", &busy.id);
        (used > Some(2_000_000_000)).then_some(())
    });
    sh(&format!("scancel {}", busy.id));
    for (job, name) in [(&short, "short"), (&busy, "busy")] {
        let line = finished(&job.node());
        assert_eq!(line["labels"]["job_name"], name, "{line}");
        assert!(line["cpu_ns"].as_u64() > Some(0), "{line}");
        job.is_stored();
    }
    // Each task of an array is a job with a number of its own.
    let tasks = wait_for("three tasks in sacct", || {
        let told = sh(&format!(
            "sacct --noheader --parsable2 --allocations --jobs {} --state COMPLETED --format JobIDRaw,JobID",
            array.id
        ));
        let ids: Vec<(String, String)> = told
            .lines()
            .filter_map(|line| line.split_once('|'))
            .map(|(id, shown)| (id.to_owned(), shown.to_owned()))
            .collect();
        (ids.len() == 3).then_some(ids)
    });
    for (id, shown) in tasks {
        let task = Job {
            id,
            shown,
            user: "alice".to_owned(),
        };
        assert_eq!(finished(&task.node())["labels"]["job_name"], "array");
        task.is_stored();
    }
}
