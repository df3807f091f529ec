//! What `/metrics` says: a snapshot as series. Pure.
//!
//! Leaves do not overlap, so a sum over `device` is valid: that of the tenants and of the rows is what the meters
//! counted. Every series of an energy begins at 0 and never falls.

mod otlp;
mod own;
mod page;
pub mod proto;
mod text;

use std::collections::BTreeMap;

use self::page::{Family, Labels, Page, Series, Type, Value};
use super::{
    amounts::Amounts,
    counters::{Account, Counters, Group, Remainder},
    facts::Snapshot,
};
use crate::{
    attribution::ledger::Method,
    tenants::{Label, Node},
};

/// How an exposition is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4 of Prometheus.
    Text,
    /// A request of OTLP, as Protobuf: [`proto::Request`].
    Otlp,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::OpenMetrics, Self::Text, Self::Otlp];

    /// Those of `/metrics`.
    pub const TEXTS: [Self; 2] = [Self::OpenMetrics, Self::Text];
}

/// Labels that every series of a tenant has, where they are known: those that sites join on. All the others are in
/// `dlpm_tenant_info`.
const JOINED: [Label; 6] = [
    Label::SlurmJobId,
    Label::PodName,
    Label::PodNamespace,
    Label::ContainerName,
    Label::User,
    Label::Unit,
];

/// Bytes of one series, about.
const SERIES_BYTES: usize = 160;

/// What method a device has whose energy was not split, as no agent was running.
const UNOBSERVED: &str = "unobserved";

/// Writes a snapshot. `version` is the one of dlpm.
pub fn render(snapshot: &Snapshot, format: Format, version: &str) -> Vec<u8> {
    let counters = &snapshot.counters;
    let series = (counters.accounts.len() + counters.groups.len() + 32) * (counters.devices.len() + 2);
    let mut page = Page::new(format, snapshot, version, series * SERIES_BYTES);
    let devices = devices(&page, counters);
    node(&mut page, counters);
    tenants(&mut page, counters, &devices);
    rows(&mut page, counters, &devices);
    groups(&mut page, snapshot, &devices);
    own::agent(&mut page, snapshot, version);
    page.finish()
}

fn joules(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        unit: Some("joules"),
        kind: Type::Counter,
        help,
    }
}

fn seconds(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        unit: Some("seconds"),
        kind: Type::Counter,
        help,
    }
}

/// The label of each device, and with it, where its energy is an estimate, that it is.
fn devices(page: &Page, counters: &Counters) -> Vec<Labels> {
    let is_estimate = |device| counters.counted_uj.contains_key(&(device, Some(Method::Estimate)));
    let device = |(index, name): (usize, &String)| {
        let estimate = is_estimate(index).then_some(("method", Method::Estimate.as_str()));
        page.labels([("device", name.as_str())].into_iter().chain(estimate))
    };
    counters.devices.iter().enumerate().map(device).collect()
}

/// Energy of one account: a series for each device, also where that is 0.
fn put_energy(series: &mut Series<'_>, devices: &[Labels], whose: &Labels, used: &Amounts) {
    for (index, device) in devices.iter().enumerate() {
        series.put(&[device, whose], Value::micro(used.of_device(index)));
    }
}

fn node(page: &mut Page, counters: &Counters) {
    let mut series = page.family(joules(
        "dlpm_node_energy_joules",
        "Energy that the machine's devices used, by how it was split among tenants and rows. Devices do not overlap.",
    ));
    for ((device, method), energy_uj) in &counters.counted_uj {
        let Some(device) = counters.devices.get(*device) else {
            continue;
        };
        let method = method.map_or(UNOBSERVED, Method::as_str);
        series.put_with(
            [("device", device.as_str()), ("method", method)],
            Value::micro(*energy_uj),
        );
    }
    let mut series = page.family(joules(
        "dlpm_zone_energy_joules",
        "Energy that each meter counted, by who reads it. Zones overlap: psys contains packages, packages contain cores.",
    ));
    for (name, zone) in &counters.zones {
        let labels = [("zone", name.as_str()), ("source", zone.source.as_str())];
        series.put_with(labels, Value::micro(zone.energy_uj));
    }
    let mut series = page.family(Family {
        name: "dlpm_zone_up",
        unit: None,
        kind: Type::Gauge,
        help: "1 if the meter answered in the newest interval, else 0.",
    });
    for (name, zone) in &counters.zones {
        series.put_with([("zone", name.as_str())], Value::Count(u64::from(!zone.is_unknown)));
    }
    let mut series = page.family(Family {
        name: "dlpm_zone_unknown_intervals",
        unit: None,
        kind: Type::Counter,
        help: "Intervals in which the meter did not tell its energy.",
    });
    for (name, zone) in &counters.zones {
        series.put_with([("zone", name.as_str())], Value::Count(zone.unknown_intervals));
    }
    page.family(seconds("dlpm_node_cpu_seconds", "Time of all CPUs, busy and idle."))
        .put(&[], Value::nano(counters.counted_ns));
}

/// Kind and id: what identifies a tenant.
fn identity(node: &Node) -> [(&'static str, &str); 2] {
    [("kind", node.kind.as_str()), ("tenant", &node.id)]
}

fn tenants(page: &mut Page, counters: &Counters, devices: &[Labels]) {
    // The labels of a series stay as they are for its life, so the names that came late are in the info alone.
    let of_series = |account: &Account| {
        let tenant = &account.tenant;
        let joined = JOINED
            .iter()
            .filter_map(|label| Some((label.as_str(), tenant.label(*label)?)));
        page.labels(identity(&tenant.node).into_iter().chain(joined))
    };
    let accounts: Vec<(&Account, Labels)> = counters
        .accounts
        .values()
        .map(|account| (account.as_ref(), of_series(account)))
        .collect();
    let mut series = page.family(joules(
        "dlpm_tenant_energy_joules",
        "Energy of each tenant (a job, a container, a unit, a session), by device.",
    ));
    for (account, whose) in &accounts {
        series.since(account.since_unix_ns);
        put_energy(&mut series, devices, whose, &account.used);
    }
    let mut series = page.family(seconds("dlpm_tenant_cpu_seconds", "CPU time of each tenant."));
    for (account, whose) in &accounts {
        series.since(account.since_unix_ns);
        series.put(&[whose], Value::nano(account.used.cpu_ns));
    }
    let mut series = page.family(Family {
        name: "dlpm_tenant",
        unit: None,
        kind: Type::Info,
        help: "Everything that is known of each tenant by now. `inside` is the tenant around it.",
    });
    for account in counters.accounts.values() {
        let tenant = &account.named;
        let inside = tenant.ancestors.last().map(Node::to_string);
        let inside = inside.as_deref().map(|inside| ("inside", inside));
        let known = tenant
            .labels
            .iter()
            .map(|(label, value)| (label.as_str(), value.as_ref()));
        series.put_with(
            identity(&tenant.node).into_iter().chain(inside).chain(known),
            Value::Count(1),
        );
    }
}

fn rows(page: &mut Page, counters: &Counters, devices: &[Labels]) {
    let nothing = Amounts::default();
    let rows = Remainder::ALL.map(|row| {
        let used = counters.remainders.get(&row).unwrap_or(&nothing);
        (page.labels([("row", row.as_str())]), used)
    });
    let mut series = page.family(joules(
        "dlpm_row_energy_joules",
        "Energy that no tenant shown here has: kernel, dlpm itself, idle, unattributed, and sums of tenants that are gone.",
    ));
    for (row, used) in &rows {
        put_energy(&mut series, devices, row, used);
    }
    let mut series = page.family(seconds(
        "dlpm_row_cpu_seconds",
        "CPU time that no tenant shown here has.",
    ));
    for (row, used) in &rows {
        series.put(&[row], Value::nano(used.cpu_ns));
    }
}

/// The two families of one kind of group.
type GroupFamilies = [Family; 2];

fn groups(page: &mut Page, snapshot: &Snapshot, devices: &[Labels]) {
    let (mut users, mut accounts, mut namespaces) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (group, used) in &snapshot.counters.groups {
        match group {
            Group::User(uid) => {
                let number = uid.to_string();
                let name = snapshot.facts.users.get(uid).map_or(number.as_str(), String::as_str);
                users.insert(page.labels([("user", name), ("uid", &number)]), used);
            }
            Group::Account(name) => drop(accounts.insert(page.labels([("account", name.as_ref())]), used)),
            Group::Namespace(name) => drop(namespaces.insert(page.labels([("pod_namespace", name.as_ref())]), used)),
        }
    }
    let families: [(GroupFamilies, _); 3] = [
        (
            [
                joules(
                    "dlpm_user_energy_joules",
                    "Energy of the processes of each user. It is in the tenants, too.",
                ),
                seconds(
                    "dlpm_user_cpu_seconds",
                    "CPU time of the processes of each user. It is in the tenants, too.",
                ),
            ],
            users,
        ),
        (
            [
                joules(
                    "dlpm_account_energy_joules",
                    "Energy of each account of Slurm. It is in the tenants, too.",
                ),
                seconds(
                    "dlpm_account_cpu_seconds",
                    "CPU time of each account of Slurm. It is in the tenants, too.",
                ),
            ],
            accounts,
        ),
        (
            [
                joules(
                    "dlpm_namespace_energy_joules",
                    "Energy of each namespace of Kubernetes. It is in the tenants, too.",
                ),
                seconds(
                    "dlpm_namespace_cpu_seconds",
                    "CPU time of each namespace of Kubernetes. It is in the tenants, too.",
                ),
            ],
            namespaces,
        ),
    ];
    for ([energy, time], groups) in families {
        let mut series = page.family(energy);
        for (whose, used) in &groups {
            put_energy(&mut series, devices, whose, used);
        }
        let mut series = page.family(time);
        for (whose, used) in &groups {
            series.put(&[whose], Value::nano(used.cpu_ns));
        }
    }
}

#[cfg(test)]
mod tests;
