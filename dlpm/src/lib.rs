//! dlpm, *deep-learning power measure*: the joules that each process, cgroup and experiment really used.
//!
//! Data goes one way: [`sources`] read, an [`interval::Interval`] holds what they saw, [`attribution`] makes a ledger
//! of it, [`sinks`] write the ledger, and [`verify`] proves what they wrote. [`commands`] drive that; [`cli`] is what
//! users type. The crate `dlpm-model` counts what a model file asks for.

pub mod attribution;
pub mod cli;
pub mod commands;
pub mod interval;
pub mod phases;
pub mod plot;
pub mod report;
pub mod report_html;
pub mod sinks;
pub mod sources;
pub mod verify;
