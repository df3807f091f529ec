//! The exact part of a line: the ledger as the top-level object `dlpm`, in integers.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::log_gpus::{GpuEntry, GpuUseEntry};
use crate::{
    attribution::{
        energy_tree::WHOLE,
        ledger::{CgroupSum, CpuUse, LeafZone, Ledger, RootZone, Row, RowKey},
    },
    interval::{CpuInterval, Identity, MachineMemory, MemoryReading, ZoneKind},
    sinks::{line::SCHEMA, measuring_cost::SwitchEstimate},
};

/// The key in `by_package` of the time on CPUs whose package is not known.
pub const UNKNOWN_PACKAGE: &str = "unknown";

/// A ledger as the object `dlpm`.
#[derive(Serialize)]
pub struct Exact<'a> {
    schema: u32,
    seq: u64,
    begin_ns: u64,
    end_ns: u64,
    energy_skew_ns: u64,
    seal_ns: u64,
    identity: Identity,
    cpus: Vec<CpuEntry>,
    zones: Vec<ZoneEntry<'a>>,
    idle_policy: &'static str,
    smt_weight_permille: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gpus: Vec<GpuEntry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MachineEntry>,
    rows: Rows<'a>,
    cgroups: Vec<CgroupEntry<'a>>,
}

/// Thousands, so that each entry is made when it is written.
struct Rows<'a>(&'a Ledger);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ledger = self.0;
        let entries = ledger.rows.iter();
        serializer.collect_seq(entries.map(|row| RowEntry::of(row, &ledger.leaves, ledger)))
    }
}

impl<'a> Exact<'a> {
    /// The exact part of `ledger`.
    pub fn of(ledger: &'a Ledger, identity: Identity) -> Self {
        let leaves = ledger.leaves.as_slice();
        Self {
            schema: SCHEMA,
            seq: ledger.seq,
            begin_ns: ledger.begin_ns,
            end_ns: ledger.end_ns,
            energy_skew_ns: ledger.energy_skew_ns,
            seal_ns: ledger.seal_ns,
            identity,
            cpus: ledger.cpus.iter().map(|cpu| CpuEntry::of(cpu, ledger)).collect(),
            zones: zones(ledger),
            idle_policy: ledger.idle_policy.as_str(),
            smt_weight_permille: ledger.smt_weight_permille,
            gpus: ledger.gpus.iter().map(|gpu| GpuEntry::of(gpu, ledger.end_ns)).collect(),
            memory: ledger.machine_memory.map(MachineEntry::of),
            rows: Rows(ledger),
            cgroups: ledger.cgroups.iter().map(|sum| CgroupEntry::of(sum, leaves)).collect(),
        }
    }
}

#[derive(Serialize)]
struct CpuEntry {
    cpu: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<u32>,
    interval_ns: u64,
    busy_ns: u64,
    idle_ns: u64,
    lost_ns: u64,
    smt_shared_ns: u64,
    switches: u64,
}

impl CpuEntry {
    fn of(cpu: &CpuInterval, ledger: &Ledger) -> Self {
        Self {
            cpu: cpu.cpu,
            package: cpu.package,
            interval_ns: cpu.interval_ns(),
            busy_ns: cpu.busy_ns,
            idle_ns: cpu.idle_ns,
            lost_ns: cpu.lost_ns,
            smt_shared_ns: ledger.smt_shared_ns.get(&cpu.cpu).copied().unwrap_or(0),
            switches: cpu.switches,
        }
    }
}

#[derive(Serialize)]
struct MachineEntry {
    total_bytes: u64,
    available_bytes: u64,
    used_bytes: u64,
}

impl MachineEntry {
    fn of(memory: MachineMemory) -> Self {
        Self {
            total_bytes: memory.total_bytes,
            available_bytes: memory.available_bytes,
            used_bytes: memory.used_bytes,
        }
    }
}

#[derive(Serialize)]
struct ZoneEntry<'a> {
    zone: &'a str,
    role: &'static str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<u32>,
    energy_uj: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counter_uj: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    range_uj: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_carry_uj: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    carry_uj: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    one_leaf: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    parts_outside: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_floor_mw: Option<u64>,
    source: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    method: &'static str,
}

/// Each root with its leaves after it, then the leaves that stand alone.
fn zones(ledger: &Ledger) -> Vec<ZoneEntry<'_>> {
    let belongs = |leaf: &LeafZone, root: &RootZone| {
        leaf.zone
            .strip_prefix(root.zone.as_str())
            .is_some_and(|below| below.starts_with('/'))
    };
    let mut entries = Vec::new();
    for root in &ledger.roots {
        entries.push(root_entry(root));
        entries.extend(ledger.leaves.iter().filter(|leaf| belongs(leaf, root)).map(leaf_entry));
    }
    let alone = |leaf: &&LeafZone| !ledger.roots.iter().any(|root| belongs(leaf, root));
    entries.extend(ledger.leaves.iter().filter(alone).map(leaf_entry));
    entries
}

fn state(energy_uj: &Result<u64, String>) -> (&'static str, Option<&str>) {
    match energy_uj {
        Ok(_) => ("ok", None),
        Err(reason) => ("invalid", Some(reason)),
    }
}

fn root_entry(root: &RootZone) -> ZoneEntry<'_> {
    let (state, reason) = state(&root.energy_uj);
    let is_package = root.kind == ZoneKind::Package;
    ZoneEntry {
        zone: &root.zone,
        role: "root",
        kind: root.kind.as_str(),
        package: root.package,
        energy_uj: root.energy_uj.as_ref().ok().copied(),
        counter_uj: root.counter_uj,
        range_uj: root.range_uj,
        previous_carry_uj: is_package.then_some(root.previous_carry_uj),
        carry_uj: is_package.then_some(root.carry_uj),
        one_leaf: root.one_leaf.as_deref(),
        parts_outside: root.parts_outside,
        idle_floor_mw: None,
        source: root.source.as_str(),
        state,
        reason,
        method: root.method.as_str(),
    }
}

fn leaf_entry(leaf: &LeafZone) -> ZoneEntry<'_> {
    let (state, reason) = state(&leaf.energy_uj);
    ZoneEntry {
        zone: &leaf.zone,
        role: "leaf",
        kind: match leaf.kind {
            _ if leaf.rest => "rest",
            ZoneKind::Package => WHOLE,
            kind => kind.as_str(),
        },
        package: leaf.package,
        energy_uj: leaf.energy_uj.as_ref().ok().copied(),
        counter_uj: leaf.counter_uj,
        range_uj: leaf.range_uj,
        previous_carry_uj: None,
        carry_uj: None,
        one_leaf: None,
        parts_outside: false,
        idle_floor_mw: leaf.idle_floor_mw,
        source: leaf.source.as_str(),
        state,
        reason,
        method: leaf.method.as_str(),
    }
}

/// Energy by the name of the leaf, without the invalid ones, and without the GPUs of which there is none: with eight GPUs
/// and thousands of processes these would be most of a line.
struct EnergyMap<'a> {
    leaves: &'a [LeafZone],
    energy_uj: &'a [u64],
}

impl Serialize for EnergyMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (leaf, energy_uj) in self.leaves.iter().zip(self.energy_uj) {
            if leaf.energy_uj.is_ok() && (*energy_uj > 0 || leaf.kind != ZoneKind::Gpu) {
                map.serialize_entry(&leaf.zone, energy_uj)?;
            }
        }
        map.end()
    }
}

struct ByPackage<'a>(&'a BTreeMap<Option<u32>, CpuUse>);

impl Serialize for ByPackage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(package, usage)| {
            let entry = CpuUseEntry {
                cpu_ns: usage.cpu_ns,
                smt_shared_ns: usage.smt_shared_ns,
            };
            (PackageName(*package), entry)
        }))
    }
}

/// The key of a package: its number, or [`UNKNOWN_PACKAGE`].
struct PackageName(Option<u32>);

impl Serialize for PackageName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(package) => package.serialize(serializer),
            None => serializer.serialize_str(UNKNOWN_PACKAGE),
        }
    }
}

#[derive(Serialize)]
struct CpuUseEntry {
    cpu_ns: u64,
    smt_shared_ns: u64,
}

#[derive(Serialize)]
struct MemoryEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    pss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uss_bytes: Option<u64>,
    rss_bytes: u64,
    age_ns: u64,
}

impl MemoryEntry {
    fn of(reading: &MemoryReading, end_ns: u64) -> Self {
        Self {
            pss_bytes: reading.pss_bytes,
            uss_bytes: reading.uss_bytes,
            rss_bytes: reading.rss_bytes,
            age_ns: end_ns.saturating_sub(reading.read_at_ns),
        }
    }
}

#[derive(Serialize)]
struct RowEntry<'a> {
    row: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tgid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exec_comm: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exited: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<u32>,
    cpu_ns: u64,
    /// Of the row `self` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_switches: Option<SwitchEstimate>,
    by_package: ByPackage<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resident_bytes: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    gpus: BTreeMap<&'a str, GpuUseEntry<'a>>,
    energy_uj: EnergyMap<'a>,
}

impl<'a> RowEntry<'a> {
    fn of(row: &'a Row, leaves: &'a [LeafZone], ledger: &Ledger) -> Self {
        let (id, cgroup) = match &row.key {
            RowKey::Process(id, cgroup) => (Some(id), Some(&**cgroup)),
            RowKey::Merged(cgroup) => (None, Some(&**cgroup)),
            _ => (None, None),
        };
        let shown = row.shown.as_ref();
        Self {
            row: row.key.as_str(),
            tgid: id.map(|id| id.tgid),
            start_ns: id.map(|id| id.start_ns),
            comm: shown.map(|shown| &*shown.comm),
            exec_comm: shown.map(|shown| &*shown.exec_comm),
            cgroup,
            uid: shown.and_then(|shown| shown.uid),
            exited: shown.map(|shown| shown.exited),
            processes: matches!(row.key, RowKey::Merged(_)).then_some(row.processes),
            cpu_ns: row.cpu_ns(),
            in_switches: SwitchEstimate::of(ledger).filter(|_| row.key == RowKey::SelfDlpm),
            by_package: ByPackage(&row.by_package),
            memory: row
                .memory
                .as_ref()
                .map(|reading| MemoryEntry::of(reading, ledger.end_ns)),
            // A process row's is in its memory reading.
            resident_bytes: (id.is_none() && row.resident_bytes > 0).then_some(row.resident_bytes),
            gpus: row
                .gpus
                .iter()
                .map(|(zone, usage)| (zone.as_str(), GpuUseEntry::of(usage)))
                .collect(),
            energy_uj: EnergyMap {
                leaves,
                energy_uj: &row.energy_uj,
            },
        }
    }
}

#[derive(Serialize)]
struct CgroupEntry<'a> {
    cgroup: &'a str,
    cpu_ns: u64,
    energy_uj: EnergyMap<'a>,
}

impl<'a> CgroupEntry<'a> {
    fn of(sum: &'a CgroupSum, leaves: &'a [LeafZone]) -> Self {
        Self {
            cgroup: &sum.cgroup,
            cpu_ns: sum.cpu_ns,
            energy_uj: EnergyMap {
                leaves,
                energy_uj: &sum.energy_uj,
            },
        }
    }
}

#[cfg(test)]
mod tests;
