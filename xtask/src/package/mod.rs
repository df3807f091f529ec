//! Packages: a program that runs on old systems, its pages and completions, as a Debian package and as archives.

pub mod archive;
pub mod check;
pub mod debian;
mod licences;
pub mod program;
pub mod tree;
