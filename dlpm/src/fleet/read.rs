//! Reads the files of many nodes, one line at a time, and keeps sums of them.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::tz::TimeZone;
use serde_json::Value;

use super::{
    life::{Life, Lives, NAMES, Read},
    once::{Covered, Numbers, Seen, Span},
    sums::{By, Fleet, Whose},
};
use crate::{
    attribution::ledger::{Ledger, Method},
    log::{
        Event, LogError, LogLine, LogReader,
        names::{LOG_NAME, closed_number},
        window::Window,
    },
    report::metadata::metadata,
    tenants::label,
};

/// Sentences about what could not be read that are kept; the others are counted.
const MOST_TROUBLES: usize = 20;

/// Longest id of a start of a machine.
const BOOT_ID_BYTES: usize = 64;

/// What logs without metadata are of.
const UNKNOWN_NODE: &str = "(unknown node)";

/// What was read.
#[derive(Clone, Debug)]
pub struct Collected {
    /// The sums.
    pub fleet: Fleet,
    /// What could not be read, a sentence each.
    pub troubles: Vec<String>,
    /// How many there were.
    pub trouble_count: u64,
    /// Files of tenants that have ended.
    pub files: u64,
    /// Logs.
    pub logs: u64,
    /// Lines that were in two files, and were added once.
    pub again: u64,
    /// Lines and intervals outside of the window.
    pub outside: u64,
    /// Intervals that logs miss.
    pub missing: u64,
    /// What has to be known to read the sums, a sentence each.
    pub notes: Vec<String>,
}

/// Why nothing is added up.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The same joules are in two sources.
    #[error(
        "{} and {} are of the same node and the same time, so what its meters counted would be added up twice: give one of \
         them", .0.display(), .1.display()
    )]
    Twice(PathBuf, PathBuf),
    /// Two agents wrote lines with the same numbers.
    #[error(
        "{}:{number}: another line of this start of {node} has the number {in_file}: two agents counted there, or a line was \
         changed. Give the files of one", .path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// Of the line in the file.
        number: u64,
        /// The machine.
        node: String,
        /// What the line says.
        in_file: u64,
    },
    /// More than fits into memory.
    #[error("{} has too many gaps and starts of machines to be told apart: give fewer files at a time", .0.display())]
    TooMany(PathBuf),
}

/// Whether a path is of an agent: its folder, or its file of tenants that have ended.
pub fn is_agents(path: &Path) -> bool {
    match path.is_dir() {
        true => NAMES.iter().any(|name| path.join(name).exists()) && !has_log(path),
        false => path.extension().is_some_and(|extension| extension == "jsonl"),
    }
}

fn has_log(folder: &Path) -> bool {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    names.map(|entry| entry.file_name()).any(|name| {
        let name = name.to_string_lossy();
        name == LOG_NAME || closed_number(&name).is_some()
    })
}

/// Adds up what is in these folders and files.
///
/// # Errors
///
/// [`FleetError`]. What cannot be read is in [`Collected::troubles`].
pub fn read(paths: &[PathBuf], tables: &[By], window: &Window, timezone: &TimeZone) -> Result<Collected, FleetError> {
    let mut reader = Reader {
        collected: Collected {
            fleet: Fleet::by(tables),
            troubles: Vec::new(),
            trouble_count: 0,
            files: 0,
            logs: 0,
            again: 0,
            outside: 0,
            missing: 0,
            notes: Vec::new(),
        },
        numbers: Numbers::default(),
        covered: Covered::default(),
        window,
        timezone,
        unknown_events: 0,
    };
    let mut known = BTreeSet::new();
    for (source, path) in paths.iter().enumerate() {
        let is_new = fs::canonicalize(path).map_or(true, |real| known.insert(real));
        if is_new {
            reader.path(source, path)?;
        } else {
            let note = format!("{} is given twice, and counts once", path.display());
            reader.collected.notes.push(note);
        }
    }
    if let Some((one, other)) = reader.covered.twice() {
        let path = |source: usize| paths.get(source).cloned().unwrap_or_default();
        return Err(FleetError::Twice(path(one), path(other)));
    }
    Ok(reader.end())
}

struct Reader<'a> {
    collected: Collected,
    numbers: Numbers,
    covered: Covered,
    window: &'a Window,
    timezone: &'a TimeZone,
    unknown_events: u64,
}

impl Reader<'_> {
    fn trouble(&mut self, text: String) {
        self.collected.trouble_count += 1;
        if self.collected.troubles.len() < MOST_TROUBLES {
            self.collected.troubles.push(text);
        }
    }

    fn path(&mut self, source: usize, path: &Path) -> Result<(), FleetError> {
        let status = match fs::metadata(path) {
            Ok(status) => status,
            Err(error) => {
                self.trouble(unreadable(path, &error));
                return Ok(());
            }
        };
        if !status.is_dir() {
            return match is_agents(path) {
                true => self.lives(source, path),
                false => self.log(source, path),
            };
        }
        let mut is_anything = false;
        // The newer one first: what is moved to the older one meanwhile is read twice, and counts once.
        for name in NAMES.into_iter().rev() {
            let file = path.join(name);
            if fs::symlink_metadata(&file).is_ok() {
                is_anything = true;
                self.lives(source, &file)?;
            }
        }
        if has_log(path) {
            is_anything = true;
            self.log(source, path)?;
        }
        if !is_anything {
            self.trouble(format!(
                "{} is neither the folder of a log ({LOG_NAME}) nor that of an agent ({}); of a folder of such folders, give \
                 those in it",
                path.display(),
                NAMES[1]
            ));
        }
        Ok(())
    }

    fn lives(&mut self, source: usize, path: &Path) -> Result<(), FleetError> {
        let mut lives = match Lives::open(path) {
            Ok(lives) => lives,
            Err(error) => {
                self.trouble(unreadable(path, &error));
                return Ok(());
            }
        };
        self.collected.files += 1;
        loop {
            let why = match lives.read() {
                Ok(None) => return Ok(()),
                Ok(Some(Read::Life(life))) => match self.life(source, &life, &lives)? {
                    None => continue,
                    Some(why) => why,
                },
                Ok(Some(Read::Torn)) => "the last line is not whole, and is left out: copy the file again".to_owned(),
                Ok(Some(Read::Wrong(why))) => format!("{why}; it is left out"),
                Err(error) => {
                    self.trouble(format!("{} cannot be read to its end: {error}", path.display()));
                    return Ok(());
                }
            };
            self.trouble(format!("{}:{}: {why}", path.display(), lives.number()));
        }
    }

    /// Adds a line; why it cannot be added.
    fn life(&mut self, source: usize, life: &Life, lives: &Lives) -> Result<Option<String>, FleetError> {
        let Some(node) = label(&life.node_id).map(Arc::<str>::from) else {
            return Ok(Some("it does not say of which node it is; it is left out".to_owned()));
        };
        if life.number == 0 || life.boot_id.is_empty() || life.boot_id.len() > BOOT_ID_BYTES {
            let why = "it has no `number` and `boot_id`, which tell whether it is added up twice; it is left out";
            return Ok(Some(why.to_owned()));
        }
        let boot_id: Arc<str> = life.boot_id.as_str().into();
        match self.numbers.add(&node, &boot_id, life.number, lives.line()) {
            Seen::New => {}
            Seen::Again => {
                self.collected.again += 1;
                return Ok(None);
            }
            Seen::Other => {
                return Err(FleetError::Other {
                    path: lives.path().to_owned(),
                    number: lives.number(),
                    node: node.to_string(),
                    in_file: life.number,
                });
            }
            Seen::TooMany => return Err(FleetError::TooMany(lives.path().to_owned())),
        }
        if !self.window.holds(life.end_unix_ns, 0, self.timezone) {
            self.collected.outside += 1;
            return Ok(None);
        }
        self.covered
            .add_life(source, &node, &boot_id, life.begin_unix_ns, life.end_unix_ns);
        let fleet = &mut self.collected.fleet;
        fleet.is_estimate |= life.is_estimate();
        let tenant = life.tenant();
        let whose = Whose {
            node,
            tenant: Some(&tenant),
            uid: None,
        };
        fleet.add_life(&whose, life.amount(), life.begin_unix_ns, life.end_unix_ns);
        Ok(None)
    }

    fn log(&mut self, source: usize, path: &Path) -> Result<(), FleetError> {
        let mut log = match LogReader::open(path) {
            Ok(log) => log,
            Err(error) => {
                self.trouble(error.to_string());
                return Ok(());
            }
        };
        self.collected.logs += 1;
        let folder = if path.is_dir() {
            path
        } else {
            path.parent().unwrap_or(Path::new("."))
        };
        let facts = metadata(folder).unwrap_or_else(|error| {
            self.trouble(format!("{error:#}"));
            Value::Null
        });
        let text = |pointer: &str| facts.pointer(pointer).and_then(Value::as_str).and_then(label);
        let node = text("/node_id").map(Arc::<str>::from);
        let boot_id = text("/dlpm/boot_id").map(Arc::<str>::from);
        let mut open: Option<(u64, Span)> = None;
        let mut is_foreign = false;
        loop {
            let line = match log.next_line() {
                Ok(None) => break,
                Ok(Some(line)) => line,
                Err(error) => {
                    let is_over = matches!(error, LogError::Io { .. });
                    self.trouble(format!("{error}; it is left out"));
                    if is_over {
                        break;
                    }
                    continue;
                }
            };
            match line {
                LogLine::Interval(interval) => {
                    let ledger = interval.ledger;
                    match &mut open {
                        // In each trace, the numbers begin again at 0.
                        Some((seq, span)) if *seq < ledger.seq && span.end_ns <= ledger.begin_ns => {
                            (*seq, span.end_ns, span.end_unix_ns) = (ledger.seq, ledger.end_ns, ledger.end_unix_ns);
                        }
                        _ => {
                            let span = Span {
                                source,
                                node: node.clone(),
                                boot_id: boot_id.clone(),
                                begin_ns: ledger.begin_ns,
                                end_ns: ledger.end_ns,
                                end_unix_ns: ledger.end_unix_ns,
                            };
                            self.close(open.replace((ledger.seq, span)), path)?;
                        }
                    }
                    self.interval(node.as_ref(), &ledger);
                }
                LogLine::Event(Event::Gap { from_seq, to_seq }) => {
                    let missing = to_seq.saturating_sub(from_seq.saturating_add(1));
                    self.collected.missing = self.collected.missing.saturating_add(missing);
                }
                LogLine::Event(Event::Dropped(dropped)) => {
                    self.collected.missing = self.collected.missing.saturating_add(dropped.intervals);
                }
                LogLine::Foreign(_) => is_foreign = true,
                _ => {}
            }
        }
        let passed_over = log.passed_over();
        self.close(open, path)?;
        if is_foreign {
            self.trouble(format!(
                "{} has samples that AIPowerMeter recorded, in floats: they cannot be added up exactly, and are left out",
                path.display()
            ));
        }
        if passed_over.torn_bytes > 0 {
            self.trouble(format!(
                "{}: the last line is not whole, and is left out",
                path.display()
            ));
        }
        if passed_over.missing_files > 0 {
            let note = format!(
                "{}: {} older files of the log are not there any more",
                path.display(),
                passed_over.missing_files
            );
            self.collected.notes.push(note);
        }
        self.unknown_events += passed_over.unknown_events;
        Ok(())
    }

    fn close(&mut self, open: Option<(u64, Span)>, path: &Path) -> Result<(), FleetError> {
        match open.is_none_or(|(_, span)| self.covered.add(span)) {
            true => Ok(()),
            false => Err(FleetError::TooMany(path.to_owned())),
        }
    }

    fn interval(&mut self, node: Option<&Arc<str>>, ledger: &Ledger) {
        if !self.window.holds(ledger.end_unix_ns, 0, self.timezone) {
            self.collected.outside += 1;
            return;
        }
        let unknown: Arc<str> = UNKNOWN_NODE.into();
        let fleet = &mut self.collected.fleet;
        fleet.is_estimate |= ledger.leaves.iter().any(|leaf| leaf.method == Method::Estimate);
        fleet.add_interval(node.unwrap_or(&unknown), ledger);
    }

    fn end(mut self) -> Collected {
        self.collected.fleet.end();
        let fleet = &self.collected.fleet;
        let differences = fleet.tables.first().map(|sums| fleet.difference(sums));
        if let Some((cpu_ns, energy_uj)) = differences.filter(|difference| *difference != (0, 0)) {
            self.trouble(format!(
                "the meters and CPUs of the logs counted {energy_uj} µJ and {cpu_ns} ns more than their rows have: a log was \
                 changed; `dlpm verify` shows where"
            ));
        }
        let mut collected = self.collected;
        let fleet = &collected.fleet;
        let mut note = |count: u64, what: &str| {
            if count > 0 {
                collected.notes.push(format!("{count} {what}"));
            }
        };
        note(collected.again, "lines were in two of the files, and count once");
        note(collected.outside, "lines and intervals are outside of the window");
        note(
            collected.missing,
            "intervals are missing in the logs: gaps, or no room on the disk",
        );
        note(self.unknown_events, "events of a later version were passed over");
        for sums in &fleet.tables {
            note(
                sums.folded,
                &format!(
                    "rows by {} were the smallest, and are one row; one that came back lacks what it had before",
                    sums.by.as_str()
                ),
            );
        }
        note(
            fleet.total.unknown_intervals,
            "intervals have energy that is not known: sums are of what is known",
        );
        if fleet.nodes().iter().any(|node| **node == *UNKNOWN_NODE) {
            collected.notes.push(
                "logs without metadata.json do not say of which node they are: only exact copies of them are recognised"
                    .to_owned(),
            );
        }
        if fleet.is_estimate {
            collected
                .notes
                .push("a part of the energy is an estimate, from watts that an operator gave".to_owned());
        }
        collected
    }
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    let next = match error.kind() {
        // Names of tenants are private, so the agent's file is root's.
        io::ErrorKind::PermissionDenied => "; ask with sudo",
        _ => "",
    };
    format!("{} cannot be read: {error}{next}", path.display())
}

/// Whether the sources held nothing at all.
pub fn is_empty(collected: &Collected) -> bool {
    collected.fleet.lives == 0 && collected.fleet.intervals == 0
}
