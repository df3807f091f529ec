//! Whether this machine can run the tests on its kernel.

use std::{env, io::Write, sync::OnceLock};

use dlpm::sources::cpu_time::{Config, CpuTime, CpuTimeError};

/// Leaves the test, visibly, where this machine or user cannot load dlpm's programs. With `DLPM_REQUIRE_KERNEL=1` that
/// is a failure.
#[macro_export]
macro_rules! require_kernel {
    () => {
        if let Err(reason) = $crate::kernel::available() {
            return $crate::kernel::skip(&reason);
        }
    };
}

/// Whether dlpm's programs can be loaded, or why not. A program that the kernel *refuses* is not a reason to skip.
///
/// # Errors
///
/// A sentence.
pub fn available() -> Result<(), String> {
    static TRIED: OnceLock<Result<(), String>> = OnceLock::new();
    TRIED
        .get_or_init(|| match CpuTime::start(&Config::default()) {
            Ok(_) => Ok(()),
            Err(error @ (CpuTimeError::NotBuilt | CpuTimeError::NotPermitted(_))) => Err(error.to_string()),
            Err(error) => panic!("{error}"),
        })
        .clone()
}

/// Says that the running test is skipped.
///
/// # Panics
///
/// With `DLPM_REQUIRE_KERNEL=1`.
pub fn skip(reason: &str) {
    assert!(
        env::var_os("DLPM_REQUIRE_KERNEL").is_none_or(|value| value != "1"),
        "skipped under DLPM_REQUIRE_KERNEL=1: {reason}"
    );
    let thread = std::thread::current();
    // Not `eprintln`, which the test harness hides when a test passes.
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED {}: {reason}",
        thread.name().unwrap_or("a test")
    );
}
