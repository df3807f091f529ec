//! `metadata.json`: what was measured, where and how.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    attribution::ledger::{IdlePolicy, Ledger, Method},
    interval::Identity,
    log::{date::date, names::SCHEMA},
    sinks::measuring_cost::MeasuringCost,
};

/// The facts of a trace.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// The user's words; `None` keeps those of the trace that is continued.
    pub description: Option<String>,
    /// Wall clock at the start (nanoseconds since 1970).
    pub start_unix_ns: i64,
    /// Wall clock at the end; `None` while the trace runs.
    pub end_unix_ns: Option<i64>,
    /// Host name.
    pub node_id: String,
    /// dlpm's command line, without `dlpm` itself where that is how the user called it.
    pub command_line: Vec<String>,
    /// The traced command or the filters, in words; `None` where every process is listed.
    pub listed: Option<String>,
    /// Length of an interval.
    pub interval_ns: u64,
    /// CPU model, where the system says it.
    pub cpu_model: Option<String>,
    /// The GPUs that are measured, in words.
    pub gpus: Vec<String>,
    /// Release of the kernel.
    pub kernel: String,
    /// Random id of this boot; CLOCK_MONOTONIC times compare within one boot only.
    pub boot_id: Option<String>,
    /// The zones that were found.
    pub domains: Vec<Domain>,
    /// What tells processes apart.
    pub identity: Identity,
    /// Policy for idle energy.
    pub idle_policy: IdlePolicy,
    /// Who chose it: `user` or `auto`.
    pub idle_policy_by: &'static str,
    /// Weight of a nanosecond that the sibling shared, in thousandths.
    pub smt_weight_permille: u32,
    /// Power of the idle machine in mW by leaf, where the policy makes use of it.
    pub idle_floors_mw: BTreeMap<String, u64>,
    /// What a reader of the log has to know: estimates, missing sources.
    pub notes: Vec<String>,
    /// What the measuring cost; `None` while the trace runs.
    pub measuring_cost: Option<MeasuringCost>,
    /// Time zone of the dates.
    pub timezone: TimeZone,
}

/// A zone of energy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Domain {
    /// Its name.
    pub zone: String,
    /// Who reads it.
    pub source: &'static str,
    /// How its figures are made.
    pub method: &'static str,
}

impl Domain {
    /// The zones of a ledger, roots first.
    pub fn all_of(ledger: &Ledger) -> Vec<Self> {
        ledger
            .zones()
            .map(|zone| Self {
                zone: zone.zone.to_owned(),
                source: zone.source.as_str(),
                method: match zone.method {
                    // Which one, is in each line: it depends on who uses the GPU.
                    Method::Sm
                    | Method::EngineTime
                    | Method::SoleProcess
                    | Method::NoProcess
                    | Method::NotSplit
                    | Method::Mixed => "by_interval",
                    other => other.as_str(),
                },
            })
            .collect()
    }
}

impl Metadata {
    /// The file's contents. Of `existing`, what the file held before, everything stays that is not said anew;
    /// with `continued` also the dates of its start.
    pub fn to_json(&self, existing: Map<String, Value>, continued: bool) -> Vec<u8> {
        let mut json = existing;
        if !continued {
            json.remove("date");
            json.remove("start_date");
        }
        let start = date(self.start_unix_ns, &self.timezone);
        // AIPowerMeter's reader fails without a description.
        match &self.description {
            Some(description) => drop(json.insert("description".into(), description.as_str().into())),
            None => drop(json.entry("description").or_insert_with(|| "".into())),
        }
        json.entry("date").or_insert_with(|| start.clone().into());
        json.entry("start_date").or_insert_with(|| start.clone().into());
        match self.end_unix_ns {
            Some(end_unix_ns) => drop(json.insert("end_date".into(), date(end_unix_ns, &self.timezone).into())),
            None => drop(json.remove("end_date")),
        }
        json.insert("node_id".into(), self.node_id.as_str().into());
        json.insert("dlpm".into(), self.facts(&start));
        let mut text = Value::Object(json).to_string().into_bytes();
        text.push(b'\n');
        text
    }

    fn facts(&self, start: &str) -> Value {
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "schema": SCHEMA,
            "start_date": start,
            "command_line": self.command_line,
            "listed": self.listed,
            "interval_ns": self.interval_ns,
            "cpu_model": self.cpu_model,
            "gpus": self.gpus,
            "kernel": self.kernel,
            "boot_id": self.boot_id,
            "domains": self.domains,
            "identity": self.identity,
            "idle_policy": self.idle_policy.as_str(),
            "idle_policy_by": self.idle_policy_by,
            "smt_weight_permille": self.smt_weight_permille,
            "idle_floors_mw": self.idle_floors_mw,
            "notes": self.notes,
            "measuring_cost": self.measuring_cost.as_ref().map(MeasuringCost::to_json),
        })
    }
}
