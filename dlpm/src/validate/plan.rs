//! Which cells a validation has, and in which order.

use std::collections::BTreeSet;

use super::{LoadKind, random::Random};

/// The loads that run at the same time: none (idle), one alone on core A, or two, on cores A and B.
pub type Loads = Vec<LoadKind>;

/// The cells of one round, in a fixed order: idle, each load alone, each pair of two different loads.
///
/// A load beside itself is left out: by symmetry every method is right there, so it would only make the mean of the
/// errors smaller.
pub fn cells(loads: &[LoadKind]) -> Vec<Loads> {
    let mut cells = vec![Vec::new()];
    cells.extend(loads.iter().map(|load| vec![*load]));
    cells.extend(pairs(loads).map(|pair| pair.to_vec()));
    cells
}

/// Each pair of two different loads, once.
pub fn pairs(loads: &[LoadKind]) -> impl Iterator<Item = [LoadKind; 2]> {
    let unique: BTreeSet<LoadKind> = loads.iter().copied().collect();
    let loads: Vec<LoadKind> = unique.into_iter().collect();
    (0..loads.len()).flat_map(move |first| {
        let loads = loads.clone();
        (first + 1..loads.len()).filter_map(move |second| Some([*loads.get(first)?, *loads.get(second)?]))
    })
}

/// The cells of each round, each round in an order of its own.
pub fn rounds(loads: &[LoadKind], rounds: u32, seed: u64) -> Vec<Vec<Loads>> {
    let mut random = Random::new(seed);
    let round = |_| {
        let mut cells = cells(loads);
        random.shuffle(&mut cells);
        cells
    };
    (0..rounds).map(round).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_idle_singles_and_pairs_once_each() {
        let all = rounds(&LoadKind::ALL, 5, 3);
        assert_eq!(all.len(), 5);
        let sorted = |round: &Vec<Loads>| {
            let mut cells = round.clone();
            cells.sort();
            cells
        };
        for round in &all {
            assert_eq!(round.len(), 16);
            assert_eq!(sorted(round), sorted(&cells(&LoadKind::ALL)));
        }
        assert_ne!(all[0], all[1]);
        assert_eq!(all, rounds(&LoadKind::ALL, 5, 3));
        assert_ne!(all, rounds(&LoadKind::ALL, 5, 4));
        assert_eq!(cells(&LoadKind::QUICK).len(), 7);
    }
}
