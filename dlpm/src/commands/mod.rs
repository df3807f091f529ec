//! The subcommands: what the command line means, and the loop that drives the data.

pub mod agent;
pub mod calibrate;
mod caller;
mod child;
pub mod convert;
mod counters;
pub mod doctor;
mod fleet;
pub mod job;
mod learning;
pub mod manual;
pub mod mark;
pub mod model;
pub mod plot;
mod prepare;
mod progress;
pub mod report;
pub mod result;
mod signals;
pub mod top;
pub mod trace;
pub mod validate;
pub mod verify;

use std::{process::ExitCode, sync::Once};

use jiff::tz::TimeZone;

use crate::{causes::told, sinks::terminal::say, sources::timezone};

/// The exit status of a command that succeeds or fails; its error is printed.
fn status<T>(result: anyhow::Result<T>) -> ExitCode {
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            say(&told(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// The local time zone; says once where it is not known.
fn local_timezone() -> &'static TimeZone {
    static SAID: Once = Once::new();
    let local = timezone::local();
    if let Some(note) = &local.note {
        SAID.call_once(|| say(&format!("note: {note}")));
    }
    &local.timezone
}
