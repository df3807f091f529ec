//! Rows of a line: who had how much.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

use super::parts::{Energies, Leaves, Text};
use crate::{
    attribution::ledger::{Core, CpuUse, GpuUse, Ledger, Row, RowKey, Shown, SwitchEstimate},
    interval::{MemoryReading, ProcessId},
    tenants::{Kind, Node, Tenant},
};

/// The key in `by_package` of the time on CPUs whose package is not known.
pub const UNKNOWN_PACKAGE: &str = "unknown";

/// A row.
#[derive(Debug, Serialize, Deserialize)]
pub struct RowEntry<'a> {
    #[serde(borrow)]
    row: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tgid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_ns: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    comm: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    exec_comm: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    cgroup: Option<Text<'a>>,
    /// Kind and id, as in `slurm:4711`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    tenant: Option<Text<'a>>,
    /// The jobs, pods and units that the tenant is inside of, the highest first.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    inside: Vec<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exited: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<u32>,
    /// CPU time, also the sum over the packages.
    pub cpu_ns: u64,
    /// Of the row `self`: dlpm's part of the context switches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_switches: Option<SwitchEstimate>,
    by_package: ByPackage<'a>,
    #[serde(default, skip_serializing_if = "ByCore::is_empty")]
    by_core: ByCore<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resident_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "is_none")]
    gpus: Cow<'a, BTreeMap<String, GpuUse>>,
    #[serde(borrow)]
    energy_uj: Energies<'a>,
}

fn is_none(gpus: &BTreeMap<String, GpuUse>) -> bool {
    gpus.is_empty()
}

#[derive(Debug, Serialize, Deserialize)]
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

    fn reading(&self, end_ns: u64) -> MemoryReading {
        MemoryReading {
            pss_bytes: self.pss_bytes,
            uss_bytes: self.uss_bytes,
            rss_bytes: self.rss_bytes,
            read_at_ns: end_ns.saturating_sub(self.age_ns),
        }
    }
}

/// CPU time by package.
#[derive(Debug)]
struct ByPackage<'a>(Cow<'a, BTreeMap<Option<u32>, CpuUse>>);

impl Serialize for ByPackage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(package, usage)| (Package(*package), usage)))
    }
}

impl<'de> Deserialize<'de> for ByPackage<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = BTreeMap<Option<u32>, CpuUse>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map from package to CPU time")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut by_package = BTreeMap::new();
                while let Some((Package(package), usage)) = map.next_entry()? {
                    by_package.insert(package, usage);
                }
                Ok(by_package)
            }
        }

        deserializer.deserialize_map(Map).map(|map| Self(Cow::Owned(map)))
    }
}

/// CPU time by core: the key is the package and the core, as in `0/3`.
#[derive(Debug, Default)]
struct ByCore<'a>(Cow<'a, BTreeMap<Core, CpuUse>>);

impl ByCore<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for ByCore<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = self.0.iter();
        serializer.collect_map(entries.map(|((package, core), usage)| (format!("{package}/{core}"), usage)))
    }
}

impl<'de> Deserialize<'de> for ByCore<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = BTreeMap::<String, CpuUse>::deserialize(deserializer)?;
        let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse::<u32>().ok(),
            false => None,
        };
        let entries = written.into_iter().map(|(key, usage)| {
            let core = key.split_once('/');
            let core = core.and_then(|(package, core)| Some((number(package)?, number(core)?)));
            let wrong = || de::Error::custom(format!("`{key}` is not a package and a core, as in `0/3`"));
            Ok((core.ok_or_else(wrong)?, usage))
        });
        entries
            .collect::<Result<_, _>>()
            .map(|by_core| Self(Cow::Owned(by_core)))
    }
}

/// The key of a package: its number, or [`UNKNOWN_PACKAGE`].
struct Package(Option<u32>);

impl Serialize for Package {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(package) => package.serialize(serializer),
            None => serializer.serialize_str(UNKNOWN_PACKAGE),
        }
    }
}

impl<'de> Deserialize<'de> for Package {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;

        impl Visitor<'_> for Key {
            type Value = Package;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "the number of a package, or `{UNKNOWN_PACKAGE}`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Package, E> {
                let wrong = || E::invalid_value(de::Unexpected::Str(text), &self);
                match text {
                    UNKNOWN_PACKAGE => Ok(Package(None)),
                    _ if !text.bytes().all(|byte| byte.is_ascii_digit()) => Err(wrong()),
                    _ => text.parse().map(|package| Package(Some(package))).map_err(|_| wrong()),
                }
            }
        }

        deserializer.deserialize_str(Key)
    }
}

impl<'a> RowEntry<'a> {
    /// To be written.
    pub fn of(row: &'a Row, ledger: &'a Ledger) -> Self {
        let id = match &row.key {
            RowKey::Process(id, _) => Some(id),
            _ => None,
        };
        let cgroup = row.key.cgroup().map(AsRef::as_ref);
        // A process row's is in its memory reading, but where its cgroup's memory is known.
        let usual_bytes = match (id, &row.memory) {
            (Some(_), Some(reading)) => reading.resident_bytes(),
            _ => 0,
        };
        let shown = row.shown.as_ref();
        Self {
            row: Text::of(row.key.as_str()),
            tgid: id.map(|id| id.tgid),
            start_ns: id.map(|id| id.start_ns),
            comm: shown.map(|shown| Text::of(&shown.comm)),
            exec_comm: shown.map(|shown| Text::of(&shown.exec_comm)),
            cgroup: cgroup.map(Text::of),
            tenant: row.tenant.as_ref().map(|tenant| Text::made(tenant.to_string())),
            inside: row.tenant.as_ref().map(inside).unwrap_or_default(),
            uid: shown.and_then(|shown| shown.uid),
            exited: shown.map(|shown| shown.exited),
            processes: matches!(row.key, RowKey::Merged(_) | RowKey::Tenant(_)).then_some(row.processes),
            cpu_ns: row.cpu_ns(),
            in_switches: (row.key == RowKey::SelfDlpm)
                .then(|| ledger.switch_estimate())
                .flatten(),
            by_package: ByPackage(Cow::Borrowed(&row.by_package)),
            by_core: ByCore(Cow::Borrowed(&row.by_core)),
            memory: row
                .memory
                .as_ref()
                .map(|reading| MemoryEntry::of(reading, ledger.end_ns)),
            resident_bytes: (row.resident_bytes != usual_bytes).then_some(row.resident_bytes),
            gpus: Cow::Borrowed(&row.gpus),
            energy_uj: Energies::of(&ledger.leaves, &row.energy_uj),
        }
    }

    fn tenant(&self) -> Option<Arc<Tenant>> {
        let mut tenant = Tenant::from(Node::from_word(self.tenant.as_deref()?)?);
        tenant.ancestors = self.inside.iter().filter_map(|word| Node::from_word(word)).collect();
        Some(Arc::new(tenant))
    }

    fn key(&self) -> Result<RowKey, String> {
        match (&*self.row, self.tgid, self.start_ns, &self.cgroup) {
            ("process", Some(tgid), Some(start_ns), Some(cgroup)) => {
                Some(RowKey::Process(ProcessId { tgid, start_ns }, Arc::from(&**cgroup)))
            }
            ("merged", None, None, Some(cgroup)) => Some(RowKey::Merged(Arc::from(&**cgroup))),
            ("memory", None, None, Some(cgroup)) => Some(RowKey::Memory(Arc::from(&**cgroup))),
            ("tenant", None, None, None) => self.tenant().map(|tenant| RowKey::Tenant(tenant.node.clone())),
            (word, None, None, None) => RowKey::FIXED.into_iter().find(|key| key.as_str() == word),
            _ => None,
        }
        .ok_or_else(|| format!("a row `{}` that is unknown, or lacks what says whose it is", self.row))
    }

    /// The row that was written, in an interval that ended at `end_ns`.
    ///
    /// # Errors
    ///
    /// If its word is unknown, or its energies are not those of the leaves.
    pub fn row(&self, leaves: &Leaves, end_ns: u64) -> Result<Row, String> {
        let key = self.key()?;
        let memory = self.memory.as_ref().map(|memory| memory.reading(end_ns));
        let is_process = matches!(key, RowKey::Process(..));
        let text = |text: &Option<Text>| Arc::from(text.as_deref().unwrap_or_default());
        Ok(Row {
            // A kind that a later version may have is none that is known.
            tenant: self.tenant(),
            shown: is_process.then(|| Shown {
                comm: text(&self.comm),
                exec_comm: text(&self.exec_comm),
                uid: self.uid,
                exited: self.exited.unwrap_or(false),
            }),
            processes: self.processes.unwrap_or(u32::from(is_process)),
            by_package: self.by_package.0.clone().into_owned(),
            by_core: self.by_core.0.clone().into_owned(),
            resident_bytes: self.resident_bytes.unwrap_or_else(|| match &memory {
                Some(reading) if is_process => reading.resident_bytes(),
                _ => 0,
            }),
            memory,
            gpus: self.gpus.clone().into_owned(),
            energy_uj: leaves.energies(&self.energy_uj, || name(&key))?,
            key,
        })
    }
}

/// The user is left out: a row has the number.
fn inside<'a>(tenant: &Arc<Tenant>) -> Vec<Text<'a>> {
    let above = tenant.ancestors.iter().filter(|node| node.kind != Kind::User);
    above.map(|node| Text::made(node.to_string())).collect()
}

/// How messages call a row.
pub fn name(key: &RowKey) -> String {
    match key {
        RowKey::Process(id, cgroup) => format!("row process {} in {cgroup}", id.tgid),
        RowKey::Merged(cgroup) => format!("row merged of {cgroup}"),
        RowKey::Memory(cgroup) => format!("row memory of {cgroup}"),
        RowKey::Tenant(node) => format!("row tenant {node}"),
        fixed => format!("row {}", fixed.as_str()),
    }
}
