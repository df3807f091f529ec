//! Who fetches the counters, and so which tenants have been seen long enough after their end. Pure.

use std::{collections::BTreeMap, time::Duration};

use super::counters::Account;

/// A scraper that was not seen for so long is waited for no longer.
const FORGOTTEN_NS: u64 = 3_600_000_000_000;

/// Scrapers that are told apart. Whoever may connect could make up more.
const MOST: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Fetches {
    /// CLOCK_MONOTONIC of the newest.
    at_ns: u64,
    /// The newest snapshot that it has, and the one before.
    newest: u64,
    second: Option<u64>,
}

/// Scrapers by a number that stands for address and user.
#[derive(Clone, Debug)]
pub struct Scrapers {
    /// For how long an ended tenant is shown at least.
    keep: Duration,
    fetches: BTreeMap<u64, Fetches>,
}

impl Scrapers {
    /// Nobody so far.
    pub fn new(keep: Duration) -> Self {
        Self {
            keep,
            fetches: BTreeMap::new(),
        }
    }

    /// Changes the shortest time.
    pub fn keep_for(&mut self, keep: Duration) {
        self.keep = keep;
    }

    /// A scraper has a snapshot.
    pub fn fetched(&mut self, scraper: u64, snapshot: u64, now_ns: u64) {
        self.forget(now_ns);
        if self.fetches.len() >= MOST && !self.fetches.contains_key(&scraper) {
            return;
        }
        self.fetches
            .entry(scraper)
            .and_modify(|fetches| {
                // The same one twice is one.
                if snapshot > fetches.newest {
                    fetches.second = Some(fetches.newest);
                    fetches.newest = snapshot;
                }
                fetches.at_ns = now_ns;
            })
            .or_insert(Fetches {
                at_ns: now_ns,
                newest: snapshot,
                second: None,
            });
    }

    /// Whether an ended tenant needs to be shown no longer: every scraper of the last hour has fetched its final value
    /// twice, and it has been shown for the shortest time.
    pub fn release(&mut self, account: &Account, now_ns: u64, now_unix_ns: i64) -> bool {
        let Some(end) = account.end else { return false };
        let shown_ns = u128::try_from(now_unix_ns.saturating_sub(end.unix_ns)).unwrap_or(0);
        if shown_ns < self.keep.as_nanos() {
            return false;
        }
        self.forget(now_ns);
        let has_it_twice = |fetches: &Fetches| fetches.second.is_some_and(|second| second >= end.snapshot);
        self.fetches.values().all(has_it_twice)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.fetches.len()
    }

    /// Whether nobody fetches anything.
    pub fn is_empty(&self) -> bool {
        self.fetches.is_empty()
    }

    fn forget(&mut self, now_ns: u64) {
        self.fetches
            .retain(|_, fetches| now_ns.saturating_sub(fetches.at_ns) < FORGOTTEN_NS);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        agent::{amounts::Amounts, counters::End},
        tenants::{Kind, Tenant},
    };

    const SECOND: u64 = 1_000_000_000;

    fn ended_in(snapshot: u64) -> Account {
        let tenant = Arc::new(Tenant::of(Kind::Docker, "a"));
        Account {
            named: tenant.clone(),
            tenant,
            begun_unix_ns: 0,
            used: Amounts::default(),
            since_unix_ns: 0,
            before: Amounts::default(),
            methods: BTreeMap::new(),
            end: Some(End { unix_ns: 0, snapshot }),
        }
    }

    #[test]
    fn everyone_has_it_twice() {
        let mut scrapers = Scrapers::new(Duration::from_secs(600));
        let account = ended_in(10);
        let later = 600 * 1_000_000_000;
        assert!(!scrapers.release(&account, 0, later - 1), "too early");
        assert!(scrapers.release(&account, 0, later), "nobody waits");
        scrapers.fetched(1, 10, 0);
        assert!(!scrapers.release(&account, 0, later), "once");
        scrapers.fetched(1, 10, SECOND);
        assert!(!scrapers.release(&account, SECOND, later), "one snapshot twice is once");
        scrapers.fetched(1, 11, SECOND);
        assert!(scrapers.release(&account, SECOND, later));
        // A second one that has only older ones.
        scrapers.fetched(2, 8, SECOND);
        scrapers.fetched(2, 9, SECOND);
        assert!(!scrapers.release(&account, SECOND, later));
        // It never comes again.
        let hour = 3601 * SECOND;
        scrapers.fetched(1, 12, hour - SECOND);
        assert!(scrapers.release(&account, hour, later));
        assert_eq!(scrapers.len(), 1);
        assert!(
            !scrapers.release(&Account { end: None, ..account }, hour, later),
            "it lives"
        );
    }

    #[test]
    fn made_up_scrapers_have_no_room() {
        let mut scrapers = Scrapers::new(Duration::ZERO);
        for scraper in 0..1000 {
            scrapers.fetched(scraper, 1, 0);
        }
        assert_eq!(scrapers.len(), MOST);
    }
}
