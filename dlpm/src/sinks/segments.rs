//! From ledgers to lines: which segment a sample belongs to, and when one ends.
//!
//! AIPowerMeter's reader integrates over the dates of a segment and needs every key in the last sample before the
//! segment's end. So a segment has the same keys from beginning to end, and a new one begins where the state of a
//! zone changes, where intervals are missing, and where the clock of the dates jumps.
//!
//! It integrates by trapezoids, so that the watts of a sample weigh as much as half of the *next* interval. Those of an
//! interval of 0.1 ms in which a meter happened to move would be ten times too high, for a second. So an interval that is
//! too short to tell power repeats the metrics of the sample before it.

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use crate::{
    attribution::ledger::Ledger,
    interval::{Identity, MachineMemory, SHORT_NS},
    phases::{Border, Change},
    sinks::{
        aipowermeter::CpuMetrics,
        gpu_metrics::GpuMetrics,
        line::{Line, LineKind, SCHEMA, SampleFacts},
        log_line::Exact,
    },
};

/// Date and monotonic clock may move apart by this much from one sample to the next. Slewing (at most 0.05 % by NTP)
/// stays below it; steps and suspends that matter do not.
const CLOCK_STEP_NS: u64 = 500_000_000;

/// Distance of a repeated sample from its original.
const REPEAT_AFTER_NS: i64 = 1_000_000;

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

/// The state of a zone as events tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ZoneState {
    zone: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl ZoneState {
    fn all_of(ledger: &Ledger) -> Vec<Self> {
        let roots = ledger.roots.iter().map(|root| (&root.zone, &root.energy_uj));
        let leaves = ledger.leaves.iter().map(|leaf| (&leaf.zone, &leaf.energy_uj));
        roots
            .chain(leaves)
            .map(|(zone, energy_uj)| Self {
                zone: zone.clone(),
                state: if energy_uj.is_ok() { "ok" } else { "invalid" },
                reason: energy_uj.as_ref().err().cloned(),
            })
            .collect()
    }

    fn same_state(&self, other: &Self) -> bool {
        self.zone == other.zone && self.state == other.state
    }
}

#[derive(Serialize)]
struct SampleLine<'a, T> {
    date: String,
    metrics: Metrics<'a>,
    dlpm: T,
}

#[derive(Serialize)]
struct Metrics<'a> {
    cpu: &'a CpuMetrics,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu: Option<&'a GpuMetrics>,
}

#[derive(Serialize)]
struct Repeat {
    schema: u32,
    event: &'static str,
    seq: u64,
}

#[derive(Serialize)]
struct ZonesChanged {
    seq: u64,
    zones: Vec<ZoneState>,
}

#[derive(Serialize)]
struct Gap {
    from_seq: u64,
    to_seq: u64,
}

#[derive(Serialize)]
struct ClockStep {
    seq: u64,
    step_ns: i64,
}

#[derive(Serialize)]
struct Phase<'a> {
    seq: u64,
    at_ns: u64,
    label: &'a str,
}

/// The lines that say what changes at `border`. They stand after the line of the interval before it and the lines that
/// belong to that, and before that of the interval after it.
///
/// # Errors
///
/// As [`Segmenter::next`].
pub fn phase_events(border: Border, changes: &[Change]) -> serde_json::Result<Vec<Line>> {
    let line = |change: &Change| {
        let (event, label) = match change {
            Change::Begin(label) => ("phase_begin", label),
            Change::End(label) => ("phase_end", label),
        };
        Line::event(
            event,
            &Phase {
                seq: border.seq,
                at_ns: border.at_ns,
                label,
            },
        )
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
        let zones = ZoneState::all_of(ledger);
        let mut metrics = OwnMetrics {
            cpu: CpuMetrics::of(ledger, self.machine, self.encoding.aliases),
            gpu: GpuMetrics::of(ledger),
        };
        let mut tells_power = ledger.end_ns.saturating_sub(ledger.begin_ns) >= SHORT_NS;

        let mut lines = Vec::new();
        if let Some(event) = self.break_before(ledger, &zones, tells_power, metrics.cpu.power_keys())? {
            lines.extend(self.end()?);
            lines.push(event);
        }
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
        lines.push(Line::new(LineKind::Sample(Some(SampleFacts::of(ledger))), &line)?);
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
            let line = SampleLine {
                date: date(
                    open.end_unix_ns.saturating_add(REPEAT_AFTER_NS),
                    &self.encoding.timezone,
                ),
                metrics: open.metrics.borrow(),
                dlpm: Repeat {
                    schema: SCHEMA,
                    event: "repeat",
                    seq: open.seq,
                },
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
            let gap = Gap {
                from_seq: open.seq,
                to_seq: ledger.seq,
            };
            return Line::event("gap", &gap).map(Some);
        }
        let changed = changed_zones(&open.zones, zones);
        // A sample that repeats metrics has their keys.
        let repeats = !tells_power && open.tells_power;
        if !changed.is_empty() || (!repeats && power_keys != open.metrics.cpu.power_keys()) {
            let event = ZonesChanged {
                seq: ledger.seq,
                zones: changed,
            };
            return Line::event("zones_changed", &event).map(Some);
        }
        let by_date = i128::from(ledger.end_unix_ns) - i128::from(open.end_unix_ns);
        let step_ns = by_date - (i128::from(ledger.end_ns) - i128::from(open.end_ns));
        if step_ns.unsigned_abs() > u128::from(CLOCK_STEP_NS) {
            let step_ns = i64::try_from(step_ns).unwrap_or(if step_ns < 0 { i64::MIN } else { i64::MAX });
            let event = ClockStep {
                seq: ledger.seq,
                step_ns,
            };
            return Line::event("clock_step", &event).map(Some);
        }
        Ok(None)
    }
}

fn changed_zones(before: &[ZoneState], now: &[ZoneState]) -> Vec<ZoneState> {
    let changed = now.iter().filter(|zone| !before.iter().any(|old| old.same_state(zone)));
    let gone = before
        .iter()
        .filter(|old| !now.iter().any(|zone| zone.zone == old.zone));
    changed
        .cloned()
        .chain(gone.map(|old| ZoneState {
            zone: old.zone.clone(),
            state: "absent",
            reason: None,
        }))
        .collect()
}

/// `unix_ns` (nanoseconds since 1970) as `YYYY-MM-DD HH:MM:SS.ffffff±HH:MM`.
///
/// The offset keeps dates in order when clocks are set back in autumn; six digits are what Python 3.8 can read.
pub fn date(unix_ns: i64, timezone: &TimeZone) -> String {
    // Every i64 is a time between 1677 and 2262, which a timestamp can hold.
    let time = Timestamp::from_nanosecond(unix_ns.into()).unwrap_or_default();
    time.to_zoned(timezone.clone())
        .strftime("%Y-%m-%d %H:%M:%S%.6f%:z")
        .to_string()
}

#[cfg(test)]
mod tests {
    use jiff::tz;
    use serde_json::Value;

    use super::*;
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

    #[test]
    fn dates_have_six_digits_and_an_offset() {
        let (utc, india) = (
            TimeZone::UTC,
            TimeZone::fixed(tz::Offset::from_seconds(19_800).unwrap()),
        );
        assert_eq!(date(0, &utc), "1970-01-01 00:00:00.000000+00:00");
        assert_eq!(
            date(1_767_225_600_123_456_999, &india),
            "2026-01-01 05:30:00.123456+05:30"
        );
        assert_eq!(date(-1, &utc), "1969-12-31 23:59:59.999999+00:00");
        for extreme in [i64::MIN, i64::MAX] {
            assert_eq!(date(extreme, &utc).len(), "1970-01-01 00:00:00.000000+00:00".len());
        }
    }
}
