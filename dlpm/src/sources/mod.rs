//! Everything that reads the machine.

pub mod clock;
pub mod energy;
pub mod topology;
