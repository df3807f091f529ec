//! Who the processes are: names, parents and users, as the kernel side recorded them.
//!
//! The kernel writes an entry at fork and keeps it up to date at exec, rename and exit. Here it is looked up for the
//! processes that ran, so that the cost of an interval grows with those and not with the ones that exist. An entry is
//! deleted when the process is gone and its last interval has been drained.

mod changes;
mod entry;
mod known;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::maps::{HashMap as KernelMap, MapData};
use dlpm_common::{Counter, ProcessKey, ProcessRecord, maps};
use foldhash::{HashMap, HashMapExt};
use rustix::time::ClockId;

use changes::Changes;
use entry::{executable_name, id, key, parent_of, text};
use known::Known;

use crate::{
    interval::{Process, ProcessId, Trees},
    sources::{
        clock::clock_ns,
        cpu_time::{Batch, CpuTime, CpuTimeError, Identity, delete_from_hash, read_hash},
        proc_fs,
    },
};

/// Above this many look-ups, reading the whole map at once may be cheaper: a third per entry, when measured.
const BATCH_FROM: usize = 300;
const BATCH_ADVANTAGE: usize = 3;

/// How long an entry stays after the exit. A task runs for a while after its exit hook (83 µs on average), longer where
/// it is preempted.
const KEEP_EXITED_NS: u64 = 2_000_000_000;

/// kthreadd.
const KTHREADD: u32 = 2;

/// What of a root and its descendants is in trees.
#[derive(Clone, Copy, Debug, Default)]
pub struct Branch {
    /// Trees that it is in itself.
    itself: Trees,
    /// Trees that those are in that it forks.
    forked: Trees,
}

impl Branch {
    /// A process and all its descendants are this tree.
    pub fn whole(tree: u8) -> Self {
        Self {
            itself: Trees::one(tree),
            forked: Trees::one(tree),
        }
    }

    /// Its descendants are, and it is not.
    pub fn descendants(tree: u8) -> Self {
        Self {
            itself: Trees::default(),
            forked: Trees::one(tree),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            itself: self.itself.and(other.itself),
            forked: self.forked.and(other.forked),
        }
    }

    fn without(self, trees: Trees) -> Self {
        Self {
            itself: self.itself.without(trees),
            forked: self.forked.without(trees),
        }
    }

    fn is_empty(self) -> bool {
        self.itself.is_empty() && self.forked.is_empty()
    }
}

/// Every process that ran since the start, until it is gone.
pub struct ProcessTable {
    kernel: KernelMap<MapData, ProcessKey, ProcessRecord>,
    /// The same map, for reading it in batches.
    kernel_fd: OwnedFd,
    changes: Changes,
    identity: Identity,
    procfs: PathBuf,
    known: HashMap<ProcessId, Known>,
    /// Exited, entry still there.
    leaving: Vec<ProcessId>,
    /// The roots of trees, by thread group id and start time in clock ticks.
    roots: HashMap<(u32, u64), Branch>,
    generation: u64,
    /// CLOCK_BOOTTIME, as start times have it. Every fork and exec since then was seen; [`u64::MAX`] if hooks are missing.
    began_ns: u64,
    deleted: u64,
    nameless: u64,
}

impl ProcessTable {
    /// Takes over the kernel's table, with the processes that the task iterator has put there.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn new(cpu_time: &mut CpuTime, procfs: &Path) -> Result<Self, CpuTimeError> {
        let (identity, _) = cpu_time.identity();
        let kernel_fd = cpu_time
            .map(maps::PROCESSES)?
            .try_clone_to_owned()
            .map_err(unreadable)?;
        let entries = read_hash(kernel_fd.as_fd(), Batch::Lookup).map_err(unreadable)?;
        let began_ns = if cpu_time.hooks().iter().all(|hook| hook.state.is_ok()) {
            clock_ns(ClockId::Boottime)
        } else {
            u64::MAX
        };
        let changes = Changes::new(cpu_time)?;
        let kernel = KernelMap::try_from(cpu_time.take_map(maps::PROCESSES)?).map_err(|_| CpuTimeError::NotBuilt)?;
        let mut table = Self {
            kernel,
            kernel_fd,
            changes,
            identity,
            procfs: procfs.to_owned(),
            known: HashMap::new(),
            leaving: Vec::new(),
            roots: HashMap::new(),
            generation: 0,
            began_ns,
            deleted: 0,
            nameless: 0,
        };
        let entries: HashMap<ProcessKey, ProcessRecord> = entries.into_iter().collect();
        for (&key, &record) in &entries {
            if !table.known.contains_key(&id(key)) {
                table.learn(table.line(id(key), record, |key| entries.get(&key).copied()));
            }
        }
        Ok(table)
    }

    /// Follows a process or its descendants from now on. `None`: there is no such process.
    pub fn add_root(&mut self, tgid: u32, branch: Branch) -> Option<()> {
        let start_ticks = proc_fs::start_ticks(&self.procfs, tgid)?;
        let root = self.roots.entry((tgid, start_ticks)).or_default();
        *root = root.and(branch);
        // What descends from it already. There can be thousands of processes and hundreds of recordings a second, so
        // each process is looked at once.
        let mut children: HashMap<ProcessId, Vec<ProcessId>> = HashMap::with_capacity(self.known.len());
        for (&id, known) in &self.known {
            if let Some(parent) = known.process.parent {
                children.entry(parent).or_default().push(id);
            }
        }
        let is_root = |id: &&ProcessId| id.tgid == tgid && proc_fs::ticks_of(id.start_ns) == start_ticks;
        let mut next: Vec<ProcessId> = children.keys().filter(is_root).copied().collect();
        while let Some(parent) = next.pop() {
            // Taken out, so that a circle, which no kernel has, would end.
            for child in children.remove(&parent).unwrap_or_default() {
                self.put_into(child, branch.forked);
                next.push(child);
            }
        }
        let roots: Vec<ProcessId> = self.known.keys().filter(is_root).copied().collect();
        for root in roots {
            self.put_into(root, branch.itself);
        }
        Some(())
    }

    /// A process is in these trees, too.
    fn put_into(&mut self, id: ProcessId, trees: Trees) {
        if let Some(known) = self.known.get_mut(&id)
            && !trees.without(known.process.trees).is_empty()
        {
            let process = Arc::make_mut(&mut known.process);
            process.trees = process.trees.and(trees);
        }
    }

    /// Follows a tree no longer: its number can be another's.
    pub fn forget_tree(&mut self, tree: u8) {
        let tree = Trees::one(tree);
        self.roots.retain(|_, root| {
            *root = root.without(tree);
            !root.is_empty()
        });
        for known in self.known.values_mut() {
            if known.process.trees.meets(tree) {
                let process = Arc::make_mut(&mut known.process);
                process.trees = process.trees.without(tree);
            }
        }
    }

    /// Looks up the processes that ran and are new, and those that have changed; call once per interval, after the drain.
    /// Parents come first in `ran` (sort by start time): a child without an entry takes from its parent what `/proc` does
    /// not tell.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn update(&mut self, cpu_time: &CpuTime, ran: &[ProcessId], now_ns: u64) -> Result<(), CpuTimeError> {
        self.generation += 1;
        let changed = self.changes.take(cpu_time);
        let mut asked: Vec<ProcessId> = Vec::new();
        for &process in ran {
            if !self.runs_again(process) || changed.is_none() {
                asked.push(process);
            }
        }
        // A process may have changed that has not run in this interval: it began to in the one that is open.
        let changed = changed.into_iter().flatten();
        asked.extend(changed.filter(|process| self.known.contains_key(process)));
        self.look_up(cpu_time, &asked)?;
        self.forget_exited(now_ns);
        Ok(())
    }

    /// Asks the kernel for the entries of these.
    fn look_up(&mut self, cpu_time: &CpuTime, asked: &[ProcessId]) -> Result<(), CpuTimeError> {
        let entries = cpu_time
            .counter(Counter::ProcessesInserted)
            .saturating_sub(self.deleted);
        let entries = usize::try_from(entries).unwrap_or(usize::MAX);
        let all = if asked.len() > BATCH_FROM && asked.len() * BATCH_ADVANTAGE > entries {
            let all: Vec<(ProcessKey, ProcessRecord)> =
                read_hash(self.kernel_fd.as_fd(), Batch::Lookup).map_err(unreadable)?;
            Some(all.into_iter().collect::<HashMap<_, _>>())
        } else {
            None
        };
        for &process in asked {
            let key = key(process);
            let record = match &all {
                // An entry that moved while the map was read may be missing: ask again for that one.
                Some(all) => all.get(&key).copied().or_else(|| self.kernel.get(&key, 0).ok()),
                None => self.kernel.get(&key, 0).ok(),
            };
            match record {
                Some(record) => self.see(process, record),
                None => self.see_without_record(process),
            }
        }
        Ok(())
    }

    /// Looks up a process; `None` if neither a hook nor `/proc` has reported it.
    pub fn get(&self, process: &ProcessId) -> Option<&Arc<Process>> {
        self.known.get(process).map(|known| &known.process)
    }

    /// Processes that are there, as far as they have been seen.
    pub fn alive(&self) -> impl Iterator<Item = (&ProcessId, &Process)> {
        self.known
            .iter()
            .filter(|(_, known)| !known.process.exited)
            .map(|(id, known)| (id, known.process.as_ref()))
    }

    /// Processes that ran and have no name: they were gone before anybody could ask.
    pub fn nameless(&self) -> u64 {
        self.nameless
    }

    /// Looks for processes that went without a word, where an exit hook is missing, was left out, or could not find
    /// its entry; costs a look at `/proc` for each process that is known.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn sweep(&mut self, now_ns: u64) -> Result<(), CpuTimeError> {
        let entries: Vec<(ProcessKey, ProcessRecord)> =
            read_hash(self.kernel_fd.as_fd(), Batch::Lookup).map_err(unreadable)?;
        for (key, record) in entries {
            if !self.known.contains_key(&id(key)) {
                self.see(id(key), record);
            }
        }
        let gone: Vec<_> = self
            .alive()
            .map(|(&id, _)| id)
            .filter(|id| !self.is_there(*id))
            .collect();
        for process in gone {
            if let Some(known) = self.known.get_mut(&process) {
                Arc::make_mut(&mut known.process).exited = true;
                known.record.exit_ns = now_ns;
                self.leaving.push(process);
            }
        }
        Ok(())
    }

    fn is_there(&self, process: ProcessId) -> bool {
        proc_fs::start_ticks(&self.procfs, process.tgid)
            .is_some_and(|ticks| process.start_ns == 0 || ticks == proc_fs::ticks_of(process.start_ns))
    }

    /// Notes that a process has run, if it is known.
    fn runs_again(&mut self, process: ProcessId) -> bool {
        let Some(known) = self.known.get_mut(&process) else {
            return false;
        };
        known.runs_again(process, self.generation, &self.procfs);
        true
    }

    /// A process with the kernel's entry of it.
    fn see(&mut self, process: ProcessId, record: ProcessRecord) {
        if let Some(known) = self.known.get_mut(&process) {
            if known.change(record) {
                self.leaving.push(process);
            }
            return;
        }
        self.learn(self.line(process, record, |key| self.kernel.get(&key, 0).ok()));
    }

    /// A process that is not known yet, and those of its ancestors that are not (they did not run lately).
    fn line(
        &self,
        process: ProcessId,
        record: ProcessRecord,
        entry: impl Fn(ProcessKey) -> Option<ProcessRecord>,
    ) -> Vec<(ProcessId, ProcessRecord)> {
        let mut line = vec![(process, record)];
        let mut parent = parent_of(&record);
        while let Some(ancestor) = parent.filter(|ancestor| !self.known.contains_key(ancestor)) {
            // An entry that names its own descendant as its parent would go round for ever.
            let Some(record) = entry(key(ancestor)).filter(|_| line.iter().all(|(id, _)| *id != ancestor)) else {
                break;
            };
            line.push((ancestor, record));
            parent = parent_of(&record);
        }
        line
    }

    /// Adds a line of ancestors, the oldest first, so that each inherits from its parent.
    fn learn(&mut self, line: Vec<(ProcessId, ProcessRecord)>) {
        for (process, record) in line.into_iter().rev() {
            let described = self.describe(process, &record);
            self.insert(process, record, described);
            if record.exit_ns != 0 {
                self.leaving.push(process);
            }
        }
    }

    fn insert(&mut self, process: ProcessId, record: ProcessRecord, described: Process) {
        let known = Known::new(process, record, described, self.generation);
        self.known.insert(process, known);
    }

    fn describe(&self, process: ProcessId, record: &ProcessRecord) -> Process {
        let parent = parent_of(record);
        let forked_by = parent.and_then(|parent| self.known.get(&parent));
        let is_listed = |record: &ProcessRecord| record.flags & ProcessRecord::LISTED != 0;
        let exec_comm = if !is_listed(record) {
            text(&record.exec_comm)
        } else if process.start_ns > self.began_ns
            && let Some(forked_by) = forked_by.filter(|known| is_listed(&known.record))
        {
            // Neither it nor its parent has called exec since.
            forked_by.process.exec_comm.clone()
        } else {
            // It called exec before the trace: the file that it runs tells what it was called then.
            executable_name(&self.procfs, process)
                .or_else(|| forked_by.map(|known| known.process.exec_comm.clone()))
                .unwrap_or_else(|| text(&record.exec_comm))
        };
        Process {
            parent,
            comm: text(&record.comm),
            exec_comm,
            uid: Some(record.uid),
            trees: self.trees_at(process, forked_by.map(|known| known.process.trees), parent),
            kernel: process.tgid == KTHREADD
                || parent.is_some_and(|parent| parent.tgid == KTHREADD)
                || forked_by.is_some_and(|known| known.process.kernel),
            exited: record.exit_ns != 0,
        }
    }

    /// A process that ran and has no entry: the map is full, or there are no hooks. Then `/proc` tells, if it still can;
    /// again each time where a thread group id may have become another process.
    fn see_without_record(&mut self, process: ProcessId) {
        let known = self.known.contains_key(&process);
        if known && self.identity == Identity::StartTime {
            return;
        }
        let entry = proc_fs::read_one(&self.procfs, process.tgid)
            .filter(|entry| process.start_ns == 0 || entry.start_ticks == proc_fs::ticks_of(process.start_ns));
        let Some(entry) = entry else {
            self.nameless += u64::from(!known);
            return;
        };
        let parent = self.newest(entry.parent_tgid);
        let forked_by = parent.and_then(|parent| self.known.get(&parent));
        let described = Process {
            parent,
            exec_comm: executable_name(&self.procfs, process).unwrap_or_else(|| entry.comm.as_str().into()),
            comm: entry.comm.into(),
            uid: entry.uid,
            trees: {
                let root = self.roots.get(&(process.tgid, entry.start_ticks));
                let inherited = self.inherited(forked_by.map(|known| known.process.trees), parent);
                root.map_or(inherited, |root| inherited.and(root.itself))
            },
            kernel: process.tgid == KTHREADD
                || entry.parent_tgid == KTHREADD
                || forked_by.is_some_and(|known| known.process.kernel),
            exited: false,
        };
        self.insert(process, ProcessRecord::default(), described);
    }

    /// The process that has a thread group id now, as far as it is known.
    fn newest(&self, tgid: u32) -> Option<ProcessId> {
        let candidates = self.known.keys().filter(|id| id.tgid == tgid);
        candidates.max_by_key(|id| id.start_ns).copied()
    }

    fn root(&self, process: ProcessId) -> Option<&Branch> {
        self.roots.get(&(process.tgid, proc_fs::ticks_of(process.start_ns)))
    }

    /// Trees of a process, of which those of its parent are known.
    fn trees_at(&self, process: ProcessId, of_parent: Option<Trees>, parent: Option<ProcessId>) -> Trees {
        let inherited = self.inherited(of_parent, parent);
        self.root(process).map_or(inherited, |root| inherited.and(root.itself))
    }

    /// What a parent hands on.
    fn inherited(&self, of_parent: Option<Trees>, parent: Option<ProcessId>) -> Trees {
        let forked = parent.and_then(|parent| self.root(parent)).map(|root| root.forked);
        of_parent.unwrap_or_default().and(forked.unwrap_or_default())
    }

    /// Deletes the entries of processes whose last interval has been drained.
    fn forget_exited(&mut self, now_ns: u64) {
        let generation = self.generation;
        let known = &mut self.known;
        let mut gone = Vec::new();
        self.leaving.retain(|process| {
            let Some(entry) = known.get(process) else { return false };
            if entry.ran >= generation || now_ns.saturating_sub(entry.record.exit_ns) < KEEP_EXITED_NS {
                return true;
            }
            known.remove(process);
            gone.push(key(*process));
            false
        });
        match delete_from_hash(self.kernel_fd.as_fd(), &gone) {
            Ok(deleted) => self.deleted += deleted,
            Err(error) => log::warn!("entries of up to {} processes stay in the map: {error}", gone.len()),
        }
    }
}

fn unreadable(source: io::Error) -> CpuTimeError {
    CpuTimeError::Map {
        map: maps::PROCESSES,
        source,
    }
}
