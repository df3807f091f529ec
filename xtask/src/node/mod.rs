//! A node as operators run it, booted in an emulator: what is on its disks, and what it has to say.

pub mod cases;
mod disk;

pub use disk::{CODENAME, Disks, SERIES, make_disk, recipe};
