//! What a log says: its lines one after another, and sums over them, in bounded memory.
//!
//! [`collect`] adds up the lines of a log, [`tables`] builds tables of the sums, [`facts`] records of the rest for JSON,
//! [`text`] sentences for a terminal.

pub mod collect;
pub mod facts;
pub mod listing;
pub mod metadata;
pub mod model;
pub mod notes;
pub mod results;
pub mod tables;
pub mod text;
pub mod work;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unknown_tests;
