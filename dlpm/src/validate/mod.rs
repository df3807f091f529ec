//! `dlpm validate`: how wrong is each method of splitting energy, on this machine?
//!
//! Loads of our own run alone and in pairs while the meters count. What the meters say of them is the truth, as an
//! interval ([`truth`]); what each method says ([`methods`]) is compared with it ([`verdict`]). All of that is pure: what
//! was measured is a list of [`Cell`]s, which a file keeps ([`mod@file`]) and from which the verdict is made again
//! ([`proof`]). [`loads`] is the work itself; `commands/validate` runs and measures it.

pub mod cell;
pub mod file;
pub mod loads;
pub mod methods;
pub mod plan;
pub mod proof;
pub mod random;
pub mod refusal;
pub mod show;
pub mod truth;
pub mod verdict;

#[cfg(test)]
pub mod simulation;
#[cfg(test)]
mod simulation_tests;

pub use cell::{Cell, Run};
pub use refusal::{Refusal, Why};

use crate::words::words;

words! {
    /// A load.
    #[derive(PartialOrd, Ord, Hash)]
    pub enum LoadKind {
        /// Integer arithmetic in registers.
        Scalar = "scalar",
        /// Fused multiply-add on the widest vectors that the CPU has.
        Fma = "fma",
        /// Dependent loads from memory that no cache holds.
        Chase = "chase",
        /// A triad over arrays that no cache holds.
        Stream = "stream",
        /// Integer arithmetic for half of each millisecond, sleep for the other half.
        Nap = "nap",
    }
}

impl LoadKind {
    /// The loads of `--quick`.
    pub const QUICK: [Self; 3] = [Self::Scalar, Self::Fma, Self::Chase];
}
