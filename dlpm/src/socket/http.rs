//! Requests and answers.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use super::{
    body::{Answer, Guard, Stream},
    feed::{Ask, Asker},
    peer::Peer,
    recordings::{Admitted, Recordings, Refused},
    wire::{AgentFacts, BorderAnswer, JobAnswer, MarkRequest, RecordingRequest, Refusal, VERSION},
};
use crate::tenants::Wanted;

/// Bytes of a body at most, and the time for it.
const LARGEST_BODY_BYTES: usize = 64 << 10;
const BODY_PATIENCE: Duration = Duration::from_secs(5);

/// How long an answer of the measuring thread is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Length of the interval of a snapshot at most.
const SNAPSHOT_MS: u64 = 1_000;

/// Tenants, for those who may see them.
pub trait Tenants: Send + Sync {
    /// What each has used since the agent began to count, as a list of JSON objects.
    fn tenants(&self) -> Vec<serde_json::Value>;

    /// What a job uses that runs. Those of its tenants that may have ended are looked at soon.
    fn job(&self, job: &Wanted) -> JobAnswer;
}

/// What all connections share.
pub struct Site {
    pub recordings: Recordings,
    pub asker: Asker,
    pub tenants: Arc<dyn Tenants>,
    pub interval_ms: u64,
    /// Number of the group whose members see all.
    pub group: Option<u32>,
}

/// Answers one request.
pub async fn answer(request: Request<Incoming>, site: &Rc<RefCell<Site>>, peer: &Peer) -> Response<Answer> {
    let result = route(request, site, peer).await;
    let (status, media, body) = match result {
        Ok(Page::Json(text)) => (StatusCode::OK, "application/json", Answer::text(text)),
        Ok(Page::Stream(stream)) => (StatusCode::OK, "application/x-ndjson", Answer::Stream(stream)),
        Err(refused) => {
            let (status, error) = match refused {
                Refused::Wrong(error) => (StatusCode::BAD_REQUEST, error),
                Refused::Unknown(error) => (StatusCode::NOT_FOUND, error),
                Refused::Forbidden(error) => (StatusCode::FORBIDDEN, error),
                Refused::TooMany(error) => (StatusCode::TOO_MANY_REQUESTS, error),
                Refused::Busy(error) => (StatusCode::SERVICE_UNAVAILABLE, error),
            };
            let text = json(&Refusal { error }).unwrap_or_default();
            (status, "application/json", Answer::text(text))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

enum Page {
    Json(String),
    Stream(Stream),
}

async fn route(request: Request<Incoming>, site: &Rc<RefCell<Site>>, peer: &Peer) -> Result<Page, Refused> {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let [version, rest @ ..] = parts.as_slice() else {
        return Err(unknown(&path));
    };
    if *version != VERSION {
        return Err(Refused::Unknown(format!(
            "this agent speaks version {VERSION}: paths begin with /{VERSION}"
        )));
    }
    let sees_all = peer.sees_all(site.borrow().group);
    match (method, rest) {
        (Method::GET, []) => {
            let site = site.borrow();
            page(&AgentFacts {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                interval_ms: site.interval_ms,
                uid: peer.uid,
                sees_all,
                machine: site.asker.base().facts,
            })
        }
        (Method::GET, ["processes"]) => {
            let asked = RecordingRequest {
                // Nobody waits longer.
                interval_ms: (site.borrow().interval_ms > SNAPSHOT_MS).then_some(SNAPSHOT_MS),
                ..RecordingRequest::default()
            };
            let stream = record(&asked, true, site, peer, sees_all).await?;
            let line = tokio::time::timeout(PATIENCE, stream.one_line()).await.ok().flatten();
            line.map(Page::Json).ok_or_else(silent)
        }
        (Method::GET, ["tenants"]) => {
            if !sees_all {
                return Err(Refused::Forbidden(format!(
                    "tenants are shown to root and to members of the group {}; /{VERSION}/processes shows your own \
                     processes",
                    super::peer::GROUP
                )));
            }
            let tenants = Arc::clone(&site.borrow().tenants);
            page(&tenants.tenants())
        }
        (Method::GET, ["jobs", id]) => {
            if !sees_all {
                return Err(Refused::Forbidden(format!(
                    "jobs are shown to root and to members of the group {}: ask with sudo",
                    super::peer::GROUP
                )));
            }
            let wanted = Wanted::job(id).map_err(|error| Refused::Wrong(error.to_string()))?;
            let tenants = Arc::clone(&site.borrow().tenants);
            page(&tenants.job(&wanted))
        }
        (Method::POST, ["recordings"]) => {
            let asked: RecordingRequest = body(request).await?;
            record(&asked, false, site, peer, sees_all).await.map(Page::Stream)
        }
        (Method::POST, ["recordings", id, "marks"]) => {
            let id = number(id, &path)?;
            let mark: MarkRequest = body(request).await?;
            let answered = site.borrow_mut().recordings.mark(id, peer, &mark)?;
            border(answered).await
        }
        (Method::DELETE, ["recordings", id]) => {
            let id = number(id, &path)?;
            let answered = site.borrow_mut().recordings.end(id, peer)?;
            border(answered).await
        }
        (_, ["recordings"]) => Err(Refused::Wrong("a recording begins with POST".to_owned())),
        (_, ["recordings", _]) => Err(Refused::Wrong("a recording ends with DELETE".to_owned())),
        (_, ["recordings", _, "marks"]) => Err(Refused::Wrong("a mark is set with POST".to_owned())),
        (_, [] | ["processes"] | ["tenants"] | ["jobs", _]) => Err(Refused::Wrong("this is read with GET".to_owned())),
        _ => Err(unknown(&path)),
    }
}

fn unknown(path: &str) -> Refused {
    let path: String = path.escape_debug().take(100).collect();
    Refused::Unknown(format!(
        "there is nothing at {path}; there are /{VERSION}, /{VERSION}/processes, /{VERSION}/tenants, \
         /{VERSION}/jobs/ID and /{VERSION}/recordings"
    ))
}

fn number(text: &str, path: &str) -> Result<u64, Refused> {
    text.parse().map_err(|_| unknown(path))
}

/// Lets a recording begin.
async fn record(
    asked: &RecordingRequest,
    once: bool,
    site: &Rc<RefCell<Site>>,
    peer: &Peer,
    sees_all: bool,
) -> Result<Stream, Refused> {
    let Admitted {
        id,
        outbox,
        roots,
        tree,
        uid,
    } = site.borrow_mut().recordings.admit(peer, sees_all, asked, once)?;
    // From here on it is taken out again, whatever happens.
    let stream = Stream::new(Guard::new(Rc::clone(site), id), outbox);
    let (asker, watched) = {
        let site = site.borrow();
        (site.asker.clone(), site.recordings.watched())
    };
    if let Some(tree) = tree {
        for (pid, root) in roots {
            let (found, is_found) = oneshot::channel();
            // Of the caller, the kernel has said who it is; its real user may be another.
            let uid = uid.filter(|_| peer.pid != Some(pid));
            let ask = Ask::Follow {
                pid,
                root,
                tree,
                uid,
                found,
            };
            if !asker.ask(ask) {
                return Err(Refused::Busy("the agent has too many requests to answer".to_owned()));
            }
            match tokio::time::timeout(PATIENCE, is_found).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    return Err(Refused::Unknown(format!(
                        "there is no process {pid} of yours; `ps -o pid,comm -u \"$USER\"` lists those there are"
                    )));
                }
                _ => return Err(silent()),
            }
        }
    }
    asker.ask_when_free(Ask::Watch(watched)).await;
    site.borrow_mut().recordings.begin(id)?;
    Ok(stream)
}

async fn border(answered: oneshot::Receiver<BorderAnswer>) -> Result<Page, Refused> {
    match tokio::time::timeout(PATIENCE, answered).await {
        Ok(Ok(border)) => page(&border),
        Ok(Err(_)) => Err(Refused::Unknown("the recording has ended".to_owned())),
        Err(_) => Err(silent()),
    }
}

fn silent() -> Refused {
    Refused::Busy("the measuring part of the agent does not answer: see its messages".to_owned())
}

fn page(value: &impl Serialize) -> Result<Page, Refused> {
    json(value)
        .map(Page::Json)
        .map_err(|error| Refused::Busy(error.to_string()))
}

/// A line of JSON.
fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    Ok(text)
}

/// The body of a request as JSON; an empty one asks for nothing.
async fn body<T: DeserializeOwned + Default>(request: Request<Incoming>) -> Result<T, Refused> {
    let limited = Limited::new(request.into_body(), LARGEST_BODY_BYTES);
    let collected = match tokio::time::timeout(BODY_PATIENCE, limited.collect()).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) => return Err(Refused::Wrong(format!("the body cannot be read: {error}"))),
        Err(_) => return Err(Refused::Wrong("the body did not come in time".to_owned())),
    };
    if collected.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    serde_json::from_slice(&collected)
        .map_err(|error| Refused::Wrong(format!("the body is not such a request: {error}")))
}
