//! One module for each command.

pub mod bench;
pub mod book;
pub mod build;
pub mod install;
pub mod keras;
pub mod kernels;
pub mod lint;
pub mod models;
pub mod node;
pub mod package;
pub mod run;
pub mod screenshot;
pub mod setup;
pub mod test;
