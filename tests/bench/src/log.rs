//! What a benchmark reads from dlpm's log.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

use super::stats::float;

/// One interval of the log.
#[derive(Clone, Debug)]
pub struct Line {
    /// Number of the interval.
    pub seq: u64,
    /// Length of the interval.
    pub length_ns: u64,
    /// CPU time of dlpm itself.
    pub self_ns: u64,
    /// Processes that ran (once for each cgroup), merged ones included; without dlpm and the kernel's.
    pub processes: u64,
    /// Time that all CPUs were busy.
    pub busy_ns: u64,
    /// Length of the interval, of all CPUs together.
    pub cpus_ns: u64,
    /// CPU time of the listed processes by the path of their cgroup.
    pub cgroups: BTreeMap<String, u64>,
    /// The same, summed from the rows of processes and the merged ones.
    pub rows: BTreeMap<String, u64>,
    /// CPU time that found no room in the kernel's maps.
    pub lost_ns: u64,
}

impl Line {
    /// Share of all CPUs' time that went to others than dlpm.
    pub fn busy_share(&self) -> f64 {
        float(self.busy_ns.saturating_sub(self.self_ns)) / float(self.cpus_ns)
    }
}

/// All intervals of a folder's log.
///
/// # Errors
///
/// Where it cannot be read, or is not such a log.
pub fn read(folder: &Path) -> Result<Vec<Line>> {
    let path = folder.join("power_metrics.json");
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut lines = Vec::new();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).with_context(|| format!("no JSON in the log: {line}"))?;
        if let Some(exact) = value.get("dlpm").filter(|exact| exact.get("rows").is_some()) {
            lines.push(interval(exact).with_context(|| format!("a field is missing in the log: {line}"))?);
        }
    }
    Ok(lines)
}

/// Intervals in the log so far; 0 while there is none.
pub fn count(folder: &Path) -> usize {
    fs::read_to_string(folder.join("power_metrics.json"))
        .map(|text| text.lines().filter(|line| line.contains("\"rows\":")).count())
        .unwrap_or(0)
}

fn interval(exact: &Value) -> Option<Line> {
    let rows = exact.get("rows")?.as_array()?;
    let is = |row: &Value, kind: &str| row["row"] == kind;
    let mut by_cgroup = BTreeMap::new();
    let mut processes = 0;
    for row in rows.iter().filter(|row| is(row, "process") || is(row, "merged")) {
        let cpu_ns = row["cpu_ns"].as_u64()?;
        *by_cgroup.entry(row["cgroup"].as_str()?.to_owned()).or_default() += cpu_ns;
        // A process that only holds memory has a row, but did not run.
        processes += if is(row, "merged") {
            row["processes"].as_u64()?
        } else {
            u64::from(cpu_ns > 0)
        };
    }
    let cpus = exact.get("cpus")?.as_array()?;
    let cgroups = exact.get("cgroups")?.as_array()?;
    Some(Line {
        seq: exact["seq"].as_u64()?,
        length_ns: exact["end_ns"].as_u64()?.checked_sub(exact["begin_ns"].as_u64()?)?,
        self_ns: rows.iter().find(|row| is(row, "self"))?["cpu_ns"].as_u64()?,
        processes,
        busy_ns: cpus.iter().map(|cpu| cpu["busy_ns"].as_u64()).sum::<Option<_>>()?,
        cpus_ns: cpus.iter().map(|cpu| cpu["interval_ns"].as_u64()).sum::<Option<_>>()?,
        cgroups: cgroups
            .iter()
            .map(|group| Some((group["cgroup"].as_str()?.to_owned(), group["cpu_ns"].as_u64()?)))
            .collect::<Option<_>>()?,
        rows: by_cgroup,
        lost_ns: rows.iter().find(|row| is(row, "unattributed"))?["cpu_ns"].as_u64()?,
    })
}
