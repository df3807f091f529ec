//! Memory by tenant: `memory.stat` of the highest directory of each, where the memory controller of version 2 is enabled.
//!
//! One file says what a whole job or container holds, so that nobody's page tables are walked. Only that of tenants is
//! read, a few in an interval: memory changes slowly, and each reading makes the kernel add up its per-CPU counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use foldhash::{HashMap, HashMapExt};

use super::{
    cgroups::CgroupTree,
    tenants::{made_by_root, top_of},
};
use crate::interval::CgroupMemory;

/// Readings in an interval, at most.
const MOST_READINGS: usize = 64;

/// Tenants that are known, at most. The memory of others is in that of the directory around them.
const MOST_DIRECTORIES: usize = 20_000;

/// How old a tenant's reading becomes that runs; one that was just found is read more often.
const RUNNING_EVERY: Duration = Duration::from_secs(10);

/// The first of these times; each reading doubles it.
const AT_FIRST_EVERY: Duration = Duration::from_secs(1);

/// How old a tenant's reading becomes that does not run.
const SLEEPING_EVERY: Duration = Duration::from_secs(30);

/// For so many intervals after a tenant ran it is looked whether its directory is still there.
const ENDING_INTERVALS: u64 = 4;

/// For how many intervals it is remembered which tenant a path belongs to.
const KEEP_INTERVALS: u64 = 64;

/// Longest file that is read; a real one has less than 4 KiB.
const LONGEST_BYTES: u64 = 64 << 10;

struct Directory {
    reading: Option<CgroupMemory>,
    /// When it was read last, or found to have no such file; 0: never.
    looked_ns: u64,
    /// Time to the next reading while it runs.
    period_ns: u64,
    /// The newest interval in which it ran.
    ran_in: u64,
}

impl Directory {
    fn is_due(&self, now_ns: u64, interval: u64) -> bool {
        let period_ns = if self.ran_in == interval {
            self.period_ns
        } else {
            nanoseconds(SLEEPING_EVERY)
        };
        self.looked_ns == 0 || now_ns.saturating_sub(self.looked_ns) >= period_ns
    }

    /// It ran a moment ago and does no longer, so that it may have ended.
    fn may_have_ended(&self, interval: u64) -> bool {
        self.ran_in < interval && interval - self.ran_in <= ENDING_INTERVALS
    }
}

/// The directories of tenants, and the newest reading of each.
pub struct TenantMemory {
    mount: PathBuf,
    directories: BTreeMap<Arc<str>, Directory>,
    /// Highest directory of the tenant of a path, and the interval in which that was asked for.
    tops: HashMap<String, (Arc<str>, u64)>,
    interval: u64,
    is_full: bool,
}

/// What a look at a directory found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Bytes that are charged to it.
    Bytes(u64),
    /// The controller is not enabled there, or the file cannot be read.
    NoFile,
    /// The directory is not there.
    Gone,
}

impl TenantMemory {
    /// Finds the tenants that there are. They are read from the first interval on, whether they run or not.
    pub fn start(cgroups: &CgroupTree) -> Self {
        let (paths, all) = cgroups.paths(MOST_DIRECTORIES);
        let mut found = Self {
            mount: cgroups.mount_point().to_owned(),
            directories: BTreeMap::new(),
            tops: HashMap::new(),
            interval: ENDING_INTERVALS + 1,
            is_full: false,
        };
        for path in &paths {
            found.top(path);
        }
        found.tops = HashMap::new();
        if !all {
            found.report_full();
        }
        found
    }

    /// The newest reading of each tenant, by path, after the cgroups `ran` have run in an interval that ended at `now_ns`.
    pub fn read<'a>(&mut self, ran: impl Iterator<Item = &'a String>, now_ns: u64) -> BTreeMap<Arc<str>, CgroupMemory> {
        self.interval += 1;
        let interval = self.interval;
        for path in ran {
            if let Some(top) = self.top(path)
                && let Some(directory) = self.directories.get_mut(&top)
            {
                directory.ran_in = interval;
            }
        }
        let oldest = interval.saturating_sub(KEEP_INTERVALS);
        self.tops.retain(|_, (_, used_in)| *used_in >= oldest);
        let mut due: Vec<(u64, Arc<str>)> = self
            .directories
            .iter()
            .filter(|(_, directory)| directory.is_due(now_ns, interval))
            .map(|(path, directory)| (directory.looked_ns, path.clone()))
            .collect();
        if due.len() > MOST_READINGS {
            // Those that were never read come first.
            due.select_nth_unstable(MOST_READINGS);
            due.truncate(MOST_READINGS);
        }
        let due: BTreeSet<Arc<str>> = due.into_iter().map(|(_, path)| path).collect();
        let mount = &self.mount;
        self.directories.retain(|path, directory| {
            if due.contains(path) {
                return look(mount, path, directory, now_ns);
            }
            !directory.may_have_ended(interval) || directory_of(mount, path).is_dir()
        });
        let readings = self.directories.iter();
        readings
            .filter_map(|(path, directory)| Some((path.clone(), directory.reading?)))
            .collect()
    }

    /// Forgets the directories that are gone.
    pub fn forget(&mut self, is_gone: impl Fn(&str) -> bool) {
        self.directories.retain(|path, _| !is_gone(path));
    }

    /// Whether the memory of a process in the cgroup `path` is in a reading.
    pub fn covers(&self, path: &str) -> bool {
        let mut above = path;
        loop {
            if self
                .directories
                .get(above)
                .is_some_and(|directory| directory.reading.is_some())
            {
                return true;
            }
            match above.rsplit_once('/') {
                Some((parent, _)) => above = parent,
                None => return false,
            }
        }
    }

    /// The highest directory of the tenant that a cgroup belongs to. The root of the tree is nobody's.
    fn top(&mut self, path: &str) -> Option<Arc<str>> {
        let interval = self.interval;
        let known = self.tops.get_mut(path).map(|(top, used_in)| {
            *used_in = interval;
            top.clone()
        });
        let top = match known {
            Some(top) => top,
            None => {
                let top: Arc<str> = top_of(path, made_by_root(&self.mount, path))?.into();
                self.tops.insert(path.to_owned(), (top.clone(), interval));
                top
            }
        };
        if !self.directories.contains_key(&top) {
            if self.directories.len() >= MOST_DIRECTORIES {
                self.report_full();
                return None;
            }
            let directory = Directory {
                reading: None,
                looked_ns: 0,
                period_ns: nanoseconds(AT_FIRST_EVERY),
                ran_in: 0,
            };
            self.directories.insert(top.clone(), directory);
        }
        Some(top)
    }

    fn report_full(&mut self) {
        if !std::mem::replace(&mut self.is_full, true) {
            log::warn!(
                "there are more than {MOST_DIRECTORIES} cgroups: the memory of further tenants is counted with the \
                 directory around them"
            );
        }
    }
}

/// Reads a directory anew; whether it is still there.
fn look(mount: &Path, path: &str, directory: &mut Directory, now_ns: u64) -> bool {
    let found = found(&directory_of(mount, path));
    directory.looked_ns = now_ns.max(1);
    directory.period_ns = directory.period_ns.saturating_mul(2).min(nanoseconds(RUNNING_EVERY));
    directory.reading = match found {
        Found::Bytes(bytes) => Some(CgroupMemory {
            bytes,
            read_at_ns: now_ns,
        }),
        Found::NoFile | Found::Gone => None,
    };
    found != Found::Gone
}

fn directory_of(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

fn found(directory: &Path) -> Found {
    let read = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let file = fs::File::open(directory.join("memory.stat"))?;
        file.take(LONGEST_BYTES).read_to_end(&mut text)?;
        Ok(text)
    };
    match read()
        .ok()
        .and_then(|text| charged_bytes(&String::from_utf8_lossy(&text)))
    {
        Some(bytes) => Found::Bytes(bytes),
        None if directory.is_dir() => Found::NoFile,
        None => Found::Gone,
    }
}

/// The memory that `memory.stat` of version 2 says is in use: each page that is charged, once.
///
/// `anon` and `file` are pages of processes and of the page cache, which `file` has in full, shared memory and tmpfs too;
/// `kernel` is slab, stacks, page tables and the like, and where it is missing (before Linux 5.18) they are added up;
/// `sock` are buffers of sockets, `hugetlb` is there where such pages are accounted
/// (`Documentation/admin-guide/cgroup-v2.rst` of the kernel). All other fields are parts of these, or count events.
fn charged_bytes(text: &str) -> Option<u64> {
    let fields: BTreeMap<&str, u64> = text
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name, value.trim().parse().ok()?))
        })
        .collect();
    let field = |name: &str| fields.get(name).copied();
    let sum = |names: &[&str]| names.iter().filter_map(|name| field(name)).fold(0, u64::saturating_add);
    let kernel = field("kernel").unwrap_or_else(|| sum(&["slab", "kernel_stack", "pagetables", "percpu"]));
    Some(
        field("anon")?
            .saturating_add(field("file")?)
            .saturating_add(kernel)
            .saturating_add(sum(&["sock", "hugetlb"])),
    )
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
