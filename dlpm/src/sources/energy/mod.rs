//! Energy meters: anything that counts joules.

mod counter;
pub mod estimate;
pub mod powercap;

use std::io;
use std::path::PathBuf;

/// Why there is no meter.
#[derive(Debug, thiserror::Error)]
pub enum EnergyError {
    /// The machine has no energy counter, as in a virtual machine.
    #[error(
        "This machine shows no energy counter: {} has no zone that dlpm can read{}. On a physical machine load the \
         module intel_rapl_msr (it serves AMD too); virtual machines rarely have counters: there, `--estimate \
         idle=W,busy=W` gives joules that are labelled as an estimate.",
        looked_in.display(),
        in_brackets(ignored)
    )]
    Absent {
        /// The directory that holds the zones where there are any.
        looked_in: PathBuf,
        /// What is there and why it does not count, a sentence each.
        ignored: Vec<String>,
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
        "The energy counter {} holds `{content}`, which is no number of microjoules. If --sysfs points at a copy of \
         the tree, check that copy; else report it together with the kernel's version.",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it holds.
        content: String,
    },
}

fn in_brackets(ignored: &[String]) -> String {
    match ignored {
        [] => String::new(),
        some => format!(" ({})", some.join("; ")),
    }
}
