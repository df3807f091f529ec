//! GPUs whose use is the time of their engines.

use super::{
    ledger::{Method, RowKey},
    *,
};
use crate::interval::{
    CpuInterval, GpuProcess, GpuReading, GpuUsage, Identity, MeterSource, ProcessId, Usage, ZoneKind, ZoneReading,
};

const SECOND: u64 = 1_000_000_000;

fn id(tgid: u32) -> ProcessId {
    ProcessId { tgid, start_ns: 5 }
}

/// A card whose processes used its engines for so many milliseconds.
fn gpu(inside: Option<&str>, uses: &[(u32, u64)]) -> GpuReading {
    let process = |&(pid, ms): &(u32, u64)| GpuProcess {
        pid,
        sm_percent_us: ms * 100_000,
        ..GpuProcess::default()
    };
    GpuReading {
        uuid: "0000:03:00.0".to_owned(),
        index: 1,
        name: "i915".to_owned(),
        pci: "0000:03:00.0".to_owned(),
        energy_uj: Ok(40_000_000),
        counter_uj: None,
        source: MeterSource::HwmonPower,
        usage: GpuUsage::EngineTime,
        inside: inside.map(str::to_owned),
        read_at_ns: Some(SECOND),
        power_mw: None,
        utilization_percent: None,
        memory_used_bytes: None,
        memory_total_bytes: None,
        mig: false,
        sm_time: Ok(()),
        lists: Ok(()),
        dropped_samples: 0,
        notes: Vec::new(),
        processes: uses.iter().map(process).collect(),
    }
}

/// A second of a package with cores of 20 J, graphics of 6 J and a rest of 4 J, in which process 1 had the only CPU.
fn interval(gpu: GpuReading) -> Interval {
    let zone = |zone: &str, kind, energy_uj| ZoneReading {
        zone: zone.to_owned(),
        kind,
        package: Some(0),
        energy_uj: Ok(energy_uj),
        counter_uj: None,
        range_uj: None,
        source: MeterSource::Powercap,
    };
    Interval {
        end_ns: SECOND,
        cpus: vec![CpuInterval {
            package: Some(0),
            end_ns: SECOND,
            busy_ns: SECOND,
            ..CpuInterval::default()
        }],
        usage: vec![Usage {
            process: id(1),
            ns: SECOND,
            ..Usage::default()
        }],
        zones: vec![
            zone("package-0", ZoneKind::Package, 30_000_000),
            zone("package-0/core", ZoneKind::Core, 20_000_000),
            zone("package-0/uncore", ZoneKind::Uncore, 6_000_000),
        ],
        gpu_owners: gpu
            .processes
            .iter()
            .map(|process| (process.pid, (id(process.pid), 0)))
            .collect(),
        gpus: vec![gpu],
        ..Interval::default()
    }
}

/// The ledger, which is proved and read back.
fn ledger(gpu: GpuReading) -> Ledger {
    let ledger = attribute(&interval(gpu), &Options::default(), &Carries::default());
    let line = serde_json::to_value(crate::log::exact::Exact::of(&ledger, Identity::StartTime)).unwrap();
    let read = crate::log::exact::Exact::read(&line).unwrap();
    let again = read.ledger(ledger.end_unix_ns).unwrap();
    assert_eq!((&again.rows, &again.gpus), (&ledger.rows, &ledger.gpus));
    assert_eq!(crate::verify::laws::check(&read, &again), [""; 0]);
    ledger
}

fn of(ledger: &Ledger, zone: &str) -> (Method, Vec<(String, u64)>) {
    let position = ledger.leaves.iter().position(|leaf| leaf.zone == zone).unwrap();
    let shares = ledger.rows.iter().map(|row| {
        let who = match &row.key {
            RowKey::Process(process, _) => process.tgid.to_string(),
            other => other.as_str().to_owned(),
        };
        (who, row.energy_uj[position])
    });
    (
        ledger.leaves[position].method,
        shares.filter(|(_, uj)| *uj > 0).collect(),
    )
}

fn shares(shares: &[(&str, u64)]) -> Vec<(String, u64)> {
    shares.iter().map(|(who, uj)| ((*who).to_owned(), *uj)).collect()
}

#[test]
fn a_card_is_split_by_engine_time() {
    let card = |uses: &[(u32, u64)]| ledger(gpu(None, uses));
    let zone = "gpu-0000:03:00.0";
    let both = card(&[(1, 300), (2, 100)]);
    assert_eq!(
        of(&both, zone),
        (Method::EngineTime, shares(&[("1", 30_000_000), ("2", 10_000_000)]))
    );
    assert_eq!(
        of(&card(&[(2, 1)]), zone),
        (Method::SoleProcess, shares(&[("2", 40_000_000)]))
    );
    assert_eq!(
        of(&card(&[]), zone),
        (Method::NoProcess, shares(&[("idle", 40_000_000)]))
    );
    // AIPowerMeter's names are those of NVIDIA's GPUs.
    assert!(crate::aipowermeter::gpu::GpuMetrics::of(&both).is_none());
}

#[test]
fn graphics_inside_the_package_go_to_who_used_them_and_not_to_who_had_the_cpu() {
    let inside = |uses: &[(u32, u64)]| ledger(gpu(Some("package-0/uncore"), uses));
    let used = inside(&[(1, 10), (2, 990)]);
    assert_eq!(
        of(&used, "package-0/uncore"),
        (Method::EngineTime, shares(&[("1", 60_000), ("2", 5_940_000)]))
    );
    assert_eq!(
        of(&used, "package-0/core"),
        (Method::CpuTime, shares(&[("1", 20_000_000)]))
    );
    assert_eq!(
        of(&inside(&[]), "package-0/uncore"),
        (Method::NoProcess, shares(&[("idle", 6_000_000)]))
    );
    assert_eq!(used.leaves.iter().filter(|leaf| leaf.kind == ZoneKind::Gpu).count(), 0);
    // What is not known is split as before.
    let mut unknown = gpu(Some("package-0/uncore"), &[]);
    unknown.lists = Err("no fdinfo".to_owned());
    assert_eq!(
        of(&ledger(unknown), "package-0/uncore"),
        (Method::CpuTime, shares(&[("1", 6_000_000)]))
    );
}
