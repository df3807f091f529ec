//! Tenants: whose work runs on a machine, by job, container, unit and user. Plain values and pure functions.
//!
//! A tenant is identified by its kind and id, which come from paths of cgroups that only root can have made, and from
//! nothing that a user can write. Everything else that is known of it is a label.

mod name;
mod wanted;

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    printable::{is_printable, printable},
    words::words,
};

pub use name::{id, label};
pub use wanted::{Wanted, WantedError};

words! {
    /// What sort of tenant it is.
    #[derive(PartialOrd, Ord, Hash)]
    pub enum Kind {
        /// A job of Slurm; the id is its number, or its SLUID where the number is not known.
        Slurm = "slurm",
        /// A job of OAR.
        Oar = "oar",
        /// A job of PBS or Torque.
        Pbs = "pbs",
        /// A slot of HTCondor: the path names no job.
        Htcondor = "htcondor",
        /// A pod of Kubernetes, by its UID: what runs in it outside of containers.
        Pod = "pod",
        /// A container in a pod.
        Kubernetes = "kubernetes",
        /// A container of containerd outside of Kubernetes; with `ctr` the id is `NAMESPACE:NAME`.
        Containerd = "containerd",
        /// A container of CRI-O outside of a pod.
        Crio = "crio",
        /// A container of Docker.
        Docker = "docker",
        /// A container of Podman.
        Podman = "podman",
        /// A container of LXC.
        Lxc = "lxc",
        /// A virtual machine or container of libvirt.
        Libvirt = "libvirt",
        /// Another machine that systemd knows (systemd-nspawn).
        Machine = "machine",
        /// A unit of the system's systemd.
        Unit = "unit",
        /// A unit of a user's systemd; the id is `UID/UNIT`.
        UserUnit = "user_unit",
        /// A login session.
        Session = "session",
        /// A user, by number: what runs in none of the user's sessions and units.
        User = "user",
        /// A slice of systemd: what runs in none of its units.
        Slice = "slice",
        /// Another cgroup, by its path: the deepest directory that only root can have made.
        Cgroup = "cgroup",
        /// The root of the tree of cgroups.
        Root = "root",
        /// The cgroup has no path: it was gone before anybody looked.
        Unknown = "unknown",
    }
}

impl Kind {
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

words! {
    /// What may be known of a tenant beside its identity. The set is fixed.
    #[derive(PartialOrd, Ord, Hash)]
    pub enum Label {
        /// Number of the Slurm job, from the path or from the title of a process of root's.
        SlurmJobId = "slurm_job_id",
        /// Name of the job, as its user gave it.
        JobName = "job_name",
        /// Partition of the job.
        Partition = "partition",
        /// Account that the job is charged to.
        Account = "account",
        /// Cluster of the job, as Slurm names it.
        Cluster = "cluster",
        /// Name of the container.
        ContainerName = "container_name",
        /// Image of the container.
        Image = "image",
        /// Project of Docker Compose.
        ComposeProject = "compose_project",
        /// Service of Docker Compose.
        ComposeService = "compose_service",
        /// Name of the pod.
        PodName = "pod_name",
        /// Namespace of the pod.
        PodNamespace = "pod_namespace",
        /// UID of the pod, from the path.
        PodUid = "pod_uid",
        /// Unit of systemd that it runs in, from the path.
        Unit = "unit",
        /// Name or number of the user that it runs for, as far as the path says.
        User = "user",
    }
}

/// A recognised directory on the path of a cgroup. In files it is the word that [`Node::from_word`] reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Which one.
    pub id: Arc<str>,
}

impl Node {
    /// What `kind:id` says; `None` if the kind is unknown, or there is no id.
    pub fn from_word(word: &str) -> Option<Self> {
        let (kind, text) = word.split_once(':')?;
        let kind = Kind::from_word(kind)?;
        // A log is foreign, too; an id that was written once stays as it is.
        let id = if text.chars().all(is_printable) && text.len() <= name::LONGEST_BYTES {
            text.into()
        } else {
            id(text).into()
        };
        (!text.is_empty()).then_some(Self { kind, id })
    }
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

impl From<Node> for Tenant {
    /// A tenant of which nothing else is known.
    fn from(node: Node) -> Self {
        Self {
            node,
            ancestors: Vec::new(),
            labels: Labels::new(),
        }
    }
}

impl Tenant {
    /// A tenant of which nothing else is known.
    pub fn of(kind: Kind, id: &str) -> Self {
        Node { kind, id: id.into() }.into()
    }

    /// The one of processes whose cgroup has no path.
    pub fn unknown() -> Self {
        Self::of(Kind::Unknown, "unknown")
    }

    /// The tenant and what it is inside of, the highest first.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = &Node> {
        self.ancestors.iter().chain([&self.node])
    }

    /// Whether it is a job, a container or a pod: no other tree of cgroups could say more.
    pub fn is_workload(&self) -> bool {
        let kind = self.node.kind;
        kind.is_job() || kind.is_container() || kind == Kind::Pod
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

impl From<Node> for String {
    fn from(node: Node) -> Self {
        node.to_string()
    }
}

impl TryFrom<String> for Node {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        Self::from_word(&word).ok_or_else(|| format!("`{}` is not a tenant", printable(&word)))
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.fmt(formatter)
    }
}
