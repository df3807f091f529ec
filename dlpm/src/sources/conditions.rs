//! Conditions under which energy is measured: battery, throttling, noise in the counters, caches, microcode.

use std::{fs, fs::File, os::unix::fs::FileExt, path::Path};

/// Model-specific registers of Intel's processors (Software Developer's Manual, volume 4).
const IA32_ARCH_CAPABILITIES: u64 = 0x10A;
const IA32_MISC_PACKAGE_CTLS: u64 = 0xBC;

/// In the first: whether the second can switch energy filtering.
const ENERGY_FILTERING_CTL: u64 = 1 << 11;

/// In the second: whether energy is filtered.
const ENERGY_FILTERING_ENABLE: u64 = 1;

/// Whether a battery of the machine is being discharged. Those of mice and the like do not count.
pub fn on_battery(sysfs: &Path) -> bool {
    let Ok(supplies) = fs::read_dir(sysfs.join("class/power_supply")) else {
        return false;
    };
    supplies.filter_map(Result::ok).any(|supply| {
        let says = |file: &str, word: &str| read(&supply.path().join(file)).is_some_and(|text| text == word);
        says("type", "Battery") && !says("scope", "Device") && says("status", "Discharging")
    })
}

/// How often the cores or packages of these CPUs were throttled since the machine was started; `None` where the kernel
/// does not count it (it does on Intel's processors).
pub fn throttled(sysfs: &Path, cpus: &[u32]) -> Option<u64> {
    let counts = cpus.iter().flat_map(|cpu| {
        let folder = sysfs.join(format!("devices/system/cpu/cpu{cpu}/thermal_throttle"));
        ["core_throttle_count", "package_throttle_count"].map(|file| read(&folder.join(file))?.parse::<u64>().ok())
    });
    counts
        .flatten()
        .fold(None, |sum, count| Some(sum.unwrap_or(0_u64).saturating_add(count)))
}

/// Whether the processor adds noise to its energy counters, so that nobody can read secrets off them (INTEL-SA-00389);
/// `None` where Linux does not show it. Intel's processors alone do that. The register is shown by the module `msr`; where
/// it is not loaded, a processor with SGX is taken for one that does.
pub fn energy_filtering(rootfs: &Path, procfs: &Path, cpu: u32) -> Option<bool> {
    let info = fs::read_to_string(procfs.join("cpuinfo")).unwrap_or_default();
    if field(&info, "vendor_id") != Some("GenuineIntel") {
        return Some(false);
    }
    let register = |number: u64| {
        let file = File::open(rootfs.join(format!("dev/cpu/{cpu}/msr"))).ok()?;
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, number).ok()?;
        Some(u64::from_le_bytes(bytes))
    };
    match register(IA32_ARCH_CAPABILITIES) {
        Some(capabilities) if capabilities & ENERGY_FILTERING_CTL != 0 => {
            register(IA32_MISC_PACKAGE_CTLS).map(|controls| controls & ENERGY_FILTERING_ENABLE != 0)
        }
        Some(_) => Some(false),
        None => {
            let has_sgx = field(&info, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "sgx"));
            has_sgx.then_some(true)
        }
    }
}

/// Size of the last cache of a CPU in bytes; `None` where it is not known.
pub fn last_cache_bytes(sysfs: &Path, cpu: u32) -> Option<u64> {
    let caches = fs::read_dir(sysfs.join(format!("devices/system/cpu/cpu{cpu}/cache"))).ok()?;
    let sizes = caches.filter_map(|cache| {
        let path = cache.ok()?.path();
        let level: u32 = read(&path.join("level"))?.parse().ok()?;
        // As in `32768K`.
        let kibibytes: u64 = read(&path.join("size"))?.strip_suffix('K')?.parse().ok()?;
        Some((level, kibibytes.checked_mul(1024)?))
    });
    sizes.max().map(|(_, bytes)| bytes)
}

/// Microcode of the first CPU, as the kernel shows it.
pub fn microcode(procfs: &Path) -> Option<String> {
    let info = fs::read_to_string(procfs.join("cpuinfo")).ok()?;
    field(&info, "microcode").map(str::to_owned)
}

/// What a core can do at most, as far as the kernel says: cores that differ in it are of different kinds.
pub fn capacity(sysfs: &Path, cpu: u32) -> Option<u64> {
    let folder = sysfs.join(format!("devices/system/cpu/cpu{cpu}"));
    let text = read(&folder.join("cpu_capacity")).or_else(|| read(&folder.join("cpufreq/cpuinfo_max_freq")));
    text?.parse().ok()
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let line = info
        .lines()
        .find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: impl AsRef<[u8]>) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_battery_that_empties_is_seen_and_that_of_a_mouse_is_not() {
        let sysfs = tempfile::tempdir().unwrap();
        let sysfs = sysfs.path();
        assert!(!on_battery(sysfs));
        write(sysfs, "class/power_supply/AC/type", "Mains\n");
        write(sysfs, "class/power_supply/mouse/type", "Battery\n");
        write(sysfs, "class/power_supply/mouse/scope", "Device\n");
        write(sysfs, "class/power_supply/mouse/status", "Discharging\n");
        write(sysfs, "class/power_supply/BAT0/type", "Battery\n");
        for (status, expected) in [
            ("Charging", false),
            ("Not charging", false),
            ("Full", false),
            ("Discharging", true),
        ] {
            write(sysfs, "class/power_supply/BAT0/status", format!("{status}\n"));
            assert_eq!(on_battery(sysfs), expected, "{status}");
        }
    }

    #[test]
    fn throttling_is_summed_over_the_cpus_and_missing_is_not_zero() {
        let sysfs = tempfile::tempdir().unwrap();
        let sysfs = sysfs.path();
        assert_eq!(throttled(sysfs, &[0, 1]), None);
        write(
            sysfs,
            "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count",
            "3\n",
        );
        write(
            sysfs,
            "devices/system/cpu/cpu0/thermal_throttle/package_throttle_count",
            "4\n",
        );
        write(
            sysfs,
            "devices/system/cpu/cpu1/thermal_throttle/core_throttle_count",
            "5\n",
        );
        write(
            sysfs,
            "devices/system/cpu/cpu2/thermal_throttle/core_throttle_count",
            "90\n",
        );
        assert_eq!(throttled(sysfs, &[0, 1]), Some(12));
        assert_eq!(throttled(sysfs, &[7]), None);
    }

    #[test]
    fn energy_filtering_is_read_where_linux_shows_it() {
        let root = tempfile::tempdir().unwrap();
        let (rootfs, procfs) = (root.path(), root.path().join("proc"));
        let filtering = || energy_filtering(rootfs, &procfs, 0);
        let info = |vendor: &str, flags: &str| {
            write(
                &procfs,
                "cpuinfo",
                format!("processor\t: 0\nvendor_id\t: {vendor}\nmicrocode\t: 0x2b\nflags\t\t: fpu {flags}\n"),
            );
        };
        info("AuthenticAMD", "");
        assert_eq!(filtering(), Some(false));
        info("GenuineIntel", "avx sgx_lc");
        assert_eq!(filtering(), None);
        info("GenuineIntel", "avx sgx");
        assert_eq!(filtering(), Some(true));
        assert_eq!(microcode(&procfs).as_deref(), Some("0x2b"));
        let registers = |capabilities: u64, controls: u64| {
            let mut bytes = vec![0; 0x200];
            bytes[0xBC..0xBC + 8].copy_from_slice(&controls.to_le_bytes());
            bytes[0x10A..0x10A + 8].copy_from_slice(&capabilities.to_le_bytes());
            write(rootfs, "dev/cpu/0/msr", bytes);
        };
        registers(0, u64::MAX);
        assert_eq!(filtering(), Some(false));
        registers(1 << 11, 0);
        assert_eq!(filtering(), Some(false));
        registers(1 << 11, 1);
        assert_eq!(filtering(), Some(true));
        // A register that the processor does not have cannot be read.
        write(rootfs, "dev/cpu/0/msr", [0; 4]);
        assert_eq!(filtering(), Some(true));
    }

    #[test]
    fn the_last_cache_is_that_of_the_highest_level() {
        let sysfs = tempfile::tempdir().unwrap();
        let sysfs = sysfs.path();
        assert_eq!(last_cache_bytes(sysfs, 0), None);
        for (index, level, size) in [(0, "1", "32K"), (1, "3", "512K"), (2, "2", "2048K"), (3, "9", "x")] {
            write(
                sysfs,
                &format!("devices/system/cpu/cpu0/cache/index{index}/level"),
                level,
            );
            write(sysfs, &format!("devices/system/cpu/cpu0/cache/index{index}/size"), size);
        }
        assert_eq!(last_cache_bytes(sysfs, 0), Some(512 << 10));
    }
}
