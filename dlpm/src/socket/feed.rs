//! Between the thread that measures and the one that serves the socket. The first never waits for the second.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    attribution::{Options, selection::Selection},
    interval::Interval,
    phases::Border,
    socket::wire::MachineFacts,
};

/// Requests that wait for the measuring thread at most.
const ASKS: usize = 1_024;

/// Intervals on their way at most, and usage records in them. What comes on top is left out, and the recordings have a
/// gap.
const MOST_INTERVALS: usize = 64;
const MOST_RECORDS: usize = 200_000;

/// What a root stands for in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// Itself and its descendants.
    Whole,
    /// Its descendants.
    Descendants,
}

/// What the serving thread asks of the measuring one.
#[derive(Debug)]
pub enum Ask {
    /// End the interval now. The number comes back with the border.
    Border(u64),
    /// Follow a process, if it has that real user id.
    Follow {
        /// The process.
        pid: u32,
        /// What of it.
        root: Root,
        /// The tree.
        tree: u8,
        /// Whose it has to be; `None`: anybody's.
        uid: Option<u32>,
        /// Whether there is such a process.
        found: oneshot::Sender<bool>,
    },
    /// Follow a tree no longer.
    Forget(u8),
    /// Whose memory is read from now on.
    Watch(Vec<Selection>),
}

/// What the measuring thread tells, in the order in which it happened.
#[derive(Debug)]
pub enum Told {
    /// An interval has ended.
    Border {
        /// Who asked for it.
        numbers: Vec<u64>,
        /// Where.
        border: Border,
        /// It is also the end of one of the agent's own intervals.
        is_tick: bool,
    },
    /// An interval is complete. Some may be missing.
    Interval(Arc<Interval>),
    /// No more will come.
    Stop,
}

/// What every recording begins with.
#[derive(Clone, Debug, Default)]
pub struct Base {
    /// How intervals are attributed, without a selection.
    pub options: Options,
    /// The same in words.
    pub facts: MachineFacts,
}

#[derive(Debug, Default)]
struct Shared {
    /// Recordings that there are.
    recordings: AtomicUsize,
    intervals: AtomicUsize,
    records: AtomicUsize,
    base: Mutex<Base>,
}

impl Shared {
    fn base(&self) -> MutexGuard<'_, Base> {
        self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The measuring thread's end.
#[derive(Debug)]
pub struct Feed {
    asks: mpsc::Receiver<Ask>,
    told: mpsc::UnboundedSender<Told>,
    shared: Arc<Shared>,
}

/// The serving thread's end.
#[derive(Debug)]
pub struct Source {
    asks: mpsc::Sender<Ask>,
    told: mpsc::UnboundedReceiver<Told>,
    shared: Arc<Shared>,
}

/// Asks, from any task of the serving thread.
#[derive(Clone, Debug)]
pub struct Asker {
    asks: mpsc::Sender<Ask>,
    shared: Arc<Shared>,
}

/// Both ends.
pub fn feed(base: Base) -> (Feed, Source) {
    let (ask, asks) = mpsc::channel(ASKS);
    let (tell, told) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        base: Mutex::new(base),
        ..Shared::default()
    });
    let feed = Feed {
        asks,
        told: tell,
        shared: Arc::clone(&shared),
    };
    (
        feed,
        Source {
            asks: ask,
            told,
            shared,
        },
    )
}

impl Feed {
    /// Waits for requests: all that are there, at least one. Loses none if it is dropped.
    pub async fn asks(&mut self) -> Vec<Ask> {
        let mut asks = Vec::new();
        if self.asks.recv_many(&mut asks, ASKS).await == 0 {
            // Nobody serves any more; nothing will come.
            std::future::pending::<()>().await;
        }
        asks
    }

    /// Whether anybody records.
    pub fn is_wanted(&self) -> bool {
        self.shared.recordings.load(Ordering::Relaxed) > 0
    }

    /// Tells where an interval ended, at that moment.
    pub fn border(&self, numbers: Vec<u64>, border: Border, is_tick: bool) {
        if self.is_wanted() || !numbers.is_empty() {
            self.tell(Told::Border {
                numbers,
                border,
                is_tick,
            });
        }
    }

    /// Hands a complete interval on; leaves it out where too many wait.
    pub fn interval(&self, interval: &Arc<Interval>) {
        if !self.is_wanted() {
            return;
        }
        let records = interval.usage.len();
        let shared = &self.shared;
        if shared.intervals.load(Ordering::Relaxed) >= MOST_INTERVALS
            || shared.records.load(Ordering::Relaxed) + records > MOST_RECORDS.max(records)
        {
            return;
        }
        shared.intervals.fetch_add(1, Ordering::Relaxed);
        shared.records.fetch_add(records, Ordering::Relaxed);
        self.tell(Told::Interval(Arc::clone(interval)));
    }

    /// No more will come.
    pub fn stop(&self) {
        self.tell(Told::Stop);
    }

    /// How intervals are attributed by recordings that begin from now on.
    pub fn attribute_by(&self, options: &Options) {
        let mut base = self.shared.base();
        base.facts.idle_policy = options.idle_policy;
        base.facts.idle_floors_mw.clone_from(&options.idle_floors_mw);
        base.options = options.clone();
    }

    fn tell(&self, told: Told) {
        // Nobody serves any more.
        let _ = self.told.send(told);
    }
}

impl Source {
    /// What the measuring thread tells next.
    pub async fn told(&mut self) -> Told {
        let told = self.told.recv().await.unwrap_or(Told::Stop);
        if let Told::Interval(interval) = &told {
            self.shared.intervals.fetch_sub(1, Ordering::Relaxed);
            self.shared.records.fetch_sub(interval.usage.len(), Ordering::Relaxed);
        }
        told
    }

    /// For asking.
    pub fn asker(&self) -> Asker {
        Asker {
            asks: self.asks.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Asker {
    /// Asks; whether there was room.
    pub fn ask(&self, ask: Ask) -> bool {
        self.asks.try_send(ask).is_ok()
    }

    /// Asks as soon as there is room.
    pub async fn ask_when_free(&self, ask: Ask) {
        // Nobody measures any more.
        let _ = self.asks.send(ask).await;
    }

    /// So many recordings there are.
    pub fn count(&self, recordings: usize) {
        self.shared.recordings.store(recordings, Ordering::Relaxed);
    }

    /// What a recording begins with.
    pub fn base(&self) -> Base {
        self.shared.base().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::Usage;

    fn interval(records: usize) -> Arc<Interval> {
        Arc::new(Interval {
            usage: vec![Usage::default(); records],
            ..Interval::default()
        })
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let (feed, mut source) = feed(Base::default());
        feed.interval(&interval(1));
        assert!(source.told.try_recv().is_err(), "nobody records");
        source.asker().count(1);
        for _ in 0..1_000 {
            feed.interval(&interval(1));
        }
        assert_eq!(source.told.len(), MOST_INTERVALS);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for _ in 0..MOST_INTERVALS {
            runtime.block_on(source.told());
        }
        feed.interval(&interval(MOST_RECORDS));
        feed.interval(&interval(1));
        assert_eq!(source.told.len(), 1, "by their size as well");
        runtime.block_on(source.told());
        feed.interval(&interval(1));
        assert_eq!(source.told.len(), 1);
    }
}
