//! Signals that end a trace or go on to the traced command.

use std::{io, sync::Arc, thread};

use signal_hook::{
    consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ},
    iterator::{SignalsInfo, exfiltrator::WithOrigin},
    low_level::siginfo::{Cause, Sent},
};
use tokio::sync::mpsc;

/// A signal that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Its number.
    pub number: i32,
    /// Somebody sent it to dlpm; a terminal's Ctrl-C is not sent but comes from the kernel, to every process of the
    /// foreground group, so that the traced command has it already.
    pub sent: bool,
}

impl Signal {
    /// Whether it ends a trace without a command.
    pub fn ends(self) -> bool {
        matches!(self.number, SIGINT | SIGTERM | SIGQUIT | SIGHUP)
    }
}

/// Listens from now on; with a command also for the signals that only it knows the meaning of.
///
/// # Errors
///
/// Where the handlers cannot be installed.
pub fn listen(with_command: bool) -> io::Result<mpsc::UnboundedReceiver<Signal>> {
    let mut numbers = vec![SIGINT, SIGTERM, SIGQUIT];
    if with_command {
        numbers.extend([SIGUSR1, SIGUSR2]);
    }
    // Under nohup a hang-up stays ignored.
    if !is_ignored(SIGHUP)? {
        numbers.push(SIGHUP);
    }
    // A write beyond the limit of a file's size is then an error like that of a full disk, and does not kill dlpm. The
    // handler is gone when the traced command is executed.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    let mut signals = SignalsInfo::<WithOrigin>::new(numbers)?;
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::Builder::new().name("dlpm-signals".to_owned()).spawn(move || {
        for origin in signals.forever() {
            let sent = matches!(origin.cause, Cause::Sent(Sent::User | Sent::TKill | Sent::Queue));
            if sender
                .send(Signal {
                    number: origin.signal,
                    sent,
                })
                .is_err()
            {
                return;
            }
        }
    })?;
    Ok(receiver)
}

fn is_ignored(signal: i32) -> io::Result<bool> {
    // SAFETY: sigaction is plain data that the call fills.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks for the present action only.
    if unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(action.sa_sigaction == libc::SIG_IGN)
}
