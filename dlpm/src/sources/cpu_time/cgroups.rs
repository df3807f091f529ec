//! Paths of cgroups that were created while tracing: they may be gone before anybody can ask for them.

use dlpm_common::{CGROUP_PATH_BYTES, CgroupRecord, Counter, maps};

use super::{Batch, CpuTime, CpuTimeError, read_hash};

impl CpuTime {
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
