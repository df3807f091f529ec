//! The agent's socket: everybody measures their own processes, without root. Described in `docs/socket.md`.
//!
//! A thread of its own ([`server`]) speaks HTTP with whoever connects, without any capability. It asks the measuring thread
//! for borders and trees, and gets intervals ([`feed`]); what a user may not see is taken out of them before anything is
//! attributed ([`crate::interval::Interval::seen_by`]). Lines for a reader wait in its own [`outbox`], so that nobody waits
//! for a reader.

mod asked;
mod body;
pub mod client;
pub mod feed;
mod http;
mod outbox;
mod peer;
mod recording;
mod recordings;
mod server;
pub mod wire;

pub use http::Tenants;
pub use server::{Listener, Server, ServerOptions};

/// Where the socket is, if nothing else is said.
pub const DEFAULT_PATH: &str = "/run/dlpm/agent.sock";
