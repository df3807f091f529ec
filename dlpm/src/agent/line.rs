//! A line of `finished.jsonl`: what one tenant used from its beginning to its end. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counters::Finished;
use crate::{
    attribution::ledger::{IdlePolicy, Method},
    tenants::{Label, Node},
};

/// Which machine, and which of its starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Name of the node.
    pub node_id: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

/// One tenant that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counts the lines of one start of the machine, from 1.
    pub number: u64,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// Kind and id.
    pub tenant: Node,
    /// What it was inside of, the highest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inside: Vec<Node>,
    /// What else is known of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Label, String>,
    /// ns since 1970.
    pub begin_unix_ns: i64,
    /// ns since 1970; when it was found to be gone.
    pub end_unix_ns: i64,
    /// CPU time.
    pub cpu_ns: u64,
    /// µJ by device.
    pub energy_uj: BTreeMap<String, u64>,
    /// How they were split.
    pub methods: BTreeMap<String, Vec<Method>>,
    /// What became of idle energy.
    pub idle_policy: IdlePolicy,
}

impl Line {
    /// Of a tenant, with the names of devices.
    pub fn of(finished: &Finished, devices: &[String], place: &Place) -> Self {
        let labels = finished.tenant.labels.iter();
        let energy_uj = devices.iter().enumerate();
        let methods = finished.methods.iter();
        Self {
            number: finished.number,
            place: place.clone(),
            tenant: finished.tenant.node.clone(),
            inside: finished.tenant.ancestors.clone(),
            labels: labels.map(|(label, value)| (*label, value.to_string())).collect(),
            begin_unix_ns: finished.begun_unix_ns,
            end_unix_ns: finished.ended_unix_ns,
            cpu_ns: finished.used.cpu_ns,
            energy_uj: energy_uj
                .map(|(device, name)| (name.clone(), finished.used.of_device(device)))
                .collect(),
            methods: methods
                .filter_map(|(device, methods)| Some((devices.get(*device)?.clone(), methods.clone())))
                .collect(),
            idle_policy: finished.idle_policy,
        }
    }
}
