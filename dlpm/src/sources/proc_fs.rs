//! Processes as `/proc` shows them, and users by name.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::User;
use procfs_core::FromBufRead;
use procfs_core::process::Status;

/// One process of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcEntry {
    /// Thread group id, in the pid namespace of the `/proc` that was read.
    pub tgid: u32,
    /// Its parent now (the one that adopted it, if the one that forked it is gone); 0 if it has none.
    pub parent_tgid: u32,
    /// Name of the group leader: 15 bytes for a program, more for some kernel threads (`kworker/0:1-events`). Bytes
    /// that are not UTF-8 are replaced.
    pub comm: String,
    /// Start of the group leader in clock ticks of CLOCK_BOOTTIME; compare with [`ticks_of`].
    pub start_ticks: u64,
    /// Real user id; `None` if `status` cannot be read.
    pub uid: Option<u32>,
}

/// A user that `--uid` cannot use.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such name.
    #[error(
        "There is no user `{name}` on this machine. Give a name that `getent passwd` lists, or the number of a user \
         id, which need not be listed (as in a container)."
    )]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// A number that is not a user id.
    #[error("`{number}` is not a user id: user ids run from 0 to 4294967294. Give such a number, or a name.")]
    OutOfRange {
        /// What was asked for.
        number: String,
    },
    /// The user database failed.
    #[error("Looking up the user `{name}` failed ({cause}). Give the user id as a number instead: `id -u {name}`.")]
    Lookup {
        /// What was asked for.
        name: String,
        /// What the system said.
        cause: io::Error,
    },
}

/// Every process below `procfs` (`/proc`). Processes that vanish while they are read are not in the result.
///
/// # Errors
///
/// Only if the directory itself cannot be listed.
pub fn scan(procfs: &Path) -> io::Result<Vec<ProcEntry>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(procfs)? {
        let name = entry?.file_name();
        let Some(tgid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        found.extend(read_one(procfs, tgid));
    }
    Ok(found)
}

/// One process; `None` if it is gone.
pub fn read_one(procfs: &Path, tgid: u32) -> Option<ProcEntry> {
    let directory = procfs.join(tgid.to_string());
    let stat = Stat::parse(&fs::read(directory.join("stat")).ok()?)?;
    Some(ProcEntry {
        tgid,
        parent_tgid: stat.parent,
        comm: stat.comm,
        start_ticks: stat.start_ticks,
        uid: read_status(&directory).map(|status| status.ruid),
    })
}

/// Effective user id of a process: the kernel shows it as the owner of its directory, also of one that must not be dumped
/// (`task_dump_owner` in fs/proc/base.c). `None` if it is gone.
pub fn effective_uid(procfs: &Path, tgid: u32) -> Option<u32> {
    Some(fs::metadata(procfs.join(tgid.to_string())).ok()?.uid())
}

/// Start of a process in clock ticks of CLOCK_BOOTTIME; `None` if it is gone.
pub fn start_ticks(procfs: &Path, tgid: u32) -> Option<u64> {
    let stat = fs::read(procfs.join(format!("{tgid}/stat"))).ok()?;
    Some(Stat::parse(&stat)?.start_ticks)
}

/// The process that a thread belongs to; `None` if it is gone. `/proc` lists threads by no name but answers to each.
pub fn process_of(procfs: &Path, thread: u32) -> Option<u32> {
    let status = fs::read_to_string(procfs.join(format!("{thread}/status"))).ok()?;
    let tgid = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    tgid.trim().parse().ok()
}

/// A start time in nanoseconds of CLOCK_BOOTTIME as `/proc` shows it: in clock ticks (10 ms), rounded down.
pub fn ticks_of(start_ns: u64) -> u64 {
    // The kernel's nsec_to_clock_t divides in the same way where the tick is a whole number of nanoseconds.
    let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    start_ns / tick_ns.max(1)
}

/// The user id of `--uid alice` or `--uid 1000`. Digits are always an id, listed or not.
///
/// # Errors
///
/// [`UserError`], with what to give instead.
pub fn uid_of_user(name_or_number: &str) -> Result<u32, UserError> {
    let name = name_or_number.to_owned();
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
        return match name.parse() {
            // u32::MAX is (uid_t) -1, which system calls take for "no user".
            Ok(u32::MAX) | Err(_) => Err(UserError::OutOfRange { number: name }),
            Ok(uid) => Ok(uid),
        };
    }
    match User::from_name(&name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        // getpwnam(3): all of these may mean that there is no such user. EINVAL: a zero byte in the name.
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM | Errno::EINVAL) => {
            Err(UserError::Unknown { name })
        }
        Err(errno) => Err(UserError::Lookup {
            name,
            cause: errno.into(),
        }),
    }
}

/// `status` of the process whose `/proc` directory is given.
pub(super) fn read_status(directory: &Path) -> Option<Status> {
    let bytes = fs::read(directory.join("status")).ok()?;
    // The parser refuses a file that is not UTF-8, and the name in it need not be.
    Status::from_buf_read(String::from_utf8_lossy(&bytes).as_bytes()).ok()
}

/// The few fields of `stat` that are needed. procfs-core's parser takes each line for granted: it panics on a short
/// one, and it makes numbers of all 52 fields.
struct Stat {
    comm: String,
    parent: u32,
    start_ticks: u64,
}

impl Stat {
    fn parse(line: &[u8]) -> Option<Self> {
        // A name may hold parentheses, spaces and newlines: it ends at the last parenthesis of the line.
        let open = line.iter().position(|&byte| byte == b'(')?;
        let close = line.iter().rposition(|&byte| byte == b')')?;
        let comm = line.get(open + 1..close)?;
        let mut fields = std::str::from_utf8(line.get(close + 1..)?)
            .ok()?
            .split_ascii_whitespace();
        // Numbers as in proc(5): the first field after the name is 3, the state.
        let parent = fields.nth(4 - 3)?.parse().ok()?;
        let start_ticks = fields.nth(22 - 5)?.parse().ok()?;
        Some(Self {
            comm: String::from_utf8_lossy(comm).into_owned(),
            parent,
            start_ticks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const REST: &str = "S 1 7 7 0 -1 4194304 1 0 0 0 5 6 0 0 20 0 1 0 4711 0 0 18446744073709551615 0 0 0 0 0 0 0 0 0 \
                        0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0";

    fn process(procfs: &TempDir, tgid: u32, comm: &[u8]) {
        let directory = procfs.path().join(tgid.to_string());
        fs::create_dir_all(&directory).unwrap();
        let mut stat = format!("{tgid} (").into_bytes();
        stat.extend_from_slice(comm);
        stat.extend_from_slice(format!(") {REST}\n").as_bytes());
        fs::write(directory.join("stat"), stat).unwrap();
        let own = fs::read_to_string("/proc/self/status").unwrap();
        let mut status = b"Name:\t".to_vec();
        status.extend_from_slice(comm);
        for line in own.lines().skip(1) {
            let line = if line.starts_with("Uid:") {
                "Uid:\t1000\t0\t0\t0"
            } else {
                line
            };
            status.extend_from_slice(format!("\n{line}").as_bytes());
        }
        fs::write(directory.join("status"), status).unwrap();
    }

    #[test]
    fn names_of_every_kind() {
        for comm in [
            &b"python3.11"[..],
            b"a) S 1 (b",
            b"new line",
            b"(sd-pam)",
            b"caf\xc3",
            b"",
            b")",
        ] {
            let procfs = TempDir::new().unwrap();
            process(&procfs, 42, comm);
            assert_eq!(
                scan(procfs.path()).unwrap(),
                [ProcEntry {
                    tgid: 42,
                    parent_tgid: 1,
                    comm: String::from_utf8_lossy(comm).into_owned(),
                    start_ticks: 4711,
                    uid: Some(1000),
                }]
            );
        }
        // `status` escapes a newline, `stat` does not.
        assert_eq!(Stat::parse(format!("1 (a\nb) {REST}").as_bytes()).unwrap().comm, "a\nb");
    }

    #[test]
    fn what_vanishes_or_is_no_process_is_left_out() {
        let procfs = TempDir::new().unwrap();
        process(&procfs, 42, b"here");
        fs::create_dir(procfs.path().join("43")).unwrap();
        fs::create_dir(procfs.path().join("sys")).unwrap();
        assert_eq!(scan(procfs.path()).unwrap().len(), 1);
        assert_eq!(read_one(procfs.path(), 43), None);
        fs::remove_file(procfs.path().join("42/status")).unwrap();
        assert_eq!(read_one(procfs.path(), 42).unwrap().uid, None);
        assert!(scan(&procfs.path().join("absent")).is_err());
    }

    #[test]
    fn a_damaged_line_is_no_process() {
        for line in [
            "",
            "1",
            "1 (a",
            "1 (a)",
            ")(",
            "1 (a) S",
            "1 (a) S x 1 1",
            &format!("1 (a) {}", &REST[..40]),
        ] {
            assert!(Stat::parse(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn the_test_itself_is_found_with_its_real_name_and_start() {
        let own = std::process::id();
        let scanned = scan(Path::new("/proc")).unwrap();
        let entry = scanned.iter().find(|entry| entry.tgid == own).unwrap();
        assert_eq!(entry.comm, fs::read_to_string("/proc/self/comm").unwrap().trim_end());
        assert_eq!(Some(entry.start_ticks), start_ticks(Path::new("/proc"), own));
        assert_eq!(entry.uid, Some(rustix::process::getuid().as_raw()));
    }

    #[test]
    fn the_owner_of_the_directory_is_the_effective_user() {
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(effective_uid(Path::new("/proc"), std::process::id()), Some(own));
        assert_eq!(effective_uid(&Path::new("/proc").join("absent"), 1), None);
    }

    #[test]
    fn start_times_are_rounded_down_to_ticks() {
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        assert_eq!(ticks_of(0), 0);
        assert_eq!(ticks_of(tick_ns - 1), 0);
        assert_eq!(ticks_of(47 * tick_ns), 47);
        assert_eq!(ticks_of(48 * tick_ns - 1), 47);
    }

    #[test]
    fn users_by_name_and_number() {
        assert_eq!(uid_of_user("root").unwrap(), 0);
        assert_eq!(uid_of_user("1000").unwrap(), 1000);
        assert!(matches!(uid_of_user("no such user"), Err(UserError::Unknown { .. })));
        assert!(matches!(uid_of_user(""), Err(UserError::Unknown { .. })));
        assert!(matches!(uid_of_user("a\0b"), Err(UserError::Unknown { .. })));
        assert!(matches!(uid_of_user("4294967295"), Err(UserError::OutOfRange { .. })));
    }
}
