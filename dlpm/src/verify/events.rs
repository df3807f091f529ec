//! Lines that stand for no interval, and what they say about the intervals around them.

use super::sequence::{Last, Sequence};
use crate::{
    log::{Dropped, Event, differs, names::DATE_UNIT_NS},
    phases::Border,
};

/// What the samples around an event say against it.
pub fn contradiction(event: &Event, last: &Last, next: &Last) -> Option<String> {
    match event {
        Event::Gap { from_seq, to_seq } => ((*from_seq, *to_seq) != (last.seq, next.seq)).then(|| {
            format!(
                "event gap: expected from {} to {}, found from {from_seq} to {to_seq}",
                last.seq, next.seq
            )
        }),
        Event::ClockStep { seq, step_ns } => {
            let measured_ns = next.step_ns(last);
            let apart_ns = (measured_ns - i128::from(*step_ns)).abs();
            (*seq != next.seq || apart_ns > 2 * i128::from(DATE_UNIT_NS)).then(|| {
                format!(
                    "event clock_step: expected seq {} and {measured_ns} ns, found {seq} and {step_ns}",
                    next.seq
                )
            })
        }
        Event::ZonesChanged { seq, zones } => {
            if *seq != next.seq {
                return Some(differs("event zones_changed: seq", next.seq, seq));
            }
            zones.iter().find_map(|changed| {
                let is = match next.zones.get(&changed.zone).map(|end| end.energy_uj) {
                    None => "absent",
                    Some(None) => "invalid",
                    Some(Some(_)) => "ok",
                };
                let what = format!("event zones_changed: state of {}", changed.zone);
                (is != changed.state).then(|| differs(&what, is, &changed.state))
            })
        }
        _ => None,
    }
}

impl Sequence {
    /// What is wrong with an event. One that is not known may be of a later version, and says nothing about intervals.
    pub fn event(&mut self, event: Event) -> Vec<String> {
        let last = self.last.as_ref().map(|last| (last.seq, last.end_ns));
        match event {
            Event::Gap { .. } | Event::ClockStep { .. } | Event::ZonesChanged { .. } => {
                self.announced.push(event);
                Vec::new()
            }
            Event::Dropped(dropped) => self.dropped(&dropped),
            Event::Cut { .. } => {
                self.phases.lose_track();
                self.lose_track();
                self.announced.clear();
                Vec::new()
            }
            Event::PhaseBegin { seq, at_ns, label } => self.phases.event(true, Border { seq, at_ns }, &label, last),
            Event::PhaseEnd { seq, at_ns, label } => self.phases.event(false, Border { seq, at_ns }, &label, last),
            Event::Repeat { .. } | Event::Continues { .. } | Event::Removed { .. } | Event::Unknown => Vec::new(),
        }
    }

    /// Samples found no room on the disk: nothing is known of what is between.
    fn dropped(&mut self, dropped: &Dropped) -> Vec<String> {
        let mut failures = Vec::new();
        if let Some((from_seq, to_seq)) = dropped.from_seq.zip(dropped.to_seq) {
            let most = to_seq
                .checked_sub(from_seq)
                .map_or(0, |length| length.saturating_add(1));
            let intervals = dropped.intervals;
            if intervals == 0 || intervals > most {
                failures.push(format!(
                    "event dropped: {intervals} intervals are not what is between {from_seq} and {to_seq}"
                ));
            }
            self.dropped_to = Some(to_seq);
            self.phases.dropped(from_seq, to_seq);
        }
        if dropped.other_lines > 0 {
            self.phases.lose_track();
        }
        self.lose_track();
        self.announced.clear();
        failures
    }
}
