//! Phases of a log, from its lines alone, and the marks that make them.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    command::{Dlpm, Running},
    log::{LOG_NAME, Log, number},
    powercap::{Powercap, node},
};

/// Name of the socket in the output folder.
pub const SOCKET_NAME: &str = ".dlpm.sock";

/// A trace with meters in files, and its folder.
pub struct Traced {
    _directory: TempDir,
    /// The output folder.
    pub folder: PathBuf,
    /// The meters.
    pub tree: Powercap,
}

impl Traced {
    /// Starts the meters.
    #[expect(clippy::new_without_default, reason = "it starts something")]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            folder: directory.path().join("log"),
            _directory: directory,
            tree: Powercap::start(node()),
        }
    }

    /// A trace that is yet to be started.
    pub fn trace(&self) -> Dlpm {
        Dlpm::trace(&self.folder).arg("--sysfs").arg(self.tree.sysfs())
    }

    /// A trace that has written lines.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut dlpm = self.trace().args(arguments).start();
        dlpm.wait_for_lines(&self.folder, 2);
        dlpm
    }

    /// The log of a trace that has ended, which leaves no socket.
    pub fn log(&self) -> Log {
        let log = Log::read(&self.folder);
        assert!(!self.folder.join(SOCKET_NAME).exists(), "the socket was left");
        log
    }
}

/// A phase, from border to border.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Its label.
    pub label: String,
    /// The first interval in it.
    pub begin_seq: u64,
    /// The first interval after it.
    pub end_seq: u64,
    /// CLOCK_MONOTONIC where it begins.
    pub begin_ns: u64,
    /// CLOCK_MONOTONIC where it ends.
    pub end_ns: u64,
    /// CPU time of each process in it, by its pid.
    pub cpu_ns: Vec<(u64, u64)>,
    /// Energy of all rows in all leaves.
    pub energy_uj: u64,
}

impl Phase {
    /// CPU time of a process in it.
    pub fn cpu_ns_of(&self, pid: u32) -> u64 {
        let rows = self.cpu_ns.iter().filter(|(tgid, _)| *tgid == u64::from(pid));
        rows.map(|(_, ns)| ns).sum()
    }
}

/// The phases of the last trace in a log, in the order of their ends. One that was not ended ends with the last line.
///
/// # Panics
///
/// Where the borders of a phase are none of intervals.
#[track_caller]
pub fn phases(folder: &Path) -> Vec<Phase> {
    let text = fs::read_to_string(folder.join(LOG_NAME)).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let (mut samples, mut open, mut ended): (Vec<Value>, Vec<Phase>, Vec<Phase>) = Default::default();
    for line in lines {
        let exact = &line["dlpm"];
        let label = || exact["label"].as_str().unwrap().to_owned();
        match exact["event"].as_str() {
            Some("phase_begin") => open.push(Phase {
                label: label(),
                begin_seq: number(&exact["seq"]),
                begin_ns: number(&exact["at_ns"]),
                end_seq: 0,
                end_ns: 0,
                cpu_ns: Vec::new(),
                energy_uj: 0,
            }),
            Some("phase_end") => {
                let position = open.iter().position(|phase| phase.label == label()).unwrap();
                let phase = open.remove(position);
                ended.push(Phase {
                    end_seq: number(&exact["seq"]),
                    end_ns: number(&exact["at_ns"]),
                    ..phase
                });
            }
            None if exact.is_object() => {
                if exact["seq"] == 0 {
                    samples.clear();
                    open.clear();
                    ended.clear();
                }
                samples.push(exact.clone());
            }
            _ => {}
        }
    }
    let last = samples
        .last()
        .map(|last| (number(&last["seq"]) + 1, number(&last["end_ns"])));
    for phase in open {
        let (end_seq, end_ns) = last.unwrap();
        ended.push(Phase {
            end_seq,
            end_ns,
            ..phase
        });
    }
    for phase in &mut ended {
        phase.fill(&samples);
    }
    ended
}

impl Phase {
    /// Adds up its intervals.
    #[track_caller]
    fn fill(&mut self, samples: &[Value]) {
        let inside: Vec<&Value> = samples
            .iter()
            .filter(|sample| (self.begin_seq..self.end_seq).contains(&number(&sample["seq"])))
            .collect();
        if let (Some(first), Some(last)) = (inside.first(), inside.last()) {
            let border = (number(&first["begin_ns"]), number(&last["end_ns"]));
            assert_eq!((self.begin_ns, self.end_ns), border, "{self:?}");
        }
        for row in inside.iter().flat_map(|sample| sample["rows"].as_array().unwrap()) {
            if row["row"] == "process" {
                self.cpu_ns.push((number(&row["tgid"]), number(&row["cpu_ns"])));
            }
            self.energy_uj += row["energy_uj"].as_object().unwrap().values().map(number).sum::<u64>();
        }
    }
}

/// The labels of phases, in their order.
pub fn labels(phases: &[Phase]) -> Vec<&str> {
    phases.iter().map(|phase| phase.label.as_str()).collect()
}

/// `dlpm mark` with these arguments, of the trace into a folder.
pub fn mark(folder: &Path, arguments: &[&str]) -> Dlpm {
    Dlpm::new(["mark"])
        .args(arguments)
        .arg("--dir")
        .arg(folder)
        .variable("DLPM_SOCKET", "")
}

/// Connects to the trace into a folder.
pub fn connect(folder: &Path) -> UnixStream {
    let stream = UnixStream::connect(folder.join(SOCKET_NAME)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Says something to the trace into a folder: the answer, without its newline.
pub fn ask(folder: &Path, request: &[u8]) -> String {
    let mut stream = connect(folder);
    let mut answer = String::new();
    // A trace that does not read everything that is said resets the connection after its answer.
    let _ = stream.write_all(request);
    let _ = stream.read_to_string(&mut answer);
    answer.trim_end_matches('\n').to_owned()
}

/// Number and time of the border that an answer tells.
#[track_caller]
pub fn border(answer: &str) -> (u64, u64) {
    let numbers = answer.strip_prefix("ok ").and_then(|rest| rest.split_once(' '));
    let Some((seq, at_ns)) = numbers else {
        panic!("no border: {answer}");
    };
    (seq.parse().unwrap(), at_ns.parse().unwrap())
}

/// Where Python finds the package `dlpm`.
pub fn python_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("python")
}
