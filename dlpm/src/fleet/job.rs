//! What a job used on one node: lives of its tenants go in, sums come out. Pure.

use std::collections::BTreeMap;

use super::life::Life;
use crate::{
    tables::{Column, Kind, Look, Row, Table, Unit, Value, count, figures::decimal, known},
    tenants::{Label, Node, Tenant, Wanted},
    totals::Amount,
};

/// Longest name of a node in the line of JSON, which Slurm keeps in a field of 255 bytes.
const NODE_BYTES: usize = 32;

/// One tenant of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part {
    amount: Amount,
    runs: bool,
}

/// A job, and what is inside of it.
#[derive(Clone, Debug)]
pub struct Job {
    wanted: Wanted,
    id: String,
    node_id: String,
    tenant: Option<Tenant>,
    parts: BTreeMap<Node, Part>,
    lives: u64,
    is_estimate: bool,
    begin_unix_ns: i64,
    end_unix_ns: i64,
}

impl Job {
    /// Nothing of it is known so far.
    pub fn new(id: &str, wanted: Wanted) -> Self {
        Self {
            wanted,
            id: id.to_owned(),
            node_id: String::new(),
            tenant: None,
            parts: BTreeMap::new(),
            lives: 0,
            is_estimate: false,
            begin_unix_ns: i64::MAX,
            end_unix_ns: i64::MIN,
        }
    }

    /// Whether a life is of this job.
    pub fn has(&self, life: &Life) -> bool {
        self.wanted.matches(&life.tenant())
    }

    /// Adds a life if it is of this job.
    pub fn add(&mut self, life: &Life, runs: bool) {
        let tenant = life.tenant();
        if !self.wanted.matches(&tenant) {
            return;
        }
        let part = self.parts.entry(life.tenant.clone()).or_default();
        part.amount.add(life.amount());
        part.runs |= runs;
        self.is_estimate |= life.is_estimate();
        self.begin_unix_ns = self.begin_unix_ns.min(life.begin_unix_ns);
        self.end_unix_ns = self.end_unix_ns.max(life.end_unix_ns);
        if tenant.node.kind.is_job() {
            self.lives += 1;
            self.tenant = Some(tenant);
        }
        if !life.node_id.is_empty() {
            self.node_id.clone_from(&life.node_id);
        }
    }

    /// Says which node it is on, where that is known without a line.
    pub fn on(&mut self, node_id: &str) {
        node_id.clone_into(&mut self.node_id);
    }

    /// Whether nothing is known of it.
    pub fn is_unknown(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether a part of it runs.
    pub fn runs(&self) -> bool {
        self.parts.values().any(|part| part.runs)
    }

    /// When the newest life ended, or until when it is counted, in ns since 1970.
    pub fn end_unix_ns(&self) -> i64 {
        self.end_unix_ns
    }

    fn total(&self) -> Amount {
        let mut total = Amount::default();
        self.parts.values().for_each(|part| total.add(part.amount));
        total
    }

    /// Who and where, in words.
    pub fn name(&self) -> String {
        let label = |label| self.tenant.as_ref().and_then(|tenant| tenant.label(label));
        let names = [
            label(Label::JobName).map(str::to_owned),
            label(Label::User).map(|user| format!("user {user}")),
            label(Label::Account).map(|account| format!("account {account}")),
        ];
        let names: Vec<String> = names.into_iter().flatten().collect();
        let names = if names.is_empty() {
            String::new()
        } else {
            format!(" ({})", names.join(", "))
        };
        format!("job {} on {}{names}", self.id, self.node_id)
    }

    /// A row for each tenant, and their sum.
    pub fn table(&self) -> Table {
        let mut parts: Vec<(&Node, &Part)> = self.parts.iter().collect();
        parts.sort_by_key(|(node, _)| !node.kind.is_job());
        let total = Part {
            amount: self.total(),
            runs: self.runs(),
        };
        let rows = parts
            .into_iter()
            .map(|(node, part)| (Kind::Named, Value::Text(node.to_string()), part));
        let rows = rows.chain([(Kind::Total, Value::None, &total)]);
        let energy = |part: fn(&Amount) -> Option<u128>, used: &Amount| known(part(used), Value::Whole);
        Table {
            id: "job",
            title: if self.is_estimate { "Estimated energy" } else { "Energy" }.to_owned(),
            notes: Vec::new(),
            columns: vec![
                Column::new("tenant", "tenant", Unit::Plain).look(Look::Name),
                Column::people("", Unit::Plain).look(Look::Aside),
                Column::new("cpu_ns", "CPU time s", Unit::NS),
                Column::new("energy_uj", "energy J", Unit::UJ),
                Column::new("cpu_uj", "CPU J", Unit::UJ).shown_if(total.amount.cpu().is_some()),
                Column::new("dram_uj", "DRAM J", Unit::UJ).shown_if(total.amount.dram().is_some()),
                Column::new("gpu_uj", "GPU J", Unit::UJ).shown_if(total.amount.gpu().is_some()),
            ],
            rows: rows
                .map(|(kind, name, part)| Row {
                    kind,
                    values: vec![
                        name,
                        Value::from(if part.runs { "runs" } else { "ended" }),
                        count(part.amount.cpu_ns),
                        energy(Amount::energy, &part.amount),
                        energy(Amount::cpu, &part.amount),
                        energy(Amount::dram, &part.amount),
                        energy(Amount::gpu, &part.amount),
                    ],
                })
                .collect(),
        }
    }

    /// One line, which `AdminComment` of Slurm can hold.
    pub fn json(&self) -> String {
        let total = self.total();
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let mut fields = vec![
            format!("\"job\":{}", text(&self.id)),
            format!("\"node\":{}", text(short(&self.node_id))),
            format!("\"final\":{}", !self.runs()),
        ];
        let joules = [
            ("joules", total.energy()),
            ("cpu_j", total.cpu()),
            ("dram_j", total.dram()),
            ("gpu_j", total.gpu()),
        ];
        for (key, energy_uj) in joules {
            fields.extend(energy_uj.map(|energy_uj| format!("\"{key}\":{}", number(energy_uj, 6))));
        }
        fields.push(format!("\"cpu_s\":{}", number(total.cpu_ns, 9)));
        if self.is_estimate {
            fields.push("\"estimate\":true".to_owned());
        }
        if self.lives > 1 {
            fields.push(format!("\"lives\":{}", self.lives));
        }
        format!("{{{}}}\n", fields.join(","))
    }
}

/// A whole number of 10^-`digits` as an exact decimal without zeros at its end.
fn number(value: u128, digits: u32) -> String {
    let text = decimal(value, digits, digits);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The name of a node without its domain.
fn short(node_id: &str) -> &str {
    let name = node_id.split('.').next().unwrap_or_default();
    let mut end = name.len().min(NODE_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(tenant: &str, inside: &[&str], cpu_ns: u64, energy_uj: &[(&str, u64)]) -> Life {
        let energy_uj: BTreeMap<&str, u64> = energy_uj.iter().copied().collect();
        serde_json::from_value(serde_json::json!({
            "tenant": tenant, "inside": inside, "begin_unix_ns": 5, "end_unix_ns": 9, "cpu_ns": cpu_ns,
            "energy_uj": energy_uj, "node_id": "n1.cluster", "labels": {"job_name": "train", "new_label": "x"},
            "methods": {"dram-0": ["a_new_one"]}
        }))
        .unwrap()
    }

    fn job(id: &str) -> Job {
        Job::new(id, Wanted::job(id).unwrap())
    }

    #[test]
    fn a_job_is_itself_and_what_is_inside_and_nothing_else() {
        let mut seven = job("7");
        let devices = [("package-0/core", 1_000_001), ("dram-0", 20), ("gpu-x", 500_000)];
        seven.add(&life("slurm:7", &[], 3, &devices), false);
        seven.add(&life("podman:ab", &["slurm:7"], 4, &devices[..1]), true);
        seven.add(&life("slurm:70", &[], 100, &devices), false);
        assert_eq!(
            seven.json(),
            "{\"job\":\"7\",\"node\":\"n1\",\"final\":false,\"joules\":2.500022,\"cpu_j\":2.000002,\"dram_j\":0.00002,\
             \"gpu_j\":0.5,\"cpu_s\":0.000000007}\n"
        );
        assert_eq!(seven.name(), "job 7 on n1.cluster (train)");
        let shown = seven.table().text(100);
        for part in ["slurm:7", "podman:ab", "runs", "total", "2.500"] {
            assert!(shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn what_no_meter_has_is_left_out_and_not_zero() {
        let mut seven = job("7");
        seven.add(&life("slurm:7", &[], 2_000_000_000, &[]), false);
        assert_eq!(
            seven.json(),
            "{\"job\":\"7\",\"node\":\"n1\",\"final\":true,\"cpu_s\":2}\n"
        );
        assert!(seven.table().text(100).contains("unknown"));
    }

    #[test]
    fn the_line_is_short_whatever_a_job_uses() {
        let mut largest = job("4294967295");
        // A month of 10 kW and of 1024 CPUs, twice.
        let month_s = 31 * 86_400;
        for _ in 0..2 {
            let mut life = life(
                "slurm:4294967295",
                &[],
                1024 * month_s * 1_000_000_000 - 1,
                &[
                    ("machine", 9_999_999_999 * month_s + 1),
                    ("dram-0", 999_999_999 * month_s + 1),
                    ("gpu-x", 9_999_999_999 * month_s + 1),
                ],
            );
            life.node_id = "é".repeat(100);
            life.methods = [("machine".to_owned(), vec!["estimate".to_owned()])].into();
            largest.add(&life, true);
        }
        let line = largest.json();
        assert!(line.trim_end().len() < 250, "{}: {line}", line.len());
        assert!(line.contains("\"estimate\":true,\"lives\":2"), "{line}");
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
    }
}
