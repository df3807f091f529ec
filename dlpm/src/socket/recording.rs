//! One recording: from the intervals of the machine to lines, with the borders that it asked for and no others.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
    sync::Arc,
};

use anyhow::Result;

use super::{
    outbox::Outbox,
    wire::{EndReason, RecordingEnd, RecordingFacts, StreamLine},
};
use crate::{
    attribution::selection::Selection,
    engine::Recorder,
    interval::{Interval, SwitchCost},
    phases::{Border, Change},
};

/// What is seen of intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sight {
    /// The processes of one user.
    Own(u32),
    /// Everybody's.
    All,
}

/// Views of one interval: made once, however many recordings have them.
pub struct Views<'a> {
    interval: &'a Arc<Interval>,
    made: HashMap<Sight, Arc<Interval>>,
}

impl<'a> Views<'a> {
    pub fn of(interval: &'a Arc<Interval>) -> Self {
        Self {
            interval,
            made: HashMap::new(),
        }
    }

    fn get(&mut self, sight: Sight) -> Arc<Interval> {
        let interval = self.interval;
        let view = self.made.entry(sight).or_insert_with(|| match sight {
            Sight::Own(uid) => Arc::new(interval.seen_by(uid)),
            Sight::All if interval.cgroup_memory.is_empty() => Arc::clone(interval),
            Sight::All => Arc::new(without_cgroup_memory(interval)),
        });
        Arc::clone(view)
    }
}

/// As `dlpm trace` has it: DRAM is split by the memory of processes.
fn without_cgroup_memory(interval: &Interval) -> Interval {
    let mut interval = interval.clone();
    interval.cgroup_memory.clear();
    if let Some(memory) = &mut interval.machine_memory {
        memory.free_bytes = None;
    }
    interval
}

/// When the intervals of a recording end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// With those of the agent.
    Agent,
    /// Every so many milliseconds.
    Every(u64),
}

/// A recording.
pub struct Recording {
    /// The user who began it.
    pub uid: u32,
    pub pace: Pace,
    /// The tree that it follows.
    pub tree: Option<u8>,
    sight: Sight,
    recorder: Recorder,
    /// What has happened since its last line.
    pending: Option<Arc<Interval>>,
    /// Number of the machine's interval that comes next; `None` before its first border.
    next: Option<u64>,
    /// Its borders that are to come, by the number of the machine's interval after them.
    cuts: BTreeMap<u64, Vec<Change>>,
    /// The border at which it ends.
    end: Option<u64>,
    /// Number of its next line.
    seq: u64,
    switch_cost: Option<SwitchCost>,
    outbox: Rc<Outbox>,
    /// It ends after one line.
    once: bool,
    /// Its last line is written.
    is_over: bool,
}

impl Recording {
    /// One that has not begun.
    pub fn new(uid: u32, sight: Sight, pace: Pace, recorder: Recorder, outbox: Rc<Outbox>) -> Self {
        Self {
            uid,
            pace,
            tree: None,
            sight,
            recorder,
            pending: None,
            next: None,
            cuts: BTreeMap::new(),
            end: None,
            seq: 0,
            switch_cost: None,
            outbox,
            once: false,
            is_over: false,
        }
    }

    /// The same, with one line.
    pub fn once(self) -> Self {
        Self { once: true, ..self }
    }

    /// Who is listed.
    pub fn selection(&self) -> &Selection {
        self.recorder.selection()
    }

    /// Its phases and sums.
    pub fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// Its first interval begins.
    pub fn begin(&mut self, border: Border, facts: RecordingFacts) {
        self.next = Some(border.seq);
        let facts = RecordingFacts {
            begin_ns: border.at_ns,
            ..facts
        };
        self.outbox.begin(&StreamLine::Recording(Box::new(facts)));
    }

    /// Whether its first interval has begun before this border.
    pub fn runs_at(&self, border: Border) -> bool {
        !self.is_over && self.next.is_some_and(|next| next < border.seq) && self.end.is_none_or(|end| end > border.seq)
    }

    /// One of its intervals ends here. The number of the one after it.
    pub fn cut(&mut self, border: Border, changes: Vec<Change>) -> u64 {
        self.cuts.entry(border.seq).or_default().extend(changes);
        if self.once {
            self.end.get_or_insert(border.seq);
        }
        let before = self.cuts.range(..=border.seq).count();
        self.seq + u64::try_from(before).unwrap_or(u64::MAX)
    }

    /// It ends here. The number that its next interval would have.
    pub fn end_at(&mut self, border: Border) -> u64 {
        let seq = self.cut(border, Vec::new());
        self.end.get_or_insert(border.seq);
        seq
    }

    /// The next interval of the machine is complete. Whether the recording has ended with it.
    ///
    /// # Errors
    ///
    /// Where a line cannot be written as JSON.
    pub fn take(&mut self, views: &mut Views<'_>) -> Result<bool> {
        let seq = views.interval.seq;
        let Some(next) = self.next.filter(|next| *next <= seq && !self.is_over) else {
            return Ok(false);
        };
        if next < seq {
            self.miss(seq)?;
            if self.has_ended_before(seq) {
                return self.finish(EndReason::Asked).map(|()| true);
            }
        }
        self.next = Some(seq + 1);
        self.switch_cost = views.interval.switch_cost.or(self.switch_cost);
        let view = views.get(self.sight);
        self.pending = match self.pending.take() {
            None => Some(view),
            Some(before) => match before.followed_by(&view) {
                Some(merged) => Some(Arc::new(merged)),
                None => {
                    self.write(&before)?;
                    Some(view)
                }
            },
        };
        if let Some(changes) = self.cuts.remove(&(seq + 1)) {
            self.flush()?;
            self.outbox.add(self.recorder.change(&changes)?);
        }
        if self.has_ended_before(seq + 1) {
            return self.finish(EndReason::Asked).map(|()| true);
        }
        Ok(false)
    }

    fn has_ended_before(&self, seq: u64) -> bool {
        self.end.is_some_and(|end| end <= seq)
    }

    /// Intervals before the one with this number were left out: the recording has a gap, and its phases keep their order.
    fn miss(&mut self, seq: u64) -> Result<()> {
        self.flush()?;
        let later = self.cuts.split_off(&(seq + 1));
        for changes in std::mem::replace(&mut self.cuts, later).into_values() {
            self.outbox.add(self.recorder.change(&changes)?);
        }
        // A number is missing where intervals are.
        self.seq += 1;
        Ok(())
    }

    /// The agent stops: what there is is written.
    ///
    /// # Errors
    ///
    /// As [`Self::take`].
    pub fn stop(&mut self) -> Result<()> {
        self.flush()?;
        self.finish(EndReason::AgentStops)
    }

    fn finish(&mut self, reason: EndReason) -> Result<()> {
        if std::mem::replace(&mut self.is_over, true) {
            return Ok(());
        }
        self.flush()?;
        self.outbox.add(self.recorder.end()?);
        self.outbox.end(&StreamLine::Ended(RecordingEnd {
            reason,
            switch_cost: self.switch_cost,
        }));
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        match self.pending.take() {
            Some(pending) => self.write(&pending),
            None => Ok(()),
        }
    }

    fn write(&mut self, interval: &Interval) -> Result<()> {
        let mut ledger = self.recorder.attribute(interval);
        ledger.seq = self.seq;
        self.seq += 1;
        self.outbox.add(self.recorder.add(&ledger)?);
        Ok(())
    }
}
