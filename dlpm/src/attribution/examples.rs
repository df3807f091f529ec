//! Ledgers computed by hand.

use std::sync::Arc;

use regex::Regex;

use super::{
    ledger::{Method, RowKey},
    *,
};
use crate::interval::{
    CpuInterval, MachineMemory, MemoryReading, MeterSource, Process, ProcessId, Usage, ZoneKind, ZoneReading,
};
use crate::tenants::{Kind, Tenant, Wanted};

fn id(tgid: u32) -> ProcessId {
    ProcessId {
        tgid,
        start_ns: u64::from(tgid) * 10,
    }
}

fn named(comm: &str) -> Process {
    Process {
        comm: comm.into(),
        exec_comm: comm.into(),
        uid: Some(1000),
        ..Process::default()
    }
}

fn usage(tgid: u32, cgroup_id: u64, cpu: u32, ns: u64, shared_ns: u64) -> Usage {
    Usage {
        process: id(tgid),
        cgroup_id,
        cpu,
        ns,
        shared_ns,
        counts: crate::interval::Counts::default(),
    }
}

fn zone(name: &str, kind: ZoneKind, package: Option<u32>, energy_uj: u64) -> ZoneReading {
    ZoneReading {
        zone: name.into(),
        kind,
        package,
        energy_uj: Ok(energy_uj),
        counter_uj: None,
        range_uj: None,
        source: MeterSource::Powercap,
    }
}

fn cpu(cpu: u32, package: u32, busy_ns: u64, lost_ns: u64) -> CpuInterval {
    CpuInterval {
        cpu,
        package: Some(package),
        core: None,
        begin_ns: 0,
        end_ns: 1000,
        busy_ns,
        idle_ns: 1000 - busy_ns - lost_ns,
        lost_ns,
        switches: 3,
        counts: None,
    }
}

fn memory(bytes: u64) -> MemoryReading {
    MemoryReading {
        pss_bytes: Some(bytes),
        uss_bytes: Some(bytes / 2),
        rss_bytes: bytes * 2,
        read_at_ns: 500,
    }
}

/// Two packages with one CPU each; python (100) moves between cgroups and packages, bash (200), a kernel thread (2)
/// and dlpm (9) share package 0.
fn two_packages() -> Interval {
    Interval {
        end_ns: 1000,
        cpus: vec![cpu(0, 0, 900, 0), cpu(1, 1, 500, 100)],
        usage: vec![
            usage(100, 1, 0, 400, 0),
            usage(100, 2, 0, 100, 0),
            usage(100, 1, 1, 500, 0),
            usage(200, 3, 0, 200, 0),
            usage(2, 3, 0, 150, 0),
            usage(9, 3, 0, 50, 0),
        ],
        processes: [
            (id(100), named("python3")),
            (id(200), named("bash")),
            (
                id(2),
                Process {
                    kernel: true,
                    ..named("kthreadd")
                },
            ),
            (id(9), named("dlpm")),
        ]
        .into_iter()
        .map(|(id, process)| (id, process.into()))
        .collect(),
        cgroups: [
            (1, "/train.slice/a".into()),
            (2, "/train.slice/b".into()),
            (3, "/".into()),
        ]
        .into(),
        zones: vec![
            zone("package-0", ZoneKind::Package, Some(0), 9000),
            zone("package-0/core", ZoneKind::Core, Some(0), 4500),
            zone("package-1", ZoneKind::Package, Some(1), 6000),
        ],
        self_tgid: 9,
        ..Interval::default()
    }
}

fn energy(ledger: &Ledger, key: &RowKey) -> Vec<u64> {
    ledger
        .rows
        .iter()
        .find(|row| row.key == *key)
        .unwrap()
        .energy_uj
        .clone()
}

fn process(tgid: u32, cgroup: &str) -> RowKey {
    RowKey::Process(id(tgid), cgroup.into())
}

/// Where a version 1 hierarchy says whose a process is, that counts but in a container of the version 2 tree.
#[test]
fn a_process_that_was_moved_is_two_tenants() {
    let tenant = |kind, name: &str| Arc::new(Tenant::of(kind, name));
    let mut interval = two_packages();
    interval.tenants = [
        ("/train.slice/a".into(), tenant(Kind::Docker, "a")),
        ("/train.slice/b".into(), tenant(Kind::Unit, "b.service")),
        ("/".into(), tenant(Kind::Root, "/")),
    ]
    .into();
    interval.process_tenants = [(id(100), tenant(Kind::Slurm, "7"))].into_iter().collect();
    let ledger = attribute(&interval, &Options::default(), &Carries::default());
    let of = |tgid, cgroup| {
        let row = ledger.rows.iter().find(|row| row.key == process(tgid, cgroup));
        row.unwrap().tenant.as_ref().map(ToString::to_string).unwrap()
    };
    assert_eq!(of(100, "/train.slice/a"), "docker:a");
    assert_eq!(of(100, "/train.slice/b"), "slurm:7");
    assert_eq!(of(200, "/"), "root:/");
    let job = Options {
        selection: Selection {
            tenants: vec![vec![Wanted::Job("7".into())]],
            ..Selection::default()
        },
        ..Options::default()
    };
    let listed = attribute(&interval, &job, &Carries::default());
    let is_listed = |row: &&Row| matches!(row.key, RowKey::Process(..));
    let listed: Vec<&RowKey> = listed.rows.iter().filter(is_listed).map(|row| &row.key).collect();
    assert_eq!(listed, [&process(100, "/train.slice/b")]);
}

#[test]
fn energy_of_a_package_follows_time_on_its_own_cpus() {
    let ledger = attribute(&two_packages(), &Options::default(), &Carries::default());
    let leaves: Vec<&str> = ledger.leaves.iter().map(|leaf| leaf.zone.as_str()).collect();
    assert_eq!(leaves, ["package-0/core", "package-0/rest", "package-1/rest"]);
    // Package 0: 900 ns share 4500 uJ, 5 each. Package 1: 500 ns and 100 lost ones share 6000 uJ, 10 each.
    assert_eq!(energy(&ledger, &process(100, "/train.slice/a")), [2000, 2000, 5000]);
    assert_eq!(energy(&ledger, &process(100, "/train.slice/b")), [500, 500, 0]);
    assert_eq!(energy(&ledger, &process(200, "/")), [1000, 1000, 0]);
    assert_eq!(energy(&ledger, &RowKey::Kernel), [750, 750, 0]);
    assert_eq!(energy(&ledger, &RowKey::SelfDlpm), [250, 250, 0]);
    assert_eq!(energy(&ledger, &RowKey::Idle), [0, 0, 0]);
    assert_eq!(energy(&ledger, &RowKey::Unattributed), [0, 0, 1000]);
    assert!(ledger.rows.iter().all(|row| row.key != RowKey::Others));
    let cgroups: Vec<_> = ledger
        .cgroups
        .iter()
        .map(|sum| (sum.cgroup.as_str(), sum.cpu_ns))
        .collect();
    assert_eq!(cgroups, [("/", 200), ("/train.slice/a", 900), ("/train.slice/b", 100)]);
    assert_eq!(ledger.cgroups[1].energy_uj, [2000, 2000, 5000]);
}

#[test]
fn a_filter_moves_the_rest_to_others_and_changes_nobody_elses_energy() {
    let selection = Selection {
        comm: vec![Regex::new("pyth").unwrap()],
        cgroups: vec!["/train.slice/a".into()],
        ..Selection::default()
    };
    let options = Options {
        selection,
        ..Options::default()
    };
    let ledger = attribute(&two_packages(), &options, &Carries::default());
    let keys: Vec<&RowKey> = ledger.rows.iter().map(|row| &row.key).collect();
    assert_eq!(
        keys,
        [
            &process(100, "/train.slice/a"),
            &RowKey::Others,
            &RowKey::Kernel,
            &RowKey::SelfDlpm,
            &RowKey::Idle,
            &RowKey::Unattributed
        ]
    );
    assert_eq!(energy(&ledger, &process(100, "/train.slice/a")), [2000, 2000, 5000]);
    assert_eq!(energy(&ledger, &RowKey::Others), [1500, 1500, 0]);
    assert_eq!(ledger.cgroups.len(), 1);
}

#[test]
fn a_shared_core_counts_for_its_weight() {
    // 600 ns of which 200 shared: 400 * 1000 + 200 * 550 = 510,000; 200 shared: 110,000. Together 620,000.
    let interval = Interval {
        cpus: vec![cpu(0, 0, 600, 0), cpu(1, 0, 200, 0)],
        usage: vec![usage(1, 1, 0, 600, 200), usage(2, 1, 1, 200, 200)],
        zones: vec![zone("package-0", ZoneKind::Package, Some(0), 62_000)],
        ..Interval::default()
    };
    let ledger = attribute(&interval, &Options::default(), &Carries::default());
    assert_eq!(energy(&ledger, &process(1, "cgroup:1")), [51_000]);
    assert_eq!(energy(&ledger, &process(2, "cgroup:1")), [11_000]);
    let shown = ledger.rows[0].shown.clone().unwrap();
    assert_eq!((&*shown.comm, shown.uid), ("", None));
}

#[test]
fn the_energy_of_an_idle_package_is_idle() {
    let mut interval = two_packages();
    interval.usage.retain(|usage| usage.cpu == 0);
    interval.cpus[1] = cpu(1, 1, 0, 0);
    let ledger = attribute(&interval, &Options::default(), &Carries::default());
    assert_eq!(energy(&ledger, &RowKey::Idle), [0, 0, 6000]);
    let idle = ledger.rows.iter().find(|row| row.key == RowKey::Idle).unwrap();
    assert_eq!(idle.cpu_ns(), 1100);
}

#[test]
fn the_energy_of_a_package_without_known_cpus_is_nobodys() {
    let floors = BTreeMap::from([("package-1/rest".to_owned(), 1000)]);
    for idle_policy in IdlePolicy::ALL {
        for of_the_other in [None, Some(0), Some(7)] {
            let mut interval = two_packages();
            interval.cpus[1].package = of_the_other;
            let options = Options {
                idle_policy,
                idle_floors_mw: floors.clone(),
                ..Options::default()
            };
            let ledger = attribute(&interval, &options, &Carries::default());
            assert_eq!(energy(&ledger, &RowKey::Unattributed)[2], 6000, "{of_the_other:?}");
            assert_eq!(energy(&ledger, &RowKey::Idle)[2], 0, "{of_the_other:?}");
        }
    }
}

#[test]
fn the_tail_is_merged_by_cgroup() {
    let options = Options {
        max_rows: 1,
        ..Options::default()
    };
    let ledger = attribute(&two_packages(), &options, &Carries::default());
    assert_eq!(ledger.rows[0].key, process(100, "/train.slice/a"));
    assert_eq!(ledger.rows[1].key, RowKey::Merged("/".into()));
    assert_eq!(ledger.rows[2].key, RowKey::Merged("/train.slice/b".into()));
    assert_eq!((ledger.rows[1].processes, ledger.rows[1].cpu_ns()), (1, 200));
    let whole = attribute(&two_packages(), &Options::default(), &Carries::default());
    assert_eq!(ledger.cgroups, whole.cgroups);
}

/// python holds 300 bytes, a sleeping process 100, and the machine uses 1000.
fn with_dram() -> Interval {
    let mut interval = two_packages();
    interval.zones = vec![zone("dram-0", ZoneKind::Dram, Some(0), 10_000)];
    interval.processes.insert(id(300), named("sleep").into());
    interval.memory = [(id(100), (1, memory(300))), (id(300), (2, memory(100)))].into();
    interval.machine_memory = Some(MachineMemory {
        total_bytes: 5000,
        available_bytes: 4000,
        used_bytes: 900,
        free_bytes: None,
    });
    interval
}

#[test]
fn dram_follows_resident_memory() {
    let ledger = attribute(&with_dram(), &Options::default(), &Carries::default());
    assert_eq!(
        energy(&ledger, &process(100, "/train.slice/a")),
        [3000],
        "on the row with the most time"
    );
    assert_eq!(energy(&ledger, &process(100, "/train.slice/b")), [0]);
    assert_eq!(
        energy(&ledger, &process(300, "/train.slice/b")),
        [1000],
        "without CPU time"
    );
    assert_eq!(energy(&ledger, &RowKey::Unattributed), [6000]);
    assert_eq!(ledger.leaves[0].method, Method::Memory);

    let selection = Selection {
        comm: vec![Regex::new("python").unwrap()],
        ..Selection::default()
    };
    let ledger = attribute(
        &with_dram(),
        &Options {
            selection,
            ..Options::default()
        },
        &Carries::default(),
    );
    assert_eq!(energy(&ledger, &process(100, "/train.slice/a")), [3000]);
    assert_eq!(energy(&ledger, &RowKey::Others), [7000]);
    assert_eq!(energy(&ledger, &RowKey::Unattributed), [0]);

    let merged = attribute(
        &with_dram(),
        &Options {
            max_rows: 1,
            ..Options::default()
        },
        &Carries::default(),
    );
    assert_eq!(energy(&merged, &RowKey::Merged("/train.slice/b".into())), [1000]);
}

#[test]
fn readings_beyond_the_used_memory_share_all_dram() {
    let mut interval = with_dram();
    interval.machine_memory = Some(MachineMemory {
        total_bytes: 5000,
        available_bytes: 4900,
        used_bytes: 90,
        free_bytes: None,
    });
    let ledger = attribute(&interval, &Options::default(), &Carries::default());
    assert_eq!(energy(&ledger, &process(100, "/train.slice/a")), [7500]);
    assert_eq!(energy(&ledger, &RowKey::Unattributed), [0]);

    interval.machine_memory = None;
    let ledger = attribute(&interval, &Options::default(), &Carries::default());
    assert_eq!(
        energy(&ledger, &RowKey::Unattributed),
        [10_000],
        "a share of nothing known"
    );
}

#[test]
fn an_estimate_is_split_over_all_packages_and_says_so() {
    let mut interval = two_packages();
    interval.zones = vec![ZoneReading {
        source: MeterSource::Estimate,
        ..zone("machine", ZoneKind::Machine, None, 15_000)
    }];
    let ledger = attribute(&interval, &Options::default(), &Carries::default());
    // 1400 ns and 100 lost ones share 15,000 uJ.
    assert_eq!(energy(&ledger, &process(100, "/train.slice/a")), [9000]);
    assert_eq!(energy(&ledger, &RowKey::Unattributed), [1000]);
    assert_eq!(
        (ledger.roots[0].method, ledger.leaves[0].method),
        (Method::Estimate, Method::Estimate)
    );
}

#[test]
fn what_is_known_of_a_package_is_split() {
    // Without its core a package is one leaf: 9000 uJ over 900 ns, 10 each.
    let mut interval = two_packages();
    interval.zones[1].energy_uj = Err("counter was reset".into());
    let ledger = attribute(&interval, &Options::default(), &Carries::default());
    let leaves: Vec<&str> = ledger.leaves.iter().map(|leaf| leaf.zone.as_str()).collect();
    assert_eq!(leaves, ["package-0/whole", "package-1/rest"]);
    assert_eq!(energy(&ledger, &process(100, "/train.slice/a")), [4000, 5000]);

    // A core without its package: 4500 uJ, 5 each; the rest is not known.
    let mut interval = two_packages();
    interval.zones[0].energy_uj = Err("counter was reset".into());
    let ledger = attribute(&interval, &Options::default(), &Carries::default());
    assert!(ledger.leaves[0].energy_uj.is_ok() && ledger.leaves[1].energy_uj.is_err());
    assert_eq!(energy(&ledger, &process(100, "/train.slice/a")), [2000, 0, 5000]);

    // Neither: nobody gets anything of that package.
    interval.zones[1].energy_uj = Err("counter was reset".into());
    let ledger = attribute(&interval, &Options::default(), &Carries::default());
    assert!(ledger.leaves[0].energy_uj.is_err() && ledger.leaves[1].energy_uj.is_err());
    assert_eq!(energy(&ledger, &process(100, "/train.slice/a")), [0, 0, 5000]);
}
