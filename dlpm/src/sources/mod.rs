//! Everything that reads the machine.
pub mod cpu_time;
