//! Pushes the counters to a collector: OTLP over HTTP (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).
//!
//! A push is never repeated: counters are sums, so the next one has all that this one had. Whatever the collector does,
//! a push ends in time and takes little memory.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{
        CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
    },
};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use super::{core::Core, http::scraper};
use crate::{
    agent::exposition::proto,
    causes::told,
    printable::printable,
    web::{Format, push::Target},
};

/// How long one push may take, with the look-up of the name. It is what exporters of OpenTelemetry take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How soon it is looked again for a first interval.
const SOON: Duration = Duration::from_secs(1);

/// Longest pause that a collector may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Addresses of a name that are tried.
const MOST_ADDRESSES: usize = 4;

/// Limits on an answer.
const MOST_HEADERS: usize = 64;
const MOST_BUFFERED_BYTES: usize = 32 << 10;
const MOST_BODY_BYTES: usize = 64 << 10;

/// Longest text of a collector in a message.
const LONGEST_TEXT: usize = 200;

const PROTOBUF: &str = "application/x-protobuf";

/// How the collector is reached.
pub(super) struct Collector {
    target: Target,
    headers: HeaderMap,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Collector {
    /// Reads the certificates of the system's authorities, where they are needed.
    pub(super) fn new(target: &Target) -> Result<Self> {
        let endpoint = &target.endpoint;
        let mut headers = HeaderMap::new();
        for (name, value) in &target.headers {
            headers.append(
                HeaderName::try_from(name.as_str())?,
                HeaderValue::try_from(value.as_str())?,
            );
        }
        headers.insert(HOST, HeaderValue::try_from(endpoint.authority())?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let agent = HeaderValue::from_static(concat!("dlpm/", env!("CARGO_PKG_VERSION")));
        headers.entry(USER_AGENT).or_insert(agent);
        let tls = endpoint.is_https().then(|| tls(target)).transpose()?;
        Ok(Self {
            target: target.clone(),
            headers,
            tls,
        })
    }

    /// Pushes a request that is compressed.
    async fn take(&self, request: Bytes) -> Result<(), NotTaken> {
        let took = timeout(PATIENCE, self.exchange(request)).await;
        took.unwrap_or_else(|_| {
            Err(NotTaken::from(anyhow!(
                "it did not answer within {} s",
                PATIENCE.as_secs()
            )))
        })
    }

    async fn exchange(&self, request: Bytes) -> Result<(), NotTaken> {
        let stream = self.connect().await?;
        match &self.tls {
            Some((tls, name)) => {
                let stream = tls.connect(name.clone(), stream).await;
                self.send(stream.context("no TLS with it")?, request).await
            }
            None => self.send(stream, request).await,
        }
    }

    async fn connect(&self) -> Result<TcpStream> {
        let endpoint = &self.target.endpoint;
        let nowhere = || format!("the name {} has no address", endpoint.host());
        let addresses = lookup_host((endpoint.host(), endpoint.port()))
            .await
            .with_context(nowhere)?;
        let addresses: Vec<SocketAddr> = addresses.take(MOST_ADDRESSES).collect();
        // One that does not answer, as on a network without IPv6, leaves time for the others.
        let patience = PATIENCE / u32::try_from(addresses.len().max(1))?;
        let mut failed = anyhow!(nowhere());
        for address in addresses {
            match timeout(patience, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failed = anyhow!(error).context(format!("no connection to {address}")),
                Err(_) => failed = anyhow!("no connection to {address} within {patience:?}"),
            }
        }
        Err(failed)
    }

    async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        body: Bytes,
    ) -> Result<(), NotTaken> {
        let what = "it does not speak HTTP";
        let (mut sender, connection) = http1::Builder::new()
            .max_headers(MOST_HEADERS)
            .max_buf_size(MOST_BUFFERED_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .context(what)?;
        // Ends with this function.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.endpoint.path().try_into().map_err(anyhow::Error::from)?;
        *request.headers_mut() = self.headers.clone();
        let response = sender.send_request(request).await.context(what)?;
        judge(response, &self.target).await
    }
}

fn tls(target: &Target) -> Result<(TlsConnector, ServerName<'static>)> {
    let roots = match &target.authority {
        Some(authority) => authority.roots()?,
        None => {
            let mut roots = RootCertStore::empty();
            // What cannot be read is left out: one broken file of a system is not the end of all.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                bail!(
                    "this system has no certificates of authorities: install them (ca-certificates), or name the one \
                     of the collector with otlp_ca"
                );
            }
            roots
        }
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(target.endpoint.host().to_owned())?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// Why a push was not taken.
#[derive(Debug)]
struct NotTaken {
    why: anyhow::Error,
    /// How long the collector asks to be left alone.
    pause: Duration,
}

impl From<anyhow::Error> for NotTaken {
    fn from(why: anyhow::Error) -> Self {
        let pause = Duration::ZERO;
        Self { why, pause }
    }
}

/// What an answer means.
async fn judge(response: Response<Incoming>, target: &Target) -> Result<(), NotTaken> {
    let (status, headers) = (response.status(), response.headers().clone());
    if !status.is_success() {
        let hint = hint(status, target);
        return Err(NotTaken {
            why: anyhow!("it answered {}{hint}", printable(&status.to_string())),
            pause: pause(status, &headers),
        });
    }
    let body = Limited::new(response.into_body(), MOST_BODY_BYTES).collect().await;
    let body = body.map_err(|error| {
        anyhow!(
            "its answer is not whole, or too long: {}",
            printable(&error.to_string())
        )
    })?;
    if !is_protobuf(&headers) {
        // A collector that says nothing of what it left out has taken all.
        return Ok(());
    }
    let answer = proto::Response::decode(body.to_bytes()).context("its answer is not one of OTLP")?;
    match answer.partial_success {
        Some(partial) if partial.rejected_data_points > 0 => {
            let text: String = printable(&partial.error_message).chars().take(LONGEST_TEXT).collect();
            Err(anyhow!("it rejected {} data points: {text}", partial.rejected_data_points).into())
        }
        _ => Ok(()),
    }
}

fn is_protobuf(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok());
    let media = media.and_then(|media| media.split(';').next()).unwrap_or_default();
    media.trim().eq_ignore_ascii_case(PROTOBUF)
}

/// What to do about a status.
fn hint(status: StatusCode, target: &Target) -> String {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            " (otlp_headers names a file with what it wants, as `Authorization: Bearer …`)".to_owned()
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => format!(
            " (the counters go to {}: is that where it takes OTLP over HTTP?)",
            target.endpoint.path()
        ),
        status if status.is_redirection() => " (dlpm follows no redirection; give the place itself)".to_owned(),
        _ => String::new(),
    }
}

/// How long a collector that is overloaded asks to be left alone: a number of seconds, as a date needs its clock.
fn pause(status: StatusCode, headers: &HeaderMap) -> Duration {
    if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return Duration::ZERO;
    }
    let seconds = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(0)).min(LONGEST_PAUSE)
}

/// Pushes every newest snapshot, once in an interval, for ever.
pub(super) async fn run(core: &Core, collector: &Collector, target: &Target) -> Infallible {
    let mut ticks = interval(target.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // No address of a client is like this.
    let scraper = scraper("otlp", &target.endpoint.to_string());
    let mut taken = 0;
    loop {
        ticks.tick().await;
        // The core is told by those who scrape it that it does not answer.
        let Ok((seq, request)) = core.metrics(Format::Otlp, true).await else {
            continue;
        };
        if seq == 0 {
            sleep(SOON.min(target.interval)).await;
            ticks.reset_immediately();
        }
        // What it has it need not get again: intervals may be longer than those of pushes.
        if seq == taken {
            continue;
        }
        match collector.take(request).await {
            Ok(()) => {
                taken = seq;
                core.fetched(scraper, seq);
            }
            Err(NotTaken { why, pause }) => {
                core.not_taken(told(why.as_ref()));
                sleep(pause).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(status: StatusCode, retry_after: &str) -> u64 {
        let value = HeaderValue::try_from(retry_after).unwrap();
        pause(status, &HeaderMap::from_iter([(RETRY_AFTER, value)])).as_secs()
    }

    #[test]
    fn a_collector_is_left_alone_for_as_long_as_it_asks_within_a_limit() {
        for (retry_after, seconds) in [
            ("0", 0),
            ("7", 7),
            (" 7 ", 7),
            ("600", 600),
            ("601", 600),
            ("18446744073709551615", 600),
            ("18446744073709551616", 0),
            ("-1", 0),
            ("", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ] {
            assert_eq!(
                asked(StatusCode::SERVICE_UNAVAILABLE, retry_after),
                seconds,
                "{retry_after}"
            );
            assert_eq!(
                asked(StatusCode::TOO_MANY_REQUESTS, retry_after),
                seconds,
                "{retry_after}"
            );
            assert_eq!(asked(StatusCode::BAD_GATEWAY, retry_after), 0, "{retry_after}");
        }
        assert_eq!(
            pause(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new()),
            Duration::ZERO
        );
    }

    #[test]
    fn protobuf_is_known_by_its_media_type() {
        let is = |media: &str| {
            let media = HeaderValue::try_from(media).unwrap();
            is_protobuf(&HeaderMap::from_iter([(CONTENT_TYPE, media)]))
        };
        for media in [
            PROTOBUF,
            "Application/X-Protobuf",
            "application/x-protobuf; charset=utf-8",
        ] {
            assert!(is(media), "{media}");
        }
        for media in ["", "application/json", "application/x-protobuf-delimited", "text/plain"] {
            assert!(!is(media), "{media}");
        }
        assert!(!is_protobuf(&HeaderMap::new()));
    }
}
