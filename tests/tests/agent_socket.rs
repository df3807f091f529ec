//! The agent's socket: who sees what, where intervals end, and what is refused.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
};

use dlpm_tests::{
    agent::{Container, SOCKET, agent, folder, wait_for_intervals},
    cgroup::Cgroup,
    command::{Dlpm, world_readable},
    log::{LOG_NAME, number},
    powercap::{Powercap, node},
    require_dlpm,
    socket::{Recording, Who},
    tenant::Tenant,
    tenant_program, worker,
};
use serde_json::Value;

const ALICE: u32 = 64_001;
const BOB: u32 = 64_002;
const ROOT: u32 = 0;

/// Process rows of an interval, by pid: CPU time and energy.
fn rows(interval: &Value) -> BTreeMap<u64, (u64, Value)> {
    let rows = interval["rows"].as_array().unwrap().iter();
    rows.filter(|row| row["row"] == "process")
        .map(|row| (number(&row["tgid"]), (number(&row["cpu_ns"]), row["energy_uj"].clone())))
        .collect()
}

/// The pids that a text of JSON could tell.
fn tells(text: &str, pid: u32) -> bool {
    [
        format!("\"{pid}\""),
        format!(":{pid},"),
        format!(":{pid}}}"),
        format!(" {pid} "),
    ]
    .iter()
    .any(|token| text.contains(token))
}

/// The group whose members see everybody; made for this test where it is not there.
struct Group {
    gid: u32,
    is_ours: bool,
}

impl Group {
    fn new() -> Self {
        let is_ours = Command::new("groupadd").arg("dlpm").status().unwrap().success();
        let groups = fs::read_to_string("/etc/group").unwrap();
        let line = groups.lines().find(|line| line.starts_with("dlpm:")).unwrap();
        Self {
            gid: line.split(':').nth(2).unwrap().parse().unwrap(),
            is_ours,
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = Command::new("groupdel").arg("dlpm").status();
        }
    }
}

#[test]
fn everybody_sees_their_own_processes_and_nothing_of_anothers() {
    require_dlpm!();
    let (folder, tree, group) = (folder(), Powercap::start(node()), Group::new());
    let above = Cgroup::create("socket");
    let shared = above.create_inside("shared");
    let inside = |uid: u32, number: u32| {
        let cgroup = above.create_inside(&format!("docker-{}.scope", Container::id(number)));
        let (own, with_others) = (
            Tenant::named(tenant_program!(), &format!("of-{uid}"), None, Some(uid)),
            Tenant::named(tenant_program!(), "twin", None, Some(uid)),
        );
        cgroup.add(own.pid());
        shared.add(with_others.pid());
        (own, with_others, cgroup)
    };
    let (alice, bob) = (inside(ALICE, 1), inside(BOB, 2));
    let mut running = agent(&tree, folder.path()).start();
    wait_for_intervals(&mut running, folder.path(), 2);
    let socket = folder.path().join(SOCKET);

    let mut recording = Who::user(ALICE).record(&socket, "{}");
    for _ in 0..3 {
        recording.interval();
    }
    let seen = rows(&recording.interval());
    for pid in [alice.0.pid(), alice.1.pid()] {
        assert!(seen.contains_key(&pid.into()), "{seen:?}");
    }
    // What was asked, and all that was said.
    let mut said = recording.text.clone();
    let mut ask = |method: &str, path: &str, body: &str, status: u16| {
        let (got, text) = Who::user(ALICE).ask(&socket, method, path, body);
        assert_eq!(got, status, "{method} {path} {body}: {text}");
        said.push_str(&text);
        text
    };
    ask("GET", "/v1", "", 200);
    ask("GET", "/v1/processes", "", 200);
    ask("GET", "/v1/tenants", "", 403);
    ask("POST", "/v1/recordings", &format!("{{\"uid\":[{BOB}]}}"), 403);
    // Whether somebody else has such a process, or nobody: the answer is the same.
    let of_bob = ask(
        "POST",
        "/v1/recordings",
        &format!("{{\"follow\":[{}]}}", bob.0.pid()),
        404,
    );
    let of_nobody = ask("POST", "/v1/recordings", "{\"follow\":[4194303]}", 404);
    assert_eq!(
        of_bob.replace(&bob.0.pid().to_string(), "N"),
        of_nobody.replace("4194303", "N")
    );
    let bobs = Who::user(BOB).record(&socket, "{}");
    let marks = |id: u64| format!("/v1/recordings/{id}/marks");
    let of_bob = ask("POST", &marks(bobs.id()), "{\"begin\":\"x\"}", 404);
    let of_nobody = ask("POST", &marks(99_999), "{\"begin\":\"x\"}", 404);
    assert_eq!(
        of_bob.replace(&bobs.id().to_string(), "N"),
        of_nobody.replace("99999", "N")
    );
    ask("DELETE", &format!("/v1/recordings/{}", bobs.id()), "", 404);
    // Filters find nothing of others, and do not tell that there is something.
    let name = format!("{{\"comm\":[\"of-{BOB}\"],\"max_rows\":10}}");
    let mut filtered = Who::user(ALICE).record(&socket, &name);
    assert!(rows(&filtered.interval()).is_empty());
    let container = Container::id(2);
    let mut filtered = Who::user(ALICE).record(&socket, &format!("{{\"container\":[\"{container}\"]}}"));
    assert!(rows(&filtered.interval()).is_empty());
    let said = said.replace(&format!("there is no process {} of yours", bob.0.pid()), "");
    assert!(
        !said.contains(&format!("of-{BOB}")) && !said.contains(&container),
        "{said}"
    );
    for pid in [bob.0.pid(), bob.1.pid()] {
        assert!(!tells(&said, pid), "{pid} in {said}");
    }
    assert!(said.contains(&format!("of-{ALICE}")) && said.contains("twin"));

    // Root and the group see everybody.
    for who in [
        Who::user(ROOT),
        Who {
            uid: ALICE,
            group: Some(group.gid),
        },
    ] {
        let mut all = who.record(&socket, "{}");
        all.interval();
        let seen = rows(&all.interval());
        for pid in [alice.0.pid(), alice.1.pid(), bob.0.pid(), bob.1.pid()] {
            assert!(seen.contains_key(&pid.into()), "{who:?} {seen:?}");
        }
        let (status, tenants) = who.ask(&socket, "GET", "/v1/tenants", "");
        assert!(status == 200 && tenants.contains(&container), "{tenants}");
    }
    let other = Who {
        uid: ALICE,
        group: Some(group.gid + 1),
    };
    assert_eq!(other.ask(&socket, "GET", "/v1/tenants", "").0, 403);
    running.end_with(libc::SIGTERM).exited(0);
}

#[test]
fn a_process_that_changes_its_user_is_the_new_ones() {
    require_dlpm!();
    let (folder, tree) = (folder(), Powercap::start(node()));
    let mut running = agent(&tree, folder.path()).start();
    wait_for_intervals(&mut running, folder.path(), 2);
    let socket = folder.path().join(SOCKET);
    let mut of_alice = Who::user(ALICE).record(&socket, "{}");
    let mut of_bob = Who::user(BOB).record(&socket, "{}");
    // Root's, until it gives up its rights without an exec: the agent notices by looking.
    let mut given_up = worker!("give-up", ALICE);
    given_up.go();
    // A setuid program has the real user of who started it.
    let directory = tempfile::tempdir().unwrap();
    let setuid = world_readable(&directory).path().join("setuid");
    fs::copy(tenant_program!(), &setuid).unwrap();
    fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755)).unwrap();
    let mut command = Command::new(&setuid);
    command.args(["1000", "9000", "60000"]).uid(ALICE).gid(ALICE);
    let setuid = Tenant::start(command, 1);
    let mut seen = std::collections::BTreeSet::new();
    while !(seen.contains(&u64::from(given_up.pid())) && seen.contains(&u64::from(setuid.pid()))) {
        seen.extend(rows(&of_alice.interval()).into_keys());
        let of_others = rows(&of_bob.interval());
        assert!(of_others.is_empty(), "{of_others:?}");
    }
    running.end_with(libc::SIGTERM).exited(0);
}

#[test]
fn a_user_has_the_same_nanoseconds_and_microjoules_as_root_sees() {
    require_dlpm!();
    let (folder, tree) = (folder(), Powercap::start(node()));
    let above = Cgroup::create("socket-same");
    let _bob = Tenant::named(tenant_program!(), "of-bob", None, Some(BOB));
    let alice = Tenant::named(tenant_program!(), "of-alice", None, Some(ALICE));
    above.add(alice.pid());
    let mut running = agent(&tree, folder.path()).start();
    wait_for_intervals(&mut running, folder.path(), 2);
    let socket = folder.path().join(SOCKET);
    let follow = format!("{{\"follow\":[{}]}}", alice.pid());
    let mut of_root = Who::user(ROOT).record(&socket, &follow);
    let mut of_alice = Who::user(ALICE).record(&socket, &follow);
    // A third one whose marks end intervals: none of those of the others.
    let mut marked = Who::user(BOB).record(&socket, "{}");
    let mut borders = Vec::new();
    let mut common = 0;
    let mut by_begin = BTreeMap::new();
    while common < 5 {
        let path = format!("/v1/recordings/{}/marks", marked.id());
        let (status, text) = Who::user(BOB).ask(&socket, "POST", &path, "{}");
        assert_eq!(status, 200, "{text}");
        borders.push(number(&serde_json::from_str::<Value>(&text).unwrap()["at_ns"]));
        let interval = of_root.interval();
        by_begin.insert(number(&interval["begin_ns"]), interval);
        let interval = of_alice.interval();
        let Some(whole) = by_begin.get(&number(&interval["begin_ns"])) else {
            continue;
        };
        if whole["end_ns"] != interval["end_ns"] {
            continue;
        }
        let (seen, own) = (rows(whole), rows(&interval));
        assert_eq!(own.keys().copied().collect::<Vec<_>>(), [u64::from(alice.pid())]);
        for (pid, row) in &own {
            assert_eq!(row, &seen[pid], "{pid}");
            assert!(row.0 > 0);
        }
        for part in ["cpus", "zones", "rows", "cgroups"] {
            assert_eq!(interval[part], whole[part], "{part}");
        }
        common += 1;
    }
    for (who, recording) in [(ROOT, &mut of_root), (ALICE, &mut of_alice), (BOB, &mut marked)] {
        let path = format!("/v1/recordings/{}", recording.id());
        let (status, _) = Who::user(who).ask(&socket, "DELETE", &path, "");
        assert_eq!(status, 200);
        recording.finish();
        assert!(recording.text.contains("{\"ended\":{\"reason\":\"asked\""));
        is_proved(recording, &folder.path().join(format!("recording-{who}")));
    }
    let ends = |recording: &Recording| -> Vec<u64> {
        let lines = recording.log();
        let lines = lines
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter_map(|line| line["dlpm"]["end_ns"].as_u64()).collect()
    };
    for border in &borders {
        assert!(ends(&marked).contains(border));
        assert!(!ends(&of_root).contains(border) && !ends(&of_alice).contains(border));
    }
    running.end_with(libc::SIGTERM).exited(0);
}

/// The lines of a recording are a log that `dlpm verify` proves.
#[track_caller]
fn is_proved(recording: &Recording, folder: &Path) {
    fs::create_dir(folder).unwrap();
    fs::write(folder.join(LOG_NAME), recording.log()).unwrap();
    let verified = Dlpm::new(["verify"]).arg(folder).run();
    assert!(verified.status.success(), "{}{}", verified.stdout, verified.stderr);
}

#[test]
fn what_makes_no_sense_or_is_too_much_is_refused_with_a_sentence() {
    require_dlpm!();
    let (folder, tree) = (folder(), Powercap::start(node()));
    let mut running = agent(&tree, folder.path()).start();
    wait_for_intervals(&mut running, folder.path(), 2);
    let socket = folder.path().join(SOCKET);
    let long = format!("{{\"comm\":[\"{}\"]}}", "x".repeat(70_000));
    let hungry = "{\"comm\":[\"((a{100}){100}){100}\"]}";
    for (method, path, body, status, said) in [
        ("GET", "/", "", 404, "/v1"),
        ("GET", "/v2/processes", "", 404, "version"),
        ("GET", "/v1/recordings", "", 400, "POST"),
        ("POST", "/v1/recordings", "{", 400, "not such a request"),
        ("POST", "/v1/recordings", "{\"everything\":1}", 400, "unknown field"),
        ("POST", "/v1/recordings", "{\"interval_ms\":1}", 400, "multiple of 100"),
        ("POST", "/v1/recordings", long.as_str(), 400, "length limit"),
        ("POST", "/v1/recordings", hungry, 400, "regular expression"),
        (
            "POST",
            "/v1/recordings",
            "{\"comm\":[\"(\"]}",
            400,
            "regular expression",
        ),
        ("POST", "/v1/recordings/x/marks", "{}", 404, "nothing at"),
        ("POST", "/v1/recordings/1/marks", "{}", 404, "no recording 1 of yours"),
    ] {
        let (got, text) = Who::user(ALICE).ask(&socket, method, path, body);
        assert_eq!(got, status, "{method} {path}: {text}");
        let error: Value = serde_json::from_str(&text).unwrap();
        assert!(
            error["error"].as_str().unwrap().contains(said),
            "{method} {path}: {text}"
        );
    }
    // Too many of one user; another one still gets in.
    let all: Vec<Recording> = (0..16).map(|_| Who::user(ALICE).record(&socket, "{}")).collect();
    let (status, text) = Who::user(ALICE).ask(&socket, "POST", "/v1/recordings", "{}");
    assert!(status == 429 && text.contains("end one first"), "{text}");
    let mut of_bob = Who::user(BOB).record(&socket, "{}");
    // Marks without an end.
    let path = format!("/v1/recordings/{}/marks", all[0].id());
    let flood = || (0..500).map(|_| Who::user(ALICE).ask(&socket, "POST", &path, "{}"));
    let refused = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| flood().find(|(status, _)| *status == 429)))
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).next()
    });
    let (_, text) = refused.unwrap();
    assert!(text.contains("marks come too fast"), "{text}");
    let (status, _) = Who::user(BOB).ask(&socket, "POST", &format!("/v1/recordings/{}/marks", of_bob.id()), "{}");
    assert_eq!(status, 200, "another user's marks are taken");
    of_bob.interval();
    // Connections that close make room.
    drop(all);
    running.wait_until("room for another recording", || {
        Who::user(ALICE).begin(&socket, "POST", "/v1/recordings", "{}").status == 200
    });
    // Nobody who parses what comes in has any right.
    let tasks = fs::read_dir(format!("/proc/{}/task", running.pid())).unwrap();
    let mut threads = 0;
    for task in tasks.map(|task| task.unwrap().path()) {
        if fs::read_to_string(task.join("comm")).unwrap().trim() == "dlpm-socket" {
            threads += 1;
            let status = fs::read_to_string(task.join("status")).unwrap();
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert!(status.contains(&format!("{set}:\t0000000000000000")), "{status}");
            }
            assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        }
    }
    assert_eq!(threads, 1);
    running.end_with(libc::SIGTERM).exited(0);
    assert!(!socket.exists());
}
