//! Splitting a whole number exactly.

/// Sums of weights are kept below 2^126, so that twice a remainder and a weight still fit 128 bits.
const TOTAL_LIMIT: u128 = 1 << 126;

/// Splits `energy` in proportion to `weights`, by largest remainders (Hamilton's method); ties go to the first.
///
/// The parts add up to `energy` exactly. Part by part this is the exact share rounded down or up, so that splitting
/// one claimant into two changes no other by more than 1; and raising one weight never lowers its part. Weights
/// whose sum is 2^126 or more are halved until it is less. `None` if no weight is above 0.
pub fn split(energy: u64, weights: &[u128]) -> Option<Vec<u64>> {
    let (total, shift) = scaled_total(weights)?;
    let mut parts = Vec::with_capacity(weights.len());
    let mut remainders = Vec::with_capacity(weights.len());
    let mut left = energy;
    for (position, weight) in weights.iter().enumerate() {
        let (part, remainder) = multiply_divide(energy, weight >> shift, total);
        left = left.saturating_sub(part);
        parts.push(part);
        if remainder > 0 {
            remainders.push((remainder, position));
        }
    }
    // What is left is the sum of the remainders over the total: less than there are remainders.
    let left = usize::try_from(left).unwrap_or(usize::MAX).min(remainders.len());
    if left > 0 {
        remainders.select_nth_unstable_by(left - 1, |a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    }
    for (_, position) in remainders.iter().take(left) {
        if let Some(part) = parts.get_mut(*position) {
            *part += 1;
        }
    }
    Some(parts)
}

/// The sum of the weights after the returned number of halvings, or `None` if it is 0.
fn scaled_total(weights: &[u128]) -> Option<(u128, u32)> {
    (0..u128::BITS)
        .find_map(|shift| {
            weights
                .iter()
                .try_fold(0u128, |sum, weight| sum.checked_add(weight >> shift))
                .filter(|total| *total < TOTAL_LIMIT)
                .map(|total| (total, shift))
        })
        .filter(|(total, _)| *total > 0)
}

/// Quotient and remainder of `energy * weight / total`, for `weight <= total < TOTAL_LIMIT`.
fn multiply_divide(energy: u64, weight: u128, total: u128) -> (u64, u128) {
    let (quotient, remainder) = match u128::from(energy).checked_mul(weight) {
        // One division: the compiler makes two calls of `/` and `%`, and there is one for each row and leaf.
        Some(product) => {
            let quotient = product / total;
            (quotient, product - quotient * total)
        }
        None => long_multiply_divide(energy, weight, total),
    };
    // At most `energy`, as the weight is at most the total.
    (u64::try_from(quotient).unwrap_or(energy), remainder)
}

/// The same bit by bit, where the product does not fit 128 bits.
fn long_multiply_divide(energy: u64, weight: u128, total: u128) -> (u128, u128) {
    let (mut quotient, mut remainder) = (0, 0);
    for bit in (0..u64::BITS).rev() {
        quotient *= 2;
        remainder = remainder * 2 + if energy >> bit & 1 == 1 { weight } else { 0 };
        quotient += remainder / total;
        remainder %= total;
    }
    (quotient, remainder)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_largest_remainders_get_what_is_left() {
        // 10 over 1:1:1 is 3.33 each: the first of three equal remainders takes the tenth.
        assert_eq!(split(10, &[1, 1, 1]), Some(vec![4, 3, 3]));
        // 10 over 6:3:2 is 5.45, 2.73, 1.82.
        assert_eq!(split(10, &[6, 3, 2]), Some(vec![5, 3, 2]));
        assert_eq!(split(7, &[0, 5, 0]), Some(vec![0, 7, 0]));
    }

    #[test]
    fn without_weight_there_is_no_split() {
        assert_eq!(split(10, &[]), None);
        assert_eq!(split(10, &[0, 0]), None);
    }

    #[test]
    fn the_largest_inputs_close() {
        let parts = split(u64::MAX, &[u128::MAX; 3]).unwrap();
        assert_eq!(parts, vec![u64::MAX / 3; 3]);
        let parts = split(u64::MAX, &[u128::MAX, 1, 0]).unwrap();
        assert_eq!(parts, vec![u64::MAX, 0, 0]);
    }

    #[test]
    fn long_division_agrees_with_the_short_one() {
        for (energy, weight, total) in [(1_000_003, 17, 91), (u64::MAX, 1 << 60, 1 << 62), (5, 0, 9), (0, 9, 9)] {
            let product = u128::from(energy) * weight;
            assert_eq!(
                long_multiply_divide(energy, weight, total),
                (product / total, product % total)
            );
        }
    }

    fn weights() -> impl Strategy<Value = Vec<u128>> {
        let weight = prop_oneof![
            Just(0u128),
            0u128..10,
            0u128..2_000_000_000_000,
            any::<u64>().prop_map(u128::from),
            any::<u128>(),
        ];
        prop::collection::vec(weight, 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn parts_add_up(energy: u64, weights in weights()) {
            match split(energy, &weights) {
                Some(parts) => {
                    prop_assert_eq!(parts.len(), weights.len());
                    prop_assert_eq!(parts.iter().map(|part| u128::from(*part)).sum::<u128>(), u128::from(energy));
                    for (part, weight) in parts.iter().zip(&weights) {
                        prop_assert!(*weight > 0 || *part == 0);
                    }
                }
                None => prop_assert!(weights.iter().all(|weight| *weight == 0)),
            }
        }

        #[test]
        fn more_weight_never_gives_less(
            energy in 0u64..1_000_000,
            weights in prop::collection::vec(0u128..1_000_000, 1..12),
            which: prop::sample::Index,
            more in 0u128..1_000_000,
        ) {
            let which = which.index(weights.len());
            let mut raised = weights.clone();
            raised[which] += more;
            if let (Some(before), Some(after)) = (split(energy, &weights), split(energy, &raised)) {
                prop_assert!(after[which] >= before[which]);
            }
        }

        #[test]
        fn splitting_one_changes_the_others_by_one_at_most(
            energy: u64,
            weights in prop::collection::vec(0u128..1_000_000, 1..12),
            which: prop::sample::Index,
            at in 0u128..1_000_000,
        ) {
            let which = which.index(weights.len());
            let at = at.min(weights[which]);
            let mut halves = weights.clone();
            halves[which] -= at;
            halves.push(at);
            if let (Some(before), Some(after)) = (split(energy, &weights), split(energy, &halves)) {
                for (position, part) in before.iter().enumerate().filter(|(position, _)| *position != which) {
                    prop_assert!(part.abs_diff(after[position]) <= 1);
                }
            }
        }
    }
}
