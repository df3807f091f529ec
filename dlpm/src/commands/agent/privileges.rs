//! What the agent keeps of root's rights. It gives up the others before it starts a thread, so no thread has them.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, remove_capability_from_bounding_set,
    set_capabilities,
};

/// What the agent needs: to load and run its programs (`BPF`, `PERFMON`), to let them have memory on kernels before 5.11
/// (`SYS_RESOURCE`), to look at processes of others (`SYS_PTRACE`), to find cgroups by their ids and read the files of
/// container runtimes (`DAC_READ_SEARCH`), and to start the network's process without any right (`SETUID`, `SETGID`,
/// `SETPCAP`) and end it (`KILL`).
pub const KEPT: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::KILL);

/// Gives up everything else. To be called while the process has one thread.
///
/// Where the kernel does not know `BPF` and `PERFMON` (before 5.8), or the process was not given them, nothing is given up:
/// it needs `SYS_ADMIN` then.
///
/// # Errors
///
/// Any I/O error from the operating system.
pub fn reduce() -> io::Result<()> {
    let has = capabilities(None)?.permitted;
    if !has.contains(CapabilitySet::BPF | CapabilitySet::PERFMON) {
        return Ok(());
    }
    if has.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(KEPT) {
            // Asking for one that the kernel does not know is an error.
            if capability_is_in_bounding_set(capability).is_ok_and(|is_in| is_in) {
                remove_capability_from_bounding_set(capability)?;
            }
        }
    }
    let kept = has.intersection(KEPT);
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}
