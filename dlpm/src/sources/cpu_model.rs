//! What the CPUs are called, from `/proc/cpuinfo`.

use std::{collections::BTreeSet, fs, path::Path};

/// Makers of 64-bit Arm cores by their number: `ARM_CPU_IMP_*` of the kernel's `arch/arm64/include/asm/cputype.h`.
const MAKERS: [(u32, &str); 10] = [
    (0x41, "Arm"),
    (0x43, "Cavium"),
    (0x46, "Fujitsu"),
    (0x48, "HiSilicon"),
    (0x4e, "NVIDIA"),
    (0x50, "APM"),
    (0x51, "Qualcomm"),
    (0x61, "Apple"),
    (0x6d, "Microsoft"),
    (0xc0, "Ampere"),
];

/// Cores of servers by the numbers of maker and core: `MIDR_*` of the same file. What is not here is told by its numbers.
const CORES: [(u32, u32, &str); 15] = [
    (0x41, 0xd03, "Cortex-A53"),
    (0x41, 0xd07, "Cortex-A57"),
    (0x41, 0xd08, "Cortex-A72"),
    (0x41, 0xd0b, "Cortex-A76"),
    (0x41, 0xd0c, "Neoverse-N1"),
    (0x41, 0xd40, "Neoverse-V1"),
    (0x41, 0xd49, "Neoverse-N2"),
    (0x41, 0xd4f, "Neoverse-V2"),
    (0x41, 0xd83, "Neoverse-V3AE"),
    (0x41, 0xd84, "Neoverse-V3"),
    (0x41, 0xd8e, "Neoverse-N3"),
    (0x43, 0x0af, "ThunderX2"),
    (0x46, 0x001, "A64FX"),
    (0xc0, 0xac3, "Ampere-1"),
    (0xc0, 0xac4, "Ampere-1A"),
];

/// The model of the CPUs; `None` if the kernel does not say. Those of x86 have a name. 64-bit Arm has numbers, which stand
/// behind the name that they mean; where cores differ, each kind is named.
pub fn cpu_model(procfs: &Path) -> Option<String> {
    model_in(&fs::read_to_string(procfs.join("cpuinfo")).ok()?)
}

fn model_in(cpuinfo: &str) -> Option<String> {
    let fields = || cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let name = fields().find(|(key, _)| key.starts_with("model name"));
    if let Some((_, name)) = name {
        return Some(name.trim().to_owned());
    }
    // Each CPU has its maker before its core.
    let (mut maker, mut cores) = (None, BTreeSet::new());
    for (key, value) in fields() {
        let number = || u32::from_str_radix(value.trim().strip_prefix("0x")?, 16).ok();
        match key.trim() {
            "CPU implementer" => maker = number(),
            "CPU part" => cores.extend(maker.zip(number())),
            _ => {}
        }
    }
    let cores: Vec<String> = cores.iter().map(|(maker, core)| arm_core(*maker, *core)).collect();
    (!cores.is_empty()).then(|| cores.join(" and "))
}

fn arm_core(maker: u32, core: u32) -> String {
    let by_maker = MAKERS.iter().find(|(number, _)| *number == maker);
    let by_core = CORES.iter().find(|(of, number, _)| (*of, *number) == (maker, core));
    let names = [by_maker.map(|(_, name)| *name), by_core.map(|(.., name)| *name)];
    let mut words: Vec<&str> = names.into_iter().flatten().collect();
    let numbers = format!("(CPU implementer {maker:#04x}, part {core:#05x})");
    words.push(&numbers);
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(maker: &str, core: &str) -> String {
        format!(
            "processor\t: 0\nBogoMIPS\t: 125.00\nFeatures\t: fp asimd\nCPU implementer\t: {maker}\nCPU architecture: 8\n\
             CPU variant\t: 0x0\nCPU part\t: {core}\nCPU revision\t: 0\n\n"
        )
    }

    #[test]
    fn a_name_is_taken_as_it_is() {
        let text = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\nstepping\t: 7\n";
        assert_eq!(model_in(text).as_deref(), Some("Intel(R) Xeon(R) CPU @ 2.20GHz"));
        assert_eq!(model_in("processor\t: 0\n"), None);
        assert_eq!(model_in(""), None);
    }

    #[test]
    fn arm_is_named_by_its_numbers() {
        for (maker, core, name) in [
            (
                "0x41",
                "0xd4f",
                Some("Arm Neoverse-V2 (CPU implementer 0x41, part 0xd4f)"),
            ),
            (
                "0xc0",
                "0xac3",
                Some("Ampere Ampere-1 (CPU implementer 0xc0, part 0xac3)"),
            ),
            ("0x41", "0xfff", Some("Arm (CPU implementer 0x41, part 0xfff)")),
            // QEMU's.
            ("0x00", "0x051", Some("(CPU implementer 0x00, part 0x051)")),
            ("Arm", "0xd4f", None),
            ("0x41", "0x", None),
            ("0x41", "0x123456789", None),
        ] {
            let text = arm(maker, core).repeat(2);
            assert_eq!(model_in(&text).as_deref(), name, "{maker} {core}");
        }
    }

    #[test]
    fn cores_that_differ_are_all_named() {
        let text = arm("0x41", "0xd08") + &arm("0x41", "0xd03") + &arm("0x41", "0xd08");
        assert_eq!(
            model_in(&text).as_deref(),
            Some(
                "Arm Cortex-A53 (CPU implementer 0x41, part 0xd03) and Arm Cortex-A72 (CPU implementer 0x41, part 0xd08)"
            )
        );
    }
}
