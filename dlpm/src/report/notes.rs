//! What is not exact in a report, estimated, dropped or missing.

use super::{collect::Collected, facts::difference_uj};
use crate::{
    printable::printable,
    tables::{figures::decimal, notes::notes as of_totals},
};

/// What is not exact, estimated, dropped or missing: a sentence each.
pub fn notes(collected: &Collected) -> Vec<String> {
    let totals = &collected.totals;
    let mut notes = of_totals(totals);
    let missing = &collected.missing;
    let mut say = |holds: bool, note: String| {
        if holds {
            notes.push(printable(&note));
        }
    };
    let difference_uj = difference_uj(totals);
    say(
        difference_uj > 0,
        format!("zones and rows differ by {difference_uj} µJ: the log was changed, `dlpm verify` shows where"),
    );
    say(
        totals.mixed_policies,
        "the traces in this log have several idle policies, so their sums do too".to_owned(),
    );
    say(
        missing.cut_bytes > 0,
        format!(
            "something else has cut {} bytes off the log while it was written: what they held is in no table",
            missing.cut_bytes
        ),
    );
    say(
        missing.gaps > 0,
        format!("{} intervals are missing, and nothing is known of them", missing.gaps),
    );
    let dropped = missing.dropped_uj.iter();
    let dropped: Vec<String> = dropped
        .map(|(zone, energy_uj)| format!("{zone} {} J", decimal(*energy_uj, 6, 3)))
        .collect();
    say(
        missing.dropped > 0,
        format!(
            "{} intervals found no room on the disk; they are in no table: {} s of CPU time, {}",
            missing.dropped,
            decimal(missing.dropped_cpu_ns, 9, 3),
            if dropped.is_empty() {
                "no energy known".to_owned()
            } else {
                dropped.join(", ")
            }
        ),
    );
    say(
        missing.clock_steps > 0,
        format!("the wall clock jumped {} times", missing.clock_steps),
    );
    for gpu in collected.gpus.totals.values() {
        let reason = gpu.sm_time_missing.as_deref().unwrap_or_default();
        say(
            gpu.without_sm_time > 0,
            format!(
                "GPU {} has no SM time by process in {} intervals: {reason}",
                gpu.index, gpu.without_sm_time
            ),
        );
        say(
            gpu.dropped_samples > 0,
            format!(
                "{} samples of GPU {} make no sense and are left out",
                gpu.dropped_samples, gpu.index
            ),
        );
    }
    let passed_over = collected.passed_over;
    say(
        passed_over.torn_bytes > 0,
        format!(
            "the last line is not whole ({} bytes) and was passed over: the trace is writing it, or was killed",
            passed_over.torn_bytes
        ),
    );
    say(
        passed_over.missing_files > 0,
        format!(
            "{} earlier files of the log are missing: nothing of them is in these sums",
            passed_over.missing_files
        ),
    );
    say(
        passed_over.unknown_events > 0,
        format!(
            "{} events are of a later version of dlpm and were passed over",
            passed_over.unknown_events
        ),
    );
    say(
        passed_over.other_lines > 0,
        format!("{} lines say nothing and were passed over", passed_over.other_lines),
    );
    say(
        collected.open.unmatched() > 0,
        format!("{} phases end that had not begun", collected.open.unmatched()),
    );
    let beyond = collected.phases.beyond + collected.open.beyond();
    say(
        beyond > 0,
        format!("{beyond} phases are not told apart: there are too many"),
    );
    say(
        collected.comms.uncounted,
        "there are too many processes to count them by name: those numbers are lower bounds".to_owned(),
    );
    say(
        collected.results.no_numbers > 0,
        format!(
            "{} results are not numbers and were passed over",
            collected.results.no_numbers
        ),
    );
    foreign_notes(collected, &mut notes);
    notes
}

fn foreign_notes(collected: &Collected, notes: &mut Vec<String>) {
    let foreign = &collected.foreign;
    if foreign.samples == 0 {
        return;
    }
    notes.push(format!(
        "{} samples have no exact part, as those that AIPowerMeter records: watts are taken to have held since the sample before; of the {} that are the \
         first of a segment the energy is not known",
        foreign.samples, foreign.first_samples
    ));
    notes.push(
        "so there is no idle time, no balance, there are no names, cgroups or phases, and joules of processes \
         that ended between two samples are missing"
            .to_owned(),
    );
    if foreign.backwards > 0 {
        notes.push(format!(
            "{} samples are dated before the one before them",
            foreign.backwards
        ));
    }
    if foreign.other_pids > 0 {
        notes.push(format!(
            "{} values are of pids beyond the first 10000, and left out",
            foreign.other_pids
        ));
    }
}
