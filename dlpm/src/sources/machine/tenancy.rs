//! What a machine says of cgroups and whose they are: their names, those that are new, and whose memory is read.

use std::{collections::HashMap, path::Path, sync::Arc};

use super::Machine;
use crate::{
    interval::{Process, ProcessId, Usage},
    sources::cpu_time::CpuTimeError,
    tenants::{Node, Tenant},
};

/// Whether a process of that tenant in the cgroup with that path is listed.
pub type ListedTenant<'a> = &'a dyn Fn(&Process, &str, &Tenant) -> bool;

/// New cgroups that are kept for whoever asks for them; of the others tenants are known when their processes run.
const MOST_CREATED: usize = 20_000;

impl Machine {
    /// Says whose memory is to be read: all that `listed` accepts; with `everyone` that of the largest consumers, if no more
    /// is asked for, or else of all, but not in cgroups whose memory is read as a whole.
    pub fn watch_memory(&mut self, listed: Option<ListedTenant<'_>>, everyone: bool) {
        let tenants = std::cell::RefCell::new(&mut self.tenants);
        let tenant_memory = self.tenant_memory.as_ref();
        let is_known = |cgroup: &str| tenant_memory.is_some_and(|tenants| tenants.covers(cgroup));
        let with_tenant = |id: ProcessId, process: &Process, cgroup: &str| {
            let Some(listed) = listed else { return true };
            let mut tenants = tenants.borrow_mut();
            let tenant = tenants.of_path(cgroup);
            let own = tenants.of_process(id, process, &tenant);
            listed(process, cgroup, &own.unwrap_or(tenant)) || everyone && !is_known(cgroup)
        };
        if listed.is_some() {
            self.memory
                .choose(&self.processes, &mut self.cgroups, Some(&with_tenant), &|_| false);
        } else {
            self.memory.choose(&self.processes, &mut self.cgroups, None, &is_known);
        }
    }

    /// Looks whether cgroups were made since, so that their names are read before they are gone.
    ///
    /// # Errors
    ///
    /// Where the kernel side cannot be read.
    pub fn see_new_cgroups(&mut self) -> Result<(), CpuTimeError> {
        for (id, path) in self.cpu_time.new_cgroups()? {
            if let Some(path) = path
                && let Some(path) = self.cgroups.learn(id, &path)
            {
                self.tenants.created(&path);
                if let Some(created) = &mut self.created
                    && created.len() < MOST_CREATED
                {
                    created.push(path);
                }
            }
        }
        Ok(())
    }

    /// Paths and tenants of the cgroups that were made since the last call, before anything in them has run. The first
    /// call gives those that exist.
    pub fn new_tenants(&mut self) -> Vec<(String, Arc<Tenant>)> {
        let paths = match self.created.replace(Vec::new()) {
            Some(created) => created,
            None => self.cgroups.paths(MOST_CREATED).0,
        };
        let mut new = Vec::with_capacity(paths.len());
        for path in &paths {
            self.tenants.of_path(path);
        }
        self.tenants.settle();
        for path in paths {
            let tenant = self.tenants.of_path(&path);
            new.push((path, tenant));
        }
        new
    }

    /// Where the tree of cgroups is mounted.
    pub fn cgroup_mount(&self) -> &Path {
        self.cgroups.mount_point()
    }

    /// A tenant has ended: what it held is nobody's from the next interval on.
    pub fn forget_memory(&mut self, tenant: &Node) {
        let tenants = &self.tenants;
        if let Some(memory) = &mut self.tenant_memory {
            memory.forget(|path| tenants.known(path).is_some_and(|known| known.node == *tenant));
        }
    }

    pub(super) fn name_cgroups(&mut self, usage: &[Usage]) -> Result<HashMap<u64, String>, CpuTimeError> {
        self.cgroups.begin_interval();
        self.tenants.begin_interval();
        self.see_new_cgroups()?;
        // Neighbours are mostly in one cgroup.
        let mut ids: Vec<u64> = usage.iter().map(|usage| usage.cgroup_id).collect();
        ids.dedup();
        Ok(self.name_more_cgroups(HashMap::new(), ids.into_iter()))
    }

    pub(super) fn name_more_cgroups(
        &mut self,
        mut names: HashMap<u64, String>,
        ids: impl Iterator<Item = u64>,
    ) -> HashMap<u64, String> {
        for id in ids {
            if !names.contains_key(&id)
                && let Some(path) = self.cgroups.path_of(id)
            {
                names.insert(id, path);
            }
        }
        names
    }
}
