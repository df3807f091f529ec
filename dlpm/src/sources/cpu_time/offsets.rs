//! Offsets in the running kernel's structures, from its own type information (BTF).
//!
//! Rust eBPF has no relocations (CO-RE): an offset that is compiled in is wrong on the next kernel, silently.

use std::path::Path;

use btf::btf::{Btf, FlattenedType, Type};
use dlpm_common::Offsets;

/// Where the kernel shows its type information.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Offsets that were found, and the fields that were not.
#[derive(Debug, Default)]
pub struct KernelOffsets {
    /// Byte offsets; 0 where a field is missing.
    pub offsets: Offsets,
    /// Fields of tasks that this kernel does not have: without them processes cannot be told apart by start time.
    pub missing_task_fields: Vec<&'static str>,
    /// Fields of cgroups that this kernel does not have.
    pub missing_cgroup_fields: Vec<&'static str>,
}

impl KernelOffsets {
    /// Reads the type information of the running kernel (0.2 s of CPU time: once, before anything is attached).
    ///
    /// # Errors
    ///
    /// A sentence, where the file is absent or cannot be parsed.
    pub fn read(path: &Path) -> Result<Self, String> {
        let btf = Btf::from_file(path).map_err(|error| {
            format!(
                "the kernel's type information {} cannot be read: {error}",
                path.display()
            )
        })?;
        let mut found = Self::default();
        let offsets = &mut found.offsets;
        let task: [(&'static str, &str, &str, &mut u32); 10] = [
            ("task_struct.pid", "task_struct", "pid", &mut offsets.task_pid),
            ("task_struct.tgid", "task_struct", "tgid", &mut offsets.task_tgid),
            ("task_struct.comm", "task_struct", "comm", &mut offsets.task_comm),
            (
                "task_struct.group_leader",
                "task_struct",
                "group_leader",
                &mut offsets.task_group_leader,
            ),
            (
                "task_struct.real_parent",
                "task_struct",
                "real_parent",
                &mut offsets.task_real_parent,
            ),
            ("task_struct.cred", "task_struct", "cred", &mut offsets.task_cred),
            ("cred.uid", "cred", "uid", &mut offsets.cred_uid),
            (
                "task_struct.start_boottime",
                "task_struct",
                "start_boottime",
                &mut offsets.task_start_boottime,
            ),
            ("task_struct.signal", "task_struct", "signal", &mut offsets.task_signal),
            ("signal_struct.live", "signal_struct", "live", &mut offsets.signal_live),
        ];
        fill(&btf, task, &mut found.missing_task_fields);
        let cgroup: [(&'static str, &str, &str, &mut u32); 6] = [
            ("cgroup.kn", "cgroup", "kn", &mut offsets.cgroup_kn),
            ("cgroup.root", "cgroup", "root", &mut offsets.cgroup_root),
            ("kernfs_node.id", "kernfs_node", "id", &mut offsets.kernfs_node_id),
            (
                "cgroup_root.hierarchy_id",
                "cgroup_root",
                "hierarchy_id",
                &mut offsets.cgroup_root_hierarchy_id,
            ),
            (
                "task_struct.cgroups",
                "task_struct",
                "cgroups",
                &mut offsets.task_cgroups,
            ),
            ("css_set.dfl_cgrp", "css_set", "dfl_cgrp", &mut offsets.css_set_dfl_cgrp),
        ];
        fill(&btf, cgroup, &mut found.missing_cgroup_fields);
        if !found.missing_cgroup_fields.is_empty() {
            // The way from a task to its cgroup id has a gap.
            found.offsets.css_set_dfl_cgrp = 0;
        }
        Ok(found)
    }
}

/// Offset of each structure's field, in bytes; for programs that are no part of dlpm.
///
/// # Errors
///
/// A sentence, where the file cannot be read or a field is not there.
pub fn field_offsets<const N: usize>(path: &Path, fields: [(&str, &str); N]) -> Result<[u32; N], String> {
    let btf = Btf::from_file(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let mut offsets = [0; N];
    for (offset, (structure, field)) in offsets.iter_mut().zip(fields) {
        *offset = structure_named(&btf, structure)
            .and_then(|structure| offset_in(&btf, structure, field))
            .ok_or_else(|| format!("the kernel has no {structure}.{field}"))?;
    }
    Ok(offsets)
}

fn fill<const N: usize>(btf: &Btf, wanted: [(&'static str, &str, &str, &mut u32); N], missing: &mut Vec<&'static str>) {
    for (name, structure, field, offset) in wanted {
        match structure_named(btf, structure).and_then(|structure| offset_in(btf, structure, field)) {
            Some(found) => *offset = found,
            None => missing.push(name),
        }
    }
}

/// Names are not unique over kinds (there are typedefs and functions of the same name), so the kind counts too.
fn structure_named<'a>(btf: &'a Btf, name: &str) -> Option<&'a FlattenedType> {
    btf.get_types().iter().find(|candidate| {
        candidate.num_refs == 0
            && candidate.name.as_deref() == Some(name)
            && matches!(candidate.base_type, Type::Struct(_))
    })
}

/// Offset of a field in bytes, also inside anonymous structs and unions.
fn offset_in(btf: &Btf, structure: &FlattenedType, field: &str) -> Option<u32> {
    let (Type::Struct(inner) | Type::Union(inner)) = &structure.base_type else {
        return None;
    };
    inner.members.iter().find_map(|member| match member.name.as_deref() {
        Some(name) if name == field => Some(member.offset / 8),
        None | Some("") => {
            let anonymous = btf
                .get_type_by_id(member.type_id)
                .ok()
                .filter(|anonymous| anonymous.num_refs == 0)?;
            Some(member.offset / 8 + offset_in(btf, anonymous, field)?)
        }
        Some(_) => None,
    })
}
