//! From the lines of a log to sums, in bounded memory.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::{facts::joules, results::Results};
use crate::{
    aipowermeter::recorded::ForeignTotals,
    attribution::ledger::Ledger,
    log::{
        Dropped, Event, LogError, LogLine, LogReader, PassedOver,
        phases::{Border, Phases},
        window::Window,
    },
    totals::{
        Totals,
        comms::Comms,
        gpus::Gpus,
        groups::{Grouping, Groups},
        phases::PhaseTotals,
    },
};

/// Everything that a report shows of a log.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Sums of the intervals in the window.
    pub totals: Totals,
    /// The same by name of the process.
    pub comms: Comms,
    /// The same by whose they are, if that was asked for.
    pub groups: Groups,
    /// The same by GPU.
    pub gpus: Gpus,
    /// The same by phase.
    pub phases: PhaseTotals,
    /// Phases that are open.
    pub open: Phases,
    /// Sums of samples that AIPowerMeter wrote.
    pub foreign: ForeignTotals,
    /// Results, and what was used until each.
    pub results: Results,
    /// Begin of the first interval of the log, in nanoseconds since 1970.
    pub log_begin_unix_ns: Option<i64>,
    /// Begin of the first interval in the window.
    pub begin_unix_ns: Option<i64>,
    /// End of the last interval in the window.
    pub end_unix_ns: Option<i64>,
    /// Traces that wrote to the log.
    pub traces: u64,
    /// Segments that were ended.
    pub segments: u64,
    /// Intervals that are not in the window.
    pub outside: u64,
    /// What is known of intervals that are missing, within the window.
    pub missing: Missing,
    /// What was passed over.
    pub passed_over: PassedOver,
    last_seq: Option<u64>,
    newest_is_wanted: bool,
}

/// Intervals that are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Intervals of which nothing is known.
    pub gaps: u64,
    /// Intervals that found no room on the disk.
    pub dropped: u64,
    /// CPU time of these, of all rows but `idle`, in ns.
    pub dropped_cpu_ns: u128,
    /// µJ of these, by zone.
    pub dropped_uj: BTreeMap<String, u128>,
    /// Bytes of the log that something else has cut off.
    pub cut_bytes: u64,
    /// How often the wall clock jumped.
    pub clock_steps: u64,
}

impl Missing {
    fn add(&mut self, dropped: &Dropped) {
        self.dropped = self.dropped.saturating_add(dropped.intervals);
        self.dropped_cpu_ns += u128::from(dropped.cpu_ns);
        for (zone, energy_uj) in &dropped.zones {
            *self.dropped_uj.entry(zone.clone()).or_default() += u128::from(*energy_uj);
        }
    }
}

impl Collected {
    /// Reads a log to its end. `results` are those of its folder; `grouping` says what else is added up.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    pub fn read(
        mut reader: LogReader,
        window: &Window,
        timezone: &TimeZone,
        results: Results,
        grouping: Option<Grouping>,
    ) -> Result<Self, LogError> {
        let mut collected = Self {
            results,
            groups: Groups::by(grouping),
            ..Self::default()
        };
        loop {
            let why = match reader.next_line()? {
                None => break,
                Some(line) => collected.line(&line, window, timezone).err(),
            };
            if let Some(why) = why {
                return Err(reader.error(why));
            }
        }
        collected.results.end();
        collected.passed_over = reader.passed_over();
        Ok(collected)
    }

    /// Whether there is anything to show.
    pub fn is_empty(&self) -> bool {
        self.totals.intervals == 0 && self.foreign.samples == 0
    }

    /// Adds the next line of a log.
    ///
    /// # Errors
    ///
    /// A sentence, if what AIPowerMeter wrote cannot be read.
    pub fn line(&mut self, line: &LogLine, window: &Window, timezone: &TimeZone) -> Result<(), String> {
        match line {
            LogLine::Interval(interval) => self.interval(&interval.ledger, window, timezone),
            LogLine::Event(event) => self.event(event, window),
            LogLine::SegmentEnd => {
                self.segments += 1;
                self.foreign.segment_end();
            }
            LogLine::Foreign(sample) => {
                let begin_unix_ns = *self.log_begin_unix_ns.get_or_insert(sample.unix_ns);
                if window.phase.is_some() || !window.holds(sample.unix_ns, begin_unix_ns, timezone) {
                    self.outside += 1;
                    self.foreign.skip(sample);
                    return Ok(());
                }
                if let Some(spent) = self.foreign.add(sample)? {
                    let (listed_joules, all_joules) = (spent.listed_joules, spent.all_joules);
                    self.results
                        .interval(spent.begin_unix_ns, sample.unix_ns, Some((listed_joules, all_joules)));
                }
                self.begin_unix_ns.get_or_insert(sample.unix_ns);
                self.end_unix_ns = Some(sample.unix_ns);
            }
            LogLine::Nothing => {}
        }
        Ok(())
    }

    fn interval(&mut self, ledger: &Ledger, window: &Window, timezone: &TimeZone) {
        // In each trace, the numbers begin again at 0.
        if self.last_seq.is_none_or(|last| ledger.seq <= last) {
            self.traces += 1;
        }
        self.last_seq = Some(ledger.seq);
        let length_ns = i64::try_from(ledger.length_ns()).unwrap_or(i64::MAX);
        let begin_unix_ns = ledger.end_unix_ns.saturating_sub(length_ns);
        let log_begin_unix_ns = *self.log_begin_unix_ns.get_or_insert(begin_unix_ns);
        let in_time = window.holds(ledger.end_unix_ns, log_begin_unix_ns, timezone);
        self.open.interval(ledger.seq);
        let is_open = |label: &String| self.open.open().any(|open| open == label);
        let wanted = in_time && window.phase.as_ref().is_none_or(is_open);
        self.newest_is_wanted = wanted;
        if !wanted {
            self.outside += 1;
            return;
        }
        self.phases.add(ledger, self.open.open());
        self.begin_unix_ns.get_or_insert(begin_unix_ns);
        self.end_unix_ns = Some(ledger.end_unix_ns);
        let listed_before = self.totals.listed().amount.energy_uj;
        self.totals.add(ledger);
        let listed_uj = self.totals.listed().amount.energy_uj - listed_before;
        let leaves = ledger.leaves.iter().filter_map(|leaf| leaf.energy_uj.as_ref().ok());
        let known: Vec<u128> = leaves.map(|energy_uj| u128::from(*energy_uj)).collect();
        let spent = (!known.is_empty()).then(|| (joules(listed_uj), joules(known.iter().sum())));
        self.results.interval(begin_unix_ns, ledger.end_unix_ns, spent);
        self.comms.add(ledger);
        self.groups.add(ledger);
        self.gpus.add(ledger);
    }

    fn event(&mut self, event: &Event, window: &Window) {
        for border in self.open.event(event) {
            if let Border::Opened(label) = border {
                self.phases.begin(&label);
            }
        }
        // An event between two intervals has no date: it belongs to the window if the interval before it does.
        let in_window = window.is_whole() || self.newest_is_wanted;
        match event {
            Event::Gap { from_seq, to_seq } if in_window => {
                let missing = to_seq.saturating_sub(from_seq.saturating_add(1));
                self.missing.gaps = self.missing.gaps.saturating_add(missing);
            }
            Event::Cut { lost_bytes } => {
                self.missing.cut_bytes = self.missing.cut_bytes.saturating_add(*lost_bytes);
            }
            Event::ClockStep { .. } if in_window => self.missing.clock_steps += 1,
            Event::Dropped(dropped) if in_window => self.missing.add(dropped),
            _ => {}
        }
    }
}
