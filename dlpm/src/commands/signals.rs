//! What each signal does to a trace: users find the same as a table in `docs/operations.md`.
//!
//! Whoever sends a signal to `dlpm trace -- COMMAND` means the command: batch systems know the first process alone. So
//! no signal that could end dlpm at once is left to its default action, but for the kernel's own and the faults.

use std::{io, mem, process, ptr, thread};

use signal_hook::{
    consts::signal::{
        SIGABRT, SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGSYS, SIGTERM, SIGTRAP, SIGTSTP, SIGUSR1,
        SIGUSR2, SIGVTALRM, SIGWINCH, SIGXCPU, SIGXFSZ,
    },
    iterator::{SignalsInfo, exfiltrator::WithOrigin},
    low_level::{
        siginfo::{Cause, Sent},
        signal_name,
    },
};
use tokio::sync::mpsc;

/// These end a process that does not handle them, and so do all real-time signals. Not here are KILL, which cannot be
/// handled, PIPE, which Rust programs ignore, and BUS, FPE, ILL and SEGV, which say that dlpm itself is broken.
const ENDING: [i32; 17] = [
    SIGABRT,
    SIGALRM,
    SIGHUP,
    SIGINT,
    SIGIO,
    SIGPROF,
    SIGQUIT,
    SIGSYS,
    SIGTERM,
    SIGTRAP,
    SIGUSR1,
    SIGUSR2,
    SIGVTALRM,
    SIGXCPU,
    // A write beyond the limit of a file's size is then an error like that of a full disk.
    SIGXFSZ,
    libc::SIGPWR,
    libc::SIGSTKFLT,
];

/// A trace hears of these also where whoever started it ignores them: shells do so for what runs in the background.
const ALWAYS: [i32; 3] = [SIGINT, SIGQUIT, SIGTERM];

/// Who sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A process, to dlpm alone or to its group.
    Process,
    /// The kernel: a terminal's Ctrl-C, which the traced command has got as well, a timer, or a limit.
    Kernel,
    /// dlpm itself, as with a write that is refused.
    Own,
}

/// A signal that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Its number.
    pub number: i32,
    /// Who sent it.
    pub origin: Origin,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The trace ends, properly.
    End,
    /// It is the command's.
    PassOn,
    /// dlpm stops until it is continued; the kernel goes on counting.
    Stop,
    /// Both: the command has not got it.
    PassOnAndStop,
    /// It is ignored.
    Nothing,
}

impl Signal {
    /// What to do, in a trace of a command or in one without.
    pub fn action(self, with_command: bool) -> Action {
        match (self.number, self.origin) {
            (_, Origin::Own) => Action::Nothing,
            (SIGTSTP, Origin::Process) if with_command => Action::PassOnAndStop,
            (SIGTSTP, _) => Action::Stop,
            (SIGCONT | SIGWINCH, Origin::Process) if with_command => Action::PassOn,
            (SIGCONT | SIGWINCH, _) => Action::Nothing,
            // The terminal gave them to the command as well.
            (SIGINT | SIGQUIT | SIGHUP, Origin::Kernel) if with_command => Action::Nothing,
            // The limit (ulimit -t) that dlpm has reached, not the command.
            (SIGXCPU, Origin::Kernel) => Action::End,
            // A timer among them: `alarm` before exec limits the time of what is executed.
            _ if with_command => Action::PassOn,
            _ => Action::End,
        }
    }

    /// For messages.
    pub fn name(self) -> String {
        let after_first = self.number - libc::SIGRTMIN();
        signal_name(self.number).map_or_else(
            || match after_first {
                0.. => format!("SIGRTMIN+{after_first}"),
                _ => format!("signal {}", self.number),
            },
            str::to_owned,
        )
    }
}

/// Listens from now on.
///
/// # Errors
///
/// Where the handlers cannot be installed.
pub fn listen() -> io::Result<mpsc::UnboundedReceiver<Signal>> {
    let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
    let mut numbers = ALWAYS.to_vec();
    for number in ENDING.into_iter().chain([SIGTSTP, SIGCONT, SIGWINCH]).chain(real_time) {
        // Under nohup a hang-up stays ignored, by the command as well.
        if !numbers.contains(&number) && !is_ignored(number)? {
            numbers.push(number);
        }
    }
    let mut signals = SignalsInfo::<WithOrigin>::new(numbers)?;
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::Builder::new().name("dlpm-signals".to_owned()).spawn(move || {
        let own = process::id().cast_signed();
        for told in signals.forever() {
            let origin = match told.cause {
                _ if told.process.is_some_and(|process| process.pid == own) => Origin::Own,
                Cause::Sent(Sent::User | Sent::TKill | Sent::Queue) => Origin::Process,
                _ => Origin::Kernel,
            };
            let number = told.signal;
            if sender.send(Signal { number, origin }).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// Stops this process as Ctrl-Z does, until it is continued. In a process group that nobody would continue, the kernel
/// does not stop it.
///
/// # Errors
///
/// Any error of sigaction(2).
pub fn stop() -> io::Result<()> {
    // SAFETY: the default action is not code, and the handler that comes back is the one that was there.
    unsafe {
        let mut default: libc::sigaction = mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        let mut handler: libc::sigaction = mem::zeroed();
        check(libc::sigaction(SIGTSTP, &raw const default, &raw mut handler))?;
        // To this thread, so that it is stopped before the handler is back.
        let raised = check(libc::raise(SIGTSTP));
        check(libc::sigaction(SIGTSTP, &raw const handler, ptr::null_mut()))?;
        raised
    }
}

fn is_ignored(signal: i32) -> io::Result<bool> {
    // SAFETY: sigaction is plain data that the call fills.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: asks for the present action only.
    check(unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) })?;
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

fn check(result: i32) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(number: i32, origin: Origin, with_command: bool) -> Action {
        Signal { number, origin }.action(with_command)
    }

    #[test]
    fn what_could_end_dlpm_goes_to_the_command_or_ends_the_trace() {
        for number in ENDING.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
            assert_eq!(action(number, Origin::Process, true), Action::PassOn, "{number}");
            assert_eq!(action(number, Origin::Process, false), Action::End, "{number}");
            assert_eq!(action(number, Origin::Own, false), Action::Nothing, "{number}");
        }
    }

    #[test]
    fn the_kernel_s_own_signals_depend_on_who_else_has_them() {
        for terminal in [SIGINT, SIGQUIT, SIGHUP] {
            assert_eq!(action(terminal, Origin::Kernel, true), Action::Nothing);
            assert_eq!(action(terminal, Origin::Kernel, false), Action::End);
        }
        for timer in [SIGALRM, SIGVTALRM, SIGPROF] {
            assert_eq!(action(timer, Origin::Kernel, true), Action::PassOn);
        }
        assert_eq!(action(SIGXCPU, Origin::Kernel, true), Action::End);
        assert_eq!(action(SIGTSTP, Origin::Kernel, true), Action::Stop);
        assert_eq!(action(SIGTSTP, Origin::Process, true), Action::PassOnAndStop);
        assert_eq!(action(SIGCONT, Origin::Process, true), Action::PassOn);
        assert_eq!(action(SIGCONT, Origin::Process, false), Action::Nothing);
    }

    #[test]
    fn signals_have_names() {
        let name = |number| {
            let origin = Origin::Process;
            Signal { number, origin }.name()
        };
        assert_eq!(name(SIGXCPU), "SIGXCPU");
        assert_eq!(name(libc::SIGRTMIN() + 3), "SIGRTMIN+3");
        assert_eq!(name(libc::SIGSTKFLT), "signal 16");
    }
}
