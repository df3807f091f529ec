//! The rows that energy is split among: claimants with their CPU time and memory, still without energy.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use foldhash::HashMap;

use crate::{
    attribution::{
        cgroup_memory::Charged,
        gpus,
        ledger::{CpuUse, GpuUse, Row, RowKey, Shown},
        selection::Selection,
    },
    interval::{Interval, MemoryReading, ProcessId},
    tenants::Tenant,
};

/// CPU time of a process in one cgroup (the number of its path in [`Paths`]) on one package, or on one core of it.
///
/// An interval can have tens of thousands of these: so they are plain values in one vector, sorted by place.
struct Piece {
    place: Place,
    package: Option<u32>,
    /// Where cores have energy zones of their own.
    core: Option<u32>,
    time: CpuUse,
}

/// A process, and the number of the path of its cgroup in [`Paths`].
type Place = (ProcessId, usize);

/// What one place used.
struct Claim<'a> {
    place: Place,
    /// Its CPU time, each package, and each core of it, once.
    pieces: &'a [Piece],
    cpu_ns: u64,
    memory: Option<MemoryReading>,
    /// Its memory is in that of its cgroup.
    is_charged: bool,
    /// By the name of the GPU's leaf.
    gpus: BTreeMap<String, GpuUse>,
}

impl<'a> Claim<'a> {
    fn of(place: Place, pieces: &'a [Piece]) -> Self {
        Self {
            place,
            pieces,
            cpu_ns: pieces
                .iter()
                .fold(0, |sum: u64, piece| sum.saturating_add(piece.time.cpu_ns)),
            memory: None,
            is_charged: false,
            gpus: BTreeMap::new(),
        }
    }

    fn resident_bytes(&self) -> u64 {
        let reading = self.memory.as_ref().filter(|_| !self.is_charged);
        reading.map_or(0, MemoryReading::resident_bytes)
    }
}

/// The paths of the cgroups of an interval, numbered in their order.
struct Paths {
    sorted: Vec<Arc<str>>,
    numbers: HashMap<u64, usize>,
}

impl Paths {
    fn of(interval: &Interval) -> Self {
        let mut ids = BTreeSet::new();
        let mut newest = None;
        let of_usage = interval.usage.iter().map(|usage| usage.cgroup_id);
        let of_memory = interval.memory.values().map(|(id, _)| *id);
        let of_gpus = interval.gpu_owners.values().map(|(_, id)| *id);
        // A GPU's process that nobody knows is in cgroup 0. Neighbours are mostly in one cgroup.
        for id in of_usage.chain(of_memory).chain(of_gpus).chain([0]) {
            if newest != Some(id) {
                newest = Some(id);
                ids.insert(id);
            }
        }
        let path = |id: &u64| {
            let known = interval.cgroups.get(id).map(|path| Arc::from(path.as_str()));
            known.unwrap_or_else(|| format!("cgroup:{id}").into())
        };
        let mut sorted: Vec<Arc<str>> = ids.iter().map(path).collect();
        sorted.sort_unstable();
        // Two ids can have one path, when a cgroup was removed and made again.
        sorted.dedup();
        let number = |id| Some((id, sorted.binary_search(&path(&id)).ok()?));
        let numbers = ids.into_iter().filter_map(number).collect();
        Self { sorted, numbers }
    }

    fn number(&self, id: u64) -> usize {
        self.numbers.get(&id).copied().unwrap_or(0)
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
    let paths = Paths::of(interval);
    let pieces = pieces(interval, &paths);
    let mut listed = Vec::new();
    let charged = Charged::of(&interval.cgroup_memory);
    for mut claim in claims(interval, &paths, &pieces) {
        claim.is_charged = claim.memory.is_some() && charged.covers(&paths.sorted[claim.place.1]);
        match class(interval, selection, claim.place.0, &paths.sorted[claim.place.1]) {
            Some(key) => add(fixed.entry(key.clone()).or_insert_with(|| empty_row(key)), &claim),
            None => listed.push(claim),
        }
    }
    for cpu in &interval.cpus {
        let counts = cpu.counts.unwrap_or_default();
        for (key, cpu_ns, counts) in [
            (RowKey::Idle, cpu.idle_ns, counts.idle),
            (RowKey::Unattributed, cpu.lost_ns, counts.lost),
        ] {
            if let Some(row) = fixed.get_mut(&key) {
                let time = CpuUse {
                    cpu_ns,
                    smt_shared_ns: 0,
                    counts,
                };
                add_piece(row, cpu.package, cpu.core, time);
            }
        }
    }
    let mut merged: BTreeMap<usize, Row> = BTreeMap::new();
    if listed.len() > max_rows {
        listed.select_nth_unstable_by_key(max_rows, |claim| {
            (claim.gpus.is_empty(), Reverse(claim.cpu_ns), claim.place)
        });
        for claim in listed.drain(max_rows..) {
            let path = claim.place.1;
            let row = merged.entry(path).or_insert_with(|| Row {
                tenant: interval.tenants.get(&*paths.sorted[path]).cloned(),
                ..empty_row(RowKey::Merged(paths.sorted[path].clone()))
            });
            row.processes = row.processes.saturating_add(1);
            add(row, &claim);
        }
        listed.sort_unstable_by_key(|claim| claim.place);
    }
    let mut rows = Vec::with_capacity(listed.len() + merged.len() + fixed.len());
    rows.extend(listed.into_iter().map(|claim| process_row(interval, &paths, claim)));
    rows.extend(merged.into_values());
    let mut left_out_bytes: u64 = 0;
    for (path, own_bytes) in charged.own_bytes() {
        let tenant = interval.tenants.get(path);
        if selection.matches_unknown(path, tenant.map(AsRef::as_ref)) {
            rows.push(Row {
                tenant: tenant.cloned(),
                resident_bytes: own_bytes,
                ..empty_row(RowKey::Memory(path.into()))
            });
        } else {
            left_out_bytes = left_out_bytes.saturating_add(own_bytes);
        }
    }
    rows.extend(fixed.into_values());
    add_unread(interval, selection, left_out_bytes, &mut rows);
    rows
}

/// Gives the row that takes the remainder what filters leave out, and the memory in use that no reading covers: the part
/// of max(in use, sum of the readings) beyond that sum.
fn add_unread(interval: &Interval, selection: &Selection, left_out_bytes: u64, rows: &mut [Row]) {
    let read_bytes = rows
        .iter()
        .fold(left_out_bytes, |sum: u64, row| sum.saturating_add(row.resident_bytes));
    let in_use_bytes = interval.machine_memory.map_or(0, |machine| machine.in_use_bytes());
    let remainder = if selection.is_filtered() {
        RowKey::Others
    } else {
        RowKey::Unattributed
    };
    if let Some(row) = rows.iter_mut().find(|row| row.key == remainder) {
        let beyond_bytes = left_out_bytes.saturating_add(in_use_bytes.saturating_sub(read_bytes));
        row.resident_bytes = row.resident_bytes.saturating_add(beyond_bytes);
    }
}

/// CPU time by place and package, in this order, each once.
fn pieces(interval: &Interval, paths: &Paths) -> Vec<Piece> {
    let cpus = interval.cpus.iter();
    let places: HashMap<u32, (Option<u32>, Option<u32>)> = cpus.map(|cpu| (cpu.cpu, (cpu.package, cpu.core))).collect();
    let mut pieces: Vec<Piece> = interval
        .usage
        .iter()
        .map(|usage| {
            let (package, core) = places.get(&usage.cpu).copied().unwrap_or_default();
            Piece {
                place: (usage.process, paths.number(usage.cgroup_id)),
                package,
                core,
                time: CpuUse {
                    cpu_ns: usage.ns,
                    smt_shared_ns: usage.shared_ns.min(usage.ns),
                    counts: usage.counts,
                },
            }
        })
        .collect();
    pieces.sort_unstable_by_key(|piece| (piece.place, piece.package, piece.core));
    pieces.dedup_by(|next, piece| {
        let same = (next.place, next.package, next.core) == (piece.place, piece.package, piece.core);
        if same {
            add_time(&mut piece.time, next.time);
        }
        same
    });
    pieces
}

/// CPU time, memory and GPUs by place, in the order of the places.
fn claims<'a>(interval: &Interval, paths: &Paths, pieces: &'a [Piece]) -> Vec<Claim<'a>> {
    let mut claims: Vec<Claim<'_>> = pieces
        .chunk_by(|piece, next| piece.place == next.place)
        .map(|pieces| Claim::of(pieces[0].place, pieces))
        .collect();
    // Of processes that did not run.
    let mut idle: BTreeMap<ProcessId, Claim<'_>> = BTreeMap::new();
    for (&process, (cgroup_id, reading)) in &interval.memory {
        main_claim(&mut claims, &mut idle, process, paths.number(*cgroup_id)).memory = Some(*reading);
    }
    for gpu in &interval.gpus {
        let zone = gpus::zone_of(gpu);
        for process in &gpu.processes {
            let unknown = ProcessId {
                tgid: process.pid,
                start_ns: 0,
            };
            let (owner, cgroup_id) = interval.gpu_owners.get(&process.pid).copied().unwrap_or((unknown, 0));
            let usage = GpuUse {
                processes: 1,
                sm_percent_us: process.sm_percent_us,
                mem_percent_us: process.mem_percent_us,
                memory_bytes: process.memory_bytes,
                instances: process.instances.clone(),
            };
            let claim = main_claim(&mut claims, &mut idle, owner, paths.number(cgroup_id));
            gpus::add(&mut claim.gpus, &[(zone.clone(), usage)].into());
        }
    }
    if !idle.is_empty() {
        claims.extend(idle.into_values());
        claims.sort_unstable_by_key(|claim| claim.place);
    }
    claims
}

/// The claim of a process in the cgroup where it ran most; in the one with the number `path` if it did not run.
fn main_claim<'a, 'b>(
    claims: &'b mut [Claim<'a>],
    idle: &'b mut BTreeMap<ProcessId, Claim<'a>>,
    process: ProcessId,
    path: usize,
) -> &'b mut Claim<'a> {
    let first = claims.partition_point(|claim| claim.place.0 < process);
    let own = claims[first..].iter_mut().take_while(|claim| claim.place.0 == process);
    match own.min_by_key(|claim| Reverse(claim.cpu_ns)) {
        Some(busiest) => busiest,
        None => idle.entry(process).or_insert_with(|| Claim::of((process, path), &[])),
    }
}

/// The fixed row that a process in a cgroup belongs to, or `None` if it is listed.
fn class(interval: &Interval, selection: &Selection, id: ProcessId, cgroup: &str) -> Option<RowKey> {
    let process = interval.processes.get(&id);
    let tenant = tenant_of(interval, id, cgroup).map(AsRef::as_ref);
    if id.tgid == interval.self_tgid {
        Some(RowKey::SelfDlpm)
    } else if process.is_some_and(|process| process.kernel) {
        Some(RowKey::Kernel)
    } else {
        let listed = match process {
            Some(process) => selection.matches(process, cgroup, tenant),
            None => selection.matches_unknown(cgroup, tenant),
        };
        (!listed).then_some(RowKey::Others)
    }
}

/// Whose a process in a cgroup is.
fn tenant_of<'a>(interval: &'a Interval, id: ProcessId, cgroup: &str) -> Option<&'a Arc<Tenant>> {
    let of_path = interval.tenants.get(cgroup);
    // A process that was moved into a container has time of both kinds.
    let of_process = interval.process_tenants.get(&id);
    of_path.filter(|tenant| tenant.is_workload()).or(of_process).or(of_path)
}

fn process_row(interval: &Interval, paths: &Paths, claim: Claim<'_>) -> Row {
    let (id, path) = claim.place;
    let shown = interval
        .processes
        .get(&id)
        .map_or_else(Shown::default, |process| Shown {
            comm: process.comm.clone(),
            exec_comm: process.exec_comm.clone(),
            uid: process.uid,
            exited: process.exited,
        });
    let mut row = Row {
        tenant: tenant_of(interval, id, &paths.sorted[path]).cloned(),
        shown: Some(shown),
        processes: 1,
        resident_bytes: claim.resident_bytes(),
        memory: claim.memory,
        gpus: claim.gpus,
        ..empty_row(RowKey::Process(id, paths.sorted[path].clone()))
    };
    for piece in claim.pieces {
        add_piece(&mut row, piece.package, piece.core, piece.time);
    }
    row
}

fn empty_row(key: RowKey) -> Row {
    Row {
        key,
        tenant: None,
        shown: None,
        processes: 0,
        by_package: BTreeMap::new(),
        by_core: BTreeMap::new(),
        memory: None,
        resident_bytes: 0,
        gpus: BTreeMap::new(),
        energy_uj: Vec::new(),
    }
}

fn add(row: &mut Row, claim: &Claim<'_>) {
    row.resident_bytes = row.resident_bytes.saturating_add(claim.resident_bytes());
    gpus::add(&mut row.gpus, &claim.gpus);
    for piece in claim.pieces {
        add_piece(row, piece.package, piece.core, piece.time);
    }
}

fn add_piece(row: &mut Row, package: Option<u32>, core: Option<u32>, time: CpuUse) {
    add_time(row.by_package.entry(package).or_default(), time);
    if let (Some(package), Some(core)) = (package, core) {
        add_time(row.by_core.entry((package, core)).or_default(), time);
    }
}

fn add_time(sum: &mut CpuUse, time: CpuUse) {
    sum.cpu_ns = sum.cpu_ns.saturating_add(time.cpu_ns);
    sum.smt_shared_ns = sum.smt_shared_ns.saturating_add(time.smt_shared_ns);
    sum.counts.add(&time.counts);
}
