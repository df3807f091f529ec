//! Which part of a log is meant.

use std::str::FromStr;

use jiff::{SignedDuration, tz::TimeZone};

use super::date::unix_ns;

/// A time of a log, as it is typed: unix seconds, a date, or how long after the begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nanoseconds since 1970.
    Unix(i64),
    /// A date without an offset: local time.
    Local(String),
    /// Nanoseconds after the begin of the log.
    AfterBegin(i64),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a time: give unix seconds (1767225600), a date (2026-01-01 12:00, 2026-01-01T12:00:00+01:00), \
                 or how long after the begin of the log (+10m)"
            )
        };
        if let Some(after) = text.strip_prefix('+') {
            let after: SignedDuration = after.parse().map_err(|_| wrong())?;
            return i64::try_from(after.as_nanos())
                .map(Self::AfterBegin)
                .map_err(|_| wrong());
        }
        if let Some(unix_ns) = seconds(text) {
            return Ok(Self::Unix(unix_ns));
        }
        unix_ns(text, &TimeZone::UTC)
            .map(|_| Self::Local(text.to_owned()))
            .map_err(|_| wrong())
    }
}

/// Nanoseconds of a decimal number of seconds.
fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanoseconds: i64 = format!("{fraction:0<9}").parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

impl Moment {
    /// Nanoseconds since 1970, of a log that begins at `begin_unix_ns`; local dates are of `timezone`.
    pub fn unix_ns(&self, begin_unix_ns: i64, timezone: &TimeZone) -> i64 {
        match self {
            Self::Unix(unix_ns) => *unix_ns,
            // It was parsed before.
            Self::Local(date) => unix_ns(date, timezone).unwrap_or(0),
            Self::AfterBegin(after_ns) => begin_unix_ns.saturating_add(*after_ns),
        }
    }
}

/// A part of a log: what is after `from`, up to `to`, and in the phase, where these are given.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Where it begins.
    pub from: Option<Moment>,
    /// Where it ends.
    pub to: Option<Moment>,
    /// Only what is in this phase.
    pub phase: Option<String>,
}

impl Window {
    /// Whether it is the whole log.
    pub fn is_whole(&self) -> bool {
        self.from.is_none() && self.to.is_none() && self.phase.is_none()
    }

    /// Whether what ended at `end_unix_ns` is between its ends. Windows that follow each other share nothing.
    pub fn holds(&self, end_unix_ns: i64, begin_unix_ns: i64, timezone: &TimeZone) -> bool {
        let at = |moment: &Moment| moment.unix_ns(begin_unix_ns, timezone);
        self.from.as_ref().is_none_or(|from| at(from) < end_unix_ns)
            && self.to.as_ref().is_none_or(|to| end_unix_ns <= at(to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_typed_in_three_ways() {
        let at = |text: &str| {
            let cet = TimeZone::fixed(jiff::tz::offset(1));
            text.parse::<Moment>().map(|moment| moment.unix_ns(1_000, &cet))
        };
        assert_eq!(at("12"), Ok(12_000_000_000));
        assert_eq!(at("12.5"), Ok(12_500_000_000));
        assert_eq!(at("+10m"), Ok(600_000_001_000));
        assert_eq!(at("1970-01-01 01:00:01"), Ok(1_000_000_000));
        assert_eq!(at("1970-01-01T01:00:01+00:00"), Ok(3_601_000_000_000));
        assert_eq!(at("1970-01-02"), Ok(82_800_000_000_000));
        for wrong in ["", "ten", "-5", "1e9", "+", "+10", ".5", "1.0000000001", "2026-13-01"] {
            assert!(at(wrong).is_err_and(|error| error.contains("is not a time")), "{wrong}");
        }
    }

    #[test]
    fn windows_that_follow_each_other_share_nothing() {
        let window = |from: Option<i64>, to: Option<i64>| Window {
            from: from.map(Moment::Unix),
            to: to.map(Moment::Unix),
            phase: None,
        };
        let utc = TimeZone::UTC;
        assert!(window(None, Some(5)).holds(5, 0, &utc) && !window(Some(5), None).holds(5, 0, &utc));
        assert!(window(Some(5), None).holds(6, 0, &utc) && window(None, None).is_whole());
    }
}
