//! The network side of the agent: a process of its own that holds no capability, and the thread of the core that
//! answers it.
//!
//! The core never parses a byte from the network, not even the answer of a name server. It binds the listeners ([`Bound`]), reads the `web.config.file`
//! ([`settings`]), and starts this program once more as `agent-web` ([`Server`]). That process takes the user `nobody`,
//! gives up what it does not need ([`child`]), and speaks HTTP and TLS; it asks the core through a socket pair, in small
//! messages with a limit ([`protocol`]), for what is to be served. The core takes it for hostile: it gets renderings of
//! sealed intervals and states, and nothing else.
//!
//! Where the counters are pushed as well ([`PushConfig`]), a second process of that kind does it. What serves everybody
//! needs no way out, and what has the collector's token should not read requests.

use std::{net::SocketAddr, path::PathBuf};

pub mod child;
mod listen;
mod protocol;
mod push;
mod rate;
mod role;
mod server;
mod settings;

pub use crate::agent::exposition::Format;
pub use listen::{Bound, address};
pub use push::{Endpoint, PushConfig};
pub use server::Server;

/// Where and how the agent listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebConfig {
    /// Addresses, at most eight. Port 0 is a free port.
    pub listen: Vec<SocketAddr>,
    /// The `web.config.file` that the exporters of Prometheus share: TLS and basic authentication.
    pub web_config: Option<PathBuf>,
    /// Whether anybody may read what is served at an address that is not loopback, over a connection that is not
    /// encrypted.
    pub allow_open: bool,
}

/// What `/healthz` and `/readyz` tell. The texts say why not, in a few words: at most 200 characters of them are served.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Status {
    /// Whether the loop that measures is running.
    pub alive: Result<(), String>,
    /// Whether intervals are sealed on time and the meters answer.
    pub ready: Result<(), String>,
}

/// What the core has to say. Called by a thread of its own (`dlpm-web`), never by the one that measures; an
/// implementation must not make that one wait.
pub trait Answers: Send + Sync {
    /// The number of the newest sealed interval that [`Answers::metrics`] would render.
    fn seq(&self) -> u64;
    /// Renders the newest snapshot, and tells which interval that is. Called at most once for each interval and format.
    fn metrics(&self, format: Format) -> (u64, Vec<u8>);
    /// The state of the measurement.
    fn status(&self) -> Status;
    /// The snapshot of the interval `seq`, or a later one, was sent whole to a scraper: a hash of its address and user
    /// name. Any number of scrapers may appear here, as any client that is let in is one: bound what is kept of them.
    fn fetched(&self, scraper: u64, seq: u64);
}
