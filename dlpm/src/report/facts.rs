//! What a report says beside its tables: how long, how much in all, what it costs, and what is not exact.

use jiff::tz::TimeZone;

use super::{
    collect::Collected,
    model::Model,
    results::{Reached, Spent},
};
use crate::{
    log::date,
    tables::{
        Unit, Value, average, highest,
        phases::Inferences,
        record::{Cell, Record},
    },
    totals::{Share, Totals},
};

/// Joules in a kilowatt-hour.
pub const JOULES_PER_KWH: f64 = 3.6e6;

/// What energy is multiplied by to be called carbon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Carbon {
    /// Grams of CO₂ equivalents of a kilowatt-hour; `None` if nobody asked.
    pub grams_per_kwh: Option<f64>,
    /// Energy that the data centre uses for each joule of the machine.
    pub pue: f64,
}

impl Carbon {
    /// The multiplications, as a formula.
    pub fn formula(&self) -> String {
        match self.grams_per_kwh {
            Some(grams) => format!("kWh x PUE {} x {grams} gCO2e/kWh", self.pue),
            None => format!("kWh x PUE {}", self.pue),
        }
    }

    /// Kilowatt-hours with the data centre's part.
    pub fn kwh(&self, energy_uj: u128) -> f64 {
        kwh(energy_uj) * self.pue
    }

    /// Grams of CO₂ equivalents.
    pub fn grams(&self, energy_uj: u128) -> Option<f64> {
        Some(self.kwh(energy_uj) * self.grams_per_kwh?)
    }
}

/// µJ in kWh.
pub fn kwh(energy_uj: u128) -> f64 {
    joules(energy_uj) / JOULES_PER_KWH
}

/// µJ in J.
pub fn joules(energy_uj: u128) -> f64 {
    energy_uj as f64 / 1e6
}

/// Watts as a float.
fn watts(power: &Value) -> Option<f64> {
    power.number(Unit::Watts)
}

/// A list of words.
fn words(words: &[&str]) -> Cell {
    Cell::List(words.iter().map(|word| Cell::from(*word)).collect())
}

/// A metric and the value that it is to come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The metric.
    pub metric: String,
    /// The value.
    pub value: f64,
}

/// The part of all CPU time that was idle, from 0 to 1.
pub fn idle_share(totals: &Totals) -> Option<f64> {
    let cpu = &totals.cpu;
    (cpu.interval_ns > 0).then(|| cpu.idle_ns as f64 / cpu.interval_ns as f64)
}

/// Microjoules by which roots and leaves, or leaves and rows, differ in all.
pub fn difference_uj(totals: &Totals) -> u128 {
    totals.zones.iter().map(|zone| zone.difference_uj.unsigned_abs()).sum()
}

/// The window, the sums, and what is missing.
pub fn overview(collected: &Collected, timezone: &TimeZone) -> Record {
    let totals = &collected.totals;
    let date = |unix_ns: Option<i64>| unix_ns.map(|unix_ns| date::date(unix_ns, timezone));
    let record = Record::default()
        .with("begin_date", date(collected.begin_unix_ns))
        .with("end_date", date(collected.end_unix_ns))
        .with("begin_unix_ns", collected.begin_unix_ns)
        .with("end_unix_ns", collected.end_unix_ns)
        .with("duration_ns", totals.duration_ns)
        .with("duration_s", totals.duration_ns as f64 / 1e9)
        .with("intervals", totals.intervals)
        .with("intervals_outside", collected.outside)
        .with("traces", collected.traces)
        .with("segments", collected.segments);
    record
        .with("idle_policy", (totals.intervals > 0).then(|| policy(totals)))
        .with("idle_time_share", idle_share(totals))
        .with("estimate", totals.is_estimate())
        .with("methods", words(&totals.methods()))
        .with("cpu", cpu(totals))
        .with("energy", energy(totals))
        .with("missing", missing(collected))
        .with(
            "passed_over",
            Record::default()
                .with("torn_bytes", collected.passed_over.torn_bytes)
                .with("unknown_events", collected.passed_over.unknown_events)
                .with("other_lines", collected.passed_over.other_lines)
                .with("unmatched_phase_ends", collected.open.unmatched()),
        )
}

/// The idle policy, and whether it was another one before.
pub fn policy(totals: &Totals) -> String {
    let mixed = if totals.mixed_policies { " (others before)" } else { "" };
    format!("{}{mixed}", totals.idle_policy.as_str())
}

fn cpu(totals: &Totals) -> Record {
    let cpu = &totals.cpu;
    Record::default()
        .with("cpus", cpu.cpus as u64)
        .with("interval_ns", cpu.interval_ns)
        .with("busy_ns", cpu.busy_ns)
        .with("idle_ns", cpu.idle_ns)
        .with("lost_ns", cpu.lost_ns)
        .with("self_ns", own_ns(totals))
        .with("switches", cpu.switches)
        .with("estimated_switches", cpu.estimated_switches)
        .with("in_switches_estimate_ns", in_switches_ns(totals))
        .with("time_law_violations", cpu.violations)
}

/// CPU time of dlpm itself.
pub fn own_ns(totals: &Totals) -> u128 {
    totals.shares.get(&Share::SelfDlpm).map_or(0, |own| own.amount.cpu_ns)
}

/// What dlpm's program cost inside the context switches of all tasks, where that is known: an estimate.
pub fn in_switches_ns(totals: &Totals) -> Option<u128> {
    (totals.cpu.estimated_switches > 0).then_some(totals.cpu.in_switches_ns)
}

/// `null` where there is nothing to split.
fn energy(totals: &Totals) -> Cell {
    if !totals.has_energy() {
        return Cell::Missing;
    }
    let listed = totals.listed();
    let (all_uj, listed_uj) = (totals.energy(), listed.amount.energy());
    let difference_uj = difference_uj(totals);
    Cell::Object(
        Record::default()
            .with("energy_uj", all_uj)
            .with("joules", all_uj.map(joules))
            .with("kwh", all_uj.map(kwh))
            .with("average_w", watts(&average(all_uj, totals.known_ns)))
            .with("peak_w", watts(&highest(totals.peak)))
            .with("listed_uj", listed_uj)
            .with("listed_joules", listed_uj.map(joules))
            .with("listed_kwh", listed_uj.map(kwh))
            .with("listed_peak_w", watts(&highest(listed.peak)))
            .with("known_ns", totals.known_ns)
            .with("unknown_intervals", listed.amount.unknown_intervals)
            .with("closes", all_uj.map(|_| difference_uj == 0))
            .with("difference_uj", all_uj.map(|_| difference_uj)),
    )
}

fn missing(collected: &Collected) -> Record {
    let missing = &collected.missing;
    let dropped = missing.dropped_uj.iter();
    let dropped = dropped.fold(Record::default(), |zones, (zone, energy_uj)| {
        zones.with(zone, *energy_uj)
    });
    Record::default()
        .with("gap_intervals", missing.gaps)
        .with("cut_bytes", missing.cut_bytes)
        .with("dropped_intervals", missing.dropped)
        .with("dropped_cpu_ns", missing.dropped_cpu_ns)
        .with("dropped_uj", dropped)
        .with("clock_steps", missing.clock_steps)
}

/// Carbon, if it was asked for.
pub fn carbon(carbon: &Carbon, totals: &Totals) -> Record {
    let (all_uj, listed_uj) = (totals.energy(), totals.listed().amount.energy());
    Record::default()
        .with("formula", carbon.formula())
        .with("pue", carbon.pue)
        .with("grams_per_kwh", carbon.grams_per_kwh)
        .with("kwh", all_uj.map(|uj| carbon.kwh(uj)))
        .with("listed_kwh", listed_uj.map(|uj| carbon.kwh(uj)))
        .with("grams", all_uj.and_then(|uj| carbon.grams(uj)))
        .with("listed_grams", listed_uj.and_then(|uj| carbon.grams(uj)))
}

/// The model, with what it costs to run it.
pub fn model(model: &Model, inferences: Option<Inferences>, listed_uj: Option<u128>) -> Record {
    Record::default()
        .with("total_params", model.total_params)
        .with("total_mult_adds", model.total_mult_adds)
        .with("mult_adds_are_a_lower_bound", model.is_lower_bound())
        .with("inferences", inferences.map(|inferences| inferences.count))
        .with("joules_of", "listed processes, all leaves")
        .and(inference(inferences, listed_uj))
}

/// Energy by inference and multiply-add, of the listed processes.
pub fn inference(inferences: Option<Inferences>, listed_uj: Option<u128>) -> Record {
    let Some(inferences) = inferences else {
        return Record::default();
    };
    Record::default()
        .with("joules_per_inference", listed_uj.map(|uj| inferences.joules(uj)))
        .with("pj_per_mac", listed_uj.and_then(|uj| inferences.picojoules(uj)))
}

/// Results, and what was used until each.
pub fn results(collected: &Collected, targets: &[Target], timezone: &TimeZone) -> Record {
    let results = &collected.results;
    let entries = results.entries.iter().map(|entry| {
        let values = entry.values.iter();
        let values = values.fold(Record::default(), |record, (metric, value)| record.with(metric, *value));
        Record::default()
            .with("date", date::date(entry.unix_ns, timezone))
            .with("values", values)
            .and(spent(entry.spent))
    });
    let newest = results.newest().into_iter().map(|(metric, value, until)| {
        Record::default()
            .with("metric", metric)
            .with("value", value)
            .with("value_per_kj", value_per_kj(value, until))
            .and(spent(until))
    });
    let reached = targets.iter().map(|target| {
        let record = Record::default()
            .with("metric", target.metric.as_str())
            .with("value", target.value);
        match results.reach(&target.metric, target.value) {
            Reached::AtFirst(until) | Reached::Between(until) => record.with("reached", true).and(spent(until)),
            Reached::Never(closest) => record.with("reached", false).with("closest", closest),
            Reached::Unknown => record.with("reached", Cell::Missing),
        }
    });
    Record::default()
        .with("results", entries.collect::<Cell>())
        .with("newest", newest.collect::<Cell>())
        .with("reach", reached.collect::<Cell>())
}

/// Value for each kilojoule of the listed processes.
pub fn value_per_kj(value: f64, spent: Spent) -> Option<f64> {
    (spent.listed_joules > 0.0).then(|| value / (spent.listed_joules / 1000.0))
}

fn spent(spent: Spent) -> Record {
    Record::default()
        .with("listed_joules", spent.known.then_some(spent.listed_joules))
        .with("all_joules", spent.known.then_some(spent.all_joules))
        .with("measured_s", spent.measured_s)
}
