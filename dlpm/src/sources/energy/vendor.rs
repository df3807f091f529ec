//! Who made the CPUs: it decides what some energy registers cover.

use std::{fs, path::Path};

/// Maker of the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vendor {
    Intel,
    /// AMD, and Hygon, whose CPUs have AMD's energy registers.
    Amd,
    Unknown,
}

impl Vendor {
    /// Reads `devices/system/cpu/modalias` below `sysfs`, as in `cpu:type:x86,ven0002fam0019mod0021:feature:…`.
    ///
    /// `/proc/cpuinfo` says the same, but zones and CPUs must come from one tree: another machine's `/sys`, or a part of
    /// it, can be given with `--sysfs`. The numbers are `X86_VENDOR_*` of the kernel's `asm/processor.h`.
    pub fn read(sysfs: &Path) -> Self {
        let alias = fs::read_to_string(sysfs.join("devices/system/cpu/modalias")).unwrap_or_default();
        match alias.split_once("x86,ven").and_then(|(_, rest)| rest.get(..4)) {
            Some("0000") => Self::Intel,
            Some("0002" | "0009") => Self::Amd,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makers_by_their_number() {
        let sysfs = tempfile::TempDir::new().unwrap();
        assert_eq!(Vendor::read(sysfs.path()), Vendor::Unknown);
        let directory = sysfs.path().join("devices/system/cpu");
        fs::create_dir_all(&directory).unwrap();
        for (alias, vendor) in [
            ("cpu:type:x86,ven0000fam0006mod0055:feature:,0000,0001", Vendor::Intel),
            ("cpu:type:x86,ven0002fam0019mod0021:feature:,0000", Vendor::Amd),
            ("cpu:type:x86,ven0009fam0018mod0000:feature:,0000", Vendor::Amd),
            ("cpu:type:x86,ven0007fam0007mod003B:feature:,0000", Vendor::Unknown),
            ("cpu:type:aarch64:feature:,0000", Vendor::Unknown),
            ("cpu:type:x86,ven", Vendor::Unknown),
        ] {
            fs::write(directory.join("modalias"), format!("{alias}\n")).unwrap();
            assert_eq!(Vendor::read(sysfs.path()), vendor, "{alias}");
        }
    }
}
