//! The user who called `sudo`.

use std::{
    env,
    ffi::{CStr, CString},
    io,
    path::PathBuf,
};

use anyhow::{Context, Result, bail};

/// The user in whose name files are written and commands run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All groups of the user.
    pub groups: Vec<u32>,
    /// Name, or the number where it has none.
    pub name: String,
    /// Home directory, if the user is in the user database.
    pub home: Option<PathBuf>,
    /// Login shell, if the user is in the user database.
    pub shell: Option<PathBuf>,
}

impl Caller {
    /// The user who called `sudo dlpm`; `None` where dlpm was started without sudo, or by root itself.
    ///
    /// # Errors
    ///
    /// Where sudo's variables are there but make no sense: then it is not known whom files should belong to.
    pub fn of_sudo() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let Some(uid) = env::var_os("SUDO_UID") else {
            return Ok(None);
        };
        let gid = env::var_os("SUDO_GID").unwrap_or_default();
        let number = |value: &std::ffi::OsStr| value.to_str().and_then(|text| text.parse::<u32>().ok());
        let (Some(uid), Some(gid)) = (number(&uid), number(&gid)) else {
            bail!(
                "SUDO_UID and SUDO_GID are set, but not to a user and a group ({uid:?}, {gid:?}), so it is not known \
                 whom the log belongs to: start dlpm through sudo, or unset them to write as root"
            );
        };
        if uid == 0 {
            return Ok(None);
        }
        Self::of_user(uid, gid).map(Some)
    }

    fn of_user(uid: u32, gid: u32) -> Result<Self> {
        let entry =
            PasswordEntry::of(uid).with_context(|| format!("the user database cannot be read for uid {uid}"))?;
        let Some(entry) = entry else {
            return Ok(Self {
                uid,
                gid,
                groups: vec![gid],
                name: uid.to_string(),
                home: None,
                shell: None,
            });
        };
        let groups = groups(&entry.name, gid)?;
        Ok(Self {
            uid,
            gid,
            groups,
            name: entry.name.to_string_lossy().into_owned(),
            home: Some(PathBuf::from(entry.home.to_string_lossy().into_owned())),
            shell: Some(PathBuf::from(entry.shell.to_string_lossy().into_owned())),
        })
    }
}

struct PasswordEntry {
    name: CString,
    home: CString,
    shell: CString,
}

impl PasswordEntry {
    fn of(uid: u32) -> io::Result<Option<Self>> {
        let mut buffer = vec![0_i8 as libc::c_char; 1024];
        loop {
            // SAFETY: passwd is plain data that the call fills.
            let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
            let mut found = std::ptr::null_mut();
            // SAFETY: every pointer is valid for the sizes given, for the time of the call.
            let error =
                unsafe { libc::getpwuid_r(uid, &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found) };
            match error {
                0 if found.is_null() => return Ok(None),
                0 => {
                    // SAFETY: the call succeeded, so the fields point to strings in `buffer`, which is still there.
                    let text = |field: *mut libc::c_char| unsafe { CStr::from_ptr(field) }.to_owned();
                    return Ok(Some(Self {
                        name: text(entry.pw_name),
                        home: text(entry.pw_dir),
                        shell: text(entry.pw_shell),
                    }));
                }
                libc::ERANGE => buffer.resize(buffer.len() * 2, 0),
                error => return Err(io::Error::from_raw_os_error(error)),
            }
        }
    }
}

fn groups(name: &CStr, gid: u32) -> Result<Vec<u32>> {
    let mut groups = vec![0; 64];
    loop {
        let mut count = i32::try_from(groups.len()).context("too many groups")?;
        // SAFETY: room for `count` groups, and a terminated name.
        let result = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if result >= 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        if count <= groups.len() {
            bail!("the groups of user {} cannot be read", name.to_string_lossy());
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_with_its_groups() {
        let root = Caller::of_user(0, 0).unwrap();
        assert_eq!(root.name, "root");
        assert!(root.groups.contains(&0));
        assert!(root.home.is_some());
    }

    #[test]
    fn a_user_without_an_entry_has_its_group_only() {
        let nobody = Caller::of_user(4_000_000_000, 4_000_000_001).unwrap();
        assert_eq!(nobody.groups, [4_000_000_001]);
        assert_eq!(nobody.name, "4000000000");
        assert_eq!(nobody.home, None);
    }
}
