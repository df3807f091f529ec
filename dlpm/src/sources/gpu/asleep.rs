//! GPUs in runtime suspend, by the kernel's word: NVML would wake them.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

/// NVIDIA's number among the vendors of PCI devices.
const VENDOR: &str = "0x10de";

/// Begin of the class of display controllers; a card's audio and USB functions have others.
const CLASS: &str = "0x03";

/// More than any of the files here has.
const MOST_BYTES: u64 = 64;

/// A GPU on the PCI bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PciGpu {
    /// Its address as the kernel writes it (`0000:65:00.0`).
    pub(super) address: String,
    /// The file that says whether it is suspended.
    pub(super) status: PathBuf,
}

/// NVIDIA's GPUs below `sysfs`, by address.
pub(super) fn gpus(sysfs: &Path) -> Vec<PciGpu> {
    let Ok(devices) = fs::read_dir(sysfs.join("bus/pci/devices")) else {
        return Vec::new();
    };
    let mut gpus: Vec<PciGpu> = devices
        .flatten()
        .filter(|device| {
            let says = |name: &str, begin: &str| {
                read(&device.path().join(name)).is_some_and(|text| text.to_ascii_lowercase().starts_with(begin))
            };
            says("vendor", VENDOR) && says("class", CLASS)
        })
        .filter_map(|device| {
            Some(PciGpu {
                address: device.file_name().into_string().ok()?,
                status: device.path().join("power/runtime_status"),
            })
        })
        .collect();
    gpus.sort_by(|one, other| one.address.cmp(&other.address));
    gpus
}

/// Whether it is suspended, or about to be. One whose state the kernel does not tell is awake.
pub(super) fn is_asleep(status: &Path) -> bool {
    read(status).is_some_and(|text| matches!(text.trim(), "suspended" | "suspending"))
}

/// An address as NVML writes it (`00000000:65:00.0`) in the form of the kernel.
pub(super) fn kernel_address(address: &str) -> Option<String> {
    let (domain, rest) = address.split_once(':')?;
    let domain = u32::from_str_radix(domain, 16).ok()?;
    Some(format!("{domain:04x}:{}", rest.to_ascii_lowercase()))
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MOST_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_and_their_state_are_found() {
        let tree = tempfile::tempdir().unwrap();
        assert_eq!(gpus(tree.path()), []);
        for (address, vendor, class, status) in [
            ("0000:65:00.0", "0x10de", "0x030200", Some("suspended")),
            ("0000:65:00.1", "0x10de", "0x040300", Some("suspended")),
            ("0000:01:00.0", "0x10de", "0x030000", Some("active")),
            ("0000:02:00.0", "0x10de", "0x038000", None),
            ("0000:03:00.0", "0x8086", "0x030000", Some("suspended")),
        ] {
            let device = tree.path().join("bus/pci/devices").join(address);
            fs::create_dir_all(device.join("power")).unwrap();
            for (name, text) in [
                ("vendor", Some(vendor)),
                ("class", Some(class)),
                ("power/runtime_status", status),
            ] {
                if let Some(text) = text {
                    fs::write(device.join(name), format!("{text}\n")).unwrap();
                }
            }
        }
        let found: Vec<(String, bool)> = gpus(tree.path())
            .into_iter()
            .map(|gpu| (gpu.address, is_asleep(&gpu.status)))
            .collect();
        let expected = [("0000:01:00.0", false), ("0000:02:00.0", false), ("0000:65:00.0", true)];
        assert_eq!(found, expected.map(|(address, asleep)| (address.to_owned(), asleep)));
    }

    #[test]
    fn addresses_of_nvml_are_those_of_the_kernel() {
        assert_eq!(kernel_address("00000000:0A:00.0").as_deref(), Some("0000:0a:00.0"));
        assert_eq!(kernel_address("00010000:65:00.0").as_deref(), Some("10000:65:00.0"));
        assert_eq!(kernel_address("nonsense"), None);
        assert_eq!(kernel_address(":"), None);
    }
}
