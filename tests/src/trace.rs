//! A trace whose every interval is checked.

pub mod race;

use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    thread,
    time::Duration,
};

use crate::worker::Worker;
use dlpm::{
    interval::{Counts, Process, ProcessId, Usage},
    sources::{
        clock::monotonic_ns,
        cpu_time::{Batch, Config, CpuTime, Drained, Sealed, delete_from_hash, read_hash},
        processes::ProcessTable,
    },
};
use dlpm_common::{ProcessKey, ProcessRecord, maps};

/// CPU time and the processes that it belongs to, from the first seal on.
pub struct Trace {
    /// The source of CPU time.
    pub cpu_time: CpuTime,
    /// Who the processes are.
    pub table: ProcessTable,
    /// The map that the table reads, for looking behind it.
    processes: OwnedFd,
    /// Every interval so far.
    pub intervals: Vec<Drained>,
    /// The newest that was known of each process that ran.
    pub seen: HashMap<ProcessId, Process>,
    /// End of the newest interval of each CPU.
    ended: HashMap<u32, u64>,
    /// Readings with which the newest interval of each CPU ended.
    counted: HashMap<u32, Counts>,
    /// CPUs come and go during this trace: then an interval may begin later than the one before has ended.
    pub with_gaps: bool,
}

impl Trace {
    /// Starts, and begins the first interval.
    pub fn start(config: &Config) -> Self {
        let mut cpu_time = CpuTime::start(config).unwrap();
        let processes = cpu_time.map(maps::PROCESSES).unwrap().try_clone_to_owned().unwrap();
        let table = ProcessTable::new(&mut cpu_time, Path::new("/proc")).unwrap();
        // What lies between attaching and the first seal is thrown away, but for the ends.
        let sealed = cpu_time.seal().unwrap();
        let _ = cpu_time.drain(&sealed).unwrap();
        let ended = ends(&sealed);
        Self {
            cpu_time,
            table,
            processes,
            intervals: Vec::new(),
            seen: HashMap::new(),
            ended,
            counted: HashMap::new(),
            with_gaps: false,
        }
    }

    /// Ends an interval, checks it and keeps it.
    pub fn step(&mut self) -> &Drained {
        let sealed = self.cpu_time.seal().unwrap();
        let drained = self.cpu_time.drain(&sealed).unwrap();
        check_laws(&drained);
        for cpu in &drained.cpus {
            let Some(&ended) = self.ended.get(&cpu.cpu) else {
                continue;
            };
            if self.with_gaps {
                assert!(cpu.begin_ns >= ended, "{cpu:?} begins before {ended}");
            } else {
                assert_eq!(
                    cpu.begin_ns, ended,
                    "{cpu:?} does not begin where the interval before it ended"
                );
            }
        }
        for (cpu, counts) in drained.cpus.iter().filter_map(|cpu| Some((cpu.cpu, cpu.counts?))) {
            let before = self.counted.insert(cpu, counts.last);
            assert!(
                before.is_none_or(|before| before == counts.first),
                "{counts:?} of CPU {cpu} do not begin at {before:?}"
            );
        }
        self.ended.extend(ends(&sealed));
        let ran: HashSet<ProcessId> = drained.usage.iter().map(|usage| usage.process).collect();
        let mut ran: Vec<ProcessId> = ran.into_iter().collect();
        ran.sort_unstable_by_key(|process| process.start_ns);
        self.table.update(&self.cpu_time, &ran, monotonic_ns()).unwrap();
        for process in ran {
            if let Some(described) = self.table.get(&process) {
                self.seen.insert(process, described.as_ref().clone());
            }
        }
        self.intervals.push(drained);
        &self.intervals[self.intervals.len() - 1]
    }

    /// Waits and ends an interval, `count` times.
    pub fn steps(&mut self, count: usize, length: Duration) {
        for _ in 0..count {
            thread::sleep(length);
            self.step();
        }
    }

    /// Lets a worker do its work, in intervals of this length: the lines that it said.
    pub fn while_working(&mut self, worker: &mut Worker, length: Duration) -> Vec<String> {
        worker.go();
        let lines = thread::scope(|scope| {
            let working = scope.spawn(|| worker.lines_until_done());
            while !working.is_finished() {
                self.steps(1, length);
            }
            working.join().unwrap()
        });
        self.step();
        lines
    }

    /// All records so far.
    pub fn usage(&self) -> impl Iterator<Item = &Usage> {
        self.intervals.iter().flat_map(|drained| &drained.usage)
    }

    /// All records of a thread group so far.
    pub fn usage_of(&self, tgid: u32) -> impl Iterator<Item = &Usage> {
        self.usage().filter(move |usage| usage.process.tgid == tgid)
    }

    /// Processes that ran and whose name is one of those wanted.
    pub fn named(&self, wanted: impl Fn(&str) -> bool) -> HashMap<ProcessId, &Process> {
        self.seen
            .iter()
            .filter(|(_, process)| wanted(&process.comm))
            .map(|(&id, process)| (id, process))
            .collect()
    }

    /// Takes entries out of the kernel side's map of processes: how many there were.
    pub fn delete_kernel_processes(&self, keys: &[ProcessKey]) -> u64 {
        delete_from_hash(self.processes.as_fd(), keys).unwrap()
    }

    /// What the kernel side's map of processes holds.
    pub fn kernel_processes(&self) -> Vec<(ProcessKey, ProcessRecord)> {
        read_hash(self.processes.as_fd(), Batch::Lookup).unwrap()
    }
}

/// The time law on every CPU, from the records themselves and in integers.
pub fn check_laws(drained: &Drained) {
    for cpu in &drained.cpus {
        assert!(cpu.time_law_holds(), "{cpu:?}");
        let records = drained.usage.iter().filter(|usage| usage.cpu == cpu.cpu);
        assert_eq!(
            cpu.busy_ns,
            records.clone().map(|usage| usage.ns).sum::<u64>(),
            "{cpu:?}"
        );
        if let Some(counts) = &cpu.counts {
            assert_eq!(counts.law_broken(), None, "{cpu:?}");
            let mut busy = Counts::default();
            records.for_each(|usage| busy.add(&usage.counts));
            assert_eq!(counts.busy, busy, "{cpu:?}");
        }
    }
    for usage in &drained.usage {
        assert!(usage.shared_ns <= usage.ns, "{usage:?}");
        assert!(
            drained.cpus.iter().any(|cpu| cpu.cpu == usage.cpu),
            "{usage:?} of a CPU that was off"
        );
    }
}

fn ends(sealed: &Sealed) -> HashMap<u32, u64> {
    sealed.cpus.iter().map(|cpu| (cpu.cpu, cpu.end_ns())).collect()
}
