//! From ledgers to lines: which segment a sample belongs to, and when one ends.
//!
//! AIPowerMeter's reader integrates over the dates of a segment and needs every key in the last sample before the
//! segment's end. So a segment has the same keys from beginning to end, and a new one begins where the state of a
//! zone changes, where intervals are missing, and where the clock of the dates jumps.
//!
//! It integrates by trapezoids, so that the watts of a sample weigh as much as half of the *next* interval. Those of an
//! interval of 0.1 ms in which a meter happened to move would be ten times too high, for a second. So an interval that is
//! too short to tell power repeats the metrics of the sample before it.

use jiff::tz::TimeZone;
use serde::Serialize;

use crate::{
    aipowermeter::{cpu::CpuMetrics, gpu::GpuMetrics},
    attribution::ledger::{Ledger, ZoneView},
    interval::{Identity, MachineMemory},
    log::{
        Event, Line, LineKind, SampleFacts, ZoneState,
        date::date,
        event::EventPart,
        exact::Exact,
        line::SampleLine,
        names::{CLOCK_STEP_NS, REPEAT_AFTER_NS},
        rotation::{Filled, Limit},
    },
    phases::{Border, Change},
};

/// How lines are written.
#[derive(Clone, Debug)]
pub struct Encoding {
    /// What tells processes apart.
    pub identity: Identity,
    /// Whether AIPowerMeter's names of 2021 are written beside the present ones.
    pub aliases: bool,
    /// Time zone of the dates.
    pub timezone: TimeZone,
}

/// Makes the lines of a log from ledgers, one after another.
#[derive(Debug)]
pub struct Segmenter {
    encoding: Encoding,
    machine: Option<MachineMemory>,
    open: Option<OpenSegment>,
    filled: Option<Filled>,
}

/// The segment that the next sample may belong to.
#[derive(Debug)]
struct OpenSegment {
    seq: u64,
    end_ns: u64,
    end_unix_ns: i64,
    zones: Vec<ZoneState>,
    samples: u64,
    /// The metrics of the newest sample.
    metrics: OwnMetrics,
    /// Whether these are of an interval that was long enough to tell power.
    tells_power: bool,
}

/// What `metrics` holds.
#[derive(Debug)]
struct OwnMetrics {
    cpu: CpuMetrics,
    gpu: Option<GpuMetrics>,
}

impl OwnMetrics {
    fn borrow(&self) -> Metrics<'_> {
        Metrics {
            cpu: &self.cpu,
            gpu: self.gpu.as_ref(),
        }
    }
}

/// The state of every zone, as events tell it.
fn states(ledger: &Ledger) -> Vec<ZoneState> {
    let state = |zone: ZoneView| ZoneState {
        zone: zone.zone.to_owned(),
        state: if zone.energy_uj.is_ok() { "ok" } else { "invalid" }.to_owned(),
        reason: zone.energy_uj.as_ref().err().cloned(),
    };
    ledger.zones().map(state).collect()
}

#[derive(Serialize)]
struct Metrics<'a> {
    cpu: &'a CpuMetrics,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu: Option<&'a GpuMetrics>,
}

/// The lines that say what changes at `border`. They stand after the line of the interval before it and the lines that
/// belong to that, and before that of the interval after it.
///
/// # Errors
///
/// As [`Segmenter::next`].
pub fn phase_events(border: Border, changes: &[Change]) -> serde_json::Result<Vec<Line>> {
    let Border { seq, at_ns } = border;
    let line = |change: &Change| {
        Line::event(&match change.clone() {
            Change::Begin(label) => Event::PhaseBegin { seq, at_ns, label },
            Change::End(label) => Event::PhaseEnd { seq, at_ns, label },
        })
    };
    changes.iter().map(line).collect()
}

impl Segmenter {
    /// A segmenter for a log to which nothing has been written since its last segment end.
    pub fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            machine: None,
            open: None,
            filled: None,
        }
    }

    /// The same, with the places where files of the log end.
    pub fn rotating(self, limit: Option<Limit>) -> Self {
        Self {
            filled: limit.map(Filled::new),
            ..self
        }
    }

    /// The lines for the next ledger: a sample, before it the end of the open segment and an event where one is due.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be written as JSON, which its types rule out.
    pub fn next(&mut self, ledger: &Ledger) -> serde_json::Result<Vec<Line>> {
        // The reader wants a key in every sample, also when memory could not be read just now.
        self.machine = ledger.machine_memory.or(self.machine);
        let zones = states(ledger);
        let mut metrics = OwnMetrics {
            cpu: CpuMetrics::of(ledger, self.machine, self.encoding.aliases),
            gpu: GpuMetrics::of(ledger),
        };
        let mut tells_power = ledger.tells_power();

        let mut lines = Vec::new();
        let event = self.break_before(ledger, &zones, tells_power, metrics.cpu.power_keys())?;
        let rotates = self.filled.as_mut().is_some_and(|filled| filled.ends_before(ledger));
        if event.is_some() || rotates {
            lines.extend(self.end()?);
        }
        lines.extend(rotates.then(Line::rotation));
        lines.extend(event);
        let mut samples = 1;
        if let Some(open) = self.open.take() {
            samples += open.samples;
            if !tells_power && open.tells_power {
                (metrics, tells_power) = (open.metrics, true);
            }
        }
        let line = SampleLine {
            date: date(ledger.end_unix_ns, &self.encoding.timezone),
            metrics: metrics.borrow(),
            dlpm: Exact::of(ledger, self.encoding.identity),
        };
        let line = Line::new(LineKind::Sample(Some(SampleFacts::of(ledger))), &line)?;
        if let Some(filled) = &mut self.filled {
            filled.add(line.text().len());
        }
        lines.push(line);
        self.open = Some(OpenSegment {
            seq: ledger.seq,
            end_ns: ledger.end_ns,
            end_unix_ns: ledger.end_unix_ns,
            zones,
            samples,
            metrics,
            tells_power,
        });
        Ok(lines)
    }

    /// The lines that end the open segment; none if there is no open one.
    ///
    /// The reader cannot take two segments of one sample each: such a sample is repeated 1 ms later, without an exact
    /// part, so that no total counts it twice.
    ///
    /// # Errors
    ///
    /// As [`Self::next`].
    pub fn end(&mut self) -> serde_json::Result<Vec<Line>> {
        let Some(open) = self.open.take() else {
            return Ok(Vec::new());
        };
        let mut lines = Vec::new();
        if open.samples == 1 {
            let repeat = Event::Repeat { seq: open.seq };
            let line = SampleLine {
                date: date(
                    open.end_unix_ns.saturating_add(REPEAT_AFTER_NS),
                    &self.encoding.timezone,
                ),
                metrics: open.metrics.borrow(),
                dlpm: EventPart::of(&repeat),
            };
            lines.push(Line::new(LineKind::Sample(None), &line)?);
        }
        lines.push(Line::segment_end());
        Ok(lines)
    }

    /// The event that says why `ledger` cannot continue the open segment.
    fn break_before(
        &self,
        ledger: &Ledger,
        zones: &[ZoneState],
        tells_power: bool,
        power_keys: [bool; 8],
    ) -> serde_json::Result<Option<Line>> {
        let Some(open) = &self.open else {
            return Ok(None);
        };
        if ledger.seq != open.seq.saturating_add(1) {
            let gap = Event::Gap {
                from_seq: open.seq,
                to_seq: ledger.seq,
            };
            return Line::event(&gap).map(Some);
        }
        let changed = changed_zones(&open.zones, zones);
        // A sample that repeats metrics has their keys.
        let repeats = !tells_power && open.tells_power;
        if !changed.is_empty() || (!repeats && power_keys != open.metrics.cpu.power_keys()) {
            let changed = Event::ZonesChanged {
                seq: ledger.seq,
                zones: changed,
            };
            return Line::event(&changed).map(Some);
        }
        let by_date = i128::from(ledger.end_unix_ns) - i128::from(open.end_unix_ns);
        let step_ns = by_date - (i128::from(ledger.end_ns) - i128::from(open.end_ns));
        if step_ns.abs() > i128::from(CLOCK_STEP_NS) {
            let step = Event::ClockStep {
                seq: ledger.seq,
                step_ns: i64::try_from(step_ns).unwrap_or(if step_ns < 0 { i64::MIN } else { i64::MAX }),
            };
            return Line::event(&step).map(Some);
        }
        Ok(None)
    }
}

fn changed_zones(before: &[ZoneState], now: &[ZoneState]) -> Vec<ZoneState> {
    let same_state = |a: &ZoneState, b: &ZoneState| a.zone == b.zone && a.state == b.state;
    let changed = now
        .iter()
        .filter(|zone| !before.iter().any(|old| same_state(old, zone)));
    let gone = before
        .iter()
        .filter(|old| !now.iter().any(|zone| zone.zone == old.zone));
    changed
        .cloned()
        .chain(gone.map(|old| ZoneState {
            zone: old.zone.clone(),
            state: "absent".to_owned(),
            reason: None,
        }))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::sinks::testing::{all_zones, ledger, segmenter_with};

    /// The line that `docs/log-format.md` shows is the one that its ledger gives.
    #[test]
    fn the_documented_line_is_real() {
        let (_, documented) = include_str!("../../../docs/log-format.md")
            .split_once("```json\n")
            .unwrap();
        let (documented, _) = documented.split_once("```").unwrap();
        let lines = segmenter_with(false).next(&ledger(7, all_zones())).unwrap();
        println!("{}", lines[0].text());
        let (documented, line): (Value, Value) = (
            serde_json::from_str(documented).unwrap(),
            serde_json::from_str(lines[0].text()).unwrap(),
        );
        assert_eq!(documented, line);
    }
}
