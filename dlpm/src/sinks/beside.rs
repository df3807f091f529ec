//! Work beside the log in the name of the user who called sudo.

use std::{io, path::Path, thread};

use crate::sinks::{
    credentials,
    folder::{self, FolderError},
    writer::Identity,
};

/// Does something with a user's rights to files: on a thread of its own, since credentials belong to threads. Without an
/// identity, it is done as it is.
///
/// # Errors
///
/// Where the thread cannot be started, or cannot take the user's rights.
pub fn as_user<T: Send>(identity: Option<Identity>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let Some(identity) = identity else {
        return Ok(work());
    };
    thread::scope(|scope| {
        let work = || {
            credentials::use_files_as(&identity)?;
            Ok(work())
        };
        let worker = thread::Builder::new()
            .name("dlpm-beside".to_owned())
            .spawn_scoped(scope, work)?;
        worker
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("its thread stopped")))
    })
}

/// Writes a file of a folder anew, as a whole or not at all, in the user's name; makes the folder if it is not there.
///
/// # Errors
///
/// The system's.
pub fn write(path: &Path, name: &str, contents: &str, identity: Option<Identity>) -> Result<(), FolderError> {
    as_user(identity, || folder::replace_in(path, name, contents.as_bytes())).map_err(|source| FolderError::Io {
        what: "act as the calling user to write",
        path: path.join(name),
        source,
    })?
}

/// Makes the new contents of a file from the old ones (`None` if it is not there); like [`write()`].
///
/// # Errors
///
/// The outer one is the system's, the inner one that of `change`; the file is as it was then.
pub fn update<E: Send>(
    path: &Path,
    name: &str,
    identity: Option<Identity>,
    change: impl FnOnce(Option<Vec<u8>>) -> Result<Vec<u8>, E> + Send,
) -> Result<Result<(), E>, FolderError> {
    as_user(identity, || folder::update_in(path, name, change)).map_err(|source| FolderError::Io {
        what: "act as the calling user to write",
        path: path.join(name),
        source,
    })?
}
