//! Perf events that are counted at the context switch: how they are called, whether this machine has them, and their
//! descriptors on each CPU.
//!
//! An event is opened on every CPU that is online, pinned, so that it counts all the time or cannot be read at all. One that
//! a single CPU lacks is left out, with the reason.

mod name;

use std::{fs, fs::File, io, path::Path, sync::Arc};

pub use name::{DEFAULT, EventName};

use self::name::Kind;
use super::{
    perf_event::{self, Event, Turns},
    topology::parse_cpu_list,
};
use crate::{interval::MAX_EVENTS, printable::one_line};

/// `PERF_TYPE_HARDWARE`, `PERF_TYPE_SOFTWARE` and `PERF_TYPE_RAW` of the kernel's `include/uapi/linux/perf_event.h`.
const HARDWARE: u32 = 0;
const SOFTWARE: u32 = 1;
const RAW: u32 = 4;

/// The list of CPUs that are online, below `sysfs`.
const ONLINE: &str = "devices/system/cpu/online";

/// PMUs of the two kinds of cores of a hybrid processor, below `bus/event_source/devices`.
const HYBRID: [&str; 2] = ["cpu_core", "cpu_atom"];

/// An event that is counted.
#[derive(Debug)]
pub struct Counted {
    /// As the user calls it.
    pub name: String,
    /// Its descriptors, by CPU.
    pub by_cpu: Vec<(u32, File)>,
}

/// What became of the events that were asked for.
#[derive(Debug, Default)]
pub struct Opened {
    /// Those that are counted, in the order in which they were asked for.
    pub events: Arc<[Counted]>,
    /// Those that are not, each with the reason.
    pub missing: Vec<(String, String)>,
    /// The cores are of two kinds, so that one event can cost different energy on each.
    pub is_hybrid: bool,
}

/// Opens events on every CPU that is online. The kernel that counts is this one: a tree that knows nothing of its CPUs is
/// not asked.
pub fn open(sysfs: &Path, wanted: &[EventName]) -> Opened {
    let knows_cpus = sysfs.join(ONLINE).is_file();
    let sysfs = if knows_cpus { sysfs } else { Path::new("/sys") };
    let devices = sysfs.join("bus/event_source/devices");
    let kinds: Vec<CoreKind> = HYBRID.iter().filter_map(|pmu| CoreKind::read(&devices, pmu)).collect();
    let kinds = if kinds.len() == HYBRID.len() { kinds } else { Vec::new() };
    let online = fs::read_to_string(sysfs.join(ONLINE)).unwrap_or_default();
    let cpus = parse_cpu_list(online.trim()).unwrap_or_default();
    let (mut events, mut missing) = (Vec::new(), Vec::new());
    for name in wanted {
        let opened = if events.len() == MAX_EVENTS {
            Err(format!("at most {MAX_EVENTS} events can be counted at once"))
        } else {
            open_everywhere(sysfs, &devices, &kinds, &cpus, name)
        };
        match opened {
            Ok(by_cpu) => events.push(Counted {
                name: name.to_string(),
                by_cpu,
            }),
            Err(reason) => missing.push((name.to_string(), reason)),
        }
    }
    Opened {
        events: events.into(),
        missing,
        is_hybrid: !kinds.is_empty(),
    }
}

fn open_everywhere(
    sysfs: &Path,
    devices: &Path,
    kinds: &[CoreKind],
    cpus: &[u32],
    name: &EventName,
) -> Result<Vec<(u32, File)>, String> {
    if cpus.is_empty() {
        return Err("it is not known which CPUs are online".to_owned());
    }
    let event = event(sysfs, devices, name)?;
    let open = |&cpu: &u32| {
        let event = kinds
            .iter()
            .find(|kind| kind.cpus.contains(&cpu))
            .map_or(event, |kind| kind.of_this_kind(event));
        let opened = perf_event::open(event, cpu, Turns::Pinned).and_then(|file| {
            // A pinned event that found no counter is at its end.
            perf_event::read(&file)?;
            Ok(file)
        });
        match opened {
            Ok(file) => Ok((cpu, file)),
            Err(error) => Err(format!("on CPU {cpu}: {}", why(&error))),
        }
    };
    cpus.iter().map(open).collect()
}

/// What an error of opening an event means here.
fn why(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV | libc::EINVAL) => {
            "its processor does not count that, or a hypervisor hides it".to_owned()
        }
        Some(libc::EACCES | libc::EPERM) => {
            "the kernel does not let dlpm count it: run it as root, or grant CAP_PERFMON".to_owned()
        }
        Some(libc::EMFILE) => "too many files are open: raise the limit with `ulimit -n`".to_owned(),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            "all counters are taken, for example by the NMI watchdog (`sysctl kernel.nmi_watchdog=0` frees one)"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// One kind of the cores of a hybrid processor.
#[derive(Debug)]
struct CoreKind {
    pmu: u32,
    cpus: Vec<u32>,
}

impl CoreKind {
    fn read(devices: &Path, pmu: &str) -> Option<Self> {
        let read = |file: &str| fs::read_to_string(devices.join(pmu).join(file)).ok();
        Some(Self {
            pmu: read("type")?.trim().parse().ok()?,
            cpus: parse_cpu_list(read("cpus")?.trim()).ok()?,
        })
    }

    /// The upper half of a hardware event's configuration names the PMU (`PERF_PMU_TYPE_SHIFT` of the kernel); a raw event
    /// has it as its type.
    fn of_this_kind(&self, event: Event) -> Event {
        match event.pmu {
            HARDWARE => Event {
                pmu: HARDWARE,
                config: event.config | u64::from(self.pmu) << 32,
            },
            RAW => Event {
                pmu: self.pmu,
                config: event.config,
            },
            _ => event,
        }
    }
}

fn event(sysfs: &Path, devices: &Path, name: &EventName) -> Result<Event, String> {
    Ok(match name.kind() {
        Kind::Hardware(config) => Event {
            pmu: HARDWARE,
            config: *config,
        },
        Kind::Software(config) => Event {
            pmu: SOFTWARE,
            config: *config,
        },
        Kind::Raw(config) => Event {
            pmu: RAW,
            config: *config,
        },
        Kind::WideVectors => Event {
            pmu: RAW,
            config: wide_vectors(sysfs).ok_or("it is not known which event of this processor that is")?,
        },
        Kind::OfPmu { pmu, event } => of_pmu(&devices.join(pmu), event)?,
    })
}

/// The event of wide vectors, by the maker of the processor: on Intel `FP_ARITH_INST_RETIRED` of 256 and 512 bits (event
/// 0xC7, umask 0xF0), on AMD `fp_ret_sse_avx_ops.all` (event 0x03, umask 0x0F), on 64-bit Arm `ASE_SPEC`
/// (0x74). By the tables of events of the kernel's `tools/perf/pmu-events`.
fn wide_vectors(sysfs: &Path) -> Option<u64> {
    let alias = fs::read_to_string(sysfs.join("devices/system/cpu/modalias")).unwrap_or_default();
    if alias.contains("type:x86,ven0000") {
        Some(0xf0c7)
    } else if alias.contains("type:x86,ven0002") || alias.contains("type:x86,ven0009") {
        Some(0x0f03)
    } else if alias.contains("type:aarch64") || cfg!(target_arch = "aarch64") {
        Some(0x74)
    } else {
        None
    }
}

/// What a PMU's files say of its event: terms as in `event=0x3c,umask=0x01`, each placed by the PMU's format.
fn of_pmu(pmu: &Path, event: &str) -> Result<Event, String> {
    let read = |file: &Path| {
        let text = fs::read_to_string(file)
            .map_err(|error| format!("{} cannot be read: {error}", one_line(&file.display().to_string())))?;
        Ok::<_, String>(text.trim().to_owned())
    };
    let number = read(&pmu.join("type"))?;
    let number = number.parse().map_err(|_| "the number of its PMU makes no sense")?;
    let terms = read(&pmu.join("events").join(event))?;
    let mut config = 0_u64;
    for term in terms.split(',') {
        let (field, value) = term.split_once('=').unwrap_or((term, "1"));
        let value = match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => value.parse(),
        };
        let refused = || format!("`{}` is not a term that dlpm understands", one_line(term));
        let value = value.map_err(|_| refused())?;
        if !field.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(refused());
        }
        let format = read(&pmu.join("format").join(field))?;
        config |= placed(&format, value).ok_or_else(refused)?;
    }
    Ok(Event { pmu: number, config })
}

/// A value at the bits of `config` that a format names, as in `config:0-7` or `config:0-7,32-35`.
fn placed(format: &str, mut value: u64) -> Option<u64> {
    let ranges = format.strip_prefix("config:")?;
    let mut config = 0;
    for range in ranges.split(',') {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let (low, high): (u32, u32) = (low.parse().ok()?, high.parse().ok()?);
        if high < low || high > 63 {
            return None;
        }
        let bits = high - low + 1;
        let mask = u64::MAX >> (64 - bits);
        config |= (value & mask) << low;
        value = if bits == 64 { 0 } else { value >> bits };
    }
    (value == 0).then_some(config)
}

#[cfg(test)]
mod tests;
