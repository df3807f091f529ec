//! What a trace leaves: the lines in its folder, what is said while it runs, and the summary.

use std::{io, path::PathBuf, time::Duration};

use anyhow::Result;

use super::{
    setup::Output,
    warnings::{self, Warnings},
};
use crate::{
    attribution::ledger::Ledger,
    commands::{caller::Caller, progress::Progress},
    engine::Recorder,
    interval::SwitchCost,
    log::Line,
    sinks::{
        measuring_cost::MeasuringCost,
        metadata::{Domain, Metadata},
        socket::Listening,
        terminal::{self, say},
        writer::{BACKLOG_BYTES, LogOptions, LogWriter, Report},
    },
    sources::{clock::unix_ns, machine::Dropped},
    tables::summary::Summary,
};

/// How long the end of a trace waits for a full disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// The journal of one trace.
pub struct Journal {
    recorder: Recorder,
    /// `None` once it has finished.
    writer: Option<LogWriter>,
    metadata: Metadata,
    progress: Progress,
    notes: Vec<String>,
    folder: PathBuf,
    caller: Option<Caller>,
    quiet: bool,
    has_command: bool,
    each: bool,
    warnings: Warnings,
}

impl Journal {
    /// Opens the log. `notes` are what the summary says in addition to those of `metadata`.
    ///
    /// # Errors
    ///
    /// Where there is nowhere to write.
    pub fn start(recorder: Recorder, metadata: Metadata, output: Output, notes: Vec<String>) -> Result<Self> {
        let writer = LogWriter::start(LogOptions {
            folder: output.folder.clone(),
            mode: output.mode,
            identity: output.caller.as_ref().map(Caller::identity),
            metadata: metadata.clone(),
            backlog_bytes: BACKLOG_BYTES,
            rotates: output.rotate.is_some(),
            budget: None,
            listens: true,
        })?;
        for note in writer.notes() {
            say(&format!("note: {note}"));
        }
        Ok(Self {
            recorder,
            writer: Some(writer),
            metadata,
            progress: Progress::new(!output.quiet),
            notes,
            folder: output.folder,
            caller: output.caller,
            quiet: output.quiet,
            has_command: output.has_command,
            each: output.each,
            warnings: Warnings::default(),
        })
    }

    /// Where it is.
    pub fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// The user who called sudo.
    pub fn caller(&self) -> Option<Caller> {
        self.caller.clone()
    }

    /// Its phases and sums.
    pub fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// Prints no summary: there is nothing to show.
    pub fn mute(&mut self) {
        self.quiet = true;
    }

    /// The socket for marks in the log's folder, or why there is none; once.
    pub fn take_socket(&mut self) -> Option<io::Result<Listening>> {
        self.writer.as_mut()?.take_socket()
    }

    /// Tells the user something at once, and again in the summary.
    pub fn note(&mut self, note: String) {
        if !self.quiet {
            self.progress.clear();
            say(&format!("note: {note}"));
        }
        self.notes.push(note);
    }

    /// Tells the user of something that is wrong.
    pub fn warn(&mut self, text: &str) {
        self.progress.clear();
        say(&format!("warning: {text}"));
    }

    /// Writes lines.
    pub fn write(&self, lines: Vec<Line>) {
        if let Some(writer) = &self.writer {
            writer.write(lines);
        }
    }

    /// Writes the lines of a ledger that was recorded, and tells what the user has to know of it.
    pub fn record(&mut self, ledger: &Ledger, lines: Vec<Line>, dropped: Dropped) {
        if self.metadata.domains.is_empty() {
            self.metadata.domains = Domain::all_of(ledger);
        }
        self.write(lines);
        let status = self.writer.as_ref().map(LogWriter::status);
        for warning in self.warnings.of(ledger, status.as_ref(), dropped, self.quiet) {
            self.warn(&warning);
        }
        self.progress.show(ledger, self.recorder.totals());
    }

    /// Ends the log and prints the summary. Whether the whole log was written.
    ///
    /// # Errors
    ///
    /// Where a line cannot be written as JSON.
    pub fn finish(&mut self, switch_cost: Result<SwitchCost, String>, dropped: Dropped) -> Result<bool> {
        self.progress.clear();
        let Some(writer) = self.writer.take() else {
            return Ok(true);
        };
        writer.write(self.recorder.end()?);
        self.metadata.end_unix_ns = Some(unix_ns());
        self.metadata.measuring_cost = Some(MeasuringCost::of(self.recorder.totals(), switch_cost));
        let report = writer.finish(self.metadata.clone(), PATIENCE);
        // What was noticed with the last lines; the summary has all of it.
        for change in self.warnings.untold(&report.changes) {
            self.warn(&change);
        }
        self.notes.extend(report.changes.iter().cloned());
        self.notes.extend(report.notes(true));
        self.notes.extend(warnings::dropped(dropped));
        let mut shown = true;
        if self.quiet {
            for note in report.notes(false) {
                say(&note);
            }
        } else {
            shown = self.print_summary(&report);
        }
        Ok(shown && report.changes.is_empty() && report.complete && report.unwritten_lines == 0)
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
}
