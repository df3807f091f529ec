//! Which CPUs are online, as the kernel lists them.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use rustix::fs::fstatfs;

/// The kernel's list.
const LIST: &str = "/sys/devices/system/cpu/online";

/// `SYSFS_MAGIC`: <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/magic.h#L45>
const SYSFS: i64 = 0x6265_6572;

/// Bytes of the list. A kernel of 8,192 CPUs, of which every other one is offline, needs half of it.
const ROOM: usize = 1 << 15;

/// The list, and what it said when it was read.
#[derive(Debug)]
pub(super) struct OnlineCpus {
    list: File,
    text: Vec<u8>,
    online: Vec<bool>,
}

impl OnlineCpus {
    /// Opens the kernel's list, or another one. `None` where it is not there, or where somebody else answers for the
    /// kernel, as lxcfs does.
    pub(super) fn open(path: Option<&Path>) -> Option<Self> {
        let list = File::open(path.unwrap_or(Path::new(LIST))).ok()?;
        if path.is_none() && fstatfs(&list).ok()?.f_type != SYSFS {
            return None;
        }
        Some(Self {
            list,
            text: vec![0; ROOM],
            online: Vec::new(),
        })
    }

    /// Reads it anew. Where that fails, no CPU is online.
    pub(super) fn read(&mut self) {
        self.online.clear();
        let Ok(length) = self.list.read_at(&mut self.text, 0) else {
            return;
        };
        let Ok(text) = str::from_utf8(&self.text[..length]) else {
            return;
        };
        for range in text.trim_end().split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else {
                return;
            };
            if usize::from(last) >= self.online.len() {
                self.online.resize(usize::from(last) + 1, false);
            }
            for cpu in first..=last {
                self.online[usize::from(cpu)] = true;
            }
        }
    }

    /// Whether a CPU was in it.
    pub(super) fn contains(&self, cpu: u32) -> bool {
        self.online.get(cpu as usize).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn online(text: &str) -> Vec<u32> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let mut cpus = OnlineCpus::open(Some(file.path())).unwrap();
        cpus.read();
        (0..100).filter(|cpu| cpus.contains(*cpu)).collect()
    }

    #[test]
    fn lists_of_the_kernel() {
        assert_eq!(online("0\n"), [0]);
        assert_eq!(online("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(online("1,3-4\n"), [1, 3, 4]);
        assert!(online("").is_empty());
        assert_eq!(online("0,x\n"), [0]);
        assert_eq!(online("0,5000000000\n"), [0]);
        assert!(online("7-3\n").is_empty());
    }

    #[test]
    fn a_list_is_read_anew() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "0-1\n").unwrap();
        let mut cpus = OnlineCpus::open(Some(file.path())).unwrap();
        assert!(!cpus.contains(0));
        cpus.read();
        assert!(cpus.contains(1));
        fs::write(file.path(), "0\n").unwrap();
        cpus.read();
        assert!(cpus.contains(0) && !cpus.contains(1));
    }
}
