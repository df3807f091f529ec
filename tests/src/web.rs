//! The network side of the agent, served by a core that the test makes up.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dlpm::web::{Answers, Bound, Endpoint, Format, PushConfig, Server, Status, WebConfig};

use crate::command::{Running, program};

/// Longest wait for an event, on a machine however busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A core without a measurement.
#[derive(Debug)]
pub struct Core {
    /// The newest interval.
    pub seq: AtomicU64,
    /// Calls of `metrics`.
    pub rendered: AtomicU64,
    /// Calls of `fetched`.
    pub fetched: Mutex<Vec<(u64, u64)>>,
    /// What `metrics` adds to the line that tells format and interval.
    pub more: Mutex<String>,
    /// What `status` says.
    pub status: Mutex<Status>,
}

impl Default for Core {
    fn default() -> Self {
        Self {
            seq: AtomicU64::new(1),
            rendered: AtomicU64::new(0),
            fetched: Mutex::default(),
            more: Mutex::default(),
            status: Mutex::new(Status {
                alive: Ok(()),
                ready: Ok(()),
            }),
        }
    }
}

impl Answers for Core {
    fn seq(&self) -> u64 {
        self.seq.load(Ordering::SeqCst)
    }

    fn metrics(&self, format: Format) -> (u64, Vec<u8>) {
        self.rendered.fetch_add(1, Ordering::SeqCst);
        let seq = self.seq();
        let more = self.more.lock().unwrap();
        (seq, format!("{format:?} {seq}\n{more}").into_bytes())
    }

    fn status(&self) -> Status {
        self.status.lock().unwrap().clone()
    }

    fn fetched(&self, scraper: u64, seq: u64) {
        self.fetched.lock().unwrap().push((scraper, seq));
    }
}

/// A served core.
#[derive(Debug)]
pub struct Served {
    /// The core.
    pub core: Arc<Core>,
    /// The server.
    pub server: Server,
}

impl Served {
    /// At a free port of loopback, with this `web.config.file`.
    pub fn new(web_config: Option<PathBuf>) -> Self {
        let config = WebConfig {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            web_config,
            allow_open: false,
        };
        let core = Arc::new(Core::default());
        let bound = Bound::bind(&config).unwrap();
        let server = Server::start_program(program(), bound, core.clone()).unwrap();
        Self { core, server }
    }

    /// One that pushes to this URL every second, with a file of headers and one of authorities.
    pub fn pushing(url: &str, headers: Option<PathBuf>, authority: Option<PathBuf>) -> Self {
        let core = Arc::new(Core::default());
        let server = Self::start_push(url, headers, authority, &core).unwrap();
        Self { core, server }
    }

    /// The same for a core that is there.
    ///
    /// # Errors
    ///
    /// Those of [`Server::start_push`].
    pub fn start_push(
        url: &str,
        headers: Option<PathBuf>,
        authority: Option<PathBuf>,
        core: &Arc<Core>,
    ) -> Result<Server, String> {
        let config = PushConfig {
            endpoint: Endpoint::parse(url).unwrap(),
            interval: Duration::from_secs(1),
            headers,
            authority,
        };
        Server::start_push_program(program(), config, core.clone()).map_err(|error| format!("{error:#}"))
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    /// A connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The answer to a `GET` with these lines in its head.
    pub fn get(&self, path: &str, lines: &[&str]) -> Answer {
        self.ask("GET", path, lines)
    }

    /// The answer to a request with these lines in its head.
    pub fn ask(&self, method: &str, path: &str, lines: &[&str]) -> Answer {
        Answer::over(self.connect(), method, path, lines).unwrap()
    }

    /// What the kernel says of the network process: the values of a line of `/proc/PID/status`.
    pub fn status(&self, name: &str) -> Vec<String> {
        let path = format!("/proc/{}/status", self.server.pid().unwrap());
        let status = fs::read_to_string(path).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with(&format!("{name}:")))
            .unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect()
    }
}

/// Where a running agent serves.
#[track_caller]
pub fn served_at(agent: &mut Running) -> SocketAddr {
    agent.wait_for_message("/metrics");
    let said = agent.said();
    let address = said.split("http://").nth(1).unwrap().split('/').next().unwrap();
    address.parse().unwrap()
}

/// Waits until something is there.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An answer of HTTP.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Such as 200.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// What follows.
    pub body: Vec<u8>,
}

impl Answer {
    /// Sends a request over a new connection, and reads until the server ends it. `None` where it ends it at once.
    pub fn over(mut stream: impl Read + Write, method: &str, path: &str, lines: &[&str]) -> Option<Self> {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        Self::read(stream)
    }

    /// Reads an answer to its end.
    pub fn read(mut stream: impl Read) -> Option<Self> {
        let mut whole = Vec::new();
        // A server that closes with something unread resets the connection, after its answer.
        let _ = stream.read_to_end(&mut whole);
        let end = whole.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&whole[..end]).to_lowercase();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let body = whole[end + 4..].to_vec();
        Some(Self { status, head, body })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a line of the head.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}
