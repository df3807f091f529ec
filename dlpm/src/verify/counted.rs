//! What holds of counted events from one interval to the next: readings go on where they were, and weights stay.

use std::collections::BTreeMap;

use crate::{
    attribution::{
        counters::{Counters, Model},
        energy_tree::Carries,
        ledger::Ledger,
    },
    interval::Counts,
    log::differs,
};

/// What is known of the events of a trace.
#[derive(Debug, Default)]
pub struct Counted {
    counters: Option<Counters>,
    /// The newest readings of each CPU.
    last: BTreeMap<u32, Counts>,
}

impl Counted {
    /// What does not hold in the next interval, which follows the one before, a sentence each.
    pub fn follow(&self, ledger: &Ledger) -> Vec<String> {
        let mut failures = Vec::new();
        if self.counters != ledger.counters {
            failures.push("the counted events, or what they weigh, are not those of the interval before".to_owned());
        }
        for cpu in &ledger.cpus {
            if let (Some(last), Some(counts)) = (self.last.get(&cpu.cpu), &cpu.counts)
                && *last != counts.first
            {
                let what = format!("first counts of CPU {} against its last ones before", cpu.cpu);
                failures.push(differs(&what, text(last), text(&counts.first)));
            }
        }
        failures
    }

    /// An interval has been read, whether it followed the one before or not.
    pub fn add(&mut self, ledger: &Ledger, follows: bool) {
        if !follows {
            self.last.clear();
        }
        self.counters.clone_from(&ledger.counters);
        let counts = ledger.cpus.iter().filter_map(|cpu| Some((cpu.cpu, cpu.counts?.last)));
        self.last.extend(counts);
    }
}

/// What does not hold of what is remembered of models.
pub fn remembered(carries: &Carries, ledger: &Ledger) -> Vec<String> {
    let models = ledger
        .roots
        .iter()
        .filter_map(|root| Some((&root.zone, root.model.as_ref()?)));
    let wrong = models.filter(|(zone, model): &(&String, &Model)| model.far_before != carries.far(zone));
    wrong
        .map(|(zone, model)| differs(&format!("far_before of {zone}"), carries.far(zone), model.far_before))
        .collect()
}

fn text(counts: &Counts) -> String {
    format!("{:?}", counts.0)
}
