//! Offsets in the running kernel's structures, from its own type information (BTF).
//!
//! Rust eBPF has no relocations (CO-RE): an offset that is compiled in is wrong on the next kernel, silently.

use std::path::Path;

use dlpm_common::Offsets;

use super::kernel_types::{KernelTypes, Kind};

/// Offsets that were found, and the fields that were not.
#[derive(Debug, Default)]
pub struct KernelOffsets {
    /// Byte offsets; 0 where a field is missing.
    pub offsets: Offsets,
    /// Fields of tasks that this kernel does not have: without them processes cannot be distinguished by start time.
    pub missing_task_fields: Vec<String>,
    /// Fields of cgroups that this kernel does not have.
    pub missing_cgroup_fields: Vec<String>,
}

impl KernelOffsets {
    /// Looks the fields up in a kernel's type information.
    pub fn of(types: &KernelTypes) -> Self {
        let mut found = Self::default();
        let offsets = &mut found.offsets;
        fill(
            types,
            [
                ("task_struct", "pid", &mut offsets.task_pid),
                ("task_struct", "tgid", &mut offsets.task_tgid),
                ("task_struct", "comm", &mut offsets.task_comm),
                ("task_struct", "group_leader", &mut offsets.task_group_leader),
                ("task_struct", "real_parent", &mut offsets.task_real_parent),
                ("task_struct", "cred", &mut offsets.task_cred),
                ("cred", "uid", &mut offsets.cred_uid),
                ("task_struct", "start_boottime", &mut offsets.task_start_boottime),
                ("task_struct", "signal", &mut offsets.task_signal),
                ("signal_struct", "live", &mut offsets.signal_live),
            ],
            &mut found.missing_task_fields,
        );
        fill(
            types,
            [
                ("cgroup", "kn", &mut offsets.cgroup_kn),
                ("cgroup", "root", &mut offsets.cgroup_root),
                ("kernfs_node", "id", &mut offsets.kernfs_node_id),
                ("cgroup_root", "hierarchy_id", &mut offsets.cgroup_root_hierarchy_id),
                ("task_struct", "cgroups", &mut offsets.task_cgroups),
                ("css_set", "dfl_cgrp", &mut offsets.css_set_dfl_cgrp),
            ],
            &mut found.missing_cgroup_fields,
        );
        if !found.missing_cgroup_fields.is_empty() {
            // The way from a task to its cgroup id has a gap.
            found.offsets.css_set_dfl_cgrp = 0;
        }
        found
    }
}

/// Offset of each structure's field, in bytes; for programs that are not part of dlpm.
///
/// # Errors
///
/// A sentence, where the file cannot be read or a field is not there.
pub fn field_offsets<const N: usize>(path: &Path, fields: [(&str, &str); N]) -> Result<[u32; N], String> {
    let found = look_up(&KernelTypes::read(path)?, fields);
    let mut offsets = [0; N];
    for ((offset, found), (structure, field)) in offsets.iter_mut().zip(found).zip(fields) {
        *offset = found.ok_or_else(|| format!("the kernel has no {structure}.{field}"))?;
    }
    Ok(offsets)
}

fn look_up<const N: usize>(types: &KernelTypes, fields: [(&str, &str); N]) -> [Option<u32>; N] {
    let mut structures = types.find(fields.map(|(structure, _)| (Kind::Struct, structure)));
    for (place, (_, field)) in structures.iter_mut().zip(fields) {
        *place = place.and_then(|structure| types.offset_in(structure, field));
    }
    structures
}

fn fill<const N: usize>(types: &KernelTypes, wanted: [(&str, &str, &mut u32); N], missing: &mut Vec<String>) {
    let found = look_up(
        types,
        wanted.each_ref().map(|(structure, field, _)| (*structure, *field)),
    );
    for ((structure, field, offset), found) in wanted.into_iter().zip(found) {
        match found {
            Some(found) => *offset = found,
            None => missing.push(format!("{structure}.{field}")),
        }
    }
}
