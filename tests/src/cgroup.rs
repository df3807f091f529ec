//! cgroups that are there for one test.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use dlpm::sources::cgroups::CgroupTree;

/// A cgroup of the version 2 tree, removed when this is dropped.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
    path: String,
}

impl Cgroup {
    /// Creates one below the root, with a name of its own that begins with `name`.
    pub fn create(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let tree = CgroupTree::find(Path::new("/proc")).unwrap();
        Self::at(
            tree.mount_point(),
            &format!("/dlpm-test-{name}-{}-{number}", process::id()),
        )
    }

    /// Creates one inside this one.
    pub fn create_inside(&self, name: &str) -> Self {
        let mut mount = self.directory.clone();
        for _ in self.path.split('/').skip(1) {
            mount.pop();
        }
        Self::at(&mount, &format!("{}/{name}", self.path))
    }

    fn at(mount: &Path, path: &str) -> Self {
        let directory = mount.join(path.trim_start_matches('/'));
        fs::create_dir(&directory).unwrap();
        Self {
            directory,
            path: path.to_owned(),
        }
    }

    /// Path from the root of the tree.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its id in the kernel.
    pub fn id(&self) -> u64 {
        fs::metadata(&self.directory).unwrap().ino()
    }

    /// CPU time of all processes that have been here, by the kernel's account (`usage_usec` of `cpu.stat`).
    pub fn usage_ns(&self) -> u64 {
        let stat = fs::read_to_string(self.directory.join("cpu.stat")).unwrap();
        let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
        usage.unwrap().parse::<u64>().unwrap() * 1_000
    }

    /// Waits until no process is here any more.
    pub fn wait_until_empty(&self) {
        for _ in 0..3_000 {
            let events = fs::read_to_string(self.directory.join("cgroup.events")).unwrap();
            if events.lines().any(|line| line == "populated 0") {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{} does not become empty", self.path);
    }

    /// Moves a process here, with all its threads.
    pub fn add(&self, pid: u32) {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was killed just now holds its cgroup for another moment.
        for _ in 0..200 {
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} is not empty and stays", self.directory.display());
    }
}
