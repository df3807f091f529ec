//! A connection that is watched: what it is doing, until when it may, and when an answer was written whole.

use std::{
    io,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::sleep_until,
};

/// How long the head of a request may take, TLS and the pause since the last answer included.
const HEAD: Duration = Duration::from_secs(10);

/// How long an answer may take, until the client's system has all of it.
const ANSWER: Duration = Duration::from_secs(15);

/// What a connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// Since when nothing has gone forward: a request came whole, or bytes of an answer went out. Single bytes of a
    /// request are not progress.
    since: Instant,
    due: Instant,
    is_answering: bool,
    /// All of the answer is in the buffers of this process.
    is_buffered: bool,
    is_evicted: bool,
}

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        let state = State {
            since: now,
            due: now + HEAD,
            is_answering: false,
            is_buffered: false,
            is_evicted: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How soon this connection gives its place to another one: the smallest value goes first. Who has asked for
    /// nothing goes before who is being answered, then who has stood still longest.
    pub(super) fn rank(&self) -> (bool, Instant) {
        let state = self.state();
        (state.is_answering, state.since)
    }

    /// A request has come whole.
    pub(super) fn asked(&self, now: Instant) {
        let mut state = self.state();
        state.is_answering = true;
        state.is_buffered = false;
        state.since = now;
        state.due = now + ANSWER;
    }

    /// The answer is in this process's buffers.
    pub(super) fn buffered(&self) {
        self.state().is_buffered = true;
    }

    /// Bytes went to the client.
    fn progressed(&self) {
        self.state().since = Instant::now();
    }

    /// Nothing is left in this process's buffers. `true` if that was the end of an answer.
    fn flushed(&self, now: Instant) -> bool {
        let mut state = self.state();
        if !(state.is_answering && state.is_buffered) {
            return false;
        }
        state.is_answering = false;
        state.is_buffered = false;
        state.since = now;
        state.due = now + HEAD;
        drop(state);
        // The end has come nearer.
        self.changed.notify_one();
        true
    }

    /// Another connection takes the place of this one.
    pub(super) fn evict(&self) {
        self.state().is_evicted = true;
        self.changed.notify_one();
    }

    /// Ends when the connection has to.
    pub(super) async fn over(&self) {
        loop {
            let due = {
                let state = self.state();
                if state.is_evicted || state.due <= Instant::now() {
                    return;
                }
                state.due
            };
            tokio::select! {
                () = sleep_until(due.into()) => {}
                () = self.changed.notified() => {}
            }
        }
    }
}

/// A stream that tells an [`Activity`] what goes out.
pub(super) struct Watched<'a, S> {
    stream: S,
    activity: &'a Activity,
    /// Called when an answer was written whole.
    delivered: &'a (dyn Fn() + Sync),
}

impl<'a, S> Watched<'a, S> {
    pub(super) fn new(stream: S, activity: &'a Activity, delivered: &'a (dyn Fn() + Sync)) -> Self {
        Self {
            stream,
            activity,
            delivered,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.activity.progressed();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        self.activity.progressed();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if self.activity.flushed(Instant::now()) {
            (self.delivered)();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_ends_when_its_time_is_over_or_it_is_evicted() {
        let activity = Activity::new(Instant::now());
        activity.evict();
        activity.over().await;
        let long_ago = Instant::now().checked_sub(HEAD).unwrap();
        let slow = Activity::new(long_ago);
        slow.over().await;
        slow.asked(Instant::now());
        let waits = tokio::time::timeout(Duration::from_millis(20), slow.over());
        assert!(waits.await.is_err(), "its answer has time");
    }

    #[test]
    fn an_answer_is_delivered_once_and_only_whole() {
        let now = Instant::now();
        let activity = Activity::new(now);
        assert!(!activity.flushed(now), "nothing was asked");
        activity.asked(now);
        assert!(!activity.flushed(now), "the answer is not there yet");
        activity.buffered();
        assert!(activity.flushed(now));
        assert!(!activity.flushed(now));
    }

    #[test]
    fn who_has_not_asked_goes_first_and_then_who_stands_still() {
        let now = Instant::now();
        let at = |seconds| Activity::new(now + Duration::from_secs(seconds));
        let (old, new, asked) = (at(0), at(5), at(0));
        asked.asked(now + Duration::from_secs(1));
        assert!(old.rank() < new.rank() && new.rank() < asked.rank());
        let asked_later = at(0);
        asked_later.asked(now + Duration::from_secs(2));
        assert!(asked.rank() < asked_later.rank());
    }
}
