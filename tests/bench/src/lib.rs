//! Benchmarks: what dlpm costs, and how close it comes to the kernel's own accounts.
//!
//! They print ratios of things that were measured beside each other in one run. Absolute times depend on the machine and
//! on what else runs there.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

pub mod accuracy;
pub mod agent;
pub mod fleet;
pub mod gpu;
pub mod interval;
pub mod log;
pub mod model;
pub mod overhead;
pub mod pace;
pub mod race;
pub mod report;
pub mod sleepers;
pub mod start;
pub mod stats;
pub mod traced;

/// The programs that a benchmark starts.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `dlpm`
    pub dlpm: PathBuf,
    /// `dlpm-worker`
    pub worker: PathBuf,
}

/// A number of rounds or the like.
///
/// # Errors
///
/// A sentence, where it is not a number from 1 on.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a whole number from 1 on".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// Kernel, CPUs and memory in a line, without any name.
///
/// # Errors
///
/// Where `/proc` cannot be read.
pub fn machine() -> Result<String> {
    let uname = rustix::system::uname();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo cannot be read")?;
    let fields = |name: &str| -> Vec<&str> {
        cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .filter(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
            .collect()
    };
    let model = fields("model name")
        .first()
        .copied()
        .unwrap_or("unknown model")
        .to_owned();
    let virtual_machine = fields("flags")
        .first()
        .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    Ok(format!(
        "Kernel {}, {} CPUs online ({model}{})",
        uname.release().to_string_lossy(),
        dlpm_tests::cpus::online().len(),
        if virtual_machine { ", virtual machine" } else { "" },
    ))
}
