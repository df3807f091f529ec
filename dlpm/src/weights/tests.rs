use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const TRUE_FJ: [u64; 4] = [900_000, 350_000, 25_000_000, 4_000_000];
const TRUE_FJ_PER_NS: u64 = 2_000_000;

/// Runs of loads of these rates (events in 1000 ns), each on so many CPUs for a second.
fn runs(rates: &[[u64; 4]], noise: impl Fn(usize) -> f64) -> Vec<Observation> {
    let mut runs = Vec::new();
    for cpus in [1, 4, 8] {
        for rate in rates {
            let busy_ns = cpus * 1_000_000_000_u64;
            let counts = Counts(rate.map(|rate| rate * busy_ns / 1000));
            let counted = counts
                .0
                .iter()
                .zip(TRUE_FJ)
                .map(|(count, fj)| u128::from(*count) * u128::from(fj));
            let fj = counted.sum::<u128>() + u128::from(busy_ns) * u128::from(TRUE_FJ_PER_NS);
            let exact_uj = fj as f64 / FJ_PER_UJ;
            runs.push(Observation {
                zone: "package-0".to_owned(),
                dynamic_uj: whole(exact_uj * noise(runs.len())),
                weighted_ps: u128::from(busy_ns) * 1000,
                counts,
            });
        }
    }
    // Neighbours differ, as in a random order, so that each load is fitted and kept aside.
    let stride = 7;
    (0..runs.len())
        .map(|position| runs[position * stride % runs.len()].clone())
        .collect()
}

/// Loads of integers, vectors, misses, all of it, and half asleep.
const RATES: [[u64; 4]; 5] = [
    [3000, 6000, 1, 0],
    [2600, 2000, 2, 1800],
    [3000, 200, 60, 0],
    [2900, 1500, 40, 300],
    [1500, 2500, 5, 10],
];

#[test]
fn weights_that_made_the_energy_are_found() {
    let fitted = fit(&runs(&RATES, |_| 1.0), 4).unwrap();
    for (found, fj) in fitted.weights.fj_per_event.0.into_iter().zip(TRUE_FJ) {
        assert!(found.abs_diff(fj) * 100 < fj, "{:?}", fitted.weights);
    }
    assert!(fitted.held_out_error_permille <= 1, "{fitted:?}");
    assert_eq!((fitted.fitted, fitted.held_out), (10, 5));
    // Time alone is wrong by far more.
    assert!(fitted.by_time_error_permille > 100, "{fitted:?}");
}

#[test]
fn meters_that_follow_nothing_that_is_counted_are_refused() {
    // Every other run draws three times as much.
    let error = fit(&runs(&RATES, |run| if run % 2 == 0 { 1.0 } else { 3.0 }), 4).unwrap_err();
    assert!(error.contains("10 % is the limit"), "{error}");
    let error = fit(&runs(&RATES, |_| 0.0), 4).unwrap_err();
    assert!(error.contains("nothing above the idle machine"), "{error}");
    let error = fit(&runs(&RATES, |_| 1.0)[..8], 4).unwrap_err();
    assert!(error.contains("8 runs are too few"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_observation_is_fitted_or_refused(
        numbers in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<[u64; 4]>()), 0..30),
    ) {
        let observations: Vec<Observation> = numbers
            .into_iter()
            .map(|(dynamic_uj, weighted_ps, counts)| Observation {
                zone: String::new(),
                dynamic_uj,
                weighted_ps: weighted_ps.into(),
                counts: Counts(counts),
            })
            .collect();
        let _ = fit(&observations, 4);
    }
}

#[test]
fn a_run_that_is_not_whole_is_refused() {
    use crate::attribution::{Options, attribute, energy_tree::Carries};
    let idle_mw: BTreeMap<String, u64> = [("package-0".to_owned(), 1000)].into();
    let mut interval = crate::attribution::counter_properties::unequal(15_000_000);
    let ledger = |interval: &crate::interval::Interval| attribute(interval, &Options::default(), &Carries::default());
    let whole = observations(&ledger(&interval), &idle_mw).unwrap();
    assert_eq!(whole.len(), 1);
    assert_eq!(
        (whole[0].dynamic_uj, whole[0].weighted_ps),
        (14_000_000, 1_000_000_000_000)
    );
    assert_eq!(whole[0].counts, Counts([1_100_000, 0, 0, 0]));
    interval.cpus[0].counts.as_mut().unwrap().failed = 1;
    assert!(
        observations(&ledger(&interval), &idle_mw)
            .unwrap_err()
            .contains("CPU 0")
    );
    interval.zones[0].energy_uj = Err("gone".to_owned());
    assert!(observations(&ledger(&interval), &idle_mw).unwrap_err().contains("gone"));
}
