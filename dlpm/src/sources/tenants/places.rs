//! Which tenants still have a cgroup: their directories are looked at, a few in each interval.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use foldhash::{HashMap, HashMapExt};
use rustix::{
    fs::{Access, AtFlags, Mode, OFlags, accessat, open},
    io::Errno,
};

use super::{names::job_directory, path::tenant_of, trust::made_by_root};
use crate::tenants::{Kind, Node};

/// Each tenant is looked at once in this time.
const ROUND: Duration = Duration::from_secs(10);

/// A tenant that no directory tells (version 1 hierarchies) has ended when nothing of it ran for so long.
const UNUSED: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Place {
    /// From the mount point; `None` where only its processes tell the tenant.
    directory: Option<PathBuf>,
    used_at_ns: u64,
}

/// Tenants and their directories.
#[derive(Debug)]
pub struct Places {
    mount: PathBuf,
    /// The same, open: a look from here passes few directories.
    opened: Option<OwnedFd>,
    by_node: HashMap<Node, Place>,
    /// Whose turn it is to be looked at.
    turns: VecDeque<Node>,
}

impl Places {
    /// None so far, in the tree that is mounted there.
    pub fn new(mount: &Path) -> Self {
        Self {
            mount: mount.to_owned(),
            opened: open(mount, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok(),
            by_node: HashMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// A tenant ran, in the cgroup with that path if one tells it, or one was made for it.
    pub fn see(&mut self, node: &Node, path: Option<&str>, now_ns: u64) {
        if let Some(place) = self.by_node.get_mut(node) {
            place.used_at_ns = now_ns;
            if place.directory.is_some() || path.is_none() {
                return;
            }
        }
        let place = Place {
            directory: path.map(|path| top(&self.mount, path, node).trim_start_matches('/').into()),
            used_at_ns: now_ns,
        };
        if self.by_node.insert(node.clone(), place).is_none() {
            self.turns.push_back(node.clone());
        }
    }

    /// Whether a tenant is known here.
    pub fn has(&self, node: &Node) -> bool {
        self.by_node.contains_key(node)
    }

    /// Those that are gone, of the ones whose turn it is after `passed`. They are forgotten.
    pub fn gone(&mut self, passed: Duration, now_ns: u64) -> Vec<Node> {
        let round_ns = ROUND.as_nanos();
        let part = (self.turns.len() as u128 * passed.as_nanos()).div_ceil(round_ns);
        let turns = usize::try_from(part)
            .unwrap_or(usize::MAX)
            .max(16)
            .min(self.turns.len());
        let mut gone = Vec::new();
        for _ in 0..turns {
            let Some(node) = self.turns.pop_front() else { break };
            let is_there = self.by_node.get(&node).is_some_and(|place| match &place.directory {
                // What cannot be looked at is not gone.
                Some(directory) => self.opened.as_ref().is_none_or(|mount| exists(mount, directory)),
                None => u128::from(now_ns.saturating_sub(place.used_at_ns)) < UNUSED.as_nanos(),
            });
            if is_there {
                self.turns.push_back(node);
            } else {
                self.by_node.remove(&node);
                gone.push(node);
            }
        }
        gone
    }
}

fn exists(mount: &OwnedFd, directory: &Path) -> bool {
    directory.as_os_str().is_empty()
        || accessat(mount, directory, Access::EXISTS, AtFlags::empty()) != Err(Errno::NOENT)
}

/// The highest directory on `path` that is the tenant's.
fn top<'a>(mount: &Path, path: &'a str, node: &Node) -> &'a str {
    if node.kind == Kind::Slurm
        && let Some(job) = job_directory(path)
    {
        // With its leading `/`.
        return path.get(..=job.len()).unwrap_or(path);
    }
    let mut top = path;
    while let Some((parent, _)) = top.rsplit_once('/') {
        if parent.is_empty() || tenant_of(parent, made_by_root(mount, parent)).node != *node {
            break;
        }
        top = parent;
    }
    top
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tenants::Tenant;

    const SECOND: Duration = Duration::from_secs(1);

    fn tree(directories: &[&str]) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for directory in directories {
            fs::create_dir_all(tree.path().join(directory)).unwrap();
        }
        tree
    }

    #[test]
    fn a_tenant_ends_with_its_own_directory_and_not_with_one_inside() {
        let tree = tree(&[
            "system.slice/a.service/inner",
            "system.slice/slurmstepd.scope/job_7/step_0/user/task_0",
        ]);
        let mut places = Places::new(tree.path());
        let unit = Tenant::of(Kind::Unit, "a.service").node;
        let job = Tenant::of(Kind::Slurm, "7").node;
        places.see(&unit, Some("/system.slice/a.service/inner"), 0);
        places.see(&job, Some("/system.slice/slurmstepd.scope/job_7/step_0/user/task_0"), 0);
        fs::remove_dir(tree.path().join("system.slice/a.service/inner")).unwrap();
        fs::remove_dir_all(tree.path().join("system.slice/slurmstepd.scope/job_7/step_0")).unwrap();
        assert_eq!(places.gone(SECOND, 1), []);
        fs::remove_dir(tree.path().join("system.slice/a.service")).unwrap();
        assert_eq!(places.gone(SECOND, 2), std::slice::from_ref(&unit));
        assert!(!places.has(&unit) && places.has(&job));
        fs::remove_dir(tree.path().join("system.slice/slurmstepd.scope/job_7")).unwrap();
        assert_eq!(places.gone(SECOND, 3), [job]);
    }

    #[test]
    fn what_only_processes_tell_ends_when_none_ran() {
        let tree = tree(&[]);
        let mut places = Places::new(tree.path());
        let node = Tenant::of(Kind::Docker, "a").node;
        places.see(&node, None, 0);
        let minute = 60_000_000_000;
        assert_eq!(places.gone(SECOND, minute - 1), []);
        places.see(&node, None, minute - 1);
        assert_eq!(places.gone(SECOND, minute), []);
        assert_eq!(places.gone(SECOND, 2 * minute), [node]);
    }

    #[test]
    fn of_many_each_has_its_turn() {
        let tree = tree(&["a.slice"]);
        let mut places = Places::new(tree.path());
        for number in 0..1000 {
            let path = format!("/a.slice/{number}");
            places.see(&Tenant::of(Kind::Cgroup, &path).node, Some(&path), 0);
        }
        let mut found = 0;
        for _ in 0..10 {
            let gone = places.gone(SECOND, 1).len();
            assert!(gone <= 100, "{gone}");
            found += gone;
        }
        assert!(found > 600, "{found}");
    }
}
