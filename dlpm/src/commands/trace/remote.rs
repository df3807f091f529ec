//! A trace that the agent measures: for users who are not root.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{process::Child, time::Instant};

use super::{
    asked,
    control::Mark,
    journal::Journal,
    measurement::Measurement,
    setup::{self, Output},
};
use crate::{
    attribution::Options,
    cli::TraceArgs,
    engine::Recorder,
    interval::SwitchCost,
    log::{Event, LogLine},
    phases::{Answer, Border, Change, Phases, Verb},
    printable::printable,
    sinks::{metadata::Metadata, segments::Encoding, terminal::say},
    socket::{
        client::{Client, ClientError, Lines},
        wire::{EndReason, MarkRequest, RecordingFacts, RecordingRequest, StreamLine},
    },
    sources::{clock::unix_ns, machine::Dropped, tenants::names::user_name},
};

/// How often an agent that is gone is looked for.
const RETRY: Duration = Duration::from_millis(500);

/// How long the last lines are waited for.
const LAST_PATIENCE: Duration = Duration::from_secs(15);

/// A recording that the agent makes.
struct Recording {
    id: u64,
    lines: Lines,
    /// Added to its numbers: it may be the second of this trace.
    offset: u64,
}

/// A running trace: a recording of the agent, which is written to a folder here.
pub struct Remote {
    client: Client,
    request: RecordingRequest,
    /// `None` while the agent is gone.
    recording: Option<Recording>,
    lost_at: Instant,
    retry_at: Instant,
    /// Number of the next interval.
    next: u64,
    /// What is open at the agent: it has to know when it is back.
    phases: Phases,
    switch_cost: Option<SwitchCost>,
    journal: Journal,
    timezone: jiff::tz::TimeZone,
}

impl Remote {
    /// Begins a recording, then opens the log.
    ///
    /// # Errors
    ///
    /// Where an option is not for the agent, there is no agent, it refuses, or there is nowhere to write.
    pub async fn start(args: &TraceArgs, socket: &Path) -> Result<Self> {
        let client = Client::new(socket);
        // What helps most is said first.
        client.look().await.map_err(|error| missing(error, socket))?;
        let mut not_ours = asked::not_for_the_agent(&args.machine);
        not_ours.extend(args.as_root.then_some("--as-root"));
        not_ours.extend((!args.counters.is_empty()).then_some("--counters"));
        if !not_ours.is_empty() {
            bail!(
                "{} cannot be chosen here, as the agent measures for everybody: leave it out, or trace as root (`sudo dlpm \
                 trace …`)",
                not_ours.join(", ")
            );
        }
        let request = asked::request(args)?;
        let mut output = setup::output(args, None);
        let (facts, lines) = client.record(&request).await.map_err(|error| missing(error, socket))?;
        let mut notes: Vec<String> = facts.machine.notes.iter().map(|note| printable(note)).collect();
        let by_whom = format!("the agent at {} measures", socket.display());
        if let Some(uid) = facts.uid {
            let user = user_name(Path::new("/"), uid).unwrap_or_else(|| uid.to_string());
            output
                .listed
                .get_or_insert_with(|| format!("Processes of user {}", printable(&user)));
        }
        for note in [&by_whom].into_iter().filter(|_| !output.quiet).chain(&notes) {
            say(&format!("note: {note}"));
        }
        notes.push(by_whom);
        let journal = journal(&facts, output, notes)?;
        let now = Instant::now();
        Ok(Self {
            client,
            request,
            recording: Some(Recording {
                id: facts.id,
                lines,
                offset: 0,
            }),
            lost_at: now,
            retry_at: now,
            next: 0,
            phases: Phases::default(),
            switch_cost: None,
            journal,
            timezone: crate::sources::timezone::local().timezone.clone(),
        })
    }

    /// Takes one line of the recording. Whether it is the last one.
    fn take(&mut self, line: &[u8], offset: u64) -> Result<bool> {
        if let Ok(line) = serde_json::from_slice::<StreamLine>(line) {
            let StreamLine::Ended(end) = line else { return Ok(false) };
            self.switch_cost = end.switch_cost.or(self.switch_cost);
            return Ok(end.reason == EndReason::Asked);
        }
        let line = crate::log::entry::read(line, &self.timezone)
            .map_err(|why| anyhow::anyhow!("the agent sent a line that is not of a log: {}", why.why()))?;
        match line {
            LogLine::Interval(interval) => {
                let mut ledger = interval.ledger;
                ledger.seq = ledger.seq.saturating_add(offset);
                self.next = ledger.seq.saturating_add(1);
                let lines = self.journal.recorder().add(&ledger)?;
                self.journal.record(&ledger, lines, Dropped::default());
            }
            LogLine::Event(Event::PhaseBegin { label, .. }) => self.change(Change::Begin(label))?,
            LogLine::Event(Event::PhaseEnd { label, .. }) => self.change(Change::End(label))?,
            LogLine::Event(Event::Dropped(mut dropped)) => {
                for seq in [&mut dropped.from_seq, &mut dropped.to_seq].into_iter().flatten() {
                    *seq = seq.saturating_add(offset);
                }
                self.next = self.next.max(dropped.to_seq.map_or(0, |seq| seq.saturating_add(1)));
                let intervals = dropped.intervals;
                let lines = self.journal.recorder().interrupt(&Event::Dropped(dropped))?;
                self.journal.write(lines);
                self.journal.warn(&format!(
                    "this machine is so busy that {intervals} intervals could not be read in time: the log has their sums"
                ));
            }
            // The ends of segments and what separates them follow from the ledgers.
            LogLine::Event(_) | LogLine::SegmentEnd | LogLine::Foreign(_) | LogLine::Nothing => {}
        }
        Ok(false)
    }

    fn change(&mut self, change: Change) -> Result<()> {
        let lines = self.journal.recorder().change(&[change])?;
        self.journal.write(lines);
        Ok(())
    }

    /// The agent is gone.
    fn lose(&mut self, why: &str) {
        self.recording = None;
        self.lost_at = Instant::now();
        self.retry_at = self.lost_at + RETRY;
        self.journal.warn(&format!(
            "the agent has ended ({}): nothing is measured until it is back",
            printable(why)
        ));
    }

    /// Looks whether the agent is back.
    async fn find(&mut self) {
        tokio::time::sleep_until(self.retry_at).await;
        self.retry_at = Instant::now() + RETRY;
        let request = RecordingRequest {
            phases: Some(self.phases.open()),
            ..self.request.clone()
        };
        match self.client.record(&request).await {
            Ok((facts, lines)) => {
                // A number is missing where intervals are.
                let offset = self.next.saturating_add(1);
                self.recording = Some(Recording {
                    id: facts.id,
                    lines,
                    offset,
                });
                self.journal.note(format!(
                    "the agent was gone for {:.1} s: what was used then is not in the log",
                    self.lost_at.elapsed().as_secs_f64()
                ));
            }
            Err(error) => log::debug!("the agent is not back: {error}"),
        }
    }
}

impl Measurement for Remote {
    fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// The agent follows all children of this process.
    fn follow(&mut self, _: &Child) {}

    async fn go_on(&mut self) -> Result<()> {
        let Some(recording) = &mut self.recording else {
            self.find().await;
            return Ok(());
        };
        let offset = recording.offset;
        match recording.lines.next().await {
            Ok(Some(line)) => drop(self.take(&line, offset)?),
            Ok(None) => self.lose("its stream ended"),
            Err(error) => self.lose(&error.to_string()),
        }
        Ok(())
    }

    async fn mark(&mut self, marks: Vec<Mark>) -> Result<()> {
        for mark in marks {
            let Some(recording) = &self.recording else {
                mark.answer(&Answer::Refused(
                    "the agent is gone: nothing is measured now".to_owned(),
                ));
                continue;
            };
            let (verb, label) = (mark.request().verb(), Some(mark.request().label().to_owned()));
            let mut request = MarkRequest::default();
            match verb {
                Verb::Mark => request.mark = label,
                Verb::Begin => request.begin = label,
                Verb::End => request.end = label,
            }
            let answer = match self.client.mark(recording.id, &request).await {
                Ok(border) => {
                    // It has accepted what is applied here, too.
                    let _ = self.phases.apply(mark.request());
                    Answer::Done(Border {
                        seq: border.seq.saturating_add(recording.offset),
                        at_ns: border.at_ns,
                    })
                }
                Err(ClientError::Refused(reason)) => Answer::Refused(reason),
                Err(error) => Answer::Refused(error.to_string()),
            };
            mark.answer(&answer);
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<bool> {
        let read = tokio::time::timeout(LAST_PATIENCE, self.read_to_the_end()).await;
        let read = read.unwrap_or_else(|_| Err(anyhow::anyhow!("the last lines did not come")));
        if let Err(error) = &read {
            self.journal
                .note(format!("the end of the recording is missing: {error:#}"));
        }
        let switch_cost = self
            .switch_cost
            .ok_or_else(|| "the agent has not measured it".to_owned());
        let written = self.journal.finish(switch_cost, Dropped::default())?;
        Ok(written && read.is_ok())
    }
}

impl Remote {
    async fn read_to_the_end(&mut self) -> Result<()> {
        let Some(Recording { id, mut lines, offset }) = self.recording.take() else {
            bail!("the agent was gone");
        };
        self.client.end(id).await?;
        while let Some(line) = lines.next().await? {
            if self.take(&line, offset)? {
                return Ok(());
            }
        }
        bail!("its stream ended early")
    }
}

/// What to do without an agent.
pub fn missing(error: ClientError, socket: &Path) -> anyhow::Error {
    match error {
        ClientError::Absent { source, .. } => {
            let uid = rustix::process::geteuid().as_raw();
            anyhow::Error::new(source).context(format!(
                "user {uid} may not load eBPF programs (CAP_BPF, CAP_PERFMON and CAP_DAC_READ_SEARCH are needed), and there is \
                 no agent at {} that could measure. Trace as root (`sudo dlpm trace …`), or let an operator start the agent, at which every user can measure their own \
                 processes (`sudo systemctl start dlpm-agent`, or `sudo dlpm agent`)",
                socket.display()
            ))
        }
        other => other.into(),
    }
}

fn journal(facts: &RecordingFacts, output: Output, notes: Vec<String>) -> Result<Journal> {
    let machine = &facts.machine;
    let metadata = Metadata {
        description: output.description.clone(),
        start_unix_ns: unix_ns(),
        end_unix_ns: None,
        node_id: machine.node_id.clone(),
        command_line: std::env::args_os()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect(),
        listed: output.listed.clone(),
        interval_ns: facts.interval_ms.saturating_mul(1_000_000),
        cpu_model: machine.cpu_model.clone(),
        gpus: machine.gpus.clone(),
        kernel: machine.kernel.clone(),
        boot_id: machine.boot_id.clone(),
        domains: Vec::new(),
        identity: machine.identity,
        idle_policy: machine.idle_policy,
        idle_policy_by: if machine.idle_policy_by_operator {
            "operator"
        } else {
            "auto"
        },
        smt_weight_permille: machine.smt_weight_permille,
        idle_floors_mw: machine.idle_floors_mw.clone(),
        notes: notes.clone(),
        measuring_cost: None,
        timezone: output.timezone.clone(),
    };
    let encoding = Encoding {
        identity: machine.identity,
        aliases: output.aliases,
        timezone: output.timezone.clone(),
    };
    // What is recorded here is attributed already.
    let recorder = Recorder::new(Options::default(), encoding, output.rotate);
    Journal::start(recorder, metadata, output, notes).context("the log cannot be begun")
}
