//! Version 1 hierarchies: where containers and jobs are on machines that have not left them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use foldhash::{HashMap, HashMapExt};
use procfs_core::process::MountInfo;

use super::{names::open::beginning, path::tenant_of, trust};
use crate::{
    interval::{Process, ProcessId},
    sources::proc_fs,
    tenants::{Kind, Tenant},
};

/// Longest list of a process's cgroups that is read.
const LIST_BYTES: u64 = 64 << 10;

/// What was found of a process.
struct Seen {
    tenant: Option<Arc<Tenant>>,
    exec_comm: Arc<str>,
    /// How often it was looked at: a process that is moved when it starts may have been in its parent's cgroup.
    looks: u32,
    used_in: u64,
}

/// The version 1 hierarchies of a machine.
pub struct Hierarchies {
    /// Controllers (`cpu,cpuacct`, `name=systemd`) and mount point.
    mounts: Vec<(String, PathBuf)>,
    seen: HashMap<ProcessId, Seen>,
}

impl Hierarchies {
    /// Those that this process sees.
    pub fn read(procfs: &Path) -> Self {
        let text = fs::read(procfs.join("self/mountinfo")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mounts = text.lines().filter_map(|line| MountInfo::from_line(line).ok());
        Self {
            mounts: mounts
                .filter(|mount| mount.fs_type == "cgroup" && mount.root == "/")
                .map(|mount| {
                    let options = mount.super_options.into_iter();
                    let mut controllers: Vec<String> = options
                        .map(|(key, value)| match value {
                            Some(value) => format!("{key}={value}"),
                            None => key,
                        })
                        .collect();
                    controllers.sort_unstable();
                    (controllers.join(","), mount.mount_point)
                })
                .collect(),
            seen: HashMap::new(),
        }
    }

    /// Forgets processes that nobody has asked for since.
    pub fn forget(&mut self, oldest: u64) {
        self.seen.retain(|_, seen| seen.used_in >= oldest);
    }

    /// The tenant that the paths of these hierarchies tell, where they tell more than `of_v2`.
    ///
    /// They are read in the first two intervals in which the process runs, and once more when it has called `exec`. Of a
    /// process that has ended before, its parent's are taken.
    pub fn tenant(
        &mut self,
        procfs: &Path,
        id: ProcessId,
        process: &Process,
        of_v2: &Tenant,
        generation: u64,
    ) -> Option<Arc<Tenant>> {
        if self.mounts.is_empty() {
            return None;
        }
        if let Some(seen) = self.seen.get_mut(&id)
            && (seen.used_in == generation || seen.looks >= 2 && seen.exec_comm == process.exec_comm)
        {
            seen.used_in = generation;
            return seen.tenant.clone();
        }
        let before = self.seen.get(&id);
        let looks = before.map_or(0, |seen| seen.looks);
        let tenant = match list_of(procfs, id, process) {
            Some(list) => self.best(&String::from_utf8_lossy(&list), of_v2).map(Arc::new),
            None => match before {
                Some(seen) => seen.tenant.clone(),
                None => process.parent.and_then(|parent| self.seen.get(&parent)?.tenant.clone()),
            },
        };
        let seen = Seen {
            tenant: tenant.clone(),
            exec_comm: process.exec_comm.clone(),
            looks: looks + 1,
            used_in: generation,
        };
        self.seen.insert(id, seen);
        tenant
    }

    /// What says most of the lines of a list.
    fn best(&self, list: &str, of_v2: &Tenant) -> Option<Tenant> {
        let tenants = list.lines().filter_map(|line| {
            let (hierarchy, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            if hierarchy == "0" {
                return None;
            }
            let mount = self.mount_of(controllers)?;
            Some(tenant_of(path, trust::made_by_root(mount, path)))
        });
        let best = tenants.max_by_key(weight)?;
        (weight(&best) > weight(of_v2)).then_some(best)
    }

    fn mount_of(&self, controllers: &str) -> Option<&Path> {
        let has_all = |options: &str| {
            controllers
                .split(',')
                .all(|controller| options.split(',').any(|option| option == controller))
        };
        let found = self.mounts.iter().find(|(options, _)| has_all(options))?;
        Some(&found.1)
    }
}

/// The list of cgroups of a process, unless it has ended: then its number may be another's.
fn list_of(procfs: &Path, id: ProcessId, process: &Process) -> Option<Vec<u8>> {
    if process.exited {
        return None;
    }
    let list = beginning(&procfs.join(format!("{}/cgroup", id.tgid)), LIST_BYTES).ok()?;
    let started = || proc_fs::start_ticks(procfs, id.tgid) == Some(proc_fs::ticks_of(id.start_ns));
    // Looked at after the list: a process that is still the same was so then. 0: the kernel gives no start times.
    (!list.is_empty() && (id.start_ns == 0 || started())).then_some(list)
}

/// How much a tenant says.
fn weight(tenant: &Tenant) -> usize {
    let inside = tenant
        .nodes()
        .filter(|node| node.kind.is_job() || node.kind.is_container() || node.kind == Kind::Pod);
    match (inside.count(), tenant.node.kind) {
        (0, Kind::Unknown | Kind::Root) => 0,
        (0, Kind::Cgroup) => 1,
        (0, Kind::Slice) => 2,
        (0, _) => 3,
        (count, _) => 3 + count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "30 23 0:26 / ROOT/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                          31 23 0:27 / ROOT/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                          32 23 0:28 / ROOT/v2 rw - cgroup2 cgroup2 rw\n";

    fn process(exec_comm: &str, parent: Option<u32>) -> Process {
        Process {
            exec_comm: exec_comm.into(),
            parent: parent.map(id),
            ..Process::default()
        }
    }

    fn id(tgid: u32) -> ProcessId {
        ProcessId { tgid, start_ns: 0 }
    }

    #[test]
    fn the_path_that_says_most_is_taken_and_read_seldom() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        for folder in ["self", "7", "8", "cpu", "systemd"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let mounts = MOUNTS.replace("ROOT", &root.display().to_string());
        fs::write(root.join("self/mountinfo"), mounts).unwrap();
        let mut found = Hierarchies::read(root);
        let of_v2 = tenant_of("/system.slice/slurmd.service", 9);
        let write = |list: &str| fs::write(root.join("7/cgroup"), list).unwrap();
        let in_job = "4:cpuacct,cpu:/slurm/uid_0/job_7/step_0\n1:name=systemd:/system.slice/slurmd.service\n0::/x\n";
        let mut ask = |exec: &str, generation| {
            found
                .tenant(root, id(7), &process(exec, None), &of_v2, generation)
                .map(|tenant| tenant.to_string())
        };
        // It is moved after its start, and may be looked at before.
        write("4:cpu,cpuacct:/\n1:name=systemd:/system.slice/slurmd.service\n0::/\n");
        assert_eq!(ask("slurmstepd", 1), None);
        write(in_job);
        assert_eq!(ask("slurmstepd", 1), None, "once an interval");
        let job = Some("slurm:7".to_owned());
        assert_eq!(ask("slurmstepd", 2), job);
        // Then no more, but for another program.
        write("4:cpu,cpuacct:/slurm/uid_0/job_8/step_0\n");
        assert_eq!(ask("slurmstepd", 3), job);
        assert_eq!(ask("python", 4), Some("slurm:8".to_owned()));
        fs::remove_file(root.join("7/cgroup")).unwrap();
        assert_eq!(ask("sh", 5), Some("slurm:8".to_owned()));
        // Nothing is known of its child but that.
        let of_child = found.tenant(root, id(9), &process("sh", Some(7)), &of_v2, 5).unwrap();
        assert_eq!(of_child.to_string(), "slurm:8");
        // Who has its number now is another.
        write(in_job);
        let mut stat = fs::read_to_string("/proc/self/stat").unwrap();
        let ticks = proc_fs::start_ticks(Path::new("/proc"), std::process::id()).unwrap();
        let own = ProcessId {
            tgid: 7,
            start_ns: ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second(),
        };
        fs::write(root.join("7/stat"), &stat).unwrap();
        let mut of = |id, process: &Process| found.tenant(root, id, process, &of_v2, 5).is_some();
        assert!(of(own, &process("a", None)));
        stat.clear();
        fs::write(root.join("7/stat"), stat).unwrap();
        let other = ProcessId { start_ns: 1, ..own };
        assert!(!of(other, &process("a", None)));
        let ended = Process {
            exited: true,
            ..process("a", None)
        };
        assert!(!of(ProcessId { start_ns: 2, ..own }, &ended));
        // A hierarchy that is not mounted says nothing, and a unit is known already.
        fs::write(
            root.join("8/cgroup"),
            "5:memory:/docker/x\n1:name=systemd:/system.slice/a.service\n",
        )
        .unwrap();
        assert!(found.tenant(root, id(8), &process("sh", None), &of_v2, 5).is_none());
        let nothing = Tenant::of(Kind::Root, "/");
        let of_unit = found.tenant(root, id(8), &process("x", None), &nothing, 6).unwrap();
        assert_eq!(of_unit.to_string(), "unit:a.service");
    }
}
