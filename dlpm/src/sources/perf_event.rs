//! One counting perf event on one CPU: the only place where dlpm asks the kernel for one.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::FromRawFd,
};

/// Which event, as a PMU names it in sysfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The PMU's number.
    pub pmu: u32,
    /// What it counts.
    pub config: u64,
}

/// What becomes of an event when there are fewer counters than events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// It takes turns with others, and counts part of the time only.
    Shared,
    /// It counts all the time, or cannot be read at all.
    Pinned,
}

/// What an event has counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// In the event's own unit.
    pub ticks: u64,
    /// Time in which it was really counting.
    pub running_ns: u64,
}

/// `struct perf_event_attr` of the first version (`PERF_ATTR_SIZE_VER0`), which every kernel takes. All fields but these
/// five stay 0: no sampling, counting from the start, user and kernel alike.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    pmu: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config1: u64,
}

const ATTRIBUTES_BYTES: u32 = 64;
const _: () = assert!(size_of::<Attributes>() == ATTRIBUTES_BYTES as usize);

/// The bit `pinned` of the flags.
const PINNED: u64 = 1 << 2;

/// `PERF_FORMAT_TOTAL_TIME_RUNNING`
const TIME_RUNNING: u64 = 1 << 1;

/// `PERF_FLAG_FD_CLOEXEC`
const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;

/// Starts to count `event` on `cpu`, whatever runs there.
///
/// # Errors
///
/// What `perf_event_open(2)` says: EACCES or EPERM without CAP_PERFMON, ENODEV for a CPU that is offline, ENOENT or
/// EINVAL where there is no such event.
pub fn open(event: Event, cpu: u32, turns: Turns) -> io::Result<File> {
    let attributes = Attributes {
        pmu: event.pmu,
        size: ATTRIBUTES_BYTES,
        config: event.config,
        read_format: TIME_RUNNING,
        flags: if turns == Turns::Pinned { PINNED } else { 0 },
        ..Attributes::default()
    };
    let cpu = libc::c_int::try_from(cpu).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (every_process, no_group): (libc::pid_t, libc::c_int) = (-1, -1);
    // SAFETY: the structure is as large as it says and lives during the call, which only reads it; the other arguments
    // are plain numbers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            every_process,
            cpu,
            no_group,
            CLOSE_ON_EXEC,
        )
    };
    match i32::try_from(result) {
        // SAFETY: the kernel has just given this file descriptor to us and to nobody else.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { File::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads an event.
///
/// # Errors
///
/// What `read(2)` says; [`io::ErrorKind::UnexpectedEof`] for an event that the kernel has given up.
pub fn read(mut event: &File) -> io::Result<Counted> {
    // `ticks`, then the time that `read_format` asks for.
    let mut words = [0; 16];
    event.read_exact(&mut words)?;
    let [ticks, running_ns] = [&words[..8], &words[8..]].map(|word| {
        // Both halves have 8 bytes.
        word.try_into().map_or(0, u64::from_ne_bytes)
    });
    Ok(Counted { ticks, running_ns })
}
