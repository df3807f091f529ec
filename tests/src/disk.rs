//! A file system that is soon full.

use std::{
    ffi::CString,
    fs,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// A mounted tmpfs, unmounted when this is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// Mounts one of this many KiB.
    pub fn mount(kib: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let target = CString::new(directory.path().as_os_str().as_bytes()).unwrap();
        let options = CString::new(format!("size={kib}k")).unwrap();
        // SAFETY: all strings are terminated and live through the call.
        let result = unsafe {
            libc::mount(
                c"tmpfs".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                options.as_ptr().cast(),
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        Self { directory }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.filler()).unwrap();
        while file.write_all(&[b'x'; 4096]).is_ok() {}
        while file.write_all(b"x").is_ok() {}
    }

    /// Makes room again.
    pub fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let target = CString::new(self.directory.path().as_os_str().as_bytes()).unwrap();
        // SAFETY: the string is terminated. Detached, it goes when the last file of it is closed.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}
