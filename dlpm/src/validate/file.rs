//! The file of a validation: `validation.jsonl`, one JSON object a line. The first describes machine and protocol, each
//! cell is one more, then the verdict, and at the end a digest of all bytes before it.
//!
//! A file can come from anybody, so lines, cells and rows are bounded, and nothing of it is trusted: [`super::proof`]
//! makes the verdict again.

use std::{
    fmt,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Cell, LoadKind, Run, verdict::Verdict};
use crate::{
    files::{self, next_line},
    interval::{Identity, MeterSource},
    log::exact::Exact,
};

/// Name of the file in its folder.
pub const FILE_NAME: &str = "validation.jsonl";

/// Version of the layout.
pub const FORMAT: u32 = 1;

/// What such a file begins with.
const BEGINNING: &[u8] = br#"{"validation":"#;

/// Most rounds.
pub const MOST_ROUNDS: u32 = 30;

/// Most lines that are read: more than the most rounds of all loads have.
const MOST_LINES: usize = 1_000;

/// Most bytes that are read.
const MOST_BYTES: u64 = 64 << 20;

/// Most rows of a cell. A cell lists its loads only.
const MOST_ROWS: usize = 100;

/// What a validation measured, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the layout. It comes first, so that the file is recognised.
    pub validation: u32,
    /// Version of dlpm.
    pub dlpm: String,
    /// Wall clock at the start.
    pub date: String,
    /// The machine.
    pub machine: Machine,
    /// Who read the energy.
    pub source: MeterSource,
    /// Number of the package that the loads ran on.
    pub package: u32,
    /// The CPUs of core A, core B, and dlpm.
    pub cpus: [u32; 3],
    /// Whether dlpm shared a core with a load.
    pub shares_core: bool,
    /// Whether a core of the machine has two hardware threads.
    pub smt: bool,
    /// Whether the processor adds noise to its energy counters; `None` where Linux does not show it.
    pub energy_filtering: Option<bool>,
    /// The loads, in order.
    pub loads: Vec<LoadKind>,
    /// What the loads did, in words, in the same order.
    pub details: Vec<String>,
    /// Rounds.
    pub rounds: u32,
    /// Length of a cell in ns, with the time for the machine to settle.
    pub cell_ns: u64,
    /// The part of it that is not measured.
    pub settle_ns: u64,
    /// Seed of the order, and of resamples where there are too many to make all.
    pub seed: u64,
    /// What is refused.
    pub limits: Limits,
    /// What tells processes apart.
    pub identity: Identity,
}

/// The machine that was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// As the kernel calls the processor.
    pub cpu_model: Option<String>,
    /// Its microcode.
    pub microcode: Option<String>,
    /// The kernel's release.
    pub kernel: String,
}

/// What is refused, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CPU time of others in a cell, of the time of one CPU.
    pub foreign_permille: u32,
    /// How far apart the powers of the idle machine may be.
    pub idle_permille: u32,
    /// Half of the 95 % interval of the power with a load alone.
    pub single_permille: u32,
    /// How much faster or slower a load may be, beside another load, and from round to round.
    pub slowdown_permille: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            foreign_permille: 20,
            idle_permille: 50,
            single_permille: 20,
            slowdown_permille: 30,
        }
    }
}

#[derive(Serialize)]
struct CellLine<'a> {
    cell: CellHead<'a>,
    #[serde(serialize_with = "as_is")]
    exact: String,
}

#[derive(Serialize)]
struct CellHead<'a> {
    round: u32,
    runs: &'a [Run],
    throttled: Option<u64>,
    on_battery: bool,
    end_unix_ns: i64,
}

#[derive(Deserialize)]
struct ReadHead {
    round: u32,
    runs: Vec<Run>,
    throttled: Option<u64>,
    on_battery: bool,
    end_unix_ns: i64,
}

/// JSON that was made already.
fn as_is<S: serde::Serializer>(json: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let raw: Box<serde_json::value::RawValue> = serde_json::from_str(json).map_err(serde::ser::Error::custom)?;
    raw.serialize(serializer)
}

/// The text of a file: with a verdict it is complete.
///
/// # Errors
///
/// Where something cannot be written as JSON.
pub fn text(header: &Header, cells: &[Cell], verdict: Option<&Verdict>) -> serde_json::Result<String> {
    let mut text = serde_json::to_string(header)? + "\n";
    for cell in cells {
        let line = CellLine {
            cell: CellHead {
                round: cell.round,
                runs: &cell.runs,
                throttled: cell.throttled,
                on_battery: cell.on_battery,
                end_unix_ns: cell.ledger.end_unix_ns,
            },
            exact: serde_json::to_string(&Exact::of(&cell.ledger, header.identity))?,
        };
        text += &serde_json::to_string(&line)?;
        text.push('\n');
    }
    if let Some(verdict) = verdict {
        text += &serde_json::to_string(&serde_json::json!({ "verdict": verdict }))?;
        text.push('\n');
        let digest = serde_json::json!({ "sha256": hex(&Sha256::digest(text.as_bytes())) });
        text += &serde_json::to_string(&digest)?;
        text.push('\n');
    }
    Ok(text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line that says something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its number, from 1; the last one for what is missing.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.line, self.what)
    }
}

/// What a file says.
#[derive(Clone, Debug)]
pub struct Validation {
    /// The first line.
    pub header: Header,
    /// The cells that could be read.
    pub cells: Vec<Cell>,
    /// The verdict, as it is written.
    pub verdict: Option<Value>,
    /// What does not hold, line by line.
    pub failures: Vec<Failure>,
    /// Lines.
    pub lines: usize,
}

/// Where the validation is that `path` means: a file of that kind, or the one in the folder; `None` if it is something
/// else. A folder that has a log as well means its log.
pub fn of_path(path: &Path) -> Option<PathBuf> {
    let file = if path.is_dir() {
        if path.join(crate::log::names::LOG_NAME).exists() {
            return None;
        }
        path.join(FILE_NAME)
    } else {
        path.to_owned()
    };
    let is_named_so = file.file_name().is_some_and(|name| name == FILE_NAME) && file.exists();
    let begins_so = || {
        let mut begin = [0; BEGINNING.len()];
        let read = files::open(&file).and_then(|mut file| io::Read::read_exact(&mut file, &mut begin));
        read.is_ok() && begin == BEGINNING
    };
    (is_named_so || begins_so()).then_some(file)
}

impl Validation {
    /// Reads a file. What is wrong in a line is one of its failures.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, or its first line does not describe a validation.
    pub fn read(path: &Path) -> io::Result<Self> {
        let file = files::open(path)?;
        let mut input = io::Read::take(BufReader::new(file), MOST_BYTES);
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut line = Vec::new();
        match next_line(&mut input, &mut line)? {
            Some(Ok(())) => {}
            Some(Err(beyond)) => return Err(invalid(format!("its first line is not one of a validation: {beyond}"))),
            None => return Err(invalid("it is empty".to_owned())),
        }
        let header = header(&line).map_err(invalid)?;
        let mut reader = Reader {
            digest: Sha256::new_with_prefix(&line),
            found: Self {
                header,
                cells: Vec::new(),
                verdict: None,
                failures: Vec::new(),
                lines: 1,
            },
            closed: false,
        };
        while let Some(read) = next_line(&mut input, &mut line)? {
            reader.found.lines += 1;
            let taken = match read {
                Ok(()) if reader.found.lines > MOST_LINES => Err(format!("there are more than {MOST_LINES} lines")),
                Ok(()) => reader.take(&line),
                Err(beyond) => Err(beyond.to_string()),
            };
            if let Err(what) = taken {
                reader.fail(what);
                if reader.found.lines > MOST_LINES || matches!(read, Err(files::Beyond::Length)) {
                    break;
                }
            }
        }
        if !reader.closed {
            reader.fail(if input.limit() == 0 {
                format!("the file is larger than {} MiB", MOST_BYTES >> 20)
            } else {
                "the end is missing: the run was not finished, or the file was cut".to_owned()
            });
        }
        Ok(reader.found)
    }
}

fn header(line: &[u8]) -> Result<Header, String> {
    let header: Header = serde_json::from_slice(line)
        .map_err(|error| format!("its first line does not describe a validation of this version of dlpm: {error}"))?;
    if header.validation != FORMAT {
        return Err(format!(
            "it is of version {} of the layout, and this dlpm reads version {FORMAT}",
            header.validation
        ));
    }
    if header.rounds > MOST_ROUNDS || header.loads.len() > LoadKind::ALL.len() {
        return Err(format!(
            "it says that it has {} rounds of {} loads",
            header.rounds,
            header.loads.len()
        ));
    }
    Ok(header)
}

struct Reader {
    digest: Sha256,
    found: Validation,
    /// The digest was there.
    closed: bool,
}

impl Reader {
    fn fail(&mut self, what: String) {
        let line = self.found.lines;
        self.found.failures.push(Failure { line, what });
    }

    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        if self.closed {
            return Err("it stands behind the end".to_owned());
        }
        let parsed: serde_json::Result<Value> = serde_json::from_slice(line);
        if let Ok(Value::Object(object)) = &parsed
            && let Some(Value::String(expected)) = object.get("sha256")
        {
            self.closed = true;
            let found = hex(&self.digest.clone().finalize());
            return if object.len() != 1 || *expected != found || line.last() != Some(&b'\n') {
                Err("the digest is not that of the lines before it: something was changed".to_owned())
            } else {
                Ok(())
            };
        }
        self.digest.update(line);
        let mut value = parsed.map_err(|error| format!("it is not JSON: {error}"))?;
        if self.found.verdict.is_some() {
            return Err("nothing but the digest may follow the verdict".to_owned());
        }
        if let Some(verdict) = value.get_mut("verdict") {
            self.found.verdict = Some(verdict.take());
            return Ok(());
        }
        let cell = cell(&value, &self.found.header)?;
        let is_known = |known: &Cell| known.round == cell.round && known.loads() == cell.loads();
        if self.found.cells.iter().any(is_known) {
            return Err("this cell is there twice".to_owned());
        }
        self.found.cells.push(cell);
        Ok(())
    }
}

/// A cell, of which all laws of a log's line hold.
fn cell(value: &Value, header: &Header) -> Result<Cell, String> {
    let part = |name: &str| value.get(name).ok_or_else(|| format!("it has no `{name}`"));
    let head = ReadHead::deserialize(part("cell")?).map_err(|error| error.to_string())?;
    let exact = Exact::read(part("exact")?)?;
    if exact.rows.len() > MOST_ROWS {
        return Err(format!(
            "it has {} rows, and at most {MOST_ROWS} are read",
            exact.rows.len()
        ));
    }
    let ledger = exact.ledger(head.end_unix_ns)?;
    let failures = crate::verify::laws::check(&exact, &ledger);
    if !failures.is_empty() {
        return Err(failures.join("; "));
    }
    let cell = Cell {
        round: head.round,
        runs: head.runs,
        throttled: head.throttled,
        on_battery: head.on_battery,
        ledger,
    };
    let loads = cell.loads();
    if cell.round >= header.rounds || !super::plan::cells(&header.loads).contains(&loads) {
        return Err("this cell was not planned".to_owned());
    }
    Ok(cell)
}
