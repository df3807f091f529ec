//! Which entries of the kernel's table of processes have changed.

use aya::maps::{MapData, RingBuf};
use dlpm_common::{Counter, ProcessKey, maps};

use super::entry::id;
use crate::{
    interval::ProcessId,
    sources::cpu_time::{CpuTime, CpuTimeError},
};

/// The kernel's word on what changed, so that the rest need not be looked up again.
pub(super) struct Changes {
    ring: RingBuf<MapData>,
    /// Changes that found no room in the ring, up to the last look.
    lost: u64,
    /// Every hook that changes an entry is there to tell.
    told: bool,
}

impl Changes {
    pub(super) fn new(cpu_time: &mut CpuTime) -> Result<Self, CpuTimeError> {
        let told = cpu_time.hooks().iter().all(|hook| hook.state.is_ok());
        Ok(Self {
            ring: RingBuf::try_from(cpu_time.take_map(maps::CHANGES)?).map_err(|_| CpuTimeError::NotBuilt)?,
            lost: 0,
            told,
        })
    }

    /// Processes whose entries changed since the last look, each once; `None` if not all of them are known.
    pub(super) fn take(&mut self, cpu_time: &CpuTime) -> Option<Vec<ProcessId>> {
        let mut changed = Vec::new();
        while let Some(item) = self.ring.next() {
            changed.extend(process(&item));
        }
        // After the ring: what found no room in it until now is counted now.
        let lost = cpu_time.counter(Counter::ChangesLost);
        let complete = self.told && lost == self.lost;
        self.lost = lost;
        changed.sort_unstable();
        changed.dedup();
        complete.then_some(changed)
    }
}

/// A key as its bytes stand in the ring.
fn process(bytes: &[u8]) -> Option<ProcessId> {
    let (start_ns, rest) = bytes.split_first_chunk()?;
    let (tgid, _) = rest.split_first_chunk()?;
    Some(id(ProcessKey {
        start_ns: u64::from_ne_bytes(*start_ns),
        tgid: u32::from_ne_bytes(*tgid),
        padding: 0,
    }))
}
