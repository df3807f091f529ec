//! The other end of the socket: what `dlpm trace` says to the agent when it is not root.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::wire::{
    BorderAnswer, JobAnswer, MarkRequest, RecordingFacts, RecordingRequest, Refusal, StreamLine, VERSION,
};

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Bytes of an answer at most, and of one line of a stream.
const LARGEST_ANSWER_BYTES: usize = 1 << 20;
const LONGEST_LINE_BYTES: usize = 64 << 20;

/// Why the agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("there is no agent at {}: {source}", .path.display())]
    Absent {
        /// Where the socket was looked for.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Who listens is not to be trusted with what is measured.
    #[error(
        "the socket {} belongs to user {uid}, and not to root or to you: it is not that of an agent of this machine",
        .path.display()
    )]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// It refuses.
    #[error("the agent refuses: {0}")]
    Refused(String),
    /// The connection broke, or the answer makes no sense.
    #[error("the agent does not answer as it should: {0}")]
    Broken(String),
}

fn broken(error: impl std::fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}

/// Asks the agent behind one socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// Of this socket.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks whether an agent is there.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn look(&self) -> Result<(), ClientError> {
        self.connect().await.map(drop)
    }

    /// Begins a recording; it ends when the stream is dropped.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn record(&self, request: &RecordingRequest) -> Result<(RecordingFacts, Lines), ClientError> {
        let response = self.ask(Method::POST, "recordings", Some(request)).await?;
        let mut lines = Lines {
            body: response.into_body(),
            buffer: Vec::new(),
            searched: 0,
        };
        let first = tokio::time::timeout(PATIENCE, lines.next())
            .await
            .map_err(|_| broken("the recording does not begin"))??
            .ok_or_else(|| broken("the recording ended before it began"))?;
        match serde_json::from_slice(&first).map_err(broken)? {
            StreamLine::Recording(facts) => Ok((*facts, lines)),
            StreamLine::Ended(_) => Err(broken("the recording ended before it began")),
        }
    }

    /// Sets a mark in a recording.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn mark(&self, id: u64, mark: &MarkRequest) -> Result<BorderAnswer, ClientError> {
        let response = self
            .ask(Method::POST, &format!("recordings/{id}/marks"), Some(mark))
            .await?;
        parsed(response).await
    }

    /// Ends a recording; its last lines are still to be read.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn end(&self, id: u64) -> Result<BorderAnswer, ClientError> {
        let nothing: Option<&()> = None;
        let response = self.ask(Method::DELETE, &format!("recordings/{id}"), nothing).await?;
        parsed(response).await
    }

    /// What a job uses that runs. `id` has characters of a path alone.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn job(&self, id: &str) -> Result<JobAnswer, ClientError> {
        let nothing: Option<&()> = None;
        parsed(self.ask(Method::GET, &format!("jobs/{id}"), nothing).await?).await
    }

    async fn ask(
        &self,
        method: Method,
        what: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>, ClientError> {
        let body = body.map(serde_json::to_vec).transpose().map_err(broken)?;
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the answer.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("/{VERSION}/{what}"))
            .header("host", "dlpm")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(broken)?;
        let answered = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
        let response = answered
            .map_err(|_| broken(format!("no answer came within {} s", PATIENCE.as_secs())))?
            .map_err(broken)?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let refusal: Refusal = parsed(response).await?;
        Err(ClientError::Refused(refusal.error))
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|source| ClientError::Absent {
                path: self.path.clone(),
                source,
            })?;
        let uid = stream.peer_cred().map_err(broken)?.uid();
        if uid != 0 && uid != rustix::process::geteuid().as_raw() {
            return Err(ClientError::Stranger {
                path: self.path.clone(),
                uid,
            });
        }
        Ok(stream)
    }
}

async fn parsed<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    let body = Limited::new(response.into_body(), LARGEST_ANSWER_BYTES);
    let body = tokio::time::timeout(PATIENCE, body.collect())
        .await
        .map_err(|_| broken("the answer does not end"))?
        .map_err(broken)?;
    serde_json::from_slice(&body.to_bytes()).map_err(broken)
}

/// The lines of a recording.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    /// So many bytes of it have no newline.
    searched: usize,
}

impl Lines {
    /// Waits for the next line, without its newline; `None` at the end. Loses nothing if it is dropped.
    ///
    /// # Errors
    ///
    /// [`ClientError::Broken`].
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let end = self.searched + end;
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.truncate(end);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LONGEST_LINE_BYTES {
                return Err(broken("a line is too long"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(broken(error)),
                // What is left is not a whole line.
                None => return Ok(None),
            }
        }
    }
}
