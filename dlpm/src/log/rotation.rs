//! When a log goes on in a new file.

use std::{str::FromStr, time::Duration};

use crate::attribution::ledger::Ledger;

/// Smallest file that can be asked for: each one costs some hundred bytes beside its lines.
const SMALLEST_BYTES: u64 = 64 << 10;

/// Shortest time that can be asked for.
const SHORTEST: Duration = Duration::from_secs(1);

/// How much a file holds at most, or a little more: lines stay whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Bytes, before they are compressed.
    Bytes(u64),
    /// Time from the beginning of its first interval.
    Time(Duration),
}

impl FromStr for Limit {
    type Err = String;

    /// `64K`, `100M`, `1G`, `1T` (powers of 1024), or a duration: `30s`, `10m`, `1h`.
    fn from_str(text: &str) -> Result<Self, String> {
        let units = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
        let size = units
            .iter()
            .find_map(|(unit, shift)| Some((text.strip_suffix(*unit)?, shift)));
        if let Some((number, shift)) = size {
            let bytes = number
                .parse()
                .ok()
                .and_then(|number: u64| number.checked_mul(1 << shift));
            return bytes
                .filter(|bytes| *bytes >= SMALLEST_BYTES)
                .map(Self::Bytes)
                .ok_or_else(|| format!("`{text}` is not a size from 64K on, as in 100M or 1G"));
        }
        let time = text
            .parse()
            .ok()
            .and_then(|time: jiff::SignedDuration| Duration::try_from(time).ok());
        time.filter(|time| *time >= SHORTEST)
            .map(Self::Time)
            .ok_or_else(|| format!("`{text}` is neither a size from 64K on (100M, 1G) nor a time from 1s on (10m, 1h)"))
    }
}

/// Room for the closed files of a log: the oldest are deleted where they need more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of all files.
    pub bytes: u64,
    /// Time since a file was closed.
    pub age: Duration,
}

/// What is in the file that is being written.
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    limit: Limit,
    bytes: u64,
    begin_ns: Option<u64>,
}

impl Filled {
    /// Nothing yet.
    pub fn new(limit: Limit) -> Self {
        Self {
            limit,
            bytes: 0,
            begin_ns: None,
        }
    }

    /// Whether the line of `ledger` belongs to the next file, which then begins.
    pub fn ends_before(&mut self, ledger: &Ledger) -> bool {
        let Some(begin_ns) = self.begin_ns else {
            self.begin_ns = Some(ledger.begin_ns);
            return false;
        };
        let is_full = match self.limit {
            Limit::Bytes(limit) => self.bytes >= limit,
            Limit::Time(limit) => u128::from(ledger.end_ns.saturating_sub(begin_ns)) > limit.as_nanos(),
        };
        if is_full {
            *self = Self {
                begin_ns: Some(ledger.begin_ns),
                ..Self::new(self.limit)
            };
        }
        is_full
    }

    /// A line was added.
    pub fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_told_apart_by_their_units() {
        let limit = |text: &str| text.parse::<Limit>();
        assert_eq!(limit("1G"), Ok(Limit::Bytes(1 << 30)));
        assert_eq!(limit("64K"), Ok(Limit::Bytes(65_536)));
        assert_eq!(limit("10m"), Ok(Limit::Time(Duration::from_secs(600))));
        assert_eq!(limit("1h"), Ok(Limit::Time(Duration::from_secs(3600))));
        for wrong in [
            "",
            "G",
            "-1G",
            "1.5G",
            "63K",
            "99999999999T",
            "12",
            "0s",
            "999ms",
            "-1h",
            "1g",
        ] {
            assert!(
                limit(wrong).is_err_and(|why| why.contains(&format!("`{wrong}`"))),
                "{wrong}"
            );
        }
    }
}
