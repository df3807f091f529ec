//! Opening files of strangers: below a directory, without a link anywhere.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat2};

use crate::files;

/// Entries of a directory that are looked at.
const MOST_ENTRIES: usize = 10_000;

/// A directory that files are looked for in. Links on the way to it are followed, since its path is the machine's.
pub struct Base {
    directory: OwnedFd,
    /// Who may own the files in it, beside root.
    owner: u32,
    /// Whether what is mounted in it is left out: a user can mount file systems of their own.
    one_device: bool,
}

impl Base {
    /// A directory of root's; `None` if it is not there.
    pub fn of_root(path: &Path) -> Option<Self> {
        Self::open(path, 0, false)
    }

    /// A directory of a user's.
    pub fn of_user(path: &Path, uid: u32) -> Option<Self> {
        Self::open(path, uid, true)
    }

    fn open(path: &Path, owner: u32, one_device: bool) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).ok()?;
        Some(Self {
            directory,
            owner,
            one_device,
        })
    }

    fn beneath(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        if self.one_device {
            resolve |= ResolveFlags::NO_XDEV;
        }
        let mut flags = flags | OFlags::CLOEXEC;
        if !flags.contains(OFlags::PATH) {
            // A pipe does not wait for its other end.
            flags |= OFlags::NONBLOCK | OFlags::NOCTTY;
        }
        Ok(openat2(self.directory.as_fd(), path, flags, Mode::empty(), resolve)?)
    }

    /// What a regular file holds, within the limits of [`files`].
    ///
    /// # Errors
    ///
    /// Any of the system's, `InvalidData` where it goes beyond a limit, is not a regular file, or belongs to another user.
    pub fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        // PATH first: opening a device does something to it.
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let named = File::from(self.beneath(path, OFlags::PATH)?);
        if !named.metadata()?.is_file() {
            return Err(invalid("it is not a regular file"));
        }
        let file = File::from(self.beneath(path, OFlags::RDONLY)?);
        let status = file.metadata()?;
        if !status.is_file() || status.uid() != 0 && status.uid() != self.owner {
            return Err(invalid("it is not a regular file, or another user's"));
        }
        files::whole(&file)
    }

    /// The names in a directory, as far as they are UTF-8.
    pub fn list(&self, path: &str) -> Vec<String> {
        let Ok(directory) = self.beneath(path, OFlags::RDONLY | OFlags::DIRECTORY) else {
            return Vec::new();
        };
        let entries = Dir::read_from(&directory).into_iter().flatten().flatten();
        let names = entries.take(MOST_ENTRIES);
        let mut names: Vec<String> = names
            .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
            .filter(|name| !matches!(name.as_str(), "." | ".."))
            .collect();
        names.sort_unstable();
        names
    }
}

/// Whether the system call is allowed that opens below a directory.
///
/// # Errors
///
/// Why not: a sandbox may refuse it as a whole, since a filter cannot see what its arguments point at.
pub fn check() -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?;
    Ok(())
}

/// A file of the kernel's or of root's by its plain path, up to a size; what is beyond it is left out.
pub fn beginning(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    use io::Read;

    let file = rustix::fs::openat(
        CWD,
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )?;
    let mut contents = Vec::new();
    File::from(file).take(bytes).read_to_end(&mut contents)?;
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use rustix::fs::{FileType, mknodat};

    use super::*;

    #[test]
    fn only_regular_files_below_it_and_never_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("a")).unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        fs::write(root.join("a/file"), "text").unwrap();
        symlink("../../secret", root.join("a/out")).unwrap();
        symlink("file", root.join("a/same")).unwrap();
        symlink(folder.path(), root.join("way")).unwrap();
        mknodat(CWD, root.join("a/pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        File::create(root.join("a/huge")).unwrap().set_len(1 << 40).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        for base in [Base::of_user(&root, uid).unwrap(), Base::of_user(&root, uid).unwrap()] {
            assert_eq!(base.read("a/file").unwrap(), b"text");
            for path in [
                "a/out",
                "a/same",
                "way/secret",
                "../secret",
                "a/pipe",
                "a",
                "a/huge",
                "/etc/passwd",
                "none",
            ] {
                assert!(base.read(path).is_err(), "{path}");
            }
            assert_eq!(base.list("a"), ["file", "huge", "out", "pipe", "same"]);
            assert!(base.list("way").is_empty() && base.list("..").is_empty());
        }
        // The way to the base may have links: Docker's folder is often elsewhere.
        symlink(&root, folder.path().join("link")).unwrap();
        assert_eq!(Base::of_root(&folder.path().join("link")).unwrap().list("a").len(), 5);
    }

    #[test]
    fn files_of_other_users_are_not_read() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "text").unwrap();
        std::os::unix::fs::chown(&path, Some(1001), None).unwrap();
        assert!(Base::of_root(folder.path()).unwrap().read("file").is_err());
        assert!(Base::of_user(folder.path(), 1000).unwrap().read("file").is_err());
        assert!(Base::of_user(folder.path(), 1001).unwrap().read("file").is_ok());
    }
}
