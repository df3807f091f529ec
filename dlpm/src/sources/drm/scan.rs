//! Which processes have a GPU open: `/proc/PID/fd`, of those that ran.
//!
//! A look at a descriptor costs 1.5 to 2.5 µs, and a machine has thousands of them. So each process is looked at once,
//! and again when the number of its descriptors has changed, or after a time that doubles; never at more than
//! [`MOST_LOOKED`] descriptors in an interval, but for processes that are new. What has a GPU open is read in each.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use super::{
    clients::Open,
    fdinfo::{Fdinfo, parse},
};
use crate::{files, interval::ProcessId};

/// Descriptors that are looked at again in an interval, at most, and those of one process more.
pub(super) const MOST_LOOKED: u64 = 1_000;

/// Looks at a process are at most so many intervals apart.
const LONGEST_WAIT: u64 = 64;

/// Open GPUs of one process that are read.
const MOST_OPEN: usize = 1_024;

/// More than `fdinfo` has.
const MOST_BYTES: u64 = 16 << 10;

/// The processes that were looked at.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// By pid.
    known: HashMap<u32, Known>,
    /// Number of the interval.
    number: u64,
    /// CLOCK_BOOTTIME of the scan before.
    before_ns: u64,
    /// Descriptors that were looked at, and files that were read, since the start.
    pub looked: u64,
    pub read: u64,
    /// Open GPUs of which the kernel tells no client, at the newest scan.
    pub untold: u64,
}

#[derive(Debug)]
struct Known {
    process: ProcessId,
    /// Descriptors of GPUs, and whether each was there at the look before.
    open: Vec<(u32, bool)>,
    /// What the kernel says of their number; 0 before Linux 6.2.
    descriptors: u64,
    look_at: u64,
    wait: u64,
}

impl Scan {
    /// Looks at the processes that `ran`, and reads every GPU that any is known to have open. `boot_ns` is
    /// CLOCK_BOOTTIME.
    pub fn next(&mut self, procfs: &Path, ran: &[ProcessId], boot_ns: u64) -> Vec<Open> {
        let mut budget = MOST_LOOKED;
        for &process in ran {
            let directory = procfs.join(process.tgid.to_string()).join("fd");
            // A pid that is used again is another process.
            let known = self.known.get(&process.tgid).filter(|known| known.process == process);
            let Some(known) = known else {
                self.known.remove(&process.tgid);
                // All that a process did that is new is of this interval.
                let is_new = self.number > 0 && process.start_ns > self.before_ns;
                if let Ok(open) = self.look(&directory) {
                    let known = Known {
                        process,
                        open: open.into_iter().map(|number| (number, !is_new)).collect(),
                        descriptors: descriptors(&directory),
                        look_at: self.number + 1,
                        wait: 1,
                    };
                    self.known.insert(process.tgid, known);
                }
                continue;
            };
            let now = descriptors(&directory);
            let has_changed = now != known.descriptors;
            if budget == 0 || !(has_changed || known.look_at <= self.number) {
                continue;
            }
            let before = self.looked;
            let Ok(open) = self.look(&directory) else {
                self.known.remove(&process.tgid);
                continue;
            };
            budget = budget.saturating_sub(self.looked - before);
            let number = self.number;
            if let Some(known) = self.known.get_mut(&process.tgid) {
                let was_there = |number: &u32| known.open.iter().any(|(open, _)| open == number);
                known.open = open.iter().map(|number| (*number, was_there(number))).collect();
                known.descriptors = now;
                known.wait = if has_changed {
                    1
                } else {
                    (known.wait * 2).min(LONGEST_WAIT)
                };
                known.look_at = number + known.wait;
            }
        }
        self.number += 1;
        self.before_ns = boot_ns;
        self.read(procfs)
    }

    /// The descriptors of GPUs.
    fn look(&mut self, directory: &Path) -> io::Result<Vec<u32>> {
        let mut open = Vec::new();
        for entry in fs::read_dir(directory)?.flatten() {
            self.looked += 1;
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(number), Ok(target)) = (number, fs::read_link(entry.path()))
                && is_gpu(&target)
                && fs::metadata(entry.path()).map_or(true, |metadata| is_drm(&metadata))
                && open.len() < MOST_OPEN
            {
                open.push(number);
            }
        }
        Ok(open)
    }

    fn read(&mut self, procfs: &Path) -> Vec<Open> {
        let mut all = Vec::new();
        self.untold = 0;
        for (pid, known) in &mut self.known {
            let process = known.process;
            let directory = procfs.join(pid.to_string()).join("fdinfo");
            known.open.retain_mut(|(number, was_there)| {
                self.read += 1;
                match fdinfo(&directory.join(number.to_string())) {
                    Ok(Some(info)) => {
                        all.push(Open {
                            process,
                            is_new: !std::mem::replace(was_there, true),
                            info,
                        });
                        true
                    }
                    Ok(None) => {
                        self.untold += 1;
                        true
                    }
                    // It was closed, or the process has gone.
                    Err(_) => false,
                }
            });
        }
        // Of those that are gone nothing is left; one that has not ended is looked at again when it runs.
        if self.number.is_multiple_of(LONGEST_WAIT) {
            self.known.retain(|pid, _| procfs.join(pid.to_string()).exists());
        }
        all
    }
}

fn is_gpu(target: &Path) -> bool {
    let Ok(name) = target.strip_prefix("/dev/dri") else {
        return false;
    };
    let name = name.to_string_lossy();
    name.starts_with("card") || name.starts_with("renderD")
}

/// Major number of DRM's devices (`Documentation/admin-guide/devices.txt`).
const DRM_MAJOR: u32 = 226;

/// Whether a file is a device of DRM: in its own mount namespace a process can call any file so.
fn is_drm(metadata: &fs::Metadata) -> bool {
    metadata.file_type().is_char_device() && rustix::fs::major(metadata.rdev()) == DRM_MAJOR
}

/// How many descriptors a process has, as Linux 6.2 and later tell.
fn descriptors(directory: &Path) -> u64 {
    fs::metadata(directory).map_or(0, |metadata| metadata.size())
}

/// `None` where it names no client.
fn fdinfo(path: &Path) -> io::Result<Option<Fdinfo>> {
    let mut bytes = Vec::new();
    let file: File = files::open(path)?;
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(parse(&String::from_utf8_lossy(&bytes)))
}

#[cfg(test)]
mod tests;
