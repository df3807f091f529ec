//! Sums by tenant: a ledger goes in, integers come out, and nothing is dropped.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    attribution::ledger::{Ledger, Row, RowKey},
    tenants::{Node, Tenant},
};

/// Whose the energy of a row is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A tenant.
    Tenant(Node),
    /// Processes of which it is not known whose they are.
    Untold,
    /// One of the rows that are not processes': `kernel`, `self`, `idle`, `unattributed`, `others`.
    Row(RowKey),
}

impl Owner {
    fn of(row: &Row) -> Self {
        match (&row.key, &row.tenant) {
            (RowKey::Tenant(node), _) => Self::Tenant(node.clone()),
            (RowKey::Process(..) | RowKey::Merged(_) | RowKey::Memory(_), Some(tenant)) => {
                Self::Tenant(tenant.node.clone())
            }
            (RowKey::Process(..) | RowKey::Merged(_) | RowKey::Memory(_), None) => Self::Untold,
            (fixed, _) => Self::Row(fixed.clone()),
        }
    }
}

/// What one owner used in an interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// CPU time.
    pub cpu_ns: u64,
    /// Processes.
    pub processes: u64,
    /// The tenant with its names, if it is one.
    pub tenant: Option<Arc<Tenant>>,
    /// µJ by leaf, in the order of [`Ledger::leaves`]; 0 where the leaf is invalid.
    pub energy_uj: Vec<u64>,
}

/// Adds the rows of a ledger up by owner. The sum over all owners is that over all rows, and so the leaf.
pub fn by_owner(ledger: &Ledger) -> BTreeMap<Owner, Used> {
    let mut sums: BTreeMap<Owner, Used> = BTreeMap::new();
    for row in &ledger.rows {
        let sum = sums.entry(Owner::of(row)).or_insert_with(|| Used {
            energy_uj: vec![0; ledger.leaves.len()],
            tenant: row.tenant.clone(),
            ..Used::default()
        });
        // Never more than the interval has, and the leaf, which are u64.
        sum.cpu_ns = sum.cpu_ns.saturating_add(row.cpu_ns());
        sum.processes += u64::from(row.processes);
        for (total, share) in sum.energy_uj.iter_mut().zip(&row.energy_uj) {
            *total = total.saturating_add(*share);
        }
    }
    sums
}
