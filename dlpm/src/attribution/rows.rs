//! The rows that energy is split among: claimants with their CPU time and memory, still without energy.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use crate::{
    attribution::{
        gpus,
        ledger::{CpuUse, GpuUse, Row, RowKey, Shown},
        selection::Selection,
    },
    interval::{Interval, MemoryReading, ProcessId},
};

/// A process in one cgroup (the path).
type Place = (ProcessId, String);

/// What one place used.
#[derive(Default)]
struct Claim {
    by_package: BTreeMap<u32, CpuUse>,
    memory: Option<MemoryReading>,
    /// By the name of the GPU's leaf.
    gpus: BTreeMap<String, GpuUse>,
}

impl Claim {
    fn cpu_ns(&self) -> u64 {
        self.by_package
            .values()
            .fold(0, |sum: u64, usage| sum.saturating_add(usage.cpu_ns))
    }

    fn resident_bytes(&self) -> u64 {
        self.memory.as_ref().map_or(0, MemoryReading::resident_bytes)
    }
}

/// All rows of the interval in the order of their keys, with empty `energy_uj`.
///
/// dlpm itself is the row `self`, kthreadd and its descendants are `kernel`, whatever the filters say. Of the others
/// those that `selection` matches are listed, at most `max_rows` of them as processes: the ones with the most CPU
/// time. The rest of the listed is merged by cgroup.
pub fn claimants(interval: &Interval, selection: &Selection, max_rows: usize) -> Vec<Row> {
    let mut fixed: BTreeMap<RowKey, Row> = [RowKey::Kernel, RowKey::SelfDlpm, RowKey::Idle, RowKey::Unattributed]
        .into_iter()
        .chain(selection.is_filtered().then_some(RowKey::Others))
        .map(|key| (key.clone(), empty_row(key)))
        .collect();
    let mut listed = Vec::new();
    for (place, claim) in claims(interval) {
        match class(interval, selection, &place) {
            Some(key) => add(fixed.entry(key.clone()).or_insert_with(|| empty_row(key)), &claim),
            None => listed.push((place, claim)),
        }
    }
    for cpu in &interval.cpus {
        for (key, ns) in [(RowKey::Idle, cpu.idle_ns), (RowKey::Unattributed, cpu.lost_ns)] {
            if let Some(row) = fixed.get_mut(&key) {
                add_use(
                    &mut row.by_package,
                    cpu.package,
                    CpuUse {
                        cpu_ns: ns,
                        smt_shared_ns: 0,
                    },
                );
            }
        }
    }
    let remainder = if selection.is_filtered() {
        RowKey::Others
    } else {
        RowKey::Unattributed
    };
    if let Some(row) = fixed.get_mut(&remainder) {
        row.resident_bytes = row.resident_bytes.saturating_add(unread_bytes(interval));
    }

    listed.sort_by_cached_key(|(place, claim)| (claim.gpus.is_empty(), Reverse(claim.cpu_ns()), place.clone()));
    let merged = listed.split_off(max_rows.min(listed.len()));
    let mut rows: BTreeMap<RowKey, Row> = fixed;
    for ((_, cgroup), claim) in merged {
        let key = RowKey::Merged(cgroup);
        let row = rows.entry(key.clone()).or_insert_with(|| empty_row(key));
        row.processes = row.processes.saturating_add(1);
        add(row, &claim);
    }
    for ((process, cgroup), claim) in listed {
        let row = process_row(interval, process, cgroup, claim);
        rows.insert(row.key.clone(), row);
    }
    rows.into_values().collect()
}

/// CPU time and memory by process and cgroup.
fn claims(interval: &Interval) -> BTreeMap<Place, Claim> {
    let packages: HashMap<u32, u32> = interval.cpus.iter().map(|cpu| (cpu.cpu, cpu.package)).collect();
    let mut by_id: HashMap<(ProcessId, u64), Claim> = HashMap::new();
    for usage in &interval.usage {
        let package = packages.get(&usage.cpu).copied().unwrap_or(0);
        let claim = by_id.entry((usage.process, usage.cgroup_id)).or_default();
        let time = CpuUse {
            cpu_ns: usage.ns,
            smt_shared_ns: usage.shared_ns.min(usage.ns),
        };
        add_use(&mut claim.by_package, package, time);
    }
    // Two ids can have one path, when a cgroup was removed and made again.
    let mut claims: BTreeMap<Place, Claim> = BTreeMap::new();
    for ((process, cgroup_id), by_id) in by_id {
        let claim = claims.entry((process, cgroup_path(interval, cgroup_id))).or_default();
        for (package, usage) in by_id.by_package {
            add_use(&mut claim.by_package, package, usage);
        }
    }
    for (process, (cgroup_id, reading)) in &interval.memory {
        main_claim(&mut claims, interval, *process, *cgroup_id).memory = Some(*reading);
    }
    for gpu in &interval.gpus {
        let zone = gpus::zone_name(&gpu.uuid);
        for process in &gpu.processes {
            let unknown = ProcessId {
                tgid: process.pid,
                start_ns: 0,
            };
            let (owner, cgroup_id) = interval.gpu_owners.get(&process.pid).copied().unwrap_or((unknown, 0));
            let usage = GpuUse {
                processes: 1,
                sm_percent_us: process.sm_percent_us,
                memory_bytes: process.memory_bytes,
                instances: process.instances.clone(),
            };
            let claim = main_claim(&mut claims, interval, owner, cgroup_id);
            gpus::add(&mut claim.gpus, &[(zone.clone(), usage)].into());
        }
    }
    claims
}

/// The claim of a process in the cgroup where it ran most; in `cgroup_id` if it did not run.
fn main_claim<'a>(
    claims: &'a mut BTreeMap<Place, Claim>,
    interval: &Interval,
    process: ProcessId,
    cgroup_id: u64,
) -> &'a mut Claim {
    let busiest = claims
        .range((process, String::new())..)
        .take_while(|((owner, _), _)| *owner == process)
        .min_by_key(|(_, claim)| Reverse(claim.cpu_ns()))
        .map(|(place, _)| place.clone());
    let place = busiest.unwrap_or_else(|| (process, cgroup_path(interval, cgroup_id)));
    claims.entry(place).or_default()
}

fn cgroup_path(interval: &Interval, id: u64) -> String {
    interval
        .cgroups
        .get(&id)
        .cloned()
        .unwrap_or_else(|| format!("cgroup:{id}"))
}

/// The fixed row that a place belongs to, or `None` if it is listed.
fn class(interval: &Interval, selection: &Selection, (id, cgroup): &Place) -> Option<RowKey> {
    let process = interval.processes.get(id);
    if id.tgid == interval.self_tgid {
        Some(RowKey::SelfDlpm)
    } else if process.is_some_and(|process| process.kernel) {
        Some(RowKey::Kernel)
    } else {
        let listed = match process {
            Some(process) => selection.matches(process, cgroup),
            None => selection.matches_unknown(cgroup),
        };
        (!listed).then_some(RowKey::Others)
    }
}

/// Used memory that no reading covers: the part of max(MemTotal - MemAvailable, sum of the readings) beyond that sum.
fn unread_bytes(interval: &Interval) -> u64 {
    let read_bytes = interval
        .memory
        .values()
        .fold(0, |sum: u64, (_, reading)| sum.saturating_add(reading.resident_bytes()));
    interval.machine_memory.map_or(0, |machine| {
        machine
            .total_bytes
            .saturating_sub(machine.available_bytes)
            .saturating_sub(read_bytes)
    })
}

fn process_row(interval: &Interval, id: ProcessId, cgroup: String, claim: Claim) -> Row {
    let shown = interval
        .processes
        .get(&id)
        .map_or_else(Shown::default, |process| Shown {
            comm: process.comm.clone(),
            exec_comm: process.exec_comm.clone(),
            uid: process.uid,
            exited: process.exited,
        });
    Row {
        shown: Some(shown),
        processes: 1,
        resident_bytes: claim.resident_bytes(),
        memory: claim.memory,
        by_package: claim.by_package,
        gpus: claim.gpus,
        ..empty_row(RowKey::Process(id, cgroup))
    }
}

fn empty_row(key: RowKey) -> Row {
    Row {
        key,
        shown: None,
        processes: 0,
        by_package: BTreeMap::new(),
        memory: None,
        resident_bytes: 0,
        gpus: BTreeMap::new(),
        energy_uj: Vec::new(),
    }
}

fn add(row: &mut Row, claim: &Claim) {
    row.resident_bytes = row.resident_bytes.saturating_add(claim.resident_bytes());
    gpus::add(&mut row.gpus, &claim.gpus);
    for (package, usage) in &claim.by_package {
        add_use(&mut row.by_package, *package, *usage);
    }
}

fn add_use(by_package: &mut BTreeMap<u32, CpuUse>, package: u32, usage: CpuUse) {
    let sum = by_package.entry(package).or_default();
    sum.cpu_ns = sum.cpu_ns.saturating_add(usage.cpu_ns);
    sum.smt_shared_ns = sum.smt_shared_ns.saturating_add(usage.smt_shared_ns);
}
