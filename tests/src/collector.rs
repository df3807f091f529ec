//! A collector of OTLP over HTTP, as tests want it to behave.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use crate::web::PATIENCE;

/// One request that came.
#[derive(Clone, Debug)]
pub struct Push {
    /// The lines of its head, the first with method and path.
    pub head: Vec<String>,
    /// What followed.
    pub body: Vec<u8>,
}

impl Push {
    /// The value of a line of the head, whose name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.iter().filter_map(|line| line.split_once(": "));
        lines
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// What is in its body, which is compressed.
    pub fn unpacked(&self) -> Vec<u8> {
        assert_eq!(self.header("content-encoding"), Some("gzip"));
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&self.body[..])
            .read_to_end(&mut unpacked)
            .unwrap();
        unpacked
    }
}

/// What a collector does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Sends this and closes the connection.
    Say(Vec<u8>),
    /// Sends this, and then the second part over and over as long as the connection stands.
    Flood(Vec<u8>, Vec<u8>),
    /// Sends nothing until the other side closes the connection.
    Silence,
}

impl Reply {
    /// A status with these lines in its head and this body.
    pub fn status(status: &str, lines: &[&str], body: &[u8]) -> Self {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{lines}\r\n", body.len());
        Self::Say([head.as_bytes(), body].concat())
    }

    /// That all was taken.
    pub fn taken() -> Self {
        Self::status("200 OK", &["Content-Type: application/x-protobuf"], b"")
    }
}

/// What comes to it, and what it replies.
#[derive(Debug)]
struct State {
    pushes: Vec<Push>,
    reply: Reply,
}

/// A running collector. Its threads end with the process.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// A connection: a socket, or TLS over one.
pub trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

impl Collector {
    /// At a free port of loopback, without TLS.
    pub fn start(reply: Reply) -> Self {
        Self::over(reply, |stream| Some(Box::new(stream)))
    }

    /// The same over connections that `wrap` makes of sockets.
    pub fn over(reply: Reply, wrap: impl Fn(TcpStream) -> Option<Box<dyn Connection>> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pushes = Vec::new();
        let state = Arc::new(Mutex::new(State { pushes, reply }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                if let Some(mut connection) = wrap(stream) {
                    // What dlpm breaks off is not for the collector to complain about.
                    let _ = answer(&mut *connection, &shared);
                }
            }
        });
        Self { address, state }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What an agent is given.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it replies from now on.
    pub fn replies(&self, reply: Reply) {
        self.state.lock().unwrap().reply = reply;
    }

    /// What has come.
    pub fn pushes(&self) -> Vec<Push> {
        self.state.lock().unwrap().pushes.clone()
    }

    /// How many have come.
    pub fn count(&self) -> usize {
        self.state.lock().unwrap().pushes.len()
    }
}

fn answer(connection: &mut dyn Connection, state: &Mutex<State>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let head: Vec<String> = head.trim_end().lines().map(str::to_owned).collect();
    let mut push = Push { head, body: Vec::new() };
    let length = push
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    push.body.resize(length, 0);
    connection.read_exact(&mut push.body)?;
    let reply = {
        let mut state = state.lock().unwrap();
        state.pushes.push(push);
        state.reply.clone()
    };
    match reply {
        Reply::Say(text) => {
            connection.write_all(&text)?;
            connection.flush()
        }
        Reply::Flood(first, more) => {
            connection.write_all(&first)?;
            loop {
                connection.write_all(&more)?;
            }
        }
        Reply::Silence => {
            let _ = connection.read(&mut [0]);
            Ok(())
        }
    }
}
