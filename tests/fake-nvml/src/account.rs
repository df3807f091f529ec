//! CPU time that is spent inside this library, for the benchmark that has to take it off.

use std::{
    fs::{self, File},
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use memmap2::MmapRaw;

use crate::state::clock_ns;

/// The file beside the library: two numbers of 64 bits as the machine has them, nanoseconds and calls. It is mapped, so
/// that it is up to date at every moment and costs a call next to nothing.
pub const ACCOUNT_NAME: &str = "inside.bin";

/// Nanoseconds and calls.
static MAPPED: OnceLock<MmapRaw> = OnceLock::new();

/// Nanoseconds of CPU time in calls, and calls, of a library beside which `account` was asked for.
///
/// # Errors
///
/// Where the file cannot be read, or holds something else.
pub fn read(library: &Path) -> Result<(u64, u64), String> {
    let path = library.with_file_name(ACCOUNT_NAME);
    let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let number = |range: std::ops::Range<usize>| Some(u64::from_ne_bytes(bytes.get(range)?.try_into().ok()?));
    number(0..8)
        .zip(number(8..16))
        .ok_or_else(|| format!("{} has {} bytes instead of 16", path.display(), bytes.len()))
}

/// Begins to count.
pub fn open(library: &Path) -> Result<(), String> {
    let path = library.with_file_name(ACCOUNT_NAME);
    let map = || {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        file.set_len(16)?;
        MmapRaw::map_raw(&file)
    };
    // There already: initialised for the second time.
    let _ = MAPPED.set(map().map_err(|error| format!("{}: {error}", path.display()))?);
    Ok(())
}

/// Runs a call and counts its CPU time, if that is asked for.
///
/// The clock is a system call: the half of each reading that lies before the clock is looked at, or after it, is not
/// counted, so the figure is rather too low.
pub fn call<T>(body: impl FnOnce() -> T) -> T {
    let Some(mapped) = MAPPED.get() else { return body() };
    let begin_ns = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID);
    let result = body();
    let ns = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID) - begin_ns;
    let counters = mapped.as_mut_ptr().cast::<AtomicU64>();
    // SAFETY: the mapping has 16 bytes, begins at a page and is never removed; only these atomics touch it here.
    let (sum_ns, calls) = unsafe { (&*counters, &*counters.add(1)) };
    sum_ns.fetch_add(ns, Relaxed);
    calls.fetch_add(1, Relaxed);
    result
}
