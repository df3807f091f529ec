//! A cgroup's directory from its id, without a walk.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Type of a kernfs file handle: `FILEID_KERNFS` in the kernel's `include/linux/exportfs.h`, since 5.5.
const FILEID_KERNFS: libc::c_int = 0xfe;

/// `struct file_handle` with the 8 bytes that a kernfs handle has.
#[repr(C)]
struct KernfsHandle {
    handle_bytes: libc::c_uint,
    handle_type: libc::c_int,
    id: [u8; 8],
}

const _: () = assert!(size_of::<KernfsHandle>() == 16);

/// Opens the directory of a cgroup by its id. Needs CAP_DAC_READ_SEARCH.
///
/// # Errors
///
/// ESTALE if the cgroup is gone; EPERM without the capability; EOPNOTSUPP if `mount` is not on a cgroup tree.
pub(super) fn open(mount: &OwnedFd, id: u64) -> io::Result<OwnedFd> {
    let mut handle = KernfsHandle {
        handle_bytes: 8,
        handle_type: FILEID_KERNFS,
        id: id.to_ne_bytes(),
    };
    // SAFETY: the descriptor is open, and `handle` is laid out as the kernel's struct file_handle followed by the
    // `handle_bytes` bytes that it announces. The kernel only reads it.
    let fd = unsafe {
        libc::open_by_handle_at(
            mount.as_raw_fd(),
            (&raw mut handle).cast::<libc::file_handle>(),
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor to us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The path of an open directory, also of one that was removed while it was open. `fd_links` is `/proc/self/fd`.
pub(super) fn path_of_fd(fd_links: &Path, fd: &OwnedFd) -> io::Result<PathBuf> {
    let target = fs::read_link(fd_links.join(fd.as_raw_fd().to_string()))?;
    Ok(match target.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(path) => PathBuf::from(path),
        None => target,
    })
}
