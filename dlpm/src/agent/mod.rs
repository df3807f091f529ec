//! The agent: counts for months what every tenant of a machine uses.

pub mod admission;
pub mod amounts;
pub mod counters;
pub mod unobserved;

#[cfg(test)]
mod tests;
