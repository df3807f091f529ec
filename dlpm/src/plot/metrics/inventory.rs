//! What a log has to draw.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{FIELDS, Field, Metric, Source};
use crate::{
    attribution::ledger::{Ledger, RowKey},
    plot::scan::Sample,
};

/// Names of one kind that are kept at most.
const NAMES: usize = 10_000;

/// Names of one kind that are told at most.
const TOLD: usize = 12;

/// The names of a log.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    fields: BTreeMap<&'static str, BTreeSet<String>>,
    zones: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    comms: BTreeSet<String>,
    pids: BTreeSet<u32>,
    has_leaves: bool,
}

impl Inventory {
    /// Adds the names of an interval, whoever wrote it.
    pub fn add_sample(&mut self, sample: &Sample<'_>) {
        let raw = match sample {
            Sample::Exact(ledger, raw) => {
                self.add(ledger);
                raw
            }
            Sample::Foreign(raw) => raw,
        };
        // A line whose fields are of another shape has none of them.
        if let Ok(metrics) = serde_json::from_str(raw.get()) {
            self.add_fields(&metrics);
        }
    }

    /// Adds the names of an interval.
    pub fn add(&mut self, ledger: &Ledger) {
        insert(&mut self.zones, ledger.zones().map(|zone| zone.zone));
        insert(&mut self.cgroups, ledger.cgroups.iter().map(|sum| sum.cgroup.as_str()));
        let shown = ledger.rows.iter().filter_map(|row| row.shown.as_ref());
        insert(&mut self.comms, shown.map(|shown| &*shown.comm));
        self.has_leaves |= !ledger.leaves.is_empty();
        for row in &ledger.rows {
            if let RowKey::Process(id, _) = &row.key
                && self.pids.len() < NAMES
            {
                self.pids.insert(id.tgid);
            }
        }
    }

    /// Adds the fields of AIPowerMeter in a line.
    pub fn add_fields(&mut self, metrics: &Value) {
        for field in FIELDS {
            let Some(value) = field.find(metrics) else { continue };
            let keys = self.fields.entry(field.name).or_default();
            add_keys(keys, field, value, "");
        }
    }

    /// Whether the log has this metric.
    pub fn has(&self, metric: &Metric) -> bool {
        match &metric.source {
            Source::Field(field, keys) => {
                let known = self.fields.get(field.name);
                known.is_some_and(|known| keys.is_empty() || known.len() >= NAMES || known.contains(&keys.join(":")))
            }
            Source::Zone(zone) => self.zones.contains(zone),
            Source::Cgroup(path) => {
                self.has_leaves
                    && (self.cgroups.len() >= NAMES || self.cgroups.iter().any(|cgroup| super::is_below(cgroup, path)))
            }
            // A name at exec may be another one, which is not collected.
            Source::Comm(comm) => self.has_leaves && (self.comms.len() >= NAMES || self.comms.contains(comm)),
            Source::Process(pid) => self.has_leaves && (self.pids.len() >= NAMES || self.pids.contains(pid)),
            Source::Row(_) => self.has_leaves,
        }
    }

    /// What there is, a line for each kind.
    pub fn list(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for field in FIELDS {
            match self.fields.get(field.name) {
                Some(keys) if !field.keys.is_empty() && !keys.is_empty() => {
                    lines.push(format!("{} ({})", field.form(), some_of(keys.iter())));
                }
                Some(_) => lines.push(field.name.to_owned()),
                None => {}
            }
        }
        let mut kind = |form: &str, names: String| {
            if !names.is_empty() {
                lines.push(format!("{form} ({names})"));
            }
        };
        kind("zone:NAME", some_of(self.zones.iter()));
        if self.has_leaves {
            kind(
                "process:PID",
                some_of(self.pids.iter().map(u32::to_string).collect::<Vec<_>>().iter()),
            );
            kind("comm:NAME", some_of(self.comms.iter()));
            kind("cgroup:PATH", some_of(self.cgroups.iter()));
            lines.push("row:NAME (others, kernel, self, idle, unattributed)".to_owned());
        }
        lines
    }
}

fn insert<'a>(names: &mut BTreeSet<String>, new: impl Iterator<Item = &'a str>) {
    for name in new {
        if names.len() < NAMES && !names.contains(name) {
            names.insert(name.to_owned());
        }
    }
}

fn add_keys(keys: &mut BTreeSet<String>, field: &Field, value: &Value, prefix: &str) {
    let Value::Object(map) = value else { return };
    for (key, value) in map {
        if keys.len() >= NAMES {
            return;
        }
        if value.is_object() && field.keys.len() == 2 && prefix.is_empty() {
            add_keys(keys, field, value, &format!("{key}:"));
        } else {
            keys.insert(format!("{prefix}{key}"));
        }
    }
}

fn some_of<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = names.len().saturating_sub(TOLD);
    let names: Vec<String> = names.take(TOLD).map(|name| name.escape_debug().to_string()).collect();
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    names.join(", ") + &rest
}
