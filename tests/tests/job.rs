//! `dlpm job` on the real kernel: while a job runs, at its end, after it, and where there is nothing to be said.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{fs, path::Path};

use dlpm_tests::{
    agent::{SOCKET, agent, energy_of, finished, folder, wait_for, wait_for_intervals},
    cgroup::Cgroup,
    command::{Dlpm, Output, world_readable},
    powercap::{Powercap, node},
    require_dlpm,
    tenant::Tenant,
    tenant_program,
};
use serde_json::Value;

/// A number that no job of this machine has.
fn number() -> String {
    (1_900_000_000 + std::process::id()).to_string()
}

fn ask(folder: &Path, id: &str) -> Dlpm {
    Dlpm::new(["job", id, "--agent"])
        .arg(folder.join(SOCKET))
        .arg("--state-dir")
        .arg(folder)
}

fn line(output: &Output) -> Value {
    assert!(
        output.stdout.len() < 250 && output.stdout.ends_with("}\n"),
        "{}",
        output.stdout
    );
    serde_json::from_str(&output.stdout).unwrap()
}

/// An exact decimal of joules in µJ, without a float.
fn micro(number: &Value) -> u64 {
    let text = number.to_string();
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    format!("{whole}{part:0<6}").parse().unwrap()
}

/// The job's processes and its directories.
struct Job {
    process: Option<Tenant>,
    /// The deepest first, as they are removed.
    directories: Vec<Cgroup>,
}

impl Job {
    fn start(above: &Cgroup, number: &str, program: &Path) -> Self {
        let scope = above.create_inside("slurmstepd.scope");
        let job = scope.create_inside(&format!("job_{number}"));
        let step = job.create_inside("step_0");
        let process = Tenant::named(program, "train", None, None);
        step.add(process.pid());
        Self {
            process: Some(process),
            directories: vec![step, job, scope],
        }
    }

    fn end(mut self) {
        self.process = None;
        self.directories[0].wait_until_empty();
        for directory in self.directories {
            drop(directory);
        }
    }
}

#[test]
fn a_job_is_told_while_it_runs_at_its_end_and_after_it() {
    require_dlpm!();
    let (folder, tree, number) = (folder(), Powercap::start(node()), number());
    let (above, folder) = (Cgroup::create("job"), folder.path());
    let mut running = agent(&tree, folder).start();
    wait_for_intervals(&mut running, folder, 1);
    let tenant = format!("slurm:{number}");
    let job = Job::start(&above, &number, tenant_program!());
    wait_for(&mut running, folder, "joules of the job", |kept| {
        kept.tenants
            .get(&tenant)
            .is_some_and(|used| used.values().sum::<u64>() > 0)
    });

    let first = line(&ask(folder, &number).arg("--json").run().exited(0));
    assert_eq!(
        (&first["job"], &first["final"]),
        (&Value::from(number.as_str()), &Value::from(false))
    );
    assert!(
        micro(&first["joules"]) > 0 && first["cpu_s"].as_f64().unwrap() > 0.0,
        "{first}"
    );
    let shown = ask(folder, &number).run().exited(0).stdout;
    assert!(
        shown.contains("runs; what it has used until") && shown.contains(&tenant),
        "{shown}"
    );
    let late = ask(folder, &number).args(["--json", "--wait", "1"]).run().exited(3);
    assert!(
        late.stderr.contains("is not final") && line(&late)["final"] == false,
        "{}",
        late.stderr
    );

    // As in an epilog: asked while the agent does not know of the end.
    let waiting = ask(folder, &number).args(["--json", "--wait", "120"]).start();
    job.end();
    let last = line(&waiting.wait().exited(0));
    let lines = |tenant: &str| -> Vec<Value> {
        let lines = finished(folder).into_iter();
        lines.filter(|line| line["tenant"] == tenant).collect()
    };
    let life = &lines(&tenant)[0];
    assert_eq!(last["final"], true);
    assert_eq!(micro(&last["joules"]), energy_of(life).values().sum::<u64>());
    let dram_uj: u64 = energy_of(life)
        .iter()
        .filter(|(device, _)| device.starts_with("dram"))
        .map(|(_, uj)| uj)
        .sum();
    assert_eq!(micro(&last["dram_j"]), dram_uj);
    assert_eq!(micro(&last["cpu_j"]) + dram_uj, micro(&last["joules"]));
    assert!(
        micro(&last["joules"]) >= micro(&first["joules"]) && last.get("lives").is_none(),
        "{last}"
    );

    // Put into the queue again: the number has a second life, and nothing is counted twice while it runs.
    let again = Job::start(&above, &number, tenant_program!());
    let so_far = wait_for(&mut running, folder, "the second life", |kept| {
        !kept.ended.contains(&tenant) && kept.tenants.contains_key(&tenant)
    });
    let both = line(&ask(folder, &number).arg("--json").run().exited(0));
    assert_eq!((&both["final"], &both["lives"]), (&Value::from(false), &Value::from(2)));
    assert!(
        micro(&both["joules"]) >= so_far.tenants[&tenant].values().sum::<u64>(),
        "{both}"
    );
    let waiting = ask(folder, &number).args(["--json", "--wait", "120"]).start();
    again.end();
    let both = line(&waiting.wait().exited(0));
    let lives = lines(&tenant);
    let joules_uj: u64 = lives.iter().flat_map(|life| energy_of(life).into_values()).sum();
    assert_eq!((lives.len(), micro(&both["joules"])), (2, joules_uj));

    // A number that is not one of a job, and the same without the agent.
    let unknown = ask(folder, "1").args(["--json", "--wait", "60"]).run().exited(1);
    assert!(
        unknown.stderr.contains("nothing is known of job 1") && unknown.stdout.is_empty(),
        "{}",
        unknown.stderr
    );
    let refused = ask(folder, &number).as_user(64_001).run().exited(1).stderr;
    assert!(refused.contains("sudo"), "{refused}");
    running.end_with(libc::SIGTERM).exited(0);
    let after = ask(folder, &number).args(["--json", "--wait", "60"]).run().exited(0);
    assert_eq!(line(&after), both);
    assert!(after.stderr.contains("there is no agent"), "{}", after.stderr);
    // Whoever adds up the nodes has the same.
    let report = Dlpm::new(["report", "--by", "job", "--format", "json"])
        .arg(folder)
        .run()
        .exited(0);
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    let row = report["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["job"] == tenant)
        .unwrap();
    assert_eq!(
        (&row["energy_uj"], &row["lives"]),
        (&Value::from(joules_uj), &Value::from(2))
    );
    let nobody = ask(folder, "1").run().exited(1).stderr;
    assert!(
        nobody.contains("there is no agent") && nobody.contains("systemctl start dlpm-agent"),
        "{nobody}"
    );
}

#[test]
fn the_file_alone_tells_it_too_and_nothing_of_it_is_believed_unread() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let folder = world_readable(&folder).path();
    let life = |number: u64, tenant: &str, inside: &str, uj: u64| {
        format!(
            "{{\"number\":{number},\"node_id\":\"n1\",\"boot_id\":\"b\",\"tenant\":\"{tenant}\",\"inside\":[{inside}],\
             \"begin_unix_ns\":1,\"end_unix_ns\":2,\"cpu_ns\":1500000000,\"energy_uj\":{{\"package-0\":{uj}}},\
             \"methods\":{{\"package-0\":[\"estimate\"]}},\"idle_policy\":\"separate\"}}\n"
        )
    };
    let older = life(1, "slurm:7", "", 1_000_000);
    // The line of the older file is here as well: the file was moved while it was copied.
    let newer = [
        older.clone(),
        "{\"number\":2}\n".to_owned(),
        life(3, "docker:a\\u001b[31m", "\"slurm:7\"", 500_000),
        life(4, "slurm:77", "", 9),
        "{\"number\":5,\"ten".to_owned(),
    ];
    fs::write(folder.join("finished.1.jsonl"), older).unwrap();
    fs::write(folder.join("finished.jsonl"), newer.concat()).unwrap();
    let output = ask(folder, "7").arg("--json").run().exited(0);
    let expected =
        "{\"job\":\"7\",\"node\":\"n1\",\"final\":true,\"joules\":1.5,\"cpu_j\":1.5,\"cpu_s\":3,\"estimate\":true}\n";
    assert_eq!(output.stdout, expected);
    assert!(
        output.stderr.contains("finished.jsonl:2: it is not the line"),
        "{}",
        output.stderr
    );
    let shown = ask(folder, "7").run().exited(0).stdout;
    assert!(
        shown.contains("Estimated energy") && !shown.contains('\u{1b}'),
        "{shown}"
    );

    for id in ["", "4711_[1-3]", "47 11", "../1"] {
        ask(folder, id).run().exited(2);
    }
    // Waiting for an agent that does not come has an end.
    let alone = ask(folder, "8").args(["--wait", "600"]).run().exited(1).stderr;
    assert!(alone.contains("there is no agent"), "{alone}");
    let empty = tempfile::tempdir().unwrap();
    let absent = ask(empty.path(), "7").run().exited(1).stderr;
    assert!(absent.contains("finished.jsonl cannot be read"), "{absent}");
}
