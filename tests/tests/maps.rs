//! Maps that are too small lose names, but no time; maps that are large enough do not grow.

use std::{collections::HashSet, time::Duration};

use dlpm::sources::cpu_time::{Config, CpuTime, CpuTimeError, MAX_SLOTS_LOG2, MapSizes};
use dlpm_common::Counter;
use dlpm_tests::{require_kernel, trace::Trace, worker, worker::unique};

fn sized(sizes: MapSizes) -> Config {
    Config {
        sizes,
        ..Config::default()
    }
}

/// More processes than there is room for: slots and spill are used up, and `Trace` finds that what was recorded, what
/// was lost and idle are the interval.
#[test]
fn what_finds_no_room_is_lost_time_and_nothing_else() {
    require_kernel!();
    for slots_log2 in [0, 2] {
        let mut trace = Trace::start(&sized(MapSizes {
            slots_log2,
            spill: 8,
            ..MapSizes::default()
        }));
        let mut storm = worker!("storm", 1_000, unique("s"));
        trace.while_working(&mut storm, Duration::from_millis(50));
        let cpus = || trace.intervals.iter().flat_map(|drained| &drained.cpus);
        assert!(cpus().map(|cpu| cpu.lost_ns).sum::<u64>() > 0);
        assert!(cpus().map(|cpu| cpu.busy_ns).sum::<u64>() > 0);
        // The kernel's hash map may keep one more element per CPU.
        let cpu_count = trace.cpu_time.tables().cpus() as usize;
        let room = cpu_count * (1 << slots_log2) + 8;
        let most = trace.intervals.iter().map(|drained| drained.usage.len()).max();
        assert!(
            most.is_some_and(|most| most > room - 8 && most <= room + cpu_count),
            "{most:?} of {room}"
        );
    }
}

/// The spill map alone loses nothing as long as it has room.
#[test]
fn what_finds_no_slot_is_spilled() {
    require_kernel!();
    let mut trace = Trace::start(&sized(MapSizes {
        slots_log2: 1,
        ..MapSizes::default()
    }));
    let mut storm = worker!("storm", 1_000, unique("s"));
    trace.while_working(&mut storm, Duration::from_millis(50));
    let lost: u64 = trace
        .intervals
        .iter()
        .flat_map(|drained| &drained.cpus)
        .map(|cpu| cpu.lost_ns)
        .sum();
    assert_eq!(lost, 0);
    let found: HashSet<_> = trace.named(|name| name.starts_with(&unique("s"))).into_keys().collect();
    assert_eq!(found.len(), 1_000);
}

#[test]
fn slot_tables_of_an_absurd_size_are_refused() {
    for slots_log2 in [MAX_SLOTS_LOG2 + 1, 32, u32::MAX] {
        let refused = CpuTime::start(&sized(MapSizes {
            slots_log2,
            ..MapSizes::default()
        }));
        assert!(matches!(refused, Err(CpuTimeError::SlotsLog2 { .. })));
    }
}

#[test]
fn processes_that_find_no_room_are_named_from_proc() {
    require_kernel!();
    let mut trace = Trace::start(&sized(MapSizes {
        processes: 4,
        ..MapSizes::default()
    }));
    let mut spinner = worker!("spin", 0);
    spinner.go();
    trace.steps(5, Duration::from_millis(20));
    assert!(trace.cpu_time.counter(Counter::ProcessesFull) > 0);
    assert!(
        trace
            .kernel_processes()
            .iter()
            .all(|(key, _)| key.tgid != spinner.pid())
    );
    let id = trace.usage_of(spinner.pid()).next().unwrap().process;
    let process = &trace.seen[&id];
    assert_eq!((&*process.comm, &*process.exec_comm), ("dlpm-worker", "dlpm-worker"));
    assert_eq!(process.parent.unwrap().tgid, std::process::id());
}

#[test]
fn processes_that_are_gone_leave_the_map() {
    require_kernel!();
    const COUNT: usize = 5_000;
    let mut trace = Trace::start(&Config::default());
    let mut spinner = worker!("spin", 0);
    spinner.go();
    let mut storm = worker!("storm", COUNT, unique("s"));
    trace.while_working(&mut storm, Duration::from_millis(50));
    let gone: HashSet<u32> = trace
        .named(|name| name.starts_with(&unique("s")))
        .into_keys()
        .map(|id| id.tgid)
        .collect();
    assert_eq!(gone.len(), COUNT);
    // Entries stay for two seconds after the exit, and until an interval in which the process did not run.
    trace.steps(11, Duration::from_millis(200));
    trace.steps(2, Duration::from_millis(10));
    let left = trace.kernel_processes();
    let of_storm = left
        .iter()
        .filter(|(_, record)| record.comm.starts_with(unique("s").as_bytes()))
        .count();
    assert_eq!(of_storm, 0, "of {} entries", left.len());
    for live in [spinner.pid(), storm.pid(), std::process::id()] {
        assert!(
            left.iter().any(|(key, record)| key.tgid == live && record.exit_ns == 0),
            "{live} is not there"
        );
    }
    assert!(
        trace
            .named(|name| name.starts_with(&unique("s")))
            .keys()
            .all(|id| trace.table.get(id).is_none())
    );
}

#[test]
fn what_is_not_in_a_map_does_not_keep_the_rest_from_being_deleted() {
    require_kernel!();
    let trace = Trace::start(&Config::default());
    let sleepers: Vec<_> = (0..3).map(|_| worker!("sleepers", 0)).collect();
    let there = |pid: u32| {
        let entries = trace.kernel_processes();
        entries.into_iter().map(|(key, _)| key).find(|key| key.tgid == pid)
    };
    let keys: Vec<_> = sleepers.iter().map(|worker| there(worker.pid()).unwrap()).collect();
    let missing = |number| dlpm_common::ProcessKey {
        start_ns: 1,
        tgid: number,
        padding: 0,
    };
    let mixed = [missing(1), keys[0], missing(2), missing(3), keys[1], missing(4)];
    assert_eq!(trace.delete_kernel_processes(&mixed), 2);
    assert_eq!(trace.delete_kernel_processes(&mixed), 0);
    assert_eq!(trace.delete_kernel_processes(&[]), 0);
    assert_eq!(there(sleepers[0].pid()), None);
    assert_eq!(there(sleepers[1].pid()), None);
    assert_eq!(there(sleepers[2].pid()), Some(keys[2]));
}
