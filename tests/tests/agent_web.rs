//! The network side of the agent: what it gives, to whom, and what it is without.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use dlpm::web::{Bound, Status, WebConfig};
use dlpm_tests::{
    command::Dlpm,
    require_dlpm,
    web::{Answer, Served, wait_for},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;

#[test]
fn the_network_process_holds_no_right() {
    require_dlpm!();
    let served = Served::new(None);
    assert_eq!(served.get("/metrics", &[]).status, 200);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(served.status(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(served.status("NoNewPrivs"), ["1"]);
    for ids in ["Uid", "Gid"] {
        assert_eq!(served.status(ids), ["65534"; 4], "{ids}");
    }
    assert!(served.status("Groups").is_empty());
    let process = PathBuf::from(format!("/proc/{}", served.server.pid().unwrap()));
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    for limit in [
        "Max open files            512",
        "Max core file size        0",
        "Max address space         1073741824",
    ] {
        assert!(limits.contains(limit), "{limits}");
    }
    // The 19th value is the niceness; the name before them has no blank.
    let stat = fs::read_to_string(process.join("stat")).unwrap();
    assert_eq!(stat.split(' ').nth(18), Some("10"));
    assert_eq!(fs::read(process.join("environ")).unwrap(), b"");
    // Sockets, what the runtime waits with, and nothing of the core's.
    for descriptor in fs::read_dir(process.join("fd")).unwrap() {
        let what = fs::read_link(descriptor.unwrap().path()).unwrap().display().to_string();
        let kinds = ["socket:", "anon_inode:[eventfd]", "anon_inode:[eventpoll]", "/dev/null"];
        assert!(kinds.iter().any(|kind| what.starts_with(kind)), "{what}");
    }
}

#[test]
fn nobody_else_starts_it() {
    require_dlpm!();
    Dlpm::new(["agent-web"]).run().fails(1, &["is started by `dlpm agent`"]);
}

#[test]
fn each_path_has_its_answer() {
    require_dlpm!();
    let served = Served::new(None);
    let answer = |path: &str| served.get(path, &[]);
    assert_eq!(answer("/metrics").text(), "Text 1\n");
    assert_eq!(answer("/metrics?x=1").status, 200);
    assert_eq!((answer("/healthz").status, answer("/readyz").status), (200, 200));
    let root = answer("/");
    assert!(root.text().contains("href=\"/metrics\"") && root.header("content-type").unwrap().starts_with("text/html"));
    for path in ["/metrics/", "/favicon.ico", "/%2e%2e/etc/passwd", "/metrics%00"] {
        assert_eq!(answer(path).status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let refused = served.ask(method, "/metrics", &[]);
        assert_eq!(
            (refused.status, refused.header("allow")),
            (405, Some("get, head")),
            "{method}"
        );
    }
    let head = served.ask("HEAD", "/metrics", &[]);
    assert_eq!(
        (head.status, head.header("content-length"), head.text().as_str()),
        (200, Some("7"), "")
    );
    let body = served.get("/metrics", &["Content-Length: 5"]);
    assert_eq!(body.status, 413);
    assert_eq!(served.get("/metrics", &["Transfer-Encoding: chunked"]).status, 413);
    let tell = |alive: Result<(), &str>, ready: Result<(), &str>| {
        let told = |part: Result<(), &str>| part.map_err(str::to_owned);
        *served.core.status.lock().unwrap() = Status {
            alive: told(alive),
            ready: told(ready),
        };
        // An answer of the core stands for 20 ms.
        thread::sleep(Duration::from_millis(40));
        let (health, ready) = (answer("/healthz"), answer("/readyz"));
        (health.status, ready.status, ready.text())
    };
    assert_eq!(
        tell(Ok(()), Err("the meter is silent")),
        (200, 503, "the meter is silent\n".to_owned())
    );
    assert_eq!(tell(Err("stuck"), Ok(())), (503, 503, "stuck\n".to_owned()));
}

#[test]
fn the_format_is_the_one_that_the_scraper_prefers() {
    require_dlpm!();
    let served = Served::new(None);
    let plain = "x".repeat(100_000);
    served.core.more.lock().unwrap().clone_from(&plain);
    let open = served.get(
        "/metrics",
        &["Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5"],
    );
    assert!(open.text().starts_with("OpenMetrics 1\n"));
    assert_eq!(
        open.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let text = served.get("/metrics", &[]);
    assert_eq!(
        text.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let small = served.get("/metrics", &["Accept-Encoding: gzip"]);
    assert_eq!(small.header("content-encoding"), Some("gzip"));
    assert!(small.body.len() < 2_000);
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&small.body[..])
        .read_to_string(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, text.text());
}

#[test]
fn an_interval_is_rendered_once_in_each_format() {
    require_dlpm!();
    let served = Served::new(None);
    for seq in 1..=5 {
        served.core.seq.store(seq, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(40));
        for accept in ["Accept: */*", "Accept: application/openmetrics-text"] {
            for _ in 0..20 {
                assert!(served.get("/metrics", &[accept]).text().ends_with(&format!(" {seq}\n")));
            }
        }
    }
    assert_eq!(served.core.rendered.load(Ordering::SeqCst), 10);
}

#[test]
fn a_scraper_counts_when_it_has_got_the_whole_answer() {
    require_dlpm!();
    let served = Served::new(None);
    let fetched = || served.core.fetched.lock().unwrap().clone();
    // More than what the kernel's buffers take: who does not read has not got it.
    *served.core.more.lock().unwrap() = "x".repeat(32 << 20);
    let mut broken_off = served.connect();
    broken_off
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut begin = [0; 1_000];
    broken_off.read_exact(&mut begin).unwrap();
    drop(broken_off);
    assert_eq!(served.ask("HEAD", "/metrics", &[]).status, 200);
    assert_eq!(served.get("/healthz", &[]).status, 200);
    assert_eq!(fetched(), []);
    assert_eq!(served.get("/metrics", &[]).body.len(), (32 << 20) + 7);
    let first = wait_for("the first scrape", || fetched().first().copied());
    assert_eq!(first.1, 1);
    served.core.seq.store(2, Ordering::SeqCst);
    thread::sleep(Duration::from_millis(40));
    // Several over one connection.
    let mut kept = served.connect();
    for _ in 0..3 {
        kept.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut left = (32 << 20) + 7;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            kept.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let mut part = vec![0; 1 << 20];
        while left > 0 {
            left -= kept.read(&mut part).unwrap();
        }
    }
    wait_for("the second interval", || (fetched().len() > 1).then_some(()));
    assert_eq!(fetched(), [(first.0, 1), (first.0, 2)]);
}

fn web_config(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("web.yml");
    fs::write(&path, text).unwrap();
    path
}

fn users(folder: &Path, users: &[(&str, &str)]) -> PathBuf {
    let hash = |password: &str| bcrypt::hash(password, 4).unwrap();
    let lines: String = users
        .iter()
        .map(|(user, password)| format!("  {user}: {}\n", hash(password)))
        .collect();
    web_config(folder, &format!("basic_auth_users:\n{lines}"))
}

/// `alice:secret`.
const ALICE: &str = "Authorization: Basic YWxpY2U6c2VjcmV0";
/// `alice:wrong`.
const WRONG: &str = "Authorization: Basic YWxpY2U6d3Jvbmc=";
/// `mallory:secret`.
const MALLORY: &str = "Authorization: Basic bWFsbG9yeTpzZWNyZXQ=";

#[test]
fn without_the_password_there_is_nothing() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let served = Served::new(Some(users(folder.path(), &[("alice", "secret")])));
    for path in ["/", "/metrics", "/healthz", "/readyz", "/nothing"] {
        for lines in [
            &[][..],
            &[WRONG],
            &[MALLORY],
            &["Authorization: Basic"],
            &["Authorization: Bearer x"],
        ] {
            let refused = served.get(path, lines);
            assert_eq!(refused.status, 401, "{path} {lines:?}");
            assert!(refused.header("www-authenticate").unwrap().starts_with("basic realm="));
            assert!(!refused.text().contains("Text"));
        }
    }
    assert_eq!(served.get("/metrics", &[ALICE]).text(), "Text 1\n");
    assert_eq!(served.get("/nothing", &[ALICE]).status, 404);
    let told = wait_for("the scrape", || served.core.fetched.lock().unwrap().first().copied());

    // Another user is another scraper; passwords are read again.
    users(folder.path(), &[("mallory", "secret")]);
    served.server.reload().unwrap();
    let let_in = || (served.get("/metrics", &[MALLORY]).status == 200).then_some(());
    wait_for("the new passwords", let_in);
    assert_eq!(served.get("/metrics", &[ALICE]).status, 401);
    let other = wait_for("the other scrape", || {
        let fetched = served.core.fetched.lock().unwrap();
        fetched
            .iter()
            .map(|(scraper, _)| *scraper)
            .find(|scraper| *scraper != told.0)
    });
    assert_ne!(other, told.0);
    assert_eq!(served.server.restarts(), 0, "a reload is not a death");

    // What cannot be read leaves the old one in force.
    fs::write(folder.path().join("web.yml"), "basic_auth_user:\n").unwrap();
    let error = format!("{:#}", served.server.reload().unwrap_err());
    assert!(error.contains("did you mean `basic_auth_users`?"), "{error}");
    assert_eq!(served.get("/metrics", &[MALLORY]).status, 200);
}

/// An authority with a certificate of a server and one of a client, in files.
struct Certificates {
    folder: TempDir,
    client: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
    roots: Arc<RootCertStore>,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let signed = |purpose| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
            params.extended_key_usages = vec![purpose];
            (params.signed_by(&key, &authority).unwrap(), key)
        };
        let folder = tempfile::tempdir().unwrap();
        let (server, server_key) = signed(ExtendedKeyUsagePurpose::ServerAuth);
        let (client, client_key) = signed(ExtendedKeyUsagePurpose::ClientAuth);
        for (name, text) in [
            ("ca.pem", authority.pem()),
            ("cert.pem", server.pem()),
            ("key.pem", server_key.serialize_pem()),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        Self {
            folder,
            client: (vec![client.der().clone()], client_key.into()),
            roots: Arc::new(roots),
        }
    }

    fn served(&self, more: &str) -> Served {
        let text = format!("tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n{more}");
        Served::new(Some(web_config(self.folder.path(), &text)))
    }

    /// What a client of this version gets, with or without its certificate.
    fn get(
        &self,
        served: &Served,
        version: &'static SupportedProtocolVersion,
        shows_certificate: bool,
    ) -> Option<Answer> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots));
        let config = if shows_certificate {
            let (chain, key) = &self.client;
            config.with_client_auth_cert(chain.clone(), key.clone_key()).unwrap()
        } else {
            config.with_no_client_auth()
        };
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        Answer::over(StreamOwned::new(connection, served.connect()), "GET", "/metrics", &[])
    }
}

#[test]
fn tls_is_spoken_where_it_is_configured() {
    require_dlpm!();
    let certificates = Certificates::new();
    let served = certificates.served("");
    for version in [&TLS12, &TLS13] {
        let answer = certificates.get(&served, version, false).unwrap();
        assert_eq!(answer.text(), "Text 1\n");
    }
    wait_for("the scrape", || served.core.fetched.lock().unwrap().first().copied());
    // In plain text there is nothing.
    assert!(Answer::over(served.connect(), "GET", "/metrics", &[]).is_none());
    let newest = certificates.served("  min_version: TLS13\n");
    assert!(certificates.get(&newest, &TLS12, false).is_none());
    assert!(certificates.get(&newest, &TLS13, false).is_some());
    let oldest = certificates.served("  max_version: TLS12\n");
    assert!(certificates.get(&oldest, &TLS13, false).is_none());
    assert!(certificates.get(&oldest, &TLS12, false).is_some());
}

#[test]
fn clients_show_their_certificate_where_that_is_configured() {
    require_dlpm!();
    let certificates = Certificates::new();
    let served = certificates.served("  client_ca_file: ca.pem\n  client_auth_type: RequireAndVerifyClientCert\n");
    for version in [&TLS12, &TLS13] {
        assert!(certificates.get(&served, version, false).is_none());
        assert_eq!(certificates.get(&served, version, true).unwrap().status, 200);
    }
    // One of another authority.
    let others = Certificates::new();
    let stranger = Certificates {
        client: others.client,
        ..Certificates::new()
    };
    let stranger = Certificates {
        roots: Arc::clone(&certificates.roots),
        ..stranger
    };
    assert!(stranger.get(&served, &TLS13, true).is_none());
    let served = certificates.served("  client_ca_file: ca.pem\n  client_auth_type: VerifyClientCertIfGiven\n");
    assert!(certificates.get(&served, &TLS13, false).is_some());
    assert!(stranger.get(&served, &TLS13, true).is_none());
}

#[test]
fn a_network_process_that_dies_is_started_again() {
    require_dlpm!();
    let served = Served::new(None);
    for death in 1..=3 {
        let old = served.server.pid().unwrap();
        // SAFETY: one system call, on a process that this test started.
        assert_eq!(unsafe { libc::kill(i32::try_from(old).unwrap(), libc::SIGKILL) }, 0);
        // Meanwhile the listener stands: a scrape waits, and is answered by the next process.
        assert_eq!(served.get("/metrics", &[]).status, 200);
        wait_for("the new process", || served.server.pid().filter(|pid| *pid != old));
        assert_eq!(served.server.restarts(), death);
    }
    let last = served.server.pid().unwrap();
    drop(served);
    assert!(!Path::new(&format!("/proc/{last}")).exists(), "it is waited for");
}

#[test]
fn what_ends_the_agent_is_not_for_the_network_process() {
    require_dlpm!();
    let served = Served::new(None);
    let pid = served.server.pid().unwrap();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: one system call, on a process that this test started.
        assert_eq!(unsafe { libc::kill(i32::try_from(pid).unwrap(), signal) }, 0);
        assert_eq!(served.get("/metrics", &[]).status, 200);
    }
    assert_eq!((served.server.pid(), served.server.restarts()), (Some(pid), 0));
    drop(served);
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it ends with the server");
}

#[test]
fn a_configuration_that_cannot_be_used_is_told_before_anything_starts() {
    let config = WebConfig {
        listen: vec!["0.0.0.0:0".parse().unwrap()],
        ..WebConfig::default()
    };
    let error = Bound::bind(&config).unwrap_err().to_string();
    assert!(
        error.contains("`web_config`") && error.contains("`allow_open = true`"),
        "{error}"
    );
}
