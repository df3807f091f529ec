//! CPUs that come and go, and CPUs that share a core.

use std::{thread, time::Duration};

use dlpm::sources::cpu_time::Config;
use dlpm_tests::{
    cpus::{self, Hotplug},
    kernel::skip,
    require_kernel,
    trace::Trace,
    worker,
};

/// The last CPU, if it can be taken offline and another one stays.
fn removable() -> Result<(u32, Hotplug), String> {
    let online = cpus::online();
    match online.last() {
        Some(&last) if online.len() > 1 => Ok((last, Hotplug::of(last)?)),
        _ => Err("there is only one CPU".to_owned()),
    }
}

#[test]
fn a_cpu_goes_and_comes_back() {
    require_kernel!();
    let (cpu, hotplug) = match removable() {
        Ok(removable) => removable,
        Err(reason) => return skip(&reason),
    };
    const ROUNDS: usize = 6;
    let mut storm = worker!("storm", 1_000_000);
    let mut half = worker!("burst", cpu, 3_000, 500);
    storm.go();
    half.go();
    let mut trace = Trace::start(&Config::default());
    trace.with_gaps = true;
    for round in 0..2 * ROUNDS {
        // Intervals go on ending while the CPU is on its way, and some more until the next seal knows where it is.
        thread::scope(|scope| {
            let turn = scope.spawn(|| match round % 2 {
                0 => hotplug.take_offline(),
                _ => hotplug.bring_back(),
            });
            while !turn.is_finished() {
                trace.steps(1, Duration::from_millis(1));
            }
        });
        trace.steps(3, Duration::from_millis(2));
    }
    let there: Vec<bool> = trace
        .intervals
        .iter()
        .map(|drained| drained.cpus.iter().any(|interval| interval.cpu == cpu))
        .collect();
    let changes = there.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(changes, 2 * ROUNDS, "{there:?}");
}

#[test]
fn a_cpu_is_off_at_the_start() {
    require_kernel!();
    let (cpu, hotplug) = match removable() {
        Ok(removable) => removable,
        Err(reason) => return skip(&reason),
    };
    hotplug.take_offline();
    let mut trace = Trace::start(&Config::default());
    trace.with_gaps = true;
    trace.steps(5, Duration::from_millis(10));
    assert!(
        trace
            .intervals
            .iter()
            .flat_map(|drained| &drained.cpus)
            .all(|interval| interval.cpu != cpu)
    );
    hotplug.bring_back();
    trace.steps(10, Duration::from_millis(20));
    let last = &trace.intervals[trace.intervals.len() - 1];
    assert!(
        last.cpus
            .iter()
            .any(|interval| interval.cpu == cpu && interval.interval_ns() > 0)
    );
}

#[test]
fn without_siblings_nothing_is_shared() {
    require_kernel!();
    let mut trace = Trace::start(&Config::default());
    trace.steps(5, Duration::from_millis(20));
    assert!(trace.usage().all(|usage| usage.shared_ns == 0));
}

/// With CPU 0 busy all the time, the overlap of both is what CPU 1 was busy. They need not share a core for that: the
/// pairs are handed over.
#[test]
fn the_overlap_of_siblings_is_what_both_were_busy() {
    require_kernel!();
    if !cpus::online().starts_with(&[0, 1]) {
        return skip("CPUs 0 and 1 are not both online");
    }
    let mut spinner = worker!("spin", 0);
    let mut half = worker!("burst", 1, 3_000, 3_000);
    spinner.go();
    half.go();
    let mut trace = Trace::start(&Config {
        siblings: vec![(0, 1)],
        ..Config::default()
    });
    trace.steps(50, Duration::from_millis(20));
    let sum = |cpu: u32| -> (u64, u64, u64) {
        let shared = trace
            .usage()
            .filter(|usage| usage.cpu == cpu)
            .map(|usage| usage.shared_ns)
            .sum();
        let intervals = || {
            trace
                .intervals
                .iter()
                .flat_map(|drained| &drained.cpus)
                .filter(|interval| interval.cpu == cpu)
        };
        let busy = intervals().map(|interval| interval.busy_ns).sum();
        (shared, busy, intervals().map(|interval| interval.idle_ns).sum())
    };
    let ((shared_0, busy_0, idle_0), (shared_1, busy_1, idle_1)) = (sum(0), sum(1));
    assert!(idle_1 > 0 && busy_1 > 0 && busy_0 > idle_0);
    // CPU 0 begins and ends at other times than CPU 1, by as much as the seals lie apart.
    let bounds = |cpu: usize| {
        let (first, last) = (&trace.intervals[0], &trace.intervals[trace.intervals.len() - 1]);
        (first.cpus[cpu].begin_ns, last.cpus[cpu].end_ns)
    };
    let ((begin_0, end_0), (begin_1, end_1)) = (bounds(0), bounds(1));
    let skew = begin_0.abs_diff(begin_1) + end_0.abs_diff(end_1);
    // And a clock that both read at slightly different times: 0.0042 % when it was measured.
    let tolerance = idle_0 + skew + busy_1 / 1_000;
    println!("shared {shared_0} and {shared_1}, busy {busy_0} and {busy_1}, idle {idle_0} and {idle_1}, skew {skew}");
    assert!(
        shared_0.abs_diff(busy_1) <= tolerance,
        "CPU 0 shared {shared_0}, CPU 1 was busy {busy_1} ± {tolerance}"
    );
    assert!(
        shared_1.abs_diff(busy_1) <= tolerance,
        "CPU 1 shared {shared_1}, was busy {busy_1} ± {tolerance}"
    );
}
