//! The file that keeps the counters over restarts and `kill -9`: one record for each snapshot, of what has changed.
//!
//! A snapshot is written before it is served, so that no counter that anybody has seen falls. A kill loses at most the
//! record that was being written, which nobody has seen. Now and then the file is written anew, beside the old one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    agent::{counters::Counters, line::Place, record::Change},
    printable::printable,
};

/// Version of the file's layout.
const FORMAT: u32 = 1;

/// Name of the file in the agent's folder.
const NAME: &str = "state";

/// The file is written anew when it is this many times as long as it was then.
const GROWTH: u64 = 4;

/// A shorter file is not written anew.
const SHORT_BYTES: u64 = 1 << 20;

/// The longest record that is read.
const LONGEST_BYTES: u64 = 256 << 20;

/// Whose state it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// `/etc/machine-id`, where there is one.
    pub machine_id: Option<String>,
    /// Node and start of the machine.
    #[serde(flatten)]
    pub place: Place,
}

#[derive(Serialize, Deserialize)]
struct Header {
    dlpm_state: u32,
    #[serde(flatten)]
    owner: Owner,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest snapshot, and whose it is.
    pub kept: Option<(Owner, Counters)>,
    /// What the operator has to know.
    pub notes: Vec<String>,
}

/// Why an agent does not start with a state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file cannot be used.
    #[error("the agent's state {} cannot be used ({cause}): give a folder that root can write, as state_dir", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A newer dlpm wrote it.
    #[error(
        "the agent's state {} was written by a later version of dlpm (layout {format}, this one knows {FORMAT}): start that \
         version, or move the file away and begin with new counters", path.display()
    )]
    Later {
        /// Which.
        path: PathBuf,
        /// Its layout.
        format: u32,
    },
}

/// The open file.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    owner: Owner,
    /// `None` until the next snapshot is written whole.
    file: Option<File>,
    bytes: u64,
    bytes_when_new: u64,
    written: Counters,
}

impl State {
    /// Reads what is kept in a folder. The first snapshot that is written replaces it.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn open(folder: &Path, owner: Owner) -> Result<(Self, Found), StateError> {
        let path = folder.join(NAME);
        let found = match File::open(&path) {
            Ok(file) => read(&path, file, &owner)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Found::default(),
            Err(cause) => return Err(StateError::Unusable { path, cause }),
        };
        let state = Self {
            path,
            owner,
            file: None,
            bytes: 0,
            bytes_when_new: 0,
            written: Counters::default(),
        };
        Ok((state, found))
    }

    /// Writes a snapshot.
    ///
    /// # Errors
    ///
    /// Where there is no room, say; the next call writes what is missing.
    pub fn write(&mut self, now: &Counters) -> io::Result<()> {
        let is_long = self.bytes > SHORT_BYTES.max(self.bytes_when_new.saturating_mul(GROWTH));
        let appended = match self.file.take() {
            Some(file) if !is_long => self.append(file, now),
            // Where there is no room for a second file there may be room for one more record.
            Some(file) => match self.replace(now) {
                Ok(()) => Ok(()),
                Err(_) => self.append(file, now),
            },
            None => self.replace(now),
        };
        appended?;
        self.written = now.clone();
        Ok(())
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn append(&mut self, mut file: File, now: &Counters) -> io::Result<()> {
        let line = line(&Change::between(&self.written, now))?;
        let appended = file.write_all(&line);
        match appended {
            Ok(()) => self.bytes += line.len() as u64,
            Err(_) => {
                // Half a record ends the file for whoever reads it: if it cannot be removed, the file is written anew.
                file.set_len(self.bytes)?;
                file.seek(SeekFrom::Start(self.bytes))?;
            }
        }
        self.file = Some(file);
        appended
    }

    fn replace(&mut self, now: &Counters) -> io::Result<()> {
        let mut text = line(&Header {
            dlpm_state: FORMAT,
            owner: self.owner.clone(),
        })?;
        text.extend(line(&Change::between(&Counters::default(), now))?);
        let beside = self.path.with_extension("new");
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(&text)?;
        file.sync_data()?;
        fs::rename(&beside, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.bytes = text.len() as u64;
        self.bytes_when_new = self.bytes;
        self.file = Some(file);
        Ok(())
    }
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

fn read(path: &Path, file: File, owner: &Owner) -> Result<Found, StateError> {
    let mut found = Found::default();
    let mut input = BufReader::new(file);
    let header = next(&mut input).and_then(|line| serde_json::from_slice::<Header>(&line).map_err(io::Error::from));
    let header = match header {
        Ok(header) => header,
        Err(cause) => return set_aside(path, "damaged", &format!("cannot be read ({cause})")),
    };
    if header.dlpm_state > FORMAT {
        return Err(StateError::Later {
            path: path.to_owned(),
            format: header.dlpm_state,
        });
    }
    if header.owner.machine_id != owner.machine_id {
        return set_aside(path, "other-machine", "is of another machine");
    }
    let mut counters = None;
    loop {
        match next(&mut input).and_then(|line| serde_json::from_slice::<Change>(&line).map_err(io::Error::from)) {
            Ok(change) => change.apply(counters.get_or_insert_with(Counters::default)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(cause) => {
                found.notes.push(format!(
                    "the agent's state {} ends in a record that cannot be read ({cause}): what was counted in it is \
                     unobserved",
                    path.display()
                ));
                break;
            }
        }
    }
    found.kept = counters.map(|counters| (header.owner, counters));
    Ok(found)
}

/// The next line; at the end of the file an error of the kind `NotFound`.
fn next(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    input.take(LONGEST_BYTES).read_until(b'\n', &mut line)?;
    match line.pop() {
        Some(b'\n') => Ok(line),
        Some(_) => Err(io::Error::other("it is torn")),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Keeps a file that is of no use here, and begins anew.
fn set_aside(path: &Path, suffix: &str, what: &str) -> Result<Found, StateError> {
    let aside = path.with_extension(suffix);
    fs::rename(path, &aside).map_err(|cause| StateError::Unusable {
        path: path.to_owned(),
        cause,
    })?;
    Ok(Found {
        kept: None,
        notes: vec![format!(
            "the agent's state {} {}: it is kept as {}, and the counters begin at 0",
            path.display(),
            printable(what),
            aside.display()
        )],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::admission::Admission, sinks::testing};

    fn owner() -> Owner {
        Owner {
            machine_id: Some("m".to_owned()),
            place: Place {
                node_id: "n".to_owned(),
                boot_id: "b".to_owned(),
            },
        }
    }

    fn after(intervals: u64) -> Counters {
        let (mut counters, mut admission) = (Counters::default(), Admission::new(10));
        for seq in 0..intervals {
            counters.add(&testing::ledger(seq, testing::all_zones()), &mut admission);
        }
        counters
    }

    fn kept(folder: &Path) -> (Option<Counters>, Vec<String>) {
        let (_, found) = State::open(folder, owner()).unwrap();
        (found.kept.map(|(_, counters)| counters), found.notes)
    }

    #[test]
    fn the_newest_snapshot_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut state, found) = State::open(folder.path(), owner()).unwrap();
        assert!(found.kept.is_none() && found.notes.is_empty());
        for intervals in 1..5 {
            state.write(&after(intervals)).unwrap();
            assert_eq!(kept(folder.path()), (Some(after(intervals)), vec![]));
        }
    }

    #[test]
    fn a_torn_record_is_the_only_loss_wherever_it_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let (mut state, _) = State::open(folder.path(), owner()).unwrap();
        state.write(&after(1)).unwrap();
        let first = state.bytes();
        state.write(&after(2)).unwrap();
        let path = folder.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        for cut in [first + 1, first + 30, state.bytes() - 1] {
            fs::write(&path, &whole[..usize::try_from(cut).unwrap()]).unwrap();
            let (counters, notes) = kept(folder.path());
            assert_eq!(counters, Some(after(1)), "{cut}");
            assert!(notes[0].contains("cannot be read"), "{notes:?}");
        }
        // Nothing of a torn beginning is believed, and nothing is thrown away.
        fs::write(&path, &whole[..20]).unwrap();
        let (counters, notes) = kept(folder.path());
        assert!(counters.is_none() && notes[0].contains("state.damaged"), "{notes:?}");
        assert_eq!(fs::read(folder.path().join("state.damaged")).unwrap(), &whole[..20]);
    }

    #[test]
    fn states_of_others_are_refused_or_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        fs::write(
            &path,
            "{\"dlpm_state\":2,\"machine_id\":null,\"node_id\":\"\",\"boot_id\":\"\"}\n",
        )
        .unwrap();
        let refused = State::open(folder.path(), owner()).unwrap_err().to_string();
        assert!(refused.contains("later version"), "{refused}");
        assert!(path.exists(), "it is still there");
        fs::remove_file(&path).unwrap();
        let mut other = owner();
        other.machine_id = Some("other".to_owned());
        let (mut state, _) = State::open(folder.path(), other).unwrap();
        state.write(&after(1)).unwrap();
        let (counters, notes) = kept(folder.path());
        assert!(counters.is_none() && notes[0].contains("another machine"), "{notes:?}");
        assert!(!path.exists() && folder.path().join("state.other-machine").exists());
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let (mut state, _) = State::open(folder.path(), owner()).unwrap();
        let counters = after(1);
        let mut most = 0;
        for _ in 0..3000 {
            state.write(&counters).unwrap();
            most = most.max(state.bytes());
        }
        assert!(most < 2 * SHORT_BYTES, "{most}");
        assert_eq!(kept(folder.path()).0, Some(counters));
    }
}
