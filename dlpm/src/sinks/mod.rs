//! Where ledgers go: the log, the summary.
//!
//! A ledger becomes lines ([`segments::Segmenter`]), which a thread of its own writes to the output folder
//! ([`writer::LogWriter`]), and is added to the totals that the summary shows ([`crate::totals`]).

pub mod agent;
pub mod beside;
mod credentials;
pub mod folder;
pub mod measuring_cost;
pub mod metadata;
pub mod queue;
pub mod repair;
pub mod screen;
pub mod segments;
pub mod socket;
pub mod terminal;
mod worker;
pub mod writer;

#[cfg(test)]
mod reader_rules;
#[cfg(test)]
pub(crate) mod testing;
