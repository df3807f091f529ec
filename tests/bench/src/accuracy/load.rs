//! Five tenants that share a machine.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::super::Programs;
use dlpm_tests::{cgroup::Cgroup, worker::Worker};

const BURST_THREADS: u32 = 20;
const BURST_US: u32 = 2_000;
const PAUSE_US: u32 = 150_000;

/// Short processes for each file that is compiled, so that both take about as long.
const PROCESSES_PER_FILE: u32 = 40;

/// Longer than any run.
const END_MS: u32 = 3_600_000;

/// What the tenants do, each in a cgroup of its own.
pub struct Load {
    /// Short names, for cgroups and the plot.
    pub names: Vec<&'static str>,
    /// What the tables call them.
    pub what: Vec<String>,
    processes: u32,
    files: u32,
}

impl Load {
    /// With so many short processes. Without a C compiler there is no compile job, which is said.
    pub fn new(processes: u32) -> Self {
        let files = (processes / PROCESSES_PER_FILE).max(1);
        let mut tenants = vec![
            ("spinner", "one process that spins".to_owned()),
            ("storm", format!("{processes} processes of 1 to 20 ms")),
            ("bursts", format!("{BURST_THREADS} threads in bursts of 2 ms")),
            ("ping-pong", "a pair of processes that plays ping-pong".to_owned()),
        ];
        if has_compiler() {
            tenants.push(("compiler", format!("{files} files compiled, one after another")));
        } else {
            eprintln!("left out: the compile job, there is no C compiler (`cc`)");
        }
        let (names, what) = tenants.into_iter().unzip();
        Self {
            names,
            what,
            processes,
            files,
        }
    }

    /// The tenants work at the same time, in the cgroups of their names; the spinner, the threads and the pair go on
    /// until the others are done and `looked` has returned.
    ///
    /// # Errors
    ///
    /// Where a cgroup is missing, or `looked` fails.
    pub fn run<T>(&self, programs: &Programs, groups: &[Cgroup], looked: impl FnOnce() -> Result<T>) -> Result<T> {
        if groups.len() != self.names.len() {
            bail!("{} cgroups for {} tenants", groups.len(), self.names.len());
        }
        let program = programs
            .worker
            .to_str()
            .context("the path of dlpm-worker is not UTF-8")?;
        let mut workers: Vec<Worker> = self
            .names
            .iter()
            .zip(groups)
            .map(|(name, group)| {
                let arguments = self.arguments(name);
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                // It waits for `go`, so all but some microseconds of its work is done in the group.
                let worker = Worker::start(program, &arguments);
                group.add(worker.pid());
                worker
            })
            .collect();
        workers.iter_mut().for_each(Worker::go);
        for (name, worker) in self.names.iter().zip(&mut workers) {
            if matches!(*name, "storm" | "compiler") {
                worker.lines_until_done();
            }
        }
        let result = looked();
        // Dropped, they are killed and waited for.
        drop(workers);
        result
    }

    fn arguments(&self, name: &str) -> Vec<String> {
        let numbers = |task: &str, numbers: &[u32]| {
            let numbers = numbers.iter().map(u32::to_string);
            [task.to_owned()].into_iter().chain(numbers).collect()
        };
        match name {
            "spinner" => numbers("spin", &[0]),
            "storm" => numbers("processes", &[self.processes, 1_000, 20_000]),
            "bursts" => numbers("bursts", &[BURST_THREADS, BURST_US, PAUSE_US, END_MS]),
            "ping-pong" => numbers("pair", &[]),
            _ => numbers("compile", &[self.files]),
        }
    }
}

fn has_compiler() -> bool {
    let output = Command::new("cc").arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}
