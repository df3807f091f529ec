//! What the tests on the real kernel share.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

pub mod agent;
pub mod browser;
pub mod cgroup;
pub mod collector;
pub mod command;
pub mod cpus;
pub mod disk;
pub mod gpu;
pub mod gpu_trace;
pub mod guest;
pub mod helpers;
pub mod hostile;
pub mod kernel;
pub mod known_law;
pub mod log;
pub mod metrics;
pub mod model_files;
pub mod monitors;
pub mod node;
pub mod onnx_build;
pub mod output;
pub mod phases;
pub mod powercap;
pub mod pty;
pub mod python;
pub mod socket;
pub mod synthetic;
pub mod tenant;
pub mod trace;
pub mod web;
pub mod worker;
