//! The traced command.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::ExitStatus,
};

use anyhow::{Result, anyhow};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use tokio::process::{Child, Command};

use super::{caller::Caller, mark::SOCKET_VARIABLE};

/// Exit status of dlpm's own failures where a command is traced, as in `timeout` and `env`.
pub const FAILED: u8 = 125;

/// Why a command cannot be run, with the exit status that shells give for it.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// 126
    #[error("the command {} cannot be run: {reason}; check its permissions and the first line of a script", .path.display())]
    CannotRun {
        /// The command.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// 127
    #[error("there is no command {}{}", .name.display(), where_looked(.name))]
    NotFound {
        /// The command.
        name: PathBuf,
    },
}

impl CommandError {
    /// The exit status that shells give.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::CannotRun { .. } => 126,
            Self::NotFound { .. } => 127,
        }
    }
}

fn where_looked(name: &Path) -> &'static str {
    if name.as_os_str().is_empty() {
        "``: its name is empty; give a program after `--`, and see whether a variable there is not set"
    } else if name.as_os_str().as_bytes().contains(&b'/') {
        ": check the path"
    } else {
        " in PATH (sudo may have changed it): give the full path, or use `sudo env PATH=\"$PATH\" dlpm …`"
    }
}

/// Finds the program before anything is traced or written.
///
/// # Errors
///
/// Where there is none, or it is not executable.
pub fn find(command: &OsStr) -> Result<PathBuf, CommandError> {
    let name = PathBuf::from(command);
    // Joined to a folder of PATH it would be that folder.
    if command.is_empty() {
        return Err(CommandError::NotFound { name });
    }
    let candidates: Vec<PathBuf> = if command.as_bytes().contains(&b'/') {
        vec![name.clone()]
    } else {
        env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .map(|directory| directory.join(&name))
            .collect()
    };
    let mut refused = None;
    for path in candidates {
        match path.metadata() {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => return Ok(path),
            Ok(found) if found.is_dir() => {
                refused = refused.or(Some((path, "it is a directory".to_owned())));
            }
            Ok(_) => refused = refused.or(Some((path, "it is not executable".to_owned()))),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                refused = refused.or(Some((path, error.to_string())));
            }
            Err(_) => {}
        }
    }
    Err(match refused {
        Some((path, reason)) => CommandError::CannotRun { path, reason },
        None => CommandError::NotFound { name },
    })
}

/// Starts the command with dlpm's terminal, as the given user. It finds the socket for marks in its environment.
///
/// # Errors
///
/// Where it cannot be started.
pub fn spawn(program: &Path, command: &[OsString], user: Option<&Caller>, socket: Option<&Path>) -> Result<Child> {
    let mut started = Command::new(program);
    match socket {
        Some(socket) => started.env(SOCKET_VARIABLE, socket),
        // It would be that of a trace that this one runs in.
        None => started.env_remove(SOCKET_VARIABLE),
    };
    if let [name, args @ ..] = command {
        started.arg0(name).args(args);
    }
    if let Some(user) = user {
        // As login does; sudo leaves root's.
        started.env("USER", &user.name).env("LOGNAME", &user.name);
        if let Some(home) = &user.home {
            started.env("HOME", home);
        }
        if let Some(shell) = &user.shell {
            started.env("SHELL", shell);
        }
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
        // SAFETY: only system calls, in this order so that each is still allowed, between fork and exec.
        unsafe {
            started.pre_exec(move || {
                setgroups(&groups)?;
                setresgid(gid, gid, gid)?;
                Ok(setresuid(uid, uid, uid)?)
            });
        }
    }
    started.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow!(CommandError::CannotRun {
            path: program.to_owned(),
            reason: "its interpreter does not exist".to_owned(),
        }),
        _ => anyhow!(CommandError::CannotRun {
            path: program.to_owned(),
            reason: error.to_string()
        }),
    })
}

/// Sends a signal on to the command, also one that has no name.
///
/// # Errors
///
/// Where the kernel refuses, as for a command that became another user; a command that is gone already is not an error.
pub fn forward(child: &Child, signal: i32) -> io::Result<()> {
    // No id: it has been waited for, and its pid may be another process by now.
    let Some(pid) = child.id() else { return Ok(()) };
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: no memory is involved. The child has not been waited for, so the pid is still its own.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        },
    }
}

/// The command's own status, or 128 and the signal that ended it, as shells have it.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_shells_find_them() {
        assert!(find(OsStr::new("sh")).is_ok());
        assert_eq!(
            find(OsStr::new("no-such-command-anywhere")).unwrap_err().exit_code(),
            127
        );
        assert_eq!(find(OsStr::new("/")).unwrap_err().exit_code(), 126);
        let empty = find(OsStr::new("")).unwrap_err();
        assert_eq!(empty.exit_code(), 127);
        assert!(empty.to_string().contains("is empty"), "{empty}");
        assert_eq!(find(OsStr::new("/etc/passwd")).unwrap_err().exit_code(), 126);
    }

    #[test]
    fn exit_codes_are_those_of_shells() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(libc::SIGKILL)), 137);
    }
}
