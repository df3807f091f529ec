//! Which processes are listed by name.

use regex::Regex;

use crate::{
    interval::{Process, Trees},
    tenants::{Tenant, Wanted},
};

/// The filters of a trace. Values of one filter are alternatives, different filters narrow each other; without any
/// filter every process is listed.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Paths of cgroups from the root of the v2 tree (`/train.slice`), children included.
    pub cgroups: Vec<String>,
    /// Tenants: the values of `--job`, of `--container`, and so on, each a filter of its own.
    pub tenants: Vec<Vec<Wanted>>,
    /// Patterns that are found anywhere in the process's name now, or in its name at `exec`.
    pub comm: Vec<Regex>,
    /// Real user ids.
    pub uids: Vec<u32>,
    /// Only processes in one of these trees (`--pid`, `-- COMMAND`), if there are any.
    pub trees: Trees,
}

impl Selection {
    /// Whether anything can be left out.
    pub fn is_filtered(&self) -> bool {
        !self.cgroups.is_empty() || !self.tenants.is_empty() || self.is_filtered_by_process()
    }

    /// Whether a process of that tenant in the cgroup of that path is listed.
    pub fn matches(&self, process: &Process, cgroup: &str, tenant: Option<&Tenant>) -> bool {
        self.matches_place(cgroup, tenant)
            && (self.comm.is_empty()
                || self
                    .comm
                    .iter()
                    .any(|pattern| pattern.is_match(&process.comm) || pattern.is_match(&process.exec_comm)))
            && (self.uids.is_empty() || process.uid.is_some_and(|uid| self.uids.contains(&uid)))
            && (self.trees.is_empty() || process.trees.meets(self.trees))
    }

    /// Whether a process is listed of which only the cgroup is known: not if anything else would have to match.
    pub fn matches_unknown(&self, cgroup: &str, tenant: Option<&Tenant>) -> bool {
        !self.is_filtered_by_process() && self.matches_place(cgroup, tenant)
    }

    fn matches_place(&self, cgroup: &str, tenant: Option<&Tenant>) -> bool {
        let is_wanted =
            |wanted: &Vec<Wanted>| tenant.is_some_and(|tenant| wanted.iter().any(|one| one.matches(tenant)));
        self.matches_cgroup(cgroup) && self.tenants.iter().all(is_wanted)
    }

    fn is_filtered_by_process(&self) -> bool {
        !self.comm.is_empty() || !self.uids.is_empty() || !self.trees.is_empty()
    }

    fn matches_cgroup(&self, cgroup: &str) -> bool {
        self.cgroups.is_empty() || self.cgroups.iter().any(|root| is_at_or_below(cgroup, root))
    }
}

/// Whether `path` is `root` or below it, by whole components: `/a` holds `/a/b`, not `/ab`.
fn is_at_or_below(path: &str, root: &str) -> bool {
    let root = root.trim_end_matches('/');
    // The root of the tree also holds the cgroups whose path is not known.
    root.is_empty()
        || path
            .strip_prefix(root)
            .is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python() -> Process {
        Process {
            comm: "pt_main_thread".into(),
            exec_comm: "python3.11".into(),
            uid: Some(1000),
            ..Process::default()
        }
    }

    fn patterns(patterns: &[&str]) -> Vec<Regex> {
        patterns.iter().map(|pattern| Regex::new(pattern).unwrap()).collect()
    }

    #[test]
    fn no_filter_lists_everything() {
        let all = Selection::default();
        assert!(!all.is_filtered());
        assert!(all.matches(&Process::default(), "/", None));
        assert!(all.matches_unknown("cgroup:77", None));
    }

    #[test]
    fn cgroups_match_by_component_with_their_children() {
        let slice = Selection {
            cgroups: vec!["/train.slice".into(), "/b/".into()],
            ..Selection::default()
        };
        assert!(slice.is_filtered());
        for inside in ["/train.slice", "/train.slice/a", "/train.slice/a/b", "/b", "/b/c"] {
            assert!(slice.matches(&python(), inside, None), "{inside}");
            assert!(slice.matches_unknown(inside, None), "{inside}");
        }
        for outside in ["/", "/train.slicer", "/x/train.slice", "/bc", "cgroup:5"] {
            assert!(!slice.matches(&python(), outside, None), "{outside}");
        }
        let root = Selection {
            cgroups: vec!["/".into()],
            ..Selection::default()
        };
        assert!(
            root.matches(&python(), "/", None)
                && root.matches(&python(), "/a", None)
                && root.matches(&python(), "cgroup:5", None)
        );
    }

    #[test]
    fn a_pattern_finds_either_name() {
        for pattern in ["python", "^pt_", "on3"] {
            let by_name = Selection {
                comm: patterns(&[pattern]),
                ..Selection::default()
            };
            assert!(by_name.matches(&python(), "/", None), "{pattern}");
        }
        let other = Selection {
            comm: patterns(&["^main", "bash"]),
            ..Selection::default()
        };
        assert!(!other.matches(&python(), "/", None));
        // Even a pattern that the empty name matches: it is not known that this one has none.
        let any = Selection {
            comm: patterns(&[".*"]),
            ..Selection::default()
        };
        assert!(!any.matches_unknown("/", None));
    }

    #[test]
    fn filters_narrow_each_other_and_values_do_not() {
        let both = Selection {
            comm: patterns(&["nothing", "python"]),
            uids: vec![0, 1000],
            ..Selection::default()
        };
        assert!(both.matches(&python(), "/", None));
        assert!(
            !Selection {
                uids: vec![0],
                ..both.clone()
            }
            .matches(&python(), "/", None)
        );
        assert!(
            !Selection {
                trees: Trees::one(1),
                ..both.clone()
            }
            .matches(&python(), "/", None)
        );
        assert!(
            Selection {
                trees: Trees::one(1),
                ..both.clone()
            }
            .matches(
                &Process {
                    trees: Trees::one(0).and(Trees::one(1)),
                    ..python()
                },
                "/",
                None
            )
        );
        assert!(!both.matches(&Process { uid: None, ..python() }, "/", None));
    }
}
