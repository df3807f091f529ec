//! What a user is warned of while a trace runs, and what was dropped, at its end.

mod zones;

use std::collections::BTreeSet;

use crate::{attribution::ledger::Ledger, sinks::writer::Status, sources::machine::Dropped};

/// Warnings of one trace within [`PERIOD_NS`]; more are counted.
const IN_A_PERIOD: u64 = 10;

/// A minute.
const PERIOD_NS: u64 = 60_000_000_000;

/// What has been said already.
#[derive(Debug, Default)]
pub struct Warnings {
    lost: bool,
    disk: bool,
    /// Changes of the log by others.
    changes: usize,
    /// GPUs that have not answered since they were warned of.
    silent_gpus: BTreeSet<String>,
    /// What was said of GPUs: zone and note.
    gpu_notes: BTreeSet<(String, String)>,
    zones: zones::Zones,
    /// Lost paths of cgroups that were told, and when.
    cgroups: Option<(u64, u64)>,
    limit: Limit,
}

/// How many warnings are shown, so that nothing that comes and goes with each interval floods a terminal.
#[derive(Debug, Default)]
struct Limit {
    begin_ns: u64,
    shown: u64,
    held_back: u64,
}

impl Limit {
    fn apply(&mut self, warnings: Vec<String>, now_ns: u64) -> Vec<String> {
        let mut shown = Vec::new();
        if now_ns.saturating_sub(self.begin_ns) >= PERIOD_NS {
            if self.held_back > 0 {
                shown.push(format!("{} more warnings were not shown", self.held_back));
            }
            *self = Self {
                begin_ns: now_ns,
                ..Self::default()
            };
        }
        for warning in warnings {
            if self.shown < IN_A_PERIOD {
                self.shown += 1;
                shown.push(warning);
            } else {
                self.held_back += 1;
            }
        }
        shown
    }
}

impl Warnings {
    /// What is new with an interval, a sentence each.
    pub fn of(&mut self, ledger: &Ledger, status: Option<&Status>, dropped: Dropped, quiet: bool) -> Vec<String> {
        let mut new = Vec::new();
        new.extend(self.of_cgroups(dropped.cgroups_lost, ledger.end_ns, quiet));
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
        if let Some(status) = status {
            new.extend(self.untold(&status.changes));
        }
        match (status.map(|status| &status.blocked), self.disk) {
            (Some(Some(blocked)), false) => {
                self.disk = true;
                new.push(format!(
                    "the log cannot be written ({}): tracing goes on and the lines wait; {}",
                    blocked.error,
                    blocked.outlook()
                ));
            }
            (Some(None), true) => {
                self.disk = false;
                new.push("the log is written again".to_owned());
            }
            _ => {}
        }
        self.limit.apply(new, ledger.end_ns)
    }

    /// Paths of cgroups that were lost, once a minute at most; where the user wants to hear little, once.
    fn of_cgroups(&mut self, lost: u64, now_ns: u64, quiet: bool) -> Option<String> {
        let (told, is_due) = match self.cgroups {
            None => (0, true),
            Some((told, at_ns)) => (told, !quiet && now_ns.saturating_sub(at_ns) >= PERIOD_NS),
        };
        if lost <= told || !is_due {
            return None;
        }
        self.cgroups = Some((lost, now_ns));
        Some(format!(
            "{} cgroups were created faster than their paths can be kept: those that are gone already are shown by \
             number; shorten --interval to keep more",
            lost - told
        ))
    }

    /// The changes of the log by others that have not been told.
    pub fn untold(&mut self, changes: &[String]) -> Vec<String> {
        let untold = changes.iter().skip(self.changes).cloned().collect();
        self.changes = changes.len();
        untold
    }

    /// When a GPU stops answering, and when its energy is known again.
    fn of_gpus(&mut self, ledger: &Ledger) -> Vec<String> {
        let mut new = Vec::new();
        for gpu in &ledger.gpus {
            for note in &gpu.notes {
                if self.gpu_notes.insert((gpu.zone.clone(), note.clone())) {
                    new.push(format!("GPU {} ({}): {note}", gpu.index, gpu.name));
                }
            }
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
        (dropped.processes_full, "processes found no room in the kernel's table, so some names and parents are missing: see --process-entries"),
        (dropped.nameless, "processes ran that were gone before their names could be read"),
        (dropped.cgroups_lost, "cgroups were created whose paths could not be kept, and may be shown by number"),
        (dropped.missed_runs, "events at most were missed, because the kernel skipped runs of dlpm's programs: some names may be older than \
         the last exec"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn lost_cgroups_are_summed_up_and_told_once_a_minute() {
        let mut warnings = Warnings::default();
        let mut told = |lost, seconds| warnings.of_cgroups(lost, seconds * SECOND_NS, false);
        assert_eq!(told(0, 1), None);
        assert!(told(7, 2).unwrap().starts_with("7 cgroups"));
        assert_eq!(told(7, 3), None);
        assert_eq!(told(507, 4), None);
        assert!(told(5_007, 62).unwrap().starts_with("5000 cgroups"));
        assert_eq!(told(5_007, 900), None);
    }

    #[test]
    fn who_wants_to_hear_little_hears_of_them_once() {
        let mut warnings = Warnings::default();
        let told = (1..1_000).filter_map(|second| warnings.of_cgroups(second * 500, second * SECOND_NS, true));
        assert_eq!(told.count(), 1);
    }

    #[test]
    fn a_fault_that_comes_and_goes_does_not_flood() {
        let mut limit = Limit::default();
        let mut lines = Vec::new();
        for interval in 0..6_000 {
            lines.extend(limit.apply(vec!["the disk is full".to_owned()], interval * SECOND_NS / 10));
        }
        // Ten minutes.
        assert_eq!(lines.len(), 10 * 10 + 9);
        assert_eq!(lines[10], "590 more warnings were not shown");
    }
}
