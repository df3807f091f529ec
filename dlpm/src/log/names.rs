//! Names and constants of the format, for who writes a log and who reads it.

use std::path::{Path, PathBuf};

/// Name of the log in its folder.
pub const LOG_NAME: &str = "power_metrics.json";

/// What the names of closed files of a log have before and after their number.
const CLOSED: (&str, &str) = ("power_metrics.", ".json");

/// What the name of a compressed file ends with.
pub const COMPRESSED: &str = ".zst";

/// Name of what is said about the trace, beside the log.
pub const METADATA_NAME: &str = "metadata.json";

/// Name of the results of an experiment, beside the log.
pub const RESULTS_NAME: &str = "results_exp.json";

/// Ends a segment; AIPowerMeter's reader compares with exactly this string.
pub const SEGMENT_END: &str = "END OF RECORDING SEGMENT";

/// Version of the layout of the `dlpm` object.
pub const SCHEMA: u32 = 1;

/// Within a segment, date and monotonic clock move apart by no more than this from one sample to the next. Slewing (at
/// most 0.05 % by NTP) stays below it; steps and suspends that matter do not.
pub const CLOCK_STEP_NS: i64 = 500_000_000;

/// Distance of a repeated sample from its original.
pub const REPEAT_AFTER_NS: i64 = 1_000_000;

/// Dates are written in whole microseconds.
pub const DATE_UNIT_NS: i64 = 1_000;

/// Name of a file of a log that was closed, by its number, from 1. Compressed, it ends with [`COMPRESSED`].
pub fn closed_name(number: u64) -> String {
    format!("{}{number:06}{}", CLOSED.0, CLOSED.1)
}

/// The number of a closed file; `None` where the name is not that of one.
pub fn closed_number(name: &str) -> Option<u64> {
    let plain = name.strip_suffix(COMPRESSED).unwrap_or(name);
    let number = plain.strip_prefix(CLOSED.0)?.strip_suffix(CLOSED.1)?.parse().ok()?;
    (number > 0 && closed_name(number) == plain).then_some(number)
}

/// The log that `path` means: of that folder, or the file itself.
pub fn log_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join(LOG_NAME)
    } else {
        path.to_owned()
    }
}
