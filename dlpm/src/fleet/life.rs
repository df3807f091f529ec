//! A line of `finished.jsonl`, as whoever adds up reads it: one life of a tenant.
//!
//! Lines may come from an agent of another version, so a word that this one does not know does not make it refuse a line.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    files,
    tenants::{Label, Node, Tenant, label},
    totals::Amount,
};

/// The files of an agent's folder, the older one first.
pub const NAMES: [&str; 2] = ["finished.1.jsonl", "finished.jsonl"];

/// The method that says that no meter measured.
const ESTIMATE: &str = "estimate";

/// One life of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Life {
    /// Counts the lines of one start of the machine, from 1.
    #[serde(default)]
    pub number: u64,
    /// The node.
    #[serde(default)]
    pub node_id: String,
    /// The start of the machine.
    #[serde(default)]
    pub boot_id: String,
    /// Kind and id.
    pub tenant: Node,
    /// What it was inside of, the highest first.
    #[serde(default)]
    pub inside: Vec<Node>,
    /// Names.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// ns since 1970.
    pub begin_unix_ns: i64,
    /// ns since 1970.
    pub end_unix_ns: i64,
    /// CPU time.
    pub cpu_ns: u64,
    /// µJ by device.
    pub energy_uj: BTreeMap<String, u64>,
    /// How they were split.
    #[serde(default)]
    pub methods: BTreeMap<String, Vec<String>>,
    /// Of what the agent says while it counts: whether it has ended.
    #[serde(default)]
    pub ended: bool,
}

impl Life {
    /// What was used.
    pub fn amount(&self) -> Amount {
        let devices = self.energy_uj.iter();
        Amount::of_devices(self.cpu_ns, devices.map(|(device, uj)| (device.as_str(), *uj)))
    }

    /// The tenant, with the names that this version knows.
    pub fn tenant(&self) -> Tenant {
        let labels = self.labels.iter();
        Tenant {
            node: self.tenant.clone(),
            ancestors: self.inside.clone(),
            labels: labels
                .filter_map(|(key, value)| Some((Label::from_word(key)?, label(value)?.into())))
                .collect(),
        }
    }

    /// Whether any of its energy was made from watts that an operator gave.
    pub fn is_estimate(&self) -> bool {
        self.methods.values().flatten().any(|method| method == ESTIMATE)
    }
}

/// What is read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// A line.
    Life(Box<Life>),
    /// The end of the file is half a line: it was being written, or the disk was full.
    Torn,
    /// Another line than that of a tenant: why.
    Wrong(String),
}

/// The lines of one file, one at a time.
#[derive(Debug)]
pub struct Lives {
    path: PathBuf,
    input: BufReader<std::fs::File>,
    line: Vec<u8>,
    number: u64,
    is_over: bool,
}

impl Lives {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// Those of [`files::open`].
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            input: BufReader::new(files::open(path)?),
            line: Vec::new(),
            number: 0,
            is_over: false,
        })
    }

    /// The file, as messages call it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The newest line, with its newline.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Number of the newest line, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    ///
    /// Any I/O error from the operating system.
    pub fn read(&mut self) -> io::Result<Option<Read>> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            let Some(read) = files::next_line(&mut self.input, &mut self.line)? else {
                return Ok(None);
            };
            self.number += 1;
            if let Err(beyond) = read {
                // What is in the rest of such a line is not the beginning of another.
                self.is_over = beyond == files::Beyond::Length;
                return Ok(Some(Read::Wrong(beyond.to_string())));
            }
            if self.line.trim_ascii().is_empty() {
                continue;
            }
            let is_whole = self.line.ends_with(b"\n");
            return Ok(Some(match serde_json::from_slice(&self.line) {
                Ok(life) => Read::Life(Box::new(life)),
                Err(_) if !is_whole && self.input.fill_buf()?.is_empty() => Read::Torn,
                Err(error) => Read::Wrong(format!("it is not the line of a tenant that has ended: {error}")),
            }));
        }
    }
}
