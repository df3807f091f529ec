//! The subcommands: what the command line means, and the loop that drives the data.

pub mod calibrate;
mod caller;
mod child;
pub mod doctor;
mod progress;
mod signals;
pub mod trace;
pub mod verify;
