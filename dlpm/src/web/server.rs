//! The core's side: starts a network process, answers it, and starts it again when it dies.

use std::{
    fmt, io,
    net::{Shutdown, SocketAddr},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use super::{
    Answers, Bound, Format, PushConfig,
    protocol::{self, Answer, LARGEST_ANSWER_BYTES, LARGEST_REQUEST_BYTES, Request},
    push::Progress,
    rate::Rate,
    role::{Role, Setup},
};
use crate::{agent::facts::Pushes, printable::printable, sinks::terminal::say};

/// The subcommand that is a network process.
pub(super) const SUBCOMMAND: &str = "agent-web";

/// How long a network process may take to start, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pauses before it is started again: each is twice the last one, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Having served that long, its next death is like the first one.
const SETTLED: Duration = Duration::from_secs(60);

/// A running network process. Dropped, it ends.
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// What it is called in messages, and its thread in the core.
    names: (&'static str, &'static str),
    role: Mutex<Role>,
    /// What became of pushes, if it pushes.
    progress: Option<Mutex<Progress>>,
    /// The connection to the network process that lives; closing it ends that process.
    connection: Mutex<Option<UnixStream>>,
    stopped: AtomicBool,
    /// Set when the settings have changed, so that the end of the process is not counted.
    renewed: AtomicBool,
    pid: AtomicU64,
    restarts: AtomicU64,
}

impl Server {
    /// Starts the network process that serves these listeners, and a thread (`dlpm-web`) that answers it.
    ///
    /// # Errors
    ///
    /// Where that process cannot be started, or cannot give up its rights.
    pub fn start(bound: Bound, answers: Arc<dyn Answers>) -> Result<Self> {
        Self::start_program("/proc/self/exe".into(), bound, answers)
    }

    /// Like [`Server::start`], with this program instead of the one that runs: for tests.
    ///
    /// # Errors
    ///
    /// Those of [`Server::start`].
    pub fn start_program(program: PathBuf, bound: Bound, answers: Arc<dyn Answers>) -> Result<Self> {
        let addresses = bound.addresses().context("the listeners have no address")?;
        let role = Role::Serves(Box::new(bound));
        Self::start_role(program, role, addresses, answers)
    }

    /// Starts the network process that pushes the counters, and a thread (`dlpm-push`) that answers it.
    ///
    /// # Errors
    ///
    /// Those of [`PushConfig::check`]; where that process cannot be started, cannot give up its rights, or finds no
    /// certificates of authorities.
    pub fn start_push(config: PushConfig, answers: Arc<dyn Answers>) -> Result<Self> {
        Self::start_push_program("/proc/self/exe".into(), config, answers)
    }

    /// Like [`Server::start_push`], with this program instead of the one that runs: for tests.
    ///
    /// # Errors
    ///
    /// Those of [`Server::start_push`].
    pub fn start_push_program(program: PathBuf, config: PushConfig, answers: Arc<dyn Answers>) -> Result<Self> {
        let target = config.target()?;
        let role = Role::Pushes(Box::new((config, target)));
        Self::start_role(program, role, Vec::new(), answers)
    }

    fn start_role(program: PathBuf, role: Role, addresses: Vec<SocketAddr>, answers: Arc<dyn Answers>) -> Result<Self> {
        let (names, progress) = match &role {
            Role::Serves(_) => (("the network process", "dlpm-web"), None),
            Role::Pushes(push) => (
                ("the process that pushes the counters", "dlpm-push"),
                Some(Mutex::new(Progress::new(&push.1))),
            ),
        };
        let shared = Arc::new(Shared {
            names,
            role: Mutex::new(role),
            progress,
            connection: Mutex::new(None),
            stopped: AtomicBool::new(false),
            renewed: AtomicBool::new(false),
            pid: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
        });
        let (started, start) = mpsc::channel();
        let supervisor = Supervisor {
            program,
            shared: Arc::clone(&shared),
            answers,
            cache: Default::default(),
        };
        let thread = thread::Builder::new()
            .name(names.1.to_owned())
            .spawn(move || supervisor.run(&started))
            .context("a thread for the web cannot be started")?;
        let server = Self {
            shared,
            addresses,
            thread: Some(thread),
        };
        start
            .recv()
            .unwrap_or_else(|_| Err(anyhow!("the thread for the web ended at its start")))?;
        Ok(server)
    }

    /// The addresses that are served, with the ports that were chosen.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What became of pushes; `None` if it does not push.
    pub fn pushes(&self) -> Option<Pushes> {
        self.shared.progress.as_ref().map(|progress| lock(progress).pushes())
    }

    /// How often the network process died and was started again.
    pub fn restarts(&self) -> u64 {
        self.shared.restarts.load(Ordering::Relaxed)
    }

    /// The process id of the network process; `None` while there is none.
    pub fn pid(&self) -> Option<u32> {
        u32::try_from(self.shared.pid.load(Ordering::Relaxed))
            .ok()
            .filter(|pid| *pid != 0)
    }

    /// Reads the files again that the configuration names, and uses what they say from now on. Open connections end.
    ///
    /// # Errors
    ///
    /// Those of [`Bound::check`] and [`PushConfig::check`]; what was read before stays in force.
    pub fn reload(&self) -> Result<()> {
        let mut role = lock(&self.shared.role);
        role.reload()?;
        self.shared.renewed.store(true, Ordering::SeqCst);
        drop(role);
        self.shared.hang_up();
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.shared.hang_up();
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// A thread that panicked left nothing half done in these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn hang_up(&self) {
        if let Some(connection) = lock(&self.connection).as_ref() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Server({}, {:?})", self.shared.names.0, self.addresses)
    }
}

struct Supervisor {
    program: PathBuf,
    shared: Arc<Shared>,
    answers: Arc<dyn Answers>,
    /// The last rendering in each format.
    cache: [Option<(u64, Vec<u8>)>; Format::ALL.len()],
}

/// A network process with the connection to it.
struct Running {
    child: Child,
    connection: UnixStream,
}

impl Supervisor {
    fn run(mut self, started: &mpsc::Sender<Result<()>>) {
        let mut running = match self.spawn() {
            Ok(running) => running,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let _ = started.send(Ok(()));
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            let why = self.serve(running);
            running = loop {
                if self.shared.is_stopped() {
                    return;
                }
                if !self.shared.renewed.load(Ordering::SeqCst) {
                    if begun.elapsed() > SETTLED {
                        pause = FIRST_PAUSE;
                    }
                    say(&format!("{}; it is started again in {pause:?}", printable(&why)));
                    self.shared.restarts.fetch_add(1, Ordering::Relaxed);
                    thread::park_timeout(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                if self.shared.is_stopped() {
                    return;
                }
                match self.spawn() {
                    Ok(running) => break running,
                    Err(error) => say(&crate::causes::told(error.as_ref())),
                }
            };
        }
    }

    /// Starts the network process, and waits until it serves.
    fn spawn(&self) -> Result<Running> {
        let what = || format!("{} cannot be started", self.shared.names.0);
        let (connection, theirs) = UnixStream::pair().with_context(what)?;
        connection.set_read_timeout(Some(PATIENCE)).with_context(what)?;
        connection.set_write_timeout(Some(PATIENCE)).with_context(what)?;
        let child = Command::new(&self.program)
            .arg(SUBCOMMAND)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{}: {}", what(), self.program.display()))?;
        self.shared.pid.store(child.id().into(), Ordering::Relaxed);
        let running = Running { child, connection };
        let introduced = || -> Result<()> {
            let role = lock(&self.shared.role);
            // These are the newest.
            self.shared.renewed.store(false, Ordering::SeqCst);
            let setup = Setup {
                parent: std::process::id(),
                task: role.task(),
            };
            let setup = serde_json::to_vec(&setup)?;
            protocol::write_with(&running.connection, &setup, &role.descriptors())?;
            drop(role);
            match next(&running.connection)? {
                Some(Request::Serving) => Ok(()),
                Some(Request::Failed(why)) => Err(anyhow!("{}", printable(&why))),
                _ => Err(anyhow!("it ended before it served")),
            }
        };
        if let Err(error) = introduced() {
            self.reap(running);
            return Err(error.context(what()));
        }
        // From now on it may be silent as long as it likes.
        running.connection.set_read_timeout(None).with_context(what)?;
        let clone = running.connection.try_clone().with_context(what)?;
        *lock(&self.shared.connection) = Some(clone);
        // Nothing could be closed before.
        if self.shared.is_stopped() || self.shared.renewed.load(Ordering::SeqCst) {
            self.shared.hang_up();
        }
        Ok(running)
    }

    /// Answers until the process is gone; says how that happened.
    fn serve(&mut self, running: Running) -> String {
        let mut rate = Rate::new(Instant::now());
        let why = loop {
            match self.answer_next(&running.connection) {
                Ok(true) => thread::sleep(rate.pause(Instant::now())),
                Ok(false) => break None,
                Err(error) => break Some(error),
            }
        };
        *lock(&self.shared.connection) = None;
        let status = self.reap(running);
        let ended = match status {
            Some(status) => format!("{} ended ({status})", self.shared.names.0),
            None => format!("{} does not end", self.shared.names.0),
        };
        match why {
            Some(error) => format!("{ended}: {error}"),
            None => ended,
        }
    }

    /// `false` where the process has closed the connection.
    fn answer_next(&mut self, connection: &UnixStream) -> io::Result<bool> {
        let answer = match next(connection)? {
            None => return Ok(false),
            Some(Request::Metrics { format, have_seq }) => self.metrics(format, have_seq),
            Some(Request::Status) => Answer::Status(serde_json::to_vec(&self.answers.status())?).encode(),
            Some(Request::Fetched { scraper, seq }) => {
                self.answers.fetched(scraper, seq);
                self.note(Progress::taken);
                return Ok(true);
            }
            Some(Request::NotTaken(why)) => {
                self.note(|progress| progress.failed(&why));
                return Ok(true);
            }
            Some(Request::Serving) => return Err(unexpected("it starts twice")),
            Some(Request::Failed(why)) => return Err(unexpected(&printable(&why))),
        };
        protocol::write(connection, &answer, LARGEST_ANSWER_BYTES)?;
        Ok(true)
    }

    /// Keeps what became of a push, and says what is new about it.
    fn note(&self, what: impl FnOnce(&mut Progress) -> Option<String>) {
        let said = self.shared.progress.as_ref().map(|progress| what(&mut lock(progress)));
        if let Some(said) = said.flatten() {
            say(&said);
        }
    }

    /// A rendering, of which there is at most one for each interval and format.
    fn metrics(&mut self, format: Format, have_seq: Option<u64>) -> Vec<u8> {
        let seq = self.answers.seq();
        if have_seq == Some(seq) {
            return Answer::Unchanged.encode();
        }
        let Some(cached) = self.cache.get_mut(format as usize) else {
            return Answer::Unchanged.encode();
        };
        if cached.as_ref().is_none_or(|(cached, _)| *cached != seq) {
            *cached = Some(self.answers.metrics(format));
        }
        match cached {
            Some((seq, text)) => protocol::metrics(*seq, text),
            None => Answer::Unchanged.encode(),
        }
    }

    /// Waits for the process, whose connection is closed, and kills it if it stays.
    fn reap(&self, running: Running) -> Option<ExitStatus> {
        let Running { mut child, connection } = running;
        let _ = connection.shutdown(Shutdown::Both);
        drop(connection);
        let begun = Instant::now();
        let mut killed = false;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    self.shared.pid.store(0, Ordering::Relaxed);
                    return Some(status);
                }
                // Killing it needs CAP_KILL, as it has another user. It ends without, once it sees the closed connection.
                _ if begun.elapsed() > PATIENCE / 5 && !killed => {
                    let _ = child.kill();
                    killed = true;
                }
                _ if begun.elapsed() > PATIENCE => return None,
                _ => thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

fn next(connection: &UnixStream) -> io::Result<Option<Request>> {
    let Some(message) = protocol::read(connection, LARGEST_REQUEST_BYTES)? else {
        return Ok(None);
    };
    let request = Request::decode(&message).ok_or_else(|| unexpected("it said what it never says"))?;
    Ok(Some(request))
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
