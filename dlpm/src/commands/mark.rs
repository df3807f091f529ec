//! `dlpm mark`: finds the trace and tells it of a border.

use std::{
    env, fs,
    io::{self, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

use crate::{
    causes::told,
    cli::MarkArgs,
    phases::{Answer, Request},
    printable::printable,
    sinks::{
        socket::{SOCKET_NAME, run_path},
        terminal::say,
    },
};

/// The variable in which a traced command finds the socket.
pub const SOCKET_VARIABLE: &str = "DLPM_SOCKET";

/// A trace answers within some milliseconds, on a machine however busy within this: the whole answer, from the connection on.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of an answer at most.
const ANSWER_BYTES: usize = 4096;

/// Exit status where the command line is wrong, as clap has it.
const WRONG: u8 = 2;

/// Runs the command; its errors are printed.
pub fn run(args: &MarkArgs) -> ExitCode {
    let request = match args.request() {
        Ok(request) => request,
        Err(error) => {
            say(&error);
            return ExitCode::from(WRONG);
        }
    };
    match mark(args, &request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if args.if_running && error.is::<NotRunning>() => ExitCode::SUCCESS,
        Err(error) => {
            say(&told(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// There is no trace to tell.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotRunning(String);

fn mark(args: &MarkArgs, request: &Request) -> Result<()> {
    let sockets = match (&args.dir, env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty())) {
        (Some(folder), _) => of_folder(folder)?,
        (None, Some(path)) => vec![PathBuf::from(path)],
        (None, None) => vec![of_directory(Path::new("."))?],
    };
    let mut refused = None;
    let deadline = Deadline::new();
    let reached = sockets.iter().find_map(|socket| match reach(socket, deadline) {
        Ok(stream) => Some((socket, stream)),
        Err(error) => {
            refused.get_or_insert_with(|| not_reached(socket, &error));
            None
        }
    });
    let Some((socket, stream)) = reached else {
        return Err(refused.unwrap_or_else(|| anyhow!("there is no socket")));
    };
    match ask(stream, request, deadline) {
        Ok(Some(Answer::Done(_))) => Ok(()),
        Ok(Some(Answer::Refused(reason))) => bail!("the trace refuses: {}", printable(&reason)),
        Ok(None) => Err(anyhow!(NotRunning(
            "the trace is ending: it takes no more marks".to_owned()
        ))),
        Err(error) if is_timeout(&error) => bail!(
            "the trace has not answered for {} s: it may hang, or the machine be very busy; the border comes late, if \
             at all",
            PATIENCE.as_secs()
        ),
        Err(error) => Err(error).with_context(|| format!("{} cannot be asked", socket.display())),
    }
}

/// Where the socket of the trace into `folder` may be: one place at least.
fn of_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let folder = fs::canonicalize(folder).with_context(|| {
        format!(
            "there is no folder {}: give that of `dlpm trace --output`",
            folder.display()
        )
    })?;
    let sockets = sockets(&folder);
    if sockets.is_empty() {
        return Err(anyhow!(NotRunning(format!(
            "no trace writes into {}: start one with `dlpm trace --output`, or name its folder with --dir",
            folder.display()
        ))));
    }
    Ok(sockets)
}

/// The socket of the one trace that writes into `directory` or one in it.
fn of_directory(directory: &Path) -> Result<PathBuf> {
    let directory = fs::canonicalize(directory).context("the current directory cannot be examined")?;
    let mut folders = vec![directory.clone()];
    let entries = fs::read_dir(&directory).context("the current directory cannot be listed: give --dir")?;
    let directories = entries.flatten().filter(|entry| entry.path().is_dir());
    folders.extend(directories.map(|entry| entry.path()));
    folders.sort();
    // One for all of them: a folder may hold many sockets that hang.
    let deadline = Deadline::new();
    let is_alive = |socket: &PathBuf| match reach(socket, deadline) {
        Ok(_) => true,
        Err(error) => !is_gone(&error),
    };
    let traced: Vec<(&PathBuf, PathBuf)> = folders
        .iter()
        .flat_map(|folder| sockets(folder).into_iter().map(move |socket| (folder, socket)))
        .filter(|(_, socket)| is_alive(socket))
        .collect();
    match traced.as_slice() {
        [(_, socket)] => Ok(socket.clone()),
        [] => Err(anyhow!(NotRunning(format!(
            "no trace writes into {} or a directory in it: name its folder with --dir; a command that `dlpm trace` \
             starts finds it by itself",
            directory.display()
        )))),
        several => {
            let folders: Vec<_> = several.iter().map(|(folder, _)| folder.display().to_string()).collect();
            bail!("several traces run here: choose one with --dir: {}", folders.join(", "))
        }
    }
}

/// The places of the socket of a trace into `folder` where there is something.
fn sockets(folder: &Path) -> Vec<PathBuf> {
    let places = [Some(folder.join(SOCKET_NAME)), run_path(folder).ok()];
    places
        .into_iter()
        .flatten()
        .filter(|path| fs::symlink_metadata(path).is_ok())
        .collect()
}

/// When a trace has been waited for long enough.
#[derive(Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn new() -> Self {
        Self(Instant::now() + PATIENCE)
    }

    /// The next call waits no longer.
    ///
    /// # Errors
    ///
    /// `TimedOut` where no time is left.
    fn of_next(self, stream: &OwnedFd, direction: Timeout) -> io::Result<()> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(set_socket_timeout(stream, direction, Some(left))?)
    }
}

/// Connects, before the deadline.
fn reach(socket: &Path, deadline: Deadline) -> io::Result<OwnedFd> {
    let stream: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    deadline.of_next(&stream, Timeout::Send)?;
    connect(&stream, &SocketAddrUnix::new(socket)?)?;
    Ok(stream)
}

/// What the trace says; `None` if it has gone without a word.
fn ask(stream: OwnedFd, request: &Request, deadline: Deadline) -> io::Result<Option<Answer>> {
    deadline.of_next(&stream, Timeout::Send)?;
    // An answer can be there although the trace has closed the connection.
    let written = UnixStream::from(stream.try_clone()?).write_all(format!("{request}\n").as_bytes());
    let mut answer = Vec::new();
    let read = answer_line(&stream, &mut answer, deadline);
    if read.as_ref().is_err_and(is_timeout) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let answer = String::from_utf8_lossy(&answer);
    if !answer.is_empty() {
        return Answer::parse(&answer)
            .map(Some)
            .ok_or_else(|| io::Error::other(format!("it is not a trace: it says `{}`", printable(&answer))));
    }
    match written.and(read) {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(None),
        Err(error) => Err(error),
        Ok(_) => Ok(None),
    }
}

/// Reads until the end of the line, or of what is said.
fn answer_line(stream: &OwnedFd, answer: &mut Vec<u8>, deadline: Deadline) -> io::Result<()> {
    let mut part = [0; ANSWER_BYTES];
    while answer.len() < ANSWER_BYTES && !answer.contains(&b'\n') {
        deadline.of_next(stream, Timeout::Recv)?;
        match rustix::io::read(stream, &mut part)? {
            0 => break,
            read => answer.extend_from_slice(&part[..read]),
        }
    }
    Ok(())
}

/// Whether nobody listens there.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn not_reached(socket: &Path, error: &io::Error) -> anyhow::Error {
    let socket = socket.display();
    match error.kind() {
        _ if is_gone(error) => anyhow!(NotRunning(format!(
            "no trace listens at {socket}: it has ended; name the folder of a running one with --dir"
        ))),
        io::ErrorKind::PermissionDenied => anyhow!(
            "{socket} cannot be reached ({error}): only the user who traces, and root, can mark phases; run \
             `dlpm mark` as that user"
        ),
        _ if is_timeout(error) => anyhow!("the trace at {socket} takes no marks: it hangs, or too many wait for it"),
        _ => anyhow!("{socket} cannot be reached ({error}): name the folder of the trace with --dir"),
    }
}
