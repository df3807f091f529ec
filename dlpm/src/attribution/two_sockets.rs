//! The worked example of `docs/attribution.md`: a machine of two sockets with siblings, in real files, and what two
//! tasks must get of it, computed by hand.

use std::{fmt::Write as _, fs, path::Path};

use super::{ledger::RowKey, *};
use crate::{
    interval::{CpuInterval, Process, ProcessId, Usage, ZoneReading},
    sources::{energy::powercap::Powercap, topology::Topology},
};

const SECOND_NS: u64 = 1_000_000_000;

/// CPUs 0 and 2 are the core of socket 0, CPUs 1 and 3 that of socket 1.
fn sysfs() -> tempfile::TempDir {
    let sysfs = tempfile::tempdir().unwrap();
    for (cpu, package, siblings) in [(0, 0, "0,2"), (1, 1, "1,3"), (2, 0, "0,2"), (3, 1, "1,3")] {
        let topology = format!("devices/system/cpu/cpu{cpu}/topology");
        write(sysfs.path(), &format!("{topology}/physical_package_id"), package);
        write(sysfs.path(), &format!("{topology}/thread_siblings_list"), siblings);
    }
    for (zone, name) in [
        ("intel-rapl:0", "package-0"),
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:1", "package-1"),
    ] {
        let zone = format!("class/powercap/{zone}");
        write(sysfs.path(), &format!("{zone}/name"), name);
        write(sysfs.path(), &format!("{zone}/max_energy_range_uj"), 262_143_328_850u64);
    }
    sysfs
}

fn write(root: &Path, path: &str, content: impl std::fmt::Display) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{content}\n")).unwrap();
}

/// In one second socket 0 counts 50 J, 30 of them in its cores, and socket 1 counts 20 J.
fn energy(sysfs: &Path) -> Vec<ZoneReading> {
    let count = |uj: [u64; 3]| {
        for (zone, uj) in ["intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"].iter().zip(uj) {
            write(sysfs, &format!("class/powercap/{zone}/energy_uj"), uj);
        }
    };
    count([262_143_000_000, 1_000, 70_000]);
    let mut powercap = Powercap::open(sysfs, 0).unwrap();
    // The counter of socket 0 wraps: 328,850 µJ to its end, one more to 0, and 49,671,149 from there.
    count([49_671_149, 30_001_000, 20_070_000]);
    powercap.take(SECOND_NS)
}

/// `a` (10) has CPU 0 for the whole second. `b` (20) has its sibling, CPU 2, for 0.4 s, and then CPU 1 on the other
/// socket for 0.6 s. Nothing else runs.
fn interval() -> Interval {
    let sysfs = sysfs();
    let topology = Topology::read(sysfs.path());
    assert_eq!(topology.siblings(), [(0, 2), (1, 3)]);
    let cpu = |cpu, busy_ns| CpuInterval {
        cpu,
        package: topology.package_of(cpu),
        core: None,
        begin_ns: 0,
        end_ns: SECOND_NS,
        busy_ns,
        idle_ns: SECOND_NS - busy_ns,
        lost_ns: 0,
        switches: 2,
        counts: None,
    };
    let usage = |tgid, cpu, ns, shared_ns| Usage {
        process: id(tgid),
        cgroup_id: 1,
        cpu,
        ns,
        shared_ns,
        counts: crate::interval::Counts::default(),
    };
    let named = |comm: &str| Process {
        comm: comm.into(),
        ..Process::default()
    };
    Interval {
        end_ns: SECOND_NS,
        cpus: vec![cpu(0, SECOND_NS), cpu(1, 600_000_000), cpu(2, 400_000_000), cpu(3, 0)],
        usage: vec![
            usage(10, 0, SECOND_NS, 400_000_000),
            usage(20, 2, 400_000_000, 400_000_000),
            usage(20, 1, 600_000_000, 0),
        ],
        processes: [(id(10), named("a").into()), (id(20), named("b").into())]
            .into_iter()
            .collect(),
        cgroups: [(1, "/".to_owned())].into(),
        zones: energy(sysfs.path()),
        self_tgid: 1,
        ..Interval::default()
    }
}

fn id(tgid: u32) -> ProcessId {
    ProcessId { tgid, start_ns: 1 }
}

fn ledger(idle_policy: IdlePolicy) -> Ledger {
    let floors = [
        ("package-0/core", 5_000),
        ("package-0/rest", 8_000),
        ("package-1/rest", 9_000),
    ];
    let options = Options {
        idle_policy,
        idle_floors_mw: floors.iter().map(|(leaf, mw)| ((*leaf).to_owned(), *mw)).collect(),
        ..Options::default()
    };
    attribute(&interval(), &options, &Carries::default())
}

/// The rows of the example: µJ of each leaf.
fn shares(ledger: &Ledger) -> Vec<(&'static str, Vec<u64>)> {
    let name = |key: &RowKey| match key {
        RowKey::Process(process, _) if process.tgid == 10 => "a",
        RowKey::Process(..) => "b",
        RowKey::Idle => "`idle`",
        _ => "",
    };
    let rows = ledger.rows.iter().map(|row| (name(&row.key), row.energy_uj.clone()));
    let (shown, others): (Vec<_>, Vec<_>) = rows.partition(|(name, _)| !name.is_empty());
    assert!(others.iter().all(|(_, energy_uj)| energy_uj.iter().all(|uj| *uj == 0)));
    shown
}

#[test]
fn two_tasks_get_what_is_computed_by_hand() {
    // On socket 0, with s = 0.55: a weighs 0.6 + 0.55 · 0.4 = 0.82, b 0.55 · 0.4 = 0.22; together 1.04. On socket 1
    // there is only b.
    let proportional = ledger(IdlePolicy::Proportional);
    let leaves: Vec<_> = proportional
        .leaves
        .iter()
        .map(|leaf| (leaf.zone.as_str(), leaf.energy_uj.clone()))
        .collect();
    assert_eq!(
        leaves,
        [
            ("package-0/core", Ok(30_000_000)),
            ("package-0/rest", Ok(20_000_000)),
            ("package-1/rest", Ok(20_000_000))
        ]
    );
    // 30 J · 0.82 / 1.04 = 23.653846.15 J, and so on; the largest remainders round up.
    assert_eq!(
        shares(&proportional),
        [
            ("a", vec![23_653_846, 15_769_231, 0]),
            ("b", vec![6_346_154, 4_230_769, 20_000_000]),
            ("`idle`", vec![0, 0, 0]),
        ]
    );
    // 5, 8 and 9 J are the floors' in that second; the rest as before: 25 · 0.82 / 1.04 = 19.711538.46 J, …
    assert_eq!(
        shares(&ledger(IdlePolicy::Separate)),
        [
            ("a", vec![19_711_538, 9_461_538, 0]),
            ("b", vec![5_288_462, 2_538_462, 11_000_000]),
            ("`idle`", vec![5_000_000, 8_000_000, 9_000_000]),
        ]
    );
    // CPU 2 is idle for 0.6 s, so that all weights of socket 0 are 1.64: a has a half. On socket 1 CPU 1 is idle for
    // 0.4 s and CPU 3 for 1 s: b has 0.6 of 2.
    assert_eq!(
        shares(&ledger(IdlePolicy::Capacity)),
        [
            ("a", vec![15_000_000, 10_000_000, 0]),
            ("b", vec![4_024_390, 2_682_927, 6_000_000]),
            ("`idle`", vec![10_975_610, 7_317_073, 14_000_000]),
        ]
    );
}

/// One interval, three policies: each closes, and the document has these figures.
#[test]
fn the_documented_figures_are_real() {
    let document = include_str!("../../../docs/attribution.md");
    let joules = |uj: u64| format!("{}.{:06}", uj / 1_000_000, uj % 1_000_000);
    for policy in IdlePolicy::ALL {
        let ledger = ledger(policy);
        let names: Vec<&str> = ledger.leaves.iter().map(|leaf| leaf.zone.as_str()).collect();
        let mut table = format!("| `{}` | {} | together |\n|---|", policy.as_str(), names.join(" | "));
        table += &"---:|".repeat(names.len() + 1);
        table.push('\n');
        for (name, energy_uj) in shares(&ledger) {
            let cells: Vec<String> = energy_uj.iter().map(|uj| joules(*uj)).collect();
            let _ = writeln!(
                table,
                "| {name} | {} | {} |",
                cells.join(" | "),
                joules(energy_uj.iter().sum())
            );
        }
        for (position, leaf) in ledger.leaves.iter().enumerate() {
            let sum: u64 = ledger.rows.iter().map(|row| row.energy_uj[position]).sum();
            assert_eq!(Ok(sum), leaf.energy_uj, "{} under {}", leaf.zone, policy.as_str());
        }
        println!("{table}");
        assert!(document.contains(&table), "docs/attribution.md lacks\n{table}");
    }
}
