//! Whether the tenants that have ended had what the history of an agent says.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufReader},
    path::Path,
};

use serde::Deserialize;

use crate::{
    attribution::ledger::{Ledger, RowKey},
    files,
    tenants::Node,
};

/// The lines of tenants that have ended, the older ones first.
const NAMES: [&str; 2] = ["finished.1.jsonl", "finished.jsonl"];

/// Roll-ups that follow one another without a gap, and what each tenant had in them.
#[derive(Debug)]
struct Run {
    begin_unix_ns: i64,
    end_unix_ns: i64,
    seq: u64,
    end_ns: u64,
    tenants: HashMap<Node, Had>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Had {
    cpu_ns: u64,
    /// By device; what is 0 is left out.
    energy_uj: BTreeMap<String, u64>,
}

/// What the history says, from one start of an agent, or one gap, to the next.
#[derive(Debug, Default)]
pub struct Runs(Vec<Run>);

/// What there is of a line of `finished.jsonl`.
#[derive(Debug, Deserialize)]
struct Line {
    tenant: Node,
    begin_unix_ns: i64,
    end_unix_ns: i64,
    cpu_ns: u64,
    energy_uj: BTreeMap<String, u64>,
}

/// What was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Tenants that have exactly what the history says.
    pub equal: u64,
    /// Tenants of which the history has more: they went on after a line, under the same name.
    pub went_on: u64,
    /// Lines of lives that the history does not have as a whole.
    pub not_covered: u64,
    /// What cannot be, a sentence each.
    pub failures: Vec<String>,
}

impl Runs {
    /// Adds the next roll-up.
    pub fn add(&mut self, ledger: &Ledger) {
        let follows = |run: &Run| run.seq.checked_add(1) == Some(ledger.seq) && run.end_ns == ledger.begin_ns;
        if !self.0.last().is_some_and(follows) {
            let length_ns = i64::try_from(ledger.length_ns()).unwrap_or(i64::MAX);
            self.0.push(Run {
                begin_unix_ns: ledger.end_unix_ns.saturating_sub(length_ns),
                end_unix_ns: ledger.end_unix_ns,
                seq: ledger.seq,
                end_ns: ledger.end_ns,
                tenants: HashMap::new(),
            });
        }
        let Some(run) = self.0.last_mut() else { return };
        (run.seq, run.end_ns, run.end_unix_ns) = (ledger.seq, ledger.end_ns, ledger.end_unix_ns);
        for row in &ledger.rows {
            let RowKey::Tenant(node) = &row.key else { continue };
            let had = run.tenants.entry(node.clone()).or_default();
            had.add(
                row.cpu_ns(),
                ledger
                    .leaves
                    .iter()
                    .map(|leaf| leaf.zone.as_str())
                    .zip(row.energy_uj.iter().copied()),
            );
        }
    }

    /// Compares it with the lines of ended tenants that the agent wrote beside the folder of its history.
    ///
    /// # Errors
    ///
    /// If they cannot be read; that there are none is not an error.
    pub fn compare(&self, history: &Path) -> io::Result<Compared> {
        let mut compared = Compared::default();
        let mut finished: BTreeMap<(usize, Node), Had> = BTreeMap::new();
        for name in NAMES {
            let file = match files::open(&history.join("..").join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let (mut input, mut text) = (BufReader::new(file), Vec::new());
            while let Some(read) = files::next_line(&mut input, &mut text)? {
                let line = read.ok().and_then(|()| serde_json::from_slice::<Line>(&text).ok());
                let Some(line) = line else {
                    compared
                        .failures
                        .push(format!("{name} has a line that is not one of a tenant"));
                    continue;
                };
                match self.run_of(&line) {
                    Some(run) => finished.entry((run, line.tenant)).or_default().add(
                        line.cpu_ns,
                        line.energy_uj.iter().map(|(device, uj)| (device.as_str(), *uj)),
                    ),
                    None => compared.not_covered += 1,
                }
            }
        }
        for ((run, node), had) in &finished {
            let nothing = Had::default();
            let by_history = self
                .0
                .get(*run)
                .and_then(|run| run.tenants.get(node))
                .unwrap_or(&nothing);
            if by_history == had {
                compared.equal += 1;
            } else if had.is_within(by_history) {
                compared.went_on += 1;
            } else {
                compared.failures.push(format!(
                    "finished.jsonl: {node} had more than the history says: expected at most {by_history:?}, found {had:?}"
                ));
            }
        }
        Ok(compared)
    }

    /// The run that has all of a tenant's life.
    fn run_of(&self, line: &Line) -> Option<usize> {
        let has = |run: &Run| run.begin_unix_ns <= line.begin_unix_ns && line.end_unix_ns <= run.end_unix_ns;
        self.0.iter().position(has)
    }
}

impl Had {
    fn add<'a>(&mut self, cpu_ns: u64, energies: impl Iterator<Item = (&'a str, u64)>) {
        self.cpu_ns = self.cpu_ns.saturating_add(cpu_ns);
        for (device, energy_uj) in energies.filter(|(_, energy_uj)| *energy_uj > 0) {
            let sum = self.energy_uj.entry(device.to_owned()).or_default();
            *sum = sum.saturating_add(energy_uj);
        }
    }

    fn is_within(&self, other: &Self) -> bool {
        let of_other = |device: &String| other.energy_uj.get(device).copied().unwrap_or(0);
        self.cpu_ns <= other.cpu_ns && self.energy_uj.iter().all(|(device, uj)| *uj <= of_other(device))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        totals::{
            owners::{Owner, by_owner},
            rollup::Rollups,
        },
        verify::test_logs::{Odd, ledgers},
    };

    #[test]
    fn what_ended_has_what_the_history_says() {
        let ledgers = ledgers(&[Odd::Nothing, Odd::Nothing, Odd::Nothing, Odd::Gap, Odd::Nothing]);
        let (mut rollups, mut runs) = (Rollups::new(2_000_000_000), Runs::default());
        let mut ended: Vec<Ledger> = ledgers.iter().flat_map(|ledger| rollups.add(ledger)).collect();
        ended.extend(rollups.end());
        ended.iter().for_each(|rollup| runs.add(rollup));
        assert_eq!(runs.0.len(), 2);
        let folder = tempfile::tempdir().unwrap();
        let history = folder.path().join("history");
        fs::create_dir(&history).unwrap();
        assert_eq!(runs.compare(&history).unwrap(), Compared::default());

        // Of both tenants, over the first three intervals.
        let mut lines = Vec::new();
        for tenant in ["slurm:7", "unit:a.service"] {
            let node = Node::from_word(tenant).unwrap();
            let mut had = Had::default();
            for ledger in &ledgers[..3] {
                let used = by_owner(ledger).remove(&Owner::Tenant(node.clone())).unwrap();
                had.add(
                    used.cpu_ns,
                    ledger.leaves.iter().map(|leaf| leaf.zone.as_str()).zip(used.energy_uj),
                );
            }
            lines.push(serde_json::json!({
                "tenant": tenant, "begin_unix_ns": ledgers[0].end_unix_ns, "end_unix_ns": ledgers[2].end_unix_ns,
                "cpu_ns": had.cpu_ns, "energy_uj": had.energy_uj,
            }));
        }
        let compared = |lines: &[serde_json::Value]| {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            fs::write(folder.path().join("finished.jsonl"), text).unwrap();
            runs.compare(&history).unwrap()
        };
        let equal = Compared {
            equal: 2,
            ..Compared::default()
        };
        assert_eq!(compared(&lines), equal);
        // One that goes on, one that lives over the gap, and one that had more than there was.
        let mut changed = lines.clone();
        changed[0]["cpu_ns"] = 1.into();
        changed[1]["end_unix_ns"] = ledgers[4].end_unix_ns.into();
        let expected = Compared {
            went_on: 1,
            not_covered: 1,
            ..Compared::default()
        };
        assert_eq!(compared(&changed), expected);
        let more = lines[0]["energy_uj"]["dram-0"].as_u64().unwrap() + 1;
        lines[0]["energy_uj"]["dram-0"] = more.into();
        let failures = compared(&lines).failures;
        assert!(
            failures.len() == 1 && failures[0].contains("slurm:7 had more"),
            "{failures:?}"
        );
    }
}
