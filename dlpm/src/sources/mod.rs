//! Everything that reads the machine.
pub mod cpu_time;

pub mod cgroups;
pub mod clock;
pub mod energy;
pub mod host;
pub mod memory;
pub mod proc_fs;
pub mod processes;
pub mod topology;
