//! What the kernel says of one open GPU (`/proc/PID/fdinfo/FD`): `Documentation/gpu/drm-usage-stats.rst`. Pure.

use std::collections::BTreeMap;

/// Engines of one client that are kept; the kernel's drivers have less than ten classes.
const MOST_ENGINES: usize = 32;

/// Longest name of an engine, driver or device that is kept.
const LONGEST_NAME: usize = 64;

/// One open file of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fdinfo {
    /// `amdgpu`, `i915`.
    pub driver: String,
    /// PCI address of the GPU; GPUs on other buses have none.
    pub pdev: Option<String>,
    /// Distinguishes files that are shared from those that are not. Unique for each device.
    pub client: u64,
    /// By the class of the engine.
    pub engines: BTreeMap<String, Engine>,
    /// Memory of the GPU that it holds, as far as it is told.
    pub vram_bytes: Option<u64>,
}

/// What a client used of one class of engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Engine {
    /// Time, where the driver counts that (`drm-engine-*`).
    pub busy_ns: Option<u64>,
    /// Cycles, and those that have passed at all, where it counts these (xe).
    pub cycles: Option<u64>,
    pub total_cycles: Option<u64>,
    /// Engines of the class; 0 where that is not told, which is 1.
    pub capacity: u64,
}

/// Reads such a file; `None` if it is none of a GPU's, or tells no client.
pub(super) fn parse(text: &str) -> Option<Fdinfo> {
    let mut info = Fdinfo::default();
    let mut client = None;
    let (mut resident_bytes, mut memory_bytes) = (None, None);
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        let Some(key) = key.strip_prefix("drm-") else { continue };
        let mut engine = |name: &str, set: &dyn Fn(&mut Engine)| {
            let known = info.engines.contains_key(name);
            if name.len() <= LONGEST_NAME && (known || info.engines.len() < MOST_ENGINES) {
                set(info.engines.entry(name.to_owned()).or_default());
            }
        };
        if let Some(name) = key.strip_prefix("engine-capacity-") {
            let capacity = value.parse().unwrap_or(0);
            engine(name, &|engine| engine.capacity = capacity);
        } else if let Some(name) = key.strip_prefix("engine-") {
            let busy_ns = value.strip_suffix("ns").and_then(|digits| digits.trim().parse().ok());
            engine(name, &|engine| engine.busy_ns = busy_ns);
        } else if let Some(name) = key.strip_prefix("total-cycles-") {
            let cycles = value.parse().ok();
            engine(name, &|engine| engine.total_cycles = cycles);
        } else if let Some(name) = key.strip_prefix("cycles-") {
            let cycles = value.parse().ok();
            engine(name, &|engine| engine.cycles = cycles);
        } else if key.starts_with("resident-vram") {
            add(&mut resident_bytes, bytes(value));
        } else if key.starts_with("memory-vram") {
            add(&mut memory_bytes, bytes(value));
        } else {
            match key {
                "driver" => info.driver = value.chars().take(LONGEST_NAME).collect(),
                "pdev" => {
                    info.pdev = Some(
                        value
                            .chars()
                            .take(LONGEST_NAME)
                            .collect::<String>()
                            .to_ascii_lowercase(),
                    )
                }
                "client-id" => client = value.parse().ok(),
                _ => {}
            }
        }
    }
    info.client = client?;
    info.vram_bytes = resident_bytes.or(memory_bytes);
    (!info.driver.is_empty()).then_some(info)
}

fn add(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0).saturating_add(more));
    }
}

/// `12 KiB`, `3 MiB`, or bytes without a unit.
fn bytes(value: &str) -> Option<u64> {
    let (digits, unit) = value.split_once(' ').unwrap_or((value, ""));
    let scale = match unit.trim() {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_driver_is_read_as_it_writes() {
        let amdgpu = parse(
            "pos:\t0\nflags:\t02100002\ndrm-driver:\tamdgpu\ndrm-client-id:\t7\ndrm-pdev:\t0000:0A:00.0\npasid:\t32770\n\
             drm-memory-vram:\t2048 KiB\ndrm-engine-gfx:\t1234567 ns\ndrm-engine-compute:\t5 ns\n",
        )
        .unwrap();
        assert_eq!((amdgpu.driver.as_str(), amdgpu.client), ("amdgpu", 7));
        assert_eq!(amdgpu.pdev.as_deref(), Some("0000:0a:00.0"));
        assert_eq!(amdgpu.vram_bytes, Some(2 << 20));
        assert_eq!(amdgpu.engines["gfx"].busy_ns, Some(1_234_567));
        let i915 = parse(
            "drm-driver: i915\ndrm-pdev: 0000:00:02.0\ndrm-client-id: 9\ndrm-engine-render: 9288864723 ns\n\
             drm-engine-capacity-video: 2\ndrm-engine-video: 0 ns\n",
        )
        .unwrap();
        assert_eq!(i915.engines["video"].capacity, 2);
        assert_eq!(i915.engines["render"].busy_ns, Some(9_288_864_723));
        let xe = parse(
            "drm-driver:\txe\ndrm-client-id:\t3\ndrm-pdev:\t0000:03:00.0\ndrm-cycles-rcs:\t28257900\n\
             drm-total-cycles-rcs:\t7655183225\ndrm-resident-vram0:\t12 MiB\ndrm-total-vram0:\t99 MiB\n",
        )
        .unwrap();
        let rcs = xe.engines["rcs"];
        assert_eq!(
            (rcs.cycles, rcs.total_cycles, rcs.busy_ns),
            (Some(28_257_900), Some(7_655_183_225), None)
        );
        assert_eq!(xe.vram_bytes, Some(12 << 20));
        let panfrost =
            parse("drm-driver: panfrost\ndrm-client-id: 1\ndrm-engine-fragment: 10 ns\ndrm-cycles-fragment: 4\n");
        assert_eq!(panfrost.unwrap().pdev, None);
    }

    #[test]
    fn what_is_not_a_client_is_none_and_nonsense_is_bounded() {
        for text in [
            "",
            "pos: 0",
            "drm-driver: x",
            "drm-client-id: 4",
            "drm-driver: x\ndrm-client-id: -4",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        let mut text = "drm-driver: x\ndrm-client-id: 1\ndrm-engine-gfx: many ns\ndrm-memory-vram: 1 TiB\n".to_owned();
        for number in 0..10_000 {
            text.push_str(&format!("drm-engine-e{number}: 1 ns\n"));
        }
        let info = parse(&text).unwrap();
        assert_eq!(info.engines.len(), MOST_ENGINES);
        assert_eq!((info.engines["gfx"].busy_ns, info.vram_bytes), (None, None));
    }
}
