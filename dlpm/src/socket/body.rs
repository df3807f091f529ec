//! Bodies of answers: a text, or the stream of a recording.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::{feed::Ask, http::Site, outbox::Outbox};

/// What is sent.
pub enum Answer {
    /// A text.
    Whole(Option<Bytes>),
    /// Lines, as they come.
    Stream(Stream),
}

impl Answer {
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::Whole(Some(text.into()))
    }
}

type Next = Pin<Box<dyn Future<Output = Option<String>>>>;

/// The stream of a recording, which lives as long as it.
pub struct Stream {
    guard: Guard,
    outbox: Rc<Outbox>,
    next: Option<Next>,
}

impl Stream {
    pub fn new(guard: Guard, outbox: Rc<Outbox>) -> Self {
        Self {
            guard,
            outbox,
            next: None,
        }
    }

    /// The whole of it as one text, of at most so many bytes, without the lines that are not of a log.
    pub async fn one_line(self) -> Option<String> {
        let mut line = None;
        while let Some(text) = self.outbox.next().await {
            let is_sample = text.starts_with("{\"date\"");
            line = line.or_else(|| is_sample.then_some(text));
        }
        drop(self.guard);
        line
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Stream(stream) => {
                let outbox = Rc::clone(&stream.outbox);
                let next = stream
                    .next
                    .get_or_insert_with(|| Box::pin(async move { outbox.next().await }));
                let text = std::task::ready!(next.as_mut().poll(context));
                stream.next = None;
                Poll::Ready(text.map(|text| Ok(Frame::data(text.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// A recording in the table: dropped, it is taken out.
pub struct Guard {
    site: Rc<RefCell<Site>>,
    id: u64,
}

impl Guard {
    pub fn new(site: Rc<RefCell<Site>>, id: u64) -> Self {
        Self { site, id }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut site = self.site.borrow_mut();
        let tree = site.recordings.remove(self.id);
        let asker = site.asker.clone();
        let watched = site.recordings.watched();
        drop(site);
        let site = Rc::clone(&self.site);
        tokio::task::spawn_local(async move {
            if let Some(tree) = tree {
                asker.ask_when_free(Ask::Forget(tree)).await;
                site.borrow_mut().recordings.forgotten(tree);
            }
            asker.ask_when_free(Ask::Watch(watched)).await;
        });
    }
}
