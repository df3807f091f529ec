//! What a log says: its lines one after another, and sums over them, in bounded memory.
//!
//! [`collect`] adds up the lines of a log, [`sheets`] and [`facts`] make records of the sums for JSON and CSV,
//! [`text`] makes tables for a terminal.

pub mod collect;
pub mod conversion;
pub mod facts;
pub mod foreign;
pub mod listing;
pub mod model;
pub mod results;
pub mod sheet;
pub mod sheets;
pub mod text;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unknown_tests;
