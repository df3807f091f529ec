//! Many recordings at once, some of whose readers do not read, mark without a pause, or say what makes no sense.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    fs,
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use dlpm_tests::{
    agent::{Kept, SOCKET, agent, folder, wait_for_intervals},
    command::Dlpm,
    log::{LOG_NAME, number},
    powercap::{Powercap, node},
    require_dlpm,
    socket::{Recording, Who},
    tenant::Tenant,
    tenant_program,
};

/// Users with recordings: fifty of them, and not more than one user may have.
const USERS: [u32; 5] = [64_011, 64_012, 64_013, 64_014, 64_015];
const OF_EACH: usize = 10;

/// Intervals of the agent that the crowd is there.
const INTERVALS: u64 = 50;

/// Memory that the agent may have then: what it is allowed without anybody, and 40 KiB for each recording. In a build
/// without optimisation.
const MOST_KIB: u64 = 80 << 10;

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_crowd_of_readers_costs_no_interval_and_no_joule() {
    require_dlpm!();
    let (folder, tree) = (folder(), Powercap::start(node()));
    let _tenants: Vec<Tenant> = USERS
        .iter()
        .map(|uid| Tenant::named(tenant_program!(), "crowd", None, Some(*uid)))
        .collect();
    let mut running = agent(&tree, folder.path()).start();
    wait_for_intervals(&mut running, folder.path(), 2);
    let socket = folder.path().join(SOCKET);
    let all = USERS.iter().flat_map(|uid| std::iter::repeat_n(*uid, OF_EACH));
    let mut recordings: Vec<(u32, Recording)> = all.map(|uid| (uid, Who::user(uid).record(&socket, "{}"))).collect();
    // The last five are not read until the end.
    let unread = recordings.split_off(recordings.len() - 5);
    let (marked_by, marked) = recordings.pop().unwrap();
    let over = AtomicBool::new(false);
    let done = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let path = format!("/v1/recordings/{}/marks", marked.id());
            let mut answers = (0, 0);
            while !over.load(Ordering::SeqCst) {
                match Who::user(marked_by).ask(&socket, "POST", &path, "{}").0 {
                    200 => answers.0 += 1,
                    429 => answers.1 += 1,
                    other => panic!("{other}"),
                }
            }
            answers
        });
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let mut stream = Who::user(USERS[0]).connect(&socket);
                // It may be closed on us.
                let _ = stream.write_all(b"\x16\x03\x01 GET / HTTP/9\r\n\r\n\0\0\0");
            }
        });
        let readers: Vec<_> = recordings
            .into_iter()
            .map(|(uid, mut recording)| {
                let socket = &socket;
                scope.spawn(move || {
                    for _ in 0..INTERVALS {
                        recording.interval();
                    }
                    let path = format!("/v1/recordings/{}", recording.id());
                    assert_eq!(Who::user(uid).ask(socket, "DELETE", &path, "").0, 200);
                    recording.finish();
                    recording
                })
            })
            .collect();
        let done: Vec<Recording> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        let resident = resident_kib(running.pid());
        over.store(true, Ordering::SeqCst);
        assert!(resident < MOST_KIB, "{resident} KiB");
        assert!(flood.join().unwrap().0 > 0);
        done
    });
    assert_eq!(done.len(), USERS.len() * OF_EACH - 6);
    // Each is whole, and its borders are those of the agent: nobody's marks split it, and no interval is missing.
    for (position, recording) in done.iter().enumerate() {
        let log = recording.log();
        assert!(!log.contains("\"event\":"), "{log}");
        if position % 10 == 0 {
            let place = folder.path().join(format!("recording-{position}"));
            fs::create_dir(&place).unwrap();
            fs::write(place.join(LOG_NAME), log).unwrap();
            let verified = Dlpm::new(["verify"]).arg(&place).run();
            assert!(verified.status.success(), "{}{}", verified.stdout, verified.stderr);
        }
    }
    // Who did not read has all that fits.
    for (uid, mut recording) in unread {
        let path = format!("/v1/recordings/{}", recording.id());
        assert_eq!(Who::user(uid).ask(&socket, "DELETE", &path, "").0, 200);
        recording.finish();
        assert!(recording.text.contains("{\"ended\":{\"reason\":\"asked\""));
    }
    wait_for_intervals(&mut running, folder.path(), 2);
    let kept = Kept::read(folder.path()).unwrap();
    kept.adds_up();
    assert!(number(&kept.newest["intervals"]) > INTERVALS);
    running.end_with(libc::SIGTERM).exited(0);
}
