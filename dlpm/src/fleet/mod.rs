//! What many nodes have used: the lines of tenants that have ended and logs, added up; and one job of one node.
//!
//! [`read`] streams the files, one line at a time, into [`sums`], which are pure and bounded; [`once`] sees that nothing
//! counts twice; [`show`] makes tables and records of the sums.

pub mod job;
pub mod life;
pub mod once;
pub mod read;
pub mod show;
pub mod sums;
