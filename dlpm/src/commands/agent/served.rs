//! What the measuring thread and those who serve its snapshots tell each other.
#![expect(dead_code, reason = "the network's side is being built")]

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{agent::facts::Snapshot, sinks::agent::keeper::Published, sources::clock::monotonic_ns};

/// Fetches that are kept for the measuring thread, which takes them once in an interval.
const MOST_FETCHES: usize = 1000;

/// Snapshots on their way out, and who has got them.
pub struct Served {
    published: Arc<Published>,
    interval: Duration,
    fetched: Mutex<Vec<(u64, u64)>>,
}

impl Served {
    /// Of an agent with such intervals.
    pub fn new(published: Arc<Published>, interval: Duration) -> Self {
        Self {
            published,
            interval,
            fetched: Mutex::default(),
        }
    }

    /// The newest snapshot.
    pub fn newest(&self) -> Option<Arc<Snapshot>> {
        self.published.newest()
    }

    /// A scraper has a snapshot.
    pub fn note(&self, scraper: u64, snapshot: u64) {
        let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if fetched.len() < MOST_FETCHES {
            fetched.push((scraper, snapshot));
        }
    }

    /// Who got what since the last call.
    pub fn take_fetched(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.fetched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why not everything is as it should be, if it is not.
    pub fn trouble(&self) -> Option<String> {
        let Some(snapshot) = self.newest() else {
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
