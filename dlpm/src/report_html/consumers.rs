//! Which consumers have an area of their own in the stacks, and whose a row is.

use std::collections::HashMap;

use super::survey::Survey;
use crate::{
    attribution::ledger::{Ledger, Row, RowKey},
    interval::ProcessId,
    tables::SMALLER,
    totals::{Amount, Share},
};

/// Areas that can be told apart, beside those of the rows that are not processes.
const AREAS: usize = 9;

/// A process that has at least this part (one in so many) of what is listed has an area of its own.
const LARGE: u128 = 12;

/// The areas of a stack: idle as the base, the chosen ones on it, then smaller ones and each other kind of row.
#[derive(Clone, Debug)]
pub struct Areas {
    /// Their names, the lowest area first.
    pub labels: Vec<String>,
    /// Where the chosen consumers end; they begin after the base.
    pub chosen_end: usize,
    by_process: HashMap<ProcessId, usize>,
    by_command: HashMap<String, usize>,
    by_cgroup: HashMap<String, usize>,
    /// Whether rows are told apart by cgroup.
    cgroups: bool,
}

/// What stands above the chosen ones, with its name.
const REST: [(Option<Share>, &str); 5] = [
    (None, SMALLER),
    (Some(Share::Others), "others (filtered out)"),
    (Some(Share::Kernel), "kernel threads"),
    (Some(Share::SelfDlpm), "dlpm itself"),
    (Some(Share::Unattributed), "unattributed"),
];

impl Areas {
    /// Large processes by themselves, the others by the names of their commands.
    pub fn of_processes(survey: &Survey) -> Self {
        let mut areas = Self::empty(false);
        let mut processes: HashMap<ProcessId, (Amount, &str)> = HashMap::new();
        for ((id, _), total) in &survey.collected.totals.processes {
            let entry = processes.entry(*id).or_insert((Amount::default(), &total.comm));
            entry.0.add(total.amount);
        }
        let listed = survey.size(&survey.collected.totals.listed().amount);
        let mut large: Vec<_> = processes
            .iter()
            .map(|(id, (amount, comm))| (survey.size(amount), *id, *comm))
            .filter(|(size, ..)| *size > 0 && size * LARGE >= listed)
            .collect();
        large.sort_by(|a, b| (b.0, a.1).cmp(&(a.0, b.1)));
        large.truncate(AREAS * 2 / 3);
        let mut commands: HashMap<&str, u128> = survey
            .collected
            .comms
            .totals
            .iter()
            .map(|(comm, total)| (comm.as_str(), survey.size(&total.usage.amount)))
            .collect();
        for (size, _, comm) in &large {
            if let Some(rest) = commands.get_mut(comm) {
                *rest = rest.saturating_sub(*size);
            }
        }
        let mut commands: Vec<_> = commands.into_iter().filter(|(_, size)| *size > 0).collect();
        commands.sort_by(|a, b| (b.1, a.0).cmp(&(a.1, b.0)));
        for (_, id, comm) in &large {
            areas.by_process.insert(*id, areas.labels.len());
            areas.labels.push(format!("{comm} {}", id.tgid));
        }
        for (comm, _) in commands.iter().take(AREAS - large.len()) {
            areas.by_command.insert((*comm).to_owned(), areas.labels.len());
            let has_large = large.iter().any(|(_, _, large)| large == comm);
            areas.labels.push(if has_large {
                format!("other {comm}")
            } else {
                (*comm).to_owned()
            });
        }
        areas.with_rest()
    }

    /// By cgroup; `None` where there are not at least two.
    pub fn of_cgroups(survey: &Survey) -> Option<Self> {
        let mut cgroups: Vec<_> = survey
            .collected
            .totals
            .cgroups
            .iter()
            .map(|(cgroup, usage)| (survey.size(&usage.amount), cgroup))
            .filter(|(size, _)| *size > 0)
            .collect();
        if cgroups.len() < 2 {
            return None;
        }
        cgroups.sort_by(|a, b| (b.0, a.1).cmp(&(a.0, b.1)));
        let mut areas = Self::empty(true);
        for (_, cgroup) in cgroups.into_iter().take(AREAS) {
            areas.by_cgroup.insert(cgroup.clone(), areas.labels.len());
            areas.labels.push(cgroup.clone());
        }
        Some(areas.with_rest())
    }

    /// The sums of one interval by area: µJ, or ns of CPU time where there is no energy.
    pub fn amounts(&self, ledger: &Ledger, by_energy: bool) -> Vec<u64> {
        let mut sums = vec![0u64; self.labels.len()];
        for row in &ledger.rows {
            if !by_energy && row.key == RowKey::Idle {
                continue;
            }
            let amount = if by_energy {
                row.energy_uj.iter().sum()
            } else {
                row.cpu_ns()
            };
            if let Some(sum) = sums.get_mut(self.area(row)) {
                *sum = sum.saturating_add(amount);
            }
        }
        sums
    }

    fn empty(cgroups: bool) -> Self {
        Self {
            labels: vec!["idle".to_owned()],
            chosen_end: 1,
            by_process: HashMap::new(),
            by_command: HashMap::new(),
            by_cgroup: HashMap::new(),
            cgroups,
        }
    }

    fn with_rest(mut self) -> Self {
        self.chosen_end = self.labels.len();
        self.labels.extend(REST.iter().map(|(_, label)| (*label).to_owned()));
        self
    }

    fn area(&self, row: &Row) -> usize {
        let share = Share::of(&row.key);
        let rest = |wanted: Option<Share>| {
            let position = REST.iter().position(|(share, _)| *share == wanted);
            self.chosen_end + position.unwrap_or(0)
        };
        match share {
            Share::Listed => {}
            Share::Idle => return 0,
            share => return rest(Some(share)),
        }
        let known = match &row.key {
            RowKey::Process(_, cgroup) | RowKey::Merged(cgroup) | RowKey::Memory(cgroup) if self.cgroups => {
                self.by_cgroup.get(&**cgroup)
            }
            RowKey::Process(id, _) => self.by_process.get(id).or_else(|| {
                let comm = &row.shown.as_ref()?.comm;
                self.by_command.get(&**comm)
            }),
            _ => None,
        };
        known.copied().unwrap_or_else(|| rest(None))
    }
}
