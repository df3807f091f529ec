//! Directories that batch systems, Kubernetes, container runtimes and hypervisors make, by their names.
//!
//! From their sources and from a node where they ran: Slurm (`src/plugins/cgroup`), OAR
//! (`job_resource_manager_cgroups.pl` and its successor for systemd), OpenPBS (`pbs_cgroups.PY`), HTCondor
//! (`BASE_CGROUP`), the kubelet (`pkg/kubelet/cm`), containerd, CRI-O, Docker, Podman, LXC, libvirt.

use super::escape::unescaped;
use crate::tenants::Kind;

/// What was recognised.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many directories that were.
    pub taken: usize,
    /// The UID of a pod.
    pub pod: Option<String>,
    /// A job or a container.
    pub node: Option<(Kind, String)>,
}

impl Found {
    fn node(taken: usize, kind: Kind, id: impl Into<String>) -> Option<Self> {
        let id = id.into();
        (!id.is_empty()).then_some(Self {
            taken,
            pod: None,
            node: Some((kind, id)),
        })
    }
}

/// Looks at the directory `at` of a path and what is below it.
pub fn at(parts: &[&str], at: usize, in_pod: bool) -> Option<Found> {
    let rest = parts.get(at..)?;
    let above = &parts[..at];
    job(rest)
        .or_else(|| pod(above, rest))
        .or_else(|| container(above, rest, in_pod))
}

/// A number without sign and leading zeros, as programs write it.
pub fn number(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok()).flatten()
}

/// `session-3.scope`, `session-c2.scope`: the session's id.
pub fn session(part: &str) -> Option<&str> {
    let id = part.strip_prefix("session-")?.strip_suffix(".scope")?;
    (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(id)
}

/// The SLUID of a Slurm job: `s` and 13 letters and digits.
pub fn is_sluid(part: &str) -> bool {
    part.len() == 14 && part.starts_with('s') && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn job(rest: &[&str]) -> Option<Found> {
    match rest {
        [scope, job, ..] if *scope == "slurmstepd.scope" || scope.ends_with("_slurmstepd.scope") => {
            let number = job.strip_prefix("job_").filter(|id| number(id).is_some());
            Found::node(2, Kind::Slurm, number.or_else(|| is_sluid(job).then_some(*job))?)
        }
        [slurm, user, job, ..] if *slurm == "slurm" || slurm.starts_with("slurm_") => {
            user.strip_prefix("uid_").and_then(number)?;
            Found::node(
                3,
                Kind::Slurm,
                job.strip_prefix("job_").filter(|id| number(id).is_some())?,
            )
        }
        ["oar", job, ..] => {
            let (_, id) = job.rsplit_once('_')?;
            number(id)?;
            Found::node(2, Kind::Oar, id)
        }
        [slice, ..] if slice.starts_with("oar-u") => {
            let (user, job) = slice.strip_prefix("oar-u")?.strip_suffix(".slice")?.split_once("-j")?;
            number(user)?;
            number(job)?;
            Found::node(1, Kind::Oar, job)
        }
        ["pbs_jobs.service", "jobid" | "jobs", job, ..] => Found::node(3, Kind::Pbs, *job),
        ["torque", job, ..] if job.starts_with(|first: char| first.is_ascii_digit()) => Found::node(2, Kind::Pbs, *job),
        ["htcondor", slot, ..] if slot.starts_with("condor_") => Found::node(2, Kind::Htcondor, *slot),
        _ => None,
    }
}

fn pod(above: &[&str], rest: &[&str]) -> Option<Found> {
    let part = *rest.first()?;
    if let Some((slice, container)) = part.split_once(".slice:") {
        // A kubelet and a runtime with different drivers.
        let uid = pod_of_slice(&format!("{slice}.slice"))?;
        let (_, id) = container.split_once(':')?;
        return is_name(id).then(|| Found {
            taken: 1,
            pod: Some(uid),
            node: Some((Kind::Kubernetes, id.to_owned())),
        });
    }
    let uid = pod_of_slice(part).or_else(|| {
        let in_kubepods = matches!(
            above,
            [.., "kubepods"] | [.., "kubepods", "burstable" | "besteffort" | "guaranteed"]
        );
        let uid = part.strip_prefix("pod").filter(|uid| in_kubepods && is_uid(uid))?;
        Some(uid.to_owned())
    })?;
    Some(Found {
        taken: 1,
        pod: Some(uid),
        node: None,
    })
}

/// `kubepods-burstable-pod11111111_2222_….slice`: the UID.
fn pod_of_slice(part: &str) -> Option<String> {
    let (class, uid) = part.strip_suffix(".slice")?.rsplit_once("-pod")?;
    let class = ["-burstable", "-besteffort", "-guaranteed"]
        .iter()
        .find_map(|suffix| class.strip_suffix(suffix))
        .unwrap_or(class);
    let in_kubepods = class == "kubepods" || class.ends_with("-kubepods");
    (in_kubepods && is_uid(uid)).then(|| uid.replace('_', "-"))
}

/// UIDs are those of the API server, or a digest for a pod from a file.
fn is_uid(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f' | b'-' | b'_'))
}

fn container(above: &[&str], rest: &[&str], in_pod: bool) -> Option<Found> {
    let part = *rest.first()?;
    if let Some((kind, id)) = by_runtime(part) {
        return Found::node(1, if in_pod { Kind::Kubernetes } else { kind }, id);
    }
    if is_id(part) {
        // No runtime in the name: the kubelet's parent, or Docker's with any parent.
        return Found::node(1, if in_pod { Kind::Kubernetes } else { Kind::Docker }, part);
    }
    if let Some(id) = part.strip_prefix("cri-containerd:").filter(|id| in_pod && is_name(id)) {
        return Found::node(1, Kind::Kubernetes, id);
    }
    if let ["lxc" | "lxc.payload", name, ..] = rest {
        return Found::node(2, Kind::Lxc, *name);
    }
    if let Some(name) = part.strip_prefix("lxc.payload.").filter(|name| !name.is_empty()) {
        return Found::node(1, Kind::Lxc, name);
    }
    machine(above, part)
}

fn by_runtime(part: &str) -> Option<(Kind, &str)> {
    let scope = part.strip_suffix(".scope");
    let named = |prefix: &str| scope?.strip_prefix(prefix);
    if let Some(id) = named("docker-").filter(|id| is_id(id)) {
        return Some((Kind::Docker, id));
    }
    if let Some(id) = named("cri-containerd-").filter(|id| is_name(id)) {
        return Some((Kind::Containerd, id));
    }
    if let Some(id) = named("nerdctl-").filter(|id| is_id(id)) {
        return Some((Kind::Containerd, id));
    }
    if let Some(id) = named("crio-")
        .or_else(|| part.strip_prefix("crio-"))
        .filter(|id| is_id(id))
    {
        return Some((Kind::Crio, id));
    }
    let podman = scope.unwrap_or(part).strip_prefix("libpod-")?;
    let id = podman.strip_prefix("payload-").unwrap_or(podman);
    is_id(id).then_some((Kind::Podman, id))
}

/// What systemd-machined, libvirt and systemd-nspawn make.
fn machine(above: &[&str], part: &str) -> Option<Found> {
    if let Some(name) = part
        .strip_prefix("machine-")
        .and_then(|rest| rest.strip_suffix(".scope"))
    {
        let name = unescaped(name);
        return match libvirt(&name) {
            Some(domain) => Found::node(1, Kind::Libvirt, domain),
            None => Found::node(1, Kind::Machine, name),
        };
    }
    if let Some(name) = part
        .strip_prefix("systemd-nspawn@")
        .and_then(|rest| rest.strip_suffix(".service"))
    {
        return Found::node(1, Kind::Machine, unescaped(name));
    }
    // libvirt without machined.
    let domain = [".libvirt-qemu", ".libvirt-lxc"]
        .iter()
        .find_map(|suffix| part.strip_suffix(suffix))
        .filter(|_| {
            above
                .last()
                .is_some_and(|parent| matches!(*parent, "machine" | "machine.slice"))
        })?;
    Found::node(1, Kind::Libvirt, libvirt(domain).unwrap_or(domain))
}

/// The name in `qemu-3-NAME`; the number changes with each start.
fn libvirt(machine: &str) -> Option<&str> {
    let rest = machine.strip_prefix("qemu-").or_else(|| machine.strip_prefix("lxc-"))?;
    let (start, name) = rest.split_once('-')?;
    number(start)?;
    (!name.is_empty()).then_some(name)
}

/// 64 digits, as runtimes make them.
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A name that containerd allows.
pub fn is_name(text: &str) -> bool {
    (1..=76).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}
