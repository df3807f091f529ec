//! The socket that marks come in by: a file in the output folder, or under `/run/dlpm` where the folder cannot have one.
//!
//! It is made with the credentials of the calling thread, for its owner alone, from its first moment on.

use std::{
    fs::{self, DirBuilder},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt, MetadataExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, fchmod},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};

/// Name of the socket in the output folder.
pub const SOCKET_NAME: &str = ".dlpm.sock";

/// Where sockets are whose folder cannot have one: its path is too long for an address, or its file system knows none.
pub const RUN_FOLDER: &str = "/run/dlpm";

/// Clients that wait to be let in at most.
const BACKLOG: i32 = 256;

/// A socket and where it is.
#[derive(Debug)]
pub struct Listening {
    /// Its absolute path.
    pub path: PathBuf,
    /// Does not block.
    pub listener: UnixListener,
}

/// Makes a socket at `path`, where nothing may be, for its owner alone.
///
/// # Errors
///
/// The system's; `InvalidInput` or `ENAMETOOLONG` where the path is too long for an address (107 bytes).
pub(super) fn make(path: PathBuf) -> io::Result<Listening> {
    make_with(path, Mode::RUSR | Mode::WUSR)
}

/// The same, for everybody: whoever listens asks the kernel who is there.
///
/// # Errors
///
/// Those of a socket for one user.
pub fn make_for_all(path: PathBuf) -> io::Result<Listening> {
    let listening = make_with(path, Mode::RUSR | Mode::WUSR)?;
    // The mask of the process has taken bits away; its folder is one in which nobody else can put something there.
    fs::set_permissions(&listening.path, fs::Permissions::from_mode(0o666))?;
    Ok(listening)
}

fn make_with(path: PathBuf, mode: Mode) -> io::Result<Listening> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the file the mode of the socket, so that there is no moment in which others could connect.
    fchmod(&socket, mode)?;
    bind(&socket, &SocketAddrUnix::new(&path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(Listening {
        path,
        listener: UnixListener::from(socket),
    })
}

/// Where the socket of a trace into `folder` is if it is not in the folder.
///
/// # Errors
///
/// Where the folder cannot be examined.
pub fn run_path(folder: &Path) -> io::Result<PathBuf> {
    let status = fs::metadata(folder)?;
    Ok(Path::new(RUN_FOLDER).join(format!("{:x}-{:x}.sock", status.dev(), status.ino())))
}

/// Makes the socket of a trace into `folder` under [`RUN_FOLDER`], for this user.
///
/// # Errors
///
/// The system's, and where others could write to that folder.
pub fn make_under_run(folder: &Path, uid: u32, gid: u32) -> io::Result<Listening> {
    let run_folder = Path::new(RUN_FOLDER);
    match DirBuilder::new().mode(0o755).create(run_folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let status = fs::symlink_metadata(run_folder)?;
    let is_ours = status.is_dir() && status.uid() == rustix::process::geteuid().as_raw() && status.mode() & 0o022 == 0;
    if !is_ours {
        return Err(io::Error::other(format!(
            "{RUN_FOLDER} is not a folder that dlpm's user alone may write to"
        )));
    }
    let path = run_path(folder)?;
    // Whoever has the lock of the folder's log has its socket, too: one that is there was left by a trace that was killed.
    remove(&path)?;
    let listening = make(path)?;
    std::os::unix::fs::lchown(&listening.path, Some(uid), Some(gid))?;
    Ok(listening)
}

/// Removes a socket, if it is there.
///
/// # Errors
///
/// The system's.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let listening = make(folder.path().join(SOCKET_NAME)).unwrap();
        let status = fs::metadata(&listening.path).unwrap();
        assert_eq!(status.mode() & 0o7777, 0o600);
        std::os::unix::net::UnixStream::connect(&listening.path).unwrap();
        assert!(listening.listener.accept().is_ok());
        assert!(listening.listener.accept().is_err(), "it does not block");
        assert!(make(listening.path.clone()).is_err(), "nothing is replaced");
        remove(&listening.path).unwrap();
        remove(&listening.path).unwrap();
    }

    #[test]
    fn a_path_that_is_too_long_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(100));
        fs::create_dir(&long).unwrap();
        make(long.join(SOCKET_NAME)).unwrap_err();
        assert_eq!(fs::read_dir(&long).unwrap().count(), 0);
    }
}
