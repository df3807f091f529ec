//! What the agent writes: its state, and a line for each tenant that has ended.

pub mod finished;
pub mod keeper;
pub mod state;
