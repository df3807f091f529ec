//! From the path of a cgroup to a tenant: a pure function.
//!
//! Whoever may make a directory in the tree can give it any name, also one that looks like another's container or job. So
//! ids are plain only in that part of the tree where root alone makes directories. Below a user's slice, inside of a
//! container, and below a directory that was handed over, an id begins with whose domain that is: `1000/…`,
//! `docker:ID/…`, `/teams/ml/…`. Names of cgroups hold no `/`, so no such id is ever equal to one of root's.

use crate::tenants::{self, Kind, Label, Node, Tenant};

use super::recognise::{self, Found};

/// Directories of a path that are looked at. The kernel's limit is `cgroup.max.descendants` and the length of a path.
const DEEPEST: usize = 64;

/// The tenant of a cgroup.
///
/// `path` starts at the root of the tree. `by_root` is how many of its directories, from the highest, only root can have
/// made: all those whose parents belong to root and can be written by nobody else.
pub fn tenant_of(path: &str, by_root: usize) -> Tenant {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).take(DEEPEST).collect();
    if !path.starts_with('/') || parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Tenant::unknown();
    }
    let mut walk = Walk::default();
    let mut at = 0;
    while at < parts.len() {
        at += walk.step(&parts, at, by_root).max(1);
    }
    walk.finish(&parts, by_root)
}

/// The highest directory on `path` that belongs to the same tenant; `None` for the root of the tree and where nothing is
/// known. `by_root` is that of [`tenant_of`].
pub fn top_of(path: &str, by_root: usize) -> Option<&str> {
    let tenant = tenant_of(path, by_root);
    if matches!(tenant.node.kind, Kind::Root | Kind::Unknown) {
        return None;
    }
    let ends = path
        .char_indices()
        .skip(1)
        .filter(|(_, letter)| *letter == '/')
        .map(|(at, _)| at);
    let above = ends.map(|end| &path[..end]).enumerate();
    // `by_root` counts directories from the highest.
    let mut above = above.map(|(depth, above)| (above, by_root.min(depth + 1)));
    let is_its = |(above, by_root): &(&str, usize)| tenant_of(above, *by_root).node == tenant.node;
    Some(above.find(is_its).map_or(path, |(above, _)| above))
}

#[derive(Default)]
struct Walk {
    /// Whose the directories are that come next; empty for root's.
    domain: String,
    nodes: Vec<Node>,
    /// The deepest slice.
    slice: Option<String>,
    user: Option<u32>,
    /// Below `user@UID.service`.
    in_user_manager: bool,
}

impl Walk {
    /// Looks at the directory `at`, and how many directories that were.
    fn step(&mut self, parts: &[&str], at: usize, by_root: usize) -> usize {
        if at >= by_root && self.domain.is_empty() {
            self.domain = format!("/{}", parts[..by_root].join("/"));
        }
        if let Some(uid) = user_of(parts, at)
            && self.domain.is_empty()
        {
            self.user = Some(uid);
            self.push(Kind::User, uid.to_string());
            self.domain = uid.to_string();
            return 1;
        }
        if self.user.is_some() && at == 2 && by_root > 2 {
            // Made by the system's systemd, in a directory of root's.
            if let Some(session) = recognise::session(parts[at]) {
                self.nodes.push(Node {
                    kind: Kind::Session,
                    id: tenants::id(session).into(),
                });
                return 1;
            }
            if parts[at].starts_with("user@") {
                self.in_user_manager = true;
                return 1;
            }
        }
        let in_pod = self.nodes.last().is_some_and(|node| node.kind == Kind::Pod);
        if let Some(found) = recognise::at(parts, at, in_pod) {
            let taken = found.taken;
            self.take(found);
            return taken;
        }
        self.unit(parts[at]);
        1
    }

    fn take(&mut self, found: Found) {
        if let Some(pod) = found.pod {
            self.push(Kind::Pod, pod);
        }
        if let Some((kind, id)) = found.node {
            let is_container = kind.is_container();
            let plain = format!("{}:{id}", kind.as_str());
            self.push(kind, id);
            if is_container {
                self.domain = self.within(&plain);
            }
        }
    }

    fn unit(&mut self, part: &str) {
        if part.ends_with(".slice") {
            if self.domain.is_empty() {
                self.slice = Some(part.to_owned());
            }
            return;
        }
        let is_unit = [".service", ".scope", ".socket", ".mount", ".swap"]
            .iter()
            .any(|suffix| part.len() > suffix.len() && part.ends_with(suffix));
        // Units in units, and what looks like one in a container or in a directory that was handed over, are none of
        // this machine's.
        let only_user = self.nodes.iter().all(|node| node.kind == Kind::User);
        if !is_unit || !only_user {
            return;
        }
        if self.domain.is_empty() {
            self.push(Kind::Unit, part.to_owned());
        } else if self.in_user_manager {
            self.push(Kind::UserUnit, part.to_owned());
        }
    }

    fn push(&mut self, kind: Kind, id: String) {
        let id = if kind == Kind::User { id } else { self.within(&id) };
        self.nodes.push(Node {
            kind,
            id: tenants::id(&id).into(),
        });
    }

    fn within(&self, id: &str) -> String {
        if self.domain.is_empty() {
            id.to_owned()
        } else {
            format!("{}/{id}", self.domain)
        }
    }

    fn finish(mut self, parts: &[&str], by_root: usize) -> Tenant {
        let node = self.nodes.pop().unwrap_or_else(|| {
            let (kind, id) = match self.slice.take() {
                _ if parts.is_empty() => (Kind::Root, "/".to_owned()),
                Some(slice) => (Kind::Slice, slice),
                None => {
                    let depth = by_root.clamp(1, parts.len());
                    (Kind::Cgroup, format!("/{}", parts[..depth].join("/")))
                }
            };
            Node {
                kind,
                id: tenants::id(&id).into(),
            }
        });
        let mut tenant = Tenant {
            node,
            ancestors: self.nodes,
            labels: tenants::Labels::new(),
        };
        let labels: Vec<(Label, String)> = tenant.nodes().filter_map(label).collect();
        for (label, value) in labels {
            if let Some(value) = tenants::label(&value) {
                tenant.labels.insert(label, value.into());
            }
        }
        tenant
    }
}

/// What a directory on the path says by itself.
fn label(node: &Node) -> Option<(Label, String)> {
    let is_number = node.id.bytes().all(|byte| byte.is_ascii_digit());
    let label = match node.kind {
        Kind::Slurm if is_number => Label::SlurmJobId,
        Kind::Pod => Label::PodUid,
        Kind::Unit | Kind::UserUnit => Label::Unit,
        Kind::User => Label::User,
        _ => return None,
    };
    Some((label, node.id.to_string()))
}

/// `/user.slice/user-1000.slice`.
fn user_of(parts: &[&str], at: usize) -> Option<u32> {
    let slice = (at == 1 && parts[0] == "user.slice").then(|| parts[at])?;
    recognise::number(slice.strip_prefix("user-")?.strip_suffix(".slice")?)
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
