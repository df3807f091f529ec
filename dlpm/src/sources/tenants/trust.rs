//! Which directories of a tree only root can have made.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

/// How many directories of `path`, from the highest, only root can have made: those whose parents belong to root and can
/// be written by nobody else.
///
/// Of a directory that is gone it is not known whose it was. Who is not root cannot remove it from a directory of root's, so
/// it is taken for root's; but not if it was a unit, which systemd makes and removes for whom it is handed to.
pub fn made_by_root(mount: &Path, path: &str) -> usize {
    let mut directory = mount.to_owned();
    let mut count = 0;
    let mut name = "";
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let is_roots = match fs::symlink_metadata(&directory) {
            Ok(status) => {
                let group_writes = status.mode() & 0o020 != 0 && status.gid() != 0;
                status.uid() == 0 && !group_writes && status.mode() & 0o002 == 0
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => !is_handed_over(name),
            Err(_) => false,
        };
        if !is_roots {
            break;
        }
        count += 1;
        name = part;
        directory.push(part);
    }
    count
}

/// Whether a unit of that name may have been handed to somebody.
fn is_handed_over(name: &str) -> bool {
    let is_unit = name.ends_with(".service") || name.ends_with(".scope");
    is_unit && !name.ends_with("slurmstepd.scope") && name != "pbs_jobs.service"
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn as_far_as_directories_are_roots() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        let make = |path: &str| fs::create_dir_all(root.join(path)).unwrap();
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        make("a.slice/own.service/inner/deep");
        make("a.slice/free.service/inner");
        assert_eq!(made_by_root(root, "/a.slice/own.service/inner/deep"), 4);
        chown(root.join("a.slice/own.service"), Some(1000), Some(1000)).unwrap();
        assert_eq!(made_by_root(root, "/a.slice/own.service/inner/deep"), 2);
        // The directory itself may be anybody's: root made it.
        assert_eq!(made_by_root(root, "/a.slice/own.service"), 2);
        let free = root.join("a.slice/free.service");
        for (mode, group, count) in [(0o775, 1000, 2), (0o775, 0, 3), (0o757, 0, 2), (0o755, 1000, 3)] {
            fs::set_permissions(&free, fs::Permissions::from_mode(mode)).unwrap();
            chown(&free, Some(0), Some(group)).unwrap();
            assert_eq!(
                made_by_root(root, "/a.slice/free.service/inner"),
                count,
                "{mode:o} {group}"
            );
        }
    }

    #[test]
    fn of_what_is_gone_units_may_have_been_anybodys() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let tree = tempfile::tempdir().unwrap();
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for (path, count) in [
            ("/system.slice/gone.service/docker-1.scope", 2),
            ("/system.slice/gone.scope/a/b", 2),
            ("/kubepods.slice/kubepods-pod1.slice/x.scope", 3),
            ("/system.slice/node_slurmstepd.scope/job_1/step_0/user/task_0", 6),
            ("/pbs_jobs.service/jobid/1", 3),
            ("/", 0),
        ] {
            assert_eq!(made_by_root(tree.path(), path), count, "{path}");
        }
    }
}
