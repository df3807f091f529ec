//! Loads of memory: dependent loads, which wait for each line, and a triad, which takes all bandwidth that there is.

use std::{hint::black_box, iter};

use crate::validate::random::Random;

/// Bytes of a cache line on all processors that Linux runs dlpm on; larger lines are loaded twice.
const LINE_BYTES: usize = 64;

/// Dependent loads in a batch.
const CHASE_STEPS: u64 = 2_000;

/// Elements of a batch of the triad.
const TRIAD_ELEMENTS: usize = 64 << 10;

/// Seed of the way through memory: the same for everybody.
const SEED: u64 = 1;

/// One line of memory.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line {
    /// Where to go from here.
    next: u32,
}

const _: () = assert!(size_of::<Line>() == LINE_BYTES);

/// Lines in a random order that is one circle (Sattolo's algorithm), so that every load waits for the one before it,
/// and no prefetcher finds the way.
#[derive(Debug)]
pub struct Chase {
    lines: Vec<Line>,
    at: u32,
}

impl Chase {
    /// A circle through so many bytes.
    pub fn new(bytes: usize) -> Self {
        let count = u32::try_from(bytes / LINE_BYTES).unwrap_or(u32::MAX).max(2);
        let mut order: Vec<u32> = (0..count).collect();
        let mut random = Random::new(SEED);
        for last in (1..order.len()).rev() {
            // Below `last`, and not at it: that makes one circle.
            order.swap(last, random.below(last));
        }
        let lines = order.into_iter().map(|next| Line { next }).collect();
        Self { lines, at: 0 }
    }

    /// Does a batch: how many loads.
    pub fn batch(&mut self) -> u64 {
        for _ in 0..CHASE_STEPS {
            self.at = self.lines.get(self.at as usize).map_or(0, |line| line.next);
        }
        black_box(self.at);
        CHASE_STEPS
    }
}

/// `a = b + s * c` (McCalpin's STREAM), piece by piece.
#[derive(Debug)]
pub struct Triad {
    a: Vec<f64>,
    b: Vec<f64>,
    c: Vec<f64>,
    at: usize,
}

impl Triad {
    /// Three arrays that take so many bytes together.
    pub fn new(bytes: usize) -> Self {
        let length = (bytes / 3 / size_of::<f64>()).max(TRIAD_ELEMENTS);
        let array = |value: f64| iter::repeat_n(value, length).collect();
        Self {
            a: array(0.0),
            b: array(1.0),
            c: array(2.0),
            at: 0,
        }
    }

    /// Does a batch: how many elements.
    pub fn batch(&mut self) -> u64 {
        if self.at >= self.a.len() {
            self.at = 0;
        }
        let end = (self.at + TRIAD_ELEMENTS).min(self.a.len());
        let (a, b, c) = (
            self.a.get_mut(self.at..end).unwrap_or_default(),
            self.b.get(self.at..end).unwrap_or_default(),
            self.c.get(self.at..end).unwrap_or_default(),
        );
        let factor = black_box(3.0);
        for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
            *a = b + factor * c;
        }
        let done = a.len() as u64;
        black_box(a);
        self.at = end;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_through_memory_is_one_circle() {
        let chase = Chase::new(1000 * LINE_BYTES);
        let mut seen = vec![false; 1000];
        let mut at = 0;
        for _ in 0..1000 {
            assert!(!std::mem::replace(&mut seen[at], true), "back at {at} too early");
            at = chase.lines[at].next as usize;
        }
        assert_eq!(at, 0);
        assert!(Chase::new(0).batch() > 0);
    }

    #[test]
    fn the_triad_goes_through_all_of_its_arrays() {
        let mut triad = Triad::new(3 * 8 * (TRIAD_ELEMENTS + 10));
        assert_eq!(triad.batch(), TRIAD_ELEMENTS as u64);
        assert_eq!(triad.batch(), 10);
        assert!(triad.a.iter().all(|value| *value == 7.0));
        assert_eq!(triad.batch(), TRIAD_ELEMENTS as u64);
    }
}
