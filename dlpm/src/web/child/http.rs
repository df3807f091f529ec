//! Requests and answers.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use anyhow::Result;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header::{
        ACCEPT, ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING,
        CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, VARY,
        WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use maud::{DOCTYPE, html};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Shared,
    auth::Users,
    connections::Slot,
    negotiation,
    watched::{Activity, Watched},
};
use crate::printable::printable;

/// Limits on the head of a request. The buffer also holds what hyper has not written yet of small answers.
const MOST_HEADERS: usize = 64;
const LARGEST_HEAD_BYTES: usize = 16 << 10;

/// Longest reason in an answer.
const LONGEST_REASON: usize = 200;

/// What is the same for every answer.
#[derive(Debug)]
pub(super) struct Site {
    users: Users,
    headers: HeaderMap,
}

impl Site {
    pub(super) fn new(users: Users, headers: &[(String, String)]) -> Result<Self> {
        let mut map = HeaderMap::new();
        map.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        map.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        map.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
        for (name, value) in headers {
            map.insert(
                HeaderName::try_from(name.as_str())?,
                HeaderValue::try_from(value.as_str())?,
            );
        }
        Ok(Self { users, headers: map })
    }
}

/// An answer to `/metrics` on its way: told to the core when it has been written whole.
type Delivery = Mutex<Option<(u64, u64)>>;

/// Serves one connection, until it ends.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, shared: &Arc<Shared>, slot: &Slot) {
    let activity = slot.activity();
    let delivery = Delivery::default();
    let delivered = || {
        let delivered = delivery.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((scraper, seq)) = delivered {
            shared.core.fetched(scraper, seq);
        }
    };
    let service = service_fn(|request: Request<Incoming>| {
        activity.asked(Instant::now());
        let (activity, delivery) = (Arc::clone(&activity), &delivery);
        async move { Ok::<_, Infallible>(answer(&request, shared, slot.client(), activity, delivery).await) }
    });
    // A client that breaks off, or what it says: there is nobody to tell.
    let _ = http1::Builder::new()
        .header_read_timeout(None)
        .max_headers(MOST_HEADERS)
        .max_header_size(LARGEST_HEAD_BYTES)
        .max_buf_size(2 * LARGEST_HEAD_BYTES)
        .serve_connection(TokioIo::new(Watched::new(stream, &activity, &delivered)), service)
        .await;
}

async fn answer(
    request: &Request<Incoming>,
    shared: &Shared,
    client: IpAddr,
    activity: Arc<Activity>,
    delivery: &Delivery,
) -> Response<Buffered> {
    *delivery.lock().unwrap_or_else(PoisonError::into_inner) = None;
    let mut page = page(request, shared, client, delivery).await;
    for (name, value) in &shared.site.headers {
        page.headers.insert(name.clone(), value.clone());
    }
    if request.method() == Method::HEAD {
        // Only the head is written, and then nothing is left.
        activity.buffered();
    }
    let body = Buffered {
        text: Some(page.text),
        activity,
    };
    let mut response = Response::new(body);
    *response.status_mut() = page.status;
    *response.headers_mut() = page.headers;
    response
}

struct Page {
    status: StatusCode,
    headers: HeaderMap,
    text: Bytes,
}

impl Page {
    fn new(status: StatusCode, media: &'static str, text: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        let text = text.into();
        Self { status, headers, text }
    }

    /// One line of plain text.
    fn line(status: StatusCode, text: &str) -> Self {
        let text: String = printable(text).chars().take(LONGEST_REASON).chain(['\n']).collect();
        Self::new(status, "text/plain; charset=utf-8", text)
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }
}

/// What is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Root,
    Metrics,
    Alive,
    Ready,
}

impl Place {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/" => Some(Self::Root),
            "/metrics" => Some(Self::Metrics),
            "/healthz" => Some(Self::Alive),
            "/readyz" => Some(Self::Ready),
            _ => None,
        }
    }
}

async fn page(request: &Request<Incoming>, shared: &Shared, client: IpAddr, delivery: &Delivery) -> Page {
    let headers = request.headers();
    let Some(user) = shared.site.users.check(headers.get(AUTHORIZATION)).await else {
        return Page::line(StatusCode::UNAUTHORIZED, "a user name and its password are needed")
            .with(WWW_AUTHENTICATE, "Basic realm=\"dlpm\", charset=\"UTF-8\"");
    };
    let Some(place) = Place::of(request.uri().path()) else {
        return Page::line(StatusCode::NOT_FOUND, "there is nothing here; / has the links");
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Page::line(StatusCode::METHOD_NOT_ALLOWED, "this can be read only").with(ALLOW, "GET, HEAD");
    }
    if !request.body().is_end_stream() || headers.contains_key(TRANSFER_ENCODING) {
        return Page::line(StatusCode::PAYLOAD_TOO_LARGE, "a request has no body here").with(CONNECTION, "close");
    }
    match place {
        Place::Root => root(),
        Place::Alive => state(shared, |status| status.alive).await,
        Place::Ready => state(shared, |status| status.alive.and(status.ready)).await,
        Place::Metrics => {
            let text = |name| {
                headers
                    .get(name)
                    .and_then(|value: &HeaderValue| value.to_str().ok())
                    .unwrap_or_default()
            };
            let (format, media) = negotiation::format(text(ACCEPT));
            let gzip = negotiation::gzip(text(ACCEPT_ENCODING));
            let Ok((seq, metrics)) = shared.core.metrics(format, gzip).await else {
                return silent();
            };
            if request.method() == Method::GET {
                let scraper = scraper(&client.to_string(), &user);
                *delivery.lock().unwrap_or_else(PoisonError::into_inner) = Some((scraper, seq));
            }
            let page = Page::new(StatusCode::OK, media, metrics).with(VARY, "Accept, Accept-Encoding");
            if gzip {
                page.with(CONTENT_ENCODING, "gzip")
            } else {
                page
            }
        }
    }
}

async fn state(shared: &Shared, part: impl Fn(crate::web::Status) -> Result<(), String>) -> Page {
    match shared.core.status().await.map(part) {
        Ok(Ok(())) => Page::line(StatusCode::OK, "ok"),
        Ok(Err(why)) => Page::line(StatusCode::SERVICE_UNAVAILABLE, &why),
        Err(_) => silent(),
    }
}

fn silent() -> Page {
    Page::line(
        StatusCode::SERVICE_UNAVAILABLE,
        "the process that measures does not answer",
    )
}

fn root() -> Page {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "dlpm" } }
            body {
                h1 { "dlpm" }
                p { "The joules that each tenant of this machine really used." }
                ul {
                    li { a href="/metrics" { "/metrics" } ": for Prometheus and what speaks its formats" }
                    li { a href="/healthz" { "/healthz" } ": whether dlpm measures" }
                    li { a href="/readyz" { "/readyz" } ": whether intervals end on time and the meters answer" }
                }
            }
        }
    };
    Page::new(StatusCode::OK, "text/html; charset=utf-8", page.into_string())
}

/// Tells scrapers apart, in the same way after a restart. `client` is an address.
pub(super) fn scraper(client: &str, user: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(client);
    hash.update([0]);
    hash.update(user);
    let digest = hash.finalize();
    digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// A body of one piece, that tells when hyper has taken it.
struct Buffered {
    text: Option<Bytes>,
    activity: Arc<Activity>,
}

impl Body for Buffered {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let text = self.text.take();
        if text.is_some() {
            self.activity.buffered();
        }
        Poll::Ready(text.map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.as_ref().map_or(0, |text| text.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_four_places() {
        for path in ["/", "/metrics", "/healthz", "/readyz"] {
            assert!(Place::of(path).is_some(), "{path}");
        }
        for path in ["", "/metrics/", "//metrics", "/METRICS", "/../etc/passwd", "*"] {
            assert_eq!(Place::of(path), None, "{path}");
        }
    }

    #[test]
    fn scrapers_differ_by_address_and_by_user() {
        let (one, other) = ("192.0.2.1", "192.0.2.2");
        assert_ne!(scraper(one, ""), scraper(other, ""));
        assert_ne!(scraper(one, "alice"), scraper(one, "bob"));
        // The core remembers scrapers for longer than this process lives.
        assert_eq!(scraper(one, "alice"), 0x9b5173ea09f9018f);
    }

    #[test]
    fn a_reason_is_one_short_line() {
        let page = Page::line(StatusCode::OK, &"\u{1b}[31m\n".repeat(200));
        assert!(page.text.len() <= LONGEST_REASON + 1);
        assert_eq!(page.text.iter().filter(|byte| byte.is_ascii_control()).count(), 1);
        let root = String::from_utf8(root().text.to_vec()).unwrap();
        for path in ["/metrics", "/healthz", "/readyz"] {
            assert!(root.contains(&format!("href=\"{path}\"")));
        }
    }

    #[test]
    fn headers_of_the_file_replace_those_that_are_set_anyway() {
        let users = Users::new(Default::default()).unwrap();
        let headers = [("Content-Security-Policy", "x"), ("X-Frame-Options", "deny")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let site = Site::new(users, &headers).unwrap();
        assert_eq!(site.headers.get_all(CONTENT_SECURITY_POLICY).iter().count(), 1);
        assert_eq!(site.headers["content-security-policy"], "x");
        assert_eq!(site.headers["x-frame-options"], "deny");
    }
}
