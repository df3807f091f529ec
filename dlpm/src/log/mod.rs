//! The format of a log: one description, for who writes it and who reads it.
//!
//! [`names`] has what is fixed, [`exact`] the exact part of a sample, [`event`] what happens between samples, [`entry`]
//! decides what a line is. [`mod@line`] is a line to be written, [`reader`] reads a log line by line, from all of its
//! files ([`chain`]); [`rotation`] says when a file ends.

mod ahead;
pub mod chain;
pub mod date;
pub mod entry;
pub mod event;
pub mod exact;
pub mod line;
pub mod names;
pub mod phases;
pub mod reader;
pub mod rotation;
pub mod torn;
pub mod window;

#[cfg(test)]
mod tests;

pub use entry::{Foreign, Interval, Kind, LogLine};
pub use event::{Dropped, Event, ZoneState};
pub use line::{Line, LineKind, SampleFacts};
pub use reader::{LogError, LogReader, PassedOver};

/// Says what was expected and what was found.
pub(crate) fn differs(what: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> String {
    format!("{what}: expected {expected}, found {found}")
}
