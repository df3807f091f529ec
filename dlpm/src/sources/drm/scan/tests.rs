use super::*;
use std::os::unix::fs::symlink;

fn id(tgid: u32, start_ns: u64) -> ProcessId {
    ProcessId { tgid, start_ns }
}

/// A process with files, of which some are GPUs.
fn process(procfs: &Path, tgid: u32, files: u32, gpus: &[u32]) {
    let directory = procfs.join(tgid.to_string());
    fs::create_dir_all(directory.join("fd")).unwrap();
    fs::create_dir_all(directory.join("fdinfo")).unwrap();
    for number in 0..files {
        let is_gpu = gpus.contains(&number);
        open(
            procfs,
            tgid,
            number,
            if is_gpu { "/dev/dri/renderD128" } else { "/dev/null" },
            tgid.into(),
        );
    }
}

fn open(procfs: &Path, tgid: u32, number: u32, target: &str, client: u64) {
    let directory = procfs.join(tgid.to_string());
    symlink(target, directory.join(format!("fd/{number}"))).unwrap();
    let text = format!("drm-driver: i915\ndrm-pdev: 0000:03:00.0\ndrm-client-id: {client}\ndrm-engine-render: 5 ns\n");
    fs::write(directory.join(format!("fdinfo/{number}")), text).unwrap();
}

fn found(open: &[Open]) -> Vec<(u32, bool)> {
    let mut found: Vec<_> = open.iter().map(|one| (one.process.tgid, one.is_new)).collect();
    found.sort_unstable();
    found
}

#[test]
fn processes_that_ran_are_looked_at_and_open_gpus_read_in_each_interval() {
    let procfs = tempfile::tempdir().unwrap();
    let procfs = procfs.path();
    process(procfs, 5, 4, &[3]);
    process(procfs, 6, 4, &[2, 3]);
    let mut scan = Scan::default();
    assert_eq!(
        found(&scan.next(procfs, &[id(5, 10)], 100)),
        [(5, false)],
        "6 did not run"
    );
    // It does not run any more, and its GPU may. 6 is older than the first look, 7 is not.
    process(procfs, 7, 1, &[0]);
    let ran = [id(6, 20), id(7, 150)];
    assert_eq!(
        found(&scan.next(procfs, &ran, 200)),
        [(5, false), (6, false), (6, false), (7, true)]
    );
    // It opens one more: the number of its descriptors tells.
    open(procfs, 5, 9, "/dev/dri/card0", 77);
    let opened = scan.next(procfs, &[id(5, 10)], 300);
    assert_eq!(found(&opened)[..2], [(5, false), (5, true)]);
    // A process that ends, a file that is closed, a pid that is used again.
    fs::remove_dir_all(procfs.join("6")).unwrap();
    fs::remove_file(procfs.join("5/fdinfo/9")).unwrap();
    assert_eq!(found(&scan.next(procfs, &[], 400)), [(5, false), (7, false)]);
    fs::remove_dir_all(procfs.join("7")).unwrap();
    process(procfs, 7, 1, &[]);
    assert_eq!(found(&scan.next(procfs, &[id(7, 450)], 500)), [(5, false)]);
}

#[test]
fn a_driver_that_tells_no_client_is_noticed() {
    let procfs = tempfile::tempdir().unwrap();
    process(procfs.path(), 5, 1, &[0]);
    fs::write(procfs.path().join("5/fdinfo/0"), "pos: 0\nflags: 02\n").unwrap();
    let mut scan = Scan::default();
    assert!(scan.next(procfs.path(), &[id(5, 1)], 1).is_empty());
    assert_eq!(scan.untold, 1);
}

/// 8,000 descriptors, of which 8 are GPUs: after the first look, an interval looks at 1.6 % of them on average.
#[test]
fn thousands_of_descriptors_are_looked_at_once() {
    let procfs = tempfile::tempdir().unwrap();
    let procfs = procfs.path();
    for tgid in 1..=40 {
        process(procfs, tgid, 200, if tgid <= 8 { &[100] } else { &[] });
    }
    let ran: Vec<ProcessId> = (1..=40).map(|tgid| id(tgid, 1)).collect();
    let mut scan = Scan::default();
    assert_eq!(scan.next(procfs, &ran, 1).len(), 8);
    assert_eq!((scan.looked, scan.read), (8_000, 8));
    let mut most = 0;
    for interval in 0..1000 {
        let before = scan.looked;
        assert_eq!(scan.next(procfs, &ran, 2 + interval).len(), 8);
        most = most.max(scan.looked - before);
    }
    assert!(most <= MOST_LOOKED + 200, "{most}");
    let mean = (scan.looked - 8_000) / 1000;
    assert!(mean <= 8_000 * 2 / 100, "{mean} descriptors in an interval");
}

#[test]
fn a_name_alone_does_not_make_a_gpu() {
    for (target, expected) in [
        ("/dev/dri/renderD128", true),
        ("/dev/dri/card0", true),
        ("/dev/dri/by-path/x", false),
        ("/dev/null", false),
        ("/tmp/dev/dri/card0", false),
    ] {
        assert_eq!(is_gpu(Path::new(target)), expected, "{target}");
    }
    for other in ["/dev/null", "/proc/self/exe", "/"] {
        assert!(!is_drm(&fs::metadata(other).unwrap()), "{other}");
    }
}
