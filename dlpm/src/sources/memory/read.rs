//! Reading memory figures from `/proc`.

use std::fs;
use std::path::Path;

use procfs_core::process::{SmapsRollup, StatM};
use procfs_core::{FromBufRead, FromRead, Meminfo};

use super::super::clock::monotonic_ns;
use super::super::proc_fs::{start_ticks, ticks_of};
use crate::interval::{MachineMemory, MemoryReading, ProcessId};

/// Memory of the machine from `procfs/meminfo`; `None` if that cannot be read.
pub fn machine_memory(procfs: &Path) -> Option<MachineMemory> {
    let bytes = fs::read(procfs.join("meminfo")).ok()?;
    let meminfo = Meminfo::from_buf_read(bytes.as_slice()).ok()?;
    let reclaimable = meminfo.s_reclaimable.unwrap_or(0);
    let unused = [meminfo.mem_free, meminfo.buffers, meminfo.cached, reclaimable];
    let used = unused
        .into_iter()
        .try_fold(meminfo.mem_total, u64::checked_sub)
        // As psutil does where a container's figures do not fit together.
        .unwrap_or(meminfo.mem_total.saturating_sub(meminfo.mem_free));
    Some(MachineMemory {
        total_bytes: meminfo.mem_total,
        available_bytes: meminfo.mem_available?,
        used_bytes: used,
        free_bytes: Some(meminfo.mem_free),
    })
}

/// Whether this process, and not another one with its pid, exists.
fn is_alive(procfs: &Path, process: ProcessId) -> bool {
    start_ticks(procfs, process.tgid).is_some_and(|ticks| process.start_ns == 0 || ticks == ticks_of(process.start_ns))
}

/// Resident set size only, from `statm`; `None` if the process is gone.
pub(super) fn rss(procfs: &Path, process: ProcessId) -> Option<MemoryReading> {
    of_the_same_process(procfs, process, || rss_reading(procfs, process))
}

/// PSS, USS and RSS from `smaps_rollup`, or RSS alone where that is refused; `None` if the process is gone.
pub(super) fn full(procfs: &Path, process: ProcessId) -> Option<MemoryReading> {
    of_the_same_process(procfs, process, || {
        rollup_reading(procfs, process).or_else(|| rss_reading(procfs, process))
    })
}

/// The pid may be used again while it is read, so its owner is checked before and after.
fn of_the_same_process(
    procfs: &Path,
    process: ProcessId,
    read: impl FnOnce() -> Option<MemoryReading>,
) -> Option<MemoryReading> {
    is_alive(procfs, process).then_some(())?;
    let reading = read()?;
    is_alive(procfs, process).then_some(reading)
}

fn rollup_reading(procfs: &Path, process: ProcessId) -> Option<MemoryReading> {
    // At once, into memory: the kernel walks the page tables at the first byte that is read.
    let bytes = fs::read(procfs.join(format!("{}/smaps_rollup", process.tgid))).ok()?;
    let maps = SmapsRollup::from_buf_read(bytes.as_slice()).ok()?.memory_map_rollup;
    let bytes_of = &maps.0.first()?.extension.map;
    let private = ["Private_Clean", "Private_Dirty", "Private_Hugetlb"];
    Some(MemoryReading {
        pss_bytes: Some(*bytes_of.get("Pss")?),
        uss_bytes: Some(private.iter().filter_map(|name| bytes_of.get(*name)).sum()),
        rss_bytes: *bytes_of.get("Rss")?,
        read_at_ns: monotonic_ns(),
    })
}

fn rss_reading(procfs: &Path, process: ProcessId) -> Option<MemoryReading> {
    let bytes = fs::read(procfs.join(format!("{}/statm", process.tgid))).ok()?;
    let pages = StatM::from_read(bytes.as_slice()).ok()?.resident;
    let page_bytes = u64::try_from(rustix::param::page_size()).ok()?;
    Some(MemoryReading {
        pss_bytes: None,
        uss_bytes: None,
        rss_bytes: pages.checked_mul(page_bytes)?,
        read_at_ns: monotonic_ns(),
    })
}
