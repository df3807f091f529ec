//! Who is on the other side of a connection, as the kernel says.

use std::{io, os::fd::AsRawFd};

use nix::unistd::Group;
use tokio::net::UnixStream;

/// The group whose members may see everybody's processes.
pub const GROUP: &str = "dlpm";

/// Groups of one process at most (`NGROUPS_MAX` of Linux).
const MOST_GROUPS: usize = 65_536;

/// A process that has connected. What it was when it did: it may be another user since, or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id, and its further groups.
    groups: Vec<u32>,
    /// Its thread group id here; `None` if it is in a pid namespace beside this one.
    pub pid: Option<u32>,
}

impl Peer {
    /// Who has connected.
    ///
    /// # Errors
    ///
    /// Where the kernel does not tell.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let mut groups = further_groups(stream)?;
        groups.push(credentials.gid());
        Ok(Self {
            uid: credentials.uid(),
            groups,
            pid: credentials
                .pid()
                .and_then(|pid| u32::try_from(pid).ok())
                .filter(|pid| *pid > 0),
        })
    }

    /// Whether it may see the processes of everybody: root, and members of the group with that number.
    pub fn sees_all(&self, group: Option<u32>) -> bool {
        self.uid == 0 || group.is_some_and(|group| self.groups.contains(&group))
    }
}

/// The number of the group [`GROUP`], if there is one.
pub fn group() -> Option<u32> {
    let found = Group::from_name(GROUP).inspect_err(|error| log::warn!("the group {GROUP} is not known: {error}"));
    Some(found.ok()??.gid.as_raw())
}

/// The supplementary groups that the process had when it connected (`SO_PEERGROUPS`, unix(7), Linux 4.13).
fn further_groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups: Vec<u32> = vec![0; 32];
    loop {
        let mut bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `bytes` bytes to the buffer, which has as many, and numbers of any value are
        // valid there. The descriptor is open as long as `stream` is borrowed.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let needed = usize::try_from(bytes).map_err(io::Error::other)? / size_of::<u32>();
        match result {
            0 => {
                groups.truncate(needed);
                return Ok(groups);
            }
            _ => match io::Error::last_os_error() {
                error
                    if error.raw_os_error() == Some(libc::ERANGE) && groups.len() < needed && needed <= MOST_GROUPS =>
                {
                    groups.resize(needed, 0);
                }
                error => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_who_is_there() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let peer = runtime.block_on(async {
            let (one, _other) = UnixStream::pair().unwrap();
            Peer::of(&one).unwrap()
        });
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.pid, Some(std::process::id()));
        assert!(peer.groups.contains(&rustix::process::getegid().as_raw()));
    }

    #[test]
    fn root_and_members_of_the_group_see_everybody() {
        let peer = |uid| Peer {
            uid,
            groups: vec![100, 2000],
            pid: None,
        };
        assert!(peer(0).sees_all(None));
        assert!(!peer(1000).sees_all(None));
        assert!(peer(1000).sees_all(Some(2000)));
        assert!(!peer(1000).sees_all(Some(2001)));
    }
}
