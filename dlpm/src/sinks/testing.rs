//! Ledgers and logs for the tests of the sinks.

use std::{fs, path::Path};

use jiff::tz::TimeZone;

use crate::{
    attribution::{Options, attribute, energy_tree::Carries, ledger::Ledger},
    interval::{
        CpuInterval, Identity, Interval, MachineMemory, MemoryReading, MeterSource, Process, ProcessId, Usage,
        ZoneKind, ZoneReading,
    },
    log::names::LOG_NAME,
    sinks::{
        metadata::Metadata,
        segments::{Encoding, Segmenter},
    },
    tenants::{Kind, Tenant},
};

pub const SECOND_NS: u64 = 1_000_000_000;

pub fn id(tgid: u32) -> ProcessId {
    ProcessId { tgid, start_ns: 7 }
}

pub fn zone(name: &str, kind: ZoneKind, energy_uj: Result<u64, &str>) -> ZoneReading {
    ZoneReading {
        zone: name.to_owned(),
        kind,
        package: (!matches!(kind, ZoneKind::Psys | ZoneKind::Machine)).then_some(0),
        energy_uj: energy_uj.map_err(str::to_owned),
        counter_uj: Some(123_456),
        range_uj: Some(262_143_328_850),
        source: MeterSource::Powercap,
    }
}

pub fn all_zones() -> Vec<ZoneReading> {
    vec![
        zone("package-0", ZoneKind::Package, Ok(40_000_000)),
        zone("package-0/core", ZoneKind::Core, Ok(20_000_000)),
        zone("package-0/uncore", ZoneKind::Uncore, Ok(4_000_000)),
        zone("dram-0", ZoneKind::Dram, Ok(8_000_000)),
        zone("psys", ZoneKind::Psys, Ok(60_000_000)),
    ]
}

/// One second on two CPUs of one package: python 100 has 1 s in two cgroups, bash 200 has 0.25 s, dlpm 0.05 s,
/// nobody 0.2 s, and 0.5 s is idle. python holds 3 of the 10 GB in use, a sleeping process 1 GB.
///
/// Counters have moved by as much in every interval before.
pub fn interval(seq: u64, mut zones: Vec<ZoneReading>) -> Interval {
    for zone in &mut zones {
        if let (Ok(energy_uj), Some(counter_uj), Some(range_uj)) =
            (&zone.energy_uj, &mut zone.counter_uj, zone.range_uj)
        {
            *counter_uj = (*counter_uj + energy_uj * seq) % (range_uj + 1);
        }
    }
    let begin_ns = 5 * SECOND_NS + seq * SECOND_NS;
    let end_ns = begin_ns + SECOND_NS;
    let cpu = |cpu, busy_ns, idle_ns, lost_ns| CpuInterval {
        cpu,
        package: Some(0),
        core: None,
        begin_ns: begin_ns - 10,
        end_ns: end_ns - 10,
        busy_ns,
        idle_ns,
        lost_ns,
        switches: 42,
        counts: None,
    };
    let usage = |tgid, cgroup_id, cpu, ns| Usage {
        process: id(tgid),
        cgroup_id,
        cpu,
        ns,
        shared_ns: 0,
        counts: crate::interval::Counts::default(),
    };
    let named = |comm: &str| Process {
        comm: comm.into(),
        exec_comm: comm.into(),
        uid: Some(1000),
        ..Process::default()
    };
    let memory = |bytes| MemoryReading {
        pss_bytes: Some(bytes),
        uss_bytes: Some(bytes / 2),
        rss_bytes: bytes * 2,
        read_at_ns: end_ns - 300,
    };
    Interval {
        seq,
        begin_ns,
        end_ns,
        end_unix_ns: 1_767_225_600_000_000_000 + i64::try_from(seq * SECOND_NS).unwrap(),
        energy_skew_ns: 10,
        seal_ns: 52_000,
        interrupts: Some(1),
        cpus: vec![
            cpu(1, 500_000_000, 300_000_000, 200_000_000),
            cpu(0, 800_000_000, 200_000_000, 0),
        ],
        usage: vec![
            usage(100, 1, 0, 500_000_000),
            usage(100, 2, 0, 300_000_000),
            usage(100, 1, 1, 200_000_000),
            usage(200, 3, 1, 250_000_000),
            usage(9, 3, 1, 50_000_000),
        ],
        processes: [
            (id(100), named("python3")),
            (id(200), named("bash")),
            (id(300), named("sleep")),
        ]
        .into_iter()
        .map(|(id, process)| (id, process.into()))
        .collect(),
        cgroups: [
            (1, "/train.slice/a".to_owned()),
            (2, "/train.slice/b".to_owned()),
            (3, "/".to_owned()),
        ]
        .into(),
        memory: [
            (id(100), (1, memory(3_000_000_000))),
            (id(300), (3, memory(1_000_000_000))),
        ]
        .into(),
        machine_memory: Some(MachineMemory {
            total_bytes: 16_000_000_000,
            available_bytes: 6_000_000_000,
            used_bytes: 9_000_000_000,
            free_bytes: None,
        }),
        zones,
        gpus: Vec::new(),
        gpu_owners: [].into(),
        self_tgid: 9,
        switch_cost: None,
        tenants: [(
            "/train.slice/a".to_owned(),
            Tenant::of(Kind::Slice, "train.slice").into(),
        )]
        .into(),
        ..Interval::default()
    }
}

pub fn ledger(seq: u64, zones: Vec<ZoneReading>) -> Ledger {
    attribute(&interval(seq, zones), &Options::default(), &Carries::default())
}

pub fn ledger_without_memory(seq: u64, zones: Vec<ZoneReading>) -> Ledger {
    let interval = Interval {
        machine_memory: None,
        ..interval(seq, zones)
    };
    attribute(&interval, &Options::default(), &Carries::default())
}

pub fn segmenter() -> Segmenter {
    segmenter_with(true)
}

pub fn segmenter_with(aliases: bool) -> Segmenter {
    Segmenter::new(Encoding {
        identity: Identity::StartTime,
        aliases,
        timezone: TimeZone::fixed(jiff::tz::offset(1)),
    })
}

pub fn metadata() -> Metadata {
    Metadata {
        description: None,
        start_unix_ns: 1_767_225_600_000_000_000,
        end_unix_ns: None,
        node_id: "node".to_owned(),
        command_line: vec!["trace".to_owned()],
        listed: None,
        interval_ns: SECOND_NS,
        cpu_model: None,
        gpus: Vec::new(),
        kernel: "6.18".to_owned(),
        boot_id: None,
        domains: Vec::new(),
        identity: Identity::StartTime,
        idle_policy: crate::attribution::ledger::IdlePolicy::Proportional,
        idle_policy_by: "user",
        smt_weight_permille: 550,
        idle_floors_mw: [].into(),
        notes: vec!["a note".to_owned()],
        measuring_cost: None,
        timezone: TimeZone::UTC,
    }
}

pub fn log_of(folder: &Path) -> String {
    fs::read_to_string(folder.join(LOG_NAME)).unwrap()
}
