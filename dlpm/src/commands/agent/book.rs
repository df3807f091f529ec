//! From the intervals of a machine to counters and snapshots.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{history::History, recordings::Cut, served::Served};
use crate::{
    agent::{
        admission::Admission,
        counters::{Counters, Group},
        facts::{Facts, Pushes},
        scrapers::Scrapers,
        unobserved::Unobserved,
    },
    attribution::{
        Options, attribute,
        energy_tree::Carries,
        ledger::{IdlePolicy, Ledger},
    },
    cli::AgentArgs,
    commands::learning::Learning,
    engine::Engine,
    interval::Interval,
    sinks::{agent::keeper::Keeper, terminal::say},
    sources::{
        clock::{monotonic_ns, unix_ns},
        machine::Dropped,
        tenants::{names::user_name, places::Places},
    },
    tenants::Node,
};

/// A tenant whose directory is gone.
struct Going {
    node: Node,
    /// The interval that was open then: the last in which it can have used anything.
    seq: u64,
    unix_ns: i64,
}

/// What the processes for the network did since the start.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// Times that one was started again.
    pub restarts: u64,
    /// What became of pushes, if there are any to be.
    pub pushes: Option<Pushes>,
}

/// The counters while they grow.
pub struct Book {
    options: Options,
    carries: Carries,
    learning: Option<Learning>,
    /// Whether what is learned is the idle floor from then on.
    learns: bool,
    history: Option<History>,
    counters: Counters,
    /// Counters of an earlier agent go on with the next interval.
    resumes: bool,
    admission: Admission,
    places: Places,
    going: Vec<Going>,
    scrapers: Scrapers,
    facts: Facts,
    rootfs: PathBuf,
    interval: Duration,
    looked_at_ns: u64,
    splits_by_memory: bool,
    /// What lies before the next tick and has ended already.
    begun: Option<Arc<Interval>>,
}

impl Book {
    /// One that goes on with counters. `learns`: see [`Idle::learns`](crate::commands::trace::idle::Idle).
    pub fn new(
        args: &AgentArgs,
        options: Options,
        learns: bool,
        history: Option<History>,
        counters: Counters,
        mount: &Path,
    ) -> Self {
        let interval_ns = u64::try_from(args.interval.as_nanos()).unwrap_or(u64::MAX);
        let cap = usize::try_from(args.max_tenants).unwrap_or(usize::MAX);
        Self {
            facts: Facts {
                started_unix_ns: unix_ns(),
                interval_ns,
                cap,
                idle_policy: options.idle_policy,
                host_name: rustix::system::uname().nodename().to_string_lossy().into(),
                ..Facts::default()
            },
            options,
            carries: Carries::default(),
            learning: Learning::start(&args.machine),
            learns,
            history,
            resumes: counters.intervals > 0,
            counters,
            admission: Admission::new(cap),
            places: Places::new(mount),
            going: Vec::new(),
            scrapers: Scrapers::new(args.keep_ended),
            rootfs: args.machine.roots.rootfs.clone(),
            interval: args.interval,
            looked_at_ns: monotonic_ns(),
            splits_by_memory: false,
            begun: None,
        }
    }

    /// Takes over what may change while it runs.
    pub fn change(&mut self, args: &AgentArgs) {
        let cap = usize::try_from(args.max_tenants).unwrap_or(usize::MAX);
        if cap != self.admission.cap() {
            self.admission = Admission::new(cap);
            self.facts.cap = cap;
        }
        self.scrapers.keep_for(args.keep_ended);
    }

    /// Whether energy is split by memory.
    pub fn needs_memory(&self) -> bool {
        self.splits_by_memory
    }

    /// Looks for tenants that are gone, and for those first of which somebody wants to know.
    pub fn look_for_ends(&mut self, engine: &mut Engine<Cut>, served: &Served, now_ns: u64) {
        self.places.first(&served.take_looks());
        let seq = engine.border().seq;
        let passed = Duration::from_nanos(now_ns.saturating_sub(self.looked_at_ns)).min(self.interval * 2);
        self.looked_at_ns = now_ns;
        let unix_ns = unix_ns();
        for node in self.places.gone(passed, now_ns) {
            engine.machine().forget_memory(&node);
            self.going.push(Going { node, seq, unix_ns });
        }
    }

    /// How intervals are attributed.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Takes an interval. Those that do not end with a tick are counted with the ones after them, as one. Whether anything
    /// was counted.
    pub fn take(&mut self, interval: Arc<Interval>, is_tick: bool, engine: &mut Engine<Cut>) -> bool {
        let mut counted = false;
        let whole = match self.begun.take() {
            None => interval,
            Some(begun) => match begun.followed_by(&interval) {
                Some(whole) => Arc::new(whole),
                None => {
                    self.add(&begun, engine);
                    counted = true;
                    interval
                }
            },
        };
        if is_tick {
            self.add(&whole, engine);
            counted = true;
        } else {
            self.begun = Some(whole);
        }
        counted
    }

    /// Counts one interval.
    fn add(&mut self, interval: &Interval, engine: &mut Engine<Cut>) {
        let resumed = std::mem::take(&mut self.resumes);
        if resumed {
            self.resume(interval);
        }
        let ledger = attribute(interval, &self.options, &self.carries);
        self.carries = self.carries.after(&ledger);
        self.splits_by_memory = ledger.leaves.iter().any(|leaf| leaf.method.is_by_memory());
        self.learn(&ledger);
        if let Some(history) = &mut self.history {
            history.add(&ledger);
        }
        for (path, tenant) in engine.machine().new_tenants() {
            self.places.see(&tenant.node, Some(&path), interval.end_ns);
            self.counters.open(&tenant, interval.end_unix_ns, &mut self.admission);
        }
        // Whose directory is gone ran before that: seen again, its next life would end with this one.
        let is_going = |node: &Node| self.going.iter().any(|going| going.node == *node);
        let of_cgroups = interval
            .tenants
            .iter()
            .map(|(path, tenant)| (tenant, Some(path.as_ref())));
        let of_processes = interval.process_tenants.values().map(|tenant| (tenant, None));
        for (tenant, path) in of_cgroups.chain(of_processes) {
            if !is_going(&tenant.node) {
                self.places.see(&tenant.node, path, interval.end_ns);
            }
        }
        self.counters.add(&ledger, &mut self.admission);
        let (ended, open): (Vec<Going>, Vec<Going>) = std::mem::take(&mut self.going)
            .into_iter()
            .partition(|going| going.seq <= ledger.seq);
        self.going = open;
        for going in ended {
            self.counters.end(&going.node, going.unix_ns);
        }
        if resumed {
            self.see_those_left(interval.end_ns);
        }
        self.facts.length_ns = ledger.length_ns();
        self.facts.seal_ns = ledger.seal_ns;
        if ledger.length_ns() > self.facts.interval_ns.saturating_add(self.facts.interval_ns / 2) {
            self.facts.late_intervals += 1;
        }
        self.facts.dropped = dropped(engine.machine().dropped());
    }

    /// Writes the history to its end.
    pub fn end_history(&mut self, patience: Duration) {
        if let Some(history) = self.history.take() {
            history.finish(patience);
        }
    }

    /// The floor of a quiet minute makes the policy `separate` possible.
    fn learn(&mut self, ledger: &Ledger) {
        let Some(floor) = self.learning.as_mut().and_then(|learning| learning.add(ledger)) else {
            return;
        };
        if !self.learns {
            return;
        }
        if self.options.idle_policy != IdlePolicy::Separate {
            say(&format!(
                "note: a quiet minute ended on {}: from now on what the idle machine draws goes to the row idle (idle \
                 policy separate)",
                floor.date
            ));
        }
        self.options.idle_policy = IdlePolicy::Separate;
        let floors_mw = floor.floors_mw.iter().map(|(leaf, floor_mw)| (leaf.clone(), *floor_mw));
        self.options.idle_floors_mw.extend(floors_mw);
        self.facts.idle_policy = IdlePolicy::Separate;
    }

    /// Hands a snapshot on to the disk, and from there to whoever asks.
    pub fn publish(&mut self, keeper: &Keeper, served: &Served, network: Network) {
        let (now_ns, now_unix_ns) = (monotonic_ns(), unix_ns());
        for (scraper, snapshot) in served.take_fetched() {
            self.scrapers.fetched(scraper, snapshot, now_ns);
        }
        let ended = self
            .counters
            .accounts
            .iter()
            .filter(|(_, account)| account.end.is_some());
        let released: Vec<Node> = ended
            .filter(|(_, account)| self.scrapers.release(account, now_ns, now_unix_ns))
            .map(|(node, _)| node.clone())
            .collect();
        for node in released {
            self.counters.retire(&node);
        }
        self.facts.web_restarts = network.restarts;
        self.facts.pushes = network.pushes;
        self.facts.scrapers = self.scrapers.len();
        self.name_users();
        let written = keeper.keep(self.counters.clone(), self.facts.clone());
        self.counters.written(written);
    }

    /// Tenants of an earlier agent that have no cgroup by now: they have ended, unless something of them runs soon.
    fn see_those_left(&mut self, now_ns: u64) {
        let left = self.counters.accounts.iter();
        let left: Vec<Node> = left
            .filter(|(node, account)| account.end.is_none() && !self.places.has(node))
            .map(|(node, _)| node.clone())
            .collect();
        for node in left {
            self.places.see(&node, None, now_ns);
        }
    }

    /// What lies between the end of an earlier agent and the beginning of the first interval.
    fn resume(&mut self, first: &Interval) {
        let down_ns = first.begin_ns.saturating_sub(self.counters.end_ns);
        let counters = &self.counters;
        let unobserved = Unobserved::between(&counters.zones, &counters.carries_uj, down_ns, first);
        for note in &unobserved.notes {
            say(&format!("note: {note}"));
        }
        self.facts.unobserved_unknown = unobserved.notes.len() as u64;
        self.carries = Carries::owed(&unobserved.carries_uj);
        self.counters.add_unobserved(&unobserved);
    }

    fn name_users(&mut self) {
        for group in self.counters.groups.keys() {
            if let Group::User(uid) = group
                && !self.facts.users.contains_key(uid)
            {
                let name = user_name(&self.rootfs, *uid).unwrap_or_else(|| uid.to_string());
                Arc::make_mut(&mut self.facts.users).insert(*uid, name);
            }
        }
    }
}

fn dropped(dropped: Dropped) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([
        ("processes_full", dropped.processes_full),
        ("nameless", dropped.nameless),
        ("cgroups_lost", dropped.cgroups_lost),
        ("missed_runs", dropped.missed_runs),
        ("clock_steps", dropped.clock_steps),
    ])
}
