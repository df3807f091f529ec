//! What a log says: its lines one after another, and sums over them, in bounded memory.
//!
//! [`log`] reads lines, [`collect`] adds them up, [`sheets`] and [`facts`] make records of the sums for JSON and CSV,
//! [`text`] makes tables for a terminal.

pub mod collect;
pub mod conversion;
pub mod facts;
pub mod foreign;
pub mod listing;
pub mod log;
pub mod model;
pub mod phases;
pub mod results;
pub mod sheet;
pub mod sheets;
pub mod text;
pub mod window;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unknown_tests;
