//! What the measuring thread and those who serve its snapshots tell each other.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    agent::{
        counters::Account,
        exposition::{self, Format},
        line::{Line, Place},
    },
    sinks::agent::keeper::Slot,
    socket::{Tenants, wire::JobAnswer},
    sources::clock::monotonic_ns,
    tenants::{Node, Wanted},
    web::{Answers, Status},
};

/// Fetches that are kept for the measuring thread, which takes them once in an interval.
const MOST_FETCHES: usize = 1000;

/// Tenants that are looked at out of turn in an interval.
const MOST_LOOKS: usize = 1000;

/// Snapshots on their way out, and who has got them.
pub struct Served {
    slot: Arc<Slot>,
    interval: Duration,
    fetched: Mutex<Vec<(u64, u64)>>,
    looks: Mutex<Vec<Node>>,
}

impl Served {
    /// Of an agent with such intervals.
    pub fn new(slot: Arc<Slot>, interval: Duration) -> Self {
        Self {
            slot,
            interval,
            fetched: Mutex::default(),
            looks: Mutex::default(),
        }
    }

    /// Who got what since the last call.
    pub fn take_fetched(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.fetched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which tenants somebody waits for the end of, since the last call.
    pub fn take_looks(&self) -> Vec<Node> {
        std::mem::take(&mut *self.looks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why not everything is as it should be, if it is not.
    fn trouble(&self) -> Option<String> {
        let Some(snapshot) = self.slot.newest() else {
            return Some("no interval is complete yet".to_owned());
        };
        let age_ns = monotonic_ns().saturating_sub(snapshot.counters.end_ns);
        if u128::from(age_ns) > 3 * self.interval.as_nanos() + Duration::from_secs(1).as_nanos() {
            return Some(format!(
                "the newest interval ended {:.1} s ago, and they are to last {:.1} s",
                Duration::from_nanos(age_ns).as_secs_f64(),
                self.interval.as_secs_f64()
            ));
        }
        if let Some((zone, _)) = snapshot.counters.zones.iter().find(|(_, zone)| zone.is_unknown) {
            return Some(format!("the meter of {zone} does not answer"));
        }
        snapshot.disk.trouble.clone()
    }
}

impl Tenants for Served {
    fn tenants(&self) -> Vec<Value> {
        let snapshot = self.slot.newest().unwrap_or_default();
        let devices = &snapshot.counters.devices;
        let accounts = snapshot.counters.accounts.values();
        let entry = |account: &Arc<Account>| {
            let tenant = &account.named;
            let energy_uj = devices.iter().enumerate();
            let energy_uj: BTreeMap<&str, u64> = energy_uj
                .map(|(device, name)| (name.as_str(), account.used.of_device(device)))
                .collect();
            json!({
                "tenant": tenant.node,
                "inside": tenant.ancestors,
                "labels": tenant.labels.iter().map(|(label, value)| (label.as_str(), &**value)).collect::<BTreeMap<_, _>>(),
                "begin_unix_ns": account.begun_unix_ns,
                "ended": account.end.is_some(),
                "cpu_ns": account.used.cpu_ns,
                "energy_uj": energy_uj,
            })
        };
        accounts.map(entry).collect()
    }

    fn job(&self, job: &Wanted) -> JobAnswer {
        let snapshot = self.slot.newest().unwrap_or_default();
        let counters = &snapshot.counters;
        let accounts = counters.accounts.values().filter(|account| job.matches(&account.named));
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let tenants = accounts.map(|account| {
            if account.end.is_none() && looks.len() < MOST_LOOKS {
                looks.push(account.tenant.node.clone());
            }
            let life = account.life(
                counters.idle_policy,
                account.end.map_or(counters.end_unix_ns, |end| end.unix_ns),
            );
            let line = Line::of(&life, &counters.devices, &Place::default());
            let mut entry = serde_json::to_value(line).unwrap_or_default();
            if let Some(entry) = entry.as_object_mut() {
                entry.retain(|key, _| !matches!(key.as_str(), "number" | "node_id" | "boot_id"));
                entry.insert("ended".to_owned(), account.end.is_some().into());
            }
            entry
        });
        JobAnswer {
            node_id: snapshot.facts.host_name.to_string(),
            end_ns: counters.end_ns,
            end_unix_ns: counters.end_unix_ns,
            tenants: tenants.collect(),
        }
    }
}

impl Answers for Served {
    fn seq(&self) -> u64 {
        self.slot.newest_number()
    }

    fn metrics(&self, format: Format) -> (u64, Vec<u8>) {
        let snapshot = self.slot.newest().unwrap_or_default();
        (
            snapshot.counters.intervals,
            exposition::render(&snapshot, format, env!("CARGO_PKG_VERSION")),
        )
    }

    fn status(&self) -> Status {
        let is_late = self.slot.newest().is_some_and(|snapshot| {
            let age_ns = monotonic_ns().saturating_sub(snapshot.counters.end_ns);
            u128::from(age_ns) > 10 * self.interval.as_nanos() + Duration::from_secs(30).as_nanos()
        });
        Status {
            alive: match is_late {
                true => Err("no interval has ended for long".to_owned()),
                false => Ok(()),
            },
            ready: self.trouble().map_or(Ok(()), Err),
        }
    }

    fn fetched(&self, scraper: u64, seq: u64) {
        let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if fetched.len() < MOST_FETCHES {
            fetched.push((scraper, seq));
        }
    }
}
