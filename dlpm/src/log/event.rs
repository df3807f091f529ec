//! Lines that stand for no interval.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::names::SCHEMA;

/// Something that happened between intervals. `seq` is the interval after it, where nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Samples found no room on the disk.
    Dropped(Dropped),
    /// Something else has cut the log while it was written: lines before are missing.
    Cut {
        /// Bytes that are gone.
        lost_bytes: u64,
    },
    /// The first line of a file: the log goes on here from a file that was closed.
    Continues {
        /// Its number.
        file: u64,
        /// Lines that it has.
        lines: u64,
        /// SHA-256 of its bytes before they were compressed, in hexadecimal digits.
        sha256: String,
    },
    /// Files were deleted to make room, as the budget of the log says: this one, and all before it.
    Removed {
        /// Its number.
        file: u64,
    },
    /// One of a later version.
    #[serde(other, skip_serializing)]
    Unknown,
}

/// The new state of a zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneState {
    /// Its name.
    pub zone: String,
    /// `ok`, `invalid` or `absent`.
    pub state: String,
    /// Why it is invalid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is known of samples that had to be dropped: everything but who used it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many.
    pub intervals: u64,
    /// The first of them.
    pub from_seq: Option<u64>,
    /// The last of them.
    pub to_seq: Option<u64>,
    /// CPU time of all rows but `idle`.
    #[serde(default)]
    pub cpu_ns: u64,
    /// Sum of the µJ of each zone where it is known.
    #[serde(default)]
    pub zones: BTreeMap<String, u64>,
    /// Events and segment ends, dropped where no sample was left to drop.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub other_lines: u64,
}

impl Event {
    /// The first line of the file after a closed one, which has this number, this many lines, and these bytes.
    pub fn continues(file: u64, lines: u64, bytes: Sha256) -> Self {
        let sha256 = bytes.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Self::Continues { file, lines, sha256 }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An event as the object `dlpm` of a line.
#[derive(Debug, Serialize)]
pub struct EventPart<'a> {
    schema: u32,
    #[serde(flatten)]
    event: &'a Event,
}

impl<'a> EventPart<'a> {
    /// As it is written.
    pub fn of(event: &'a Event) -> Self {
        Self { schema: SCHEMA, event }
    }
}
