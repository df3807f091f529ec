//! cgroups of the version 2 tree: finding them by name, and the paths that belong to their ids.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

mod handle;
mod mounts;

use mounts::Mounts;

/// For how many intervals a path is kept that nobody asks for. Asking again costs two system calls, so this only has
/// to cover the time from the creation of a cgroup (when the kernel hook tells its path) to its last drain.
const KEEP_INTERVALS: u64 = 64;

/// Most near matches that an error lists.
const NEAR_MATCHES: usize = 5;
/// Most candidates that an error lists.
const CANDIDATES: usize = 10;

/// Why a cgroup cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// There is no cgroup v2 tree.
    #[error(
        "No cgroup v2 tree is mounted (looked in {}). Mount it beside the v1 trees with `mkdir -p \
         /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`, or boot with \
         systemd.unified_cgroup_hierarchy=1.",
        looked_in.display()
    )]
    NoV2 {
        /// The list of mounts that was read.
        looked_in: PathBuf,
    },
    /// A file or directory cannot be read.
    #[error(
        "{} cannot be read ({cause}). Run dlpm as root; in a container that mounts the host's /proc elsewhere, name it \
         with --procfs.",
        path.display()
    )]
    Unreadable {
        /// What cannot be read.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// No cgroup has this name.
    #[error(
        "There is no cgroup `{wanted}` below {}.{} List those that exist with `find {} -type d`, or create it first (with \
         `mkdir`, or by starting its systemd unit).",
        mount.display(),
        did_you_mean(near),
        mount.display()
    )]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// Where it was looked for.
        mount: PathBuf,
        /// Paths of cgroups with similar names, the nearest first.
        near: Vec<String>,
    },
    /// Several cgroups have this name.
    #[error(
        "`{wanted}` is the name of {count} cgroups: {}. Give the path of the one that is meant, with the leading `/`.",
        shown(candidates, *count)
    )]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// Paths of the first ten of them.
        candidates: Vec<String>,
        /// How many there are.
        count: usize,
    },
    /// It exists in a version 1 hierarchy only.
    #[error(
        "The cgroup `{wanted}` exists in a cgroup v1 hierarchy only ({}). The kernel can tell only v2 cgroups apart \
         while tracing: create it in the v2 tree at {} and move its processes there (`echo PID > \
         …/cgroup.procs`), or boot with systemd.unified_cgroup_hierarchy=1.",
        found.display(),
        mount.display()
    )]
    V1Only {
        /// What was asked for.
        wanted: String,
        /// Where it was found.
        found: PathBuf,
        /// The mount point of the version 2 tree.
        mount: PathBuf,
    },
}

/// The cgroup v2 tree of this machine.
///
/// All paths that it gives and takes start at the root of the mounted tree: `/`, `/train.slice`.
#[derive(Debug)]
pub struct CgroupTree {
    mounts: Mounts,
    /// The mount point, open for looking up handles; `None` if the kernel refuses that.
    directory: Option<OwnedFd>,
    fd_links: PathBuf,
    generation: u64,
    cache: HashMap<u64, Known>,
    /// Every path of the tree, from the newest walk and its generation.
    walked: HashMap<u64, String>,
    walked_in: Option<u64>,
}

#[derive(Debug)]
struct Known {
    path: String,
    used_in: u64,
}

impl CgroupTree {
    /// Finds the tree in the mounts of this process (`procfs/self/mountinfo`), wherever it is mounted. Of several
    /// mounts, one that shows the tree from its root is taken.
    ///
    /// # Errors
    ///
    /// [`CgroupError::NoV2`] if none is mounted, [`CgroupError::Unreadable`] if the mounts cannot be read.
    pub fn find(procfs: &Path) -> Result<Self, CgroupError> {
        let mounts = Mounts::read(&procfs.join("self/mountinfo"))?;
        Ok(Self::new(mounts, procfs.join("self/fd")))
    }

    /// The tree at a given mount point, without any version 1 hierarchies.
    pub fn at(mount_point: &Path) -> Self {
        Self::new(Mounts::at(mount_point), PathBuf::from("/proc/self/fd"))
    }

    fn new(mounts: Mounts, fd_links: PathBuf) -> Self {
        let directory = open_for_handles(&mounts.v2);
        Self {
            mounts,
            directory,
            fd_links,
            generation: 0,
            cache: HashMap::new(),
            walked: HashMap::new(),
            walked_in: None,
        }
    }

    /// Where the tree is mounted.
    pub fn mount_point(&self) -> &Path {
        &self.mounts.v2
    }

    /// The directory of the tree that the mount shows as its root; anything but `/` means that cgroups outside of it
    /// cannot be seen (a bind mount, or a cgroup namespace).
    pub fn mount_root(&self) -> &str {
        &self.mounts.v2_root
    }

    /// The path of the cgroup that a user asked for: a path from the root of the tree (`/train.slice`), an absolute
    /// path below the mount point (`/sys/fs/cgroup/train.slice`), or the last parts of a path anywhere in the tree
    /// (`train.slice`, `train.slice/job1`).
    ///
    /// # Errors
    ///
    /// [`CgroupError::Unknown`], [`CgroupError::Ambiguous`] or [`CgroupError::V1Only`], with what to give instead.
    pub fn resolve(&self, wanted: &str) -> Result<String, CgroupError> {
        let unknown = |near: Vec<String>| CgroupError::Unknown {
            wanted: wanted.to_owned(),
            mount: self.mounts.v2.clone(),
            near,
        };
        let Some(parts) = normal_parts(wanted) else {
            return Err(unknown(Vec::new()));
        };
        if wanted.starts_with('/') {
            if let Some(path) = self.existing(&parts, wanted) {
                return Ok(path);
            }
        } else if parts.is_empty() {
            return Err(unknown(Vec::new()));
        }
        let mut all = Vec::new();
        walk(&self.mounts.v2, &mut |path, _| {
            all.push(path.to_owned());
            ControlFlow::Continue(())
        });
        all.sort_unstable();
        if !wanted.starts_with('/') {
            let ending = format!("/{parts}");
            let mut matches: Vec<String> = all.iter().filter(|path| path.ends_with(&ending)).cloned().collect();
            match matches.len() {
                0 => {}
                1 => return Ok(matches.remove(0)),
                count => {
                    matches.truncate(CANDIDATES);
                    return Err(CgroupError::Ambiguous {
                        wanted: wanted.to_owned(),
                        candidates: matches,
                        count,
                    });
                }
            }
        }
        match self.mounts.find_in_v1(wanted, &parts) {
            Some(found) => Err(CgroupError::V1Only {
                wanted: wanted.to_owned(),
                found,
                mount: self.mounts.v2.clone(),
            }),
            None => Err(unknown(near_matches(&parts, &all))),
        }
    }

    /// A path that was given with its leading `/`, if there is such a cgroup.
    fn existing(&self, parts: &str, wanted: &str) -> Option<String> {
        let absolute = Path::new(wanted);
        let below_mount = absolute.strip_prefix(&self.mounts.v2).ok().and_then(Path::to_str);
        [below_mount, Some(parts)]
            .into_iter()
            .flatten()
            .filter_map(normal_parts)
            .find(|parts| self.mounts.v2.join(parts).is_dir())
            .map(|parts| format!("/{parts}"))
    }

    /// The paths that there are now, at most that many, and whether these are all.
    pub fn paths(&self, most: usize) -> (Vec<String>, bool) {
        let (mut paths, mut all) = (Vec::new(), true);
        walk(&self.mounts.v2, &mut |path, _| {
            if paths.len() == most {
                all = false;
                return ControlFlow::Break(());
            }
            paths.push(path.to_owned());
            ControlFlow::Continue(())
        });
        (paths, all)
    }

    /// Begins an interval: paths that nobody asked for during the last 64 are forgotten, and one more walk of the
    /// tree is allowed.
    pub fn begin_interval(&mut self) {
        self.generation += 1;
        let oldest = self.generation.saturating_sub(KEEP_INTERVALS);
        self.cache.retain(|_, known| known.used_in >= oldest);
        if self.walked_in.is_some_and(|walked_in| walked_in < oldest) {
            self.walked = HashMap::new();
        }
    }

    /// Remembers the path of a cgroup that may be gone before anybody asks for it. `path` is the kernel's, from the
    /// root of the hierarchy: where the mount shows a part of it only, groups outside of that part are not
    /// remembered. What is known already stays, since a v2 cgroup is never renamed. The path below the mount, if it is there.
    pub fn learn(&mut self, id: u64, path: &str) -> Option<String> {
        if !inside(path, &self.mounts.v2_root) {
            return None;
        }
        let below = &path[self.mounts.v2_root.trim_end_matches('/').len()..];
        let below = if below.is_empty() { "/" } else { below }.to_owned();
        let used_in = self.generation;
        let known = self.cache.entry(id).or_insert(Known { path: below, used_in });
        Some(known.path.clone())
    }

    /// The path of the cgroup with this id (the inode of its directory); `None` if it is gone and was never learned,
    /// or cannot be seen through this mount.
    ///
    /// Where the kernel refuses look-ups by id, the tree is walked, at most once an interval.
    pub fn path_of(&mut self, id: u64) -> Option<String> {
        if let Some(known) = self.cache.get_mut(&id) {
            known.used_in = self.generation;
            return Some(known.path.clone());
        }
        let path = match self.by_handle(id) {
            Ok(path) => path?,
            // The id is stale: a walk would not find it either.
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => return None,
            Err(_) => self.by_walk(id)?,
        };
        let used_in = self.generation;
        self.cache.insert(
            id,
            Known {
                path: path.clone(),
                used_in,
            },
        );
        Some(path)
    }

    fn by_handle(&self, id: u64) -> io::Result<Option<String>> {
        let directory = self.directory.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let cgroup = handle::open(directory, id)?;
        let path = handle::path_of_fd(&self.fd_links, &cgroup)?;
        // A group outside of what this mount shows has a path that does not begin with the mount point.
        Ok(path.strip_prefix(&self.mounts.v2).ok().map(from_root))
    }

    fn by_walk(&mut self, id: u64) -> Option<String> {
        if self.walked_in != Some(self.generation) && !self.walked.contains_key(&id) {
            let mut found = HashMap::new();
            walk(&self.mounts.v2, &mut |path, id| {
                found.insert(id, path.to_owned());
                ControlFlow::Continue(())
            });
            self.walked = found;
            self.walked_in = Some(self.generation);
        }
        self.walked.get(&id).cloned()
    }
}

/// The mount point, if a cgroup can be opened by its id there: tried with the id of the mount point itself, because
/// the error of a refusal can be the same as that of a stale id.
fn open_for_handles(mount: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(mount, flags, Mode::empty()).ok()?;
    let id = fs::metadata(mount).ok()?.ino();
    handle::open(&directory, id).is_ok().then_some(directory)
}

/// Whether the cgroup `path` is `root` or below it; both start at the root of the tree. `/a` contains `/a/b` but
/// not `/ab`; `/` contains everything.
pub fn inside(path: &str, root: &str) -> bool {
    let root = root.trim_end_matches('/');
    path.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Calls `visit` with path and id of every cgroup, the root first, until it breaks off. Groups that vanish meanwhile are
/// left out.
fn walk(mount: &Path, visit: &mut dyn FnMut(&str, u64) -> ControlFlow<()>) {
    if let Ok(root) = fs::metadata(mount)
        && visit("/", root.ino()).is_break()
    {
        return;
    }
    let mut open = vec![(mount.to_owned(), String::new())];
    while let Some((directory, path)) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let below = format!("{path}/{}", entry.file_name().to_string_lossy());
                if visit(&below, entry.ino()).is_break() {
                    return;
                }
                open.push((entry.path(), below));
            }
        }
    }
}

/// The parts of a path without empty ones and `.`, joined; `None` if it goes up (`..`).
fn normal_parts(path: &str) -> Option<String> {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    (!parts.contains(&"..")).then(|| parts.join("/"))
}

fn from_root(relative: &Path) -> String {
    format!("/{}", relative.to_string_lossy())
}

fn last_part(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, last)| last)
}

/// Paths whose last part is similar to that of `wanted`, the nearest first.
fn near_matches(wanted: &str, all: &[String]) -> Vec<String> {
    let wanted = last_part(wanted).to_lowercase();
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut scored: Vec<(f64, &String)> = all
        .iter()
        .filter_map(|path| {
            let name = last_part(path).to_lowercase();
            // `train` means `train.slice` more than `brain`: a part of a name is nearer than a misspelling.
            let part = if name.contains(&wanted) { 1.0 } else { 0.0 };
            let score = part + strsim::jaro_winkler(&wanted, &name);
            (score > 0.8).then_some((score, path))
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored
        .into_iter()
        .take(NEAR_MATCHES)
        .map(|(_, path)| path.clone())
        .collect()
}

fn did_you_mean(near: &[String]) -> String {
    match near {
        [] => String::new(),
        near => format!(" Did you mean {}?", near.join(", ")),
    }
}

fn shown(candidates: &[String], count: usize) -> String {
    let more = if count > candidates.len() { ", …" } else { "" };
    candidates.join(", ") + more
}

#[cfg(test)]
mod tests;
