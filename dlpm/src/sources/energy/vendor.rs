//! Who made the CPUs and what kind they are: it decides what some energy registers cover, and which meters there can be.

use std::{fs, path::Path};

/// Kind of the CPUs. RAPL exists on one only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processor {
    /// Of Intel, AMD and others.
    X86,
    /// 64-bit Arm.
    Arm64,
    /// Any other, such as POWER.
    Other,
}

impl Processor {
    /// Reads the same file as [`Vendor::read`], as in `cpu:type:aarch64:feature:…`. A tree without it is taken for this
    /// machine's.
    pub(super) fn read(sysfs: &Path) -> Self {
        let alias = alias(sysfs);
        match alias.strip_prefix("cpu:type:") {
            Some(kind) if kind.starts_with("x86,") => Self::X86,
            Some(kind) if kind.starts_with("aarch64:") => Self::Arm64,
            Some(_) => Self::Other,
            None if cfg!(any(target_arch = "x86_64", target_arch = "x86")) => Self::X86,
            None if cfg!(target_arch = "aarch64") => Self::Arm64,
            None => Self::Other,
        }
    }

    /// What to do where there are no zones of RAPL: a sentence.
    pub(super) fn without_powercap(self) -> &'static str {
        match self {
            Self::X86 => "On a physical machine load the module intel_rapl_msr (it serves AMD too)",
            Self::Arm64 => {
                "64-bit Arm has no RAPL; some machines have a meter among the hardware monitors (module acpi_power_meter on \
                 NVIDIA Grace, xgene-hwmon or smpro-hwmon on Ampere's)"
            }
            Self::Other => {
                "Only CPUs of Intel and AMD have RAPL; some machines have a meter among the hardware monitors (module \
                 ibmpowernv on IBM POWER)"
            }
        }
    }

    /// What to do where perf has no energy events: the first half of a sentence.
    pub(super) fn without_pmu(self) -> &'static str {
        match self {
            Self::X86 => {
                "On a physical machine load the module rapl (kernel option PERF_EVENTS_INTEL_RAPL; it serves AMD too), or"
            }
            Self::Arm64 | Self::Other => "Only CPUs of Intel and AMD have them:",
        }
    }

    /// Modules of hardware monitors that such a machine may have.
    pub(super) fn monitors(self) -> &'static str {
        match self {
            Self::X86 => "acpi_power_meter, amd_energy",
            Self::Arm64 => "acpi_power_meter, xgene-hwmon, smpro-hwmon",
            Self::Other => "acpi_power_meter, ibmpowernv",
        }
    }
}

fn alias(sysfs: &Path) -> String {
    fs::read_to_string(sysfs.join("devices/system/cpu/modalias")).unwrap_or_default()
}

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
        match alias(sysfs).split_once("x86,ven").and_then(|(_, rest)| rest.get(..4)) {
            Some("0000") => Self::Intel,
            Some("0002" | "0009") => Self::Amd,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{hwmon::Hwmon, perf::Perf, powercap::Powercap, testing::Tree},
        *,
    };

    #[test]
    fn kinds_by_their_name() {
        let sysfs = tempfile::TempDir::new().unwrap();
        let directory = sysfs.path().join("devices/system/cpu");
        fs::create_dir_all(&directory).unwrap();
        for (alias, processor) in [
            ("cpu:type:x86,ven0000fam0006mod0055:feature:,0000,0001", Processor::X86),
            ("cpu:type:x86,ven0007fam0007mod003B:feature:,0000", Processor::X86),
            ("cpu:type:aarch64:feature:,0000,0001", Processor::Arm64),
            ("cpu:type:power9:feature:,0000", Processor::Other),
        ] {
            fs::write(directory.join("modalias"), format!("{alias}\n")).unwrap();
            assert_eq!(Processor::read(sysfs.path()), processor, "{alias}");
        }
    }

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
    #[test]
    fn no_machine_is_told_to_look_for_what_only_others_have() {
        let said = |modalias: &str| -> Vec<String> {
            let tree = Tree::new();
            tree.file("devices/system/cpu/modalias", modalias);
            vec![
                Powercap::open(tree.path(), 0).unwrap_err().to_string(),
                Perf::open(tree.path(), 0).unwrap_err().to_string(),
                Hwmon::open(tree.path(), 0).unwrap_err().to_string(),
            ]
        };
        let x86 = said("cpu:type:x86,ven0000fam0006mod0055:feature:");
        for (text, part) in x86
            .iter()
            .zip(["intel_rapl_msr", "PERF_EVENTS_INTEL_RAPL", "amd_energy"])
        {
            assert!(text.contains(part) && !text.contains("smpro"), "{text}");
        }
        for (modalias, part) in [
            ("cpu:type:aarch64:feature:", "smpro-hwmon"),
            ("cpu:type:power9:feature:", "ibmpowernv"),
        ] {
            let texts = said(modalias);
            for text in &texts {
                for other in ["intel_rapl", "PERF_EVENTS", "module rapl", "amd_energy"] {
                    assert!(!text.contains(other), "{text}");
                }
                assert!(
                    text.contains("--estimate") || text.contains("--energy-source auto"),
                    "{text}"
                );
            }
            assert!(texts[0].contains(part) && texts[2].contains(part), "{texts:?}");
        }
    }
}
