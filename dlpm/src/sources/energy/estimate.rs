//! Energy from watts that the user gave, for machines without meters (`--estimate idle=W,busy=W`).

use std::str::FromStr;

use crate::interval::{CpuInterval, MeterSource, ZoneKind, ZoneReading};

/// Most watts that are accepted; a thousand times what one node draws.
const MAX_WATTS: f64 = 1e6;

/// Watts of an idle machine, and watts that each busy CPU adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Power of the machine with all CPUs idle, in milliwatts.
    pub idle_mw: u64,
    /// Power that one busy CPU adds, in milliwatts.
    pub busy_mw: u64,
}

/// An estimate that cannot be understood.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{given}` is not an estimate: {reason}. Give both parts in watts, as in `--estimate idle=20,busy=3.5`: \
         the power of the idle machine and what each busy CPU adds, each from 0 to 1000000"
)]
pub struct EstimateError {
    given: String,
    reason: String,
}

impl FromStr for Estimate {
    type Err = EstimateError;

    /// Parses `idle=W,busy=W`: decimal watts from 0 to 1,000,000, in either order, rounded to milliwatts.
    fn from_str(given: &str) -> Result<Self, EstimateError> {
        let wrong = |reason: String| EstimateError {
            given: given.to_owned(),
            reason,
        };
        let (mut idle, mut busy) = (None, None);
        for part in given.split(',') {
            let (key, watts) = part
                .split_once('=')
                .ok_or_else(|| wrong(format!("`{part}` has no `=`")))?;
            let place = match key.trim() {
                "idle" => &mut idle,
                "busy" => &mut busy,
                key => return Err(wrong(format!("`{key}` is neither `idle` nor `busy`"))),
            };
            let milliwatts = milliwatts(watts.trim()).map_err(wrong)?;
            if place.replace(milliwatts).is_some() {
                return Err(wrong(format!("`{}` is given twice", key.trim())));
            }
        }
        match (idle, busy) {
            (Some(idle_mw), Some(busy_mw)) => Ok(Self { idle_mw, busy_mw }),
            (None, _) => Err(wrong("`idle` is missing".to_owned())),
            (_, None) => Err(wrong("`busy` is missing".to_owned())),
        }
    }
}

impl Estimate {
    /// The zone `machine` for one interval: `idle · (end - begin) + busy · Σ (busy + lost)` over the CPUs.
    ///
    /// Times are nanoseconds; the sum is rounded once, to the nearest microjoule.
    pub fn reading(&self, begin_ns: u64, end_ns: u64, cpus: &[CpuInterval]) -> ZoneReading {
        let busy_ns: u128 = cpus
            .iter()
            .map(|cpu| u128::from(cpu.busy_ns) + u128::from(cpu.lost_ns))
            .sum();
        let idle_part = u128::from(self.idle_mw) * u128::from(end_ns.saturating_sub(begin_ns));
        // mW · ns = 1e-12 J, so a million of them are one microjoule.
        let energy_uj = u128::from(self.busy_mw)
            .checked_mul(busy_ns)
            .and_then(|busy_part| busy_part.checked_add(idle_part))
            .and_then(|sum| u64::try_from(sum.saturating_add(500_000) / 1_000_000).ok());
        ZoneReading {
            zone: "machine".to_owned(),
            kind: ZoneKind::Machine,
            package: None,
            energy_uj: energy_uj.ok_or_else(|| "the estimate is larger than 64 bits of microjoules".to_owned()),
            counter_uj: None,
            range_uj: None,
            source: MeterSource::Estimate,
        }
    }
}

fn milliwatts(text: &str) -> Result<u64, String> {
    let watts: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if !(0.0..=MAX_WATTS).contains(&watts) {
        return Err(format!("{text} W is not between 0 and 1000000 W"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be 0 to 1e6 just above, so at most 1e9"
    )]
    Ok((watts * 1000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cpu(busy_ns: u64, lost_ns: u64) -> CpuInterval {
        CpuInterval {
            busy_ns,
            lost_ns,
            ..CpuInterval::default()
        }
    }

    #[test]
    fn both_orders_and_decimals() {
        let expected = Estimate {
            idle_mw: 20_000,
            busy_mw: 3_500,
        };
        assert_eq!("idle=20,busy=3.5".parse(), Ok(expected));
        assert_eq!("busy=3.5, idle=20".parse(), Ok(expected));
        assert_eq!(
            "idle=0,busy=1000000".parse(),
            Ok(Estimate {
                idle_mw: 0,
                busy_mw: 1_000_000_000
            })
        );
    }

    #[test]
    fn wrong_forms_name_the_right_one() {
        for wrong in [
            "",
            "20",
            "idle=20",
            "busy=3",
            "idle=20,busy",
            "idle=20,busy=",
            "idle=-1,busy=3",
            "idle=nan,busy=3",
            "idle=inf,busy=3",
            "idle=1,busy=1000001",
            "idle=1,idle=2,busy=3",
            "idle=1,busy=2,",
            "idle=1,gpu=2",
        ] {
            let error = wrong.parse::<Estimate>().unwrap_err().to_string();
            assert!(error.contains("idle=20,busy=3.5"), "{wrong}: {error}");
        }
    }

    #[test]
    fn watts_times_seconds() {
        let estimate: Estimate = "idle=20,busy=3".parse().unwrap();
        let reading = estimate.reading(
            1_000_000_000,
            3_000_000_000,
            &[cpu(500_000_000, 0), cpu(1_000_000_000, 500_000_000)],
        );
        assert_eq!(reading.energy_uj, Ok(40_000_000 + 6_000_000));
        assert_eq!((reading.zone.as_str(), reading.package), ("machine", None));
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_no_panic() {
        let estimate = Estimate {
            idle_mw: u64::MAX,
            busy_mw: u64::MAX,
        };
        assert!(
            estimate
                .reading(0, u64::MAX, &[cpu(u64::MAX, u64::MAX)])
                .energy_uj
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn more_time_is_never_less_energy(idle in 0u64..1_000_000, busy in 0u64..1_000_000, ns in 0u64..1 << 40, more in 0u64..1 << 40) {
            let estimate = Estimate { idle_mw: idle, busy_mw: busy };
            let less = estimate.reading(0, ns, &[cpu(ns, 0)]).energy_uj.unwrap();
            let longer = estimate.reading(0, ns + more, &[cpu(ns, more)]).energy_uj.unwrap();
            prop_assert!(longer >= less);
        }
    }
}
