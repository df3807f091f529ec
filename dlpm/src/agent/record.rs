//! Counters in a file: what has changed between two snapshots, as one record. Pure.
//!
//! A file of records that begins with the change from nothing is the newest snapshot.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    amounts::Amounts,
    counters::{Account, Counters, End, Finished, Group, Remainder, Zone},
};
use crate::{
    attribution::ledger::{IdlePolicy, Method},
    interval::MeterSource,
    tenants::{Label, Labels, Node, Tenant, label},
};

/// The change from one snapshot to a later one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    devices: Vec<String>,
    counted_uj: Vec<(usize, Option<Method>, u64)>,
    counted_ns: u64,
    zones: BTreeMap<String, ZoneRecord>,
    carries_uj: BTreeMap<String, i64>,
    /// Those that are new or not as before.
    accounts: Vec<AccountRecord>,
    /// Those that are no longer there.
    retired: Vec<Node>,
    remainders: BTreeMap<Remainder, Amounts>,
    /// Those that are new or not as before.
    groups: Vec<(GroupRecord, Amounts)>,
    /// Lines that are new.
    finished: Vec<FinishedRecord>,
    /// Up to which number lines are written, as far as it is known.
    written: u64,
    finished_count: u64,
    refused_count: u64,
    groups_left_out: u64,
    idle_policy: IdlePolicy,
    intervals: u64,
    time_law_broken: u64,
    energy_law_broken: u64,
    #[serde(default)]
    begun_unix_ns: i64,
    end_ns: u64,
    end_unix_ns: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ZoneRecord {
    energy_uj: u64,
    counter_uj: Option<u64>,
    range_uj: Option<u64>,
    source: MeterSource,
    unknown_intervals: u64,
    is_unknown: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct TenantRecord {
    node: Node,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inside: Vec<Node>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<Label, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct AccountRecord {
    tenant: TenantRecord,
    /// Where it is not `tenant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    named: Option<TenantRecord>,
    begun_unix_ns: i64,
    used: Amounts,
    #[serde(default)]
    since_unix_ns: i64,
    before: Amounts,
    methods: Vec<(usize, Vec<Method>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<(i64, u64)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GroupRecord {
    User(u32),
    Account(String),
    Namespace(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct FinishedRecord {
    number: u64,
    tenant: TenantRecord,
    begun_unix_ns: i64,
    ended_unix_ns: i64,
    used: Amounts,
    methods: Vec<(usize, Vec<Method>)>,
    idle_policy: IdlePolicy,
}

impl Change {
    /// What has changed. `now` came of `before`.
    pub fn between(before: &Counters, now: &Counters) -> Self {
        let is_new = |node: &Node, account: &Arc<Account>| {
            let old = before.accounts.get(node);
            !old.is_some_and(|old| Arc::ptr_eq(old, account) || old == account)
        };
        let changed = now.accounts.iter().filter(|(node, account)| is_new(node, account));
        let retired = before.accounts.keys().filter(|node| !now.accounts.contains_key(node));
        let groups = now.groups.iter();
        let groups = groups.filter(|(group, amounts)| before.groups.get(group) != Some(amounts));
        let finished = now
            .finished
            .iter()
            .filter(|finished| finished.number > before.finished_count);
        Self {
            devices: now.devices.clone(),
            counted_uj: now
                .counted_uj
                .iter()
                .map(|((device, method), energy_uj)| (*device, *method, *energy_uj))
                .collect(),
            counted_ns: now.counted_ns,
            zones: now
                .zones
                .iter()
                .map(|(name, zone)| (name.clone(), ZoneRecord::of(zone)))
                .collect(),
            carries_uj: now.carries_uj.clone(),
            accounts: changed.map(|(_, account)| AccountRecord::of(account)).collect(),
            retired: retired.cloned().collect(),
            remainders: now.remainders.clone(),
            groups: groups
                .map(|(group, amounts)| (GroupRecord::of(group), amounts.clone()))
                .collect(),
            finished: finished.map(|finished| FinishedRecord::of(finished)).collect(),
            written: now
                .finished
                .front()
                .map_or(now.finished_count, |finished| finished.number.saturating_sub(1)),
            finished_count: now.finished_count,
            refused_count: now.refused_count,
            groups_left_out: now.groups_left_out,
            idle_policy: now.idle_policy,
            intervals: now.intervals,
            time_law_broken: now.time_law_broken,
            energy_law_broken: now.energy_law_broken,
            begun_unix_ns: now.begun_unix_ns,
            end_ns: now.end_ns,
            end_unix_ns: now.end_unix_ns,
        }
    }

    /// Makes the later snapshot of the earlier one.
    pub fn apply(self, counters: &mut Counters) {
        for node in &self.retired {
            counters.accounts.remove(node);
        }
        for record in self.accounts {
            let account = record.account();
            counters.accounts.insert(account.tenant.node.clone(), Arc::new(account));
        }
        for (group, amounts) in self.groups {
            counters.groups.insert(group.group(), amounts);
        }
        let finished = self.finished.into_iter().map(|record| Arc::new(record.finished()));
        counters.finished.extend(finished);
        counters.written(self.written);
        let counted = self.counted_uj.into_iter();
        counters.counted_uj = counted
            .map(|(device, method, energy_uj)| ((device, method), energy_uj))
            .collect();
        counters.devices = self.devices;
        counters.counted_ns = self.counted_ns;
        counters.zones = self.zones.into_iter().map(|(name, zone)| (name, zone.zone())).collect();
        counters.carries_uj = self.carries_uj;
        counters.remainders = self.remainders;
        counters.finished_count = self.finished_count;
        counters.refused_count = self.refused_count;
        counters.groups_left_out = self.groups_left_out;
        counters.idle_policy = self.idle_policy;
        counters.intervals = self.intervals;
        counters.time_law_broken = self.time_law_broken;
        counters.energy_law_broken = self.energy_law_broken;
        counters.begun_unix_ns = self.begun_unix_ns;
        counters.end_ns = self.end_ns;
        counters.end_unix_ns = self.end_unix_ns;
    }
}

impl ZoneRecord {
    fn of(zone: &Zone) -> Self {
        Self {
            energy_uj: zone.energy_uj,
            counter_uj: zone.counter_uj,
            range_uj: zone.range_uj,
            source: zone.source,
            unknown_intervals: zone.unknown_intervals,
            is_unknown: zone.is_unknown,
        }
    }

    fn zone(self) -> Zone {
        Zone {
            energy_uj: self.energy_uj,
            counter_uj: self.counter_uj,
            range_uj: self.range_uj,
            source: self.source,
            unknown_intervals: self.unknown_intervals,
            is_unknown: self.is_unknown,
        }
    }
}

impl TenantRecord {
    fn of(tenant: &Tenant) -> Self {
        let labels = tenant.labels.iter();
        Self {
            node: tenant.node.clone(),
            inside: tenant.ancestors.clone(),
            labels: labels.map(|(label, value)| (*label, value.to_string())).collect(),
        }
    }

    fn tenant(self) -> Arc<Tenant> {
        let labels = self.labels.into_iter();
        Arc::new(Tenant {
            node: self.node,
            ancestors: self.inside,
            // What was once a label is one still.
            labels: labels
                .filter_map(|(key, value)| Some((key, label(&value)?.into())))
                .collect::<Labels>(),
        })
    }
}

impl AccountRecord {
    fn of(account: &Account) -> Self {
        let is_named = account.named != account.tenant;
        Self {
            tenant: TenantRecord::of(&account.tenant),
            named: is_named.then(|| TenantRecord::of(&account.named)),
            begun_unix_ns: account.begun_unix_ns,
            used: account.used.clone(),
            since_unix_ns: account.since_unix_ns,
            before: account.before.clone(),
            methods: account.methods.clone().into_iter().collect(),
            end: account.end.map(|end| (end.unix_ns, end.snapshot)),
        }
    }

    fn account(self) -> Account {
        let tenant = self.tenant.tenant();
        Account {
            named: self.named.map_or_else(|| tenant.clone(), TenantRecord::tenant),
            tenant,
            begun_unix_ns: self.begun_unix_ns,
            used: self.used,
            since_unix_ns: self.since_unix_ns,
            before: self.before,
            methods: self.methods.into_iter().collect(),
            end: self.end.map(|(unix_ns, snapshot)| End { unix_ns, snapshot }),
        }
    }
}

impl GroupRecord {
    fn of(group: &Group) -> Self {
        match group {
            Group::User(uid) => Self::User(*uid),
            Group::Account(name) => Self::Account(name.to_string()),
            Group::Namespace(name) => Self::Namespace(name.to_string()),
        }
    }

    fn group(self) -> Group {
        match self {
            Self::User(uid) => Group::User(uid),
            Self::Account(name) => Group::Account(name.into()),
            Self::Namespace(name) => Group::Namespace(name.into()),
        }
    }
}

impl FinishedRecord {
    fn of(finished: &Finished) -> Self {
        Self {
            number: finished.number,
            tenant: TenantRecord::of(&finished.tenant),
            begun_unix_ns: finished.begun_unix_ns,
            ended_unix_ns: finished.ended_unix_ns,
            used: finished.used.clone(),
            methods: finished.methods.clone().into_iter().collect(),
            idle_policy: finished.idle_policy,
        }
    }

    fn finished(self) -> Finished {
        Finished {
            number: self.number,
            tenant: self.tenant.tenant(),
            begun_unix_ns: self.begun_unix_ns,
            ended_unix_ns: self.ended_unix_ns,
            used: self.used,
            methods: self.methods.into_iter().collect(),
            idle_policy: self.idle_policy,
        }
    }
}
