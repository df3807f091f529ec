//! Energy meters: anything that counts joules.

pub(super) mod counter;
mod coverage;
mod dies;
pub mod estimate;
pub mod hwmon;
pub(super) mod liveness;
pub mod meter;
pub mod perf;
pub mod powercap;
mod probe;
mod vendor;
mod zones;

#[cfg(test)]
mod testing;

use std::io;
use std::path::PathBuf;

pub use self::vendor::Processor;
use crate::interval::ZoneKind;

/// More than a package or its memory can draw: the largest server sockets are rated at 500 W and peak at less than
/// twice that. It is generous because it only has to tell a reset (which looks like kilojoules in a second) from
/// energy, and must never refuse real energy.
pub const ZONE_LIMIT_MW: u64 = 2_000_000;

/// The same for the whole platform: more than the power supplies of one node give.
pub const PSYS_LIMIT_MW: u64 = 10_000_000;

/// The same for a meter of a board: a node with eight GPUs is rated at more than 10 kW.
pub const BOARD_LIMIT_MW: u64 = 30_000_000;

fn limit_mw(kind: ZoneKind) -> u64 {
    match kind {
        ZoneKind::Board => BOARD_LIMIT_MW,
        ZoneKind::Psys | ZoneKind::Machine => PSYS_LIMIT_MW,
        _ => ZONE_LIMIT_MW,
    }
}

/// Why there is no meter.
#[derive(Debug, thiserror::Error)]
pub enum EnergyError {
    /// The machine has no energy counter, as in a virtual machine.
    #[error(
        "This machine shows no energy counter: {} has no zone that dlpm can read{}. {}; virtual machines rarely have \
         counters: there, `--estimate idle=W,busy=W` gives joules that are labelled as an estimate.",
        looked_in.display(),
        in_brackets(ignored),
        processor.without_powercap()
    )]
    Absent {
        /// The directory that holds the zones where there are any.
        looked_in: PathBuf,
        /// What CPUs the machine has.
        processor: Processor,
        /// What is there and why it does not count, a sentence each.
        ignored: Vec<String>,
    },
    /// The zones are links to what is not there, as in a container that has only their folder.
    #[error(
        "The energy counters in {} are links into /sys/devices, which is not there. A container needs that folder as \
         well: give it the whole /sys of the host (`-v /sys:/sys:ro`, or --sysfs where it is elsewhere).",
        looked_in.display()
    )]
    Dangling {
        /// The directory that holds the links.
        looked_in: PathBuf,
    },
    /// Counters exist and none of them may be read.
    #[error(
        "The energy counter {} cannot be read ({cause}). The kernel lets only root read it: run dlpm as root \
         (`sudo dlpm …`), or grant the capability CAP_DAC_READ_SEARCH.",
        path.display()
    )]
    Unreadable {
        /// The first file that was refused.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Counters exist and hold no numbers.
    #[error(
        "The energy counter {} holds `{content}`, which is not a number of microjoules. If --sysfs points at a copy of \
         the tree, check that copy; else report it together with the kernel's version.",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it holds.
        content: String,
    },
    /// The kernel has no perf events for energy.
    #[error(
        "This machine shows no perf energy events: {} has none that dlpm can read{}. {} let dlpm choose with \
         `--energy-source auto`.",
        looked_in.display(),
        in_brackets(ignored),
        processor.without_pmu()
    )]
    NoPmu {
        /// The directory of the PMU.
        looked_in: PathBuf,
        /// What CPUs the machine has.
        processor: Processor,
        /// What is there and why it does not count, a sentence each.
        ignored: Vec<String>,
    },
    /// The kernel has no hardware monitor that dlpm knows.
    #[error(
        "This machine shows no hardware monitor whose energy or power dlpm knows: {} has none{}. Some need a module \
         ({}); or let dlpm choose with `--energy-source auto`.",
        looked_in.display(),
        in_brackets(ignored),
        processor.monitors()
    )]
    NoHwmon {
        /// The directory of the monitors.
        looked_in: PathBuf,
        /// What CPUs the machine has.
        processor: Processor,
        /// What is there and why it does not count, a sentence each.
        ignored: Vec<String>,
    },
    /// The kernel does not open a perf event.
    #[error(
        "The energy event power/{event} cannot be opened on CPU {cpu} ({cause}). Run dlpm as root (`sudo dlpm …`), or \
         grant the capability CAP_PERFMON; `--energy-source powercap` reads the same counters elsewhere."
    )]
    Refused {
        /// The first event that was refused.
        event: &'static str,
        /// The CPU.
        cpu: u32,
        /// What the kernel said.
        cause: io::Error,
    },
    /// A source was asked for that has nothing to split.
    #[error(
        "`--energy-source {wanted}`: {wanted} has no energy that can be split among processes{}. Let dlpm choose with \
         `--energy-source auto`, or give `--estimate idle=W,busy=W`: joules are then estimated, and labelled so.",
        in_brackets(std::slice::from_ref(why))
    )]
    CannotSplit {
        /// The source.
        wanted: &'static str,
        /// What is known of its zones.
        why: String,
    },
    /// The source was not looked at, because another one was asked for.
    #[error("it was not looked at, because another source was asked for")]
    NotAsked,
    /// An estimate was asked for without its watts.
    #[error(
        "`--energy-source estimate` needs the watts to estimate from: add `--estimate idle=W,busy=W`, the power of the \
         idle machine and what each busy CPU adds."
    )]
    NoEstimate,
}

impl EnergyError {
    /// Whether there is nothing to read, rather than something that cannot be read.
    pub fn is_absent(&self) -> bool {
        matches!(
            self,
            Self::Absent { .. }
                | Self::Dangling { .. }
                | Self::NoPmu { .. }
                | Self::NoHwmon { .. }
                | Self::NoEstimate
                | Self::NotAsked
        )
    }
}

fn in_brackets(ignored: &[String]) -> String {
    match ignored {
        some if some.iter().all(String::is_empty) => String::new(),
        some => format!(" ({})", some.join("; ")),
    }
}
