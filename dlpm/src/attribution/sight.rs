//! What is left of an interval for one user, and of two intervals that are taken as one.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    properties::{interval, options},
    *,
};
use crate::interval::{CpuInterval, Interval, ProcessId};

const USER: u32 = 1000;

/// An interval whose processes have users.
fn of_users() -> impl Strategy<Value = Interval> {
    (interval(), prop::collection::vec(0..3u32, 24)).prop_map(|(mut interval, users)| {
        for (id, process) in &mut interval.processes {
            let process = Arc::make_mut(process);
            process.uid = Some(USER + users[usize::try_from(id.tgid).unwrap() % users.len()]);
            process.comm = format!("name-{}", id.tgid).into();
        }
        interval
    })
}

fn of_user(options: &Options) -> Options {
    let mut options = options.clone();
    options.selection.uids = vec![USER];
    options
}

/// Sums saturate at the top of 64 bits; this keeps them below, where they are exact.
fn bounded(mut interval: Interval) -> Interval {
    for usage in &mut interval.usage {
        (usage.ns, usage.shared_ns) = (usage.ns >> 8, usage.shared_ns >> 8);
    }
    for cpu in &mut interval.cpus {
        (cpu.idle_ns, cpu.lost_ns) = (cpu.idle_ns >> 8, cpu.lost_ns >> 8);
    }
    for zone in &mut interval.zones {
        zone.energy_uj = zone.energy_uj.clone().map(|energy_uj| energy_uj >> 8);
    }
    for gpu in &mut interval.gpus {
        gpu.energy_uj = gpu.energy_uj.clone().map(|energy_uj| energy_uj >> 8);
    }
    for (_, reading) in interval.memory.values_mut() {
        reading.rss_bytes >>= 8;
        reading.pss_bytes = reading.pss_bytes.map(|bytes| bytes >> 8);
    }
    interval
}

/// The interval that follows `interval`: the same CPUs and meters, and whoever `other` has.
fn next(interval: &Interval, other: &Interval) -> Interval {
    let mut next = other.clone();
    next.seq = interval.seq + 1;
    next.begin_ns = interval.end_ns;
    next.end_ns = interval.end_ns.saturating_add(7);
    next.zones.clone_from(&interval.zones);
    next.gpus.clone_from(&interval.gpus);
    next.gpu_owners.clone_from(&interval.gpu_owners);
    next.tenants.clone_from(&interval.tenants);
    next.process_tenants.clone_from(&interval.process_tenants);
    for (id, process) in &interval.processes {
        next.processes.insert(*id, process.clone());
    }
    next.cpus = interval
        .cpus
        .iter()
        .map(|cpu| CpuInterval {
            begin_ns: cpu.end_ns,
            end_ns: cpu.end_ns + 7,
            ..*cpu
        })
        .collect();
    next
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// A user's ledger does not depend on what is left out of what the user may see.
    #[test]
    fn the_rows_of_a_user_are_the_same_without_a_trace_of_others(interval in of_users(), options in options()) {
        let mut interval = bounded(interval);
        interval.cgroup_memory.clear();
        let options = of_user(&options);
        let whole = attribute(&interval, &options, &Carries::default());
        let seen = interval.seen_by(USER);
        let mut narrow = attribute(&seen, &options, &Carries::default());
        // Which parts of a GPU the others use is not told.
        let others = whole.rows.iter().zip(&mut narrow.rows).filter(|(row, _)| row.shown.is_none());
        for (of_whole, of_narrow) in others {
            for (zone, used) in &mut of_narrow.gpus {
                prop_assert!(used.instances.is_empty());
                used.instances.clone_from(&of_whole.gpus[zone].instances);
            }
        }
        prop_assert_eq!(format!("{:#?}", narrow), format!("{:#?}", whole));
    }

    /// Names, users, parents, cgroups and tenants of others are gone.
    #[test]
    fn nothing_of_others_is_left(interval in of_users()) {
        let seen = interval.seen_by(USER);
        for (id, process) in &seen.processes {
            let is_own = process.uid == Some(USER) || id.tgid == interval.self_tgid;
            prop_assert!(is_own || process.kernel && process.comm.is_empty(), "{:?} {:?}", id, process);
        }
        let known: Vec<ProcessId> = seen.processes.keys().copied().collect();
        let anonymous = |id: &ProcessId| id.tgid >= u32::MAX - 1;
        prop_assert!(seen.usage.iter().all(|usage| known.contains(&usage.process) || anonymous(&usage.process) || usage.process.tgid == interval.self_tgid));
        prop_assert!(seen.memory.keys().all(|id| known.contains(id) || anonymous(id) || id.tgid == interval.self_tgid));
        let own_cgroups: Vec<u64> = seen.usage.iter().filter(|usage| !anonymous(&usage.process)).map(|usage| usage.cgroup_id)
            .chain(seen.memory.iter().filter(|(id, _)| !anonymous(id)).map(|(_, (cgroup_id, _))| *cgroup_id))
            .chain(seen.gpu_owners.values().filter(|(id, _)| !anonymous(id)).map(|(_, cgroup_id)| *cgroup_id))
            .collect();
        prop_assert!(seen.cgroups.keys().all(|id| own_cgroups.contains(id)));
        prop_assert!(seen.tenants.keys().all(|path| seen.cgroups.values().any(|known| known == path)));
        prop_assert!(seen.process_tenants.keys().all(|id| known.contains(id) || id.tgid == interval.self_tgid));
        prop_assert!(seen.cgroup_memory.is_empty());
    }

    /// Two intervals as one have the sums of both, in CPU time by row and in energy by zone.
    #[test]
    fn two_intervals_as_one_have_the_sums_of_both(
        first in of_users(), other in of_users(), options in options()
    ) {
        let mut first = bounded(first);
        let second = next(&first, &bounded(other));
        // Who a process is, is known in both or in neither.
        first.processes.clone_from(&second.processes);
        let Some(merged) = first.followed_by(&second) else {
            return Err(TestCaseError::fail("they follow one another"));
        };
        prop_assert_eq!((merged.begin_ns, merged.end_ns), (first.begin_ns, second.end_ns));
        // All processes have rows of their own, so that the rows are the same in each.
        let options = Options { max_rows: usize::MAX, ..of_user(&options) };
        let [one, two, both] = [&first, &second, &merged].map(|interval| attribute(interval, &options, &Carries::default()));
        let cpu_ns = |ledger: &Ledger, key| {
            ledger.rows.iter().filter(|row| row.key == key).map(Row::cpu_ns).sum::<u64>()
        };
        for row in &both.rows {
            let parts = cpu_ns(&one, row.key.clone()) + cpu_ns(&two, row.key.clone());
            prop_assert_eq!(row.cpu_ns(), parts, "{:?}", row.key);
        }
        let all = |ledger: &Ledger| ledger.rows.iter().map(Row::cpu_ns).sum::<u64>();
        prop_assert_eq!(all(&both), all(&one) + all(&two));
        for ((before, after), zone) in first.zones.iter().zip(&second.zones).zip(&merged.zones) {
            match (&before.energy_uj, &after.energy_uj) {
                (Ok(before), Ok(after)) => prop_assert_eq!(&zone.energy_uj, &Ok(before + after)),
                _ => prop_assert!(zone.energy_uj.is_err()),
            }
        }
        for (position, leaf) in both.leaves.iter().enumerate() {
            let of_rows: u128 = both.rows.iter().map(|row| u128::from(row.energy_uj[position])).sum();
            prop_assert_eq!(of_rows, u128::from(*leaf.energy_uj.as_ref().unwrap_or(&0)), "{}", leaf.zone);
        }
        // To merge first or to narrow first is the same.
        let narrow = first.seen_by(USER).followed_by(&second.seen_by(USER)).unwrap();
        let of_narrow = attribute(&narrow, &options, &Carries::default());
        let of_merged = attribute(&merged.seen_by(USER), &options, &Carries::default());
        let times = |ledger: &Ledger| {
            ledger.rows.iter().map(|row| (format!("{:?}", row.key), row.cpu_ns())).collect::<Vec<_>>()
        };
        prop_assert_eq!(times(&of_narrow), times(&of_merged));
    }
}

#[test]
fn intervals_that_cannot_be_told_as_one_stay_two() {
    let first = Interval {
        end_ns: 10,
        cpus: vec![CpuInterval {
            end_ns: 10,
            idle_ns: 10,
            ..CpuInterval::default()
        }],
        ..Interval::default()
    };
    let second = next(&first, &Interval::default());
    let merged = first.followed_by(&second).unwrap();
    let cpu = merged.cpus[0];
    assert_eq!((cpu.begin_ns, cpu.end_ns, cpu.idle_ns), (0, 17, 20));
    let changed = |change: &dyn Fn(&mut Interval)| {
        let mut second = second.clone();
        change(&mut second);
        first.followed_by(&second).is_none()
    };
    assert!(changed(&|second| second.begin_ns += 1), "something lies between them");
    assert!(
        changed(&|second| second.cpus[0].begin_ns += 1),
        "a CPU was offline at the border"
    );
    assert!(changed(&|second| second.cpus[0].package = Some(1)));
    // A CPU that comes, or goes at the border, is in one of them.
    assert!(!changed(&|second| second.cpus.clear()));
    let zones = |energy_uj| {
        vec![crate::interval::ZoneReading {
            zone: "package-0".into(),
            kind: crate::interval::ZoneKind::Package,
            package: Some(0),
            energy_uj,
            counter_uj: None,
            range_uj: None,
            source: crate::interval::MeterSource::Powercap,
        }]
    };
    let (mut first, mut second) = (first, second);
    first.zones = zones(Ok(5));
    second.zones = zones(Err("it was reset".into()));
    assert!(first.followed_by(&second).is_none(), "the 5 µJ would be lost");
    second.zones = Vec::new();
    assert!(first.followed_by(&second).is_none());
    second.zones = zones(Ok(7));
    assert_eq!(first.followed_by(&second).unwrap().zones[0].energy_uj, Ok(12));
}
