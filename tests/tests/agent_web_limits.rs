//! What nobody gets by attacking the network side of the agent: no scrape and no seal is delayed, and nothing grows.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use dlpm_tests::{
    command::{Dlpm, Running},
    powercap::{Powercap, node},
    require_dlpm,
    web::{Answer, Served, served_at, wait_for},
};

/// `alice:secret`.
const ALICE: &str = "Authorization: Basic YWxpY2U6c2VjcmV0";
/// `alice:wrong`.
const WRONG: &str = "Authorization: Basic YWxpY2U6d3Jvbmc=";

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
    let mut running = Dlpm::new([
        "agent",
        "--interval",
        "500ms",
        "--listen",
        "127.0.0.1:0",
        "--socket",
        "none",
        "--sysfs",
    ])
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
