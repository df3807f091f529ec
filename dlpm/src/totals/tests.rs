//! Sums that close.

use super::*;
use crate::sinks::testing::{all_zones, id, ledger};

#[test]
fn sums_close() {
    let mut totals = Totals::default();
    for seq in 0..3 {
        totals.add(&ledger(seq, all_zones()));
    }
    assert_eq!((totals.intervals, totals.duration_ns), (3, 3_000_000_000));
    assert_eq!(
        totals.cpu.idle_ns + totals.cpu.busy_ns + totals.cpu.lost_ns,
        totals.cpu.interval_ns
    );
    assert_eq!(totals.cpu.violations, 0);
    // Package and DRAM; psys is not added to them.
    assert_eq!(totals.energy_uj(), 3 * 48_000_000);
    let shares: u128 = totals.shares.values().map(|usage| usage.amount.energy_uj).sum();
    assert_eq!(shares, totals.energy_uj());
    assert!(
        totals
            .zones
            .iter()
            .all(|zone| zone.difference_uj == 0 && zone.invalid == 0)
    );
    let python = &totals.processes[&(id(100), "/train.slice/a".into())];
    assert_eq!((&*python.comm, python.amount.cpu_ns), ("python3", 2_100_000_000));
}

#[test]
fn what_is_not_known_is_counted_and_not_added() {
    let mut totals = Totals::default();
    let mut reset = all_zones();
    reset[0].energy_uj = Err("reset".to_owned());
    totals.add(&ledger(0, reset));
    totals.add(&ledger(1, all_zones()));
    let package = &totals.zones[0];
    assert_eq!(
        (package.energy_uj, package.invalid, package.known_ns),
        (40_000_000, 1, 1_000_000_000)
    );
    assert_eq!(package.reason.as_deref(), Some("reset"));
    let mut broken = ledger(2, all_zones());
    broken.cpus[0].busy_ns -= 1;
    broken.rows[0].energy_uj[0] -= 1;
    totals.add(&broken);
    assert_eq!(totals.cpu.violations, 1);
    let core = totals.zones.iter().find(|zone| zone.zone == "package-0/core").unwrap();
    assert_eq!(core.difference_uj, 1);
}

#[test]
fn memory_is_bounded_and_sums_stay() {
    let mut totals = Totals::default();
    let one = ledger(0, all_zones());
    let row = one.rows[0].clone();
    for round in 0..3u32 {
        let mut many = one.clone();
        many.rows = (0..6_000)
            .map(|number| {
                let mut row = row.clone();
                row.key = RowKey::Process(id(round * 6_000 + number), format!("/{round}/{number}").into());
                row.shown.as_mut().unwrap().exited = true;
                row
            })
            .collect();
        many.cgroups = (0..6_000)
            .map(|number| crate::attribution::ledger::CgroupSum {
                cgroup: format!("/{round}/{number}"),
                ..many.cgroups[1].clone()
            })
            .collect();
        totals.add(&many);
    }
    assert!(totals.processes.len() <= ENTRIES && totals.cgroups.len() <= ENTRIES);
    assert_eq!(totals.processes.len() as u64 + totals.folded_processes, 18_000);
    assert_eq!(totals.cgroups.len() as u64 + totals.folded_cgroups.0, 18_000);
    assert!(!totals.folded_running);
    let listed = totals.listed().amount;
    let mut by_cgroup = totals.folded_cgroups.1;
    totals.cgroups.values().for_each(|usage| by_cgroup.add(usage.amount));
    assert_eq!(listed.cpu_ns, by_cgroup.cpu_ns);
}

#[test]
fn a_peak_is_the_highest_power_of_a_long_interval() {
    let mut peak = Peak::default();
    peak.see(50, SHORTEST_PEAK_NS - 1);
    assert_eq!(peak.interval(), None);
    peak.see(0, SHORTEST_PEAK_NS);
    peak.see(30, 3 * SHORTEST_PEAK_NS);
    peak.see(40, 5 * SHORTEST_PEAK_NS);
    assert_eq!(peak.interval(), Some((30, 3 * SHORTEST_PEAK_NS)));
    let mut totals = Totals::default();
    let mut more = all_zones();
    more[0].energy_uj = Ok(70_000_000);
    totals.add(&ledger(0, all_zones()));
    totals.add(&ledger(1, more));
    assert_eq!(totals.zones[0].peak.interval(), Some((70_000_000, 1_000_000_000)));
    assert_eq!(totals.peak.interval(), Some((78_000_000, 1_000_000_000)));
    let listed = totals.listed();
    assert_eq!(
        listed.amount.cpu().unwrap() + listed.amount.dram_uj,
        listed.amount.energy_uj
    );
    assert!(
        listed
            .peak
            .interval()
            .is_some_and(|(uj, _)| uj * 2 > listed.amount.energy_uj)
    );
}
