//! Everything that reads the machine.

pub mod cgroups;
pub mod clock;
pub mod energy;
pub mod host;
pub mod memory;
pub mod proc_fs;
pub mod topology;
