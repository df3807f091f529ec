//! The curves that can be drawn, and how they are called.

mod inventory;

use anyhow::{Result, anyhow, bail};
use serde_json::Value;

pub use self::inventory::Inventory;
use crate::{
    aipowermeter::fields::{self, FIELDS, Field, Unit},
    attribution::ledger::{Ledger, Method, Row, RowKey},
};

impl Unit {
    /// What stands beside an axis.
    pub fn title(self) -> &'static str {
        match self {
            Self::Watts => "power (W)",
            Self::Bytes => "memory (bytes)",
            Self::Percent => "use (%)",
            Self::Fraction => "fraction",
            Self::CpuSeconds => "CPU time (s in an interval)",
        }
    }

    /// Whether the values of several processes or GPUs may be added up.
    fn adds_up(self) -> bool {
        self != Self::Percent
    }
}

/// Where values come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A field of AIPowerMeter, of the pid or GPU (or GPU and pid) of these keys; without keys the sum of all.
    Field(&'static Field, Vec<String>),
    /// What a zone drew.
    Zone(String),
    /// What a cgroup and those below it got, in all.
    Cgroup(String),
    /// What processes of this name got, in all.
    Comm(String),
    /// What a process got, in all.
    Process(u32),
    /// What a row got that is not a process.
    Row(String),
}

/// A curve that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// As it was typed.
    pub name: String,
    /// What it is.
    pub source: Source,
}

impl Metric {
    /// What `name` asks for.
    ///
    /// # Errors
    ///
    /// If there is no such metric, whatever the log.
    pub fn parse(name: &str) -> Result<Self> {
        let (word, rest) = match name.split_once(':') {
            Some((word, rest)) => (word, Some(rest)),
            None => (name, None),
        };
        let source = match (word, rest) {
            ("zone", Some(zone)) => Source::Zone(zone.to_owned()),
            ("cgroup", Some(path)) => Source::Cgroup(path.to_owned()),
            ("comm", Some(comm)) => Source::Comm(comm.to_owned()),
            ("process", Some(pid)) => {
                let pid = pid.parse();
                Source::Process(pid.map_err(|_| anyhow!("`{name}`: a pid is a number, as in process:4242"))?)
            }
            ("row", Some(row)) if RowKey::FIXED.iter().any(|key| key.as_str() == row) => Source::Row(row.to_owned()),
            ("row", _) => bail!(
                "`{name}`: rows are {}",
                RowKey::FIXED.map(|key| format!("row:{}", key.as_str())).join(", ")
            ),
            ("zone" | "cgroup" | "comm" | "process", None) => bail!("`{name}`: say which one, as in {name}:NAME"),
            _ => field(name, word, rest)?,
        };
        Ok(Self {
            name: name.to_owned(),
            source,
        })
    }

    /// What it is counted in.
    pub fn unit(&self) -> Unit {
        match &self.source {
            Source::Field(field, _) => field.unit,
            _ => Unit::Watts,
        }
    }

    /// Whether `metrics` of a line is needed.
    pub fn is_field(&self) -> bool {
        matches!(self.source, Source::Field(..))
    }

    /// Its value in an interval of dlpm: `None` if it is not known.
    pub fn value(&self, ledger: &Ledger, metrics: &Value) -> Option<f64> {
        let length_ns = ledger
            .end_ns
            .checked_sub(ledger.begin_ns)
            .filter(|length| *length > 0)?;
        let energy_uj = match &self.source {
            Source::Field(field, keys) => {
                let value = field.value(metrics, keys);
                // Who is not listed in an interval has used nothing in it; of memory that says nothing.
                let is_use =
                    matches!(field.unit, Unit::Watts | Unit::Fraction | Unit::CpuSeconds) && !field.is_memory();
                return value.or_else(|| (is_use && field.is_there(metrics)).then_some(0.0));
            }
            Source::Zone(zone) => ledger.zones().find(|known| known.zone == zone)?.known_uj()?,
            _ if !ledger.leaves.iter().any(|leaf| leaf.energy_uj.is_ok()) => return None,
            Source::Cgroup(path) => {
                let inside = ledger.cgroups.iter().filter(|sum| is_below(&sum.cgroup, path));
                inside.flat_map(|sum| &sum.energy_uj).sum()
            }
            Source::Comm(comm) => rows_uj(ledger, |row| {
                row.shown
                    .as_ref()
                    .is_some_and(|shown| *shown.comm == **comm || *shown.exec_comm == **comm)
            }),
            Source::Process(pid) => rows_uj(
                ledger,
                |row| matches!(&row.key, RowKey::Process(id, _) if id.tgid == *pid),
            ),
            Source::Row(word) => rows_uj(ledger, |row| row.key.as_str() == word),
        };
        Some(energy_uj as f64 / length_ns as f64 * 1000.0)
    }

    /// Its value in a sample of AIPowerMeter; -1 W is how that tool says that there is none.
    pub fn foreign_value(&self, metrics: &Value) -> Option<f64> {
        match &self.source {
            Source::Field(field, keys) => field
                .value(metrics, keys)
                .filter(|value| field.unit != Unit::Watts || *value >= 0.0),
            _ => None,
        }
    }

    /// Whether its figures are made from watts that the user gave.
    pub fn is_estimate(&self, ledger: &Ledger) -> bool {
        let is_estimate = |method: Method| method == Method::Estimate;
        match &self.source {
            Source::Field(field, _) => {
                field.is_of_packages() && ledger.roots.iter().any(|root| is_estimate(root.method))
            }
            Source::Zone(zone) => {
                ledger
                    .roots
                    .iter()
                    .any(|root| root.zone == *zone && is_estimate(root.method))
                    || ledger
                        .leaves
                        .iter()
                        .any(|leaf| leaf.zone == *zone && is_estimate(leaf.method))
            }
            _ => ledger.leaves.iter().any(|leaf| is_estimate(leaf.method)),
        }
    }
}

/// A field of AIPowerMeter with its keys.
fn field(name: &str, word: &str, rest: Option<&str>) -> Result<Source> {
    // Its documentation of 2021 has this one with a capital.
    let word = if word == "Intel_power" {
        fields::INTEL_POWER.name
    } else {
        word
    };
    let Some(field) = fields::named(word) else {
        let near = FIELDS
            .iter()
            .map(|field| field.name)
            .filter(|known| strsim::damerau_levenshtein(known, word) <= 3)
            .min_by_key(|known| strsim::damerau_levenshtein(known, word));
        let hint = near.map_or_else(String::new, |near| format!("; is it {near}?"));
        bail!("there is no metric `{name}`{hint} `dlpm plot --help` lists all");
    };
    let keys: Vec<String> = rest.map_or_else(Vec::new, |rest| rest.split(':').map(str::to_owned).collect());
    if keys.len() > field.keys.len() || keys.iter().any(String::is_empty) {
        bail!("`{name}`: write it as {}", field.form());
    }
    if keys.len() < field.keys.len() && !field.unit.adds_up() {
        bail!("`{name}`: percents cannot be added up; write it as {}", field.form());
    }
    if keys.len() == 1 && field.keys.len() == 2 {
        bail!(
            "`{name}`: write it as {}, or {} for the sum of all",
            field.form(),
            field.name
        );
    }
    Ok(Source::Field(field, keys))
}

/// Whether a cgroup is another one, or below it.
fn is_below(cgroup: &str, root: &str) -> bool {
    let root = root.trim_end_matches('/');
    cgroup
        .strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn rows_uj(ledger: &Ledger, wanted: impl Fn(&Row) -> bool) -> u64 {
    ledger
        .rows
        .iter()
        .filter(|row| wanted(row))
        .flat_map(|row| &row.energy_uj)
        .sum()
}
