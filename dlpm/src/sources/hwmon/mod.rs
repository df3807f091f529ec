//! The kernel's hardware monitors (`class/hwmon`): which chips there are, and what of theirs counts energy or power.
//!
//! What a chip's meters cover is decided elsewhere: for the machine in [`crate::sources::energy`].

mod integral;
mod sampler;

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

pub use sampler::{Power, Sampler, is_suspended};

use crate::files;

/// More than a number or a label in sysfs has.
const MOST_BYTES: u64 = 256;

/// Meters of a chip that are looked at. A socket with 192 cores has one for each of them.
const MOST_METERS: usize = 4096;

/// Chips that are looked at.
const MOST_CHIPS: usize = 1024;

/// A chip with meters of energy or power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chip {
    /// `hwmon3`.
    pub id: String,
    /// What its driver calls it, as in `amd_energy`.
    pub name: String,
    /// The last part of the path of its device: an address on a bus, or `ACPI000D:00`.
    pub device: String,
    /// Energy first, then power, each in the order of their numbers.
    pub meters: Vec<Attribute>,
}

/// A file that tells energy or power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// What it tells.
    pub quantity: Quantity,
    /// Its number among those of the chip, from 1.
    pub number: u32,
    /// What the driver or the firmware calls it: `energyN_label`, `powerN_label`, `powerN_oem_info`. Foreign text, not yet
    /// made printable; empty where it has no name.
    pub label: String,
    /// The file.
    pub path: PathBuf,
}

/// What a meter tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// `energyN_input`: a counter of µJ.
    Energy,
    /// `powerN_average` or `powerN_input`: µW.
    Power,
}

impl Quantity {
    /// The word of it in the names of files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Energy => "energy",
            Self::Power => "power",
        }
    }
}

/// The chips below `sysfs` that have meters of energy or power, in the order of their numbers.
pub fn chips(sysfs: &Path) -> Vec<Chip> {
    let class = sysfs.join("class/hwmon");
    let entries = fs::read_dir(class).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = decimal(name.to_str()?.strip_prefix("hwmon")?)?;
            Some((number, entry.path()))
        })
        .take(MOST_CHIPS)
        .collect();
    found.sort_unstable();
    let chips = found.into_iter().map(|(_, path)| chip(&path));
    chips.filter(|chip| !chip.meters.is_empty()).collect()
}

/// What is known of the chip in a directory (`hwmonN`).
///
/// Drivers that register the old way (`acpi_power_meter` before Linux 6.16) have their files in the directory of the
/// device.
pub fn chip(directory: &Path) -> Chip {
    let device = directory.join("device");
    let places = [directory, &device];
    let name = places.iter().find_map(|place| text(&place.join("name")).ok());
    let mut meters: Vec<Attribute> = Vec::new();
    for place in places {
        for (quantity, number, path) in attributes(place) {
            let known = |one: &Attribute| (one.quantity, one.number) == (quantity, number);
            if !meters.iter().any(known) && meters.len() < MOST_METERS {
                let label = label(place, quantity, number);
                meters.push(Attribute {
                    quantity,
                    number,
                    label,
                    path,
                });
            }
        }
    }
    meters.sort_by_key(|meter| (meter.quantity, meter.number));
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    Chip {
        id: last(directory).unwrap_or_default(),
        name: name.unwrap_or_default(),
        device: fs::canonicalize(&device)
            .ok()
            .and_then(|path| last(&path))
            .unwrap_or_default(),
        meters,
    }
}

/// Energies and powers in a directory; of a power's mean and its value of the moment, the mean.
fn attributes(place: &Path) -> Vec<(Quantity, u32, PathBuf)> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let mut found: Vec<(Quantity, u32, bool, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let (first, kind) = name.to_str()?.split_once('_')?;
            let (quantity, digits) = [Quantity::Energy, Quantity::Power]
                .into_iter()
                .find_map(|quantity| Some((quantity, first.strip_prefix(quantity.as_str())?)))?;
            let is_mean = match (quantity, kind) {
                (_, "input") => false,
                (Quantity::Power, "average") => true,
                _ => return None,
            };
            Some((quantity, decimal(digits)?, !is_mean, entry.path()))
        })
        .collect();
    found.sort_unstable();
    found.dedup_by_key(|(quantity, number, ..)| (*quantity, *number));
    found
        .into_iter()
        .map(|(quantity, number, _, path)| (quantity, number, path))
        .collect()
}

fn label(place: &Path, quantity: Quantity, number: u32) -> String {
    let file = |suffix: &str| text(&place.join(format!("{}{number}_{suffix}", quantity.as_str()))).ok();
    let label = file("label").or_else(|| file("oem_info"));
    label.unwrap_or_default()
}

fn decimal(digits: &str) -> Option<u32> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    digits.parse().ok()
}

/// What a small file says, without blanks around it.
///
/// # Errors
///
/// Any I/O error from the operating system; `InvalidInput` for what is not a regular file.
pub fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    files::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// A number that is not negative.
///
/// # Errors
///
/// Those of [`text`]; `InvalidData` for what is not such a number.
pub fn number(path: &Path) -> io::Result<u64> {
    let text = text(path)?;
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        io::Error::new(io::ErrorKind::InvalidData, format!("it holds `{shown}`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn file(tree: &Path, path: &str, content: &str) {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{content}\n")).unwrap();
    }

    #[test]
    fn chips_are_found_in_both_places_and_by_number() {
        let tree = tempfile::tempdir().unwrap();
        let tree = tree.path();
        file(tree, "devices/ACPI000D:01/name", "power_meter");
        file(tree, "devices/ACPI000D:01/power1_average", "50000000");
        file(tree, "devices/ACPI000D:01/power1_average_interval", "50");
        file(tree, "devices/ACPI000D:01/power1_oem_info", "CPU Power Socket 0");
        fs::create_dir_all(tree.join("class/hwmon/hwmon10")).unwrap();
        symlink(
            tree.join("devices/ACPI000D:01"),
            tree.join("class/hwmon/hwmon10/device"),
        )
        .unwrap();
        file(tree, "class/hwmon/hwmon2/name", "amdgpu");
        file(tree, "class/hwmon/hwmon2/power1_input", "1");
        file(tree, "class/hwmon/hwmon2/power1_average", "2");
        file(tree, "class/hwmon/hwmon2/power2_input", "3");
        file(tree, "class/hwmon/hwmon2/energy1_input", "4");
        file(tree, "class/hwmon/hwmon2/energy1_label", "card");
        // Neither a chip of ours, nor a meter.
        file(tree, "class/hwmon/hwmon3/name", "coretemp");
        file(tree, "class/hwmon/hwmon3/temp1_input", "40000");
        file(tree, "class/hwmon/hwmonx/energy1_input", "4");
        let found = chips(tree);
        let seen: Vec<String> = found
            .iter()
            .map(|chip| {
                let meters = chip.meters.iter().map(|meter| {
                    let file = meter.path.file_name().unwrap().to_string_lossy().into_owned();
                    format!("{file} {}", meter.label)
                });
                format!(
                    "{} {} {} {:?}",
                    chip.id,
                    chip.name,
                    chip.device,
                    meters.collect::<Vec<_>>()
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                r#"hwmon2 amdgpu  ["energy1_input card", "power1_average ", "power2_input "]"#,
                r#"hwmon10 power_meter ACPI000D:01 ["power1_average CPU Power Socket 0"]"#,
            ]
        );
    }

    #[test]
    fn what_is_not_a_number_in_a_regular_file_is_an_error() {
        let tree = tempfile::tempdir().unwrap();
        for (content, expected) in [
            ("12", Ok(12)),
            ("-1", Err("`-1`")),
            ("", Err("``")),
            ("1 2", Err("`1 2`")),
        ] {
            file(tree.path(), "n", content);
            let read = number(&tree.path().join("n")).map_err(|error| error.to_string());
            match expected {
                Ok(value) => assert_eq!(read, Ok(value)),
                Err(says) => assert!(read.as_ref().is_err_and(|error| error.contains(says)), "{read:?}"),
            }
        }
        file(tree.path(), "long", &"9".repeat(100_000));
        assert!(number(&tree.path().join("long")).is_err());
        assert!(number(tree.path()).unwrap_err().to_string().contains("folder"));
        let pipe = tree.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(number(&pipe).unwrap_err().to_string().contains("pipe"));
    }
}
