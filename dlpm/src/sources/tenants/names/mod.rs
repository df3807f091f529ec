//! Names of tenants, read from files by threads: files of strangers may take any time, and a seal waits for none.

pub mod open;
mod runtimes;
pub mod slurm;

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    thread,
    time::{Duration, Instant},
};

pub use runtimes::is_ctr;

use crate::{
    sources::tenants::recognise,
    tenants::{Kind, Labels, Node, Tenant},
};

/// When names are looked for after a cgroup was first seen: so many times, each so long after the one before; after the last
/// attempt the id alone is used. On a busy node, or behind a prolog, the script of a job starts long after its cgroup
/// was made, and a job may end a few seconds after that.
const ATTEMPTS: &[(usize, Duration)] = if cfg!(test) {
    // Unit tests wait for the last one.
    &[
        (1, Duration::ZERO),
        (1, Duration::from_millis(20)),
        (1, Duration::from_millis(100)),
    ]
} else {
    &[
        (1, Duration::ZERO),
        (1, Duration::from_millis(20)),
        (1, Duration::from_millis(100)),
        (1, Duration::from_millis(300)),
        (3, Duration::from_millis(500)),
        (10, Duration::from_secs(1)),
        (10, Duration::from_secs(2)),
        (6, Duration::from_secs(5)),
    ]
};

/// The time before an attempt, by its number from 0; `None` where there is none.
fn pause_before(attempt: usize) -> Option<Duration> {
    let mut pauses = ATTEMPTS
        .iter()
        .flat_map(|(times, pause)| std::iter::repeat_n(*pause, *times));
    pauses.nth(attempt)
}

/// Tenants that wait for a name at most; those that come on top have none.
const MOST_WAITING: usize = 4096;

/// Longest list of users that is read.
const USERS_BYTES: u64 = 4 << 20;

/// Where things are.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Root of the file system whose container runtimes and users are meant.
    pub rootfs: PathBuf,
    /// Root of `/proc`.
    pub procfs: PathBuf,
}

/// Where a name is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Docker(String),
    Containerd {
        namespace: String,
        id: String,
    },
    Crio(String),
    Podman(String),
    Rootless {
        uid: u32,
        id: String,
    },
    Kubernetes {
        id: String,
        pod: String,
    },
    Pod(String),
    /// The directory of the job.
    Slurm(PathBuf),
}

/// Whose name is looked for, and where.
#[derive(Clone, Debug)]
pub struct Request {
    node: Node,
    place: Place,
}

impl Request {
    /// Where the names of a tenant are, if anywhere. `path` is that of its cgroup, below `mount`.
    pub fn of(tenant: &Tenant, mount: &Path, path: &str) -> Option<Self> {
        let id = tenant.node.id.to_string();
        let pod = || tenant.ancestors.iter().rev().find(|node| node.kind == Kind::Pod);
        let place = match tenant.node.kind {
            Kind::Podman => match id.split_once('/') {
                Some((uid, id)) => Place::Rootless {
                    uid: recognise::number(uid)?,
                    id: id.to_owned(),
                },
                None => Place::Podman(id),
            },
            // What is in a container or in a directory that was handed over has its files elsewhere.
            _ if id.contains('/') => return None,
            Kind::Docker => Place::Docker(id),
            Kind::Containerd => {
                let (namespace, id) = id.split_once(':').unwrap_or(("default", &id));
                Place::Containerd {
                    namespace: namespace.to_owned(),
                    id: id.to_owned(),
                }
            }
            Kind::Crio => Place::Crio(id),
            Kind::Kubernetes => Place::Kubernetes {
                id,
                pod: pod()?.id.to_string(),
            },
            Kind::Pod => Place::Pod(id),
            Kind::Slurm => Place::Slurm(mount.join(job_directory(path)?)),
            _ => return None,
        };
        Some(Self {
            node: tenant.node.clone(),
            place,
        })
    }

    /// Whose name it is.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Whether a user can make it take long: their home may be on a network, and their memory on anything.
    fn is_users(&self) -> bool {
        matches!(self.place, Place::Rootless { .. } | Place::Slurm(_))
    }

    fn look_up(&self, roots: &Roots) -> Option<Labels> {
        let rootfs = &roots.rootfs;
        match &self.place {
            Place::Docker(id) => runtimes::docker(rootfs, id),
            Place::Containerd { namespace, id } => runtimes::containerd(rootfs, namespace, id),
            Place::Crio(id) => runtimes::crio(rootfs, id),
            Place::Podman(id) => runtimes::podman(rootfs, id),
            Place::Rootless { uid, id } => runtimes::rootless_podman(&home(rootfs, *uid)?, *uid, id),
            Place::Kubernetes { id, pod } => {
                let found = runtimes::containerd(rootfs, "k8s.io", id)
                    .or_else(|| runtimes::crio(rootfs, id))
                    .or_else(|| runtimes::docker(rootfs, id).filter(|_| recognise::is_id(id)));
                found.or_else(|| runtimes::pod(rootfs, pod))
            }
            Place::Pod(uid) => runtimes::pod(rootfs, uid),
            Place::Slurm(job) => slurm::labels(roots, job),
        }
    }
}

/// The part of a path up to the directory of the Slurm job in it, without the leading `/`.
pub fn job_directory(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let scope = parts.iter().position(|part| part.ends_with("slurmstepd.scope"))?;
    Some(parts.get(..=scope + 1)?.join("/"))
}

/// Lines of the list of users: name, number, home.
fn users(rootfs: &Path) -> Vec<(String, u32, PathBuf)> {
    let text = open::beginning(&rootfs.join("etc/passwd"), USERS_BYTES).unwrap_or_default();
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let home = fields.nth(2)?.trim_start_matches('/');
        Some((name, uid, rootfs.join(home)))
    };
    String::from_utf8_lossy(&text).lines().filter_map(user).collect()
}

fn home(rootfs: &Path, uid: u32) -> Option<PathBuf> {
    users(rootfs)
        .into_iter()
        .find(|(_, other, _)| *other == uid)
        .map(|(_, _, home)| home)
}

/// The name of a user, from the file alone: no network is asked.
pub fn user_name(rootfs: &Path, uid: u32) -> Option<String> {
    users(rootfs)
        .into_iter()
        .find(|(_, other, _)| *other == uid)
        .map(|(name, _, _)| name)
}

/// What was found of a tenant.
pub struct Answer {
    /// Whose.
    pub node: Node,
    /// What; `None` where nothing was there yet.
    pub labels: Option<Labels>,
    /// No other answer follows.
    pub last: bool,
}

/// The threads that read names.
pub struct Names {
    of_root: SyncSender<Request>,
    of_users: SyncSender<Request>,
    answers: Receiver<Answer>,
}

impl Names {
    /// Starts them.
    ///
    /// # Errors
    ///
    /// Where a thread cannot be started.
    pub fn start(roots: &Roots) -> io::Result<Self> {
        let (tell, answers) = channel();
        let start = |name: &str| {
            let (ask, requests) = sync_channel(MOST_WAITING);
            let (roots, tell) = (roots.clone(), tell.clone());
            let read = move || work(&requests, &tell, &roots);
            thread::Builder::new().name(name.to_owned()).spawn(read)?;
            io::Result::Ok(ask)
        };
        Ok(Self {
            of_root: start("dlpm-names")?,
            of_users: start("dlpm-user-names")?,
            answers,
        })
    }

    /// Asks for a name. Whether its first answer is worth waiting for: [`Self::wait`].
    pub fn ask(&self, request: Request) -> bool {
        let is_users = request.is_users();
        let to = if is_users { &self.of_users } else { &self.of_root };
        to.try_send(request).is_ok() && !is_users
    }

    /// An answer, if there is one by then.
    pub fn wait(&self, until: Instant) -> Option<Answer> {
        let left = until.saturating_duration_since(Instant::now());
        self.answers.recv_timeout(left).ok()
    }

    /// An answer that is there.
    pub fn next(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

struct Waiting {
    request: Request,
    due: Instant,
    attempt: usize,
}

/// Answers requests until nobody asks any more.
fn work(requests: &Receiver<Request>, tell: &Sender<Answer>, roots: &Roots) {
    let mut waiting: Vec<Waiting> = Vec::new();
    loop {
        let next = waiting.iter().map(|waiting| waiting.due).min();
        let received = match next {
            None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => requests.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        let now = Instant::now();
        match received {
            Ok(request) => waiting.push(Waiting {
                request,
                due: now,
                attempt: 0,
            }),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let mut at = 0;
        while at < waiting.len() {
            if waiting[at].due > now {
                at += 1;
                continue;
            }
            let labels = waiting[at].request.look_up(roots);
            let next = pause_before(waiting[at].attempt + 1);
            let last = labels.is_some() || next.is_none() || waiting.len() > MOST_WAITING;
            let answer = Answer {
                node: waiting[at].request.node.clone(),
                labels,
                last,
            };
            if tell.send(answer).is_err() {
                return;
            }
            match next.filter(|_| !last) {
                None => drop(waiting.swap_remove(at)),
                Some(pause) => {
                    waiting[at].attempt += 1;
                    waiting[at].due = now + pause;
                }
            }
        }
    }
}
