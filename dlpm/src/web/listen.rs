//! Listening: which addresses are allowed, and what an error says.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Result, anyhow, bail};

use crate::web::{WebConfig, settings::Settings};

/// Most addresses: each is a descriptor that goes to the other process in one message.
pub(super) const MOST_LISTENERS: usize = 8;

/// Listeners that nobody serves yet, with the settings for them: all that can be wrong with a configuration is told
/// before anything is traced.
#[derive(Debug)]
pub struct Bound {
    pub(super) config: WebConfig,
    pub(super) settings: Settings,
    pub(super) listeners: Vec<TcpListener>,
}

impl Bound {
    /// Reads the settings, and binds the addresses.
    ///
    /// # Errors
    ///
    /// Those of [`Bound::check`]; an address that cannot be bound. Each names the next step.
    pub fn bind(config: &WebConfig) -> Result<Self> {
        let settings = Self::settings(config)?;
        let listeners = config.listen.iter().map(|address| bound(*address));
        Ok(Self {
            config: config.clone(),
            settings,
            listeners: listeners.collect::<Result<_>>()?,
        })
    }

    /// Reads the settings, and binds nothing: for `dlpm agent --check`.
    ///
    /// # Errors
    ///
    /// A `web.config.file` that cannot be used; no address, or too many; an address that is not loopback, where anybody
    /// could read what is served.
    pub fn check(config: &WebConfig) -> Result<()> {
        Self::settings(config).map(drop)
    }

    pub(super) fn settings(config: &WebConfig) -> Result<Settings> {
        if config.listen.is_empty() || config.listen.len() > MOST_LISTENERS {
            bail!(
                "`listen` has {} addresses; give 1 to {MOST_LISTENERS}, as in 127.0.0.1:9090",
                config.listen.len()
            );
        }
        let settings = match &config.web_config {
            Some(path) => Settings::read(path)?,
            None => Settings::default(),
        };
        let open = config
            .listen
            .iter()
            .find(|address| !address.ip().to_canonical().is_loopback());
        if let Some(address) = open.filter(|_| settings.is_open() && !config.allow_open) {
            bail!(
                "at {address} anybody on the network could read which tenants run here and what they use. Configure TLS \
                 or authentication in the file that `web_config` names, or state `allow_open = true`, or listen at \
                 127.0.0.1"
            );
        }
        Ok(settings)
    }

    /// The addresses, with the ports that were chosen.
    ///
    /// # Errors
    ///
    /// Any I/O error from the operating system.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.listeners.iter().map(AsFd::as_fd).collect()
    }
}

fn bound(address: SocketAddr) -> Result<TcpListener> {
    // The standard library sets SO_REUSEADDR: connections of an agent that has ended do not keep the port.
    TcpListener::bind(address).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there (`ss -ltnp` names it); end it, or change `listen`"
            }
            io::ErrorKind::AddrNotAvailable => {
                "no interface of this machine has that address (`ip address` shows them); change `listen`"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE; change `listen`",
            _ => "change `listen`",
        };
        anyhow!(error).context(format!("cannot listen at {address}: {advice}"))
    })
}

/// Reads an address as operators write them: `127.0.0.1:9090`, `[::1]:9090`, `localhost:9090`, or `:9090` for every
/// address of the machine.
///
/// # Errors
///
/// What is wrong with it, with an example.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let example = "write an address and a port, as in 127.0.0.1:9090, [::1]:9090, localhost:9090, or :9090 for every \
                   address of this machine";
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("`{text}` has no port; {example}"))?;
    let port: u16 = port
        .parse()
        .map_err(|_| format!("`{port}` is not a port from 0 to 65535; {example}"))?;
    let host = match host {
        "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        // A name could have another address tomorrow, and the core asks no name server.
        _ => return Err(format!("`{host}` is not an IP address; {example}")),
    };
    Ok(SocketAddr::new(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(addresses: &[&str]) -> WebConfig {
        WebConfig {
            listen: addresses.iter().map(|text| address(text).unwrap()).collect(),
            ..WebConfig::default()
        }
    }

    #[test]
    fn an_address_is_read_as_operators_write_it() {
        for (text, read) in [
            ("127.0.0.1:9090", "127.0.0.1:9090"),
            ("[::1]:1", "[::1]:1"),
            ("localhost:9090", "127.0.0.1:9090"),
            (":9090", "0.0.0.0:9090"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), read);
        }
        for (text, part) in [
            ("9090", "has no port"),
            ("127.0.0.1", "has no port"),
            ("127.0.0.1:", "is not a port"),
            ("127.0.0.1:65536", "is not a port"),
            ("example.org:80", "is not an IP address"),
            ("::1:80", "is not an IP address"),
        ] {
            let error = address(text).unwrap_err();
            assert!(
                error.contains(part) && error.contains("127.0.0.1:9090"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn an_open_address_names_both_ways_out() {
        for open in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0", "[::ffff:192.0.2.1]:0"] {
            let error = Bound::check(&config(&["127.0.0.1:0", open])).unwrap_err().to_string();
            assert!(
                error.contains("web_config") && error.contains("allow_open = true"),
                "{error}"
            );
            let open = WebConfig {
                allow_open: true,
                ..config(&[open])
            };
            Bound::check(&open).unwrap();
        }
        for closed in ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            Bound::check(&config(&[closed])).unwrap();
        }
    }

    #[test]
    fn a_port_in_use_and_a_foreign_address_are_told() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap().to_string();
        let told = |address: &str| {
            let config = WebConfig {
                allow_open: true,
                ..config(&[address])
            };
            format!("{:#}", Bound::bind(&config).unwrap_err())
        };
        let error = told(&taken);
        assert!(
            error.contains("another program listens there") && error.contains(&taken),
            "{error}"
        );
        // TEST-NET-1 of RFC 5737.
        let error = told("192.0.2.1:0");
        assert!(error.contains("no interface of this machine"), "{error}");
    }

    #[test]
    fn addresses_are_counted() {
        let many = ["127.0.0.1:0"; MOST_LISTENERS + 1];
        for addresses in [&[][..], &many[..]] {
            let error = Bound::check(&config(addresses)).unwrap_err().to_string();
            assert!(error.contains("give 1 to 8"), "{error}");
        }
        let bound = Bound::bind(&config(&["127.0.0.1:0", "127.0.0.1:0"])).unwrap();
        let addresses = bound.addresses().unwrap();
        assert!(addresses.iter().all(|address| address.port() != 0));
    }
}
