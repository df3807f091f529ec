//! Where cgroup hierarchies are mounted.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use procfs_core::process::MountInfo;

use super::{CgroupError, walk};

#[derive(Debug)]
pub(super) struct Mounts {
    /// Mount point of the version 2 tree.
    pub(super) v2: PathBuf,
    /// The directory of the tree that this mount shows.
    pub(super) v2_root: String,
    /// Mount points of version 1 hierarchies.
    v1: Vec<PathBuf>,
}

impl Mounts {
    pub(super) fn at(mount_point: &Path) -> Self {
        Self {
            v2: mount_point.to_owned(),
            v2_root: "/".to_owned(),
            v1: Vec::new(),
        }
    }

    pub(super) fn read(mountinfo: &Path) -> Result<Self, CgroupError> {
        let bytes = fs::read(mountinfo).map_err(|cause| CgroupError::Unreadable {
            path: mountinfo.to_owned(),
            cause,
        })?;
        let mut v1 = Vec::new();
        let mut v2: Vec<(String, PathBuf)> = Vec::new();
        // Line by line: one odd mount elsewhere (a path that is not UTF-8) must not hide the cgroup trees.
        for line in String::from_utf8_lossy(&bytes).lines() {
            let Ok(mount) = MountInfo::from_line(line) else {
                continue;
            };
            let mount_point = PathBuf::from(unescape(&mount.mount_point.to_string_lossy()));
            match mount.fs_type.as_str() {
                "cgroup" => v1.push(mount_point),
                "cgroup2" => v2.push((unescape(&mount.root), mount_point)),
                _ => {}
            }
        }
        let whole = v2.iter().position(|(root, _)| root == "/").unwrap_or(0);
        if v2.is_empty() {
            return Err(CgroupError::NoV2 {
                looked_in: mountinfo.to_owned(),
            });
        }
        let (v2_root, v2) = v2.swap_remove(whole);
        Ok(Self { v2, v2_root, v1 })
    }

    /// A directory of a version 1 hierarchy that fits what was asked for.
    pub(super) fn find_in_v1(&self, wanted: &str, parts: &str) -> Option<PathBuf> {
        if parts.is_empty() {
            return None;
        }
        self.v1.iter().find_map(|mount| {
            if wanted.starts_with('/') {
                let absolute = Path::new("/").join(parts);
                let below = absolute.starts_with(mount).then_some(absolute);
                return below.into_iter().chain([mount.join(parts)]).find(|path| path.is_dir());
            }
            let ending = format!("/{parts}");
            let mut found = None;
            walk(mount, &mut |path, _| {
                if path.ends_with(&ending) {
                    found = Some(mount.join(path.trim_start_matches('/')));
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
            found
        })
    }
}

/// Resolves the octal escapes of mountinfo: `\040` is a space.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        let (byte, next) = code.map_or((byte, after), |code| (code, &after[3..]));
        bytes.push(byte);
        rest = next;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_mountinfo() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/caf\303\251"), "/café");
        assert_eq!(unescape(r"/a\04"), r"/a\04");
        assert_eq!(unescape(r"/a\"), r"/a\");
    }
}
