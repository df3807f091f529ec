//! The user who called `sudo`.

use std::{
    env,
    ffi::{CString, OsStr},
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::sinks::writer::Identity;

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
    /// The user who called `sudo dlpm`; `None` if dlpm was started without sudo, or by root itself.
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
        let number = |value: &OsStr| value.to_str().and_then(|text| text.parse::<u32>().ok());
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

    /// In whose name the user's files are written.
    pub fn identity(&self) -> Identity {
        Identity {
            uid: self.uid,
            gid: self.gid,
            groups: self.groups.clone(),
            name: self.name.clone(),
        }
    }

    fn of_user(uid: u32, gid: u32) -> Result<Self> {
        let user = User::from_uid(Uid::from_raw(uid))
            .with_context(|| format!("the user database cannot be read for uid {uid}"))?;
        let Some(user) = user else {
            return Ok(Self {
                uid,
                gid,
                groups: vec![gid],
                name: uid.to_string(),
                home: None,
                shell: None,
            });
        };
        let groups = CString::new(user.name.as_str())
            .map_err(anyhow::Error::from)
            .and_then(|name| Ok(getgrouplist(&name, Gid::from_raw(gid))?))
            .with_context(|| format!("the groups of user {} cannot be read", user.name))?;
        Ok(Self {
            uid,
            gid,
            groups: groups.into_iter().map(Gid::as_raw).collect(),
            name: user.name,
            home: Some(user.dir),
            shell: Some(user.shell),
        })
    }
}

/// In whose name a command writes: that of the user who called sudo, else its own.
///
/// # Errors
///
/// Those of [`Caller::of_sudo`].
pub fn identity() -> Result<Option<Identity>> {
    Ok(Caller::of_sudo()?.as_ref().map(Caller::identity))
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
