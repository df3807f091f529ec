//! The network side of the agent: what it gives, to whom, and what it is without.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use dlpm::web::{Bound, Status, WebConfig};
use dlpm_tests::{
    command::{Dlpm, Running},
    powercap::{Powercap, node},
    require_dlpm,
    web::{Answer, Served, served_at, wait_for},
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

/// Scrapes over and over until told to stop: how many answers were whole. Every one of them has to be.
fn scraping(served: &Served, stop: &AtomicBool) -> usize {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = Answer::over(served.connect(), "GET", "/metrics", &[]).unwrap();
        assert_eq!(answer.status, 200);
        answers += 1;
    }
    answers
}

/// Resident memory of the network process in KiB.
fn memory_kib(served: &Served) -> u64 {
    served.status("VmRSS")[0].parse().unwrap()
}

fn descriptors(served: &Served) -> usize {
    let folder = format!("/proc/{}/fd", served.server.pid().unwrap());
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_thousand_connections_delay_no_scrape() {
    require_dlpm!();
    let served = Served::new(None);
    assert_eq!(served.get("/metrics", &[]).status, 200);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let scraper = scope.spawn(|| scraping(&served, &stop));
        let mut most = 0;
        // Half of them say nothing, half of them ask and never read.
        let mut open: Vec<TcpStream> = (0..1_000)
            .map(|number| {
                let mut stream = served.connect();
                if number % 2 == 0 {
                    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
                }
                // At any time, and not only after those that wait are cut off.
                if number % 50 == 49 {
                    most = most.max(descriptors(&served));
                }
                stream
            })
            .collect();
        // And then each says one byte after another.
        for _ in 0..5 {
            for stream in &mut open {
                let _ = stream.write_all(b"x");
            }
        }
        // First, since a scraper that goes on would keep a failure from being told.
        stop.store(true, Ordering::Relaxed);
        let scrapes = scraper.join().unwrap();
        assert!(most <= 2 * 128, "{most} descriptors");
        assert!(scrapes > 0, "{scrapes}");
    });
    assert_eq!(served.get("/metrics", &[]).status, 200);
    assert_eq!(served.server.restarts(), 0);
}

#[test]
fn malformed_requests_get_nothing_and_grow_nothing() {
    require_dlpm!();
    let served = Served::new(None);
    let malformed: [&[u8]; 12] = [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"GET http://[::1/metrics HTTP/1.1\r\n\r\n",
    ];
    let attack = |rounds: usize| {
        for number in 0..rounds {
            let mut stream = served.connect();
            let _ = stream.write_all(malformed[number % malformed.len()]);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer);
            assert!(!answer.contains("Text"), "{answer}");
        }
    };
    attack(1_000);
    let before = memory_kib(&served);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let scraper = scope.spawn(|| scraping(&served, &stop));
        attack(10_000);
        stop.store(true, Ordering::Relaxed);
        assert!(scraper.join().unwrap() > 0);
    });
    let after = memory_kib(&served);
    assert!(after < before + 4_096, "{before} KiB before, {after} KiB after");
    assert_eq!(served.server.restarts(), 0);
    assert!(served.core.rendered.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_head_without_an_end_is_refused() {
    require_dlpm!();
    let served = Served::new(None);
    let mut stream = served.connect();
    let line = format!("X-{}: {}\r\n", "a".repeat(100), "b".repeat(900));
    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n");
    for _ in 0..1_000 {
        if stream.write_all(line.as_bytes()).is_err() {
            break;
        }
    }
    // The answer may be lost with the rest of what was written; what counts is that there is an end.
    if let Some(answer) = Answer::read(stream) {
        assert_eq!(answer.status, 431);
    }
    let many: Vec<String> = (0..100).map(|number| format!("X-{number}: y")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(served.get("/metrics", &many).status, 431);
}

#[test]
fn who_says_one_byte_after_another_is_cut_off() {
    require_dlpm!();
    let served = Served::new(None);
    let mut slow = served.connect();
    let mut never_reads = served.connect();
    *served.core.more.lock().unwrap() = "x".repeat(32 << 20);
    never_reads
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let before = descriptors(&served);
    slow.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'a'));
    for byte in request {
        if slow.write_all(&[*byte]).is_err() || slow.read(&mut [0]).is_ok() {
            break;
        }
    }
    wait_for("the end of both", || (descriptors(&served) + 2 <= before).then_some(()));
}

#[test]
fn wrong_passwords_delay_no_scraper_that_is_known() {
    require_dlpm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.yml");
    // Expensive enough that a hundred of them take long.
    fs::write(
        &path,
        format!("basic_auth_users:\n  alice: {}\n", bcrypt::hash("secret", 8).unwrap()),
    )
    .unwrap();
    let served = Served::new(Some(path));
    assert_eq!(served.get("/metrics", &[ALICE]).status, 200);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    if let Some(answer) = Answer::over(served.connect(), "GET", "/metrics", &[WRONG]) {
                        assert_eq!(answer.status, 401);
                    }
                }
            });
        }
        for _ in 0..50 {
            assert_eq!(served.get("/metrics", &[ALICE]).status, 200);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// A real agent in intervals of half a second, and where it serves.
fn agent(tree: &Powercap, state: &Path) -> (Running, SocketAddr) {
    let mut running = Dlpm::new(["agent", "--interval", "500ms", "--listen", "127.0.0.1:0", "--sysfs"])
        .arg(tree.sysfs())
        .arg("--state-dir")
        .arg(state)
        .start();
    let address = served_at(&mut running);
    (running, address)
}

/// The network process of an agent: its child.
fn network_process(agent: u32) -> u32 {
    let processes = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_child = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains(&format!("PPid:\t{agent}\n"))
    };
    processes.filter_map(|name| name.parse().ok()).find(is_child).unwrap()
}

#[test]
fn the_network_process_ends_with_the_agent() {
    require_dlpm!();
    let tree = Powercap::start(node());
    for signal in [libc::SIGKILL, libc::SIGTERM] {
        let state = tempfile::tempdir().unwrap();
        let (running, address) = agent(&tree, state.path());
        let network = network_process(running.pid());
        running.signal(signal);
        drop(running.wait());
        let is_gone = || (!Path::new(&format!("/proc/{network}")).exists()).then_some(());
        wait_for("the end of the network process", is_gone);
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    }
}

/// The value of a series without labels.
fn value(address: SocketAddr, series: &str) -> f64 {
    let answer = Answer::over(TcpStream::connect(address).unwrap(), "GET", "/metrics", &[]).unwrap();
    let text = answer.text();
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{series} ")))
        .unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn an_attack_delays_no_seal() {
    require_dlpm!();
    let tree = Powercap::start(node());
    let state = tempfile::tempdir().unwrap();
    let (running, address) = agent(&tree, state.path());
    let counts = || {
        let of = |series| value(address, series);
        (of("dlpm_agent_intervals_total"), of("dlpm_agent_late_intervals_total"))
    };
    wait_for("a first interval", || (counts().0 > 1.0).then_some(()));
    // In as many intervals: how many of them were late.
    let late_in = |intervals: f64| {
        let before = counts();
        let after = wait_for("intervals", || {
            Some(counts()).filter(|now| now.0 >= before.0 + intervals)
        });
        after.1 - before.1
    };
    let quiet = late_in(10.0);
    let stop = AtomicBool::new(false);
    let attacked = thread::scope(|scope| {
        scope.spawn(|| {
            let mut open = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                for request in [&b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x16\x03\x01", b"x"] {
                    let Ok(mut stream) = TcpStream::connect(address) else {
                        continue;
                    };
                    let _ = stream.write_all(request);
                    open.push(stream);
                }
                if open.len() > 300 {
                    open.drain(..100);
                }
            }
        });
        let late = late_in(10.0);
        stop.store(true, Ordering::Relaxed);
        late
    });
    // Other processes of this machine may delay a few of them.
    assert!(
        attacked <= quiet + 2.0,
        "{quiet} late intervals of 10 in peace, {attacked} in the attack"
    );
    assert!(value(address, "dlpm_agent_web_restarts_total") == 0.0);
    running.end_with(libc::SIGTERM).exited(0);
}
