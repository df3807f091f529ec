//! Packages: a program that runs on old systems, its pages and completions, as a Debian package and as
//! archives; and the package for Python, as a wheel.

pub mod archive;
pub mod check;
pub mod debian;
mod licences;
pub mod program;
pub mod tree;
pub mod wheel;
