//! Other kernels, booted in an emulator: from Debian's packages to the verdict on a guest's console.

mod apt;
pub mod cases;
pub mod console;
mod debian;
pub mod initramfs;
pub mod lab;
pub mod machine;
pub mod module;
pub mod programs;
pub mod store;
pub mod tools;

pub use debian::Series;
