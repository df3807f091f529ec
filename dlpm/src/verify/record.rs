//! The exact part of a line as it was written, and the ledger that it tells of.
//!
//! `dlpm verify` takes it from a [`Value`], `dlpm report` from the text of the line itself, which is faster: text
//! without escapes then stays where it is.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};
use serde_json::Value;

use super::borrowed::{Energies, Text};
use crate::{
    attribution::{
        energy_tree::WHOLE,
        ledger::{CgroupSum, CpuUse, IdlePolicy, LeafZone, Ledger, Method, RootZone, Row, RowKey, Shown},
    },
    files::MOST_ENERGIES,
    interval::{CpuInterval, Identity, MachineMemory, MemoryReading, MeterSource, ProcessId, ZoneKind},
    sinks::{
        line::SCHEMA,
        log_gpus::{RecordedGpu, RecordedGpuUse},
        log_line::UNKNOWN_PACKAGE,
        measuring_cost::SwitchEstimate,
    },
};

/// The object `dlpm` of a sample.
#[derive(Debug, Deserialize)]
pub struct Recorded<'a> {
    schema: u32,
    seq: u64,
    begin_ns: u64,
    end_ns: u64,
    energy_skew_ns: u64,
    seal_ns: u64,
    /// What tells processes apart.
    pub identity: Identity,
    cpus: Vec<Cpu>,
    #[serde(borrow)]
    zones: Vec<Zone<'a>>,
    #[serde(borrow)]
    idle_policy: Text<'a>,
    smt_weight_permille: u32,
    #[serde(default)]
    gpus: Vec<RecordedGpu>,
    memory: Option<Machine>,
    /// The rows, as they were written.
    #[serde(borrow)]
    pub rows: Vec<RecordedRow<'a>>,
    #[serde(borrow)]
    cgroups: Vec<Cgroup<'a>>,
}

#[derive(Debug, Deserialize)]
struct Cpu {
    cpu: u32,
    package: Option<u32>,
    interval_ns: u64,
    busy_ns: u64,
    idle_ns: u64,
    lost_ns: u64,
    smt_shared_ns: u64,
    switches: u64,
}

#[derive(Debug, Deserialize)]
struct Zone<'a> {
    #[serde(borrow)]
    zone: Text<'a>,
    #[serde(borrow)]
    role: Text<'a>,
    #[serde(borrow)]
    kind: Text<'a>,
    package: Option<u32>,
    energy_uj: Option<u64>,
    counter_uj: Option<u64>,
    range_uj: Option<u64>,
    previous_carry_uj: Option<i64>,
    carry_uj: Option<i64>,
    #[serde(borrow)]
    one_leaf: Option<Text<'a>>,
    #[serde(default)]
    parts_outside: bool,
    idle_floor_mw: Option<u64>,
    #[serde(borrow)]
    source: Text<'a>,
    #[serde(borrow)]
    state: Text<'a>,
    #[serde(borrow)]
    reason: Option<Text<'a>>,
    #[serde(borrow)]
    method: Text<'a>,
}

#[derive(Debug, Deserialize)]
struct Machine {
    total_bytes: u64,
    available_bytes: u64,
    used_bytes: u64,
}

/// A row.
#[derive(Debug, Deserialize)]
pub struct RecordedRow<'a> {
    #[serde(borrow)]
    row: Text<'a>,
    tgid: Option<u32>,
    start_ns: Option<u64>,
    #[serde(borrow, default)]
    comm: Text<'a>,
    #[serde(borrow, default)]
    exec_comm: Text<'a>,
    #[serde(borrow)]
    cgroup: Option<Text<'a>>,
    uid: Option<u32>,
    #[serde(default)]
    exited: bool,
    processes: Option<u32>,
    /// CPU time, also the sum over the packages.
    pub cpu_ns: u64,
    /// Of the row `self`: dlpm's part of the context switches.
    pub in_switches: Option<SwitchEstimate>,
    by_package: BTreeMap<PackageKey, Use>,
    memory: Option<Memory>,
    resident_bytes: Option<u64>,
    #[serde(default)]
    gpus: BTreeMap<String, RecordedGpuUse>,
    #[serde(borrow)]
    energy_uj: Energies<'a>,
}

/// The key of a package in `by_package`: its number, or the word for one that is not known.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PackageKey(Option<u32>);

impl<'de> Deserialize<'de> for PackageKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;

        impl Visitor<'_> for Key {
            type Value = PackageKey;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "the number of a package, or `{UNKNOWN_PACKAGE}`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PackageKey, E> {
                let wrong = || E::invalid_value(de::Unexpected::Str(text), &self);
                match text {
                    UNKNOWN_PACKAGE => Ok(PackageKey(None)),
                    _ if !text.bytes().all(|byte| byte.is_ascii_digit()) => Err(wrong()),
                    _ => text
                        .parse()
                        .map(|package| PackageKey(Some(package)))
                        .map_err(|_| wrong()),
                }
            }
        }

        deserializer.deserialize_str(Key)
    }
}

#[derive(Debug, Deserialize)]
struct Use {
    cpu_ns: u64,
    smt_shared_ns: u64,
}

#[derive(Debug, Deserialize)]
struct Memory {
    pss_bytes: Option<u64>,
    uss_bytes: Option<u64>,
    rss_bytes: u64,
    age_ns: u64,
}

#[derive(Debug, Deserialize)]
struct Cgroup<'a> {
    #[serde(borrow)]
    cgroup: Text<'a>,
    cpu_ns: u64,
    #[serde(borrow)]
    energy_uj: Energies<'a>,
}

impl<'a> Recorded<'a> {
    /// The exact part that `value` holds.
    ///
    /// # Errors
    ///
    /// If a field is missing, of another kind, or of another version of the log.
    pub fn read(value: &'a Value) -> Result<Self, String> {
        let recorded = Self::deserialize(value).map_err(|error| error.to_string())?;
        recorded.checked()
    }

    /// Itself, if it is of this version of the log.
    ///
    /// # Errors
    ///
    /// If it is of another one.
    pub fn checked(self) -> Result<Self, String> {
        if self.schema != SCHEMA {
            return Err(super::differs("schema", SCHEMA, self.schema));
        }
        Ok(self)
    }

    /// The ledger that was written.
    ///
    /// # Errors
    ///
    /// If a word is unknown, or rows and zones do not name the same leaves.
    pub fn ledger(&self, end_unix_ns: i64) -> Result<Ledger, String> {
        let mut roots = Vec::new();
        let mut leaves = Vec::new();
        for zone in &self.zones {
            match &*zone.role {
                "root" => roots.push(zone.root()?),
                "leaf" => leaves.push(zone.leaf()?),
                role => return Err(super::differs(&zone.zone, "role root or leaf", role)),
            }
        }
        let machine_memory = self.memory.as_ref().map(|memory| MachineMemory {
            total_bytes: memory.total_bytes,
            available_bytes: memory.available_bytes,
            used_bytes: memory.used_bytes,
        });
        let whose = self.rows.len() + self.cgroups.len();
        if whose.saturating_mul(leaves.len()) > MOST_ENERGIES {
            return Err(format!(
                "{whose} rows and cgroups, and {} leaves, are too many",
                leaves.len()
            ));
        }
        let places = leaves.iter().enumerate().rev();
        let places: HashMap<&str, usize> = places.map(|(place, leaf)| (&*leaf.zone, place)).collect();
        let rows = self
            .rows
            .iter()
            .map(|row| row.row(&leaves, &places, self.end_ns))
            .collect::<Result<_, _>>()?;
        let cgroups = self
            .cgroups
            .iter()
            .map(|sum| {
                Ok(CgroupSum {
                    cgroup: sum.cgroup.to_string(),
                    cpu_ns: sum.cpu_ns,
                    energy_uj: energies(&sum.energy_uj, &leaves, &places, || format!("cgroup {}", sum.cgroup))?,
                })
            })
            .collect::<Result<_, String>>()?;
        Ok(Ledger {
            seq: self.seq,
            begin_ns: self.begin_ns,
            end_ns: self.end_ns,
            end_unix_ns,
            energy_skew_ns: self.energy_skew_ns,
            seal_ns: self.seal_ns,
            cpus: self.cpus.iter().map(Cpu::interval).collect(),
            smt_shared_ns: self.cpus.iter().map(|cpu| (cpu.cpu, cpu.smt_shared_ns)).collect(),
            roots,
            leaves,
            gpus: self.gpus.iter().map(|gpu| gpu.facts(self.end_ns)).collect(),
            idle_policy: IdlePolicy::from_word(&self.idle_policy)
                .ok_or_else(|| format!("idle_policy `{}` is unknown", self.idle_policy))?,
            smt_weight_permille: self.smt_weight_permille,
            rows,
            cgroups,
            machine_memory,
            ns_per_switch: self
                .rows
                .iter()
                .find_map(|row| Some(row.in_switches.as_ref()?.ns_per_switch)),
        })
    }
}

impl Cpu {
    /// Only the length of the interval is written.
    fn interval(&self) -> CpuInterval {
        CpuInterval {
            cpu: self.cpu,
            package: self.package,
            begin_ns: 0,
            end_ns: self.interval_ns,
            busy_ns: self.busy_ns,
            idle_ns: self.idle_ns,
            lost_ns: self.lost_ns,
            switches: self.switches,
        }
    }
}

impl Zone<'_> {
    fn energy(&self) -> Result<Result<u64, String>, String> {
        match (&*self.state, self.energy_uj, &self.reason) {
            ("ok", Some(energy_uj), None) => Ok(Ok(energy_uj)),
            ("invalid", None, Some(reason)) => Ok(Err(reason.to_string())),
            _ => Err(format!(
                "{}: state `{}` does not go with its energy and reason",
                self.zone, self.state
            )),
        }
    }

    fn source(&self) -> Result<MeterSource, String> {
        MeterSource::ALL
            .into_iter()
            .find(|source| source.as_str() == &*self.source)
            .ok_or_else(|| format!("{}: source `{}` is unknown", self.zone, self.source))
    }

    fn method(&self) -> Result<Method, String> {
        Method::ALL
            .into_iter()
            .find(|method| method.as_str() == &*self.method)
            .ok_or_else(|| format!("{}: method `{}` is unknown", self.zone, self.method))
    }

    fn kind(&self) -> Result<ZoneKind, String> {
        ZoneKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == &*self.kind)
            .ok_or_else(|| format!("{}: kind `{}` is unknown", self.zone, self.kind))
    }

    fn root(&self) -> Result<RootZone, String> {
        let kind = self.kind()?;
        if (kind == ZoneKind::Package) != (self.carry_uj.is_some() && self.previous_carry_uj.is_some()) {
            return Err(format!("{}: packages, and no others, have carries", self.zone));
        }
        Ok(RootZone {
            zone: self.zone.to_string(),
            kind,
            package: self.package,
            energy_uj: self.energy()?,
            counter_uj: self.counter_uj,
            range_uj: self.range_uj,
            previous_carry_uj: self.previous_carry_uj.unwrap_or(0),
            carry_uj: self.carry_uj.unwrap_or(0),
            one_leaf: self.one_leaf.as_ref().map(ToString::to_string),
            parts_outside: self.parts_outside,
            source: self.source()?,
            method: self.method()?,
        })
    }

    fn leaf(&self) -> Result<LeafZone, String> {
        let rest = &*self.kind == "rest";
        let kind = match (rest, self.package) {
            (false, _) if &*self.kind == WHOLE => ZoneKind::Package,
            (false, _) => match self.kind()? {
                ZoneKind::Package | ZoneKind::Machine => {
                    return Err(format!("{}: a leaf is not of kind `{}`", self.zone, self.kind));
                }
                kind => kind,
            },
            (true, Some(_)) => ZoneKind::Package,
            (true, None) => ZoneKind::Machine,
        };
        Ok(LeafZone {
            zone: self.zone.to_string(),
            kind,
            rest,
            package: self.package,
            energy_uj: self.energy()?,
            counter_uj: self.counter_uj,
            range_uj: self.range_uj,
            source: self.source()?,
            method: self.method()?,
            idle_floor_mw: self.idle_floor_mw,
        })
    }
}

impl RecordedRow<'_> {
    fn key(&self) -> Result<RowKey, String> {
        match (&*self.row, self.tgid, self.start_ns, &self.cgroup) {
            ("process", Some(tgid), Some(start_ns), Some(cgroup)) => {
                Ok(RowKey::Process(ProcessId { tgid, start_ns }, Arc::from(&**cgroup)))
            }
            ("merged", None, None, Some(cgroup)) => Ok(RowKey::Merged(Arc::from(&**cgroup))),
            ("others", None, None, None) => Ok(RowKey::Others),
            ("kernel", None, None, None) => Ok(RowKey::Kernel),
            ("self", None, None, None) => Ok(RowKey::SelfDlpm),
            ("idle", None, None, None) => Ok(RowKey::Idle),
            ("unattributed", None, None, None) => Ok(RowKey::Unattributed),
            (word, ..) => Err(format!(
                "a row `{word}` that is unknown, or lacks what says whose it is"
            )),
        }
    }

    fn row(&self, leaves: &[LeafZone], places: &HashMap<&str, usize>, end_ns: u64) -> Result<Row, String> {
        let key = self.key()?;
        let memory = self.memory.as_ref().map(|memory| MemoryReading {
            pss_bytes: memory.pss_bytes,
            uss_bytes: memory.uss_bytes,
            rss_bytes: memory.rss_bytes,
            read_at_ns: end_ns.saturating_sub(memory.age_ns),
        });
        let is_process = matches!(key, RowKey::Process(..));
        Ok(Row {
            shown: is_process.then(|| Shown {
                comm: Arc::from(&*self.comm),
                exec_comm: Arc::from(&*self.exec_comm),
                uid: self.uid,
                exited: self.exited,
            }),
            processes: self.processes.unwrap_or(u32::from(is_process)),
            by_package: self
                .by_package
                .iter()
                .map(|(package, usage)| {
                    let usage = CpuUse {
                        cpu_ns: usage.cpu_ns,
                        smt_shared_ns: usage.smt_shared_ns,
                    };
                    (package.0, usage)
                })
                .collect(),
            resident_bytes: if is_process {
                memory.as_ref().map_or(0, MemoryReading::resident_bytes)
            } else {
                self.resident_bytes.unwrap_or(0)
            },
            memory,
            gpus: self
                .gpus
                .iter()
                .map(|(zone, usage)| (zone.clone(), usage.usage()))
                .collect(),
            energy_uj: energies(&self.energy_uj, leaves, places, || name(&key))?,
            key,
        })
    }
}

/// How messages call a row.
pub fn name(key: &RowKey) -> String {
    match key {
        RowKey::Process(id, cgroup) => format!("row process {} in {cgroup}", id.tgid),
        RowKey::Merged(cgroup) => format!("row merged of {cgroup}"),
        other => format!("row {}", other.as_str()),
    }
}

/// Energies in the order of the leaves; the invalid ones, GPUs with 0, and no others, are missing.
fn energies(
    by_leaf: &Energies,
    leaves: &[LeafZone],
    places: &HashMap<&str, usize>,
    whose: impl Fn() -> String,
) -> Result<Vec<u64>, String> {
    let mut found: Vec<Option<u64>> = vec![None; leaves.len()];
    for (at, (zone, energy_uj)) in by_leaf.iter().enumerate() {
        // Mostly in the order of the leaves, which is cheaper than a search.
        let here = leaves.get(at).is_some_and(|leaf| leaf.zone == zone).then_some(at);
        let place = here.or_else(|| places.get(zone).copied());
        let Some(energy) = place.and_then(|place| found.get_mut(place)) else {
            return Err(format!("energy_uj of {} has {zone}, which is not a leaf", whose()));
        };
        if energy.replace(energy_uj).is_some() {
            return Err(format!("energy_uj of {} has {zone} twice", whose()));
        }
    }
    leaves
        .iter()
        .zip(found)
        .map(|(leaf, energy_uj)| match (&leaf.energy_uj, energy_uj) {
            (Ok(_), Some(energy_uj)) => Ok(energy_uj),
            (Err(_), None) => Ok(0),
            // Most processes use no GPU.
            (Ok(_), None) if leaf.kind == ZoneKind::Gpu => Ok(0),
            (Ok(_), None) => Err(format!("energy_uj of {} lacks {}", whose(), leaf.zone)),
            (Err(_), Some(_)) => Err(format!("energy_uj of {} has {}, which is invalid", whose(), leaf.zone)),
        })
        .collect()
}
