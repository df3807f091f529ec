//! Where the counters are pushed to, and what the operator is told of it. In the core: nothing here touches the network.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use hyper::{
    Uri,
    header::{
        CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING,
    },
};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::ServerName;

use super::settings::{Pem, text_of};
use crate::{agent::facts::Pushes, printable::printable};

/// What is appended to the URL of a collector, as the exporters of OpenTelemetry do
/// (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp>).
const METRICS: &str = "/v1/metrics";

/// Most lines of a file of headers.
const MOST_HEADERS: usize = 32;

/// Longest URL: more than a name of a host and a path need.
const LONGEST_URL: usize = 1_000;

/// Headers that dlpm sets itself.
const OWN_HEADERS: [HeaderName; 6] = [
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    HOST,
    TRANSFER_ENCODING,
];

/// A collector of OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    is_https: bool,
    host: String,
    port: u16,
    /// Host and port as they were written.
    authority: String,
    /// Where metrics are taken.
    path: String,
}

/// Whom to push the counters to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushConfig {
    /// The collector.
    pub endpoint: Endpoint,
    /// From the begin of one push to the next.
    pub interval: Duration,
    /// A file with headers that each push has: `NAME: VALUE`, one a line.
    pub headers: Option<PathBuf>,
    /// A file with the certificates of the authorities that may have signed the collector's; without it those of the
    /// system.
    pub authority: Option<PathBuf>,
}

/// The same with what is in the files: what the network process gets.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    pub(super) interval: Duration,
    pub(super) headers: Vec<(String, String)>,
    pub(super) authority: Option<Pem>,
}

impl Endpoint {
    /// Reads a URL as operators write it: `http://HOST:PORT`, with a path if the collector is below one.
    ///
    /// # Errors
    ///
    /// What is wrong with it, with an example.
    pub fn parse(text: &str) -> Result<Self, String> {
        let example = "write it as in http://collector:4318 or https://otlp.example.org/path";
        let shown: String = printable(text).chars().take(LONGEST_URL).collect();
        let wrong = |what: &str| Err(format!("`{shown}` {what}; {example}"));
        if text.len() > LONGEST_URL {
            return wrong(&format!("is longer than {LONGEST_URL} bytes"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return wrong("does not begin with http:// or https://");
        };
        let (is_https, default) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (false, 80),
            "https" => (true, 443),
            "grpc" | "grpcs" => {
                return wrong("is an address for gRPC, and dlpm speaks OTLP over HTTP, mostly at port 4318");
            }
            _ => return wrong("begins with neither http:// nor https://"),
        };
        if rest.contains(['?', '#']) {
            return wrong("has a query or a fragment, to which nothing can be appended");
        }
        if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
            return Err(format!(
                "a URL with a user or a password is shown to everybody who lists processes; put `Authorization: …` into a \
                 file for otlp_headers, and {example}"
            ));
        }
        let uri: Uri = match text.parse() {
            Ok(uri) => uri,
            Err(_) => return wrong("is not a URL"),
        };
        let Some(authority) = uri.authority() else {
            return wrong("has no host");
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        // Names and addresses alike.
        if ServerName::try_from(host).is_err() {
            return wrong("has no name or address of a host");
        }
        let after = authority.as_str().get(authority.host().len()..).unwrap_or_default();
        let port = match after.strip_prefix(':') {
            None => default,
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return wrong("has a port that is not from 1 to 65535"),
            },
        };
        let base = uri.path().trim_end_matches('/');
        if base.ends_with(METRICS) {
            return wrong(&format!("ends with {METRICS}, which dlpm appends itself: leave it out"));
        }
        Ok(Self {
            is_https,
            host: host.to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            path: format!("{base}{METRICS}"),
        })
    }

    pub(super) fn is_https(&self) -> bool {
        self.is_https
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(formatter, "{scheme}://{}{}", self.authority, printable(&self.path))
    }
}

impl PushConfig {
    /// Reads what the files say, and starts nothing.
    ///
    /// # Errors
    ///
    /// A file that cannot be used; each names the file and the next step.
    pub fn check(&self) -> Result<()> {
        self.target().map(drop)
    }

    pub(super) fn target(&self) -> Result<Target> {
        let headers = match &self.headers {
            Some(path) => headers(&text(path)?)
                .with_context(|| format!("otlp_headers: {}", printable(&path.to_string_lossy())))?,
            None => Vec::new(),
        };
        let authority = match &self.authority {
            Some(path) => {
                let origin = format!("otlp_ca: {}", printable(&path.to_string_lossy()));
                let text = text(path)?;
                let pem = Pem { origin, text };
                pem.roots()?;
                Some(pem)
            }
            None => None,
        };
        if authority.is_some() && !self.endpoint.is_https {
            bail!(
                "otlp_ca is for https, and {} is not; change the one or leave out the other",
                self.endpoint
            );
        }
        Ok(Target {
            endpoint: self.endpoint.clone(),
            interval: self.interval,
            headers,
            authority,
        })
    }
}

fn text(path: &Path) -> Result<String> {
    text_of(path).map_err(|error| {
        let path = path.to_string_lossy();
        anyhow!("{} cannot be read: {error}", printable(&path))
    })
}

/// The headers of a file: empty lines, and those that begin with `#`, say nothing.
fn headers(text: &str) -> Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // What is there may be a secret, so no message shows it.
        let (name, value) = line
            .split_once(':')
            .with_context(|| format!("line {number} has no colon; write `NAME: VALUE`"))?;
        let (name, value) = (name.trim(), value.trim());
        let parsed = HeaderName::try_from(name).map_err(|_| {
            anyhow!("line {number}: what is before the colon is not a name of a header; write `NAME: VALUE`")
        })?;
        if OWN_HEADERS.contains(&parsed) {
            bail!("line {number}: dlpm sets {parsed} itself; remove the line");
        }
        HeaderValue::try_from(value)
            .map_err(|_| anyhow!("line {number}: the value has a character that a header cannot have"))?;
        headers.push((name.to_owned(), value.to_owned()));
    }
    if headers.len() > MOST_HEADERS {
        bail!("it has {} headers, and {MOST_HEADERS} are the most", headers.len());
    }
    Ok(headers)
}

/// What became of the pushes. The operator is told when they begin to fail and when they are taken again.
#[derive(Debug)]
pub(super) struct Progress {
    to: String,
    interval: Duration,
    pushes: Pushes,
    failed_since: u64,
}

impl Progress {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            to: target.endpoint.to_string(),
            interval: target.interval,
            pushes: Pushes::default(),
            failed_since: 0,
        }
    }

    pub(super) fn pushes(&self) -> Pushes {
        self.pushes
    }

    /// A push was taken; what to say.
    pub(super) fn taken(&mut self) -> Option<String> {
        self.pushes.taken += 1;
        let failed = std::mem::take(&mut self.failed_since);
        (failed > 0).then(|| {
            format!(
                "note: {} takes the counters again (pushes that failed: {failed})",
                self.to
            )
        })
    }

    /// A push was not taken; what to say.
    pub(super) fn failed(&mut self, why: &str) -> Option<String> {
        self.pushes.failed += 1;
        self.failed_since += 1;
        (self.failed_since == 1).then(|| {
            format!(
                "warning: {} did not take the counters: {}. It is tried again every {:?}; the next push that is taken has \
                 everything",
                self.to,
                printable(why),
                self.interval
            )
        })
    }
}

#[cfg(test)]
mod tests;
