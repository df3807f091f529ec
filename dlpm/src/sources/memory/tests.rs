use super::*;
use std::fs;
use std::time::Instant;

use crate::interval::MachineMemory;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

const ROLLUP: &str = "55f05fcdf000-7ffd99c56000 ---p 00000000 00:00 0                          [rollup]\n\
                      Rss:                1740 kB\nPss:                 323 kB\nPss_Dirty:           112 kB\n\
                      Shared_Clean:       1584 kB\nPrivate_Clean:        44 kB\nPrivate_Dirty:       112 kB\n\
                      Private_Hugetlb:       4 kB\nLocked:                0 kB\n";

/// Starts 47 ticks after boot, wherever a tick is 10 ms or shorter.
const START_NS: u64 = 470_000_001;

fn process(tgid: u32) -> ProcessId {
    ProcessId {
        tgid,
        start_ns: START_NS,
    }
}

fn add(procfs: &TempDir, tgid: u32, start_ticks: u64) {
    let directory = procfs.path().join(tgid.to_string());
    fs::create_dir_all(&directory).unwrap();
    let stat = format!("{tgid} (python) S 1 7 7 0 -1 0 1 0 0 0 5 6 0 0 20 0 1 0 {start_ticks} 0 0\n");
    fs::write(directory.join("stat"), stat).unwrap();
    fs::write(directory.join("statm"), "1000 500 100 10 0 90 0\n").unwrap();
    fs::write(directory.join("smaps_rollup"), ROLLUP).unwrap();
}

fn ticks() -> u64 {
    super::super::proc_fs::ticks_of(START_NS)
}

fn reader(procfs: &TempDir, period: Duration) -> MemoryReader {
    let options = MemoryOptions {
        period,
        budget_permille: 1000,
    };
    MemoryReader::start(procfs.path(), options).unwrap()
}

fn wait_for(reader: &MemoryReader, enough: impl Fn(&BTreeMap<ProcessId, (u64, MemoryReading)>) -> bool) {
    let begin = Instant::now();
    while !enough(&reader.readings()) {
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", reader.readings());
        thread::sleep(Duration::from_millis(1));
    }
}

fn pss(readings: &BTreeMap<ProcessId, (u64, MemoryReading)>, process: ProcessId) -> Option<u64> {
    readings.get(&process)?.1.pss_bytes
}

#[test]
fn all_three_figures() {
    let procfs = TempDir::new().unwrap();
    add(&procfs, 7, ticks());
    let reader = reader(&procfs, Duration::from_millis(20));
    reader.watch(&[(process(7), 99)]);
    wait_for(&reader, |readings| pss(readings, process(7)).is_some());
    let (cgroup_id, reading) = reader.readings()[&process(7)];
    assert_eq!(cgroup_id, 99);
    assert_eq!(reading.pss_bytes, Some(323 << 10));
    assert_eq!(reading.uss_bytes, Some((44 + 112 + 4) << 10));
    assert_eq!(reading.rss_bytes, 1740 << 10);
    assert!(reading.read_at_ns <= monotonic_ns());
    // It is read again after the period.
    fs::write(procfs.path().join("7/smaps_rollup"), ROLLUP.replace("323", "324")).unwrap();
    wait_for(&reader, |readings| pss(readings, process(7)) == Some(324 << 10));
}

#[test]
fn where_the_rollup_is_refused_there_is_rss() {
    let procfs = TempDir::new().unwrap();
    add(&procfs, 7, ticks());
    fs::remove_file(procfs.path().join("7/smaps_rollup")).unwrap();
    let reading = read::full(procfs.path(), process(7)).unwrap();
    assert_eq!((reading.pss_bytes, reading.uss_bytes), (None, None));
    assert_eq!(reading.rss_bytes, 500 * rustix::param::page_size() as u64);
}

#[test]
fn another_process_with_the_same_pid_is_not_read() {
    let procfs = TempDir::new().unwrap();
    add(&procfs, 7, ticks() + 1);
    assert!(read::full(procfs.path(), process(7)).is_none());
    assert!(read::rss(procfs.path(), process(7)).is_none());
    let by_tgid_alone = ProcessId { tgid: 7, start_ns: 0 };
    assert!(read::full(procfs.path(), by_tgid_alone).is_some());
    assert!(read::full(procfs.path(), process(8)).is_none());
}

#[test]
fn what_is_gone_or_not_watched_any_more_has_no_reading() {
    let procfs = TempDir::new().unwrap();
    for tgid in [7, 8, 9] {
        add(&procfs, tgid, ticks());
    }
    let reader = reader(&procfs, Duration::from_millis(20));
    reader.watch(&[(process(7), 1), (process(8), 1), (process(9), 1)]);
    wait_for(&reader, |readings| readings.len() == 3);
    fs::remove_dir_all(procfs.path().join("7")).unwrap();
    // Noticed when it is to be read again.
    wait_for(&reader, |readings| !readings.contains_key(&process(7)));
    add(&procfs, 8, ticks() + 100);
    reader.watch(&[(process(7), 1), (process(8), 1), (process(9), 2)]);
    wait_for(&reader, |readings| {
        readings.keys().copied().collect::<Vec<_>>() == [process(9)]
    });
    reader.watch(&[]);
    assert!(reader.readings().is_empty());
}

/// A pipe stands for a process whose rollup takes long: the reading lasts until somebody writes.
#[test]
fn a_slow_process_holds_up_nobody() {
    let procfs = TempDir::new().unwrap();
    add(&procfs, 7, ticks());
    let pipe = procfs.path().join("7/smaps_rollup");
    fs::remove_file(&pipe).unwrap();
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let reader = reader(&procfs, Duration::from_secs(3600));
    reader.watch(&[(process(7), 1)]);
    // The calls return while the thread is reading, and the process has its RSS.
    wait_for(&reader, |readings| readings.contains_key(&process(7)));
    reader.watch(&[(process(7), 2)]);
    assert_eq!(pss(&reader.readings(), process(7)), None);
    fs::write(&pipe, ROLLUP).unwrap();
    wait_for(&reader, |readings| pss(readings, process(7)).is_some());
    assert_eq!(reader.readings()[&process(7)].0, 2);
}

#[test]
fn it_ends_when_it_is_dropped() {
    let procfs = TempDir::new().unwrap();
    let begin = Instant::now();
    drop(MemoryReader::start(procfs.path(), MemoryOptions::default()).unwrap());
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_test_itself() {
    let procfs = Path::new("/proc");
    let own = ProcessId {
        tgid: std::process::id(),
        start_ns: 0,
    };
    let reading = read::full(procfs, own).unwrap();
    assert!(reading.rss_bytes > 0);
    if let (Some(pss), Some(uss)) = (reading.pss_bytes, reading.uss_bytes) {
        assert!(uss <= pss && pss <= reading.rss_bytes, "{reading:?}");
    } else {
        eprintln!("skipped: smaps_rollup cannot be read here");
    }
}

#[test]
fn the_machine() {
    let machine = machine_memory(Path::new("/proc")).unwrap();
    assert!(machine.available_bytes <= machine.total_bytes && machine.used_bytes <= machine.total_bytes);
    let procfs = TempDir::new().unwrap();
    assert_eq!(machine_memory(procfs.path()), None);
    let values = |line: &str| match line.split_once(':').unwrap().0 {
        "MemTotal" => 1000,
        "MemAvailable" => 600,
        "MemFree" => 300,
        "Buffers" => 20,
        "Cached" => 200,
        "SReclaimable" => 80,
        _ => 0,
    };
    let meminfo: String = fs::read_to_string("/proc/meminfo")
        .unwrap()
        .lines()
        .map(|line| format!("{}: {} kB\n", line.split_once(':').unwrap().0, values(line)))
        .collect();
    fs::write(procfs.path().join("meminfo"), meminfo).unwrap();
    let expected = MachineMemory {
        total_bytes: 1000 << 10,
        available_bytes: 600 << 10,
        used_bytes: 400 << 10,
        free_bytes: Some(300 << 10),
    };
    assert_eq!(machine_memory(procfs.path()), Some(expected));
}
