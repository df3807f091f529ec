//! Which tenants a user asks for: `--job`, `--container`, `--pod`, `--unit`, `--tenant`.

use std::fmt;

use super::{Kind, Label, Node, Tenant};

/// Shortest beginning of a container's id that stands for it: what `docker ps` shows.
const SHORT_ID: usize = 12;

/// What stands for one tenant, or for several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The id of a job.
    Job(String),
    /// The id of a container, its beginning, or its name; of another's than root's with `UID/` before it.
    Container(String),
    /// Namespace and name of a pod.
    Pod(String, String),
    /// The name of a unit; of a user's with `UID/` before it.
    Unit(String),
    /// Kind and id, as in the log.
    Tenant(Kind, String),
}

impl fmt::Display for Wanted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(id) => write!(out, "job {id}"),
            Self::Container(name) => write!(out, "container {name}"),
            Self::Pod(namespace, name) => write!(out, "pod {namespace}/{name}"),
            Self::Unit(unit) => write!(out, "unit {unit}"),
            Self::Tenant(kind, id) => write!(out, "tenant {}:{id}", kind.as_str()),
        }
    }
}

/// What cannot be the name of a tenant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WantedError {
    /// No kind.
    #[error(
        "`{given}` is not KIND:ID, as in slurm:4711 or unit:nginx.service. Kinds are {}.",
        kinds()
    )]
    Tenant {
        /// What was asked for.
        given: String,
    },
    /// No namespace.
    #[error("`{given}` is not NAMESPACE/NAME, as in default/web-0; `kubectl get pods -A` lists both.")]
    Pod {
        /// What was asked for.
        given: String,
    },
    /// Nothing at all.
    #[error("an empty name stands for nothing: leave the option out, or give a name")]
    Empty,
}

fn kinds() -> String {
    Kind::ALL.map(Kind::as_str).join(", ")
}

impl Wanted {
    /// The value of `--pod`.
    ///
    /// # Errors
    ///
    /// [`WantedError::Pod`] without exactly one `/` inside.
    pub fn pod(text: &str) -> Result<Self, WantedError> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::Pod(namespace.to_owned(), name.to_owned()))
            }
            _ => Err(WantedError::Pod { given: text.to_owned() }),
        }
    }

    /// The value of `--tenant`.
    ///
    /// # Errors
    ///
    /// [`WantedError::Tenant`] without a known kind and an id.
    pub fn tenant(text: &str) -> Result<Self, WantedError> {
        let parts = text.split_once(':').filter(|(_, id)| !id.is_empty());
        let parsed = parts.and_then(|(kind, id)| Some(Self::Tenant(Kind::from_word(kind)?, id.to_owned())));
        parsed.ok_or_else(|| WantedError::Tenant { given: text.to_owned() })
    }

    /// The value of `--job`.
    ///
    /// # Errors
    ///
    /// [`WantedError::Empty`].
    pub fn job(text: &str) -> Result<Self, WantedError> {
        not_empty(text).map(Self::Job)
    }

    /// The value of `--container`.
    ///
    /// # Errors
    ///
    /// [`WantedError::Empty`].
    pub fn container(text: &str) -> Result<Self, WantedError> {
        not_empty(text).map(Self::Container)
    }

    /// The value of `--unit`.
    ///
    /// # Errors
    ///
    /// [`WantedError::Empty`].
    pub fn unit(text: &str) -> Result<Self, WantedError> {
        not_empty(text).map(Self::Unit)
    }

    /// What was typed for the option.
    pub fn value(&self) -> String {
        match self {
            Self::Job(value) | Self::Container(value) | Self::Unit(value) => value.clone(),
            Self::Pod(namespace, name) => format!("{namespace}/{name}"),
            Self::Tenant(kind, id) => format!("{}:{id}", kind.as_str()),
        }
    }

    /// With a user's name before the `/` replaced by its number, by `uid_of`.
    #[must_use]
    pub fn with_uid(self, uid_of: impl Fn(&str) -> Option<u32>) -> Self {
        let numbered = |text: String| match text.split_once('/') {
            Some((user, rest)) => match uid_of(user) {
                Some(uid) => format!("{uid}/{rest}"),
                None => text,
            },
            None => text,
        };
        match self {
            Self::Container(text) => Self::Container(numbered(text)),
            Self::Unit(text) => Self::Unit(numbered(text)),
            other => other,
        }
    }

    /// Whether a tenant is meant, or is inside of what is meant.
    pub fn matches(&self, tenant: &Tenant) -> bool {
        match self {
            Self::Job(job) => {
                let by_title = || tenant.label(Label::SlurmJobId) == Some(job.as_str());
                tenant.nodes().any(|node| is_job(node, job)) || by_title()
            }
            Self::Container(wanted) => {
                tenant.nodes().any(|node| is_container(node, wanted)) || is_named(tenant, wanted)
            }
            Self::Pod(namespace, name) => {
                let label = |label| tenant.label(label);
                matches!(tenant.node.kind, Kind::Kubernetes | Kind::Pod)
                    && label(Label::PodNamespace) == Some(namespace)
                    && label(Label::PodName) == Some(name)
            }
            Self::Unit(unit) => tenant.nodes().any(|node| is_unit(node, unit)),
            Self::Tenant(kind, id) => tenant.node.kind == *kind && *tenant.node.id == **id,
        }
    }
}

fn not_empty(text: &str) -> Result<String, WantedError> {
    match text {
        "" => Err(WantedError::Empty),
        text => Ok(text.to_owned()),
    }
}

/// The id of a PBS job has its server's name after a dot.
fn is_job(node: &Node, job: &str) -> bool {
    let number = node.id.split_once('.').map(|(number, _)| number);
    node.kind.is_job() && (*node.id == *job || node.kind == Kind::Pbs && number == Some(job))
}

fn is_container(node: &Node, wanted: &str) -> bool {
    let (owner, wanted) = owned(wanted);
    let (of, id) = owned(&node.id);
    let is_id = wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) && wanted.len() >= SHORT_ID;
    let name = id.split_once(':').map(|(_, name)| name);
    node.kind.is_container()
        && owner == of
        && (id == wanted || is_id && id.starts_with(wanted) || node.kind == Kind::Containerd && name == Some(wanted))
}

/// Names that users give to their own containers stand for those only.
fn is_named(tenant: &Tenant, wanted: &str) -> bool {
    let (owner, wanted) = owned(wanted);
    let (of, _) = owned(&tenant.node.id);
    tenant.node.kind.is_container() && owner == of && tenant.label(Label::ContainerName) == Some(wanted)
}

fn is_unit(node: &Node, unit: &str) -> bool {
    let service = node.id.strip_suffix(".service");
    node.kind.is_unit() && (*node.id == *unit || service == Some(unit))
}

/// What is before the last `/` of an id, and what is after it.
fn owned(id: &str) -> (Option<&str>, &str) {
    id.rsplit_once('/').map_or((None, id), |(owner, id)| (Some(owner), id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn named(kind: Kind, id: &str, name: &str) -> Tenant {
        let mut tenant = Tenant::of(kind, id);
        tenant.labels.insert(Label::ContainerName, name.into());
        tenant
    }

    #[test]
    fn jobs_by_number_also_where_a_container_is_inside() {
        let job = |id| Wanted::job(id).unwrap();
        let slurm = Tenant::of(Kind::Slurm, "7");
        let inside = Tenant {
            ancestors: vec![slurm.node.clone()],
            ..Tenant::of(Kind::Podman, ID)
        };
        for tenant in [
            &slurm,
            &inside,
            &Tenant::of(Kind::Pbs, "7.server"),
            &Tenant::of(Kind::Oar, "7"),
        ] {
            assert!(job("7").matches(tenant), "{tenant}");
            assert!(!job("70").matches(tenant), "{tenant}");
        }
        // A user's own directory of that name, and other kinds.
        for other in [
            Tenant::of(Kind::Slurm, "1000/7"),
            Tenant::of(Kind::Docker, "7"),
            Tenant::of(Kind::Slurm, "7.0"),
        ] {
            assert!(!job("7").matches(&other), "{other}");
        }
        let mut sluid = Tenant::of(Kind::Slurm, "s0123456789abc");
        sluid.labels.insert(Label::SlurmJobId, "7".into());
        assert!(job("7").matches(&sluid));
    }

    #[test]
    fn containers_by_id_beginning_and_name() {
        let wanted = |text| Wanted::container(text).unwrap();
        let docker = named(Kind::Docker, ID, "web");
        for text in [ID, &ID[..12], &ID[..40], "web"] {
            assert!(wanted(text).matches(&docker), "{text}");
        }
        for text in [&ID[..11], "we", "1000/web", "web2"] {
            assert!(!wanted(text).matches(&docker), "{text}");
        }
        let of_ctr = Tenant::of(Kind::Containerd, "default:ctr1");
        assert!(wanted("ctr1").matches(&of_ctr) && wanted("default:ctr1").matches(&of_ctr));
    }

    #[test]
    fn a_users_container_is_never_meant_by_a_name_alone() {
        let rootless = named(Kind::Podman, &format!("1000/{ID}"), "web");
        let alice = |user: &str| (user == "alice").then_some(1000);
        for text in ["web", ID, &ID[..12], "1001/web"] {
            assert!(!Wanted::container(text).unwrap().matches(&rootless), "{text}");
        }
        for text in ["alice/web", "1000/web", &format!("alice/{}", &ID[..12])] {
            assert!(
                Wanted::container(text).unwrap().with_uid(alice).matches(&rootless),
                "{text}"
            );
        }
    }

    #[test]
    fn units_pods_and_tenants() {
        let unit = Tenant::of(Kind::Unit, "nginx.service");
        let own = Tenant::of(Kind::UserUnit, "1000/nginx.service");
        for text in ["nginx", "nginx.service"] {
            assert!(Wanted::unit(text).unwrap().matches(&unit) && !Wanted::unit(text).unwrap().matches(&own));
        }
        assert!(Wanted::unit("1000/nginx").unwrap().matches(&own));
        assert!(Wanted::tenant("unit:nginx.service").unwrap().matches(&unit));
        assert!(!Wanted::tenant("unit:nginx.service").unwrap().matches(&own));
        let mut pod = Tenant::of(Kind::Kubernetes, ID);
        assert!(!Wanted::pod("ml/web-0").unwrap().matches(&pod));
        pod.labels
            .extend([(Label::PodNamespace, "ml".into()), (Label::PodName, "web-0".into())]);
        assert!(Wanted::pod("ml/web-0").unwrap().matches(&pod) && !Wanted::pod("ml/web-1").unwrap().matches(&pod));
    }

    #[test]
    fn what_stands_for_nothing_is_refused() {
        for text in ["web-0", "/web-0", "ml/", "a/b/c", ""] {
            assert!(Wanted::pod(text).is_err(), "{text}");
        }
        for text in ["7", "slurm:", "slurmm:7", ""] {
            assert!(Wanted::tenant(text).is_err(), "{text}");
        }
        assert!(Wanted::job("").is_err() && Wanted::container("").is_err() && Wanted::unit("").is_err());
    }
}
