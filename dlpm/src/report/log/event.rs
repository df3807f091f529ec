//! Lines that stand for no interval.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Something that happened between intervals. `seq` is the interval after it, where nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A phase begins.
    PhaseBegin {
        /// The first interval in it.
        seq: u64,
        /// CLOCK_MONOTONIC of the border.
        at_ns: u64,
        /// Its name.
        label: String,
    },
    /// A phase ends.
    PhaseEnd {
        /// The first interval after it.
        seq: u64,
        /// CLOCK_MONOTONIC of the border.
        at_ns: u64,
        /// Its name.
        label: String,
    },
    /// The sample before is said again, for AIPowerMeter's reader alone.
    Repeat {
        /// Which interval.
        seq: u64,
    },
    /// Intervals between these two are missing.
    Gap {
        /// The last before.
        from_seq: u64,
        /// The next after.
        to_seq: u64,
    },
    /// Zones have another state from that interval on.
    ZonesChanged {
        /// The interval after it.
        seq: u64,
        /// The zones that changed.
        zones: Vec<ZoneState>,
    },
    /// The wall clock jumped before that interval.
    ClockStep {
        /// The interval after it.
        seq: u64,
        /// By how much.
        step_ns: i64,
    },
    /// Samples found no room on the disk; this is what is known of them.
    Dropped {
        /// How many.
        intervals: u64,
        /// The first of them.
        from_seq: Option<u64>,
        /// The last of them.
        to_seq: Option<u64>,
        /// CPU time of all rows but `idle`.
        #[serde(default)]
        cpu_ns: u64,
        /// Sum of the µJ of each zone where it is known.
        #[serde(default)]
        zones: BTreeMap<String, u64>,
        /// Events and segment ends that had to go as well.
        #[serde(default)]
        other_lines: u64,
    },
    /// Something else has cut the log while it was written: lines before are missing.
    Cut {
        /// Bytes that are gone.
        lost_bytes: u64,
    },
    /// One of a later version.
    #[serde(other)]
    Unknown,
}

/// The new state of a zone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ZoneState {
    /// Its name.
    pub zone: String,
    /// `ok`, `invalid` or `absent`.
    pub state: String,
    /// Why it is invalid.
    pub reason: Option<String>,
}
