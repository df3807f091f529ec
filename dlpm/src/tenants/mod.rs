//! Tenants: whose work runs on a machine, by job, container, unit and user. Plain values and pure functions.
//!
//! A tenant is identified by its kind and id, which come from paths of cgroups that only root can have made, and from
//! nothing that a user can write. Everything else that is known of it is a label.

mod name;
pub mod sums;
mod wanted;

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

pub use name::{id, label};
pub use wanted::{Wanted, WantedError};

/// What sort of tenant it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A job of Slurm; the id is its number, or its SLUID where the number is not known.
    Slurm,
    /// A job of OAR.
    Oar,
    /// A job of PBS or Torque.
    Pbs,
    /// A slot of HTCondor: the path names no job.
    Htcondor,
    /// A pod of Kubernetes, by its UID: what runs in it outside of containers.
    Pod,
    /// A container in a pod.
    Kubernetes,
    /// A container of containerd outside of Kubernetes; with `ctr` the id is `NAMESPACE:NAME`.
    Containerd,
    /// A container of CRI-O outside of a pod.
    Crio,
    /// A container of Docker.
    Docker,
    /// A container of Podman.
    Podman,
    /// A container of LXC.
    Lxc,
    /// A virtual machine or container of libvirt.
    Libvirt,
    /// Another machine that systemd knows (systemd-nspawn).
    Machine,
    /// A unit of the system's systemd.
    Unit,
    /// A unit of a user's systemd; the id is `UID/UNIT`.
    UserUnit,
    /// A login session.
    Session,
    /// A user, by number: what runs in none of the user's sessions and units.
    User,
    /// A slice of systemd: what runs in none of its units.
    Slice,
    /// Another cgroup, by its path: the deepest directory that only root can have made.
    Cgroup,
    /// The root of the tree of cgroups.
    Root,
    /// The cgroup has no path: it was gone before anybody looked.
    Unknown,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::Slurm,
        Self::Oar,
        Self::Pbs,
        Self::Htcondor,
        Self::Pod,
        Self::Kubernetes,
        Self::Containerd,
        Self::Crio,
        Self::Docker,
        Self::Podman,
        Self::Lxc,
        Self::Libvirt,
        Self::Machine,
        Self::Unit,
        Self::UserUnit,
        Self::Session,
        Self::User,
        Self::Slice,
        Self::Cgroup,
        Self::Root,
        Self::Unknown,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slurm => "slurm",
            Self::Oar => "oar",
            Self::Pbs => "pbs",
            Self::Htcondor => "htcondor",
            Self::Pod => "pod",
            Self::Kubernetes => "kubernetes",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
            Self::Libvirt => "libvirt",
            Self::Machine => "machine",
            Self::Unit => "unit",
            Self::UserUnit => "user_unit",
            Self::Session => "session",
            Self::User => "user",
            Self::Slice => "slice",
            Self::Cgroup => "cgroup",
            Self::Root => "root",
            Self::Unknown => "unknown",
        }
    }

    /// The kind of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// A job of a batch system.
    pub fn is_job(self) -> bool {
        matches!(self, Self::Slurm | Self::Oar | Self::Pbs | Self::Htcondor)
    }

    /// A container or a virtual machine: what is below it is made by whoever is inside.
    pub fn is_container(self) -> bool {
        matches!(
            self,
            Self::Kubernetes
                | Self::Containerd
                | Self::Crio
                | Self::Docker
                | Self::Podman
                | Self::Lxc
                | Self::Libvirt
                | Self::Machine
        )
    }

    /// A unit of systemd.
    pub fn is_unit(self) -> bool {
        matches!(self, Self::Unit | Self::UserUnit)
    }
}

/// What may be known of a tenant beside its identity. The set is fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Number of the Slurm job, from the path or from the title of a process of root's.
    SlurmJobId,
    /// Name of the job, as its user gave it.
    JobName,
    /// Partition of the job.
    Partition,
    /// Account that the job is charged to.
    Account,
    /// Name of the container.
    ContainerName,
    /// Image of the container.
    Image,
    /// Project of Docker Compose.
    ComposeProject,
    /// Service of Docker Compose.
    ComposeService,
    /// Name of the pod.
    PodName,
    /// Namespace of the pod.
    PodNamespace,
    /// UID of the pod, from the path.
    PodUid,
    /// Unit of systemd that it runs in, from the path.
    Unit,
    /// Name or number of the user that it runs for, as far as the path says.
    User,
}

/// A recognised directory on the path of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Which one.
    pub id: Arc<str>,
}

/// Values of labels: printable, of at most 200 bytes each.
pub type Labels = BTreeMap<Label, Arc<str>>;

/// Whose work it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The deepest recognised directory: what identifies the tenant.
    pub node: Node,
    /// The recognised directories above it, the highest first.
    pub ancestors: Vec<Node>,
    /// What else is known.
    pub labels: Labels,
}

impl Tenant {
    /// A tenant of which nothing else is known.
    pub fn of(kind: Kind, id: &str) -> Self {
        Self {
            node: Node { kind, id: id.into() },
            ancestors: Vec::new(),
            labels: Labels::new(),
        }
    }

    /// The one of processes whose cgroup has no path.
    pub fn unknown() -> Self {
        Self::of(Kind::Unknown, "unknown")
    }

    /// The tenant and what it is inside of, the highest first.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = &Node> {
        self.ancestors.iter().chain([&self.node])
    }

    /// A label's value.
    pub fn label(&self, label: Label) -> Option<&str> {
        self.labels.get(&label).map(AsRef::as_ref)
    }
}

/// `docker:ID`, as in the log.
impl fmt::Display for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.kind.as_str(), self.id)
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.fmt(formatter)
    }
}
