//! Files beside the log, written by whoever does not write the log itself.

use std::{io, path::Path, thread};

use crate::sinks::{
    folder::{self, FolderError},
    worker,
    writer::Identity,
};

/// Writes a file of a folder anew, as a whole or not at all; makes the folder if it is not there. With an identity, in that user's
/// name: on a thread of its own, since credentials belong to threads.
///
/// # Errors
///
/// The system's.
pub fn write(path: &Path, name: &str, contents: &str, identity: Option<Identity>) -> Result<(), FolderError> {
    let failed = |what| {
        move |source: io::Error| FolderError::Io {
            what,
            path: path.join(name),
            source,
        }
    };
    let Some(identity) = identity else {
        return folder::replace_in(path, name, contents.as_bytes());
    };
    thread::scope(|scope| {
        let write = || {
            worker::become_user(&identity).map_err(failed("act as the calling user to write"))?;
            folder::replace_in(path, name, contents.as_bytes())
        };
        let writer = thread::Builder::new().name("dlpm-beside".to_owned());
        let writer = writer
            .spawn_scoped(scope, write)
            .map_err(failed("start a thread to write"))?;
        writer
            .join()
            .unwrap_or_else(|_| Err(failed("write")(io::Error::other("its thread stopped"))))
    })
}
