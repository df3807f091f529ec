//! Where it ran: processes that change their cgroup, and cgroups that come and go.

use std::{
    collections::HashSet,
    io, thread,
    time::{Duration, Instant},
};

use dlpm::sources::cpu_time::Config;
use dlpm_tests::{cgroup::Cgroup, require_kernel, trace::Trace, worker, worker::cpu_clock_ns};
use tokio::{
    runtime::{Builder, Runtime},
    time::{sleep, timeout},
};

/// A slice of the worker below: a move shows at the next switch.
const BURST_NS: u64 = 1_000_000;

#[test]
fn a_process_that_moves_is_split() {
    require_kernel!();
    let before = Cgroup::create("before");
    let after = Cgroup::create("after");
    let mut worker = worker!("burst", 0, BURST_NS / 1_000, 200);
    before.add(worker.pid());
    worker.go();
    let clock = || cpu_clock_ns(worker.pid());
    // Each event lies between two readings of the process's own clock.
    let begin = (clock(), Trace::start(&Config::default()), clock());
    let mut trace = begin.1;
    thread::sleep(Duration::from_millis(200));
    let moved = (clock(), after.add(worker.pid()), clock());
    thread::sleep(Duration::from_millis(200));
    let end = (clock(), trace.step().usage.len(), clock());

    let in_group = |group: &Cgroup| -> u64 {
        let id = group.id();
        trace
            .usage_of(worker.pid())
            .filter(|usage| usage.cgroup_id == id)
            .map(|usage| usage.ns)
            .sum()
    };
    let (first, second) = (in_group(&before), in_group(&after));
    let all: u64 = trace.usage_of(worker.pid()).map(|usage| usage.ns).sum();
    assert_eq!(first + second, all, "time in a third cgroup");
    let within = |ns: u64, least: u64, most: u64, slice: u64, what: &str| {
        // Some microseconds per switch are the outgoing task's here and the incoming one's on the process's clock.
        let slack = slice + most / 50;
        assert!(
            ns + slack >= least && ns <= most + slack,
            "{what}: {ns} is not in {least}..{most}"
        );
    };
    assert!(first > 0 && second > 0);
    within(first, moved.0 - begin.2, moved.2 - begin.0, BURST_NS * 2, "before");
    within(second, end.0 - moved.2, end.2 - moved.0, BURST_NS * 2, "after");
    within(all, end.0 - begin.2, end.2 - begin.0, 0, "all");
}

#[test]
fn a_cgroup_that_is_gone_has_left_its_path() {
    require_kernel!();
    let mut trace = Trace::start(&Config::default());
    let _ = trace.cpu_time.new_cgroups().unwrap();
    assert_eq!(trace.cpu_time.new_cgroups().unwrap(), [], "nothing is told twice");
    let outer = Cgroup::create("outer");
    let inner = outer.create_inside("inner");
    // Longer than what the kernel side keeps.
    let mut deep = vec![outer.create_inside(&"x".repeat(250))];
    deep.push(deep[0].create_inside(&"y".repeat(250)));
    let expected = [
        (outer.id(), Some(outer.path().to_owned())),
        (inner.id(), Some(inner.path().to_owned())),
        (deep[0].id(), Some(deep[0].path().to_owned())),
        (deep[1].id(), None),
    ];
    while let Some(innermost) = deep.pop() {
        drop(innermost);
    }
    drop(inner);
    drop(outer);
    let told = trace.cpu_time.new_cgroups().unwrap();
    for expected in expected {
        assert!(told.contains(&expected), "{expected:?} is not in {told:?}");
    }
    assert_eq!(
        trace
            .cpu_time
            .new_cgroups()
            .unwrap()
            .iter()
            .filter(|new| told.contains(new))
            .count(),
        0
    );
}

/// Time of a process whose cgroup was made and removed within one interval.
#[test]
fn time_in_a_cgroup_that_is_gone_can_be_named() {
    require_kernel!();
    let mut trace = Trace::start(&Config::default());
    let group = Cgroup::create("short");
    let mut worker = worker!("storm", 20, "storm");
    group.add(worker.pid());
    worker.go();
    worker.lines_until_done();
    let (id, path) = (group.id(), group.path().to_owned());
    worker.finish();
    drop(group);
    trace.step();
    assert!(trace.usage().any(|usage| usage.cgroup_id == id && usage.ns > 0));
    assert!(trace.cpu_time.new_cgroups().unwrap().contains(&(id, Some(path))));
}

/// So long nothing wakes only where something is wrong.
const NEVER: Duration = Duration::from_secs(60);

fn a_runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Also after more were made at once than the kernel's ring has room for.
#[test]
fn new_cgroups_wake_who_waits_for_them() {
    require_kernel!();
    let mut trace = Trace::start(&Config::default());
    let above = Cgroup::create("news");
    a_runtime().unwrap().block_on(async {
        let mut news = trace.cpu_time.cgroup_news().unwrap();
        for count in [1, 300, 1] {
            let made: Vec<Cgroup> = (0..count)
                .map(|number| above.create_inside(&number.to_string()))
                .collect();
            let mut unseen: HashSet<u64> = made.iter().map(Cgroup::id).collect();
            while !unseen.is_empty() {
                timeout(NEVER, news.due()).await.expect("nothing wakes").unwrap();
                for (id, _) in trace.cpu_time.new_cgroups().unwrap() {
                    unseen.remove(&id);
                }
            }
        }
    });
}

/// However many are made, and although whoever waits does other things meanwhile.
#[test]
fn a_storm_of_cgroups_wakes_ten_times_a_second_at_most() {
    require_kernel!();
    let mut trace = Trace::start(&Config::default());
    let above = Cgroup::create("storm");
    a_runtime().unwrap().block_on(async {
        let mut news = trace.cpu_time.cgroup_news().unwrap();
        let (begin, mut looks) = (Instant::now(), 0);
        while looks < 5 {
            assert!(begin.elapsed() < NEVER, "{looks} looks");
            tokio::select! {
                biased;
                due = news.due() => {
                    due.unwrap();
                    looks += 1;
                }
                () = sleep(Duration::from_millis(1)) => drop(above.create_inside("one")),
            }
        }
        // From the first to the fifth.
        assert!(begin.elapsed() >= Duration::from_millis(400), "{:?}", begin.elapsed());
    });
}
