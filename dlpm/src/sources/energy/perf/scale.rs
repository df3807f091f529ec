//! Energy of a perf event's ticks, in integers: the kernel gives the scale as a decimal number of joules.

/// Microjoules per tick, as an exact fraction in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    numerator: u128,
    denominator: u128,
}

impl Scale {
    /// Parses joules per tick as in `2.3283064365386962890625e-10` (2⁻³², what RAPL's events have): a decimal number
    /// with an optional power of ten. `None` if it is none, is 0, or does not fit into 128 bits.
    pub fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits: u128 = digits.parse().ok().filter(|&digits| digits > 0)?;
        // A joule is 10⁶ µJ.
        let exponent = exponent
            .checked_add(6)?
            .checked_sub(i32::try_from(fraction.len()).ok()?)?;
        let power = 10u128.checked_pow(exponent.unsigned_abs())?;
        let (numerator, denominator) = if exponent < 0 {
            (digits, power)
        } else {
            (digits.checked_mul(power)?, 1)
        };
        let divisor = greatest_common_divisor(numerator, denominator);
        Some(Self {
            numerator: numerator / divisor,
            denominator: denominator / divisor,
        })
    }

    /// Whole microjoules in `ticks`, rounded down; `None` if they do not fit into 64 bits.
    ///
    /// Energy is the difference of two of these totals, so the fraction that is cut off here is in the next difference.
    pub fn total_uj(self, ticks: u128) -> Option<u64> {
        u64::try_from(ticks.checked_mul(self.numerator)? / self.denominator).ok()
    }
}

fn greatest_common_divisor(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RAPL: &str = "2.3283064365386962890625e-10";

    #[test]
    fn the_scale_of_rapl_is_exact() {
        let scale = Scale::parse(RAPL).unwrap();
        // 10⁶ / 2³² in lowest terms.
        assert_eq!((scale.numerator, scale.denominator), (15_625, 1 << 26));
        assert_eq!(scale.total_uj(1 << 32), Some(1_000_000));
        assert_eq!(scale.total_uj((1 << 32) - 1), Some(999_999));
        assert_eq!(scale.total_uj(u128::from(u64::MAX)), Some(4_294_967_295_999_999));
    }

    #[test]
    fn other_scales_and_what_is_none() {
        for (text, ticks, uj) in [
            ("1", 3, 3_000_000),
            ("0.5", 1, 500_000),
            ("1e-9", 1_999, 1),
            ("2.5E-3", 2, 5_000),
        ] {
            assert_eq!(Scale::parse(text).unwrap().total_uj(ticks), Some(uj), "{text}");
        }
        for wrong in [
            "",
            ".",
            "e-3",
            "0",
            "0.0",
            "-1",
            "+1",
            "1e",
            "1e99",
            "1.e-99999999999",
            "nan",
            "1,5",
            "1 J",
        ] {
            assert_eq!(Scale::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Scale::parse("1").unwrap().total_uj(u128::MAX), None);
    }

    proptest! {
        /// However often it is read, the differences add up to what all ticks are worth.
        #[test]
        fn no_fraction_is_lost(steps in prop::collection::vec(0u64..1 << 40, 1..100)) {
            let scale = Scale::parse(RAPL).unwrap();
            let (mut ticks, mut last, mut sum) = (0u128, 0, 0);
            for step in &steps {
                ticks += u128::from(*step);
                let total = scale.total_uj(ticks).unwrap();
                sum += total - last;
                last = total;
            }
            let all: u128 = steps.iter().copied().map(u128::from).sum();
            prop_assert_eq!(u128::from(sum), (all * 1_000_000) >> 32);
        }
    }
}
