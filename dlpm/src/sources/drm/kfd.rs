//! Processes of ROCm: they compute through `/dev/kfd`, of which `fdinfo` tells nothing. What the kernel tells instead
//! (`class/kfd`) is how many compute units each occupies at the moment: it is sampled.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::sources::hwmon;

/// Processes that are looked at.
const MOST_PROCESSES: usize = 4_096;

/// A GPU as KFD knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    gpu_id: u32,
    units: u32,
}

/// The node of each GPU below `sysfs`, by PCI address.
pub(super) fn nodes(sysfs: &Path) -> BTreeMap<String, Node> {
    let entries = fs::read_dir(sysfs.join("class/kfd/kfd/topology/nodes"));
    let entries = entries.into_iter().flatten().flatten().take(256);
    entries.filter_map(|entry| node(&entry.path())).collect()
}

fn node(directory: &Path) -> Option<(String, Node)> {
    let gpu_id: u32 = hwmon::text(&directory.join("gpu_id")).ok()?.parse().ok()?;
    // 0 is a CPU.
    (gpu_id > 0).then_some(())?;
    let properties = properties(&directory.join("properties"));
    let of = |key: &str| properties.get(key).copied();
    let location = of("location_id")?;
    let (bus, device, function) = (location >> 8 & 0xff, location >> 3 & 0x1f, location & 7);
    let address = format!("{:04x}:{bus:02x}:{device:02x}.{function}", of("domain").unwrap_or(0));
    let units = of("simd_count")?.checked_div(of("simd_per_cu")?)?;
    let units = u32::try_from(units).ok().filter(|units| *units > 0)?;
    Some((address, Node { gpu_id, units }))
}

/// A number a line; the file has some forty lines.
fn properties(path: &Path) -> BTreeMap<String, u64> {
    use std::io::Read;
    let mut bytes = Vec::new();
    if let Ok(file) = crate::files::open(path) {
        let _ = file.take(16 << 10).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

/// Each process that computes on `node`: its pid, and the part of the compute units that it occupies, in thousandths;
/// `None` where that is not told.
pub(super) fn processes(sysfs: &Path, node: &Node) -> Vec<(u32, Option<u64>)> {
    let entries = fs::read_dir(sysfs.join("class/kfd/kfd/proc"))
        .into_iter()
        .flatten()
        .flatten();
    let found = entries.take(MOST_PROCESSES).filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let directory: PathBuf = entry.path();
        directory.join(format!("vram_{}", node.gpu_id)).exists().then_some(())?;
        let stats = directory.join(format!("stats_{}/cu_occupancy", node.gpu_id));
        let occupied = hwmon::number(&stats).ok();
        Some((
            pid,
            occupied.map(|units| (units * 1000 / u64::from(node.units)).min(1000)),
        ))
    });
    let mut found: Vec<_> = found.collect();
    found.sort_unstable();
    found
}
