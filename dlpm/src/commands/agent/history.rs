//! What every tenant used, a roll-up after another, in the files of a log with a budget.

use std::time::Duration;

use crate::{
    attribution::{Options, ledger::Ledger},
    causes::told,
    cli::{AgentArgs, IdleChoice},
    commands::local_timezone,
    interval::Identity,
    log::rotation::{Budget, Limit},
    sinks::{
        folder::FolderMode,
        metadata::Metadata,
        segments::{Encoding, Segmenter},
        terminal::say,
        writer::{LogOptions, LogWriter},
    },
    sources::{clock::unix_ns, cpu_model::cpu_model, host::boot_id},
    totals::rollup::Rollups,
};

/// Name of its folder in the agent's.
pub const FOLDER: &str = "history";

/// Bytes of lines that wait for the disk at most. What finds no room is told by its sums.
const BACKLOG_BYTES: usize = 8 << 20;

/// Into so many files the budget goes at least: one of them is deleted at a time.
const FILES: u64 = 16;

/// The largest file, before it is compressed.
const LARGEST_BYTES: u64 = 16 << 20;

/// The log of an agent.
pub struct History {
    rollups: Rollups,
    segmenter: Segmenter,
    writer: LogWriter,
    metadata: Metadata,
    /// The user was told that lines wait for the disk.
    is_told: bool,
}

impl History {
    /// Goes on with the history of an earlier agent. `None` where none is wanted, or, after a warning, where it cannot be
    /// written: counters do not depend on it.
    pub fn start(args: &AgentArgs, options: &Options, identity: Identity) -> Option<Self> {
        if args.history_size == 0 {
            return None;
        }
        let length_ns = u64::try_from(args.history_interval.as_nanos()).unwrap_or(u64::MAX);
        let metadata = metadata(args, options, identity, length_ns);
        let folder = args.state_dir.join(FOLDER);
        let writer = LogWriter::start(LogOptions {
            folder: folder.clone(),
            mode: FolderMode::Append,
            identity: None,
            metadata: metadata.clone(),
            backlog_bytes: BACKLOG_BYTES,
            rotates: true,
            budget: Some(Budget {
                bytes: args.history_size,
                age: Duration::from_secs(u64::from(args.history_days) * 24 * 3600),
            }),
            listens: false,
        });
        let writer = match writer {
            Ok(writer) => writer,
            Err(error) => {
                say(&format!(
                    "warning: no history is written to {}: {}",
                    folder.display(),
                    told(&error)
                ));
                return None;
            }
        };
        for note in writer.notes() {
            say(&format!("note: {}: {note}", folder.display()));
        }
        let encoding = Encoding {
            identity,
            aliases: false,
            timezone: metadata.timezone.clone(),
        };
        let limit = Limit::Bytes((args.history_size / FILES).min(LARGEST_BYTES));
        Some(Self {
            rollups: Rollups::new(length_ns),
            segmenter: Segmenter::new(encoding).rotating(Some(limit)),
            writer,
            metadata,
            is_told: false,
        })
    }

    /// Adds the next ledger.
    pub fn add(&mut self, ledger: &Ledger) {
        for rollup in self.rollups.add(ledger) {
            self.write(&rollup);
        }
    }

    fn write(&mut self, rollup: &Ledger) {
        match self.segmenter.next(rollup) {
            Ok(lines) => self.writer.write(lines),
            Err(error) => log::warn!("a roll-up cannot be written as JSON: {error}"),
        }
        let blocked = self.writer.status().blocked;
        if let Some(blocked) = blocked.as_ref().filter(|_| !self.is_told) {
            say(&format!(
                "warning: the history waits for the disk ({}): {}",
                blocked.error,
                blocked.outlook()
            ));
        }
        self.is_told = blocked.is_some();
    }

    /// Writes what is open, for at most `patience`.
    pub fn finish(mut self, patience: Duration) {
        if let Some(rollup) = self.rollups.end() {
            self.write(&rollup);
        }
        if let Ok(lines) = self.segmenter.end() {
            self.writer.write(lines);
        }
        self.metadata.end_unix_ns = Some(unix_ns());
        for note in self.writer.finish(self.metadata, patience).notes(false) {
            say(&format!("warning: the history: {note}"));
        }
    }
}

fn metadata(args: &AgentArgs, options: &Options, identity: Identity, interval_ns: u64) -> Metadata {
    let procfs = &args.machine.roots.procfs;
    let system = rustix::system::uname();
    Metadata {
        description: Some("history of dlpm agent".to_owned()),
        start_unix_ns: unix_ns(),
        end_unix_ns: None,
        node_id: system.nodename().to_string_lossy().into_owned(),
        command_line: std::env::args_os()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect(),
        listed: None,
        interval_ns,
        cpu_model: cpu_model(procfs),
        gpus: Vec::new(),
        kernel: system.release().to_string_lossy().into_owned(),
        boot_id: boot_id(procfs),
        domains: Vec::new(),
        identity,
        idle_policy: options.idle_policy,
        idle_policy_by: match args.machine.idle_policy {
            IdleChoice::Auto => "auto",
            IdleChoice::Named(_) => "user",
        },
        smt_weight_permille: options.smt_weight_permille,
        idle_floors_mw: options.idle_floors_mw.clone(),
        notes: Vec::new(),
        measuring_cost: None,
        timezone: local_timezone().clone(),
    }
}
