//! What the tests on the real kernel share.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

pub mod bench;
pub mod cgroup;
pub mod cpus;
pub mod kernel;
pub mod trace;
pub mod worker;
