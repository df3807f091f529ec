//! Which GPUs the kernel's DRM drivers have (`class/drm`), and what counts their energy.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::sources::hwmon::{self, Chip, Quantity};

/// A GPU that can be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card {
    /// N of `cardN`.
    pub index: u32,
    /// `amdgpu`, `i915`, `xe`.
    pub driver: String,
    /// PCI address (`0000:03:00.0`).
    pub address: String,
    /// Directory of the device.
    pub device: PathBuf,
    pub meter: Meter,
}

/// What counts the energy of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meter {
    /// A counter of µJ.
    Energy(PathBuf),
    /// A power in µW.
    Power(PathBuf),
    /// It is inside a CPU package, whose zone `uncore` is its energy.
    Uncore,
}

impl Card {
    /// The file that says whether it sleeps.
    pub fn status(&self) -> PathBuf {
        self.device.join("power/runtime_status")
    }

    /// Its name in words: drivers tell no product.
    pub fn name(&self) -> String {
        let id = |file: &str| hwmon::text(&self.device.join(file)).unwrap_or_default();
        let hex = |text: String| text.trim_start_matches("0x").chars().take(8).collect::<String>();
        format!("{} {}:{}", self.driver, hex(id("vendor")), hex(id("device")))
    }
}

/// Drivers whose GPUs have engine time by process. Of others (of displays of servers and virtual machines) nothing is
/// said.
const DRIVERS: [&str; 7] = ["amdgpu", "i915", "xe", "panfrost", "panthor", "v3d", "msm"];

/// The slot of graphics inside Intel's CPUs.
const INTEL_INSIDE: &str = "0000:00:02.0";

/// The GPUs below `sysfs` that can be measured, by number, and a sentence for each that cannot.
pub(super) fn find(sysfs: &Path) -> (Vec<Card>, Vec<String>) {
    let entries = fs::read_dir(sysfs.join("class/drm")).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let digits = name.to_str()?.strip_prefix("card")?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
            Some((digits.parse().ok()?, entry.path().join("device")))
        })
        .collect();
    found.sort_unstable();
    let (mut cards, mut notes) = (Vec::new(), Vec::new());
    for (index, device) in found {
        let (driver, address) = identity(&device);
        if !DRIVERS.contains(&driver.as_str()) {
            continue;
        }
        let meter = match is_address(&address) {
            true => meter(&driver, &address, &device),
            // Of another bus, where no driver tells energy: its name would be that of a zone.
            false => Err("the kernel tells neither its energy nor its power".to_owned()),
        };
        match meter {
            Ok(meter) => cards.push(Card {
                index,
                driver,
                address,
                device,
                meter,
            }),
            Err(reason) => notes.push(format!("the GPU card{index} ({driver}) is not measured: {reason}")),
        }
    }
    (cards, notes)
}

/// Whether it is an address on a PCI bus, as in `0000:03:00.0`.
fn is_address(text: &str) -> bool {
    let is_hex =
        |digits: &str, most| (1..=most).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<&str> = text.split([':', '.']).collect();
    matches!(parts[..], [domain, bus, device, function] if text.matches(':').count() == 2
        && is_hex(domain, 8) && is_hex(bus, 2) && is_hex(device, 2) && is_hex(function, 1))
}

/// Driver and PCI address, as `uevent` has them.
fn identity(device: &Path) -> (String, String) {
    let uevent = hwmon::text(&device.join("uevent")).unwrap_or_default();
    let of = |key: &str| {
        let line = uevent
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.chars().take(32).collect::<String>())
    };
    let last = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let driver = of("DRIVER").or_else(|| last(fs::canonicalize(device.join("driver")).ok()?));
    let address = of("PCI_SLOT_NAME").or_else(|| last(fs::canonicalize(device).ok()?));
    (
        driver.unwrap_or_default(),
        address.unwrap_or_default().to_ascii_lowercase(),
    )
}

fn meter(driver: &str, address: &str, device: &Path) -> Result<Meter, String> {
    let chips = chips(device);
    let has = |name: &str, quantity, label: Option<&str>| {
        let chip = chips.iter().find(|(_, chip)| chip.name == name)?;
        let mut meters = chip.1.meters.iter().filter(|meter| meter.quantity == quantity);
        let meter = match label {
            Some(label) => meters.find(|meter| meter.label == label),
            None => meters.next(),
        };
        meter.map(|meter| meter.path.clone())
    };
    match driver {
        // i915_hwmon.c: only cards of their own have it; chips of single tiles (`i915_gtN`) are parts of the card.
        "i915" => has("i915", Quantity::Energy, None).map(Meter::Energy),
        // xe_hwmon.c: the card contains its chip (`pkg`).
        "xe" => {
            let of = |label| has("xe", Quantity::Energy, Some(label));
            of("card").or_else(|| of("pkg")).map(Meter::Energy)
        }
        "amdgpu" => {
            // amdgpu_pm.c: only the chips that contain CPUs have a voltage of the northbridge.
            let inside = |(directory, _): &(PathBuf, Chip)| {
                hwmon::text(&directory.join("in1_label")).is_ok_and(|label| label == "vddnb")
            };
            if chips.iter().any(inside) {
                return Err(
                    "its power is that of the whole chip, with the CPUs, which are measured already".to_owned(),
                );
            }
            has("amdgpu", Quantity::Power, None).map(Meter::Power)
        }
        _ => None,
    }
    .or_else(|| (matches!(driver, "i915" | "xe") && address == INTEL_INSIDE).then_some(Meter::Uncore))
    .ok_or_else(|| "the kernel tells neither its energy nor its power".to_owned())
}

fn chips(device: &Path) -> Vec<(PathBuf, Chip)> {
    let entries = fs::read_dir(device.join("hwmon")).into_iter().flatten().flatten();
    let mut directories: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    directories.sort_unstable();
    let chips = directories
        .into_iter()
        .map(|directory| (directory.clone(), hwmon::chip(&directory)));
    chips.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_pci() {
        for good in ["0000:03:00.0", "10000:e1:00.7"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "fd800000.gpu",
            "0000:03:00",
            "0000:03:00.0/../x",
            "0000:03:00.0\u{1b}",
            "a.b.c.d",
            "0000:03:00.00",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
