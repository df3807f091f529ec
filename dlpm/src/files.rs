//! Reading the files of a folder that somebody else may have made: the log and its neighbours.
//!
//! Only regular files are read, one line at a time or up to a size, so that neither a pipe nor a device nor a line
//! without an end holds dlpm up or fills the memory. `docs/log-format.md` states the limits.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;

/// Longest line of a log, with its newline.
pub const LONGEST_LINE_BYTES: u64 = 32 << 20;

/// JSON values in a line, or in a file next to the log: each takes more memory than text.
pub const MOST_VALUES: usize = 500_000;

/// Energies in a line: rows and sums of cgroups, times zones.
pub const MOST_ENERGIES: usize = 2_000_000;

/// Largest file next to the log.
pub const LARGEST_FILE_BYTES: u64 = 16 << 20;

/// Opens a file for reading if it is a regular one; links are followed.
///
/// # Errors
///
/// Any I/O error from the operating system; `InvalidInput` for something else, which is then not opened, because that alone does something to
/// some devices.
pub fn open(path: &Path) -> io::Result<File> {
    check(&fs::metadata(path)?)?;
    // It may have changed since: NONBLOCK, so that a pipe does not wait for its other end.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    check(&file.metadata()?)?;
    Ok(file)
}

fn check(status: &fs::Metadata) -> io::Result<()> {
    let kind = status.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    let error = format!("it is {what}, not a regular file");
    Err(io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a small file holds, without a byte order mark; `None` if there is none.
///
/// # Errors
///
/// Those of [`open`], `InvalidData` where the file goes beyond a limit.
pub fn small(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match open(path) {
        Ok(file) => whole(&file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What an open file holds, if it is small.
///
/// # Errors
///
/// Any I/O error from the operating system; `InvalidData` beyond a limit.
pub fn whole(file: &File) -> io::Result<Vec<u8>> {
    let too_much = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let mut contents = Vec::new();
    file.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > LARGEST_FILE_BYTES {
        return too_much(format!("it is larger than {} MiB", LARGEST_FILE_BYTES >> 20));
    }
    if values(&contents) > MOST_VALUES {
        return too_much(format!("it has more than {MOST_VALUES} values"));
    }
    // Editors of other systems put one before JSON, which must not have any (RFC 8259, section 8.1).
    if contents.starts_with(BYTE_ORDER_MARK) {
        contents.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(contents)
}

/// Why a line is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// It is too long, and nothing after its beginning was read: nothing can be read after it.
    Length,
    /// It has too many values. The next line can be read.
    Values,
}

impl fmt::Display for Beyond {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => write!(formatter, "it is longer than {} MiB", LONGEST_LINE_BYTES >> 20),
            Self::Values => write!(formatter, "it has more than {MOST_VALUES} values"),
        }
    }
}

/// Reads the next line into `line`, with its newline if it has one. `None` at the end.
///
/// # Errors
///
/// The outer one is the system's, the inner one says which limit the line goes beyond.
pub fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<Result<(), Beyond>>> {
    line.clear();
    let length = input.take(LONGEST_LINE_BYTES).read_until(b'\n', line)?;
    if length == 0 {
        return Ok(None);
    }
    Ok(Some(
        if line.last() != Some(&b'\n') && length as u64 == LONGEST_LINE_BYTES {
            Err(Beyond::Length)
        } else if values(line) > MOST_VALUES {
            Err(Beyond::Values)
        } else {
            Ok(())
        },
    ))
}

/// JSON values in a text, or a few more.
fn values(text: &[u8]) -> usize {
    text.iter().filter(|byte| matches!(byte, b',' | b'{' | b'[')).count()
}

/// Whether some process has locked a file for itself, as who writes a log does. Looked up in `/proc/locks`, since trying
/// for the lock would be in the way of whoever wants it; `false` where that does not tell.
pub fn is_locked(path: &Path) -> bool {
    let Ok(status) = fs::metadata(path) else { return false };
    let (major, minor) = (rustix::fs::major(status.dev()), rustix::fs::minor(status.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", status.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    // `1: FLOCK  ADVISORY  WRITE 30458 fe:00:10011036 0 EOF`
    locks.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some("FLOCK") && words.nth(1) == Some("WRITE") && words.nth(1) == Some(&file)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let refused = |what: &str| {
            let error = open(&path).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
            assert!(small(&path).is_err_and(|error| error.to_string().contains(what)));
            let _ = fs::remove_file(&path);
            let _ = fs::remove_dir(&path);
        };
        assert!(small(&path).unwrap().is_none());
        mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        refused("a pipe");
        fs::create_dir(&path).unwrap();
        refused("a folder");
        let listener = UnixListener::bind(&path).unwrap();
        refused("a socket");
        drop(listener);
        for device in ["/dev/zero", "/dev/full", "/dev/null"] {
            symlink(device, &path).unwrap();
            refused("a device");
        }
        symlink("file", &path).unwrap();
        assert!(open(&path).is_err(), "a link to itself");
        fs::remove_file(&path).unwrap();
        fs::write(folder.path().join("other"), "x").unwrap();
        symlink("other", &path).unwrap();
        assert_eq!(small(&path).unwrap().unwrap(), b"x");
    }

    #[test]
    fn a_byte_order_mark_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (contents, read) in [("\u{feff}{}", "{}"), ("\u{feff}", ""), ("{}\u{feff}", "{}\u{feff}")] {
            fs::write(&path, contents).unwrap();
            assert_eq!(small(&path).unwrap().unwrap(), read.as_bytes());
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        // Sparse: it takes no room.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = small(&path).unwrap_err().to_string();
        assert!(error.contains("16 MiB"), "{error}");
        fs::write(&path, "[".repeat(MOST_VALUES + 1)).unwrap();
        let error = small(&path).unwrap_err().to_string();
        assert!(error.contains("500000 values"), "{error}");
    }

    #[test]
    fn a_line_without_an_end_is_not_kept() {
        let mut line = Vec::new();
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        assert_eq!(next_line(&mut endless, &mut line).unwrap(), Some(Err(Beyond::Length)));
        let text = format!("{}\nrest", ",".repeat(MOST_VALUES + 1));
        let mut input = text.as_bytes();
        assert_eq!(next_line(&mut input, &mut line).unwrap(), Some(Err(Beyond::Values)));
        assert_eq!(next_line(&mut input, &mut line).unwrap(), Some(Ok(())));
        assert_eq!(line, b"rest");
        assert_eq!(next_line(&mut input, &mut line).unwrap(), None);
    }
}
