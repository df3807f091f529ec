//! The counter law, and what the weights of events say.

use std::collections::BTreeSet;

use super::Checker;
use crate::{
    attribution::{
        counters::{self, Counters},
        ledger::{Row, RowKey},
        share::Rules,
    },
    interval::{Counts, CpuCounts, CpuInterval, MAX_EVENTS},
    log::exact::name,
};

impl Checker<'_> {
    /// On each CPU, what tasks, idle time and nobody counted is what the events moved by; and the rows have what the CPUs
    /// have.
    pub(super) fn counts(&mut self) {
        let ledger = self.ledger;
        let events = match &ledger.counters {
            Some(Counters { events, .. }) => events.len(),
            None => 0,
        };
        self.holds(events <= MAX_EVENTS, || {
            format!("{events} events are counted: expected at most {MAX_EVENTS}")
        });
        for cpu in &ledger.cpus {
            self.holds(events > 0 || cpu.counts.is_none(), || {
                format!("CPU {} has counts, and no event is counted", cpu.cpu)
            });
            let Some(counts) = &cpu.counts else { continue };
            if let Some((event, sum, counted)) = counts.law_broken() {
                self.equal(
                    || {
                        format!(
                            "counter law: busy, idle and lost of event {event} on CPU {} against last less first",
                            cpu.cpu
                        )
                    },
                    u128::from(counted),
                    sum,
                );
            }
            let all = [counts.first, counts.last, counts.busy, counts.idle, counts.lost];
            self.holds(all.iter().all(|counts| counts.fit(events)), || {
                format!("CPU {} has counts of more than {events} events", cpu.cpu)
            });
        }
        for row in &ledger.rows {
            let mut all = row.by_package.values().chain(row.by_core.values());
            self.holds(all.all(|usage| usage.counts.fit(events)), || {
                format!("{} has counts of more than {events} events", name(&row.key))
            });
        }
        for event in 0..events.min(MAX_EVENTS) {
            self.counts_of(event);
        }
    }

    fn counts_of(&mut self, event: usize) {
        let ledger = self.ledger;
        let packages: BTreeSet<Option<u32>> = ledger
            .cpus
            .iter()
            .map(|cpu| cpu.package)
            .chain(ledger.rows.iter().flat_map(|row| row.by_package.keys().copied()))
            .collect();
        for package in packages {
            let of_cpus = |counts: fn(&CpuCounts) -> Counts| {
                let cpus = ledger.cpus.iter().filter(|cpu| cpu.package == package);
                sum(cpus.filter_map(|cpu| Some(counts(cpu.counts.as_ref()?))), event)
            };
            let of_rows = |is_wanted: fn(&RowKey) -> bool| {
                let rows = ledger.rows.iter().filter(|row| is_wanted(&row.key));
                sum(rows.filter_map(|row| Some(row.by_package.get(&package)?.counts)), event)
            };
            let named = package.map_or_else(|| "that is not known".to_owned(), |package| package.to_string());
            let what = |whose: &'static str| {
                let named = named.clone();
                move || format!("counts of event {event} of {whose} on package {named} against its CPUs")
            };
            let is_task = |key: &RowKey| !matches!(key, RowKey::Idle | RowKey::Unattributed);
            self.equal(what("all tasks"), of_cpus(|counts| counts.busy), of_rows(is_task));
            self.equal(
                what("row idle"),
                of_cpus(|counts| counts.idle),
                of_rows(|key| *key == RowKey::Idle),
            );
            self.equal(
                what("row unattributed"),
                of_cpus(|counts| counts.lost),
                of_rows(|key| *key == RowKey::Unattributed),
            );
        }
        let of_cores = ledger.rows.iter().flat_map(|row| row.by_core.values());
        let of_cores = sum(of_cores.map(|usage| usage.counts), event);
        let has_core = |cpu: &&CpuInterval| cpu.package.is_some() && cpu.core.is_some();
        let of_cpus = ledger
            .cpus
            .iter()
            .filter(has_core)
            .filter_map(|cpu| cpu.counts.as_ref());
        let of_cpus = of_cpus.flat_map(|counts| [counts.busy, counts.idle, counts.lost]);
        self.equal(
            || format!("counts of event {event} of all rows on their cores against the CPUs"),
            sum(of_cpus, event),
            of_cores,
        );
    }

    /// What the weights say of each package, computed again.
    pub(super) fn models(&mut self, rules: &Rules<'_>) {
        let ledger = self.ledger;
        let rows: &[Row] = &ledger.rows;
        for root in &ledger.roots {
            let before = root.model.as_ref().map_or(0, |model| model.far_before);
            let expected = rules
                .weights
                .and_then(|weights| counters::model(root, rows, &ledger.cpus, weights, rules, before));
            let text = |model: &Option<counters::Model>| format!("{model:?}");
            self.equal(|| format!("model of {}", root.zone), text(&expected), text(&root.model));
        }
    }
}

fn sum(counts: impl Iterator<Item = Counts>, event: usize) -> u128 {
    counts.map(|counts| u128::from(counts.0[event])).sum()
}
