//! What one user may see of an interval: their own processes, and all else without a trace of whose it is.

use std::{collections::BTreeMap, sync::Arc};

use foldhash::HashMapExt;

use super::{Interval, MemoryReading, Process, ProcessId, Usage};

/// Stands for every process of the kernel. Pids of Linux have at most 22 bits.
const KERNEL: ProcessId = ProcessId {
    tgid: u32::MAX,
    start_ns: 0,
};

/// Stands for everybody else. Nothing is known of it.
const STRANGERS: ProcessId = ProcessId {
    tgid: u32::MAX - 1,
    start_ns: 0,
};

/// What stands for a process: itself, where it is the user's or dlpm.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Own,
    Kernel,
    Strangers,
}

impl Interval {
    /// The interval as the user with this real user id sees it. Energy, the machine's memory and all CPU time are in it:
    /// that of other users is one process without a name, parent, user or cgroup, and no path or tenant of theirs is left.
    /// A ledger of it in which the user's processes are listed is the same, row by row, as one of the whole interval.
    ///
    /// Memory of cgroups is left out, because it is not told how much of it is whose; DRAM is split by the memory of
    /// processes then.
    pub fn seen_by(&self, uid: u32) -> Self {
        let seen = |id: &ProcessId| {
            let process = self.processes.get(id);
            if id.tgid == self.self_tgid {
                Seen::Own
            } else if process.is_some_and(|process| process.kernel) {
                Seen::Kernel
            } else if process.is_some_and(|process| process.uid == Some(uid)) {
                Seen::Own
            } else {
                Seen::Strangers
            }
        };
        let mut narrow = Self {
            usage: Vec::new(),
            processes: foldhash::HashMap::new(),
            cgroups: std::collections::HashMap::new(),
            tenants: std::collections::HashMap::new(),
            process_tenants: foldhash::HashMap::new(),
            memory: BTreeMap::new(),
            cgroup_memory: BTreeMap::new(),
            gpus: Vec::new(),
            gpu_owners: BTreeMap::new(),
            cpus: self.cpus.clone(),
            zones: self.zones.clone(),
            events: self.events.clone(),
            machine_memory: self.machine_memory,
            ..*self
        };
        if !self.cgroup_memory.is_empty()
            && let Some(memory) = &mut narrow.machine_memory
        {
            memory.free_bytes = None;
        }
        let mut others: BTreeMap<(ProcessId, u32), Usage> = BTreeMap::new();
        for usage in &self.usage {
            let stands_for = match seen(&usage.process) {
                Seen::Own => {
                    self.show(usage.process, usage.cgroup_id, &mut narrow);
                    narrow.usage.push(*usage);
                    continue;
                }
                Seen::Kernel => KERNEL,
                Seen::Strangers => STRANGERS,
            };
            let sum = others.entry((stands_for, usage.cpu)).or_insert(Usage {
                process: stands_for,
                cpu: usage.cpu,
                ..Usage::default()
            });
            sum.ns = sum.ns.saturating_add(usage.ns);
            sum.shared_ns = sum.shared_ns.saturating_add(usage.shared_ns.min(usage.ns));
            sum.counts.add(&usage.counts);
        }
        narrow.usage.extend(others.into_values());
        for (&process, &(cgroup_id, reading)) in &self.memory {
            let stands_for = match seen(&process) {
                Seen::Own => {
                    self.show(process, cgroup_id, &mut narrow);
                    narrow.memory.insert(process, (cgroup_id, reading));
                    continue;
                }
                Seen::Kernel => KERNEL,
                Seen::Strangers => STRANGERS,
            };
            let (_, sum) = narrow.memory.entry(stands_for).or_insert((0, MemoryReading::default()));
            sum.rss_bytes = sum.rss_bytes.saturating_add(reading.resident_bytes());
        }
        self.narrow_gpus(seen, &mut narrow);
        let kernel = Process {
            kernel: true,
            ..Process::default()
        };
        narrow.processes.insert(KERNEL, Arc::new(kernel));
        narrow
    }

    /// Tells who a process is, where it was, and whose that is.
    fn show(&self, process: ProcessId, cgroup_id: u64, narrow: &mut Self) {
        if let Some(known) = self.processes.get(&process) {
            narrow.processes.entry(process).or_insert_with(|| known.clone());
        }
        if let Some(tenant) = self.process_tenants.get(&process) {
            narrow.process_tenants.entry(process).or_insert_with(|| tenant.clone());
        }
        if let Some(path) = self.cgroups.get(&cgroup_id) {
            narrow.cgroups.entry(cgroup_id).or_insert_with(|| path.clone());
            if let Some(tenant) = self.tenants.get(path) {
                narrow.tenants.entry(path.clone()).or_insert_with(|| tenant.clone());
            }
        }
    }

    /// Processes on GPUs: how many they are decides how a GPU is split, so each stays, but for who it is.
    fn narrow_gpus(&self, seen: impl Fn(&ProcessId) -> Seen, narrow: &mut Self) {
        let mut nameless = STRANGERS.tgid;
        for gpu in &self.gpus {
            let mut narrowed = gpu.clone();
            for process in &mut narrowed.processes {
                // As attribution has it, where nobody knows who it is.
                let unknown = ProcessId {
                    tgid: process.pid,
                    start_ns: 0,
                };
                let (owner, cgroup_id) = self.gpu_owners.get(&process.pid).copied().unwrap_or((unknown, 0));
                let stands_for = match seen(&owner) {
                    Seen::Own => {
                        self.show(owner, cgroup_id, narrow);
                        narrow.gpu_owners.insert(process.pid, (owner, cgroup_id));
                        continue;
                    }
                    Seen::Kernel => KERNEL,
                    Seen::Strangers => STRANGERS,
                };
                nameless -= 1;
                narrow.gpu_owners.insert(nameless, (stands_for, 0));
                process.pid = nameless;
                process.instances.clear();
            }
            narrow.gpus.push(narrowed);
        }
    }
}
