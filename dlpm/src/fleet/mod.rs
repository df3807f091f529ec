//! What nodes have used: the lines of tenants that have ended, and sums over many nodes.

pub mod job;
pub mod life;
