//! Paths of cgroups that were created while tracing: they may be gone before anybody can ask for them.

use std::{io, time::Duration};

use aya::maps::{MapData, RingBuf};
use dlpm_common::{CGROUP_PATH_BYTES, CgroupRecord, Counter, maps};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep_until},
};

use super::{Batch, CpuTime, CpuTimeError, read_hash};

/// From the news of a cgroup to the look at it. The kernel tells it before the directory can be seen, and several are
/// often made at once.
const DELAY: Duration = Duration::from_millis(20);

/// From one look to the next at least, however many are made.
const PERIOD: Duration = Duration::from_millis(100);

/// Tells when it is worth calling [`CpuTime::new_cgroups`]. Costs nothing as long as no cgroup is made.
pub struct CgroupNews {
    ring: AsyncFd<RingBuf<MapData>>,
    /// When to look at what the kernel has told.
    due: Option<Instant>,
    looked: Option<Instant>,
}

impl CgroupNews {
    /// Waits until it is time to look. What was waited for is kept where this is dropped before its end.
    ///
    /// # Errors
    ///
    /// Where the ring cannot be waited for any longer.
    pub async fn due(&mut self) -> Result<(), CpuTimeError> {
        let due = match self.due {
            Some(due) => due,
            None => {
                let mut news = self.ring.readable_mut().await.map_err(not_readable)?;
                // Before it is emptied: what comes in between wakes again.
                news.clear_ready();
                while news.get_inner_mut().next().is_some() {}
                let soon = Instant::now() + DELAY;
                *self
                    .due
                    .insert(self.looked.map_or(soon, |looked| soon.max(looked + PERIOD)))
            }
        };
        sleep_until(due).await;
        self.due = None;
        self.looked = Some(Instant::now());
        Ok(())
    }
}

impl CpuTime {
    /// Lets the kernel tell of new cgroups. On a thread of a tokio runtime.
    ///
    /// # Errors
    ///
    /// Where the ring cannot be waited for, or another caller has it.
    pub fn cgroup_news(&mut self) -> Result<CgroupNews, CpuTimeError> {
        let ring = RingBuf::try_from(self.take_map(maps::CGROUP_NEWS)?).map_err(|_| CpuTimeError::NotBuilt)?;
        // SAFETY: the ring owns its descriptor, and `CgroupNews` gives neither away.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = ring.map_err(|error| not_readable(error.into()))?;
        Ok(CgroupNews {
            ring,
            due: None,
            looked: None,
        })
    }

    /// The cgroups (version 2) that were created since the last call: id, and path from the root of the tree
    /// (`/a/b`). The path is `None` if it is too long to be kept.
    ///
    /// Costs one look at a counter where there are none.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn new_cgroups(&mut self) -> Result<Vec<(u64, Option<String>)>, CpuTimeError> {
        // Counted after the insertion: what is not drained now moves the counter later.
        let inserted = self.counter(Counter::CgroupsInserted);
        if inserted == self.cgroups_seen {
            return Ok(Vec::new());
        }
        self.cgroups_seen = inserted;
        let records: Vec<(u64, CgroupRecord)> =
            read_hash(self.map(maps::CGROUPS)?, Batch::Drain).map_err(|source| CpuTimeError::Map {
                map: maps::CGROUPS,
                source,
            })?;
        Ok(records.iter().map(|(id, record)| (*id, path(record))).collect())
    }
}

fn not_readable(source: io::Error) -> CpuTimeError {
    CpuTimeError::Map {
        map: maps::CGROUP_NEWS,
        source,
    }
}

/// A path that fills the record may have been cut.
fn path(record: &CgroupRecord) -> Option<String> {
    let bytes = usize::try_from(record.path_bytes).ok()?;
    let length = bytes.checked_sub(1).filter(|_| bytes < CGROUP_PATH_BYTES)?;
    Some(String::from_utf8_lossy(&record.path[..length]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> CgroupRecord {
        let mut record = CgroupRecord {
            path_bytes: text.len() as u64 + 1,
            ..CgroupRecord::default()
        };
        record.path[..text.len()].copy_from_slice(text.as_bytes());
        record
    }

    #[test]
    fn paths_that_may_have_been_cut() {
        let longest = "/".repeat(CGROUP_PATH_BYTES - 2);
        assert_eq!(path(&record(&longest)), Some(longest.clone()));
        assert_eq!(path(&record(&format!("{longest}x"))), None);
        assert_eq!(path(&record("/a/b")).as_deref(), Some("/a/b"));
        assert_eq!(path(&CgroupRecord::default()), None);
    }
}
