//! What holds from one interval to the next: no interval is missing unseen, counters moved by what was recorded, and
//! what was carried arrives.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    counted::{self, Counted},
    events, metrics,
    phases::PhaseEvents,
};
use crate::{
    aipowermeter::rules,
    attribution::{
        energy_tree::{self, Carries, Span},
        ledger::Ledger,
    },
    interval::{MachineMemory, MeterSource},
    log::{
        Event, differs,
        names::{CLOCK_STEP_NS, DATE_UNIT_NS, REPEAT_AFTER_NS},
    },
};

/// Newest memory of the machine, which samples repeat where it could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// The newest of the trace, if there was any.
    Known(Option<MachineMemory>),
    /// It was in a sample that was dropped.
    Unknown,
}

/// The metrics of the newest sample of the segment that is long enough to tell power: a shorter one repeats them.
#[derive(Debug)]
enum TellsPower {
    /// There is none.
    None,
    /// These.
    Metrics(Value),
    /// They were in a sample that was dropped, if there was one.
    Unknown,
}

/// What the metrics of a sample have to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// What its exact part gives.
    Own,
    /// These, which it repeats.
    Repeated(&'a Value),
    /// That cannot be known.
    Unknown,
}

/// What has been read of the log.
#[derive(Debug)]
pub struct Sequence {
    pub(super) last: Option<Last>,
    in_segment: bool,
    tells_power: TellsPower,
    pub(super) phases: PhaseEvents,
    machine: Machine,
    /// What is carried to the next interval, if all before it are known.
    carries: Option<Carries>,
    counted: Counted,
    /// Nothing of the trace has been read or dropped.
    at_start: bool,
    /// Samples up to this one were dropped.
    pub(super) dropped_to: Option<u64>,
    pub(super) announced: Vec<Event>,
}

/// The newest interval.
#[derive(Debug)]
pub struct Last {
    pub seq: u64,
    begin_ns: u64,
    pub end_ns: u64,
    pub end_unix_ns: i64,
    pub zones: BTreeMap<String, ZoneEnd>,
    carries: BTreeMap<String, i64>,
    metrics: Value,
}

/// How an interval left a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneEnd {
    pub energy_uj: Option<u64>,
    counter: Option<(u64, Option<u64>)>,
    /// A GPU's energy that is the integral of its power: it has no counter, or one that is not believed.
    by_power: bool,
}

impl Default for Sequence {
    fn default() -> Self {
        Self {
            last: None,
            in_segment: false,
            tells_power: TellsPower::None,
            phases: PhaseEvents::default(),
            machine: Machine::Known(None),
            carries: None,
            counted: Counted::default(),
            at_start: true,
            dropped_to: None,
            announced: Vec::new(),
        }
    }
}

impl Sequence {
    /// The newest memory of the machine, that of the last sample included.
    pub fn machine_memory(&self) -> Machine {
        self.machine
    }

    /// Nothing is known of the interval before the next.
    pub fn lose_track(&mut self) {
        self.last = None;
        self.tells_power = TellsPower::Unknown;
        self.at_start = false;
        self.machine = Machine::Unknown;
        self.carries = None;
    }

    /// A segment ends.
    pub fn segment_end(&mut self) {
        self.in_segment = false;
        self.tells_power = TellsPower::None;
    }

    /// What the metrics of the last sample have to be.
    pub fn expected_metrics(&self, ledger: &Ledger) -> Expected<'_> {
        match &self.tells_power {
            TellsPower::Metrics(metrics) if !ledger.tells_power() => Expected::Repeated(metrics),
            TellsPower::Unknown if !ledger.tells_power() => Expected::Unknown,
            _ => Expected::Own,
        }
    }

    /// Whether the next sample begins a trace, and what does not hold, a sentence each.
    pub fn sample(&mut self, ledger: &Ledger, metrics: &Value) -> (bool, Vec<String>) {
        let mut failures = Vec::new();
        // The first interval of a trace has the number 0, which no later one has.
        let new_trace = ledger.seq == 0 || self.at_start;
        if new_trace {
            if ledger.seq != 0 {
                failures.push(differs("seq of the first interval", 0, ledger.seq));
            }
            if self.in_segment {
                failures.push("a trace begins within a segment".to_owned());
            }
            if self.last.as_ref().is_some_and(|last| last.end_ns == ledger.begin_ns) {
                failures.push("seq is 0, and the interval follows the one before to the nanosecond".to_owned());
            }
            self.machine = Machine::Known(None);
            self.carries = Some(Carries::default());
            self.last = None;
            self.dropped_to = None;
            self.announced.clear();
            self.phases.new_trace();
            self.tells_power = TellsPower::None;
            // Where an agent started again, the first interval goes on with what was carried before.
            let carried = ledger.roots.iter().filter(|root| root.previous_carry_uj != 0);
            for root in carried.filter(|_| ledger.rollup.is_none()) {
                let what = format!("previous_carry_uj of {} in the first interval", root.zone);
                failures.push(differs(&what, 0, root.previous_carry_uj));
            }
        }
        if let Some(to_seq) = self.dropped_to.take().filter(|to_seq| ledger.seq <= *to_seq) {
            failures.push(format!(
                "seq: expected above {to_seq}, as all up to there were dropped, found {}",
                ledger.seq
            ));
        }
        failures.extend(self.phases.before(ledger));
        let next = Last::of(ledger, metrics);
        if let Some(last) = &self.last {
            failures.extend(self.after(last, &next, ledger));
        }
        let follows = |last: &Last| last.seq.checked_add(1) == Some(ledger.seq);
        let is_next = self.last.as_ref().is_some_and(follows);
        if is_next {
            failures.extend(self.counted.follow(ledger));
        }
        self.counted.add(ledger, is_next);
        // In a roll-up nobody sees in which interval a debt grew.
        if ledger.rollup.is_some() || (self.last.is_some() && !is_next) {
            self.carries = None;
        }
        if let Some(carries) = &self.carries {
            let tree = energy_tree::build(&energy_tree::readings(ledger), carries, Span::of(ledger));
            failures.extend(counted::remembered(carries, ledger));
            for (expected, found) in tree.roots.iter().zip(&ledger.roots) {
                if expected.parts_outside != found.parts_outside {
                    let what = format!("parts_outside of {}", found.zone);
                    failures.push(differs(&what, expected.parts_outside, found.parts_outside));
                }
            }
        }
        self.carries = self.carries.take().map(|carries| carries.after(ledger));
        if let Some(memory) = ledger.machine_memory {
            self.machine = Machine::Known(Some(memory));
        }
        self.announced.clear();
        self.last = Some(next);
        self.at_start = false;
        self.in_segment = true;
        if ledger.tells_power() {
            self.tells_power = TellsPower::Metrics(metrics.clone());
        }
        (new_trace, failures)
    }

    fn after(&self, last: &Last, next: &Last, ledger: &Ledger) -> Vec<String> {
        let mut failures: Vec<String> = self
            .announced
            .iter()
            .filter_map(|event| events::contradiction(event, last, next))
            .collect();
        if last.seq.checked_add(1) == Some(next.seq) {
            failures.extend(self.follows(last, next, ledger));
            return failures;
        }
        let is_announced = self.announced.iter().any(|event| matches!(event, Event::Gap { .. }));
        if next.seq <= last.seq {
            failures.push(format!("seq: expected above {}, found {}", last.seq, next.seq));
        } else if !is_announced {
            failures.push(format!(
                "intervals {} to {} are missing, and no event says so",
                last.seq.saturating_add(1),
                next.seq.saturating_sub(1)
            ));
        }
        if self.in_segment {
            failures.push("a segment goes on after a gap".to_owned());
        }
        if next.begin_ns < last.end_ns {
            failures.push(format!(
                "begin_ns: expected {} at least, where an earlier interval ended, found {}",
                last.end_ns, next.begin_ns
            ));
        }
        failures
    }

    /// The interval after the last one.
    fn follows(&self, last: &Last, next: &Last, ledger: &Ledger) -> Vec<String> {
        let mut failures = Vec::new();
        if next.begin_ns != last.end_ns {
            failures.push(differs(
                "begin_ns against the end of the interval before",
                last.end_ns,
                next.begin_ns,
            ));
        }
        for root in &ledger.roots {
            let carried_uj = last.carries.get(&root.zone).copied().unwrap_or(0);
            if carried_uj != root.previous_carry_uj {
                let what = format!("previous_carry_uj of {} against carry_uj before", root.zone);
                failures.push(differs(&what, carried_uj, root.previous_carry_uj));
            }
        }
        for (zone, now) in &next.zones {
            if let Some(before) = last.zones.get(zone) {
                failures.extend(moved(zone, before, now));
            }
        }
        if self.in_segment {
            let states = |of: &Last| -> Vec<(String, bool)> {
                of.zones
                    .iter()
                    .map(|(zone, end)| (zone.clone(), end.energy_uj.is_some()))
                    .collect()
            };
            if states(last) != states(next) {
                failures.push("a zone came, went or changed its state within a segment".to_owned());
            }
            let step_ns = next.step_ns(last);
            if step_ns.abs() > i128::from(CLOCK_STEP_NS + DATE_UNIT_NS) {
                failures.push(format!(
                    "date: within a segment it goes with end_ns to 0.5 s, found {step_ns} ns apart"
                ));
            }
        }
        failures
    }

    /// What does not hold in a sample that stands for the one before it.
    pub fn repeat(&mut self, seq: u64, line: &Value) -> Vec<String> {
        let Some(last) = &self.last else { return Vec::new() };
        let mut failures = Vec::new();
        if seq != last.seq {
            failures.push(differs("seq of what is repeated", last.seq, seq));
        }
        metrics::compare("metrics", &last.metrics, &line["metrics"], &mut failures);
        let apart_ns = i128::from(rules::unix_ns(line)) - i128::from(last.end_unix_ns);
        if apart_ns != i128::from(REPEAT_AFTER_NS) {
            let what = "date against that of what is repeated, in ns";
            failures.push(differs(what, REPEAT_AFTER_NS, apart_ns));
        }
        failures
    }
}

impl Last {
    fn of(ledger: &Ledger, metrics: &Value) -> Self {
        let zones = ledger.zones().map(|zone| {
            let end = ZoneEnd {
                energy_uj: zone.known_uj(),
                counter: zone.counter_uj.map(|counter_uj| (counter_uj, zone.range_uj)),
                by_power: zone.source == MeterSource::NvmlPower,
            };
            (zone.zone.to_owned(), end)
        });
        Self {
            seq: ledger.seq,
            begin_ns: ledger.begin_ns,
            end_ns: ledger.end_ns,
            end_unix_ns: ledger.end_unix_ns,
            zones: zones.collect(),
            carries: ledger
                .roots
                .iter()
                .map(|root| (root.zone.clone(), root.carry_uj))
                .collect(),
            metrics: metrics.clone(),
        }
    }

    /// How far the date moved beyond the monotonic clock since `before`.
    pub fn step_ns(&self, before: &Self) -> i128 {
        let by_date = i128::from(self.end_unix_ns) - i128::from(before.end_unix_ns);
        by_date - (i128::from(self.end_ns) - i128::from(before.end_ns))
    }
}

/// What does not hold between two readings of a counter: it moved by the energy, but for whole turns.
fn moved(zone: &str, before: &ZoneEnd, now: &ZoneEnd) -> Option<String> {
    let (Some(_), Some(energy_uj)) = (before.energy_uj, now.energy_uj) else {
        return None;
    };
    match (before.counter, now.counter) {
        (_, Some(_)) if now.by_power => Some(format!("counter_uj of {zone} stands beside the integral of power")),
        // A GPU's counter that could not be read, or is not believed any longer.
        _ if before.by_power != now.by_power => None,
        (Some((before_uj, before_range)), Some((now_uj, range))) => {
            if before_range != range {
                return Some(format!("range_uj of {zone} changed while it was read all the time"));
            }
            let moved_uj = i128::from(now_uj) - i128::from(before_uj);
            let rest_uj = i128::from(energy_uj) - moved_uj;
            let closes = match range {
                Some(range) => rest_uj.rem_euclid(i128::from(range) + 1) == 0,
                None => rest_uj == 0,
            };
            (!closes).then(|| {
                format!(
                    "energy_uj of {zone}: the counter went from {before_uj} to {now_uj}, found {energy_uj} (range {})",
                    range.map_or_else(|| "unknown".to_owned(), |range| range.to_string())
                )
            })
        }
        (None, None) => None,
        _ => Some(format!("counter_uj of {zone} is in one of two intervals only")),
    }
}
