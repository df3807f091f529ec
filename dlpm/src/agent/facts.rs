//! What is served beside the counters: the state of the agent itself. Plain values.

use std::{collections::BTreeMap, sync::Arc};

use super::counters::Counters;
use crate::attribution::ledger::IdlePolicy;

/// Pushes to a collector since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushes {
    /// Those that it took.
    pub taken: u64,
    /// Those that did not reach it, or that it did not take whole.
    pub failed: u64,
}

/// The state of the agent when a snapshot was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Wall clock at its start, ns since 1970.
    pub started_unix_ns: i64,
    /// How long an interval is to be, in ns.
    pub interval_ns: u64,
    /// How long the newest one was, in ns.
    pub length_ns: u64,
    /// How long sealing the CPUs took in the newest one, in ns.
    pub seal_ns: u64,
    /// Intervals that were more than half longer than they were to be.
    pub late_intervals: u64,
    /// Tenants that have a series at most.
    pub cap: usize,
    /// Who fetched the counters in the last hour.
    pub scrapers: usize,
    /// What becomes of idle energy.
    pub idle_policy: IdlePolicy,
    /// What was dropped since the start, by what it is.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Zones of which it is not known, or not for sure, what they counted while no agent was running.
    pub unobserved_unknown: u64,
    /// Times that a process for the network was started again.
    pub web_restarts: u64,
    /// What became of pushes, if there are any to be.
    pub pushes: Option<Pushes>,
    /// Name of the machine.
    pub host_name: Arc<str>,
    /// Names of users by number.
    pub users: Arc<BTreeMap<u32, String>>,
}

/// What is known of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Writes of the state that failed.
    pub state_errors: u64,
    /// Writes of finished tenants that failed.
    pub finished_errors: u64,
    /// Lines of finished tenants that wait for room.
    pub waiting_lines: u64,
    /// Why the newest snapshot is not in the state.
    pub trouble: Option<String>,
}

/// What is served: everything up to the end of one interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The sums.
    pub counters: Counters,
    /// The agent.
    pub facts: Facts,
    /// Its files.
    pub disk: Disk,
}
