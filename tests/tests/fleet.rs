//! `dlpm report` of many nodes: what it adds up is what plain JSON adds up to, copies count once, and nothing is lost.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use dlpm_tests::{
    command::{Dlpm, program},
    kernel,
    log::{LOG_NAME, number},
    python::said,
    require_program,
    synthetic::{Ran, SECOND_NS, Synthetic},
};
use serde_json::{Value, json};

/// Names a Python with DuckDB; `cargo xtask test` makes one.
const DUCKDB_PYTHON: &str = "DLPM_DUCKDB_PYTHON";

/// 2026-01-01 00:00 UTC.
const BEGIN_UNIX_NS: u64 = 1_767_225_600_000_000_000;

/// A line of a tenant that has ended, on a node, with figures that no float holds.
fn life(node: &str, number: u64, tenant: &str, labels: &Value) -> Value {
    let uj = 9_007_199_254_740_993 + number * 1_000_003;
    json!({
        "number": number, "node_id": node, "boot_id": format!("boot-of-{node}"), "tenant": tenant,
        "labels": labels, "begin_unix_ns": BEGIN_UNIX_NS + number, "end_unix_ns": BEGIN_UNIX_NS + number * SECOND_NS,
        "cpu_ns": 18_014_398_509_481_985_u64 + number,
        "energy_uj": {"package-0/core": uj, "package-0/rest": number, "dram-0": number * 7, "gpu-ab": number * 3},
        "methods": {"package-0/core": ["cpu_time"]}, "idle_policy": "separate",
    })
}

/// Lines of a node: jobs 1 to 5 that other nodes have as well, a container in one, and units.
fn lives(node: &str) -> Vec<Value> {
    let mut lives = Vec::new();
    for job in 1..=5 {
        let (user, account) = (["alice", "bob"][job % 2], ["physics", "biology", "ml"][job % 3]);
        let labels = json!({
            "slurm_job_id": job.to_string(), "user": user, "cluster": "c1",
            "account": account, "job_name": "train",
        });
        // Of one node, nobody had told the cluster yet.
        let labels = if node == "n2" {
            json!({"user": labels["user"], "account": labels["account"]})
        } else {
            labels
        };
        lives.push(life(node, lives.len() as u64 + 1, &format!("slurm:{job}"), &labels));
    }
    let mut inside = life(node, 6, &format!("podman:{node}"), &json!({"user": "alice"}));
    inside["inside"] = json!(["slurm:3"]);
    lives.push(inside);
    lives.push(life(node, 7, "unit:ssh.service", &json!({"unit": "ssh.service"})));
    lives
}

fn text(lives: &[Value]) -> String {
    lives.iter().map(|life| format!("{life}\n")).collect()
}

/// The folder of an agent, its older lines in a file of their own.
fn agent(folder: &Path, node: &str) -> PathBuf {
    let folder = folder.join(node);
    fs::create_dir_all(&folder).unwrap();
    let lives = lives(node);
    fs::write(folder.join("finished.1.jsonl"), text(&lives[..3])).unwrap();
    fs::write(folder.join("finished.jsonl"), text(&lives[3..])).unwrap();
    folder
}

/// The log of a node, which was measured for some seconds since its start.
fn log(folder: &Path, node: &str, seconds: u64) -> PathBuf {
    let folder = folder.join(format!("log-of-{node}"));
    let mut log = Synthetic::new(&folder);
    for _ in 0..seconds {
        let ran = |tgid, cgroup, permille| Ran {
            tgid,
            comm: "a",
            cgroup,
            permille,
        };
        log.interval(
            SECOND_NS,
            77,
            &[],
            &[ran(10, "/system.slice/a.service", 500), ran(11, "/x", 300)],
        );
    }
    drop(log);
    let facts = json!({"node_id": node, "dlpm": {"boot_id": format!("boot-of-{node}")}});
    fs::write(folder.join("metadata.json"), facts.to_string()).unwrap();
    folder
}

fn report(folders: &[PathBuf]) -> Dlpm {
    Dlpm::new(["report"]).args(folders)
}

fn json_of(folders: &[PathBuf]) -> Value {
    let output = report(folders).args(["--format", "json"]).run().exited(0);
    serde_json::from_str(&output.stdout).unwrap()
}

type Sums = BTreeMap<String, (u128, u128)>;

/// CPU time and energy of the rows of a table.
fn rows(report: &Value, table: &str, by: &str) -> Sums {
    let rows = report[table].as_array().unwrap().iter();
    let named = rows.map(|row| {
        let name = row[by].as_str().unwrap_or_else(|| row["row"].as_str().unwrap());
        let whole = |key: &str| row[key].to_string().parse::<u128>().unwrap();
        (name.to_owned(), (whole("cpu_ns"), whole("energy_uj")))
    });
    named.collect()
}

fn expected(lives: &[Value], name: impl Fn(&Value) -> Option<String>) -> Sums {
    let mut sums = Sums::new();
    for life in lives {
        let sum = sums
            .entry(name(life).unwrap_or_else(|| "(none)".to_owned()))
            .or_default();
        sum.0 += u128::from(number(&life["cpu_ns"]));
        let energy_uj = life["energy_uj"].as_object().unwrap().values();
        sum.1 += energy_uj.map(|uj| u128::from(number(uj))).sum::<u128>();
    }
    sums
}

fn text_of(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn job_of(life: &Value) -> Option<String> {
    let tenant = life["tenant"].as_str().unwrap();
    let inside = life["inside"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    inside
        .chain([tenant])
        .rfind(|node| node.starts_with("slurm:"))
        .map(str::to_owned)
}

#[test]
fn nodes_add_up_to_the_last_microjoule() {
    require_program!();
    let folder = tempfile::tempdir().unwrap();
    let nodes = ["n1", "n2", "n3"];
    let mut folders: Vec<PathBuf> = nodes.iter().map(|node| agent(folder.path(), node)).collect();
    // One of them by its two files.
    folders.pop();
    folders.extend(["finished.jsonl", "finished.1.jsonl"].map(|name| folder.path().join("n3").join(name)));
    let all: Vec<Value> = nodes.iter().flat_map(|node| lives(node)).collect();
    let report_json = json_of(&folders);
    assert_eq!(rows(&report_json, "jobs", "job"), expected(&all, job_of));
    assert_eq!(
        rows(&report_json, "nodes", "node"),
        expected(&all, |life| text_of(&life["node_id"]))
    );
    assert_eq!(
        rows(&report_json, "users", "user"),
        expected(&all, |life| text_of(&life["labels"]["user"]))
    );
    assert_eq!(
        rows(&report_json, "accounts", "account"),
        expected(&all, |life| text_of(&life["labels"]["account"]))
    );
    let job = report_json["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["job"] == "slurm:3")
        .unwrap();
    assert_eq!(
        (&job["nodes"], &job["cluster"], &job["lives"]),
        (&json!(nodes), &json!("c1"), &json!(6))
    );
    assert_eq!(
        (&job["begin_unix_ns"], &report_json["fleet"]["nodes"]),
        (&json!(BEGIN_UNIX_NS + 3), &json!(3))
    );
    let total = expected(&all, |_| Some(String::new()))[""];
    assert_eq!(report_json["total"]["energy_uj"].to_string(), total.1.to_string());
    assert_eq!(report_json["total"]["cpu_ns"].to_string(), total.0.to_string());

    // A log beside them, of a node without an agent: what no process had has rows, and the node has all of it.
    folders.push(log(folder.path(), "n9", 10));
    let with_log = json_of(&folders);
    let more = with_log["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["node"] == "n9")
        .unwrap();
    assert_eq!(
        (&more["energy_uj"], &more["cpu_ns"]),
        (&json!(770_000_000), &json!(4 * 10 * SECOND_NS))
    );
    for table in ["jobs", "users", "accounts"] {
        let sum: u128 = rows(&with_log, table, "job").values().map(|(_, uj)| uj).sum();
        let named: u128 = with_log[table]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| u128::from(number(&row["energy_uj"])))
            .sum();
        assert!(sum <= named);
        assert_eq!(named, total.1 + 770_000_000, "{table}");
    }
    let shown = report(&folders).run().exited(0).stdout;
    for part in [
        "4 nodes, 21 tenants that have ended, 1 log with 10 intervals",
        "By job",
        "By account",
        "slurm:3",
        "biology",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let csv = report(&folders)
        .args(["--by", "job", "--format", "csv"])
        .run()
        .exited(0)
        .stdout;
    let line = csv.lines().find(|line| line.contains("slurm:3,")).unwrap();
    assert!(
        line.contains("n1; n2; n3") && line.contains(&job["energy_uj"].to_string()),
        "{csv}"
    );
    let page = folder.path().join("page.html");
    report(&folders).arg("--html").arg(&page).run().exited(0);
    let page = fs::read_to_string(page).unwrap();
    assert!(
        page.contains("By account") && page.contains("slurm:3") && page.contains("4 nodes"),
        "{page}"
    );
    let top = report(&folders)
        .args(["--by", "job", "--top", "1"])
        .run()
        .exited(0)
        .stdout;
    assert!(top.contains("smaller ones"), "{top}");

    // A window has what ended in it.
    let until = (BEGIN_UNIX_NS / SECOND_NS + 5).to_string();
    let some = report(&folders)
        .args(["--to", &until, "--format", "json"])
        .run()
        .exited(0)
        .stdout;
    let some: Value = serde_json::from_str(&some).unwrap();
    let ended: Vec<Value> = all.into_iter().filter(|life| number(&life["number"]) <= 5).collect();
    assert_eq!(
        rows(&some, "jobs", "job")["slurm:3"],
        expected(&ended, job_of)["slurm:3"]
    );
    assert_eq!(
        (&some["fleet"]["lives"], &some["fleet"]["intervals"]),
        (&json!(15), &json!(5))
    );
}

#[test]
fn nothing_counts_twice() {
    require_program!();
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (agent(folder.path(), "n1"), agent(folder.path(), "n2"));
    let alone = json_of(&[one.clone(), other.clone()]);
    // The same folder, a link to it, its file, and an older copy that is not whole.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&one, &link).unwrap();
    let copy = folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    let copied = lives("n1");
    fs::write(copy.join("finished.jsonl"), text(&copied[..5])).unwrap();
    for copies in [
        vec![one.clone()],
        vec![link],
        vec![one.join("finished.jsonl")],
        vec![copy.clone()],
    ] {
        for first in [true, false] {
            let mut folders = vec![one.clone(), other.clone()];
            let at = if first { 0 } else { 2 };
            folders.splice(at..at, copies.clone());
            let report = json_of(&folders);
            assert_eq!(
                (&report["jobs"], &report["total"]),
                (&alone["jobs"], &alone["total"]),
                "{copies:?}"
            );
            assert!(!report["notes"].as_array().unwrap().is_empty(), "{report}");
        }
    }

    // Two agents that counted on one machine.
    let mut changed = copied;
    changed[0]["cpu_ns"] = 1.into();
    fs::write(copy.join("finished.jsonl"), text(&changed)).unwrap();
    let refused = report(&[one.clone(), copy]).run().exited(1);
    assert!(
        refused.stderr.contains("two agents counted there") && refused.stdout.is_empty(),
        "{}",
        refused.stderr
    );

    // Copies of a log, one of them older, one without its metadata; a log and the lines of its node.
    let traced = log(folder.path(), "n9", 10);
    let (older, bare) = (folder.path().join("older"), folder.path().join("bare"));
    for (copy, lines) in [(&older, 4), (&bare, 100)] {
        fs::create_dir(copy).unwrap();
        let text = fs::read_to_string(traced.join(LOG_NAME)).unwrap();
        let part: String = text.split_inclusive('\n').take(lines).collect();
        fs::write(copy.join(LOG_NAME), part).unwrap();
    }
    fs::copy(traced.join("metadata.json"), older.join("metadata.json")).unwrap();
    let of_n1 = log(folder.path(), "n1", 10);
    for pair in [[traced.clone(), older], [bare, traced.clone()], [one, of_n1.clone()]] {
        let refused = report(&pair).run().exited(1);
        assert!(refused.stdout.is_empty(), "{}", refused.stdout);
        assert!(
            refused.stderr.contains("of the same node and the same time"),
            "{}",
            refused.stderr
        );
    }
    let twice = json_of(&[traced.clone(), traced.clone(), of_n1]);
    assert_eq!(twice["total"]["energy_uj"], 1_540_000_000);
}

#[test]
fn what_cannot_be_read_is_said_and_the_rest_is_added_up() {
    require_program!();
    let folder = tempfile::tempdir().unwrap();
    let good = agent(folder.path(), "n1");
    let path = |name: &str| folder.path().join(name);
    for name in ["empty", "foreign", "hostile", "torn"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("foreign").join("notes.txt"), "hello").unwrap();
    let of_n2 = lives("n2");
    let whole = text(&of_n2[..2]);
    fs::write(
        path("torn").join("finished.jsonl"),
        format!("{whole}{{\"number\":3,\"tena"),
    )
    .unwrap();
    let mut hostile = lives("h\u{1b}[31m\u{202e}");
    hostile[0]["labels"]["user"] = "\u{1b}]0;x\u{7}eve".into();
    hostile[1]["energy_uj"]["dram-0"] = u64::MAX.into();
    hostile[2]["energy_uj"]["dram-0"] = u64::MAX.into();
    let lines = [
        text(&hostile),
        "\n[1,2]\n{}\nnull\n{\"tenant\":\"nobody:1\"}\n\u{0}\u{fffd}\n".to_owned(),
        format!("{}\n", "[".repeat(100_000)),
        text(&[
            json!({"tenant": "slurm:9", "number": 0, "node_id": "x", "boot_id": "b", "begin_unix_ns": 1,
            "end_unix_ns": 2, "cpu_ns": 1, "energy_uj": {}}),
        ]),
        text(&[
            json!({"tenant": "slurm:9", "number": 1, "node_id": "x", "boot_id": "b", "begin_unix_ns": 1,
            "end_unix_ns": 2, "cpu_ns": -1, "energy_uj": {}}),
        ]),
        text(&lives("last")),
    ];
    fs::write(path("hostile").join("finished.jsonl"), lines.concat()).unwrap();
    let alone: u64 = 1;
    let nodes = |folders: &[PathBuf]| {
        let output = report(folders).args(["--format", "json"]).run().exited(1);
        let json: Value = serde_json::from_str(&output.stdout).unwrap();
        (
            number(&json["fleet"]["nodes"]),
            number(&json["fleet"]["not_read"]),
            output.stderr,
        )
    };
    for (bad, more, said) in [
        ("empty", 0, "is neither the folder of a log"),
        ("foreign", 0, "is neither the folder of a log"),
        ("absent", 0, "absent cannot be read"),
        ("torn", 1, "finished.jsonl:3: the last line is not whole"),
        ("hostile", 2, "finished.jsonl:9: "),
    ] {
        for folders in [vec![good.clone(), path(bad)], vec![path(bad), good.clone()]] {
            let (found, not_read, stderr) = nodes(&folders);
            assert_eq!(found, alone + more, "{bad}: {stderr}");
            assert!(not_read > 0 && stderr.contains(said), "{bad}: {stderr}");
            assert!(
                !stderr
                    .chars()
                    .any(|character| "\u{1b}\u{202e}\u{7}".contains(character)),
                "{stderr:?}"
            );
        }
    }
    let shown = report(&[good.clone(), path("hostile")]).run().exited(1).stdout;
    assert!(
        !shown.chars().any(|character| "\u{1b}\u{202e}\u{7}".contains(character)),
        "{shown:?}"
    );
    assert!(shown.contains("eve") && shown.contains("last"), "{shown}");
    for bad in ["empty", "absent"] {
        let nothing = report(&[path(bad), path("foreign")]).run().exited(1);
        assert!(
            nothing.stdout.is_empty() && nothing.stderr.contains("nothing was added up"),
            "{}",
            nothing.stderr
        );
    }
    // A log that was changed.
    let changed = log(folder.path(), "n9", 3);
    let text = fs::read_to_string(changed.join(LOG_NAME)).unwrap();
    let row = text.find("\"row\":\"process\"").unwrap();
    let energies = row + text[row..].find("\"energy_uj\":{").unwrap() + 13;
    let at = energies + text[energies..].find(':').unwrap() + 1;
    fs::write(changed.join(LOG_NAME), format!("{}1{}", &text[..at], &text[at..])).unwrap();
    let (_, _, stderr) = nodes(&[good.clone(), changed]);
    assert!(stderr.contains("a log was changed"), "{stderr}");
    // As another user than root.
    let private = folder.path().join("private");
    agent(&private, "n1");
    fs::set_permissions(private.join("n1/finished.jsonl"), fs::Permissions::from_mode(0o640)).unwrap();
    for path in [folder.path(), &private] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let refused = report(&[private.join("n1")]).as_user(64_001).run().exited(1);
    assert!(refused.stderr.contains("; ask with sudo"), "{}", refused.stderr);
    // A device is not read, and an agent that has not seen an end is one.
    report(&[good.clone(), "/dev/zero".into()]).run().exited(1);
    fs::write(path("empty").join("finished.jsonl"), "").unwrap();
    assert_eq!(json_of(&[good.clone(), path("empty")])["fleet"]["files"], 3);
    report(&[path("empty")]).run().exited(0);

    for (args, said) in [
        (&["--by", "process"][..], "--by"),
        (&["--each"][..], "--each is for one log"),
        (&["--from", "+10m"][..], "no common beginning"),
    ] {
        let refused = report(std::slice::from_ref(&good)).args(args).run().exited(1).stderr;
        assert!(refused.contains(said), "{refused}");
    }
}

/// Runs the example, and compares each of its rows with `dlpm report`: integers of Python have any size.
const COMPARE: &str = "
import duckdb, json, subprocess, sys
program, example, files, *folders = sys.argv[1:]
said = subprocess.run([program, 'report', '--format', 'json', *folders], stdout=subprocess.PIPE, check=True).stdout
report = json.loads(said)
database = duckdb.connect()
database.execute(f\"SET VARIABLE files = '{files}'\").fetchall()
database.execute(open(example).read()).fetchall()
for by in ('node', 'job', 'user', 'account'):
    keys = ['lives', 'cpu_ns', 'energy_uj'] + (['cluster', 'nodes', 'dram_uj', 'gpu_uj'] if by == 'job' else [])
    rows = database.execute('SELECT \"' + by + '\", ' + ', '.join(keys) + ' FROM by_' + by).fetchall()
    theirs = {row[0] or '(none)': dict(zip(keys, row[1:])) for row in rows}
    ours = {row[by]: {key: row[key] for key in keys} for row in report[by + 's']}
    assert len(rows) == len(ours) > 1 and ours == theirs, (by, ours, theirs)
    assert sum(row['energy_uj'] for row in theirs.values()) == report['total']['energy_uj'] > 2**64, by
print(len(folders))
";

#[test]
fn duckdb_adds_up_the_same_digits() {
    require_program!();
    let Some(python) = env::var_os(DUCKDB_PYTHON) else {
        return kernel::skip("DLPM_DUCKDB_PYTHON names no Python with DuckDB; `cargo xtask test` sets it");
    };
    let folder = tempfile::tempdir().unwrap();
    let mut folders: Vec<PathBuf> = ["n1", "n2", "n3"].map(|node| agent(folder.path(), node)).into();
    // Enough lines that sums go beyond 64 bits, and a copy of some of them.
    let many = folder.path().join("many");
    let copy = folder.path().join("copy");
    for folder in [&many, &copy] {
        fs::create_dir(folder).unwrap();
    }
    let labels = json!({"user": "carol", "cluster": "c1", "account": "ml"});
    let lines: Vec<Value> = (1..=3000)
        .map(|number| life("n4", number, "slurm:5", &labels))
        .collect();
    fs::write(many.join("finished.jsonl"), text(&lines)).unwrap();
    fs::write(copy.join("finished.jsonl"), text(&lines[1000..2000])).unwrap();
    folders.extend([many, copy]);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/fleet.sql");
    let files = folder.path().join("*/finished*.jsonl");
    let mut command = Command::new(python);
    command
        .args(["-B", "-c", COMPARE])
        .args([&program(), &example, &files])
        .args(&folders);
    let (stdout, _) = said(&mut command);
    assert_eq!(stdout.trim(), "5");
}

#[test]
fn a_log_becomes_parquet() {
    require_program!();
    let Some(python) = env::var_os(DUCKDB_PYTHON) else {
        return kernel::skip("DLPM_DUCKDB_PYTHON names no Python with DuckDB; `cargo xtask test` sets it");
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (folder, log) = (tempfile::tempdir().unwrap(), root.join("recorded/phases"));
    let target = folder.path().join("log.parquet");
    let mut command = Command::new(&python);
    command
        .arg("-B")
        .arg(root.join("../examples/parquet.py"))
        .arg(&log)
        .arg(&target);
    // It compares the sums of both by itself.
    assert!(said(&mut command).0.contains("of the files of the log"));
    let rows = "
import duckdb, sys
sum = 'SELECT sum(cpu_ns), sum(list_sum(map_values(energy_uj))) FROM '
print(*duckdb.connect().execute(sum + repr(sys.argv[1])).fetchall()[0])";
    let (stdout, _) = said(Command::new(python).args(["-B", "-c", rows]).arg(&target));
    let report = json_of_log(&log);
    let sums = format!("{} {}", report["cpu"]["interval_ns"], report["energy"]["energy_uj"]);
    assert_eq!(stdout.trim(), sums);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "what it made on the way is gone"
    );
}

fn json_of_log(log: &Path) -> Value {
    let output = Dlpm::new(["report", "--format", "json"]).arg(log).run().exited(0);
    serde_json::from_str(&output.stdout).unwrap()
}

/// Runs a program, and prints its memory at its peak in KiB.
const PEAK: &str = "
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
";

#[test]
fn memory_does_not_grow_with_the_lines() {
    require_program!();
    let folder = tempfile::tempdir().unwrap();
    let peak_kib = |count: u64| {
        let folders: Vec<PathBuf> = ["a", "b"]
            .map(|node| folder.path().join(format!("{node}{count}")))
            .into();
        for (at, folder) in folders.iter().enumerate() {
            fs::create_dir(folder).unwrap();
            // Fifty tenants that come again and again. Line by line, since a program begins with the memory of who starts it.
            let mut file = BufWriter::new(File::create(folder.join("finished.jsonl")).unwrap());
            for number in 1..=count {
                let (node, tenant) = (format!("n{at}"), format!("slurm:{}", number % 50));
                writeln!(file, "{}", life(&node, number, &tenant, &json!({"user": "alice"}))).unwrap();
            }
        }
        let mut arguments = vec!["report", "--format", "json"];
        arguments.extend(folders.iter().map(|folder| folder.to_str().unwrap()));
        // The peak of a program begins with that of who starts it: Python's is small.
        let mut python = Command::new("python3");
        let output = python
            .args(["-c", PEAK])
            .arg(program())
            .args(&arguments)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        folders.iter().for_each(|folder| fs::remove_dir_all(folder).unwrap());
        said.trim().parse::<u64>().unwrap()
    };
    let (few, many) = (peak_kib(3_000), peak_kib(30_000));
    assert!(many < few + 2048, "{few} KiB with 6000 lines, {many} KiB with 60000");
}
