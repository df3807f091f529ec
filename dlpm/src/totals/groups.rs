//! Listed processes by whose they are.

use std::{cmp::Reverse, collections::HashMap};

use super::{Amount, Share, Usage};
use crate::{
    attribution::ledger::{Ledger, Row},
    tenants::{Kind, Node},
};

/// Groups that are kept at most.
const GROUPS: usize = 10_000;

/// Groups that are left when there were too many.
const GROUPS_KEPT: usize = 9_000;

/// What makes a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// The tenant.
    Tenant,
    /// The job that the tenant is, or is inside of.
    Job,
    /// The real user id of the process.
    User,
    /// The unit that the tenant is, or is inside of.
    Unit,
}

impl Grouping {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Job => "job",
            Self::User => "user",
            Self::Unit => "unit",
        }
    }

    /// The name of the group that a row is in, if it is in one.
    fn name(self, row: &Row) -> Option<String> {
        let nodes = || row.tenant.iter().flat_map(|tenant| tenant.nodes());
        // The innermost: a job in a job's container is its own.
        let innermost = |is: fn(Kind) -> bool| nodes().rfind(|node| is(node.kind));
        match self {
            Self::Tenant => row.tenant.as_ref().map(ToString::to_string),
            Self::Job => innermost(Kind::is_job).map(Node::to_string),
            Self::Unit => innermost(Kind::is_unit).map(|node| node.id.to_string()),
            Self::User => row.shown.as_ref()?.uid.map(|uid| uid.to_string()),
        }
    }
}

/// Listed processes by whose they are. Each is in at most one group.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// What makes them; without it nothing is added up.
    pub grouping: Option<Grouping>,
    /// By name; `None` are those that are in no group.
    pub totals: HashMap<Option<String>, Usage>,
    /// Groups that are no longer told apart.
    pub folded: u64,
}

impl Groups {
    /// None so far.
    pub fn by(grouping: Option<Grouping>) -> Self {
        Self {
            grouping,
            ..Self::default()
        }
    }

    /// Adds one interval.
    pub fn add(&mut self, ledger: &Ledger) {
        let Some(grouping) = self.grouping else { return };
        let mut amounts: HashMap<Option<String>, Amount> = HashMap::new();
        for row in &ledger.rows {
            if Share::of(&row.key) == Share::Listed {
                let amount = amounts.entry(grouping.name(row)).or_default();
                amount.add(Amount::of(row, ledger));
            }
        }
        for (name, mut amount) in amounts {
            amount.unknown_intervals = amount.unknown_intervals.min(1);
            self.totals.entry(name).or_default().add(amount, ledger.length_ns());
        }
        if self.totals.len() > GROUPS {
            let mut entries: Vec<_> = self.totals.drain().collect();
            entries.sort_by_key(|(_, usage)| Reverse((usage.amount.energy_uj, usage.amount.cpu_ns)));
            self.folded += entries.split_off(GROUPS_KEPT).len() as u64;
            self.totals = entries.into_iter().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attribution::ledger::RowKey,
        sinks::testing::{all_zones, ledger},
        tenants::Tenant,
    };

    /// In the ledger: python 100 in two cgroups, bash 200, and others.
    fn grouped(grouping: Grouping) -> Vec<(String, u64)> {
        let mut ledger = ledger(0, all_zones());
        let job = Tenant::of(Kind::Slurm, "7");
        let container = Tenant {
            ancestors: vec![job.node.clone()],
            ..Tenant::of(Kind::Podman, "a")
        };
        let tenants = [job, container, Tenant::of(Kind::Unit, "ssh.service")];
        let mut tenants = tenants.into_iter();
        for row in ledger.rows.iter_mut() {
            if matches!(row.key, RowKey::Process(..)) {
                row.tenant = tenants.next().map(Into::into);
            }
        }
        let mut groups = Groups::by(Some(grouping));
        groups.add(&ledger);
        groups.add(&ledger);
        let listed: u128 = ledger
            .rows
            .iter()
            .filter(|row| matches!(row.key, RowKey::Process(..)))
            .map(|row| Amount::of(row, &ledger).energy_uj)
            .sum();
        let sum: u128 = groups.totals.values().map(|usage| usage.amount.energy_uj).sum();
        assert_eq!(sum, 2 * listed);
        let cpu_ms = |usage: &Usage| u64::try_from(usage.amount.cpu_ns / 2_000_000).unwrap();
        let mut shown: Vec<_> = groups
            .totals
            .iter()
            .map(|(name, usage)| (name.clone().unwrap_or_default(), cpu_ms(usage)))
            .collect();
        shown.sort();
        shown
    }

    fn expected(groups: &[(&str, u64)]) -> Vec<(String, u64)> {
        groups.iter().map(|(name, ms)| ((*name).to_owned(), *ms)).collect()
    }

    #[test]
    fn a_process_is_in_one_group() {
        let [job, container, ssh] = [700, 300, 250];
        assert_eq!(
            grouped(Grouping::Tenant),
            expected(&[
                ("", 0),
                ("podman:a", container),
                ("slurm:7", job),
                ("unit:ssh.service", ssh)
            ])
        );
        assert_eq!(
            grouped(Grouping::Job),
            expected(&[("", ssh), ("slurm:7", job + container)])
        );
        assert_eq!(
            grouped(Grouping::Unit),
            expected(&[("", job + container), ("ssh.service", ssh)])
        );
        assert_eq!(grouped(Grouping::User), expected(&[("1000", job + container + ssh)]));
    }

    #[test]
    fn without_a_grouping_nothing_is_added_up() {
        let mut groups = Groups::default();
        groups.add(&ledger(0, all_zones()));
        assert!(groups.totals.is_empty());
    }
}
