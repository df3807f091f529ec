//! What the agent has counted since the machine started: CPU time and joules by tenant and device, and what is
//! nobody's. Pure: ledgers go in, integers add up, and nothing is dropped.
//!
//! A counter never falls. Over all tenants and all [`Remainder`]s, each device adds up to what its meter counted
//! ([`Counters::difference_uj`]).

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{admission::Admission, amounts::Amounts, unobserved::Unobserved};
use crate::{
    attribution::ledger::{IdlePolicy, LeafZone, Ledger, Method, RowKey, ZoneView},
    interval::MeterSource,
    tenants::{Kind, Label, Node, Tenant},
    totals::owners::{Owner, by_owner},
    words::words,
};

/// Users, accounts and namespaces that are told apart at most: names of accounts come from users.
const MOST_GROUPS: usize = 10_000;

words! {
    /// Energy and CPU time that no living or recently ended tenant has.
    #[derive(PartialOrd, Ord, Hash)]
    pub enum Remainder {
        /// Tenants that ended and are no longer shown.
        Retired = "retired",
        /// Kernel threads.
        Kernel = "kernel",
        /// dlpm.
        SelfDlpm = "self",
        /// Idle tasks, and the power of the idle machine.
        Idle = "idle",
        /// Nobody can be shown to have used it.
        Unattributed = "unattributed",
        /// Tenants beyond the cap, and processes of which it is not known whose they are.
        Others = "others",
        /// Counted by the meters while no agent was running.
        Unobserved = "unobserved",
    }
}

/// Whose sums never end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// A user, by the real user id of the processes.
    User(u32),
    /// An account of Slurm.
    Account(Arc<str>),
    /// A namespace of Kubernetes.
    Namespace(Arc<str>),
}

/// When a tenant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Wall clock, ns since 1970.
    pub unix_ns: i64,
    /// The first snapshot that has its final value, by [`Counters::intervals`].
    pub snapshot: u64,
}

/// What one tenant has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The tenant with the labels that its series have. They may grow as long as nothing was used.
    pub tenant: Arc<Tenant>,
    /// The same with every name that is known by now.
    pub named: Arc<Tenant>,
    /// When this life of it began: wall clock, ns since 1970.
    pub begun_unix_ns: i64,
    /// All that it has used.
    pub used: Amounts,
    /// When that was 0: wall clock, ns since 1970; 0 for the beginning of all counters.
    pub since_unix_ns: i64,
    /// The part of it that its earlier lives used (a unit that is started again).
    pub before: Amounts,
    /// How its energy was split, by device.
    pub methods: BTreeMap<usize, Vec<Method>>,
    /// That it has ended.
    pub end: Option<End>,
}

/// One life of a tenant that has ended: a line of `finished.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Counts the lines of one start of the machine, from 1.
    pub number: u64,
    /// Who, with every name.
    pub tenant: Arc<Tenant>,
    /// Wall clock, ns since 1970.
    pub begun_unix_ns: i64,
    /// Wall clock, ns since 1970.
    pub ended_unix_ns: i64,
    /// What it used in this life.
    pub used: Amounts,
    /// How its energy was split, by device.
    pub methods: BTreeMap<usize, Vec<Method>>,
    /// What became of idle energy.
    pub idle_policy: IdlePolicy,
}

impl Account {
    /// What it used in its newest life, up to that moment; the life has no number.
    pub fn life(&self, idle_policy: IdlePolicy, until_unix_ns: i64) -> Finished {
        Finished {
            number: 0,
            tenant: self.named.clone(),
            begun_unix_ns: self.begun_unix_ns,
            ended_unix_ns: until_unix_ns,
            used: self.used.without(&self.before),
            methods: self.methods.clone(),
            idle_policy,
        }
    }
}

/// What one energy zone counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Energy in µJ, with what it counted while no agent was running.
    pub energy_uj: u64,
    /// Its counter when it was read last, if it has one.
    pub counter_uj: Option<u64>,
    /// Largest value of the counter.
    pub range_uj: Option<u64>,
    /// Who reads it.
    pub source: MeterSource,
    /// Intervals of which its energy is not known.
    pub unknown_intervals: u64,
    /// Whether the last one was such an interval.
    pub is_unknown: bool,
}

/// The sums. A clone is cheap, since tenants are shared with it until they use something: it is the snapshot that is
/// served and kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// What is split: leaves of all ledgers, in the order of their first appearance.
    pub devices: Vec<String>,
    /// What devices counted, by how it was split; `None`: while no agent was running.
    pub counted_uj: BTreeMap<(usize, Option<Method>), u64>,
    /// CPU time of all CPUs: busy, idle and lost.
    pub counted_ns: u64,
    /// By name, whatever is a meter.
    pub zones: BTreeMap<String, Zone>,
    /// What root zones owe their parts, as the last ledger said: µJ, below 0.
    pub carries_uj: BTreeMap<String, i64>,
    /// Tenants that have a series.
    pub accounts: BTreeMap<Node, Arc<Account>>,
    /// What is nobody's.
    pub remainders: BTreeMap<Remainder, Amounts>,
    /// Sums that never end. They overlap with the tenants.
    pub groups: BTreeMap<Group, Amounts>,
    /// Lines for `finished.jsonl` that are not known to be written, in the order of their numbers.
    pub finished: VecDeque<Arc<Finished>>,
    /// Number of the newest of all such lines.
    pub finished_count: u64,
    /// Tenants that had no series, since the cap was reached.
    pub refused_count: u64,
    /// Intervals in which a group was not told apart, since there were too many.
    pub groups_left_out: u64,
    /// What became of idle energy in the newest interval.
    pub idle_policy: IdlePolicy,
    /// Intervals that were added: the number of the newest snapshot.
    pub intervals: u64,
    /// Intervals in which the time of a CPU did not add up.
    pub time_law_broken: u64,
    /// Intervals in which it did not add up to the meter.
    pub energy_law_broken: u64,
    /// Beginning of the first interval, when everything was 0: wall clock, ns since 1970.
    pub begun_unix_ns: i64,
    /// End of the newest interval: CLOCK_MONOTONIC.
    pub end_ns: u64,
    /// The same by the wall clock, ns since 1970.
    pub end_unix_ns: i64,
}

impl Counters {
    /// Adds one interval.
    pub fn add(&mut self, ledger: &Ledger, admission: &mut Admission) {
        self.idle_policy = ledger.idle_policy;
        if self.intervals == 0 {
            let length_ns = i64::try_from(ledger.length_ns()).unwrap_or(i64::MAX);
            self.begun_unix_ns = ledger.end_unix_ns.saturating_sub(length_ns);
        }
        self.end_ns = ledger.end_ns;
        self.intervals += 1;
        self.time_law_broken += u64::from(!ledger.cpus.iter().all(|cpu| cpu.time_law_holds()));
        for cpu in &ledger.cpus {
            let time_ns = cpu.busy_ns.saturating_add(cpu.idle_ns).saturating_add(cpu.lost_ns);
            self.counted_ns = self.counted_ns.saturating_add(time_ns);
        }
        self.read_zones(ledger);
        let leaves: Vec<(usize, Method)> = ledger
            .leaves
            .iter()
            .map(|leaf| (self.device(&device_name(leaf)), leaf.method))
            .collect();
        for ((device, method), leaf) in leaves.iter().zip(&ledger.leaves) {
            let sum = self.counted_uj.entry((*device, Some(*method))).or_default();
            *sum = sum.saturating_add(leaf.energy_uj.as_ref().copied().unwrap_or(0));
        }
        for (owner, used) in by_owner(ledger) {
            let mut amounts = Amounts {
                cpu_ns: used.cpu_ns,
                energy_uj: Vec::new(),
            };
            for ((device, _), energy_uj) in leaves.iter().zip(&used.energy_uj) {
                amounts.add_to_device(*device, *energy_uj);
            }
            match (&owner, &used.tenant) {
                (Owner::Tenant(node), Some(tenant)) if self.admit(tenant, admission) => {
                    self.charge(node, tenant, &amounts, &leaves, ledger.end_unix_ns);
                }
                _ => self.remainders.entry(Remainder::of(&owner)).or_default().add(&amounts),
            }
        }
        // Until here it is the beginning of this interval, since when new tenants count.
        self.end_unix_ns = ledger.end_unix_ns;
        self.add_groups(ledger, &leaves);
        if (0..self.devices.len()).any(|device| self.difference_uj(device) != 0) {
            self.energy_law_broken += 1;
        }
    }

    /// Adds what the meters counted while no agent was running.
    pub fn add_unobserved(&mut self, unobserved: &Unobserved) {
        for (device, energy_uj) in &unobserved.devices_uj {
            let device = self.device(device);
            let sum = self.counted_uj.entry((device, None)).or_default();
            *sum = sum.saturating_add(*energy_uj);
            let row = self.remainders.entry(Remainder::Unobserved).or_default();
            row.add_to_device(device, *energy_uj);
        }
        for (zone, energy_uj) in &unobserved.zones_uj {
            if let Some(zone) = self.zones.get_mut(zone) {
                zone.energy_uj = zone.energy_uj.saturating_add(*energy_uj);
            }
        }
    }

    /// Gives a tenant its series before it has used anything, or looks at the names that are known by now.
    pub fn open(&mut self, tenant: &Arc<Tenant>, unix_ns: i64, admission: &mut Admission) {
        if is_told(tenant) && self.admit(tenant, admission) {
            self.charge(&tenant.node, tenant, &Amounts::default(), &[], unix_ns);
        }
    }

    /// A tenant has ended: its counter has its final value, and its line is due.
    pub fn end(&mut self, node: &Node, unix_ns: i64) {
        let Some(account) = self.accounts.get_mut(node).filter(|account| account.end.is_none()) else {
            return;
        };
        let account = Arc::make_mut(account);
        account.end = Some(End {
            unix_ns,
            snapshot: self.intervals,
        });
        self.finished_count += 1;
        self.finished.push_back(Arc::new(Finished {
            number: self.finished_count,
            ..account.life(self.idle_policy, unix_ns)
        }));
        account.before = account.used.clone();
    }

    /// Everything ends with the newest interval, since the machine did. How many tenants that were.
    pub fn end_all(&mut self) -> usize {
        let living = self.accounts.iter().filter(|(_, account)| account.end.is_none());
        let living: Vec<Node> = living.map(|(node, _)| node.clone()).collect();
        for node in &living {
            self.end(node, self.end_unix_ns);
        }
        living.len()
    }

    /// Forgets lines that are written, up to this number.
    pub fn written(&mut self, number: u64) {
        while self.finished.front().is_some_and(|finished| finished.number <= number) {
            self.finished.pop_front();
        }
    }

    /// Shows an ended tenant no longer; what it used stays, as [`Remainder::Retired`].
    pub fn retire(&mut self, node: &Node) {
        if self.accounts.get(node).is_some_and(|account| account.end.is_some())
            && let Some(account) = self.accounts.remove(node)
        {
            self.remainders
                .entry(Remainder::Retired)
                .or_default()
                .add(&account.used);
        }
    }

    /// What a device's meter counted less what everyone has of it: 0, or the agent is wrong.
    pub fn difference_uj(&self, device: usize) -> i128 {
        let counted: i128 = self
            .counted_uj
            .iter()
            .filter(|((of, _), _)| *of == device)
            .map(|(_, energy_uj)| i128::from(*energy_uj))
            .sum();
        self.everyone()
            .fold(counted, |left, used| left - i128::from(used.of_device(device)))
    }

    /// The same of CPU time in ns.
    pub fn difference_ns(&self) -> i128 {
        self.everyone()
            .fold(i128::from(self.counted_ns), |left, used| left - i128::from(used.cpu_ns))
    }

    fn everyone(&self) -> impl Iterator<Item = &Amounts> {
        let tenants = self.accounts.values().map(|account| &account.used);
        tenants.chain(self.remainders.values())
    }

    /// The position of a device, which is made known by this.
    pub fn device(&mut self, name: &str) -> usize {
        match self.devices.iter().position(|device| device == name) {
            Some(device) => device,
            None => {
                self.devices.push(name.to_owned());
                self.devices.len() - 1
            }
        }
    }

    /// Whether a tenant has a series, or may have one.
    fn admit(&mut self, tenant: &Tenant, admission: &mut Admission) -> bool {
        if self.accounts.contains_key(&tenant.node) {
            return true;
        }
        let admitted = admission.admits(&tenant.node, self.accounts.len());
        if admitted == Err(true) {
            self.refused_count += 1;
        }
        admitted.is_ok()
    }

    fn charge(&mut self, node: &Node, tenant: &Arc<Tenant>, used: &Amounts, leaves: &[(usize, Method)], unix_ns: i64) {
        let since_unix_ns = self.end_unix_ns;
        let account = self.accounts.entry(node.clone()).or_insert_with(|| {
            Arc::new(Account {
                tenant: tenant.clone(),
                named: tenant.clone(),
                begun_unix_ns: unix_ns,
                used: Amounts::default(),
                since_unix_ns,
                before: Amounts::default(),
                methods: BTreeMap::new(),
                end: None,
            })
        });
        let is_named = tenant.labels.len() <= account.named.labels.len();
        // Nothing has changed, so the snapshots go on sharing it.
        if used.is_nothing() && is_named && account.end.is_none() {
            return;
        }
        let account = Arc::make_mut(account);
        if !is_named {
            account.named = tenant.clone();
            if account.used.is_nothing() {
                account.tenant = tenant.clone();
            }
        }
        if account.end.take().is_some() {
            account.begun_unix_ns = unix_ns;
        }
        account.used.add(used);
        for &(device, method) in leaves {
            if used.of_device(device) > 0 {
                let methods = account.methods.entry(device).or_default();
                if !methods.contains(&method) {
                    methods.push(method);
                }
            }
        }
    }

    fn add_groups(&mut self, ledger: &Ledger, leaves: &[(usize, Method)]) {
        for row in &ledger.rows {
            if row.key.cgroup().is_none() {
                continue;
            }
            let user = row.shown.as_ref().and_then(|shown| shown.uid).map(Group::User);
            let tenant = row.tenant.as_ref();
            let named = |label, group: fn(Arc<str>) -> Group| {
                let name = tenant.and_then(|tenant| tenant.labels.get(&label));
                name.cloned().map(group)
            };
            let groups = [
                user,
                named(Label::Account, Group::Account),
                named(Label::PodNamespace, Group::Namespace),
            ];
            for group in groups.into_iter().flatten() {
                if self.groups.len() >= MOST_GROUPS && !self.groups.contains_key(&group) {
                    self.groups_left_out += 1;
                    continue;
                }
                let sum = self.groups.entry(group).or_default();
                sum.cpu_ns = sum.cpu_ns.saturating_add(row.cpu_ns());
                for ((device, _), energy_uj) in leaves.iter().zip(&row.energy_uj) {
                    sum.add_to_device(*device, *energy_uj);
                }
            }
        }
    }

    fn read_zones(&mut self, ledger: &Ledger) {
        for zone in ledger.zones().filter(is_meter) {
            let known = self.zones.entry(zone.zone.to_owned()).or_insert_with(|| Zone {
                energy_uj: 0,
                counter_uj: None,
                range_uj: None,
                source: zone.source,
                unknown_intervals: 0,
                is_unknown: false,
            });
            known.source = zone.source;
            known.counter_uj = zone.counter_uj;
            known.range_uj = zone.range_uj;
            known.is_unknown = zone.energy_uj.is_err();
            match zone.energy_uj {
                Ok(energy_uj) => known.energy_uj = known.energy_uj.saturating_add(*energy_uj),
                Err(_) => known.unknown_intervals += 1,
            }
        }
        let owed = ledger.roots.iter().filter(|root| root.carry_uj != 0);
        self.carries_uj = owed.map(|root| (root.zone.clone(), root.carry_uj)).collect();
    }
}

impl Remainder {
    fn of(owner: &Owner) -> Self {
        match owner {
            Owner::Tenant(_) | Owner::Untold | Owner::Row(RowKey::Others) => Self::Others,
            Owner::Row(RowKey::Kernel) => Self::Kernel,
            Owner::Row(RowKey::SelfDlpm) => Self::SelfDlpm,
            Owner::Row(RowKey::Idle) => Self::Idle,
            // A process row has an owner of another kind.
            Owner::Row(
                RowKey::Unattributed | RowKey::Process(..) | RowKey::Merged(_) | RowKey::Memory(_) | RowKey::Tenant(_),
            ) => Self::Unattributed,
        }
    }
}

/// Of a leaf: the cores of a package are one device, as there can be hundreds of them for each tenant.
fn device_name(leaf: &LeafZone) -> Cow<'_, str> {
    match leaf.core() {
        Some((package, _)) => format!("package-{package}/core").into(),
        None => leaf.zone.as_str().into(),
    }
}

/// Whether it is known whose the processes are.
fn is_told(tenant: &Tenant) -> bool {
    tenant.node.kind != Kind::Unknown
}

/// What remains of a root after its parts was not read.
fn is_meter(zone: &ZoneView<'_>) -> bool {
    !zone.zone.ends_with("/rest") && !zone.zone.ends_with("/whole")
}
