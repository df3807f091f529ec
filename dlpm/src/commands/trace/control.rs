//! The socket through which a running trace learns of phases. The protocol is described in `docs/phases.md`.
//!
//! Whoever connects is heard by a task of its own, so that a client that says nothing holds up nobody. What is a request
//! goes to the trace, which answers it itself, at the moment at which the CPUs are sealed.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};

use crate::{
    commands::caller::Caller,
    phases::{Answer, REQUEST_BYTES, Request},
    sinks::socket::{self, Listening},
};

/// Clients that are heard at the same time, and marks that wait, at most; more wait in the kernel.
const CLIENTS: usize = 256;

/// How long a client may take to say what it wants.
const HEARING: Duration = Duration::from_secs(2);

/// After a client could not be let in, for want of a file descriptor for example.
const PAUSE: Duration = Duration::from_millis(100);

/// How often that is reported at most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A mark that waits for its answer.
#[derive(Debug)]
pub struct Mark {
    client: UnixStream,
    request: Request,
}

impl Mark {
    /// What is asked for.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Answers, and closes the connection. Never waits.
    pub fn answer(self, answer: &Answer) {
        say(&self.client, answer);
    }
}

/// The trace's end of the socket.
pub struct Control {
    path: PathBuf,
    marks: mpsc::Receiver<Mark>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    /// Removes a socket that is not in the folder of the log.
    _remove: Option<Remove>,
}

struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        // Left behind, it is replaced by the next trace into the same folder.
        let _ = socket::remove(&self.0);
    }
}

impl Control {
    /// Listens at the socket in `folder`, or under `/run` where that could not be made, for this user and root.
    ///
    /// # Errors
    ///
    /// Where neither can be had.
    pub fn start(in_folder: io::Result<Listening>, folder: &Path, caller: Option<&Caller>) -> io::Result<Self> {
        let (uid, gid) = caller.map_or_else(
            || {
                let gid = rustix::process::getegid().as_raw();
                (rustix::process::geteuid().as_raw(), gid)
            },
            |caller| (caller.uid, caller.gid),
        );
        let (listening, remove) = match in_folder {
            Ok(listening) => (listening, None),
            Err(error) => {
                let listening = socket::make_under_run(folder, uid, gid)
                    .map_err(|other| io::Error::new(other.kind(), format!("in the folder: {error}; else: {other}")))?;
                let remove = Remove(listening.path.clone());
                (listening, Some(remove))
            }
        };
        let listener = UnixListener::from_std(listening.listener)?;
        let (sender, marks) = mpsc::channel(CLIENTS);
        let (stop, stopped) = oneshot::channel();
        Ok(Self {
            path: listening.path,
            marks,
            stop,
            serving: tokio::spawn(serve(listener, uid, sender, stopped)),
            _remove: remove,
        })
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for marks: all that are there, at least one. Loses none if it is dropped.
    pub async fn marks(&mut self) -> Vec<Mark> {
        let mut marks = Vec::new();
        if self.marks.recv_many(&mut marks, CLIENTS).await == 0 {
            // Nobody serves any more; nothing will come.
            std::future::pending::<()>().await;
        }
        marks
    }

    /// Lets nobody in any more, and refuses whoever is there.
    pub async fn close(mut self) {
        let _ = self.stop.send(());
        let _ = self.serving.await;
        while let Ok(mark) = self.marks.try_recv() {
            mark.answer(&Answer::Refused(
                "the trace is ending: it takes no more marks".to_owned(),
            ));
        }
    }
}

async fn serve(listener: UnixListener, uid: u32, marks: mpsc::Sender<Mark>, mut stopped: oneshot::Receiver<()>) {
    let mut clients = JoinSet::new();
    let mut told: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            Some(_) = clients.join_next() => {}
            accepted = listener.accept(), if clients.len() < CLIENTS => match accepted {
                Ok((client, _)) => drop(clients.spawn(hear(client, uid, marks.clone()))),
                Err(error) => {
                    if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                        told = Some(Instant::now());
                        log::warn!("marks of phases cannot be received: {error}");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    clients.shutdown().await;
}

async fn hear(client: UnixStream, uid: u32, marks: mpsc::Sender<Mark>) {
    // Heard out also where it is refused: what is left unread would take the answer with it.
    let heard = tokio::time::timeout(HEARING, request(&client))
        .await
        .unwrap_or_else(|_| Err(format!("no request came within {} s", HEARING.as_secs())));
    let heard = match client.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == uid => heard,
        Ok(peer) => Err(format!("user {} may not mark phases of this trace", peer.uid())),
        Err(error) => Err(format!("the kernel does not say who is asking: {error}")),
    };
    match heard {
        // Where the trace is ending, the connection closes.
        Ok(request) => drop(marks.send(Mark { client, request }).await),
        Err(reason) => say(&client, &Answer::Refused(reason)),
    }
}

/// Reads one line.
async fn request(client: &UnixStream) -> Result<Request, String> {
    let mut line = [0; REQUEST_BYTES];
    let mut length = 0;
    loop {
        client.readable().await.map_err(|error| error.to_string())?;
        match client.try_read(&mut line[length..]) {
            Ok(0) if length == REQUEST_BYTES => {
                return Err(format!("a request has at most {REQUEST_BYTES} bytes, with its newline"));
            }
            Ok(0) => return Err("the request does not end with a newline".to_owned()),
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.to_string()),
        }
        if let Some(end) = line[..length].iter().position(|&byte| byte == b'\n') {
            return Request::parse(&line[..end]);
        }
    }
}

/// A client that has gone away, or does not take an answer of one line, is none of the trace's business.
fn say(client: &UnixStream, answer: &Answer) {
    // By the descriptor, as tokio would have to be asked first whether it may be written to.
    let _ = rustix::io::write(client, format!("{answer}\n").as_bytes());
}
