//! On every CPU, the nanoseconds of all tasks, of idle and of what was lost are the length of the interval. `Trace`
//! checks that, and that intervals follow each other without a gap, in every interval of every test.

use std::{thread, time::Duration};

use dlpm::sources::{
    clock::monotonic_ns,
    cpu_time::{Config, CpuTime},
};
use dlpm_common::Counter;
use dlpm_tests::{cpus, kernel::skip, require_kernel, trace::Trace, worker};

#[test]
fn holds_under_forks_threads_and_hopping_tasks() {
    require_kernel!();
    let mut storm = worker!("storm", 1_000_000, "storm");
    let mut hop = worker!("hop", 20, 600_000);
    let mut trace = Trace::start(&Config::default());
    storm.go();
    hop.go();
    trace.steps(120, Duration::from_millis(20));
    let online = cpus::online();
    for drained in &trace.intervals {
        let cpus: Vec<u32> = drained.cpus.iter().map(|cpu| cpu.cpu).collect();
        assert_eq!(cpus, online);
    }
    assert!(trace.usage_of(storm.pid()).count() > 0);
    assert!(trace.usage_of(hop.pid()).count() > 0);
    let lost: u64 = trace
        .intervals
        .iter()
        .flat_map(|drained| &drained.cpus)
        .map(|cpu| cpu.lost_ns)
        .sum();
    assert_eq!(lost, 0, "maps of the usual size have room for this");
}

#[test]
fn begins_while_processes_fork() {
    require_kernel!();
    let mut storm = worker!("storm", 1_000_000, "storm");
    storm.go();
    for _ in 0..5 {
        let mut trace = Trace::start(&Config::default());
        trace.steps(5, Duration::from_millis(5));
        // A process that forks while the tasks are listed is put in twice; that is not a full map.
        assert_eq!(trace.cpu_time.counter(Counter::ProcessesFull), 0);
    }
}

#[test]
fn a_task_that_never_switches_has_all_of_its_cpu() {
    require_kernel!();
    let cpu = *cpus::online().last().unwrap();
    let mut spinner = worker!("spin", cpu);
    spinner.go();
    // Where it is refused, it only takes longer until the CPU is undisturbed.
    cpus::make_real_time(spinner.pid());
    let mut trace = Trace::start(&Config::default());
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(100));
        let drained = trace.step();
        let found = drained.usage.iter().find(|usage| usage.process.tgid == spinner.pid());
        assert!(
            found.is_some_and(|usage| usage.cpu == cpu && usage.ns > 0),
            "{drained:?}"
        );
    }
    // The kernel keeps a little of every second for others; between that, nothing switches.
    let undisturbed = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(5));
        let drained = trace.step();
        let interval = drained.cpus.iter().find(|interval| interval.cpu == cpu).unwrap();
        if interval.switches > 0 {
            return false;
        }
        let records: Vec<_> = drained.usage.iter().filter(|usage| usage.cpu == cpu).collect();
        assert_eq!(records.len(), 1, "{records:?}");
        assert_eq!(records[0].process.tgid, spinner.pid());
        assert_eq!(records[0].ns, interval.interval_ns());
        true
    });
    assert!(undisturbed, "the spinner was disturbed in all of 500 intervals");
}

#[test]
fn threads_that_hop_between_cpus_are_one_process() {
    require_kernel!();
    let online = cpus::online();
    if online.len() < 2 {
        return skip("there is only one CPU");
    }
    let mut trace = Trace::start(&Config::default());
    let mut hop = worker!("hop", 4, 1000);
    trace.while_working(&mut hop, Duration::from_millis(50));
    let pid = hop.pid();
    let by_kernel = hop.finish();
    trace.step();
    for cpu in online {
        assert!(
            trace.usage_of(pid).any(|usage| usage.cpu == cpu),
            "nothing on CPU {cpu}"
        );
    }
    let ids = trace
        .named(|name| name == "dlpm-worker")
        .into_keys()
        .filter(|id| id.tgid == pid);
    assert_eq!(ids.count(), 1);
    let traced: u64 = trace.usage_of(pid).map(|usage| usage.ns).sum();
    let wall = trace
        .intervals
        .iter()
        .flat_map(|drained| &drained.cpus)
        .map(|cpu| cpu.interval_ns());
    assert!(traced <= wall.sum());
    // Both count the same process from its birth to its death; the work of the scheduler falls to the task going out
    // here and to the one coming in there.
    let difference = traced.abs_diff(by_kernel);
    assert!(
        difference * 50 < by_kernel,
        "traced {traced} ns, by the kernel {by_kernel} ns"
    );
}

/// The law is measured and not made: a record that says one nanosecond less breaks it.
#[test]
fn a_doctored_record_breaks_it() {
    require_kernel!();
    let mut cpu_time = CpuTime::start(&Config::default()).unwrap();
    let sealed = cpu_time.seal().unwrap();
    let _ = cpu_time.drain(&sealed).unwrap();
    let begun = monotonic_ns();
    // This thread is busy on some CPU, so there is a record to doctor.
    while monotonic_ns() - begun < 10_000_000 {}
    let sealed = cpu_time.seal().unwrap();
    let mut doctored = None;
    for cpu in sealed.cpus.iter().map(|cpu| cpu.cpu) {
        cpu_time.tables().doctor_slots(cpu, sealed.sequence, |slot| {
            if doctored.is_none() && slot.ns > 0 {
                slot.ns -= 1;
                doctored = Some(cpu);
            }
        });
    }
    assert!(doctored.is_some());
    for cpu in cpu_time.drain(&sealed).unwrap().cpus {
        assert_eq!(cpu.time_law_holds(), Some(cpu.cpu) != doctored, "{cpu:?}");
    }
}
