//! `finished.jsonl`: one line for each tenant that has ended. Each is written once, also over a `kill -9`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::agent::line::Line;

/// Name of the file in the agent's folder.
pub const NAME: &str = "finished.jsonl";

/// What older lines are moved to when the file is full.
const OLDER: &str = "finished.1.jsonl";

/// As much of the end of a file is read to find its last line: more than one line is long.
const TAIL_BYTES: u64 = 1 << 20;

/// The open file.
#[derive(Debug)]
pub struct FinishedFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    most_bytes: u64,
    last: Option<Line>,
}

impl FinishedFile {
    /// Opens it in a folder; half a line at its end, which a kill or a full disk leaves, is removed. With more than half
    /// of `most_bytes` its lines are moved to a second file, and those there are deleted.
    ///
    /// # Errors
    ///
    /// Where it cannot be read and written.
    pub fn open(folder: &Path, most_bytes: u64) -> io::Result<Self> {
        let path = folder.join(NAME);
        let mut file = append_to(&path)?;
        let (bytes, last) = whole_lines(&mut file)?;
        file.set_len(bytes)?;
        let last = match last {
            Some(last) => Some(last),
            None => match File::open(folder.join(OLDER)) {
                Ok(mut older) => whole_lines(&mut older)?.1,
                Err(_) => None,
            },
        };
        Ok(Self {
            path,
            file,
            bytes,
            most_bytes,
            last,
        })
    }

    /// Number of the last line of that start of the machine; 0 if there is none.
    pub fn last_number(&self, boot_id: &str) -> u64 {
        let last = self.last.as_ref().filter(|last| last.place.boot_id == boot_id);
        last.map_or(0, |last| last.number)
    }

    /// Adds lines, but those that it has already.
    ///
    /// # Errors
    ///
    /// Where there is no room: then none of them is there.
    pub fn write(&mut self, lines: Vec<Line>) -> io::Result<()> {
        let mut text = Vec::new();
        let mut last = None;
        for line in lines {
            if line.number > self.last_number(&line.place.boot_id) {
                serde_json::to_writer(&mut text, &line)?;
                text.push(b'\n');
                last = Some(line);
            }
        }
        if text.is_empty() {
            return Ok(());
        }
        if self.bytes > 0 && self.bytes + text.len() as u64 > self.most_bytes / 2 {
            let folder = self.path.parent().unwrap_or(Path::new("."));
            fs::rename(&self.path, folder.join(OLDER))?;
            self.file = append_to(&self.path)?;
            self.bytes = 0;
        }
        if let Err(error) = self.file.write_all(&text) {
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += text.len() as u64;
        self.last = last.or(self.last.take());
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

/// Bytes up to the end of the last whole line, and that line.
fn whole_lines(file: &mut File) -> io::Result<(u64, Option<Line>)> {
    let bytes = file.metadata()?.len();
    let begin = bytes.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(begin))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
        return Ok((begin, None));
    };
    let line = tail[..end].split(|byte| *byte == b'\n').next_back();
    let last = line.and_then(|line| serde_json::from_slice(line).ok());
    Ok((begin + end as u64 + 1, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::{admission::Admission, counters::Counters, line::Place},
        sinks::testing,
    };

    fn line(number: u64, boot_id: &str) -> Line {
        let (mut counters, mut admission) = (Counters::default(), Admission::new(10));
        counters.add(&testing::ledger(0, testing::all_zones()), &mut admission);
        let node = counters.accounts.keys().next().cloned().unwrap();
        counters.end(&node, 9);
        let place = Place {
            node_id: "n".to_owned(),
            boot_id: boot_id.to_owned(),
        };
        Line {
            number,
            ..Line::of(&counters.finished[0], &counters.devices, &place)
        }
    }

    fn numbers(folder: &Path, name: &str) -> Vec<u64> {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str::<Line>(line).unwrap().number)
            .collect()
    }

    #[test]
    fn each_line_is_there_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = FinishedFile::open(folder.path(), 1 << 20).unwrap();
        file.write(vec![line(1, "b"), line(2, "b")]).unwrap();
        // What the state had not heard of is written again, after a kill.
        let mut file = FinishedFile::open(folder.path(), 1 << 20).unwrap();
        assert_eq!((file.last_number("b"), file.last_number("c")), (2, 0));
        file.write(vec![line(1, "b"), line(2, "b"), line(3, "b")]).unwrap();
        file.write(vec![line(1, "c")]).unwrap();
        assert_eq!(numbers(folder.path(), NAME), [1, 2, 3, 1]);
    }

    #[test]
    fn half_a_line_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = FinishedFile::open(folder.path(), 1 << 20).unwrap();
        file.write(vec![line(1, "b")]).unwrap();
        let path = folder.path().join(NAME);
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"number\":2,");
        fs::write(&path, &text).unwrap();
        let mut file = FinishedFile::open(folder.path(), 1 << 20).unwrap();
        assert_eq!(file.last_number("b"), 1);
        file.write(vec![line(2, "b")]).unwrap();
        assert_eq!(numbers(folder.path(), NAME), [1, 2]);
    }

    #[test]
    fn the_budget_holds_and_numbers_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let budget = 10_000;
        let mut file = FinishedFile::open(folder.path(), budget).unwrap();
        for number in 1..=100 {
            file.write(vec![line(number, "b")]).unwrap();
            let bytes: u64 = fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().metadata().unwrap().len())
                .sum();
            assert!(bytes <= budget, "{bytes}");
        }
        let (older, newer) = (numbers(folder.path(), OLDER), numbers(folder.path(), NAME));
        let kept: Vec<u64> = older.into_iter().chain(newer).collect();
        assert!(
            kept.len() > 4 && kept.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "{kept:?}"
        );
        assert_eq!(FinishedFile::open(folder.path(), budget).unwrap().last_number("b"), 100);
    }
}
