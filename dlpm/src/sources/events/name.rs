//! Names of perf events, as `perf list` has them.

use std::{fmt, str::FromStr};

/// Instructions on wide vectors: another event on each maker's processors.
pub const WIDE_VECTORS: &str = "wide-vectors";

/// What `--counters` counts if it is not told.
pub const DEFAULT: &str = "cycles,instructions,cache-misses,wide-vectors";

/// Generalised hardware events: `enum perf_hw_id` of the kernel's `include/uapi/linux/perf_event.h`.
const HARDWARE: [&str; 10] = [
    "cycles",
    "instructions",
    "cache-references",
    "cache-misses",
    "branches",
    "branch-misses",
    "bus-cycles",
    "stalled-cycles-frontend",
    "stalled-cycles-backend",
    "ref-cycles",
];

/// Events that the kernel counts itself: `enum perf_sw_ids` of the same file.
const SOFTWARE: [&str; 9] = [
    "cpu-clock",
    "task-clock",
    "page-faults",
    "context-switches",
    "cpu-migrations",
    "minor-faults",
    "major-faults",
    "alignment-faults",
    "emulation-faults",
];

/// Longest name that is taken.
const LONGEST: usize = 64;

/// An event that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventName {
    text: String,
    kind: Kind,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Hardware(u64),
    Software(u64),
    Raw(u64),
    WideVectors,
    OfPmu { pmu: String, event: String },
}

impl EventName {
    /// The events that are counted if none are named.
    pub fn defaults() -> Vec<Self> {
        DEFAULT.split(',').filter_map(|name| name.parse().ok()).collect()
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl FromStr for EventName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            format!(
                "an event is one of {}, {}, {WIDE_VECTORS}, rHEX (a raw event of the processor) or PMU/EVENT/ as in \
                 msr/tsc/; `perf list` shows what there is",
                HARDWARE.join(", "),
                SOFTWARE.join(", ")
            )
        };
        let at = |names: &[&str]| {
            names
                .iter()
                .position(|name| *name == text)
                .and_then(|at| u64::try_from(at).ok())
        };
        let raw = text
            .strip_prefix('r')
            .filter(|digits| (1..=16).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let is_file = |name: &str| {
            !name.is_empty()
                && !name.starts_with('.')
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let of_pmu = text.strip_suffix('/').and_then(|text| text.split_once('/'));
        let kind = if text.len() > LONGEST {
            None
        } else if let Some(number) = at(&HARDWARE) {
            Some(Kind::Hardware(number))
        } else if let Some(number) = at(&SOFTWARE) {
            Some(Kind::Software(number))
        } else if text == WIDE_VECTORS {
            Some(Kind::WideVectors)
        } else if let Some(config) = raw {
            Some(Kind::Raw(config))
        } else {
            of_pmu
                .filter(|(pmu, event)| is_file(pmu) && is_file(event))
                .map(|(pmu, event)| Kind::OfPmu {
                    pmu: pmu.to_owned(),
                    event: event.to_owned(),
                })
        };
        Ok(Self {
            text: text.to_owned(),
            kind: kind.ok_or_else(refused)?,
        })
    }
}
