//! The local time zone, as `date` and every other program of the C library find it.
//!
//! `TZ` may be hostile: dlpm runs as root, and sudo can hand the variable on. So nothing but a regular file of a sensible
//! size is read, through our own bounded reader: that of a time zone library waits forever for a pipe.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Component, Path, PathBuf},
    sync::LazyLock,
};

use jiff::tz::TimeZone;
use rustix::fs::OFlags;

/// Where systems keep the files of named zones.
const FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];

/// The zone where `TZ` is not set.
const LOCALTIME: &str = "/etc/localtime";

/// Bytes of a zone's file at most; the largest of the tz database has less than 4 KiB.
const FILE_BYTES: u64 = 1 << 20;

/// Characters of `TZ` that a message repeats.
const SHOWN: usize = 80;

/// Names of UTC: right also where the system has no zone files.
const UTC_NAMES: [&str; 6] = ["UTC", "GMT", "UCT", "Zulu", "Universal", "Etc/UTC"];

/// When daylight saving time begins and ends where a POSIX rule does not say it, as in the C library.
const USUAL_RULE: &str = ",M3.2.0,M11.1.0";

/// The local time zone.
#[derive(Clone, Debug)]
pub struct Local {
    /// The zone; UTC where it is not known.
    pub timezone: TimeZone,
    /// A sentence for the user where the zone that was asked for is not known.
    pub note: Option<String>,
}

/// The time zone of this process, read once.
pub fn local() -> &'static Local {
    static LOCAL: LazyLock<Local> = LazyLock::new(|| {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
        // The user of sudo chooses a zone, but not which files root opens.
        let by_sudo = rustix::process::geteuid().is_root() && variable("SUDO_UID").is_some();
        let folders = variable("TZDIR").filter(|_| !by_sudo).map(PathBuf::from).into_iter();
        let folders: Vec<PathBuf> = folders.chain(FOLDERS.map(PathBuf::from)).collect();
        find(env::var_os("TZ").as_deref(), &folders, Path::new(LOCALTIME), !by_sudo)
    });
    &LOCAL
}

/// The zone that `tz` means, in the order of the C library: the file of that name, else a POSIX rule.
fn find(tz: Option<&OsStr>, folders: &[PathBuf], localtime: &Path, anywhere: bool) -> Local {
    let known = |timezone| Local { timezone, note: None };
    let Some(tz) = tz else {
        return match zone_file(localtime) {
            Ok(timezone) => known(timezone),
            Err(Unread::Absent) => known(TimeZone::UTC),
            Err(Unread::Unusable(why)) => Local {
                timezone: TimeZone::UTC,
                note: Some(format!(
                    "the local time zone is not known, so times are in UTC: {} {why}; set TZ=UTC, or to a zone such as \
                     Europe/Berlin",
                    localtime.display()
                )),
            },
        };
    };
    let name = tz.as_bytes().strip_prefix(b":").unwrap_or(tz.as_bytes());
    if name.is_empty() {
        return known(TimeZone::UTC);
    }
    let file = named_file(Path::new(OsStr::from_bytes(name)), folders, anywhere);
    let why = match file {
        Ok(timezone) => return known(timezone),
        Err(why) => why,
    };
    let text = str::from_utf8(name).unwrap_or_default();
    if UTC_NAMES.contains(&text) {
        return known(TimeZone::UTC);
    }
    match rule(text) {
        Some(timezone) => known(timezone),
        None => Local {
            timezone: TimeZone::UTC,
            note: Some(format!(
                "TZ is `{}`, but {why}, so times are in UTC: install the system's zone files (the package tzdata), or \
                 give a rule such as CET-1CEST,M3.5.0,M10.5.0/3",
                shown(tz)
            )),
        },
    }
}

/// The zone of a file below the first of `folders` that has it, or of an absolute path.
///
/// # Errors
///
/// Half a sentence that says why there is none.
fn named_file(name: &Path, folders: &[PathBuf], anywhere: bool) -> Result<TimeZone, String> {
    if name.components().any(|part| part == Component::ParentDir) {
        return Err("a zone's name does not lead upwards (`..`)".to_owned());
    }
    let unknown = || "this system has no zone of that name".to_owned();
    let candidates: Vec<PathBuf> = if name.is_relative() {
        folders.iter().map(|folder| folder.join(name)).collect()
    } else if anywhere || folders.iter().any(|folder| name.starts_with(folder)) {
        vec![name.to_owned()]
    } else {
        return Err("under sudo a zone's file is read from the system's folders alone".to_owned());
    };
    for path in candidates {
        match zone_file(&path) {
            Ok(timezone) => return Ok(timezone),
            Err(Unread::Absent) => {}
            Err(Unread::Unusable(why)) => return Err(format!("that file {why}")),
        }
    }
    Err(unknown())
}

/// Why there is no zone in a file.
enum Unread {
    Absent,
    /// The end of a sentence that begins with the file.
    Unusable(String),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Absent,
            _ => Self::Unusable(format!("cannot be read ({error})")),
        }
    }
}

fn zone_file(path: &Path) -> Result<TimeZone, Unread> {
    let unusable = |why: &str| Unread::Unusable(why.to_owned());
    let check = |file: &fs::Metadata| match file {
        file if !file.is_file() => Err(unusable("is not a regular file")),
        file if file.len() > FILE_BYTES => Err(unusable("is too large for a time zone")),
        _ => Ok(()),
    };
    // Before it is opened, as that alone can move a tape; and after it, as it may have been replaced by a pipe.
    check(&fs::metadata(path)?)?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    check(&file.metadata()?)?;
    let mut contents = Vec::new();
    file.take(FILE_BYTES).read_to_end(&mut contents)?;
    // The name is for messages that nobody sees.
    TimeZone::tzif("local", &contents).map_err(|_| unusable("does not hold a time zone"))
}

/// A POSIX rule, such as `CET-1CEST,M3.5.0,M10.5.0/3`.
fn rule(text: &str) -> Option<TimeZone> {
    let short = || TimeZone::posix(&format!("{text}{USUAL_RULE}"));
    TimeZone::posix(text).or_else(|_| short()).ok()
}

/// What a message repeats of a variable: printable, and not endless.
fn shown(value: &OsStr) -> String {
    let text = value.to_string_lossy();
    let mut start: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().count() > SHOWN {
        start.push('…');
    }
    start
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, process::Command};

    use jiff::{Timestamp, civil};
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// A zone's file without rules but its footer, version 2 of RFC 9636: so that tests need none of the system's.
    fn tzif(footer: &str) -> Vec<u8> {
        let mut block = b"TZif2".to_vec();
        block.extend([0; 15]);
        // Counts: indicators of UT and of standard time, leap seconds, transitions, types, bytes of names.
        for count in [0_u32, 0, 0, 0, 1, 4] {
            block.extend(count.to_be_bytes());
        }
        block.extend([0; 6]);
        block.extend(b"LMT\0");
        let mut file = block.repeat(2);
        file.extend(format!("\n{footer}\n").as_bytes());
        file
    }

    struct Zones(tempfile::TempDir);

    impl Zones {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("Europe")).unwrap();
            fs::write(folder.path().join("Europe/Berlin"), tzif("CET-1CEST,M3.5.0,M10.5.0/3")).unwrap();
            fs::write(folder.path().join("Tokyo"), tzif("JST-9")).unwrap();
            Self(folder)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn find(&self, tz: impl AsRef<OsStr>) -> Local {
            self.find_as(tz, true)
        }

        fn find_as(&self, tz: impl AsRef<OsStr>, anywhere: bool) -> Local {
            let folders = [self.path("none"), self.0.path().to_owned()];
            find(Some(tz.as_ref()), &folders, &self.path("localtime"), anywhere)
        }
    }

    /// Hours east of Greenwich, in winter and in summer.
    fn hours(local: &Local) -> (i32, i32) {
        let at = |month| {
            let time = civil::date(2026, month, 15).at(12, 0, 0, 0);
            let time: Timestamp = time.to_zoned(TimeZone::UTC).unwrap().timestamp();
            local.timezone.to_offset(time).seconds() / 3600
        };
        (at(1), at(7))
    }

    fn is_known(local: &Local, expected: (i32, i32)) {
        assert_eq!((local.note.as_deref(), hours(local)), (None, expected));
    }

    fn is_unknown(local: &Local, says: &str) {
        assert_eq!(hours(local), (0, 0));
        let note = local.note.as_deref().unwrap();
        assert!(note.contains(says) && note.contains("UTC"), "{note}");
        assert!(!note.chars().any(char::is_control) && note.len() < 500, "{note}");
    }

    #[test]
    fn names_rules_and_paths_are_known() {
        let zones = Zones::new();
        for tz in [
            "Europe/Berlin",
            ":Europe/Berlin",
            "CET-1CEST,M3.5.0,M10.5.0/3",
            "CET-1CEST",
        ] {
            is_known(&zones.find(tz), (1, 2));
        }
        is_known(&zones.find(zones.path("Europe/Berlin")), (1, 2));
        for tz in ["Tokyo", ":Tokyo", "JST-9", "<+09>-9"] {
            is_known(&zones.find(tz), (9, 9));
        }
        // A rule counts west of Greenwich; without a rule for summer, that of the United States.
        is_known(&zones.find("EST5EDT"), (-5, -4));
        for tz in ["", ":", "UTC", "UTC0", "GMT", "Etc/UTC"] {
            is_known(&zones.find(tz), (0, 0));
        }
    }

    #[test]
    fn without_the_variable_it_is_the_zone_of_the_machine() {
        let zones = Zones::new();
        let local = |localtime: &Path| find(None, &[], localtime, false);
        is_known(&local(&zones.path("localtime")), (0, 0));
        symlink("Europe/Berlin", zones.path("localtime")).unwrap();
        is_known(&local(&zones.path("localtime")), (1, 2));
        is_unknown(&local(&zones.path("Europe")), "is not a regular file");
    }

    #[test]
    fn an_unknown_zone_is_said_to_be_unknown() {
        let zones = Zones::new();
        for tz in ["Europe/Nowhere", "europe/berlin", "Berlin", "Europe/Berlin/West"] {
            is_unknown(&zones.find(tz), "no zone of that name");
        }
        fs::write(zones.path("text"), "no zone").unwrap();
        is_unknown(&zones.find("text"), "does not hold a time zone");
        let mut cut = tzif("JST-9");
        cut.truncate(60);
        fs::write(zones.path("cut"), cut).unwrap();
        is_unknown(&zones.find("cut"), "does not hold a time zone");
    }

    #[test]
    fn a_hostile_variable_does_no_harm() {
        let zones = Zones::new();
        is_unknown(&zones.find("../../../../etc/passwd"), "upwards");
        is_unknown(&zones.find("Europe"), "not a regular file");
        is_unknown(&zones.find("/dev/zero"), "not a regular file");
        let pipe = zones.path("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        is_unknown(&zones.find(&pipe), "not a regular file");
        File::create(zones.path("large")).unwrap().set_len(1 << 40).unwrap();
        is_unknown(&zones.find("large"), "too large");
        is_unknown(&zones.find("\u{1b}[31m\u{202e}red"), "no zone of that name");
        is_unknown(&zones.find("x".repeat(5000)), "…");
        is_unknown(&zones.find(OsStr::from_bytes(b"\xff\xfe")), "no zone of that name");
        // Whoever calls sudo does not choose what root opens.
        let outside = tempfile::tempdir().unwrap();
        let file = outside.path().join("zone");
        fs::write(&file, tzif("JST-9")).unwrap();
        is_known(&zones.find_as(&file, true), (9, 9));
        is_unknown(&zones.find_as(&file, false), "under sudo");
        is_known(&zones.find_as(zones.path("Tokyo"), false), (9, 9));
    }

    #[test]
    fn the_zones_of_this_system_agree_with_date() {
        let folders = FOLDERS.map(PathBuf::from);
        for tz in [
            "Europe/Berlin",
            ":Asia/Kolkata",
            "America/New_York",
            "Australia/Lord_Howe",
            "NZST-12NZDT,M9.5.0,M4.1.0/3",
            "CET-1CEST",
            "<-03>3",
            "Nowhere/AtAll",
            "UTC",
        ] {
            let zone = find(Some(OsStr::new(tz)), &folders, Path::new(LOCALTIME), true).timezone;
            for seconds in [1_768_478_400, 1_784_116_800, 1_790_000_000] {
                let date = Command::new("date")
                    .env("TZ", tz)
                    .args(["-d", &format!("@{seconds}"), "+%F %T %z"])
                    .output()
                    .unwrap();
                let ours = Timestamp::from_second(seconds).unwrap().to_zoned(zone.clone());
                assert_eq!(
                    String::from_utf8(date.stdout).unwrap().trim(),
                    ours.strftime("%F %T %z").to_string(),
                    "{tz}"
                );
            }
        }
    }
}
