//! One trace while it runs: an interval from the sources, through attribution, to the sinks.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::{process::Child, sync::Notify};

use super::{
    control::Mark,
    setup::{Plan, TREE},
    warnings::{self, Warnings},
};
use crate::{
    commands::progress::Progress,
    engine::{
        Engine, Recorder,
        mark_rate::{self, MarkRate},
    },
    interval::Interval,
    phases::{Answer, Border, Change},
    sinks::{
        measuring_cost::MeasuringCost,
        metadata::{Domain, Metadata},
        segments::Encoding,
        socket::Listening,
        terminal::{self, say},
        writer::{BACKLOG_BYTES, Identity, LogOptions, LogWriter, Report},
    },
    sources::{calibration::cpu_model, clock::unix_ns, host::boot_id, processes::Branch},
    tables::summary::Summary,
};

/// How long the end of a trace waits for a full disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running trace: an engine with one recorder, which writes a folder.
pub struct Tracer {
    engine: Engine<Vec<Change>>,
    recorder: Recorder,
    mark_rate: MarkRate,
    /// `None` once it has finished.
    writer: Option<LogWriter>,
    metadata: Metadata,
    progress: Progress,
    notes: Vec<String>,
    folder: PathBuf,
    quiet: bool,
    has_command: bool,
    each: bool,
    warnings: Warnings,
}

impl Tracer {
    /// Starts the sources, then opens the log.
    ///
    /// # Errors
    ///
    /// Where there is no CPU time, no such process, or nowhere to write.
    pub fn start(plan: Plan) -> Result<Self> {
        let mut engine = Engine::start(&plan.machine, plan.cgroups, plan.meter, plan.gpus)?;
        let machine = engine.machine();
        for &root in &plan.roots {
            if machine.processes().add_root(root, Branch::whole(TREE)).is_none() {
                bail!("process {root} has ended just now: there is nothing to trace");
            }
        }
        let (identity, identity_note) = machine.cpu_time().identity();
        let mut notes = plan.notes;
        notes
            .extend(identity_note.map(|reason| {
                format!("processes are distinguished by pid alone, without their start times: {reason}")
            }));
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
            listed: plan.listed,
            interval_ns: u64::try_from(plan.interval.as_nanos()).unwrap_or(u64::MAX),
            cpu_model: cpu_model(&plan.machine.procfs),
            gpus: machine.gpus().describe(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            boot_id: boot_id(&plan.machine.procfs),
            domains: Vec::new(),
            identity,
            idle_policy: plan.options.idle_policy,
            idle_policy_by: if plan.policy_by_user { "user" } else { "auto" },
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
            rotates: plan.rotate.is_some(),
            budget: None,
            listens: true,
        })?;
        for note in writer.notes() {
            say(&format!("note: {note}"));
        }
        let encoding = Encoding {
            identity,
            aliases: plan.aliases,
            timezone: plan.timezone,
        };
        Ok(Self {
            engine,
            recorder: Recorder::new(plan.options, encoding, plan.rotate),
            mark_rate: MarkRate::default(),
            writer: Some(writer),
            metadata,
            progress: Progress::new(!plan.quiet),
            notes,
            folder: plan.folder,
            quiet: plan.quiet,
            has_command: plan.has_command,
            each: plan.each,
            warnings: Warnings::default(),
        })
    }

    /// Prints no summary: there is nothing to show.
    pub fn mute(&mut self) {
        self.quiet = true;
    }

    /// Follows the traced command and all its descendants.
    pub fn follow(&mut self, child: &Child) {
        if let Some(pid) = child.id()
            && self
                .engine
                .machine()
                .processes()
                .add_root(pid, Branch::whole(TREE))
                .is_none()
        {
            self.warn("the command is not found in /proc, so its processes are not listed: see `dlpm doctor`");
        }
    }

    /// The socket for marks in the log's folder, or why there is none; once.
    pub fn take_socket(&mut self) -> Option<io::Result<Listening>> {
        self.writer.as_mut()?.take_socket()
    }

    /// Tells the user something at once, and again in the summary.
    pub fn note(&mut self, note: String) {
        if !self.quiet {
            say(&format!("note: {note}"));
        }
        self.notes.push(note);
    }

    /// Ends an interval because it is time.
    ///
    /// # Errors
    ///
    /// Where CPU time is lost.
    pub fn step(&mut self) -> Result<()> {
        self.seal(Vec::new(), |_| {})
    }

    /// Ends an interval at the moment of these marks, one for all of them. They are answered when the CPUs are sealed:
    /// what the rest of the interval takes does not keep anybody waiting.
    ///
    /// Marks that change nothing, as one more `begin` of a phase that is open, end no interval; nor do those that come
    /// faster than [`MarkRate`] allows, which are refused.
    ///
    /// # Errors
    ///
    /// Where CPU time is lost.
    pub fn mark(&mut self, marks: Vec<Mark>) -> Result<()> {
        let (mut changes, mut accepted) = (Vec::new(), Vec::new());
        let now = Instant::now();
        for mark in marks {
            let applied = if self.recorder.begins(mark.request()) && !self.mark_rate.allows(now) {
                Err(mark_rate::refusal())
            } else {
                self.recorder.apply(mark.request())
            };
            match applied {
                Ok(changed) => {
                    if !changed.is_empty() {
                        self.mark_rate.take(now);
                    }
                    changes.extend(changed);
                    accepted.push(mark);
                }
                Err(reason) => mark.answer(&Answer::Refused(reason)),
            }
        }
        if changes.is_empty() {
            let last = self.engine.border();
            for mark in accepted {
                mark.answer(&Answer::Done(last));
            }
            return Ok(());
        }
        self.seal(changes, |border| {
            for mark in accepted {
                mark.answer(&Answer::Done(border));
            }
        })
    }

    /// Ends the open interval, and hands on what is complete.
    fn seal(&mut self, changes: Vec<Change>, sealed: impl FnOnce(Border)) -> Result<()> {
        // What has changed at a border that is lost cannot be written; the phases end with the log.
        self.engine
            .seal(changes, sealed)
            .inspect_err(|_| self.recorder.lose_phases())?;
        self.settle()?;
        Ok(self.engine.tidy(&[self.recorder.selection()])?)
    }

    /// When GPUs are waited for no longer, if they are.
    pub fn due(&self) -> Option<Instant> {
        self.engine.due()
    }

    /// Is told whenever a GPU has answered.
    pub fn answered(&self) -> Arc<Notify> {
        self.engine.answered()
    }

    /// Hands on the intervals whose GPUs have answered, or are not waited for any longer.
    ///
    /// # Errors
    ///
    /// Where a ledger cannot be written as JSON.
    pub fn settle(&mut self) -> Result<()> {
        while let Some((interval, changes)) = self.engine.ready() {
            self.record(&interval, &changes)?;
        }
        Ok(())
    }

    /// Records an interval, and tells what the user has to know of it.
    fn record(&mut self, interval: &Interval, changes: &[Change]) -> Result<()> {
        let (ledger, lines) = self.recorder.record(interval, changes)?;
        if self.metadata.domains.is_empty() {
            self.metadata.domains = Domain::all_of(&ledger);
        }
        if let Some(writer) = &self.writer {
            writer.write(lines);
        }
        let status = self.writer.as_ref().map(LogWriter::status);
        let dropped = self.engine.machine().dropped();
        for warning in self.warnings.of(&ledger, status.as_ref(), dropped, self.quiet) {
            self.warn(&warning);
        }
        self.progress.show(&ledger, self.recorder.totals());
        Ok(())
    }

    /// Looks whether cgroups were made since the interval began.
    ///
    /// # Errors
    ///
    /// Where the kernel side cannot be read.
    pub fn see_new_cgroups(&mut self) -> Result<()> {
        Ok(self.engine.machine().see_new_cgroups()?)
    }

    /// Reads the meters within a long interval.
    pub fn poll_meters(&mut self) {
        self.engine.machine().poll_meters();
    }

    /// Seals the last, partial interval, ends the log and prints the summary. Whether the whole log was written.
    ///
    /// # Errors
    ///
    /// Where CPU time was lost; what was measured before is written all the same.
    pub fn finish(&mut self) -> Result<bool> {
        let mut last = self.step();
        while let Some((interval, changes)) = self.engine.oldest() {
            last = self.record(&interval, &changes).and(last);
        }
        self.progress.clear();
        let Some(writer) = self.writer.take() else {
            return Ok(true);
        };
        writer.write(self.recorder.end()?);
        self.metadata.end_unix_ns = Some(unix_ns());
        self.metadata.measuring_cost = Some(MeasuringCost::of(
            self.recorder.totals(),
            self.engine.machine().switch_cost(),
        ));
        let report = writer.finish(self.metadata.clone(), PATIENCE);
        // What was noticed with the last lines; the summary has all of it.
        for change in self.warnings.untold(&report.changes) {
            self.warn(&change);
        }
        self.notes.extend(report.changes.iter().cloned());
        self.notes.extend(report.notes(true));
        self.notes.extend(warnings::dropped(self.engine.machine().dropped()));
        let mut shown = true;
        if self.quiet {
            for note in report.notes(false) {
                say(&note);
            }
        } else {
            shown = self.print_summary(&report);
        }
        last.map(|()| shown && report.changes.is_empty() && report.complete && report.unwritten_lines == 0)
    }

    /// Whether it could be printed.
    fn print_summary(&self, report: &Report) -> bool {
        let cost = self.metadata.measuring_cost.as_ref().map(MeasuringCost::text);
        let mut text = Summary {
            totals: self.recorder.totals(),
            phases: self.recorder.phase_totals(),
            listed: self.metadata.listed.as_deref(),
            each: self.each,
            cost: &cost.unwrap_or_default(),
            notes: &self.notes,
        }
        .text();
        text.push_str(&format!(
            "Log: {} ({} lines)\n",
            self.folder.display(),
            report.written_lines
        ));
        if self.has_command {
            terminal::complain(&text);
            return true;
        }
        terminal::print(&text)
            .inspect_err(|error| say(&error.to_string()))
            .is_ok()
    }

    fn warn(&mut self, text: &str) {
        self.progress.clear();
        say(&format!("warning: {text}"));
    }
}
