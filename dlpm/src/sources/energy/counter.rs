//! The arithmetic of one energy counter that wraps: no file, no clock.

use crate::interval::METER_STEP_NS;

/// A counter is read every 30 s. After twice that without a reading, it is asked whether it can have wrapped twice.
const LATE_NS: u64 = 60_000_000_000;

/// Energy that a counter gave since it was taken last, or the reason why that is not known.
#[derive(Debug)]
pub(in crate::sources) struct Counter {
    /// More power than the zone can draw, in milliwatts.
    limit_mw: u64,
    /// The counter runs from 0 to this value and starts again; `None` if unknown.
    range_uj: Option<u64>,
    last: Option<Seen>,
    /// A reading failed, so the next good one is a new baseline and its interval is incomplete.
    interrupted: bool,
    pending_uj: u64,
    fault: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    uj: u64,
    at_ns: u64,
}

impl Counter {
    pub(in crate::sources) fn new(limit_mw: u64) -> Self {
        Self {
            limit_mw,
            range_uj: None,
            last: None,
            interrupted: false,
            pending_uj: 0,
            fault: None,
        }
    }

    /// Largest value of the counter, in microjoules. It may be another one after the driver was loaded again.
    pub(in crate::sources) fn set_range(&mut self, range_uj: Option<u64>) {
        self.range_uj = range_uj;
    }

    pub(in crate::sources) fn range_uj(&self) -> Option<u64> {
        self.range_uj
    }

    /// The newest reading; `None` if that failed.
    pub(in crate::sources) fn value_uj(&self) -> Option<u64> {
        self.last.map(|seen| seen.uj)
    }

    /// A reading: the first is the baseline, each later one adds to the pending energy.
    pub(in crate::sources) fn see(&mut self, uj: u64, now_ns: u64) {
        if let Some(range) = self.range_uj.filter(|&range| uj > range) {
            return self.miss(format!("the counter reads {uj} µJ, above its range of {range} µJ"));
        }
        if self.interrupted {
            self.fault("the counter came back in this interval, without a reading at its beginning".to_owned());
        }
        if let Some(last) = self.last {
            let elapsed_ns = now_ns.saturating_sub(last.at_ns);
            let delta = delta_uj(last.uj, uj, self.range_uj, self.limit_mw, elapsed_ns);
            match delta.map(|delta| self.pending_uj.checked_add(delta)) {
                Ok(Some(sum)) => self.pending_uj = sum,
                Ok(None) => self.fault("the energy is larger than 64 bits of microjoules".to_owned()),
                Err(reason) => self.fault(reason),
            }
        }
        self.last = Some(Seen { uj, at_ns: now_ns });
        self.interrupted = false;
    }

    /// The counter could not be read.
    pub(in crate::sources) fn miss(&mut self, reason: String) {
        self.last = None;
        self.interrupted = true;
        self.fault(reason);
    }

    /// Energy since the previous call, in microjoules; everything pending is taken with it.
    ///
    /// # Errors
    ///
    /// A sentence that says why the energy is not known, and how much of it was counted all the same.
    pub(in crate::sources) fn take(&mut self) -> Result<u64, String> {
        let pending_uj = std::mem::take(&mut self.pending_uj);
        match self.fault.take() {
            None => Ok(pending_uj),
            Some(reason) if pending_uj == 0 => Err(reason),
            Some(reason) => Err(format!(
                "{reason}; {pending_uj} µJ counted in the rest of the interval are left out with it"
            )),
        }
    }

    fn fault(&mut self, reason: String) {
        // The first cause says most; what follows in the same interval is its consequence.
        self.fault.get_or_insert(reason);
    }
}

/// Energy between two readings. A decrease is one wrap, with modulus `range_uj + 1`.
///
/// A reset looks like a wrap, and two wraps look like one or none, so a result that needs more power than the zone
/// can draw is refused. What remains undetected is a reset so close to the end of the range that the jump could be
/// real energy.
fn delta_uj(before_uj: u64, now_uj: u64, range_uj: Option<u64>, limit_mw: u64, elapsed_ns: u64) -> Result<u64, String> {
    let delta = match (now_uj.checked_sub(before_uj), range_uj) {
        (Some(delta), _) => delta,
        (None, Some(range)) => range.saturating_sub(before_uj).saturating_add(now_uj).saturating_add(1),
        (None, None) => {
            return Err(format!(
                "the counter fell from {before_uj} to {now_uj} µJ, and without a known range a wrap cannot be told \
                 from a reset"
            ));
        }
    };
    // mW · ns = 1e-12 J, so a million of them are one microjoule. Two u64 multiplied fit into u128.
    let most_uj = |ns: u64| u128::from(limit_mw) * u128::from(ns) / 1_000_000;
    if let Some(range) = range_uj
        && elapsed_ns > LATE_NS
        && most_uj(elapsed_ns) > u128::from(range)
    {
        return Err(format!(
            "the counter was not read for {} s, in which it may have wrapped more than once",
            elapsed_ns / 1_000_000_000
        ));
    }
    // A step of the counter may fall just inside a short interval.
    if u128::from(delta) > most_uj(elapsed_ns.saturating_add(METER_STEP_NS)) {
        return Err(format!(
            "the counter went from {before_uj} to {now_uj} µJ in {} ms, more than {} W: it was reset, or wrapped more \
             than once",
            elapsed_ns / 1_000_000,
            limit_mw / 1000
        ));
    }
    Ok(delta)
}

#[cfg(test)]
mod tests;
