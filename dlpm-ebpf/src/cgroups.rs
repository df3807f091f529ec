//! Names of cgroups that may be gone before user space looks.

use aya_ebpf::{
    bindings::BPF_ANY, helpers::generated::bpf_probe_read_kernel_str, macros::map, maps::PerCpuArray,
    programs::RawTracePointContext,
};
use dlpm_common::{CGROUP_PATH_BYTES, CgroupRecord, Counter};

use crate::{
    maps::{CGROUP_NEWS, CGROUPS, count, offset},
    task::read,
};

#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const PATH_BYTES: u32 = CGROUP_PATH_BYTES as u32;

/// A record with a path is too large for the stack of 512 bytes.
#[map]
static CGROUP_SCRATCH: PerCpuArray<CgroupRecord> = PerCpuArray::with_max_entries(1, 0);

/// `cgroup_mkdir(cgroup, path)`. Fires for version 1 hierarchies too, whose ids mean nothing here.
#[inline(always)]
pub fn mkdir(context: &RawTracePointContext) -> Option<()> {
    let cgroup: u64 = context.arg(0);
    let root: u64 = read(cgroup, offset!(cgroup_root))?;
    let hierarchy_id: u32 = read(root, offset!(cgroup_root_hierarchy_id))?;
    if hierarchy_id != 0 {
        return None;
    }
    let node: u64 = read(cgroup, offset!(cgroup_kn))?;
    let id: u64 = read(node, offset!(kernfs_node_id))?;
    let record = CGROUP_SCRATCH.get_ptr_mut(0)?;
    let path: *const u8 = context.arg(1);
    // SAFETY: this CPU's scratch record, which nothing else touches meanwhile.
    let record = unsafe { &mut *record };
    // SAFETY: the helper checks the source, and copies at most the given size.
    let copied = unsafe { bpf_probe_read_kernel_str((&raw mut record.path).cast(), PATH_BYTES, path.cast()) };
    record.path_bytes = copied.max(0).cast_unsigned();
    let record: &CgroupRecord = record;
    if copied > 0 && CGROUPS.insert(id, record, u64::from(BPF_ANY)).is_ok() {
        count(Counter::CgroupsInserted);
        // After the count, by which user space tells whether there is something. A full ring has woken it already.
        let _ = CGROUP_NEWS.output::<u64>(&id, 0);
    } else {
        count(Counter::CgroupsLost);
    }
    Some(())
}
