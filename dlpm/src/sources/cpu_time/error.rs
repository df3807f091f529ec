//! Why there is no CPU time.

use std::io;

use aya::{EbpfError, programs::ProgramError};
use rustix::io::Errno;
use thiserror::Error;

use super::{
    MAX_SLOTS_LOG2,
    loader::{describe, is_permission},
};
use crate::causes::told;

/// Why CPU time cannot be traced.
#[derive(Debug, Error)]
pub enum CpuTimeError {
    /// The program was built without its eBPF object.
    #[error("this dlpm was built without its eBPF programs: build it with `cargo xtask build`")]
    NotBuilt,
    /// The kernel does not let this user load programs.
    #[error(
        "the kernel does not let dlpm load eBPF programs: run it as root (`sudo dlpm …`), or grant CAP_BPF, \
         CAP_PERFMON and CAP_SYS_ADMIN. In a container these must be granted to the container (`--privileged`), and a \
         locked-down kernel may refuse all the same ({0})"
    )]
    NotPermitted(String),
    /// The process may not open as many files as dlpm needs.
    #[error(
        "dlpm may not open as many files as it needs ({0}): raise the limit with `ulimit -n 1024`, or as LimitNOFILE= of \
         a service, and start it again"
    )]
    Descriptors(String),
    /// The object or its maps were refused.
    #[error(
        "the kernel refused the eBPF maps: {}. dlpm needs Linux 5.10 or newer with CONFIG_BPF_SYSCALL, and memory for \
         its maps: `dlpm doctor` shows what is missing, `--spill-entries` and `--process-entries` make them smaller",
        told(source.as_ref())
    )]
    Object {
        /// What aya says.
        source: Box<EbpfError>,
    },
    /// A program that CPU time needs was refused.
    #[error("{program} cannot run: {reason}. dlpm needs Linux 5.10 or newer with CONFIG_BPF_EVENTS: see `dlpm doctor`")]
    Refused {
        /// Name of the program.
        program: String,
        /// What the kernel says.
        reason: String,
    },
    /// A map cannot be read.
    #[error("the eBPF map {map} cannot be read: {source}; the trace ends, since its time would no longer be exact")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// A table of this size cannot be had.
    #[error(
        "the slot tables cannot have 2^{slots_log2} slots of 64 bytes per CPU: give a power from 0 to {MAX_SLOTS_LOG2}"
    )]
    SlotsLog2 {
        /// What was asked for.
        slots_log2: u32,
    },
    /// The number of CPUs is not known.
    #[error("the possible CPUs cannot be read ({what}): {source}; is /sys mounted?")]
    Cpus {
        /// Which file.
        what: String,
        /// Why.
        source: io::Error,
    },
}

impl CpuTimeError {
    pub(super) fn object(source: EbpfError) -> Self {
        if lacks_descriptors(&source) {
            return Self::Descriptors(told(&source));
        }
        let mut cause: Option<&dyn std::error::Error> = Some(&source);
        while let Some(error) = cause {
            if error.downcast_ref().is_some_and(is_permission) {
                return Self::NotPermitted(told(&source));
            }
            cause = error.source();
        }
        Self::Object {
            source: Box::new(source),
        }
    }

    pub(super) fn refused(program: &str, source: ProgramError) -> Self {
        let denied = match &source {
            // A program that the verifier finds unsafe is refused with EACCES too; then, and only then, there is a log.
            ProgramError::LoadError { io_error, verifier_log } => {
                is_permission(io_error) && verifier_log.to_string().trim().is_empty()
            }
            ProgramError::SyscallError(error) => is_permission(&error.io_error),
            _ => false,
        };
        let lacks_descriptors = lacks_descriptors(&source);
        let reason = describe(source);
        if lacks_descriptors {
            Self::Descriptors(format!("{program}: {reason}"))
        } else if denied {
            Self::NotPermitted(reason)
        } else {
            Self::Refused {
                program: program.to_owned(),
                reason,
            }
        }
    }
}

/// Whether an error or one of its causes is that this process, or the whole machine, has too many open files.
fn lacks_descriptors(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .filter_map(Errno::from_io_error)
        .any(|errno| matches!(errno, Errno::MFILE | Errno::NFILE))
}
