//! Speaks with the agent's socket as any user, without any of dlpm's own code.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::Duration,
};

use rustix::{
    process::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use serde_json::Value;

/// Longest wait for an answer, on a machine however busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// User and group.
    pub uid: u32,
    /// One more group.
    pub group: Option<u32>,
}

impl Who {
    /// A user without further groups.
    pub fn user(uid: u32) -> Self {
        Self { uid, group: None }
    }

    /// Connects as this user: the credentials of a thread are its own in Linux, and the kernel tells those.
    pub fn connect(self, socket: &Path) -> UnixStream {
        let socket = socket.to_owned();
        let connected = thread::spawn(move || {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.uid));
            let groups: Vec<Gid> = self.group.into_iter().map(Gid::from_raw).collect();
            set_thread_groups(&groups).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            UnixStream::connect(socket)
        });
        let stream = connected.join().unwrap().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Asks, and waits for the whole answer: its status and its body.
    pub fn ask(self, socket: &Path, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut answer = self.begin(socket, method, path, body);
        let mut text = String::new();
        while let Some(chunk) = answer.chunk() {
            text.push_str(&chunk);
        }
        (answer.status, text)
    }

    /// Asks, and reads the head of the answer.
    pub fn begin(self, socket: &Path, method: &str, path: &str, body: &str) -> Answer {
        let mut stream = self.connect(socket);
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: dlpm\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        Answer::read(stream)
    }

    /// Begins a recording.
    pub fn record(self, socket: &Path, request: &str) -> Recording {
        let answer = self.begin(socket, "POST", "/v1/recordings", request);
        assert_eq!(answer.status, 200);
        let mut recording = Recording {
            answer,
            rest: String::new(),
            facts: Value::Null,
            text: String::new(),
        };
        let first: Value = serde_json::from_str(&recording.line().unwrap()).unwrap();
        recording.facts = first["recording"].clone();
        recording
    }
}

/// An answer that is being read.
pub struct Answer {
    /// Its status.
    pub status: u16,
    is_chunked: bool,
    stream: BufReader<UnixStream>,
    is_over: bool,
}

impl Answer {
    fn read(stream: UnixStream) -> Self {
        let mut answer = Self {
            status: 0,
            is_chunked: false,
            stream: BufReader::new(stream),
            is_over: false,
        };
        let status = answer.head_line();
        answer.status = status.split(' ').nth(1).unwrap().parse().unwrap();
        loop {
            match answer.head_line().to_ascii_lowercase().as_str() {
                "" => return answer,
                "transfer-encoding: chunked" => answer.is_chunked = true,
                _ => {}
            }
        }
    }

    fn head_line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next piece of the body.
    pub fn chunk(&mut self) -> Option<String> {
        if self.is_over {
            return None;
        }
        let mut bytes = Vec::new();
        if self.is_chunked {
            let size = usize::from_str_radix(&self.head_line(), 16).ok()?;
            bytes.resize(size, 0);
            self.stream.read_exact(&mut bytes).unwrap();
            self.head_line();
            self.is_over = size == 0;
        } else {
            self.stream.read_to_end(&mut bytes).unwrap();
            self.is_over = true;
        }
        (!bytes.is_empty()).then(|| String::from_utf8(bytes).unwrap())
    }
}

/// A recording that is being read.
pub struct Recording {
    answer: Answer,
    rest: String,
    /// What its first line says.
    pub facts: Value,
    /// All that was read.
    pub text: String,
}

impl Recording {
    /// The next line; `None` at the end.
    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some((line, rest)) = self.rest.split_once('\n') {
                let line = line.to_owned();
                self.rest = rest.to_owned();
                self.text.push_str(&line);
                self.text.push('\n');
                return Some(line);
            }
            self.rest.push_str(&self.answer.chunk()?);
        }
    }

    /// The next line that is an interval.
    pub fn interval(&mut self) -> Value {
        loop {
            let line: Value = serde_json::from_str(&self.line().unwrap()).unwrap();
            if line["dlpm"]["rows"].is_array() {
                return line["dlpm"].clone();
            }
        }
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.facts["id"].as_u64().unwrap()
    }

    /// The lines of the log in it.
    pub fn log(&self) -> String {
        let is_of_log = |line: &&str| !line.starts_with("{\"recording\"") && !line.starts_with("{\"ended\"");
        let lines = self.text.lines().filter(is_of_log);
        lines.flat_map(|line| [line, "\n"]).collect()
    }

    /// Reads to the end.
    pub fn finish(&mut self) {
        while self.line().is_some() {}
    }
}
