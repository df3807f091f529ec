//! One trace while it runs: an interval from the sources, through attribution, to the sinks.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use aya_log::EbpfLogger;
use tokio::process::Child;

use super::setup::Plan;
use crate::{
    attribution::{Options, attribute, energy_tree::Carries, ledger::Ledger},
    commands::{progress::Progress, say},
    sinks::{
        measuring_cost::MeasuringCost,
        metadata::{Domain, Metadata},
        segments::{Encoding, Segmenter},
        summary::{self, SummaryOptions},
        totals::Totals,
        writer::{BACKLOG_BYTES, Identity, LogOptions, LogWriter, Report},
    },
    sources::{calibration::cpu_model, machine::Machine},
};

/// How long the end of a trace waits for a full disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is chosen anew whose memory is read, at most.
const CHOOSE_EVERY: Duration = Duration::from_secs(1);

/// A running trace.
pub struct Engine {
    machine: Machine,
    options: Options,
    carries: Carries,
    segmenter: Segmenter,
    /// `None` once it has finished.
    writer: Option<LogWriter>,
    metadata: Metadata,
    totals: Totals,
    progress: Progress,
    notes: Vec<String>,
    chosen: Option<Instant>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    folder: PathBuf,
    quiet: bool,
    has_command: bool,
    warned_lost: bool,
    warned_disk: bool,
    /// GPUs that have not answered since they were warned of.
    silent_gpus: BTreeSet<String>,
}

impl Engine {
    /// Starts the sources, then opens the log.
    ///
    /// # Errors
    ///
    /// Where there is no CPU time, no such process, or nowhere to write.
    pub fn start(plan: Plan) -> Result<Self> {
        let mut machine = Machine::start(&plan.machine, plan.cgroups, plan.meter, plan.gpus)?;
        for &root in &plan.roots {
            if machine.processes().add_root(root).is_none() {
                bail!("process {root} has ended just now: there is nothing to trace");
            }
        }
        // Without a runtime to poll it, it is flushed at each step.
        let logger = EbpfLogger::init(machine.cpu_time().ebpf_mut())
            .inspect_err(|error| log::debug!("rare events of the kernel side are not shown: {error}"))
            .ok();
        let (identity, identity_note) = machine.cpu_time().identity();
        let mut notes = plan.notes;
        notes.extend(
            identity_note
                .map(|reason| format!("processes are told apart by pid alone, without their start times: {reason}")),
        );
        notes.extend(machine.cpu_time().hooks().iter().filter_map(|hook| {
            let reason = hook.state.as_ref().err()?;
            Some(format!(
                "the hook {} is missing ({reason}): {}",
                hook.tracepoint, hook.purpose
            ))
        }));
        if machine.topology().more_than_two_threads() {
            notes.push(
                "cores with more than two hardware threads are not supported: their threads count as whole cores"
                    .to_owned(),
            );
        }
        for note in plan.start_notes.iter().filter(|_| !plan.quiet).chain(&notes) {
            say(&format!("note: {note}"));
        }
        notes.extend(plan.summary_notes);
        let metadata = Metadata {
            description: plan.description,
            start_unix_ns: unix_ns(),
            end_unix_ns: None,
            node_id: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            command_line: std::env::args_os()
                .map(|arg| arg.to_string_lossy().into_owned())
                .collect(),
            interval_ns: u64::try_from(plan.interval.as_nanos()).unwrap_or(u64::MAX),
            cpu_model: cpu_model(&plan.machine.procfs),
            gpus: machine.gpus().describe(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            boot_id: fs::read_to_string(plan.machine.procfs.join("sys/kernel/random/boot_id"))
                .ok()
                .map(|id| id.trim().to_owned()),
            domains: Vec::new(),
            identity,
            idle_policy: plan.options.idle_policy,
            smt_weight_permille: plan.options.smt_weight_permille,
            idle_floors_mw: plan.options.idle_floors_mw.clone(),
            notes: notes.clone(),
            measuring_cost: None,
            timezone: plan.timezone.clone(),
        };
        let writer = LogWriter::start(LogOptions {
            folder: plan.folder.clone(),
            mode: plan.mode,
            identity: plan.caller.map(|caller| Identity {
                uid: caller.uid,
                gid: caller.gid,
                groups: caller.groups,
                name: caller.name,
            }),
            metadata: metadata.clone(),
            backlog_bytes: BACKLOG_BYTES,
        })?;
        for note in writer.notes() {
            say(&format!("note: {note}"));
        }
        Ok(Self {
            machine,
            options: plan.options,
            carries: Carries::default(),
            segmenter: Segmenter::new(Encoding {
                identity,
                aliases: plan.aliases,
                timezone: plan.timezone,
            }),
            writer: Some(writer),
            metadata,
            totals: Totals::default(),
            progress: Progress::new(!plan.quiet),
            notes,
            chosen: None,
            logger,
            folder: plan.folder,
            quiet: plan.quiet,
            has_command: plan.has_command,
            warned_lost: false,
            warned_disk: false,
            silent_gpus: BTreeSet::new(),
        })
    }

    /// Prints no summary: there is nothing to show.
    pub fn mute(&mut self) {
        self.quiet = true;
    }

    /// Follows the traced command and all its descendants.
    pub fn follow(&mut self, child: &Child) {
        if let Some(pid) = child.id()
            && self.machine.processes().add_root(pid).is_none()
        {
            self.warn("the command is not found in /proc, so its processes are not listed: see `dlpm doctor`");
        }
    }

    /// Ends an interval and hands it on.
    ///
    /// # Errors
    ///
    /// Where CPU time is lost.
    pub fn step(&mut self) -> Result<()> {
        let interval = self.machine.interval()?;
        let ledger = attribute(&interval, &self.options, &self.carries);
        self.carries = self.carries.after(&ledger);
        self.totals.add(&ledger);
        if self.metadata.domains.is_empty() {
            self.metadata.domains = Domain::all_of(&ledger);
        }
        let lines = self.segmenter.next(&ledger)?;
        if let Some(writer) = &self.writer {
            writer.write(lines);
        }
        self.warn_of(&ledger);
        self.progress.show(&ledger, &self.totals);
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        if self.chosen.is_none_or(|chosen| chosen.elapsed() >= CHOOSE_EVERY) {
            self.chosen = Some(Instant::now());
            let selection = &self.options.selection;
            if selection.is_filtered() {
                self.machine
                    .watch_memory(Some(&|process, cgroup| selection.matches(process, cgroup)));
            } else {
                self.machine.watch_memory(None);
            }
        }
        self.machine.tidy()?;
        Ok(())
    }

    /// Reads the meters within a long interval.
    pub fn poll_meters(&mut self) {
        self.machine.poll_meters();
    }

    /// Seals the last, partial interval, ends the log and prints the summary. Whether the whole log was written.
    ///
    /// # Errors
    ///
    /// Where CPU time was lost; what was measured before is written all the same.
    pub fn finish(&mut self) -> Result<bool> {
        let last = self.step();
        self.progress.clear();
        let Some(writer) = self.writer.take() else {
            return Ok(true);
        };
        writer.write(self.segmenter.end().context("the end of the log")?);
        self.metadata.end_unix_ns = Some(unix_ns());
        self.metadata.measuring_cost = Some(MeasuringCost::of(&self.totals, self.machine.switch_cost()));
        let report = writer.finish(self.metadata.clone(), PATIENCE);
        self.notes.extend(report.notes());
        self.notes.extend(self.dropped());
        if self.quiet {
            for note in report.notes() {
                say(&note);
            }
        } else {
            self.print_summary(&report);
        }
        last.map(|()| report.complete && report.unwritten_lines == 0)
    }

    fn print_summary(&self, report: &Report) {
        let options = SummaryOptions {
            notes: self.notes.clone(),
            cost: self.metadata.measuring_cost.clone(),
            ..SummaryOptions::default()
        };
        let mut text = summary::render(&self.totals, &options);
        text.push_str(&format!(
            "Log: {} ({} lines)\n",
            self.folder.display(),
            report.written_lines
        ));
        // A reader that has gone away is no failure of the trace.
        let _ = if self.has_command {
            std::io::stderr().write_all(text.as_bytes())
        } else {
            std::io::stdout().write_all(text.as_bytes())
        };
    }

    fn warn_of(&mut self, ledger: &Ledger) {
        let lost_ns: u64 = ledger.cpus.iter().map(|cpu| cpu.lost_ns).sum();
        if lost_ns > 0 && !self.warned_lost {
            self.warned_lost = true;
            self.warn(
                "more processes ran in an interval than the kernel side can tell apart: the time of the rest is kept \
                 as `unattributed`; make room with --spill-entries, or shorten --interval",
            );
        }
        self.warn_of_gpus(ledger);
        let Some(status) = self.writer.as_ref().map(LogWriter::status) else {
            return;
        };
        match (status.blocked, self.warned_disk) {
            (Some(blocked), false) => {
                self.warned_disk = true;
                self.warn(&format!(
                    "the log cannot be written ({}): tracing goes on and the lines wait; make room, and they are \
                     written",
                    blocked.error
                ));
            }
            (None, true) => {
                self.warned_disk = false;
                self.warn("the log is written again");
            }
            _ => {}
        }
    }

    /// Says when a GPU stops answering, and when its energy is known again.
    fn warn_of_gpus(&mut self, ledger: &Ledger) {
        for gpu in &ledger.gpus {
            let leaf = ledger.leaves.iter().find(|leaf| leaf.zone == gpu.zone);
            match leaf.map(|leaf| &leaf.energy_uj) {
                Some(Err(reason)) if self.silent_gpus.insert(gpu.zone.clone()) => self.warn(&format!(
                    "GPU {} ({}): {reason}; the trace goes on without it until it answers",
                    gpu.index, gpu.name
                )),
                Some(Ok(_)) if self.silent_gpus.remove(&gpu.zone) => {
                    self.warn(&format!("GPU {} ({}) is measured again", gpu.index, gpu.name));
                }
                _ => {}
            }
        }
    }

    fn warn(&mut self, text: &str) {
        self.progress.clear();
        say(&format!("warning: {text}"));
    }

    /// Everything that was dropped since the start, a sentence each.
    fn dropped(&self) -> Vec<String> {
        let dropped = self.machine.dropped();
        [
            (dropped.processes_full, "processes found no room in the kernel's table, so that some names and parents are missing: see --process-entries"),
            (dropped.nameless, "processes ran that were gone before their names could be read"),
            (dropped.cgroups_lost, "cgroups were created whose paths could not be kept, and may be shown by number"),
            (dropped.missed_runs, "runs of dlpm's programs were left out by the kernel"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect()
    }
}

fn unix_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
