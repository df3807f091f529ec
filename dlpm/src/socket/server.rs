//! The thread that serves the socket.

use std::{
    cell::RefCell,
    collections::HashMap,
    convert::Infallible,
    fs::{self, DirBuilder},
    io,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt},
        net::{UnixListener as StdListener, UnixStream as StdStream},
    },
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::{
    process::nice,
    thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs},
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Notify,
};

use super::{
    feed::{Source, Told},
    http::{self, Site, Tenants},
    peer::{self, Peer},
    recordings::Recordings,
};
use crate::sinks::{segments::Encoding, socket};

/// Connections of one user, and of all together.
const MOST_OF_ONE: usize = 48;
const MOST: usize = 256;

/// Limits on the head of a request, and the time for it.
const MOST_HEADERS: usize = 32;
const LARGEST_HEAD_BYTES: usize = 16 << 10;
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// How long no connection is taken after one could not be.
const REST: Duration = Duration::from_millis(100);

/// So much more polite than the thread that measures it is.
const NICE: i32 = 10;

/// How long the last lines may take.
const LAST_PATIENCE: Duration = Duration::from_millis(500);

/// The socket, at which nobody is heard yet.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    listener: StdListener,
}

impl Listener {
    /// Makes the socket, for everybody. One that an agent left that is gone is replaced.
    ///
    /// # Errors
    ///
    /// Where the folder is not root's alone, something else is there, or another agent listens.
    pub fn bind(path: &Path) -> Result<Self> {
        Self::check(path)?;
        let named = || {
            format!(
                "the socket {} cannot be made; choose another with --socket, or `--socket none`",
                path.display()
            )
        };
        if let Some(folder) = path.parent() {
            match DirBuilder::new().mode(0o755).create(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).with_context(named),
                _ => {}
            }
            let status = fs::symlink_metadata(folder).with_context(named)?;
            if !status.is_dir() || status.uid() != rustix::process::geteuid().as_raw() || status.mode() & 0o022 != 0 {
                bail!(
                    "the socket {} cannot be made: its folder has to be a directory that only root can write, or others \
                     could put another socket there; choose one with --socket",
                    path.display()
                );
            }
        }
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(named),
            Ok(_) if StdStream::connect(path).is_ok() => bail!(
                "another dlpm agent listens at {}: end it first, or choose another socket with --socket",
                path.display()
            ),
            Ok(_) => socket::remove(path).with_context(named)?,
        }
        let listening = socket::make_for_all(path.to_owned()).with_context(named)?;
        Ok(Self {
            path: path.to_owned(),
            listener: listening.listener,
        })
    }

    /// Whether such a path can be one.
    ///
    /// # Errors
    ///
    /// Where it is not absolute, or something else is there.
    pub fn check(path: &Path) -> Result<()> {
        use std::os::unix::fs::FileTypeExt;
        if !path.is_absolute() {
            bail!(
                "--socket {} is not an absolute path, as in {}",
                path.display(),
                super::DEFAULT_PATH
            );
        }
        if fs::symlink_metadata(path).is_ok_and(|status| !status.file_type().is_socket()) {
            bail!("--socket {}: something else is there already", path.display());
        }
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Left behind, it is replaced by the next agent.
        let _ = socket::remove(&self.path);
    }
}

/// What the thread is started with.
pub struct ServerOptions {
    /// The measuring thread's end is with whoever measures.
    pub source: Source,
    /// How lines are written.
    pub encoding: Encoding,
    /// Length of the agent's own intervals.
    pub interval_ms: u64,
    /// What is known of tenants.
    pub tenants: Arc<dyn Tenants>,
}

/// The thread that serves the socket.
#[derive(Debug)]
pub struct Server {
    thread: Option<thread::JoinHandle<()>>,
    reload: Arc<Notify>,
    /// Removes the socket at the end.
    listener: Listener,
}

impl Server {
    /// Starts the thread `dlpm-socket`.
    ///
    /// # Errors
    ///
    /// Where there is no thread, or it cannot give up its rights: then nobody is heard.
    pub fn start(listener: Listener, options: ServerOptions) -> Result<Self> {
        let taken = listener
            .listener
            .try_clone()
            .context("the socket cannot be listened to")?;
        let (started, start) = std::sync::mpsc::channel();
        let reload = Arc::new(Notify::new());
        let reloading = Arc::clone(&reload);
        let thread = thread::Builder::new()
            .name("dlpm-socket".to_owned())
            .spawn(move || {
                let runtime = give_up_rights().and_then(|()| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    runtime.context("the socket cannot be waited for")
                });
                match runtime {
                    Ok(runtime) => {
                        let _ = started.send(Ok(()));
                        let local = tokio::task::LocalSet::new();
                        local.block_on(&runtime, serve(taken, options, &reloading));
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            })
            .context("no thread for the socket")?;
        start.recv().context("the thread of the socket stopped")??;
        Ok(Self {
            thread: Some(thread),
            reload,
            listener,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.listener.path
    }

    /// Looks again who is in the group that sees everybody.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Waits until the last lines have been handed over. The feed has to be stopped first.
    pub fn finish(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread keeps no capability, and can get none.
fn give_up_rights() -> Result<()> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    set_capabilities(None, sets).context("capabilities cannot be dropped")?;
    set_no_new_privs(true).context("new rights cannot be ruled out")?;
    // In Linux it is the thread's own.
    nice(NICE).context("the priority cannot be lowered")?;
    Ok(())
}

async fn serve(listener: StdListener, options: ServerOptions, reload: &Notify) {
    let ServerOptions {
        mut source,
        encoding,
        interval_ms,
        tenants,
    } = options;
    let asker = source.asker();
    let site = Rc::new(RefCell::new(Site {
        recordings: Recordings::new(asker.clone(), encoding, interval_ms),
        asker,
        tenants,
        interval_ms,
        group: peer::group(),
    }));
    match UnixListener::from_std(listener) {
        Ok(listener) => drop(tokio::task::spawn_local(accept(listener, Rc::clone(&site)))),
        Err(error) => log::error!("the socket cannot be listened to: {error}"),
    }
    loop {
        let due = site.borrow().recordings.due();
        tokio::select! {
            biased;
            told = source.told() => {
                let ended = site.borrow_mut().recordings.hear(&told);
                if let Told::Stop = told {
                    drop(ended);
                    break;
                }
            }
            () = reached(due) => site.borrow_mut().recordings.tick(Instant::now()),
            () = reload.notified() => site.borrow_mut().group = peer::group(),
        }
    }
    // Readers get what waits for them.
    let end = Instant::now() + LAST_PATIENCE;
    while !site.borrow().recordings.is_empty() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn reached(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Open connections by user.
type Open = Rc<RefCell<HashMap<u32, usize>>>;

/// The place of one connection.
struct Place {
    open: Open,
    uid: u32,
}

impl Place {
    /// `None`: there are too many.
    fn take(open: &Open, uid: u32) -> Option<Self> {
        let mut table = open.borrow_mut();
        if table.values().sum::<usize>() >= MOST {
            return None;
        }
        let of_user = table.entry(uid).or_default();
        if *of_user >= MOST_OF_ONE {
            return None;
        }
        *of_user += 1;
        drop(table);
        Some(Self {
            open: Rc::clone(open),
            uid,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.open.borrow_mut();
        if let Some(of_user) = table.get_mut(&self.uid) {
            *of_user -= 1;
            if *of_user == 0 {
                table.remove(&self.uid);
            }
        }
    }
}

async fn accept(listener: UnixListener, site: Rc<RefCell<Site>>) {
    let open = Open::default();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(REST).await;
            continue;
        };
        match Peer::of(&stream) {
            // Too many: the connection closes.
            Ok(peer) => {
                if let Some(place) = Place::take(&open, peer.uid) {
                    tokio::task::spawn_local(connection(stream, peer, place, Rc::clone(&site)));
                }
            }
            Err(error) => log::warn!("a connection was closed, as the kernel does not say whose it is: {error}"),
        }
        // A flood of connections waits for those that are served.
        tokio::task::yield_now().await;
    }
}

async fn connection(stream: UnixStream, peer: Peer, place: Place, site: Rc<RefCell<Site>>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (site, peer) = (&site, &peer);
        async move { Ok::<_, Infallible>(http::answer(request, site, peer).await) }
    });
    // A client that breaks off, or what it says: there is nobody to tell.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_headers(MOST_HEADERS)
        .max_header_size(LARGEST_HEAD_BYTES)
        .max_buf_size(2 * LARGEST_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    drop(place);
}
