//! What the benchmarks' own programs share with user space. No part of dlpm.

/// What the kernel has accounted to the tasks of a cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelAccount {
    /// Sum of what `sched_stat_runtime` told: time by the scheduler's clock, which stands still while the hypervisor has
    /// taken the CPU away, and between the kernel's own borders of slices.
    pub runtime_ns: u64,
    /// Time between the same borders by CLOCK_MONOTONIC, which goes on.
    pub elapsed_ns: u64,
    /// Time between the switches to these tasks and the switches away from them, by CLOCK_MONOTONIC. Not the kernel's
    /// account, but what dlpm says that it counts, by a program that has nothing of dlpm.
    pub switched_ns: u64,
}

/// Byte offsets in the running kernel's structures, from its BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelAccountOffsets {
    /// `task_struct.pid`
    pub task_pid: u32,
    /// Number of the CPU, in `task_struct.thread_info`.
    pub task_cpu: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`
    pub css_set_dfl_cgrp: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `kernfs_node.id`
    pub kernfs_node_id: u32,
}

#[cfg(feature = "user")]
mod pod {
    use super::{KernelAccount, KernelAccountOffsets};

    // SAFETY: integers without padding.
    unsafe impl aya::Pod for KernelAccount {}
    // SAFETY: as above.
    unsafe impl aya::Pod for KernelAccountOffsets {}
}
