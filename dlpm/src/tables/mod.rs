//! What people and programs are shown of sums.

pub mod figures;
