//! The network process's side of the conversation with the core: one question at a time, and what it said last.

use std::{
    collections::HashMap,
    future::Future,
    io::{self, Write as _},
    os::unix::net::UnixStream,
    sync::PoisonError,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use flate2::{Compression, write::GzEncoder};
use hyper::body::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};

use crate::web::{
    Format, Status,
    protocol::{self, Answer, LARGEST_ANSWER_BYTES, LARGEST_REQUEST_BYTES, Request},
};

/// How long the core may take for an answer. Beyond that clients are told.
const PATIENCE: Duration = Duration::from_secs(5);

/// For how long an answer of the core stands without another question: a flood of requests is one question.
const FRESH: Duration = Duration::from_millis(20);

/// Questions that wait. Connections are limited, and each has one at most.
const MOST_QUESTIONS: usize = 1_024;

/// Scrapers that are remembered.
const MOST_SCRAPERS: usize = 1_024;

/// The core does not answer in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silent;

/// Asks the core, and remembers.
#[derive(Debug)]
pub(super) struct Core {
    questions: mpsc::Sender<Question>,
    renderings: [Mutex<Rendering>; Format::ALL.len()],
    status: Mutex<Option<(Status, Instant)>>,
    /// What each scraper got last.
    told: std::sync::Mutex<HashMap<u64, u64>>,
}

#[derive(Debug)]
struct Question {
    request: Request,
    /// `None` for what is not answered.
    answer: Option<oneshot::Sender<Answer>>,
}

/// `/metrics` in one format.
#[derive(Debug, Default)]
struct Rendering {
    seq: Option<u64>,
    plain: Bytes,
    gzip: Option<Bytes>,
    asked: Option<Instant>,
}

impl Core {
    /// With the conversation, a future that ends when the core closes the connection.
    pub(super) fn new(connection: UnixStream) -> Result<(Self, impl Future<Output = Result<()>>)> {
        connection.set_nonblocking(true)?;
        let connection = tokio::net::UnixStream::from_std(connection).context("the core cannot be asked")?;
        let (questions, asked) = mpsc::channel(MOST_QUESTIONS);
        let core = Self {
            questions,
            renderings: Default::default(),
            status: Mutex::default(),
            told: std::sync::Mutex::default(),
        };
        Ok((core, talk(connection, asked)))
    }

    /// The newest `/metrics` and the interval that it is of, compressed by gzip if wanted.
    pub(super) async fn metrics(&self, format: Format, gzip: bool) -> Result<(u64, Bytes), Silent> {
        let rendering = self.renderings.get(format as usize).ok_or(Silent)?;
        let mut rendering = timeout(PATIENCE, rendering.lock()).await.map_err(|_| Silent)?;
        if !is_fresh(rendering.asked) || rendering.seq.is_none() {
            let have_seq = rendering.seq;
            match self.ask(Request::Metrics { format, have_seq }).await? {
                Answer::Metrics { seq, text } => {
                    *rendering = Rendering {
                        seq: Some(seq),
                        plain: text.into(),
                        ..Rendering::default()
                    };
                }
                Answer::Unchanged => {}
                Answer::Status(_) => return Err(Silent),
            }
            rendering.asked = Some(Instant::now());
        }
        let seq = rendering.seq.ok_or(Silent)?;
        if !gzip {
            return Ok((seq, rendering.plain.clone()));
        }
        let compressed = match &rendering.gzip {
            Some(compressed) => compressed.clone(),
            None => {
                let plain = rendering.plain.clone();
                let compressed = tokio::task::spawn_blocking(move || compress(&plain)).await;
                let compressed = compressed.map_err(|_| Silent)?.map_err(|_| Silent)?;
                rendering.gzip.insert(compressed).clone()
            }
        };
        Ok((seq, compressed))
    }

    /// The state of the measurement.
    pub(super) async fn status(&self) -> Result<Status, Silent> {
        let mut status = timeout(PATIENCE, self.status.lock()).await.map_err(|_| Silent)?;
        if let Some((status, asked)) = &*status
            && is_fresh(Some(*asked))
        {
            return Ok(status.clone());
        }
        let Answer::Status(json) = self.ask(Request::Status).await? else {
            return Err(Silent);
        };
        let told: Status = serde_json::from_slice(&json).map_err(|_| Silent)?;
        *status = Some((told.clone(), Instant::now()));
        Ok(told)
    }

    /// Tells the core that a scraper has got an interval, once. If this is lost, the next scrape says as much.
    pub(super) fn fetched(&self, scraper: u64, seq: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MOST_SCRAPERS {
            told.clear();
        }
        if told.insert(scraper, seq) == Some(seq) {
            return;
        }
        drop(told);
        let _ = self.questions.try_send(Question {
            request: Request::Fetched { scraper, seq },
            answer: None,
        });
    }

    /// Tells the core why a collector did not take a push.
    pub(super) fn not_taken(&self, why: String) {
        let _ = self.questions.try_send(Question {
            request: Request::NotTaken(why),
            answer: None,
        });
    }

    async fn ask(&self, request: Request) -> Result<Answer, Silent> {
        let (sender, answer) = oneshot::channel();
        let question = Question {
            request,
            answer: Some(sender),
        };
        let answered = async {
            self.questions.send(question).await.map_err(|_| Silent)?;
            answer.await.map_err(|_| Silent)
        };
        timeout(PATIENCE, answered).await.map_err(|_| Silent)?
    }
}

fn is_fresh(asked: Option<Instant>) -> bool {
    asked.is_some_and(|asked| asked.elapsed() < FRESH)
}

fn compress(plain: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain)?;
    Ok(encoder.finish()?.into())
}

/// Puts the questions to the core, one after another. Ends when the core is gone.
async fn talk(mut connection: tokio::net::UnixStream, mut asked: mpsc::Receiver<Question>) -> Result<()> {
    loop {
        tokio::select! {
            question = asked.recv() => {
                let Some(Question { request, answer }) = question else {
                    return Ok(());
                };
                let message = request.encode();
                let length = protocol::length(&message, LARGEST_REQUEST_BYTES)?;
                connection.write_all(&[&length, &message[..]].concat()).await?;
                if let Some(sender) = answer {
                    let Some(answer) = read(&mut connection).await? else {
                        return Ok(());
                    };
                    // Whoever asked may be gone.
                    let _ = sender.send(answer);
                }
            }
            // The core says nothing of itself: this is its end.
            readable = connection.readable() => {
                readable?;
                match connection.try_read(&mut [0]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(0) | Err(_) => return Ok(()),
                    Ok(_) => bail!("the core said what it was not asked"),
                }
            }
        }
    }
}

async fn read(connection: &mut tokio::net::UnixStream) -> Result<Option<Answer>> {
    let mut length = [0; 4];
    match connection.read_exact(&mut length).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let mut message = vec![0; protocol::announced(length, LARGEST_ANSWER_BYTES)?];
    connection.read_exact(&mut message).await?;
    Answer::decode(message)
        .context("the core said what is not understood")
        .map(Some)
}
