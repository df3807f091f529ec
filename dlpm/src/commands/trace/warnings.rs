//! What a user is told of while a trace runs, and of what was dropped at its end.

mod zones;

use std::collections::BTreeSet;

use crate::{attribution::ledger::Ledger, sinks::writer::Status, sources::machine::Dropped};

/// What has been said already.
#[derive(Debug, Default)]
pub struct Warnings {
    lost: bool,
    disk: bool,
    /// GPUs that have not answered since they were warned of.
    silent_gpus: BTreeSet<String>,
    zones: zones::Zones,
}

impl Warnings {
    /// What is new with an interval, a sentence each.
    pub fn of(&mut self, ledger: &Ledger, status: Option<&Status>) -> Vec<String> {
        let mut new = Vec::new();
        let lost_ns: u64 = ledger.cpus.iter().map(|cpu| cpu.lost_ns).sum();
        if lost_ns > 0 && !self.lost {
            self.lost = true;
            new.push(
                "more processes ran in an interval than the kernel side can tell apart: the time of the rest is kept \
                 as `unattributed`; make room with --spill-entries, or shorten --interval"
                    .to_owned(),
            );
        }
        new.extend(self.zones.of(ledger));
        new.extend(self.of_gpus(ledger));
        match (status.map(|status| &status.blocked), self.disk) {
            (Some(Some(blocked)), false) => {
                self.disk = true;
                new.push(format!(
                    "the log cannot be written ({}): tracing goes on and the lines wait; make room, and they are \
                     written",
                    blocked.error
                ));
            }
            (Some(None), true) => {
                self.disk = false;
                new.push("the log is written again".to_owned());
            }
            _ => {}
        }
        new
    }

    /// When a GPU stops answering, and when its energy is known again.
    fn of_gpus(&mut self, ledger: &Ledger) -> Vec<String> {
        let mut new = Vec::new();
        for gpu in &ledger.gpus {
            let leaf = ledger.leaves.iter().find(|leaf| leaf.zone == gpu.zone);
            match leaf.map(|leaf| &leaf.energy_uj) {
                Some(Err(reason)) if self.silent_gpus.insert(gpu.zone.clone()) => new.push(format!(
                    "GPU {} ({}): {reason}; the trace goes on without it until it answers",
                    gpu.index, gpu.name
                )),
                Some(Ok(_)) if self.silent_gpus.remove(&gpu.zone) => {
                    new.push(format!("GPU {} ({}) is measured again", gpu.index, gpu.name));
                }
                _ => {}
            }
        }
        new
    }
}

/// Everything that was dropped since the start, a sentence each.
pub fn dropped(dropped: Dropped) -> Vec<String> {
    [
        (dropped.processes_full, "processes found no room in the kernel's table, so that some names and parents are missing: see --process-entries"),
        (dropped.nameless, "processes ran that were gone before their names could be read"),
        (dropped.cgroups_lost, "cgroups were created whose paths could not be kept, and may be shown by number"),
        (dropped.missed_runs, "events at the most were not seen, since the kernel left out runs of dlpm's programs: some names may be older than \
         the last exec"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect()
}
