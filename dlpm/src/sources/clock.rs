//! The clock of the interval, and the wall clock.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_MONOTONIC: what `bpf_ktime_get_ns` reads as well, so both sides can be compared.
pub fn monotonic_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

/// The wall clock: nanoseconds since 1970.
pub fn unix_ns() -> i64 {
    i64::try_from(clock_ns(ClockId::Realtime)).unwrap_or(i64::MAX)
}

/// Nanoseconds of a clock.
pub fn clock_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // Both parts count up from the boot of the machine, or from 1970, and are never negative.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
