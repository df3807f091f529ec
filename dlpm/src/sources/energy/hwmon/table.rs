//! Which chips of `class/hwmon` dlpm knows, and what their meters cover. The names are those of the kernel's drivers
//! (`drivers/hwmon`, by the file that each arm names), labels are the driver's or the firmware's. What is not in here is
//! named by `dlpm doctor` and never guessed.

use super::super::zones::zone_name;
use crate::{
    interval::ZoneKind,
    sources::hwmon::{Attribute, Chip, Quantity},
};

/// What is known of a meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It is a zone.
    Zone {
        /// Name in the log.
        name: String,
        /// What it covers.
        kind: ZoneKind,
        /// The socket.
        package: Option<u32>,
    },
    /// It is left out, and why.
    LeftOut(&'static str),
    /// It is one of a GPU, which another source reads.
    Gpu,
    /// Nothing.
    Nothing,
}

/// What the meter `attribute` of `chip` covers. `alone`: the machine has no other chip of this name.
pub(super) fn covers(chip: &Chip, attribute: &Attribute, alone: bool) -> Known {
    let label = attribute.label.as_str();
    match (chip.name.as_str(), attribute.quantity) {
        // acpi_power_meter.c; of NVIDIA Grace by what the firmware calls its meters.
        ("power_meter", Quantity::Power) => acpi(chip, label),
        // amd_energy.c, up to Linux 5.12, and as a module beyond it.
        ("amd_energy", Quantity::Energy) => match (numbered(label, "Esocket"), numbered(label, "Ecore")) {
            (Some(socket), _) => part(ZoneKind::Package, socket),
            (None, Some(_)) => Known::LeftOut(
                "its numbers count cores without telling which CPUs they have; the event power_core/energy-core does",
            ),
            (None, None) => Known::Nothing,
        },
        // ibmpowernv.c; the labels are those of the firmware (OCC).
        ("ibmpowernv", _) => power(label),
        // xgene-hwmon.c: one socket.
        ("apm_xgene", Quantity::Power) => match label {
            "CPU power" => part(ZoneKind::Core, 0),
            "IO power" => part(ZoneKind::Uncore, 0),
            _ => Known::Nothing,
        },
        // smpro-hwmon.c: Ampere Altra, a chip for each socket.
        ("smpro_hwmon", Quantity::Power) => altra(label, alone),
        ("i915" | "xe" | "amdgpu" | "nouveau", _) => Known::Gpu,
        (name, _) if name.starts_with("i915_gt") => Known::Gpu,
        _ => Known::Nothing,
    }
}

fn acpi(chip: &Chip, label: &str) -> Known {
    let of_socket = |name: &str| numbered(label, &format!("{name} Power Socket "));
    if let Some(socket) = of_socket("CPU") {
        return part(ZoneKind::Package, socket);
    }
    // `Grace` contains `CPU` and `SysIO`, and `Module` contains `Grace`.
    for (name, zone) in [("Module", "module"), ("Grace", "grace"), ("SysIO", "sysio")] {
        if let Some(socket) = of_socket(name) {
            return board(format!("{zone}-{socket}"));
        }
    }
    // `ACPI000D:01`: hexadecimal.
    let number = chip.device.rsplit_once(':').map(|(_, digits)| digits);
    match number.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
        Some(number) => board(format!("acpi-meter-{number}")),
        None => board("acpi-meter".to_owned()),
    }
}

fn power(label: &str) -> Known {
    if label == "System" {
        return board("system".to_owned());
    }
    match label.strip_prefix("Chip ").map(|rest| rest.split_once(' ')) {
        Some(None) => numbered(label, "Chip ").map_or(Known::Nothing, |chip| part(ZoneKind::Package, chip)),
        Some(Some(_)) => {
            Known::LeftOut("it is a supply of its chip, and it is not known whether the chip's own meter has it")
        }
        None => Known::Nothing,
    }
}

fn altra(label: &str, alone: bool) -> Known {
    // The driver puts the number of the attribute before the name.
    let name = label.split_once(' ').map_or(label, |(_, name)| name);
    match name {
        _ if !alone => {
            Known::LeftOut("there are several chips of this name, and they do not tell which socket they are of")
        }
        "CORE VRD" => part(ZoneKind::Core, 0),
        "SoC" => part(ZoneKind::Uncore, 0),
        "DIMM VRD1" => board("dimm-1".to_owned()),
        "DIMM VRD2" => board("dimm-2".to_owned()),
        "RCA VRD" => board("rca".to_owned()),
        _ => Known::Nothing,
    }
}

fn part(kind: ZoneKind, package: u32) -> Known {
    Known::Zone {
        name: zone_name(kind, Some(package)),
        kind,
        package: Some(package),
    }
}

fn board(name: String) -> Known {
    Known::Zone {
        name,
        kind: ZoneKind::Board,
        package: None,
    }
}

/// The number after `prefix`, if nothing else follows.
fn numbered(label: &str, prefix: &str) -> Option<u32> {
    let digits = label.strip_prefix(prefix)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn seen(chip: &str, device: &str, quantity: Quantity, label: &str, alone: bool) -> String {
        let attribute = Attribute {
            quantity,
            number: 1,
            label: label.to_owned(),
            path: PathBuf::new(),
        };
        let chip = Chip {
            id: "hwmon0".to_owned(),
            name: chip.to_owned(),
            device: device.to_owned(),
            meters: Vec::new(),
        };
        match covers(&chip, &attribute, alone) {
            Known::Zone { name, kind, package } => format!("{name} {} {package:?}", kind.as_str()),
            Known::LeftOut(_) => "left out".to_owned(),
            Known::Gpu => "gpu".to_owned(),
            Known::Nothing => "unknown".to_owned(),
        }
    }

    #[test]
    fn each_chip_has_what_its_driver_says() {
        let grace = |label| seen("power_meter", "ACPI000D:00", Quantity::Power, label, true);
        assert_eq!(grace("CPU Power Socket 1"), "package-1 package Some(1)");
        assert_eq!(grace("Grace Power Socket 0"), "grace-0 board None");
        assert_eq!(grace("Module Power Socket 3"), "module-3 board None");
        assert_eq!(grace("SysIO Power Socket 2"), "sysio-2 board None");
        for other in [
            "",
            "CPU Power Socket",
            "CPU Power Socket x",
            "CPU Power Socket 99999999999",
            "cpu power socket 0",
        ] {
            assert_eq!(grace(other), "acpi-meter-0 board None", "{other}");
        }
        assert_eq!(
            seen("power_meter", "ACPI000D:1a", Quantity::Power, "", true),
            "acpi-meter-26 board None"
        );
        assert_eq!(
            seen("power_meter", "", Quantity::Power, "", true),
            "acpi-meter board None"
        );

        let amd = |label| seen("amd_energy", "amd_energy.0", Quantity::Energy, label, true);
        assert_eq!(amd("Esocket1"), "package-1 package Some(1)");
        assert_eq!(amd("Ecore063"), "left out");
        assert_eq!(amd("Eother"), "unknown");

        let power = |label| seen("ibmpowernv", "", Quantity::Energy, label, true);
        assert_eq!(power("System"), "system board None");
        assert_eq!(power("Chip 8"), "package-8 package Some(8)");
        assert_eq!(power("Chip 8 Vdd"), "left out");
        assert_eq!(power("GPU"), "unknown");

        let xgene = |label| seen("apm_xgene", "", Quantity::Power, label, true);
        assert_eq!(xgene("CPU power"), "package-0/core core Some(0)");
        assert_eq!(xgene("IO power"), "package-0/uncore uncore Some(0)");

        let altra = |label, alone| seen("smpro_hwmon", "", Quantity::Power, label, alone);
        assert_eq!(altra("power1 CORE VRD", true), "package-0/core core Some(0)");
        assert_eq!(altra("power2 SoC", true), "package-0/uncore uncore Some(0)");
        assert_eq!(altra("power4 DIMM VRD2", true), "dimm-2 board None");
        assert_eq!(altra("power1 CORE VRD", false), "left out");

        for gpu in ["i915", "i915_gt0", "xe", "amdgpu"] {
            assert_eq!(seen(gpu, "0000:03:00.0", Quantity::Energy, "", true), "gpu");
        }
        assert_eq!(
            seen("ina226", "", Quantity::Power, "CPU Power Socket 0", true),
            "unknown"
        );
    }
}
