use super::*;
use proptest::prelude::*;

const LIMIT_MW: u64 = 2_000_000;
const SECOND: u64 = 1_000_000_000;

fn counter(range_uj: Option<u64>) -> Counter {
    let mut counter = Counter::new(LIMIT_MW);
    counter.set_range(range_uj);
    counter
}

#[test]
fn the_first_reading_is_the_baseline() {
    let mut counter = counter(Some(1_000_000));
    counter.see(700_000, 0);
    assert_eq!(counter.take(), Ok(0));
    counter.see(700_500, SECOND);
    assert_eq!(counter.take(), Ok(500));
    assert_eq!(counter.take(), Ok(0), "take resets");
}

#[test]
fn a_wrap_counts_range_plus_one() {
    let mut counter = counter(Some(999));
    counter.see(990, 0);
    counter.see(5, SECOND);
    assert_eq!(counter.take(), Ok(15));
    counter.see(999, 2 * SECOND);
    counter.see(0, 3 * SECOND);
    assert_eq!(counter.take(), Ok(994 + 1));
}

#[test]
fn a_wrap_at_the_end_of_64_bits_does_not_overflow() {
    let mut counter = counter(Some(u64::MAX));
    counter.see(u64::MAX, 0);
    counter.see(0, SECOND);
    assert_eq!(counter.take(), Ok(1));
    counter.see(u64::MAX, 2 * SECOND);
    assert!(counter.take().is_err());
}

#[test]
fn a_reset_is_not_taken_for_a_wrap() {
    let mut counter = counter(Some(262_143_328_850));
    counter.see(100_000_000_000, 0);
    counter.see(10, SECOND);
    let reason = counter.take().unwrap_err();
    assert!(reason.contains("reset"), "{reason}");
    counter.see(20, 2 * SECOND);
    assert_eq!(
        counter.take(),
        Ok(10),
        "the reading after the reset is the new baseline"
    );
}

#[test]
fn a_decrease_without_a_range_is_refused_and_an_increase_counts() {
    let mut counter = counter(None);
    counter.see(100, 0);
    counter.see(200, SECOND);
    assert_eq!(counter.take(), Ok(100));
    counter.see(150, 2 * SECOND);
    assert!(counter.take().unwrap_err().contains("range"));
}

#[test]
fn a_long_silence_may_hide_a_wrap() {
    let mut counter = counter(Some(65_532_610_987));
    counter.see(0, 0);
    counter.see(1_000, 61 * SECOND);
    assert!(counter.take().unwrap_err().contains("61 s"));
}

#[test]
fn a_step_in_a_very_short_interval_is_real() {
    let mut counter = counter(Some(262_143_328_850));
    counter.see(0, 0);
    counter.see(300_000, 50_000);
    assert_eq!(counter.take(), Ok(300_000));
}

#[test]
fn a_counter_that_is_lost_spoils_this_interval_and_the_one_it_returns_in() {
    let mut counter = counter(Some(1_000_000));
    counter.see(100, 0);
    counter.see(150, SECOND);
    counter.miss("gone".to_owned());
    assert_eq!(counter.value_uj(), None);
    assert_eq!(
        counter.take(),
        Err("gone; 50 µJ counted in the rest of the interval are left out with it".to_owned())
    );
    counter.miss("gone".to_owned());
    assert_eq!(counter.take(), Err("gone".to_owned()));
    counter.see(9_000, 4 * SECOND);
    assert!(counter.take().unwrap_err().contains("came back"));
    counter.see(9_010, 5 * SECOND);
    assert_eq!(counter.take(), Ok(10));
}

#[test]
fn a_value_above_the_range_is_no_baseline() {
    let mut counter = counter(Some(1_000));
    counter.see(500, 0);
    counter.see(1_001, SECOND);
    assert!(counter.take().unwrap_err().contains("above its range"));
    counter.see(600, 2 * SECOND);
    assert!(counter.take().is_err());
    counter.see(610, 3 * SECOND);
    assert_eq!(counter.take(), Ok(10));
}

proptest! {
    /// Whatever a meter does within its power, no microjoule is lost or made, however often it is polled.
    #[test]
    fn the_sum_is_what_the_meter_counted(
        range in 1_000u64..10_000_000,
        start in 0u64..1_000,
        steps in prop::collection::vec((0u64..1_000, any::<bool>()), 1..200),
    ) {
        let mut counter = counter(Some(range));
        let mut total = start;
        let mut taken = 0;
        counter.see(start % (range + 1), 0);
        for (at, (step, take)) in (1..).zip(&steps) {
            total += step;
            counter.see(total % (range + 1), at * SECOND);
            if *take {
                taken += counter.take().unwrap();
            }
        }
        taken += counter.take().unwrap();
        prop_assert_eq!(taken, total - start);
    }
}

/// Every pair of positions of a small counter, so every wrap that there is.
#[test]
fn every_wrap_of_a_small_counter() {
    for range in 0..=64u64 {
        for before in 0..=range {
            for steps in 0..=range {
                let now = (before + steps) % (range + 1);
                let mut counter = counter(Some(range));
                counter.see(before, 0);
                counter.see(now, SECOND);
                assert_eq!(counter.take(), Ok(steps), "{before} to {now} of {range}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// A real range, from every position to what a second at full power makes of it.
    #[test]
    fn every_position_of_a_real_counter(
        range in prop::sample::select(vec![65_532_610_987u64, 262_143_328_850, u64::from(u32::MAX)]),
        position: u64,
        near_the_wrap: bool,
        delta in 0u64..2_000_000_000,
    ) {
        // Half of the cases wrap.
        let back = position % (if near_the_wrap { delta } else { range } + 1);
        let before = range - back;
        let mut counter = counter(Some(range));
        counter.see(before, 0);
        counter.see((before + delta) % (range + 1), SECOND);
        prop_assert_eq!(counter.take(), Ok(delta));
    }

    /// Any reset that leaves less than full power to the end of the range is found; it never counts as energy.
    #[test]
    fn a_reset_from_every_position(before in 2_200_000_000u64..262_143_328_850 - 2_200_000_000, after in 0u64..2_000_000) {
        let mut counter = counter(Some(262_143_328_850));
        counter.see(before, 0);
        counter.see(after, SECOND);
        prop_assert!(counter.take().is_err());
    }

    /// More power than the zone can draw is not energy, from every position and over the wrap.
    #[test]
    fn more_than_possible(before in 0u64..=262_143_328_850, more in 0u64..200_000_000_000) {
        let delta = 2_200_000_001 + more;
        let mut counter = counter(Some(262_143_328_850));
        counter.see(before, 0);
        counter.see((before + delta) % 262_143_328_851, SECOND);
        prop_assert!(counter.take().is_err());
    }
}
