//! Which tenant the processes of a cgroup belong to, and what it is called.
//!
//! Kind and id come from the path ([`tenant_of`]) and from who owns the directories on it. Names come from files, which
//! threads read when a cgroup is first seen. Where the kernel keeps containers and jobs in version 1 hierarchies, the paths
//! there are read once for each process.

mod escape;
pub mod names;
mod path;
pub mod places;
mod recognise;
mod trust;
mod v1;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

pub use names::Roots;
pub use path::{tenant_of, top_of};
pub use trust::made_by_root;

use crate::{
    interval::{Interval, Process, ProcessId},
    sources::cgroups::CgroupTree,
    tenants::{Kind, Label, Labels, Node, Tenant, label},
};
use names::{Answer, Names, Request};
use v1::Hierarchies;

/// For how many intervals a tenant is kept that nobody asks for.
const KEEP_INTERVALS: u64 = 64;

/// How long an interval waits for the first answer about a tenant: a name that is there is read within a millisecond.
const PATIENCE: Duration = Duration::from_millis(20);

/// Cgroups whose names are read before any of their processes has run, at most.
const MOST_UNUSED: usize = 10_000;

struct Known {
    tenant: Arc<Tenant>,
    /// Names have been added.
    is_named: bool,
    used_in: u64,
}

/// Tenants by path of their cgroups, and by process where paths say nothing.
pub struct Tenants {
    roots: Roots,
    mount: PathBuf,
    hierarchies: Hierarchies,
    /// `None` where nobody wants names, or the threads could not be started.
    names: Option<Names>,
    generation: u64,
    by_path: HashMap<String, Known>,
    labels: HashMap<Node, (Labels, u64)>,
    /// First answers that are waited for, and until when.
    open: HashMap<Node, Instant>,
    users: HashMap<u32, Option<Arc<str>>>,
}

impl Tenants {
    /// Starts the threads that read names, if anybody wants names.
    pub fn start(roots: Roots, with_names: bool, cgroups: &CgroupTree) -> Self {
        let names = with_names.then(|| Names::start(&roots)).and_then(|names| {
            names
                .inspect_err(|error| log::warn!("tenants have no names, the threads cannot be started: {error}"))
                .ok()
        });
        if let Some(error) = names.as_ref().and_then(|_| names::open::check().err()) {
            log::warn!(
                "names of containers and jobs are not read, since the system call openat2 is refused ({error}): a sandbox \
                 does that, such as RestrictSUIDSGID= in a unit of systemd"
            );
        }
        Self {
            hierarchies: Hierarchies::read(&roots.procfs),
            mount: cgroups.mount_point().to_owned(),
            roots,
            names,
            generation: 0,
            by_path: HashMap::new(),
            labels: HashMap::new(),
            open: HashMap::new(),
            users: HashMap::new(),
        }
    }

    /// Begins an interval: what nobody asked for during the last 64 is forgotten.
    pub fn begin_interval(&mut self) {
        self.generation += 1;
        let oldest = self.generation.saturating_sub(KEEP_INTERVALS);
        self.by_path.retain(|_, known| known.used_in >= oldest);
        self.labels.retain(|_, (_, used_in)| *used_in >= oldest);
        self.hierarchies.forget(oldest);
    }

    /// Says whose the cgroups of an interval are, and the processes whose cgroup does not tell it.
    pub fn add_to(&mut self, interval: &mut Interval) {
        self.settle();
        let of_memory = interval.cgroup_memory.keys().map(AsRef::as_ref);
        for path in interval.cgroups.values().map(String::as_str).chain(of_memory) {
            if !interval.tenants.contains_key(path) {
                interval.tenants.insert(path.to_owned(), self.of_path(path));
            }
        }
        for (id, cgroup_id) in places(interval) {
            let (Some(process), Some(path)) = (interval.processes.get(&id), interval.cgroups.get(&cgroup_id)) else {
                continue;
            };
            let Some(of_path) = interval.tenants.get(path) else {
                continue;
            };
            if let Some(tenant) = self.of_process(id, process, of_path) {
                interval.process_tenants.insert(id, tenant);
            }
        }
    }

    /// The tenant of a cgroup, with the names that are known by now. The first question is what makes them known.
    pub fn of_path(&mut self, path: &str) -> Arc<Tenant> {
        self.take_answers();
        let used_in = self.generation;
        if !self.by_path.contains_key(path) {
            let tenant = self.resolve(path);
            self.keep(path, tenant);
        }
        let Some(known) = self.by_path.get_mut(path) else {
            return Arc::new(Tenant::unknown());
        };
        known.used_in = used_in;
        if let Some((labels, labels_used_in)) = self.labels.get_mut(&known.tenant.node) {
            *labels_used_in = used_in;
            // That nothing was found is not the last word: the script of a job may start after a long prolog.
            if !labels.is_empty() && !std::mem::replace(&mut known.is_named, true) {
                let mut tenant = known.tenant.as_ref().clone();
                for (label, value) in labels {
                    // What the path says is never replaced.
                    tenant.labels.entry(*label).or_insert_with(|| value.clone());
                }
                known.tenant = Arc::new(tenant);
            }
        }
        known.tenant.clone()
    }

    /// A cgroup has just been made: its names are looked for at once, since their files may soon be gone.
    pub fn created(&mut self, path: &str) {
        // Of very many the name is read when one of their processes has run.
        if self.names.is_none() || self.by_path.len() >= MOST_UNUSED || self.by_path.contains_key(path) {
            return;
        }
        let tenant = self.resolve(path);
        // The daemon that tells the number of a job is there only after the job's directories.
        if !is_by_sluid(&tenant.node) {
            self.keep(path, tenant);
        }
    }

    /// The tenant of a cgroup that was asked for before.
    pub fn known(&self, path: &str) -> Option<&Arc<Tenant>> {
        self.by_path.get(path).map(|known| &known.tenant)
    }

    /// The tenant of a process, where that of its cgroup is only what the machine's version 1 hierarchies leave of it.
    pub fn of_process(&mut self, id: ProcessId, process: &Process, of_path: &Tenant) -> Option<Arc<Tenant>> {
        if of_path.is_workload() {
            return None;
        }
        let found = self
            .hierarchies
            .tenant(&self.roots.procfs, id, process, of_path, self.generation)?;
        let request = Request::of(&found, &self.mount, "");
        let mut tenant = found.as_ref().clone();
        match self.labels.get_mut(&tenant.node) {
            Some((labels, used_in)) => {
                *used_in = self.generation;
                for (label, value) in labels {
                    tenant.labels.entry(*label).or_insert_with(|| value.clone());
                }
                Some(Arc::new(tenant))
            }
            None => {
                self.ask(request);
                Some(found)
            }
        }
    }

    /// Waits for names that were asked for just now, so that an interval has them; a few milliseconds at most.
    pub fn settle(&mut self) {
        self.take_answers();
        while let Some(until) = self.open.values().max().copied() {
            let answer = self.names.as_ref().and_then(|names| names.wait(until));
            match answer {
                Some(answer) => self.take(answer),
                // Whoever did not answer by then is waited for no longer.
                None => self.open.clear(),
            }
        }
    }

    fn keep(&mut self, path: &str, tenant: Tenant) {
        let request = Request::of(&tenant, &self.mount, path);
        self.ask(request);
        let known = Known {
            tenant: Arc::new(tenant),
            is_named: false,
            used_in: self.generation,
        };
        self.by_path.insert(path.to_owned(), known);
    }

    fn resolve(&mut self, path: &str) -> Tenant {
        let mut tenant = tenant_of(path, made_by_root(&self.mount, path));
        if tenant.node.kind == Kind::Cgroup
            && let Some(id) = self.of_ctr(path)
        {
            tenant = Tenant::of(Kind::Containerd, &id);
        }
        self.number_of_job(&mut tenant, path);
        if let Some(name) = tenant.label(Label::User).and_then(|uid| self.user(uid.parse().ok()?)) {
            tenant.labels.insert(Label::User, name);
        }
        tenant
    }

    /// `ctr` puts a container into `/NAMESPACE/NAME`: only its bundle tells that it is one.
    fn of_ctr(&self, path: &str) -> Option<String> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let (namespace, name) = (parts.next()?, parts.next()?);
        let is_one = recognise::is_name(namespace) && recognise::is_name(name);
        (is_one && made_by_root(&self.mount, path) >= 2 && names::is_ctr(&self.roots.rootfs, namespace, name))
            .then(|| format!("{namespace}:{name}"))
    }

    /// A job that the path names by its SLUID gets its number, if the title of its daemon tells it. What was said first
    /// stays, so that a job is one tenant.
    fn number_of_job(&self, tenant: &mut Tenant, path: &str) {
        let Some(sluid) = tenant
            .nodes()
            .find(|node| is_by_sluid(node))
            .map(|node| node.id.clone())
        else {
            return;
        };
        let Some(job) = names::job_directory(path) else {
            return;
        };
        let below = format!("/{job}/");
        let sibling = self.by_path.iter().find(|(other, _)| other.starts_with(&below));
        let number = match sibling {
            Some((_, known)) => known.tenant.label(Label::SlurmJobId).map(str::to_owned),
            None => names::slurm::number(&self.roots.procfs, &self.mount.join(&job)).map(|number| number.to_string()),
        };
        let Some(number) = number else {
            return;
        };
        for node in tenant.ancestors.iter_mut().chain([&mut tenant.node]) {
            if node.kind == Kind::Slurm && node.id == sluid {
                node.id = number.as_str().into();
            }
        }
        tenant.labels.insert(Label::SlurmJobId, number.into());
    }

    fn user(&mut self, uid: u32) -> Option<Arc<str>> {
        let rootfs = &self.roots.rootfs;
        let named = || names::user_name(rootfs, uid).as_deref().and_then(label).map(Arc::from);
        self.users.entry(uid).or_insert_with(named).clone()
    }

    fn ask(&mut self, request: Option<Request>) {
        let (Some(names), Some(request)) = (&self.names, request) else {
            return;
        };
        let node = request.node().clone();
        let is_named = self.labels.get(&node).is_some_and(|(labels, _)| !labels.is_empty());
        if !is_named && !self.open.contains_key(&node) && names.ask(request) {
            self.open.insert(node, Instant::now() + PATIENCE);
        }
    }

    fn take_answers(&mut self) {
        while let Some(answer) = self.names.as_ref().and_then(Names::next) {
            self.take(answer);
        }
    }

    fn take(&mut self, answer: Answer) {
        self.open.remove(&answer.node);
        match answer.labels {
            Some(labels) => drop(self.labels.insert(answer.node, (labels, self.generation))),
            // Another question about the same tenant may have been answered meanwhile.
            None if answer.last => drop(
                self.labels
                    .entry(answer.node)
                    .or_insert((Labels::new(), self.generation)),
            ),
            None => {}
        }
    }
}

/// The processes of an interval with a cgroup of each, each pair once.
fn places(interval: &Interval) -> Vec<(ProcessId, u64)> {
    let of_usage = interval.usage.iter().map(|usage| (usage.process, usage.cgroup_id));
    let of_memory = interval.memory.iter().map(|(id, (cgroup_id, _))| (*id, *cgroup_id));
    let of_gpus = interval.gpu_owners.values().copied();
    let mut places: Vec<_> = of_usage.chain(of_memory).chain(of_gpus).collect();
    places.sort_unstable();
    places.dedup();
    places
}

fn is_by_sluid(node: &Node) -> bool {
    node.kind == Kind::Slurm && recognise::is_sluid(&node.id)
}
