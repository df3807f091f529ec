//! Everything that knows AIPowerMeter, the Python library `deep_learning_power_measure`: its names, its units, what its
//! reader needs, and the logs that it recorded.
//!
//! [`fields`] is the table of its names. No other file of dlpm writes one of them.

pub mod conversion;
pub mod cpu;
pub mod fields;
pub mod gpu;
pub mod recorded;
pub mod rules;
mod values;
