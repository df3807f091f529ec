//! Which tenants still have a cgroup: their directories are looked at, a few in each interval.
//!
//! Where many tenants lie in one folder, listing it costs far less than a look at each of them.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs::read_dir,
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

/// Fewer tenants of a folder are looked at one by one.
const WORTH_A_LIST: usize = 16;

#[derive(Debug)]
struct Place {
    /// From the mount point; `None` where only its processes tell the tenant.
    directory: Option<PathBuf>,
    used_at_ns: u64,
}

impl Place {
    /// The folder that the directory lies in.
    fn folder(&self) -> Option<PathBuf> {
        let directory = self.directory.as_ref()?;
        Some(directory.parent().unwrap_or(Path::new("")).to_owned())
    }
}

/// Tenants and their directories.
#[derive(Debug)]
pub struct Places {
    mount: PathBuf,
    /// The same, open: a look from here passes few directories.
    opened: Option<OwnedFd>,
    by_node: HashMap<Node, Place>,
    /// Tenants by the folder that their directory lies in. A tenant that has got a directory since is there twice, until
    /// the turn of its old place.
    by_folder: HashMap<Option<PathBuf>, Vec<Node>>,
    /// Whose turn it is to be looked at.
    turns: VecDeque<Option<PathBuf>>,
    /// How many tenants may be looked at; below 0 after a large folder.
    credit: i64,
}

impl Places {
    /// None so far, in the tree that is mounted there.
    pub fn new(mount: &Path) -> Self {
        Self {
            mount: mount.to_owned(),
            opened: open(mount, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok(),
            by_node: HashMap::new(),
            by_folder: HashMap::new(),
            turns: VecDeque::new(),
            credit: 0,
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
        let folder = place.folder();
        self.by_node.insert(node.clone(), place);
        let nodes = self.by_folder.entry(folder.clone()).or_default();
        if nodes.is_empty() {
            self.turns.push_back(folder);
        }
        nodes.push(node.clone());
    }

    /// Whether a tenant is known here.
    pub fn has(&self, node: &Node) -> bool {
        self.by_node.contains_key(node)
    }

    /// It is the turn of these next.
    pub fn first(&mut self, nodes: &[Node]) {
        for node in nodes {
            let folder = self.by_node.get(node).map(Place::folder);
            if let Some(at) = folder.and_then(|folder| self.turns.iter().position(|turn| *turn == folder))
                && let Some(turn) = self.turns.remove(at)
            {
                self.turns.push_front(turn);
                self.credit = self.credit.max(0);
            }
        }
    }

    /// Those that are gone, of the ones whose turn it is after `passed`. They are forgotten.
    pub fn gone(&mut self, passed: Duration, now_ns: u64) -> Vec<Node> {
        let known = self.by_node.len();
        let part = (known as u128 * passed.as_nanos()).div_ceil(ROUND.as_nanos());
        let part = usize::try_from(part).unwrap_or(usize::MAX).max(16).min(known);
        self.credit = (self.credit.min(0)).saturating_add_unsigned(part as u64);
        let mut gone = Vec::new();
        for _ in 0..self.turns.len() {
            if self.credit <= 0 {
                break;
            }
            let Some(folder) = self.turns.pop_front() else { break };
            let nodes = self.by_folder.remove(&folder).unwrap_or_default();
            self.credit = self.credit.saturating_sub_unsigned(nodes.len() as u64);
            let are_there = self.are_there(folder.as_deref(), &nodes, now_ns);
            let mut left = Vec::with_capacity(nodes.len());
            for (node, is_there) in nodes.into_iter().zip(are_there) {
                match is_there {
                    Some(true) => left.push(node),
                    Some(false) => {
                        self.by_node.remove(&node);
                        gone.push(node);
                    }
                    None => {}
                }
            }
            if !left.is_empty() {
                self.by_folder.insert(folder.clone(), left);
                self.turns.push_back(folder);
            }
        }
        gone
    }

    /// Whether each tenant of a folder is still there; `None` for one that lies elsewhere by now.
    fn are_there(&self, folder: Option<&Path>, nodes: &[Node], now_ns: u64) -> Vec<Option<bool>> {
        let places: Vec<Option<&Place>> = nodes
            .iter()
            .map(|node| self.by_node.get(node))
            .map(|place| place.filter(|place| place.folder().as_deref() == folder))
            .collect();
        let listed = match folder {
            Some(folder) if nodes.len() >= WORTH_A_LIST => listed(&self.mount.join(folder), &places),
            _ => vec![false; nodes.len()],
        };
        let there = places.iter().zip(listed).map(|(place, is_listed)| {
            Some(match &(*place)?.directory {
                // A folder that changes while it is listed may leave one out. What cannot be looked at is not gone.
                Some(directory) => is_listed || self.opened.as_ref().is_none_or(|mount| exists(mount, directory)),
                None => u128::from(now_ns.saturating_sub((*place)?.used_at_ns)) < UNUSED.as_nanos(),
            })
        });
        there.collect()
    }
}

/// Which of the directories a folder lists. None where it cannot be read.
fn listed(folder: &Path, places: &[Option<&Place>]) -> Vec<bool> {
    let names = places.iter().enumerate().filter_map(|(index, place)| {
        let name = place.as_ref()?.directory.as_ref()?.file_name()?;
        Some((name, index))
    });
    let names: HashMap<&OsStr, usize> = names.collect();
    let mut listed = vec![false; places.len()];
    for entry in read_dir(folder).into_iter().flatten().flatten() {
        if let Some(is_listed) = names
            .get(entry.file_name().as_os_str())
            .and_then(|index| listed.get_mut(*index))
        {
            *is_listed = true;
        }
    }
    listed
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
            found += places.gone(SECOND, 1).len();
        }
        assert_eq!(found, 1000);
        assert!(places.turns.is_empty() && places.by_folder.is_empty());
    }

    #[test]
    fn a_folder_of_many_is_listed_once_in_a_round() {
        let names: Vec<String> = (0..100).map(|number| format!("a.slice/{number}")).collect();
        let tree = tree(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut places = Places::new(tree.path());
        let node = |name: &str| Tenant::of(Kind::Cgroup, &format!("/{name}")).node;
        for name in &names {
            places.see(&node(name), Some(&format!("/{name}")), 0);
        }
        assert_eq!(places.gone(SECOND, 1), []);
        for name in &names[..3] {
            fs::remove_dir(tree.path().join(name)).unwrap();
        }
        // 100 were looked at where 16 a second may be, so 84 are owed: more than 5 seconds.
        let rounds: Vec<usize> = (0..10).map(|_| places.gone(SECOND, 1).len()).collect();
        assert_eq!(rounds, [0, 0, 0, 0, 0, 3, 0, 0, 0, 0]);
        assert!(!places.has(&node(&names[0])) && places.has(&node(&names[3])));
    }

    #[test]
    fn whom_somebody_waits_for_is_looked_at_first() {
        let names: Vec<String> = (0..1000).map(|number| format!("a{number}.slice")).collect();
        let below: Vec<String> = names.iter().map(|name| format!("{name}/x")).collect();
        let tree = tree(&below.iter().map(String::as_str).collect::<Vec<_>>());
        let mut places = Places::new(tree.path());
        let node = |name: &str| Tenant::of(Kind::Cgroup, &format!("/{name}")).node;
        for name in &below {
            places.see(&node(name), Some(&format!("/{name}")), 0);
        }
        let last = &below[999];
        fs::remove_dir(tree.path().join(last)).unwrap();
        assert_eq!(places.gone(SECOND / 100, 1), [], "1000 of them have a round of 10 s");
        places.first(&[node(last), Tenant::of(Kind::Docker, "nobody").node]);
        assert_eq!(places.gone(SECOND / 100, 1), [node(last)]);
    }

    #[test]
    fn a_tenant_that_gets_a_directory_is_told_by_it_alone() {
        let tree = tree(&["a.slice/a.service"]);
        let mut places = Places::new(tree.path());
        let node = Tenant::of(Kind::Unit, "a.service").node;
        places.see(&node, None, 0);
        places.see(&node, Some("/a.slice/a.service"), 0);
        let hour = 3_600_000_000_000;
        assert_eq!(places.gone(SECOND, hour), []);
        fs::remove_dir(tree.path().join("a.slice/a.service")).unwrap();
        assert_eq!(places.gone(SECOND, hour), [node]);
    }

    #[test]
    fn a_folder_that_cannot_be_listed_ends_nobody() {
        let tree = tree(&["a.slice"]);
        let mut places = Places::new(tree.path());
        for number in 0..20 {
            let path = format!("/a.slice/{number}");
            fs::create_dir(tree.path().join(&path[1..])).unwrap();
            places.see(&Tenant::of(Kind::Cgroup, &path).node, Some(&path), 0);
        }
        places.mount = tree.path().join("elsewhere");
        assert_eq!(places.gone(SECOND, 1), []);
    }
}
