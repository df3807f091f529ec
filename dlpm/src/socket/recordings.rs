//! All recordings: who may begin one, who gets which border, and what each is asked for.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    asked::{roots, selection},
    feed::{Ask, Asker, Root, Told},
    outbox::Outbox,
    peer::Peer,
    recording::{Pace, Recording, Sight, Views},
    wire::{BorderAnswer, MarkRequest, RecordingFacts, RecordingRequest},
};
use crate::{
    attribution::{Options, selection::Selection},
    engine::{
        Recorder,
        mark_rate::{self, MarkRate},
    },
    interval::Trees,
    phases::{Border, Change, Phases},
    sinks::segments::Encoding,
};

/// Recordings of one user, and of all together.
const MOST_OF_ONE: usize = 16;
const MOST: usize = 60;

/// Lines that wait for a reader, in bytes: of one user's processes, and of everybody's.
const BACKLOG_OF_ONE_BYTES: usize = 2 << 20;
const BACKLOG_OF_ALL_BYTES: usize = 16 << 20;

/// So many times the marks of one trace are taken of all recordings together.
const MARKS_OF_ALL: u32 = 2;

/// Why something is refused, with what HTTP says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The request makes no sense.
    Wrong(String),
    /// There is nothing with that name that the caller may see.
    Unknown(String),
    /// Not for this caller.
    Forbidden(String),
    /// Too many, or too fast.
    TooMany(String),
    /// Not now.
    Busy(String),
}

/// Who waits for a border.
enum Waiting {
    Begin {
        id: u64,
    },
    Mark {
        id: u64,
        changes: Vec<Change>,
        answer: Answer,
    },
    End {
        id: u64,
        answer: Answer,
    },
    Tick(u64),
}

type Answer = oneshot::Sender<BorderAnswer>;

/// A recording that has been let in and has to be followed up: roots first, then its first border.
pub struct Admitted {
    pub id: u64,
    pub outbox: Rc<Outbox>,
    /// Roots of its tree, with the number of the tree.
    pub roots: Vec<(u32, Root)>,
    pub tree: Option<u8>,
    /// Whose roots they have to be.
    pub uid: Option<u32>,
}

/// The recordings that there are.
pub struct Recordings {
    asker: Asker,
    encoding: Encoding,
    agent_interval_ms: u64,
    all: BTreeMap<u64, Recording>,
    /// Trees of recordings that have ended, which the measuring thread has yet to be told: were one followed anew before
    /// that, it would be forgotten afterwards.
    leaving: Trees,
    next_id: u64,
    waiting: HashMap<u64, Waiting>,
    next_number: u64,
    /// By length in ms, when the next border of such recordings is due.
    due: BTreeMap<u64, Instant>,
    origin: Instant,
    marks: MarkRate,
    marks_of: HashMap<u32, MarkRate>,
}

impl Recordings {
    /// None yet. `agent_interval_ms` is the length of the agent's own intervals.
    pub fn new(asker: Asker, encoding: Encoding, agent_interval_ms: u64) -> Self {
        Self {
            asker,
            encoding,
            agent_interval_ms,
            all: BTreeMap::new(),
            leaving: Trees::default(),
            next_id: 1,
            waiting: HashMap::new(),
            next_number: 0,
            due: BTreeMap::new(),
            origin: Instant::now(),
            marks: MarkRate::times(MARKS_OF_ALL),
            marks_of: HashMap::new(),
        }
    }

    /// Lets a recording in. It begins when [`Self::begin`] is called.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn admit(
        &mut self,
        peer: &Peer,
        sees_all: bool,
        request: &RecordingRequest,
        once: bool,
    ) -> Result<Admitted, Refused> {
        if let Some(wrong) = request.wrong() {
            return Err(Refused::Wrong(wrong));
        }
        if self.all.values().filter(|recording| recording.uid == peer.uid).count() >= MOST_OF_ONE {
            return Err(Refused::TooMany(format!(
                "user {} has {MOST_OF_ONE} recordings, which is the maximum: end one first",
                peer.uid
            )));
        }
        if self.all.len() >= MOST {
            return Err(Refused::Busy(format!(
                "{MOST} recordings are running, which is the maximum: try again later"
            )));
        }
        let follows = !request.follow.is_empty();
        let used = self.all.values().filter_map(|recording| recording.tree);
        let used = used.fold(self.leaving, |used, tree| used.and(Trees::one(tree)));
        let tree = if follows { used.first_free() } else { None };
        if follows && tree.is_none() {
            return Err(Refused::Busy("too many trees are followed: try again later".to_owned()));
        }
        let roots = roots(request, peer)?;
        let sight = if sees_all { Sight::All } else { Sight::Own(peer.uid) };
        let base = self.asker.base();
        let options = Options {
            selection: selection(request, sight, tree)?,
            max_rows: request
                .max_rows
                .map_or(base.options.max_rows.min(2_000), |rows| rows as usize),
            ..base.options
        };
        let limit = if sees_all {
            BACKLOG_OF_ALL_BYTES
        } else {
            BACKLOG_OF_ONE_BYTES
        };
        let outbox = Outbox::new(limit);
        let pace = match request.interval_ms {
            Some(ms) if ms != self.agent_interval_ms => Pace::Every(ms),
            _ => Pace::Agent,
        };
        let encoding = Encoding {
            identity: base.facts.identity,
            ..self.encoding.clone()
        };
        let mut recorder = Recorder::new(options, encoding, None);
        if let Some(phases) = &request.phases {
            recorder.go_on_with(Phases::of(phases.clone()).map_err(Refused::Wrong)?);
        }
        let mut recording = Recording::new(peer.uid, sight, pace, recorder, Rc::clone(&outbox));
        recording.tree = tree;
        if once {
            recording = recording.once();
        }
        let id = self.next_id;
        self.next_id += 1;
        self.all.insert(id, recording);
        self.asker.count(self.all.len());
        Ok(Admitted {
            id,
            outbox,
            roots,
            tree,
            uid: (!sees_all).then_some(peer.uid),
        })
    }

    /// Its processes are known: it begins with the next border, which is asked for.
    ///
    /// # Errors
    ///
    /// Where too much is asked for already.
    pub fn begin(&mut self, id: u64) -> Result<(), Refused> {
        if let Some(Pace::Every(ms)) = self.all.get(&id).map(|recording| recording.pace) {
            let next = self.next_due(ms);
            self.due.entry(ms).or_insert(next);
        }
        self.ask(Waiting::Begin { id })
    }

    /// A mark in a recording: its border comes by `answer`; where there need not be one, the answer is the newest.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn mark(
        &mut self,
        id: u64,
        peer: &Peer,
        mark: &MarkRequest,
    ) -> Result<oneshot::Receiver<BorderAnswer>, Refused> {
        let now = Instant::now();
        let request = mark.request().map_err(Refused::Wrong)?;
        let recording = own(&mut self.all, id, peer)?;
        let of_user = self.marks_of.entry(recording.uid).or_default();
        // An end is always possible: there are no more of them than beginnings.
        if mark.end.is_none() && !(of_user.allows(now) && self.marks.allows(now)) {
            return Err(Refused::TooMany(mark_rate::refusal()));
        }
        let changes = match &request {
            Some(request) => recording.recorder().apply(request).map_err(Refused::Wrong)?,
            None => Vec::new(),
        };
        of_user.take(now);
        self.marks.take(now);
        let (answer, answered) = oneshot::channel();
        self.ask(Waiting::Mark { id, changes, answer })?;
        Ok(answered)
    }

    /// Ends a recording at the next border, which comes by the answer.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn end(&mut self, id: u64, peer: &Peer) -> Result<oneshot::Receiver<BorderAnswer>, Refused> {
        own(&mut self.all, id, peer)?;
        let (answer, answered) = oneshot::channel();
        self.ask(Waiting::End { id, answer })?;
        Ok(answered)
    }

    /// Nobody reads a recording any longer, or it has ended. The tree that is to be forgotten, and is free after [`Self::forgotten`].
    pub fn remove(&mut self, id: u64) -> Option<u8> {
        let recording = self.all.remove(&id)?;
        self.asker.count(self.all.len());
        let is_used = |ms: u64| self.all.values().any(|recording| recording.pace == Pace::Every(ms));
        if let Pace::Every(ms) = recording.pace
            && !is_used(ms)
        {
            self.due.remove(&ms);
        }
        if self.all.is_empty() {
            self.marks_of.clear();
        }
        if let Some(tree) = recording.tree {
            self.leaving = self.leaving.and(Trees::one(tree));
        }
        recording.tree
    }

    /// The measuring thread is told to forget a tree before whatever it is told from now on.
    pub fn forgotten(&mut self, tree: u8) {
        self.leaving = self.leaving.without(Trees::one(tree));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whose memory is to be read.
    pub fn watched(&self) -> Vec<Selection> {
        self.all
            .values()
            .map(|recording| recording.selection().clone())
            .collect()
    }

    /// When the next border is due that no request and no interval of the agent makes.
    pub fn due(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// Asks for the borders that are due.
    pub fn tick(&mut self, now: Instant) {
        let due: Vec<u64> = self
            .due
            .iter()
            .filter(|(_, due)| **due <= now)
            .map(|(ms, _)| *ms)
            .collect();
        for ms in due {
            let next = self.next_due(ms);
            self.due.insert(ms, next);
            if let Err(refused) = self.ask(Waiting::Tick(ms)) {
                log::warn!("an interval of recordings is longer than asked for: {refused:?}");
            }
        }
    }

    /// What the measuring thread tells. The recordings that have ended with it.
    pub fn hear(&mut self, told: &Told) -> Vec<u64> {
        match told {
            Told::Border {
                numbers,
                border,
                is_tick,
            } => {
                for number in numbers {
                    if let Some(waiting) = self.waiting.remove(number) {
                        self.border(waiting, *border);
                    }
                }
                if *is_tick {
                    self.cut_all(Pace::Agent, *border);
                }
                Vec::new()
            }
            Told::Interval(interval) => {
                let mut views = Views::of(interval);
                let mut ended = Vec::new();
                for (id, recording) in &mut self.all {
                    let is_over = recording.take(&mut views).unwrap_or_else(|error| {
                        log::error!("a recording ends, as its lines cannot be written: {error:#}");
                        true
                    });
                    if is_over {
                        ended.push(*id);
                    }
                }
                ended
            }
            Told::Stop => {
                for recording in self.all.values_mut() {
                    if let Err(error) = recording.stop() {
                        log::error!("the end of a recording cannot be written: {error:#}");
                    }
                }
                self.all.keys().copied().collect()
            }
        }
    }

    fn border(&mut self, waiting: Waiting, border: Border) {
        let at_ns = border.at_ns;
        match waiting {
            Waiting::Begin { id } => {
                let interval_ms = match self.all.get(&id).map(|recording| recording.pace) {
                    Some(Pace::Every(ms)) => ms,
                    _ => self.agent_interval_ms,
                };
                let facts = self.asker.base().facts;
                if let Some(recording) = self.all.get_mut(&id) {
                    let uid = match recording.selection().uids.as_slice() {
                        [uid] => Some(*uid),
                        _ => None,
                    };
                    recording.begin(
                        border,
                        RecordingFacts {
                            id,
                            version: env!("CARGO_PKG_VERSION").to_owned(),
                            begin_ns: at_ns,
                            interval_ms,
                            uid,
                            machine: facts,
                        },
                    );
                }
            }
            Waiting::Mark { id, changes, answer } => {
                if let Some(recording) = self.all.get_mut(&id) {
                    let seq = recording.cut(border, changes);
                    let _ = answer.send(BorderAnswer { seq, at_ns });
                }
            }
            Waiting::End { id, answer } => {
                if let Some(recording) = self.all.get_mut(&id) {
                    let seq = recording.end_at(border);
                    let _ = answer.send(BorderAnswer { seq, at_ns });
                }
            }
            Waiting::Tick(ms) => self.cut_all(Pace::Every(ms), border),
        }
    }

    fn cut_all(&mut self, pace: Pace, border: Border) {
        let all = self.all.values_mut();
        for recording in all.filter(|recording| recording.pace == pace && recording.runs_at(border)) {
            recording.cut(border, Vec::new());
        }
    }

    fn ask(&mut self, waiting: Waiting) -> Result<(), Refused> {
        let number = self.next_number;
        self.next_number += 1;
        if !self.asker.ask(Ask::Border(number)) {
            return Err(Refused::Busy(
                "the agent has too many requests to answer: try again later".to_owned(),
            ));
        }
        self.waiting.insert(number, waiting);
        Ok(())
    }

    /// The next multiple of that length, so that recordings of one length have the same borders.
    fn next_due(&self, ms: u64) -> Instant {
        let passed = self.origin.elapsed().as_millis();
        let periods = u64::try_from(passed).unwrap_or(u64::MAX) / ms.max(1) + 1;
        self.origin + Duration::from_millis(periods.saturating_mul(ms))
    }
}

/// A recording that this caller may steer: one that it began, and for root any. Others do not exist for it.
fn own<'a>(all: &'a mut BTreeMap<u64, Recording>, id: u64, peer: &Peer) -> Result<&'a mut Recording, Refused> {
    let found = all.get_mut(&id);
    found
        .filter(|recording| peer.uid == 0 || recording.uid == peer.uid)
        .ok_or_else(|| Refused::Unknown(format!("there is no recording {id} of yours")))
}
