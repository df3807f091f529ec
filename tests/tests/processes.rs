//! Whose time it is: names, parents and trees, also of processes that nobody could look up in time.

use std::{
    collections::{HashMap, HashSet},
    process::Command,
    time::Duration,
};

use dlpm::{
    interval::{ProcessId, Trees},
    sources::{
        cpu_time::{Config, Identity},
        processes::Branch,
    },
};
use dlpm_common::Counter;
use dlpm_tests::{require_kernel, trace::Trace, worker, worker::unique};

#[test]
fn each_of_5000_short_processes_has_its_time_name_and_parent() {
    require_kernel!();
    const COUNT: usize = 5_000;
    let mut trace = Trace::start(&Config::default());
    let mut storm = worker!("storm", COUNT, unique("s"));
    let lines = trace.while_working(&mut storm, Duration::from_millis(50));
    let parent = trace.usage_of(storm.pid()).next().unwrap().process;
    let found: HashMap<String, ProcessId> = trace
        .named(|name| name.starts_with(&unique("s")))
        .into_iter()
        .map(|(id, process)| {
            assert_eq!(process.parent, Some(parent), "{id:?} {process:?}");
            assert_eq!(&*process.exec_comm, "dlpm-worker", "{id:?} {process:?}");
            (process.comm.to_string(), id)
        })
        .collect();
    assert_eq!(found.len(), COUNT);
    assert_eq!(
        trace.named(|name| name.starts_with(&unique("s"))).len(),
        COUNT,
        "a name twice"
    );
    let with_time: HashSet<ProcessId> = trace.usage().map(|usage| usage.process).collect();
    assert_eq!(lines.len(), COUNT);
    for line in lines {
        let (pid, name) = line.split_once(' ').unwrap();
        let id = found[name];
        assert_eq!(id.tgid.to_string(), pid, "{name}");
        assert!(with_time.contains(&id), "{name}");
    }
    assert_eq!(trace.cpu_time.counter(Counter::ProcessesFull), 0);
}

#[test]
fn children_of_an_older_process_have_its_name_at_exec() {
    require_kernel!();
    const COUNT: usize = 200;
    let mut storm = worker!("storm", COUNT, unique("o"));
    let mut trace = Trace::start(&Config::default());
    trace.while_working(&mut storm, Duration::from_millis(50));
    let children = trace.named(|name| name.starts_with(&unique("o")));
    assert_eq!(children.len(), COUNT);
    for (id, process) in children {
        assert_eq!(&*process.exec_comm, "dlpm-worker", "{id:?} {process:?}");
    }
}

#[test]
fn a_process_that_gives_up_root_is_found_out() {
    require_kernel!();
    const NOBODY: u32 = 65_534;
    let mut worker = worker!("give-up", NOBODY);
    let pid = worker.pid();
    let mut trace = Trace::start(&Config::default());
    trace.steps(2, Duration::from_millis(10));
    let user = |trace: &Trace| {
        let own = trace.seen.iter().find(|(id, _)| id.tgid == pid);
        own.and_then(|(_, process)| process.uid)
    };
    assert!(user(&trace).is_none_or(|uid| uid == 0));
    worker.go();
    for _ in 0..200 {
        trace.steps(1, Duration::from_millis(10));
        if user(&trace) == Some(NOBODY) {
            return;
        }
    }
    panic!("after 200 intervals its user is still {:?}", user(&trace));
}

#[test]
fn a_process_has_the_name_of_its_exec_and_the_one_it_took() {
    require_kernel!();
    let mut trace = Trace::start(&Config::default());
    let mut worker = worker!("rename", unique("new"), unique("thread"));
    trace.while_working(&mut worker, Duration::from_millis(10));
    let renamed = trace.named(|name| name == unique("new"));
    let (id, process) = renamed.iter().next().unwrap();
    assert_eq!(renamed.len(), 1);
    assert_eq!(id.tgid, worker.pid());
    assert_eq!(&*process.exec_comm, "dlpm-worker");
    assert!(
        trace.named(|name| name == unique("thread")).is_empty(),
        "a thread has renamed its process"
    );
}

/// More changes than the kernel side can tell of in one interval: then every process that ran is looked at again.
#[test]
fn no_change_is_missed_where_there_are_too_many() {
    require_kernel!();
    let mut trace = Trace::start(&Config::default());
    let flood = worker!("flood", 60_000);
    let renamed = worker!("rename", unique("late"), unique("thread"));
    let pid = renamed.pid();
    trace.step();
    for mut worker in [flood, renamed] {
        let seen = trace.usage_of(worker.pid()).next().unwrap().process;
        assert_eq!(&*trace.seen[&seen].comm, "dlpm-worker");
        worker.go();
        worker.finish();
    }
    trace.step();
    assert!(trace.cpu_time.counter(Counter::ChangesLost) > 0);
    let renamed = trace.named(|name| name == unique("late"));
    assert_eq!(renamed.keys().map(|id| id.tgid).collect::<Vec<_>>(), [pid]);
    assert!(renamed.values().all(|process| process.exited));
    // And the changes of the next interval are told again.
    let lost = trace.cpu_time.counter(Counter::ChangesLost);
    let mut worker = worker!("rename", unique("next"), unique("thread"));
    trace.step();
    trace.while_working(&mut worker, Duration::from_millis(10));
    assert_eq!(trace.named(|name| name == unique("next")).len(), 1);
    assert_eq!(trace.cpu_time.counter(Counter::ChangesLost), lost);
}

/// One process that calls exec twice within one interval and is gone before it ends.
#[test]
fn the_last_exec_names_a_short_process() {
    require_kernel!();
    let mut trace = Trace::start(&Config::default());
    let mut shell = Command::new("sh").args(["-c", "exec sleep 0.005"]).spawn().unwrap();
    assert!(shell.wait().unwrap().success());
    trace.step();
    let usage = trace.usage_of(shell.id()).next().unwrap();
    let process = trace.seen[&usage.process].clone();
    assert_eq!((&*process.comm, &*process.exec_comm), ("sleep", "sleep"));
    assert_eq!(process.parent.unwrap().tgid, std::process::id());
    assert!(process.exited);
}

#[test]
fn a_daemon_that_forked_twice_is_still_followed() {
    require_kernel!();
    let mut trace = Trace::start(&Config::default());
    let mut root = worker!("daemon", unique("daemon"));
    let mut stranger = worker!("daemon", unique("strange"));
    trace.table.add_root(root.pid(), Branch::whole(5)).unwrap();
    trace.while_working(&mut root, Duration::from_millis(5));
    trace.while_working(&mut stranger, Duration::from_millis(5));
    for (name, tracked) in [(unique("daemon"), true), (unique("strange"), false)] {
        let found = trace.named(|found| found == name);
        assert_eq!(found.len(), 1, "{name}");
        let (id, process) = found.iter().next().unwrap();
        assert_eq!(process.trees.meets(Trees::one(5)), tracked, "{name}");
        let between = &trace.seen[&process.parent.unwrap()];
        assert!(between.exited, "the daemon's parent leaves at once");
        let first = between.parent.unwrap();
        assert_eq!(first.tgid, if tracked { root.pid() } else { stranger.pid() }, "{id:?}");
        assert_eq!(trace.seen[&first].trees.meets(Trees::one(5)), tracked);
    }
}

#[test]
fn a_pid_that_is_used_again_is_another_process() {
    require_kernel!();
    const COUNT: usize = 50;
    let mut trace = Trace::start(&Config::default());
    let mut worker = worker!("reuse", COUNT, unique("a"));
    worker.go();
    let lines = worker.lines_until_done();
    let (pid, prefix) = lines[0].split_once(' ').unwrap();
    let pid: u32 = pid.parse().unwrap();
    trace.step();
    let found: HashSet<String> = trace
        .named(|name| name.starts_with(&format!("{prefix}-")))
        .into_iter()
        .map(|(id, process)| {
            assert_eq!(id.tgid, pid);
            assert!(
                trace.usage_of(pid).any(|usage| usage.process == id),
                "{process:?} has no time"
            );
            process.comm.to_string()
        })
        .collect();
    // All in one interval, and none has swallowed another.
    assert_eq!(found, (0..COUNT).map(|index| format!("{prefix}-{index}")).collect());
    assert_eq!(trace.intervals.len(), 1);
}

/// What start times are for: without them the same run is one process. Shows that the test above can fail.
#[test]
fn without_start_times_a_pid_is_one_process() {
    require_kernel!();
    let mut trace = Trace::start(&Config {
        identity: Some(Identity::Tgid),
        ..Config::default()
    });
    let (identity, reason) = trace.cpu_time.identity();
    assert_eq!(identity, Identity::Tgid);
    assert!(reason.is_some());
    let mut spinner = worker!("spin", 0);
    spinner.go();
    let mut worker = worker!("reuse", 10, unique("a"));
    let lines = trace.while_working(&mut worker, Duration::from_millis(20));
    let pid: u32 = lines[0].split_once(' ').unwrap().0.parse().unwrap();
    trace.steps(2, Duration::from_millis(20));
    assert!(trace.usage().all(|usage| usage.process.start_ns == 0));
    let ids: HashSet<ProcessId> = trace.usage_of(pid).map(|usage| usage.process).collect();
    assert_eq!(ids.len(), 1);
    let spinning = ProcessId {
        tgid: spinner.pid(),
        start_ns: 0,
    };
    assert!(trace.usage_of(spinner.pid()).map(|usage| usage.ns).sum::<u64>() > 0);
    assert_eq!(&*trace.seen[&spinning].comm, "dlpm-worker", "from /proc");
}
