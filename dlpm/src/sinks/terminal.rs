//! What users see: the only place that writes to standard output and standard error.
//!
//! All of it goes through [`crate::printable`], so that no name can control a terminal, also where whoever made the
//! text forgot that a name is foreign.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the place that they are disallowed in favour of"
)]

use std::io::{self, IsTerminal, Write, stderr, stdout};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use crate::printable::page;

/// Standard output did not take all that there was to say.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written: {0}; what is there is not whole")]
pub struct PrintError(#[from] io::Error);

/// Writes a result to standard output. A reader that has gone away wants no more of it, which is not an error.
///
/// # Errors
///
/// Where standard output does not take all of it for another reason: a full disk, say.
pub fn print(text: &str) -> Result<(), PrintError> {
    print_own(page(text).as_bytes())
}

/// Like [`print()`], for what dlpm itself has written and no foreign text is in: nothing is replaced.
///
/// # Errors
///
/// Those of [`print()`].
pub fn print_own(text: &[u8]) -> Result<(), PrintError> {
    match write_whole(text).and_then(|()| flushed()) {
        Err(Errno::PIPE) | Ok(()) => Ok(()),
        Err(errno) => Err(PrintError(errno.into())),
    }
}

/// Not by the standard library, to which a standard output that cannot be written (`EBADF`) is a success.
fn write_whole(mut text: &[u8]) -> Result<(), Errno> {
    let stdout = stdout();
    while !text.is_empty() {
        match rustix::io::write(&stdout, text) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => text = text.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // A pipe that somebody has made so; an error of the wait shows at the next attempt.
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], None)),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Some file systems (NFS) tell only when a file is closed that there is no room; a copy is as good as the last.
fn flushed() -> Result<(), Errno> {
    let copy = rustix::io::dup(stdout())?;
    nix::unistd::close(copy).map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// Tells the user something, on a line of standard error. A terminal or a pipe that has gone away does not end a trace.
pub fn say(text: &str) {
    complain(&format!("dlpm: {text}\n"));
}

/// Writes to standard error, as far as it can be written.
pub fn complain(text: &str) {
    let _ = stderr().write_all(page(text).as_bytes());
}

/// Writes `text` over the current line of a terminal on standard error; an empty one leaves the line empty.
pub fn overwrite(text: &str) {
    let text = crate::printable::printable(text);
    // \x1b[K clears what the last line had more.
    let _ = write!(stderr(), "\r{text}\x1b[K");
}

/// Whether standard error is a terminal.
pub fn has_terminal() -> bool {
    stderr().is_terminal()
}

/// Columns of the terminal on standard output; `None` where that is not a terminal.
pub fn columns() -> Option<u16> {
    rustix::termios::tcgetwinsize(stdout()).map(|size| size.ws_col).ok()
}

/// Shows what clap has to say: help and version on standard output, errors on standard error. Its exit status.
pub fn show_usage(usage: &clap::Error) -> u8 {
    let status = u8::try_from(usage.exit_code()).unwrap_or(2);
    let plain = usage.render();
    let (text, styled) = (plain.to_string(), plain.ansi().to_string());
    let wants_colour =
        |is_terminal: bool| is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if usage.use_stderr() {
        // What was typed is in it: colours only where that cannot be anything else than text.
        if wants_colour(stderr().is_terminal()) && *page(&text) == *text {
            let _ = stderr().write_all(styled.as_bytes());
        } else {
            complain(&text);
        }
        return status;
    }
    let shown = if wants_colour(stdout().is_terminal()) {
        styled
    } else {
        text
    };
    match print_own(shown.as_bytes()) {
        Ok(()) => status,
        Err(error) => {
            say(&error.to_string());
            1
        }
    }
}
