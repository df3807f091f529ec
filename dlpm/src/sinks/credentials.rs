//! The calling user's rights to files, for one thread of a process that stays root's.

use std::io;

use nix::unistd::{Gid as FileGid, Uid as FileUid, setfsgid, setfsuid};
use rustix::{
    process::Gid,
    thread::{CapabilitySet, CapabilitySets, set_capabilities, set_thread_groups},
};

use crate::sinks::writer::Identity;

/// From now on the calling thread, and no other, uses files with this user's rights and with no others.
///
/// Its user id stays 0, so that the user can neither signal nor trace it: a signal that kills a thread kills its whole
/// process, and the kernel lets a user signal a thread that has the user's id (`kill_ok_by_cred` in `kernel/signal.c`).
/// What the kernel asks for files is the file system id (setfsuid(2)). Without a capability the thread cannot pass by
/// their permissions, their quotas, or the space that a file system reserves for root.
///
/// # Errors
///
/// Where root may not do this, in a user namespace without that user for example. The thread's rights are then undefined.
pub(super) fn use_files_as(identity: &Identity) -> io::Result<()> {
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (FileUid::from_raw(identity.uid), FileGid::from_raw(identity.gid));
    // In this order: each step needs capabilities that the last one takes.
    set_thread_groups(&groups)?;
    setfsgid(gid);
    setfsuid(uid);
    // Both calls return the id as it was and report no error: an impossible id asks for the present one.
    if setfsgid(FileGid::from_raw(u32::MAX)) != gid || setfsuid(FileUid::from_raw(u32::MAX)) != uid {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the kernel refuses to use files with that user's rights",
        ));
    }
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt, path::Path};

    use super::*;

    const NOBODY: u32 = 65_534;

    /// What `/proc` says of the calling thread: the line's values.
    fn status(name: &str) -> Vec<String> {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn a_thread_has_the_user_s_files_and_root_s_protection() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("DLPM_REQUIRE_KERNEL").is_none_or(|value| value != "1"));
            eprintln!("SKIPPED: needs root");
            return;
        }
        let of_root = tempfile::tempdir().unwrap();
        let of_user = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(of_user.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        let identity = Identity {
            uid: NOBODY,
            gid: NOBODY,
            groups: vec![NOBODY, 12],
            name: "alice".to_owned(),
        };
        let refused = |path: &Path| {
            let error = fs::write(path.join("file"), "").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                use_files_as(&identity).unwrap();
                // Real, effective, saved, file system.
                assert_eq!(status("Uid:"), ["0", "0", "0", "65534"]);
                assert_eq!(status("Gid:"), ["0", "0", "0", "65534"]);
                assert_eq!(status("Groups:"), ["12", "65534"]);
                for set in ["CapInh:", "CapPrm:", "CapEff:"] {
                    assert_eq!(status(set), ["0000000000000000"], "{set}");
                }
                refused(of_root.path());
                fs::write(of_user.path().join("file"), "").unwrap();
                let file = fs::metadata(of_user.path().join("file")).unwrap();
                assert_eq!((file.uid(), file.gid()), (NOBODY, NOBODY));
            });
        });
        // Another thread keeps its own.
        fs::write(of_root.path().join("file"), "").unwrap();
    }
}
