//! The exact part of a sample: a ledger as the top-level object `dlpm`, in integers.
//!
//! The same structs are written and read. What is written borrows from the ledger, row by row; what is read borrows from
//! the line: text without escapes stays where it is.

mod parts;
mod row;
mod zone;

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

pub use row::{RowEntry, UNKNOWN_PACKAGE, name};

use self::{
    parts::{Energies, Leaves, Text},
    zone::ZoneEntry,
};
use super::{differs, names::SCHEMA};
use crate::{
    attribution::counters::Counters,
    attribution::ledger::{CgroupSum, GpuFacts, IdlePolicy, Ledger},
    files::MOST_ENERGIES,
    interval::{CpuCounts, CpuInterval, Identity, MachineMemory},
};

/// The object `dlpm` of a sample. `R` are its rows: thousands, so that each is made when it is written.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exact<'a, R = Vec<RowEntry<'a>>> {
    schema: u32,
    seq: u64,
    begin_ns: u64,
    end_ns: u64,
    energy_skew_ns: u64,
    seal_ns: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interrupts: Option<u32>,
    /// What tells processes apart.
    pub identity: Identity,
    /// Intervals that it is the sum of, if it is a roll-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rollup: Option<u64>,
    cpus: Vec<CpuEntry>,
    #[serde(borrow)]
    zones: Vec<ZoneEntry<'a>>,
    idle_policy: IdlePolicy,
    smt_weight_permille: u32,
    /// The events that were counted, and what they weigh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counters: Option<Cow<'a, Counters>>,
    #[serde(default, skip_serializing_if = "<[GpuFacts]>::is_empty")]
    gpus: Cow<'a, [GpuFacts]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MachineMemory>,
    /// The rows, as they are in the line.
    pub rows: R,
    #[serde(borrow)]
    cgroups: Vec<CgroupEntry<'a>>,
}

/// The rows of a ledger that is written.
#[derive(Debug)]
pub struct Rows<'a>(&'a Ledger);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.rows.iter().map(|row| RowEntry::of(row, self.0)))
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct CpuEntry {
    cpu: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<u32>,
    /// Its core within the package, where each core has a zone of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    core: Option<u32>,
    interval_ns: u64,
    busy_ns: u64,
    idle_ns: u64,
    lost_ns: u64,
    smt_shared_ns: u64,
    switches: u64,
    /// What its events counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counts: Option<CpuCounts>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CgroupEntry<'a> {
    #[serde(borrow)]
    cgroup: Text<'a>,
    cpu_ns: u64,
    #[serde(borrow)]
    energy_uj: Energies<'a>,
}

impl<'a> Exact<'a, Rows<'a>> {
    /// The exact part of `ledger`.
    pub fn of(ledger: &'a Ledger, identity: Identity) -> Self {
        Self {
            schema: SCHEMA,
            seq: ledger.seq,
            begin_ns: ledger.begin_ns,
            end_ns: ledger.end_ns,
            energy_skew_ns: ledger.energy_skew_ns,
            seal_ns: ledger.seal_ns,
            interrupts: ledger.interrupts,
            identity,
            rollup: ledger.rollup,
            cpus: ledger.cpus.iter().map(|cpu| CpuEntry::of(cpu, ledger)).collect(),
            zones: ZoneEntry::all_of(ledger),
            idle_policy: ledger.idle_policy,
            smt_weight_permille: ledger.smt_weight_permille,
            counters: ledger.counters.as_ref().map(Cow::Borrowed),
            gpus: Cow::Borrowed(&ledger.gpus),
            memory: ledger.machine_memory,
            rows: Rows(ledger),
            cgroups: ledger.cgroups.iter().map(|sum| CgroupEntry::of(sum, ledger)).collect(),
        }
    }
}

impl<'a> Exact<'a> {
    /// The exact part that `value` holds.
    ///
    /// # Errors
    ///
    /// If a field is missing, of another kind, or of another version of the log.
    pub fn read(value: &'a Value) -> Result<Self, String> {
        Self::deserialize(value).map_err(|error| error.to_string())?.checked()
    }

    /// Itself, if it is of this version of the log.
    ///
    /// # Errors
    ///
    /// If it is of another one.
    pub fn checked(self) -> Result<Self, String> {
        if self.schema != SCHEMA {
            return Err(differs("schema", SCHEMA, self.schema));
        }
        Ok(self)
    }

    /// The ledger that was written.
    ///
    /// # Errors
    ///
    /// If rows and zones do not name the same leaves, or a row or zone contradicts itself.
    pub fn ledger(&self, end_unix_ns: i64) -> Result<Ledger, String> {
        let (mut roots, mut leaves) = (Vec::new(), Vec::new());
        for zone in &self.zones {
            if zone.is_leaf() {
                leaves.push(zone.leaf()?);
            } else {
                roots.push(zone.root()?);
            }
        }
        let whose = self.rows.len() + self.cgroups.len();
        if whose.saturating_mul(leaves.len()) > MOST_ENERGIES {
            return Err(format!(
                "{whose} rows and cgroups, and {} leaves, are too many",
                leaves.len()
            ));
        }
        let by_name = Leaves::of(&leaves);
        let rows = self.rows.iter().map(|row| row.row(&by_name, self.end_ns));
        let rows = rows.collect::<Result<_, String>>()?;
        let cgroups = self.cgroups.iter().map(|sum| sum.sum(&by_name));
        let cgroups = cgroups.collect::<Result<_, String>>()?;
        Ok(Ledger {
            seq: self.seq,
            begin_ns: self.begin_ns,
            end_ns: self.end_ns,
            end_unix_ns,
            energy_skew_ns: self.energy_skew_ns,
            seal_ns: self.seal_ns,
            interrupts: self.interrupts,
            cpus: self.cpus.iter().map(CpuEntry::interval).collect(),
            smt_shared_ns: self.cpus.iter().map(|cpu| (cpu.cpu, cpu.smt_shared_ns)).collect(),
            counters: self.counters.as_deref().cloned(),
            roots,
            leaves,
            gpus: self.gpus.to_vec(),
            idle_policy: self.idle_policy,
            smt_weight_permille: self.smt_weight_permille,
            rows,
            cgroups,
            machine_memory: self.memory,
            ns_per_switch: self
                .rows
                .iter()
                .find_map(|row| Some(row.in_switches.as_ref()?.ns_per_switch)),
            rollup: self.rollup,
        })
    }
}

impl CpuEntry {
    fn of(cpu: &CpuInterval, ledger: &Ledger) -> Self {
        Self {
            cpu: cpu.cpu,
            package: cpu.package,
            core: cpu.core,
            interval_ns: cpu.interval_ns(),
            busy_ns: cpu.busy_ns,
            idle_ns: cpu.idle_ns,
            lost_ns: cpu.lost_ns,
            smt_shared_ns: ledger.smt_shared_ns.get(&cpu.cpu).copied().unwrap_or(0),
            switches: cpu.switches,
            counts: cpu.counts,
        }
    }

    /// Only the length of the interval is written.
    fn interval(&self) -> CpuInterval {
        CpuInterval {
            cpu: self.cpu,
            package: self.package,
            core: self.core,
            begin_ns: 0,
            end_ns: self.interval_ns,
            busy_ns: self.busy_ns,
            idle_ns: self.idle_ns,
            lost_ns: self.lost_ns,
            switches: self.switches,
            counts: self.counts,
        }
    }
}

impl<'a> CgroupEntry<'a> {
    fn of(sum: &'a CgroupSum, ledger: &'a Ledger) -> Self {
        Self {
            cgroup: Text::of(&sum.cgroup),
            cpu_ns: sum.cpu_ns,
            energy_uj: Energies::of(&ledger.leaves, &sum.energy_uj),
        }
    }

    fn sum(&self, leaves: &Leaves) -> Result<CgroupSum, String> {
        let energy_uj = leaves.energies(&self.energy_uj, || format!("cgroup {}", self.cgroup))?;
        Ok(CgroupSum {
            cgroup: self.cgroup.to_string(),
            cpu_ns: self.cpu_ns,
            energy_uj,
        })
    }
}

#[cfg(test)]
mod tests;
