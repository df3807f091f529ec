//! What this host lets dlpm see: kernel, privileges and namespaces.

use std::fs;
use std::path::Path;

use super::proc_fs::read_status;

/// Inode of the first pid namespace: `PROC_PID_INIT_INO` in the kernel's `include/linux/proc_ns.h`, the same since 3.8.
const HOST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
/// Inode of the first cgroup namespace: `PROC_CGROUP_INIT_INO`, the same since 4.6.
const HOST_CGROUP_NAMESPACE: u64 = 0xEFFF_FFFB;

/// Numbers of `include/uapi/linux/capability.h`.
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// The oldest kernel whose `BPF_PROG_TEST_RUN` can run a program on a chosen CPU.
const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// Which start of the machine this is; `None` where the kernel does not tell.
pub fn boot_id(procfs: &Path) -> Option<String> {
    let id = fs::read_to_string(procfs.join("sys/kernel/random/boot_id")).ok()?;
    Some(id.trim().to_owned())
}

/// Facts about the host, read once at start. `None` means that the host does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Kernel release, as `uname -r` prints it.
    pub kernel_release: Option<String>,
    /// Major and minor number of the kernel.
    pub kernel: Option<(u32, u32)>,
    /// Whether dlpm is in the host's pid namespace.
    pub in_host_pid_namespace: Option<bool>,
    /// Whether the `/proc` that dlpm reads is the one of the host's pid namespace.
    pub procfs_of_host: Option<bool>,
    /// Whether dlpm is in the host's cgroup namespace.
    pub in_host_cgroup_namespace: Option<bool>,
    /// Effective user id of dlpm.
    pub effective_uid: Option<u32>,
    /// Effective capabilities of dlpm, one bit each.
    pub capabilities: Option<u64>,
    /// Whether the kernel shows its own types (BTF).
    pub kernel_btf: bool,
    /// Kernel lockdown: `none`, `integrity` or `confidentiality`; `None` if the kernel has no such thing.
    pub lockdown: Option<String>,
}

/// Why dlpm cannot trace on this host.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CheckError {
    /// The kernel lacks what the sealed interval needs.
    #[error(
        "This kernel ({release}) is too old: dlpm needs Linux 5.10 or newer, which can run an eBPF program on a chosen \
         CPU. Boot a newer kernel."
    )]
    KernelTooOld {
        /// The release that runs.
        release: String,
    },
    /// Not root and without the capabilities.
    #[error(
        "dlpm runs as user {uid}, who may not load eBPF programs. Run it as root (`sudo dlpm …`), or grant \
         CAP_BPF, CAP_PERFMON and CAP_DAC_READ_SEARCH."
    )]
    NotRoot {
        /// Effective user id.
        uid: u32,
    },
    /// Root, but in a container that took the capabilities away.
    #[error(
        "dlpm runs as root but may not load eBPF programs: it has neither CAP_SYS_ADMIN nor CAP_BPF and CAP_PERFMON, \
         as in most containers. Run it on the host, or start the container with `--privileged --pid=host \
         --cgroupns=host`."
    )]
    NoCapabilities,
}

impl HostFacts {
    /// Reads the facts from the roots of both trees (`/proc` and `/sys`).
    pub fn read(procfs: &Path, sysfs: &Path) -> Self {
        let kernel_release = read_trimmed(&procfs.join("sys/kernel/osrelease"));
        let status = read_status(&procfs.join("self"));
        let is_host = |link: &str, inode: u64| Some(namespace(&procfs.join(link))? == inode);
        let in_host_pid_namespace = is_host("self/ns/pid", HOST_PID_NAMESPACE);
        Self {
            kernel: kernel_release.as_deref().and_then(version_of),
            kernel_release,
            in_host_pid_namespace,
            // A container may read the host's /proc through --procfs: its process 1 is the host's then. Where that
            // may not be asked, take /proc for the one of our own namespace.
            procfs_of_host: is_host("1/ns/pid", HOST_PID_NAMESPACE).or(in_host_pid_namespace),
            in_host_cgroup_namespace: is_host("self/ns/cgroup", HOST_CGROUP_NAMESPACE),
            effective_uid: status.as_ref().map(|status| status.euid),
            capabilities: status.as_ref().map(|status| status.capeff),
            kernel_btf: sysfs.join("kernel/btf/vmlinux").exists(),
            lockdown: read_trimmed(&sysfs.join("kernel/security/lockdown")).and_then(|text| chosen(&text)),
        }
    }

    /// Whether dlpm may load its programs; `None` if its capabilities are not known.
    pub fn may_load_programs(&self) -> Option<bool> {
        let has = |capability| self.has_capability(capability);
        Some(has(CAP_SYS_ADMIN)? || (has(CAP_BPF)? && has(CAP_PERFMON)?))
    }

    /// What keeps dlpm from tracing at all, the most basic first; empty if nothing is known to.
    pub fn errors(&self) -> Vec<CheckError> {
        let mut errors = Vec::new();
        if self.kernel.is_some_and(|kernel| kernel < OLDEST_KERNEL) {
            errors.push(CheckError::KernelTooOld {
                release: self.kernel_release.clone().unwrap_or_default(),
            });
        }
        if self.may_load_programs() == Some(false) {
            errors.push(match self.effective_uid {
                Some(uid) if uid != 0 => CheckError::NotRoot { uid },
                _ => CheckError::NoCapabilities,
            });
        }
        errors
    }

    /// What dlpm cannot see here though it runs: sentences, each with what to do.
    pub fn limits(&self) -> Vec<String> {
        let mut limits = Vec::new();
        match (self.in_host_pid_namespace, self.procfs_of_host) {
            (_, Some(false)) => limits.push(
                "dlpm reads the /proc of a pid namespace (a container): its pids are not the kernel's, so processes \
                 older than the trace have no name or a wrong one, memory is not read for the right processes, \
                 --pid and a traced command match no process, and dlpm's own time is not separated; run dlpm on the host, or start the container with --pid=host."
                    .to_owned(),
            ),
            (Some(false), _) => limits.push(
                "dlpm runs in a pid namespace (a container) and reads the host's /proc: pids in the log and in --pid \
                 are the host's, not the container's."
                    .to_owned(),
            ),
            _ => {}
        }
        if self.in_host_cgroup_namespace == Some(false) {
            limits.push(
                "dlpm runs in a cgroup namespace (a container): cgroups outside its own subtree have no path, and \
                 paths start at the container's own cgroup; run dlpm on the host, or start the container with \
                 --cgroupns=host and the host's /sys/fs/cgroup."
                    .to_owned(),
            );
        }
        if !self.kernel_btf {
            limits.push(
                "The kernel does not show its types (no /sys/kernel/btf/vmlinux): processes are distinguished by pid \
                 alone, so one that gets a used pid within an interval is mixed with its predecessor; use a kernel \
                 built with CONFIG_DEBUG_INFO_BTF=y."
                    .to_owned(),
            );
        }
        if self.lockdown.as_deref() == Some("confidentiality") {
            limits.push(
                "The kernel is locked down (confidentiality) and refuses to let programs read its memory: processes \
                 are distinguished by pid alone; boot without lockdown=confidentiality to have start times."
                    .to_owned(),
            );
        }
        if self.has_capability(CAP_DAC_READ_SEARCH) == Some(false) {
            limits.push(
                "dlpm lacks CAP_DAC_READ_SEARCH: energy counters may be refused, and cgroups are found by walking \
                 their tree; run dlpm as root."
                    .to_owned(),
            );
        }
        limits
    }

    fn has_capability(&self, number: u32) -> Option<bool> {
        Some(self.capabilities? >> number & 1 == 1)
    }
}

/// Inode of a namespace from a link such as `pid:[4026531836]`.
fn namespace(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    let (_, inode) = target.to_str()?.split_once(":[")?;
    inode.strip_suffix(']')?.parse().ok()
}

/// `6.18.44-generic` → (6, 18).
fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// `none [integrity] confidentiality` → `integrity`.
fn chosen(options: &str) -> Option<String> {
    let (_, rest) = options.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn read_trimmed(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    struct Host(TempDir);

    impl Host {
        fn new(release: &str, uid: u32, capabilities: u64) -> Self {
            let root = TempDir::new().unwrap();
            fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
            fs::create_dir_all(root.path().join("sys/kernel/btf")).unwrap();
            fs::create_dir_all(root.path().join("sys/kernel/security")).unwrap();
            fs::write(root.path().join("sys/kernel/btf/vmlinux"), "").unwrap();
            fs::write(root.path().join("proc/sys/kernel/osrelease"), format!("{release}\n")).unwrap();
            let host = Self(root);
            for process in ["self", "1"] {
                fs::create_dir_all(host.0.path().join("proc").join(process).join("ns")).unwrap();
                host.link(process, "pid", HOST_PID_NAMESPACE);
                host.link(process, "cgroup", HOST_CGROUP_NAMESPACE);
            }
            let status: String = fs::read_to_string("/proc/self/status")
                .unwrap()
                .lines()
                .map(|line| match line.split_once(':') {
                    Some(("Uid", _)) => format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n"),
                    Some(("CapEff", _)) => format!("CapEff:\t{capabilities:016x}\n"),
                    _ => format!("{line}\n"),
                })
                .collect();
            fs::write(host.0.path().join("proc/self/status"), status).unwrap();
            host
        }

        fn link(&self, process: &str, kind: &str, inode: u64) {
            let link = self.0.path().join("proc").join(process).join("ns").join(kind);
            let _ = fs::remove_file(&link);
            symlink(format!("{kind}:[{inode}]"), link).unwrap();
        }

        fn facts(&self) -> HostFacts {
            HostFacts::read(&self.0.path().join("proc"), &self.0.path().join("sys"))
        }
    }

    #[test]
    fn a_host_with_everything() {
        let facts = Host::new("5.10.0-28-amd64", 0, u64::MAX).facts();
        assert_eq!(facts.kernel, Some((5, 10)));
        assert_eq!(facts.may_load_programs(), Some(true));
        assert_eq!((facts.errors(), facts.limits()), (vec![], vec![]));
    }

    #[test]
    fn what_keeps_dlpm_from_running() {
        let host = Host::new("5.4.0-150-generic", 1000, 0);
        let errors = host.facts().errors();
        assert_eq!(
            errors,
            [
                CheckError::KernelTooOld {
                    release: "5.4.0-150-generic".to_owned()
                },
                CheckError::NotRoot { uid: 1000 },
            ]
        );
        assert!(errors[1].to_string().contains("sudo dlpm"));
        let container = Host::new("6.1.0", 0, 0xa804_25fb);
        assert_eq!(container.facts().errors(), [CheckError::NoCapabilities]);
    }

    #[test]
    fn capabilities_stand_in_for_root() {
        let host = Host::new(
            "6.1.0",
            1000,
            1 << CAP_BPF | 1 << CAP_PERFMON | 1 << CAP_DAC_READ_SEARCH,
        );
        assert_eq!(host.facts().errors(), []);
        assert_eq!(Host::new("6.1.0", 1000, 1 << CAP_BPF).facts().errors().len(), 1);
    }

    #[test]
    fn a_container_is_told_what_it_cannot_see() {
        let host = Host::new("6.1.0", 0, u64::MAX);
        host.link("self", "pid", 4_026_532_000);
        host.link("self", "cgroup", 4_026_532_001);
        let limits = host.facts().limits();
        assert_eq!(limits.len(), 2);
        assert!(
            limits[0].contains("the host's, not the container's"),
            "/proc is the host's: {limits:?}"
        );
        host.link("1", "pid", 4_026_532_000);
        assert!(host.facts().limits()[0].contains("--pid=host"));
    }

    #[test]
    fn kernel_restrictions() {
        let host = Host::new("6.1.0", 0, u64::MAX);
        fs::remove_file(host.0.path().join("sys/kernel/btf/vmlinux")).unwrap();
        let lockdown = host.0.path().join("sys/kernel/security/lockdown");
        fs::write(&lockdown, "none [integrity] confidentiality\n").unwrap();
        assert_eq!(host.facts().lockdown.as_deref(), Some("integrity"));
        assert_eq!(host.facts().limits().len(), 1);
        fs::write(&lockdown, "none integrity [confidentiality]\n").unwrap();
        assert_eq!(host.facts().limits().len(), 2);
    }

    #[test]
    fn an_empty_tree_is_unknown_and_no_error() {
        let empty = TempDir::new().unwrap();
        let facts = HostFacts::read(empty.path(), empty.path());
        assert_eq!(facts, HostFacts::default());
        assert_eq!(facts.errors(), []);
    }

    #[test]
    fn the_constants_are_this_kernels() {
        let kthreadd = read_trimmed(Path::new("/proc/2/comm")).as_deref() == Some("kthreadd");
        if !kthreadd || namespace(Path::new("/proc/2/ns/pid")).is_none() {
            eprintln!("skipped: the host's kthreadd is not visible (a container), or not running as root");
            return;
        }
        assert_eq!(namespace(Path::new("/proc/2/ns/pid")), Some(HOST_PID_NAMESPACE));
        assert_eq!(namespace(Path::new("/proc/2/ns/cgroup")), Some(HOST_CGROUP_NAMESPACE));
    }
}
