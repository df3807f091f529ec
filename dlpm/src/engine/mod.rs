//! The loop of a measurement: one machine, its pace, and the intervals whose GPUs have not answered.
//!
//! An [`Engine`] knows nothing of logs. What it completes goes to any number of [`Recorder`]s, each with a selection,
//! phases and sums of its own.

pub mod mark_rate;
mod recorder;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

pub use recorder::Recorder;

use crate::{
    attribution::selection::Selection,
    interval::{Interval, Process},
    phases::Border,
    sources::{
        cgroups::CgroupTree,
        cpu_time::CpuTimeError,
        energy::meter::Meter,
        gpu::Gpus,
        machine::{Drained, ListedTenant, Machine, MachineConfig},
    },
    tenants::Tenant,
};

/// Minimum time between two selections of the processes whose memory is read.
const CHOOSE_EVERY: Duration = Duration::from_secs(1);

/// An interval whose GPUs have not answered.
struct Waiting<C> {
    drained: Drained,
    changes: C,
    due: Instant,
}

/// A machine that is measured. `C` is what changes at the end of an interval: it is handed on with it.
pub struct Engine<C> {
    machine: Machine,
    /// Intervals that are not complete, in order.
    waiting: VecDeque<Waiting<C>>,
    chosen: Option<Instant>,
}

impl<C> Engine<C> {
    /// Starts the sources.
    ///
    /// # Errors
    ///
    /// Where CPU time cannot be traced.
    pub fn start(config: &MachineConfig, cgroups: CgroupTree, meter: Meter, gpus: Gpus) -> Result<Self, CpuTimeError> {
        Ok(Self {
            machine: Machine::start(config, cgroups, meter, gpus)?,
            waiting: VecDeque::new(),
            chosen: None,
        })
    }

    /// The machine: what it has, and what it dropped.
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// Where the newest interval that was sealed ended.
    pub fn border(&self) -> Border {
        self.machine.border()
    }

    /// Ends an interval. `sealed` is told its border at once: what the rest of the interval takes keeps nobody waiting.
    ///
    /// # Errors
    ///
    /// Where CPU time is lost.
    pub fn seal(&mut self, changes: C, sealed: impl FnOnce(Border)) -> Result<(), CpuTimeError> {
        let ended = self.machine.seal()?;
        sealed(Border {
            seq: self.machine.seq() + 1,
            at_ns: ended.at_ns(),
        });
        let drained = self.machine.drain(ended)?;
        self.waiting.push_back(Waiting {
            drained,
            changes,
            due: Instant::now() + self.machine.gpus().deadline(),
        });
        Ok(())
    }

    /// What has to be done between two intervals: chooses whose memory is read, of the processes of these selections, and
    /// looks for what hooks did not tell.
    ///
    /// # Errors
    ///
    /// Where CPU time is lost.
    pub fn tidy(&mut self, selections: &[&Selection]) -> Result<(), CpuTimeError> {
        if !selections.is_empty() && self.chosen.is_none_or(|chosen| chosen.elapsed() >= CHOOSE_EVERY) {
            self.chosen = Some(Instant::now());
            let (filtered, everyone): (Vec<&Selection>, Vec<&Selection>) =
                selections.iter().partition(|selection| selection.is_filtered());
            let matches = |process: &Process, cgroup: &str, tenant: &Tenant| {
                filtered
                    .iter()
                    .any(|selection| selection.matches(process, cgroup, Some(tenant)))
            };
            let listed: Option<ListedTenant<'_>> = if filtered.is_empty() { None } else { Some(&matches) };
            self.machine.watch_memory(listed, !everyone.is_empty());
        }
        self.machine.tidy()
    }

    /// When GPUs are waited for no longer, if they are.
    pub fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.due)
    }

    /// Is told whenever a GPU has answered.
    pub fn answered(&self) -> Arc<Notify> {
        self.machine.gpus().answered()
    }

    /// The oldest interval, if its GPUs have answered or are not waited for any longer.
    pub fn ready(&mut self) -> Option<(Interval, C)> {
        let waiting = self.waiting.front()?;
        if self.machine.is_ready(&waiting.drained) {
            self.oldest()
        } else {
            None
        }
    }

    /// The oldest interval; its GPUs are waited for.
    pub fn oldest(&mut self) -> Option<(Interval, C)> {
        let Waiting { drained, changes, .. } = self.waiting.pop_front()?;
        Some((self.machine.complete(drained), changes))
    }
}
