//! What the agent pushes to a collector of OpenTelemetry, and what a collector cannot do to it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use dlpm::agent::{
    exposition::proto::{PartialSuccess, Response},
    facts::Pushes,
};
use dlpm_tests::{
    collector::{Collector, Push, Reply},
    require_dlpm,
    web::{Core, Served, wait_for},
};
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Waits until as many pushes were taken, and not, at least.
fn wait_for_pushes(served: &Served, taken: u64, failed: u64) -> Pushes {
    wait_for(
        &format!("{taken} pushes that are taken and {failed} that are not"),
        || {
            let pushes = served.server.pushes().unwrap();
            (pushes.taken >= taken && pushes.failed >= failed).then_some(pushes)
        },
    )
}

fn fetched(served: &Served) -> Vec<u64> {
    let fetched = served.core.fetched.lock().unwrap();
    fetched.iter().map(|(_, seq)| *seq).collect()
}

#[test]
fn a_push_is_what_the_specification_asks_for() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let headers = file(
        folder.path(),
        "headers",
        "# who we are\nAuthorization: Bearer secret\nX-Scope-OrgID: 7\n",
    );
    let collector = Collector::start(Reply::taken());
    let base = format!("http://localhost:{}/otlp/", collector.address().port());
    let served = Served::pushing(&base, Some(headers.clone()), None);
    wait_for_pushes(&served, 1, 0);
    let push = collector.pushes().remove(0);
    assert_eq!(push.head[0], "POST /otlp/v1/metrics HTTP/1.1");
    for (name, value) in [
        ("content-type", "application/x-protobuf"),
        ("authorization", "Bearer secret"),
        ("x-scope-orgid", "7"),
    ] {
        assert_eq!(push.header(name), Some(value), "{name}");
    }
    assert_eq!(
        push.header("host"),
        Some(&base["http://".len()..base.len() - "/otlp/".len()])
    );
    assert!(push.header("user-agent").unwrap().starts_with("dlpm/"));
    assert_eq!(push.unpacked(), b"Otlp 1\n");

    // What the collector has is not sent again, and each newer interval is.
    served.core.seq.store(3, Ordering::SeqCst);
    wait_for_pushes(&served, 2, 0);
    served.core.seq.store(7, Ordering::SeqCst);
    wait_for_pushes(&served, 3, 0);
    let bodies: Vec<Vec<u8>> = collector.pushes().iter().map(Push::unpacked).collect();
    assert_eq!(bodies, [b"Otlp 1\n", b"Otlp 3\n", b"Otlp 7\n"]);
    // It counts as one that fetched them, whatever it is called.
    assert_eq!(fetched(&served), [1, 3, 7]);
    let scrapers = served.core.fetched.lock().unwrap().clone();
    assert!(scrapers.iter().all(|(scraper, _)| *scraper == scrapers[0].0));

    // A new token is read, and what cannot be read leaves the old one in force.
    fs::write(&headers, "Authorization: Bearer other\n").unwrap();
    served.server.reload().unwrap();
    served.core.seq.store(8, Ordering::SeqCst);
    let newest = || {
        let push = collector.pushes().pop()?;
        (push.header("authorization") == Some("Bearer other")).then_some(push)
    };
    assert_eq!(wait_for("the new token", newest).header("x-scope-orgid"), None);
    fs::write(&headers, "Bearer other\n").unwrap();
    let error = format!("{:#}", served.server.reload().unwrap_err());
    assert!(
        error.contains("line 1 has no colon") && !error.contains("other"),
        "{error}"
    );
    served.core.seq.store(9, Ordering::SeqCst);
    wait_for("a push with the old token", || {
        fetched(&served).contains(&9).then_some(())
    });
    assert_eq!(served.server.restarts(), 0, "a reload is not a death");
}

#[test]
fn the_process_that_pushes_holds_no_right() {
    require_dlpm!();
    let collector = Collector::start(Reply::taken());
    let served = Served::pushing(&collector.url(), None, None);
    wait_for_pushes(&served, 1, 0);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(served.status(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(served.status("NoNewPrivs"), ["1"]);
    for ids in ["Uid", "Gid"] {
        assert_eq!(served.status(ids), ["65534"; 4], "{ids}");
    }
    // It listens nowhere, and the connection to the collector is closed after a push.
    for descriptor in fs::read_dir(format!("/proc/{}/fd", served.server.pid().unwrap())).unwrap() {
        let what = fs::read_link(descriptor.unwrap().path()).unwrap().display().to_string();
        let kinds = ["socket:", "anon_inode:[eventfd]", "anon_inode:[eventpoll]", "/dev/null"];
        assert!(kinds.iter().any(|kind| what.starts_with(kind)), "{what}");
    }
}

#[test]
fn what_is_not_taken_goes_with_a_later_push() {
    require_dlpm!();
    let rejected = Response {
        partial_success: Some(PartialSuccess {
            rejected_data_points: 5,
            error_message: "no\u{1b}room".to_owned(),
        }),
    };
    let warned = Response {
        partial_success: Some(PartialSuccess {
            rejected_data_points: 0,
            error_message: "deprecated".to_owned(),
        }),
    };
    let protobuf = &["Content-Type: application/x-protobuf"][..];
    let elsewhere = Collector::start(Reply::taken());
    let location = format!("Location: {}/v1/metrics", elsewhere.url());
    let collector = Collector::start(Reply::status("503 Service Unavailable", &[], b""));
    let served = Served::pushing(&collector.url(), None, None);
    for reply in [
        Reply::status("503 Service Unavailable", &["Retry-After: 1"], b"later"),
        Reply::status(
            "429 Too Many Requests",
            &["Retry-After: Sun, 06 Nov 1994 08:49:37 GMT"],
            b"",
        ),
        Reply::status("502 Bad Gateway", &[], b""),
        Reply::status("504 Gateway Timeout", &[], b""),
        Reply::status("400 Bad Request", protobuf, b"\x08\x03"),
        Reply::status("401 Unauthorized", &["WWW-Authenticate: Bearer"], b""),
        Reply::status("404 Not Found", &[], b"404 page not found"),
        Reply::status("413 Content Too Large", &[], b""),
        Reply::status("307 Temporary Redirect", &[&location], b""),
        Reply::status("200 OK", protobuf, &rejected.encode_to_vec()),
        Reply::status(
            "200 OK",
            &["content-type: Application/X-Protobuf; charset=utf-8"],
            &rejected.encode_to_vec(),
        ),
        Reply::status("200 OK", protobuf, b"\xff\xff"),
        Reply::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf".to_vec()),
        Reply::Say(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
        Reply::Say(b"220 mail.example.org ESMTP\r\n".to_vec()),
        Reply::Say(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80".to_vec()),
        Reply::Say(Vec::new()),
    ] {
        collector.replies(reply.clone());
        let before = served.server.pushes().unwrap();
        wait_for_pushes(&served, 0, before.failed + 1);
        assert_eq!(served.server.pushes().unwrap().taken, 0, "{reply:?}");
    }
    assert!(fetched(&served).is_empty());
    assert_eq!(elsewhere.count(), 0, "a token must not follow a redirection");
    // All ways to say that everything was taken.
    for (seq, reply) in (1..).zip([
        Reply::taken(),
        Reply::status("200 OK", &["Content-Type: application/json"], b"{}"),
        Reply::status("200 OK", protobuf, &warned.encode_to_vec()),
        Reply::status("202 Accepted", &[], b""),
        Reply::Say(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        Reply::Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()),
        Reply::Say(b"HTTP/1.0 200 OK\r\n\r\n".to_vec()),
    ]) {
        collector.replies(reply);
        served.core.seq.store(seq, Ordering::SeqCst);
        wait_for_pushes(&served, seq, 0);
    }
    assert_eq!(fetched(&served), (1..=7).collect::<Vec<u64>>());
    assert_eq!(collector.pushes().last().unwrap().unpacked(), b"Otlp 7\n");
    assert_eq!(served.server.restarts(), 0);
}

#[test]
fn no_collector_holds_it_up_or_fills_its_memory() {
    require_dlpm!();
    let collector = Collector::start(Reply::taken());
    let served = Served::pushing(&collector.url(), None, None);
    wait_for_pushes(&served, 1, 0);
    let most_kib = || served.status("VmHWM")[0].parse::<u64>().unwrap();
    let before_kib = most_kib();
    let part = vec![b'x'; 1 << 20];
    for (seq, reply) in (2..).step_by(2).zip([
        // 10 GB, an answer without an end, a head without one, another one, and nothing at all.
        Reply::Flood(
            b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n".to_vec(),
            part.clone(),
        ),
        Reply::Flood(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), part.clone()),
        Reply::Flood(b"HTTP/1.1 503 No\r\n\r\n".to_vec(), part.clone()),
        Reply::Flood(b"HTTP/1.1 200 ".to_vec(), part),
        Reply::Flood(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-More: 1\r\n".repeat(1_000)),
        Reply::Flood(Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000)),
        Reply::Silence,
    ]) {
        collector.replies(reply);
        served.core.seq.store(seq, Ordering::SeqCst);
        let failed = served.server.pushes().unwrap().failed;
        wait_for_pushes(&served, 0, failed + 1);
        // As soon as it is like others, it has everything again.
        collector.replies(Reply::taken());
        served.core.seq.store(seq + 1, Ordering::SeqCst);
        wait_for("the next push", || fetched(&served).contains(&(seq + 1)).then_some(()));
    }
    let after_kib = most_kib();
    assert!(
        after_kib < before_kib + (16 << 10),
        "{before_kib} KiB, then {after_kib} KiB"
    );
    assert_eq!(served.server.restarts(), 0);

    // Where nobody listens, and where a name has no address.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [format!("http://{nobody}"), "http://nobody.invalid:4318".to_owned()] {
        let refused = Served::pushing(&url, None, None);
        assert_eq!(wait_for_pushes(&refused, 0, 1).taken, 0);
    }
}

/// A collector that speaks TLS with a certificate for `localhost`; and the certificate of its authority.
fn with_tls() -> (Collector, String) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let collector = Collector::over(Reply::taken(), move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        Some(Box::new(StreamOwned::new(connection, stream)))
    });
    (collector, authority.pem())
}

#[test]
fn https_is_spoken_with_who_is_trusted_alone() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let (collector, authority) = with_tls();
    let (other, other_authority) = with_tls();
    let [authority, other_authority] =
        [("ca.pem", authority), ("other.pem", other_authority)].map(|(name, pem)| file(folder.path(), name, &pem));
    let port = collector.address().port();
    let named = format!("https://localhost:{port}");
    let served = Served::pushing(&named, None, Some(authority.clone()));
    wait_for_pushes(&served, 1, 0);
    assert_eq!(collector.pushes()[0].unpacked(), b"Otlp 1\n");

    // Another authority, another name, and no TLS.
    let plain = Collector::start(Reply::taken());
    for (url, authority) in [
        (named.clone(), other_authority),
        (format!("https://127.0.0.1:{port}"), authority.clone()),
        (format!("https://localhost:{}", plain.address().port()), authority),
    ] {
        let refused = Served::pushing(&url, None, Some(authority));
        assert_eq!(wait_for_pushes(&refused, 0, 1).taken, 0, "{url}");
    }
    assert_eq!((collector.count(), other.count(), plain.count()), (1, 0, 0));
    // What the system trusts does not include it.
    match Served::start_push(&named, None, None, &Arc::new(Core::default())) {
        Ok(server) => wait_for("a refusal", || (server.pushes().unwrap().failed > 0).then_some(())),
        Err(why) => assert!(why.contains("otlp_ca"), "{why}"),
    }
    assert_eq!(collector.count(), 1);
}
