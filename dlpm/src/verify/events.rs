//! Lines that stand for no interval, and what they say about the intervals around them.

use serde_json::Value;

use super::sequence::{DATE_UNIT_NS, Last, Sequence};

/// What an event says about the next sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Intervals between these two are missing.
    Gap {
        /// The last before.
        from_seq: u64,
        /// The next after.
        to_seq: u64,
    },
    /// The wall clock jumped before that interval.
    ClockStep {
        /// The interval after it.
        seq: u64,
        /// By how much.
        step_ns: i128,
    },
    /// Zones have another state from that interval on.
    Zones {
        /// The interval after it.
        seq: u64,
        /// Name and state of each.
        states: Vec<(String, String)>,
    },
}

impl Announced {
    /// Whether missing intervals are announced.
    pub fn is_gap(&self) -> bool {
        matches!(self, Self::Gap { .. })
    }

    /// What the samples around the event say against it.
    pub fn contradiction(&self, last: &Last, next: &Last) -> Option<String> {
        match self {
            Self::Gap { from_seq, to_seq } => ((*from_seq, *to_seq) != (last.seq, next.seq)).then(|| {
                format!(
                    "event gap: expected from {} to {}, found from {from_seq} to {to_seq}",
                    last.seq, next.seq
                )
            }),
            Self::ClockStep { seq, step_ns } => {
                let measured_ns = next.step_ns(last);
                (*seq != next.seq || (measured_ns - step_ns).abs() > 2 * DATE_UNIT_NS).then(|| {
                    format!(
                        "event clock_step: expected seq {} and {measured_ns} ns, found {seq} and {step_ns}",
                        next.seq
                    )
                })
            }
            Self::Zones { seq, states } => {
                if *seq != next.seq {
                    return Some(super::differs("event zones_changed: seq", next.seq, seq));
                }
                states.iter().find_map(|(zone, state)| {
                    let is = match next.zones.get(zone).map(|end| end.energy_uj) {
                        None => "absent",
                        Some(None) => "invalid",
                        Some(Some(_)) => "ok",
                    };
                    (is != state).then(|| super::differs(&format!("event zones_changed: state of {zone}"), is, state))
                })
            }
        }
    }
}

impl Sequence {
    /// What is wrong with an event. One that is not known may be of a later version, and says nothing about intervals.
    pub fn event(&mut self, event: &str, details: &Value) -> Vec<String> {
        let number = |field: &str| details.get(field).and_then(Value::as_u64);
        let announced = match event {
            "gap" => number("from_seq")
                .zip(number("to_seq"))
                .map(|(from_seq, to_seq)| Announced::Gap { from_seq, to_seq }),
            "clock_step" => number("seq")
                .zip(details.get("step_ns").and_then(Value::as_i64))
                .map(|(seq, step_ns)| Announced::ClockStep {
                    seq,
                    step_ns: step_ns.into(),
                }),
            "zones_changed" => number("seq")
                .zip(states(details))
                .map(|(seq, states)| Announced::Zones { seq, states }),
            "dropped" => return self.dropped(details),
            "cut" => {
                self.phases.lose_track();
                self.lose_track();
                self.announced.clear();
                return Vec::new();
            }
            "phase_begin" | "phase_end" => {
                let last = self.last.as_ref().map(|last| (last.seq, last.end_ns));
                return self.phases.event(event, details, last);
            }
            _ => return Vec::new(),
        };
        match announced {
            Some(announced) => {
                self.announced.push(announced);
                Vec::new()
            }
            None => vec![format!("event {event} lacks a field")],
        }
    }

    /// Samples found no room on the disk: nothing is known of what is between.
    fn dropped(&mut self, details: &Value) -> Vec<String> {
        let number = |field: &str| details.get(field).and_then(Value::as_u64);
        let Some(intervals) = number("intervals") else {
            return vec!["event dropped lacks intervals".to_owned()];
        };
        let mut failures = Vec::new();
        if let Some((from_seq, to_seq)) = number("from_seq").zip(number("to_seq")) {
            let most = to_seq
                .checked_sub(from_seq)
                .map_or(0, |length| length.saturating_add(1));
            if intervals == 0 || intervals > most {
                failures.push(format!(
                    "event dropped: {intervals} intervals are not what is between {from_seq} and {to_seq}"
                ));
            }
            self.dropped_to = Some(to_seq);
            self.phases.dropped(from_seq, to_seq);
        }
        if number("other_lines").is_some() {
            self.phases.lose_track();
        }
        self.lose_track();
        self.announced.clear();
        failures
    }
}

fn states(details: &Value) -> Option<Vec<(String, String)>> {
    details
        .get("zones")?
        .as_array()?
        .iter()
        .map(|zone| {
            Some((
                zone.get("zone")?.as_str()?.to_owned(),
                zone.get("state")?.as_str()?.to_owned(),
            ))
        })
        .collect()
}
