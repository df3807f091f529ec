//! The subcommands: what the command line means, and the loop that drives the data.

pub mod calibrate;
mod caller;
mod child;
pub mod convert;
pub mod doctor;
pub mod manual;
pub mod mark;
pub mod model;
pub mod plot;
mod progress;
pub mod report;
pub mod result;
mod signals;
pub mod trace;
pub mod verify;

use std::io::{Write, stderr};

/// Tells the user something. A terminal or a pipe that has gone away does not end a trace, as a panic of `eprintln`
/// would.
fn say(text: &str) {
    let _ = stderr().write_all(format!("dlpm: {text}\n").as_bytes());
}
