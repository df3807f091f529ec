//! Who the pids are that a GPU names.

use std::collections::{BTreeMap, HashMap};

use crate::interval::{GpuReading, Process, ProcessId, Usage};

/// What is known of a pid on a GPU.
#[derive(Clone, Debug)]
struct Owner {
    id: ProcessId,
    cgroup_id: u64,
    process: Process,
}

/// The processes on GPUs, also those that do not run on a CPU or have gone since.
#[derive(Debug, Default)]
pub struct GpuOwners {
    known: HashMap<u32, Owner>,
}

impl GpuOwners {
    /// The process of each pid in `readings`: its identity, and the cgroup (id) that it is in. A pid that nobody knows
    /// (of another pid namespace, or gone before it was seen) is left out.
    ///
    /// `alive` are the processes there are, `cgroup_of` asks for the cgroup of one that has not run.
    pub fn resolve<'a>(
        &mut self,
        readings: &[GpuReading],
        usage: &[Usage],
        named: impl Fn(&ProcessId) -> Option<Process>,
        alive: impl Iterator<Item = (&'a ProcessId, &'a Process)>,
        cgroup_of: impl Fn(u32) -> Option<u64>,
    ) -> BTreeMap<u32, (ProcessId, u64)> {
        let wanted: BTreeMap<u32, ()> = readings
            .iter()
            .flat_map(|gpu| gpu.processes.iter().map(|process| (process.pid, ())))
            .collect();
        self.known.retain(|pid, _| wanted.contains_key(pid));
        if wanted.is_empty() {
            return BTreeMap::new();
        }
        // Of several processes that had one pid the last one counts.
        for usage in usage.iter().filter(|usage| wanted.contains_key(&usage.process.tgid)) {
            let known = self.known.get(&usage.process.tgid);
            if known.is_none_or(|known| known.id.start_ns <= usage.process.start_ns) {
                let owner = Owner {
                    id: usage.process,
                    cgroup_id: usage.cgroup_id,
                    process: named(&usage.process).unwrap_or_default(),
                };
                self.known.insert(usage.process.tgid, owner);
            }
        }
        for (id, process) in alive.filter(|(id, _)| wanted.contains_key(&id.tgid)) {
            if self
                .known
                .get(&id.tgid)
                .is_none_or(|known| known.id.start_ns < id.start_ns)
            {
                let owner = Owner {
                    id: *id,
                    cgroup_id: cgroup_of(id.tgid).unwrap_or(0),
                    process: process.clone(),
                };
                self.known.insert(id.tgid, owner);
            }
        }
        self.known
            .iter()
            .map(|(pid, owner)| (*pid, (owner.id, owner.cgroup_id)))
            .collect()
    }

    /// The processes of the last [`GpuOwners::resolve`], as they were known then.
    pub fn processes(&self) -> impl Iterator<Item = (ProcessId, &Process)> {
        self.known.values().map(|owner| (owner.id, &owner.process))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::{GpuProcess, MeterSource};

    fn reading(pids: &[u32]) -> GpuReading {
        GpuReading {
            uuid: "GPU-0".into(),
            index: 0,
            name: String::new(),
            pci: String::new(),
            energy_uj: Ok(0),
            counter_uj: None,
            source: MeterSource::NvmlEnergy,
            read_at_ns: None,
            power_mw: None,
            utilization_percent: None,
            memory_used_bytes: None,
            memory_total_bytes: None,
            usage: crate::interval::GpuUsage::Sm,
            inside: None,
            mig: false,
            sm_time: Ok(()),
            lists: Ok(()),
            dropped_samples: 0,
            notes: Vec::new(),
            processes: pids
                .iter()
                .map(|pid| GpuProcess {
                    pid: *pid,
                    ..GpuProcess::default()
                })
                .collect(),
        }
    }

    fn id(tgid: u32, start_ns: u64) -> ProcessId {
        ProcessId { tgid, start_ns }
    }

    #[test]
    fn the_newest_process_of_a_pid_counts_and_is_kept_when_it_is_gone() {
        let mut owners = GpuOwners::default();
        let ran = |process, cgroup_id| Usage {
            process,
            cgroup_id,
            ..Usage::default()
        };
        let asleep = Process {
            comm: "sleep".into(),
            ..Process::default()
        };
        let usage = [ran(id(5, 20), 2), ran(id(5, 10), 1), ran(id(6, 1), 9)];
        let alive = [(id(7, 3), asleep.clone()), (id(5, 20), Process::default())];
        let resolved = owners.resolve(
            &[reading(&[5, 7]), reading(&[5, 8])],
            &usage,
            |_| None,
            alive.iter().map(|(id, process)| (id, process)),
            |pid| Some(u64::from(pid) * 100),
        );
        assert_eq!(resolved, [(5, (id(5, 20), 2)), (7, (id(7, 3), 700))].into());
        assert!(
            owners
                .processes()
                .any(|(found, process)| found == id(7, 3) && *process == asleep)
        );
        // It has exited, and its samples are still there.
        let resolved = owners.resolve(&[reading(&[7])], &[], |_| None, [].into_iter(), |_| None);
        assert_eq!(resolved, [(7, (id(7, 3), 700))].into());
        assert_eq!(
            owners.resolve(&[reading(&[])], &[], |_| None, [].into_iter(), |_| None),
            [].into()
        );
        assert_eq!(owners.processes().count(), 0);
    }
}
