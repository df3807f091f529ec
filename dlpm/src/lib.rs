//! dlpm, *deep-learning power measure*: the joules that each process, cgroup and experiment really used.
//!
//! Data goes one way: [`sources`] read, an [`interval::Interval`] holds what they saw, [`attribution`] makes a ledger
//! of it, [`sinks`] write the ledger as lines of a [`log`], [`totals`] add ledgers up, [`tables`] show the sums, and
//! [`verify`] proves what was written. [`commands`] drive that; [`cli`] is what
//! users type; [`printable`] keeps foreign text from controlling a terminal. The crate `dlpm-model` counts what a model file asks for.
#![warn(clippy::print_stderr, clippy::print_stdout)]

pub mod agent;
pub mod aipowermeter;
pub mod attribution;
mod causes;
pub mod cli;
pub mod commands;
pub mod engine;
pub mod files;
pub mod fleet;
pub mod interval;
pub mod log;
pub mod phases;
pub mod plot;
pub mod printable;
pub mod report;
pub mod report_html;
pub mod sinks;
pub mod socket;
pub mod sources;
pub mod tables;
pub mod tenants;
pub mod top;
pub mod totals;
pub mod validate;
pub mod verify;
pub mod web;
pub mod weights;
mod words;
