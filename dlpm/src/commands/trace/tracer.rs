//! One trace while it runs: an interval from the sources, through attribution, to the sinks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::{
    process::Child,
    sync::Notify,
    time::{Interval as Ticks, MissedTickBehavior},
};

use super::{
    control::Mark,
    journal::Journal,
    measurement::Measurement,
    setup::{Plan, TREE},
};
use crate::{
    engine::{
        Engine, Recorder,
        mark_rate::{self, MarkRate},
    },
    interval::Interval,
    phases::{Answer, Border, Change},
    sinks::{metadata::Metadata, segments::Encoding, terminal::say},
    sources::{
        clock::unix_ns,
        cpu_model::cpu_model,
        cpu_time::{CgroupNews, CpuTimeError},
        host::boot_id,
        processes::Branch,
    },
};

/// Length of the first interval. AIPowerMeter's reader loses the first one of a segment, so it is short.
const PRIMING: Duration = Duration::from_millis(100);

/// Meters are read at least this often, so that a counter's wrap is seen however long the interval is.
pub const METER_PERIOD: Duration = Duration::from_secs(30);

/// A running trace: an engine with one recorder, which writes a folder.
pub struct Tracer {
    engine: Engine<Vec<Change>>,
    answered: Arc<Notify>,
    mark_rate: MarkRate,
    journal: Journal,
    tick: Ticks,
    meters: Ticks,
    /// Names of containers are read while their files are there; `None` where names do not matter.
    cgroups: Option<CgroupNews>,
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
        for note in plan.start_notes.iter().filter(|_| !plan.output.quiet).chain(&notes) {
            say(&format!("note: {note}"));
        }
        notes.extend(plan.summary_notes);
        let metadata = Metadata {
            description: plan.output.description.clone(),
            start_unix_ns: unix_ns(),
            end_unix_ns: None,
            node_id: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            command_line: std::env::args_os()
                .map(|arg| arg.to_string_lossy().into_owned())
                .collect(),
            listed: plan.output.listed.clone(),
            interval_ns: u64::try_from(plan.output.interval.as_nanos()).unwrap_or(u64::MAX),
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
            timezone: plan.output.timezone.clone(),
        };
        let encoding = Encoding {
            identity,
            aliases: plan.output.aliases,
            timezone: plan.output.timezone.clone(),
        };
        let (interval, rotate) = (plan.output.interval, plan.output.rotate);
        let recorder = Recorder::new(plan.options, encoding, rotate);
        let cgroups = plan.by_name.then(|| engine.machine().cpu_time().cgroup_news());
        let journal = Journal::start(recorder, metadata, plan.output, notes)?;
        Ok(Self {
            answered: engine.answered(),
            engine,
            mark_rate: MarkRate::default(),
            journal,
            tick: ticks(PRIMING.min(interval), interval),
            meters: ticks(METER_PERIOD, METER_PERIOD),
            cgroups: cgroups.transpose()?,
        })
    }

    /// Ends an interval because it is time.
    fn step(&mut self) -> Result<()> {
        self.seal(Vec::new(), |_| {})
    }

    /// Ends the open interval, and hands on what is complete.
    fn seal(&mut self, changes: Vec<Change>, sealed: impl FnOnce(Border)) -> Result<()> {
        // What has changed at a border that is lost cannot be written; the phases end with the log.
        self.engine
            .seal(changes, sealed)
            .inspect_err(|_| self.journal.recorder().lose_phases())?;
        self.settle()?;
        Ok(self.engine.tidy(&[self.journal.recorder().selection()])?)
    }

    /// Hands on the intervals whose GPUs have answered, or are not waited for any longer.
    fn settle(&mut self) -> Result<()> {
        while let Some((interval, changes)) = self.engine.ready() {
            self.record(&interval, &changes)?;
        }
        Ok(())
    }

    /// Records an interval, and tells what the user has to know of it.
    fn record(&mut self, interval: &Interval, changes: &[Change]) -> Result<()> {
        let (ledger, lines) = self.journal.recorder().record(interval, changes)?;
        self.journal.record(&ledger, lines, self.engine.machine().dropped());
        Ok(())
    }
}

impl Measurement for Tracer {
    fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    fn follow(&mut self, child: &Child) {
        if let Some(pid) = child.id()
            && self
                .engine
                .machine()
                .processes()
                .add_root(pid, Branch::whole(TREE))
                .is_none()
        {
            self.journal
                .warn("the command is not found in /proc, so its processes are not listed: see `dlpm doctor`");
        }
    }

    async fn go_on(&mut self) -> Result<()> {
        tokio::select! {
            biased;
            _ = self.tick.tick() => self.step()?,
            () = settled(&self.answered, self.engine.due()) => self.settle()?,
            told = told(self.cgroups.as_mut()) => {
                told?;
                self.engine.machine().see_new_cgroups()?;
            }
            _ = self.meters.tick() => self.engine.machine().poll_meters(),
        }
        Ok(())
    }

    /// Marks that change nothing, as one more `begin` of a phase that is open, end no interval; nor do those that come
    /// faster than [`MarkRate`] allows, which are refused. All are answered when the CPUs are sealed: what the rest of the
    /// interval takes does not keep anybody waiting.
    async fn mark(&mut self, marks: Vec<Mark>) -> Result<()> {
        let (mut changes, mut accepted) = (Vec::new(), Vec::new());
        let now = Instant::now();
        for mark in marks {
            let recorder = self.journal.recorder();
            let applied = if recorder.begins(mark.request()) && !self.mark_rate.allows(now) {
                Err(mark_rate::refusal())
            } else {
                recorder.apply(mark.request())
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

    async fn finish(&mut self) -> Result<bool> {
        let mut last = self.step();
        while let Some((interval, changes)) = self.engine.oldest() {
            last = self.record(&interval, &changes).and(last);
        }
        let machine = self.engine.machine();
        let finished = self.journal.finish(machine.switch_cost(), machine.dropped())?;
        last.map(|()| finished)
    }
}

fn ticks(first: Duration, period: Duration) -> Ticks {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

async fn told(news: Option<&mut CgroupNews>) -> Result<(), CpuTimeError> {
    match news {
        Some(news) => news.due().await,
        None => std::future::pending().await,
    }
}

/// Waits for the answer of a GPU, if any is waited for.
pub async fn settled(answered: &Notify, due: Option<Instant>) {
    match due {
        // Answered or not: whoever called looks what is there.
        Some(due) => drop(tokio::time::timeout_at(due.into(), answered.notified()).await),
        None => std::future::pending().await,
    }
}
