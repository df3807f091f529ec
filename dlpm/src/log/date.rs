//! Dates of lines.

use jiff::{Timestamp, civil::DateTime, fmt::strtime, tz::TimeZone};

/// The form in which dlpm writes them. The offset keeps dates in order when clocks are set back in autumn; six digits
/// are what Python 3.8 can read.
const FORM: &str = "YYYY-MM-DD HH:MM:SS.ffffff±HH:MM";

/// What reads it.
const WRITTEN: &str = "%Y-%m-%d %H:%M:%S%.f%:z";

/// `unix_ns` (nanoseconds since 1970) as `YYYY-MM-DD HH:MM:SS.ffffff±HH:MM`.
pub fn date(unix_ns: i64, timezone: &TimeZone) -> String {
    // Every i64 is a time between 1677 and 2262, which a timestamp can hold.
    let time = Timestamp::from_nanosecond(unix_ns.into()).unwrap_or_default();
    time.to_zoned(timezone.clone())
        .strftime("%Y-%m-%d %H:%M:%S%.6f%:z")
        .to_string()
}

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
        .ok_or_else(|| format!("date: expected {FORM}, found {date:?}"))
}

/// Nanoseconds since 1970 of a date in exactly the form that [`date`] gives it.
pub fn as_written(text: &str) -> Option<i64> {
    let dot_in_place = text.as_bytes().get(19) == Some(&b'.');
    let time = strtime::parse(WRITTEN, text).ok()?;
    let nanoseconds = time.to_timestamp().ok()?.as_nanosecond();
    (text.chars().count() == FORM.chars().count() && dot_in_place)
        .then_some(nanoseconds)
        .and_then(|nanoseconds| i64::try_from(nanoseconds).ok())
}

/// A date in that form, so many nanoseconds later.
pub fn later(text: &str, ns: i64) -> Option<String> {
    let offset = strtime::parse(WRITTEN, text).ok()?.offset()?;
    Some(date(as_written(text)?.checked_add(ns)?, &TimeZone::fixed(offset)))
}

#[cfg(test)]
mod tests {
    use jiff::tz;

    use super::*;

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
        assert_eq!(
            as_written("2026-01-01 05:30:00.123456+05:30"),
            Some(1_767_225_600_123_456_000)
        );
        assert_eq!(
            later("2026-01-01 05:30:00.123456+05:30", 1_000_000).as_deref(),
            Some("2026-01-01 05:30:00.124456+05:30")
        );
        assert_eq!(later("2026-01-01", 1), None);
        assert_eq!(date(-1, &utc), "1969-12-31 23:59:59.999999+00:00");
        for extreme in [i64::MIN, i64::MAX] {
            assert_eq!(date(extreme, &utc).len(), "1970-01-01 00:00:00.000000+00:00".len());
        }
    }
}
