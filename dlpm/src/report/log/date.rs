//! Dates of lines.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// Nanoseconds since 1970 of `YYYY-MM-DD HH:MM:SS.ffffff`, with an offset as dlpm writes it, or without one as
/// AIPowerMeter does; that is a time of `timezone`, and where the clock is set back the first of two.
///
/// # Errors
///
/// A sentence on what is expected.
pub fn unix_ns(date: &str, timezone: &TimeZone) -> Result<i64, String> {
    let timestamp: Option<Timestamp> = date.parse().ok().or_else(|| {
        let local: DateTime = date.parse().ok()?;
        timezone.to_ambiguous_timestamp(local).compatible().ok()
    });
    timestamp
        .and_then(|timestamp| i64::try_from(timestamp.as_nanosecond()).ok())
        .ok_or_else(|| format!("date: expected YYYY-MM-DD HH:MM:SS.ffffff±HH:MM, found {date:?}"))
}
