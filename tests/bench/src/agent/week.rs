//! A week of an agent in which tenants come and go: its memory, its series and its files stay within their bounds.

use std::{collections::VecDeque, fs, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use dlpm::{
    agent::{
        admission::Admission,
        counters::Counters,
        exposition::{Format, render},
        facts::{Facts, Snapshot},
        line::{Line, Place},
        scrapers::Scrapers,
    },
    attribution::{Options, attribute, energy_tree::Carries},
    interval::{CpuInterval, Interval, MeterSource, Process, ProcessId, Usage, ZoneKind, ZoneReading},
    sinks::agent::{
        finished::FinishedFile,
        state::{Owner, State},
    },
    tenants::{Kind, Node, Tenant},
};

/// Length of an interval: what happens in a second does so 60 times as slowly.
const MINUTE_NS: u64 = 60_000_000_000;

const INTERVALS: u64 = 7 * 24 * 60;

/// Tenants that have a series at a time.
const CAP: usize = 2000;

/// Intervals that a tenant lives.
const LIVES: usize = 3;

const FINISHED_BYTES: u64 = 64 << 20;

/// The largest growth of the process, in KiB, at most.
const LARGEST_GROWTH_KIB: u64 = 32 << 10;

fn tenant(number: u64) -> Arc<Tenant> {
    Arc::new(Tenant::of(Kind::Docker, &format!("{number:064x}")))
}

fn interval(seq: u64, living: &VecDeque<(u64, Arc<Tenant>)>) -> Interval {
    let mut interval = Interval {
        seq,
        begin_ns: seq * MINUTE_NS,
        end_ns: (seq + 1) * MINUTE_NS,
        end_unix_ns: i64::try_from((seq + 1) * MINUTE_NS).unwrap_or(i64::MAX),
        zones: vec![ZoneReading {
            zone: "package-0".to_owned(),
            kind: ZoneKind::Package,
            package: Some(0),
            energy_uj: Ok(3_000_000_007 + seq % 1000),
            counter_uj: Some(seq),
            range_uj: None,
            source: MeterSource::Powercap,
        }],
        ..Interval::default()
    };
    let mut busy_ns = 0;
    for (number, tenant) in living {
        let process = ProcessId {
            tgid: u32::try_from(number % 4_000_000).unwrap_or(1) + 2,
            start_ns: *number,
        };
        let path = format!("/docker/{}", tenant.node.id);
        let ns = 1_000_000_000 + number % 1_000_003;
        interval.usage.push(Usage {
            process,
            cgroup_id: *number + 10,
            cpu: 0,
            ns,
            shared_ns: 0,
            counts: dlpm::interval::Counts::default(),
        });
        interval.processes.insert(process, Process::default().into());
        interval.cgroups.insert(*number + 10, path.clone());
        interval.tenants.insert(path, tenant.clone());
        busy_ns += ns;
    }
    interval.cpus.push(CpuInterval {
        cpu: 0,
        package: Some(0),
        core: None,
        begin_ns: interval.begin_ns,
        end_ns: interval.end_ns,
        busy_ns,
        idle_ns: MINUTE_NS.saturating_sub(busy_ns),
        lost_ns: 0,
        switches: 1,
        counts: None,
    });
    interval
}

fn resident_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.context("no VmRSS")?.trim().trim_end_matches(" kB").parse()?)
}

/// Runs it with so many tenants, and prints. Whether everything is within its bounds.
///
/// # Errors
///
/// Where files cannot be written, or a sum is wrong.
pub fn run(tenants: u64) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let place = Place {
        node_id: "node".to_owned(),
        boot_id: "boot".to_owned(),
    };
    let owner = Owner {
        machine_id: None,
        place: place.clone(),
    };
    let (mut state, _) = State::open(folder.path(), owner)?;
    let mut finished = FinishedFile::open(folder.path(), FINISHED_BYTES)?;
    let (mut counters, mut admission) = (Counters::default(), Admission::new(CAP));
    let mut scrapers = Scrapers::new(Duration::from_secs(600));
    let mut living: VecDeque<(u64, Arc<Tenant>)> = VecDeque::new();
    let (mut carries, mut made, mut lines) = (Carries::default(), 0, 0);
    let (mut most_series, mut most_state_bytes, mut most_kib, mut begin_kib) = (0, 0, 0, 0);
    for seq in 0..INTERVALS {
        let target = tenants * (seq + 1) / INTERVALS;
        while made < target {
            living.push_back((made, tenant(made)));
            made += 1;
        }
        let ledger = attribute(&interval(seq, &living), &Options::default(), &carries);
        carries = carries.after(&ledger);
        counters.add(&ledger, &mut admission);
        let each = usize::try_from(tenants.div_ceil(INTERVALS))?;
        while living.len() > LIVES * each {
            if let Some((_, tenant)) = living.pop_front() {
                counters.end(&tenant.node, ledger.end_unix_ns);
            }
        }
        scrapers.fetched(1, counters.intervals, ledger.end_ns);
        let ended = counters.accounts.iter().filter(|(_, account)| account.end.is_some());
        let released: Vec<Node> = ended
            .filter(|(_, account)| scrapers.release(account, ledger.end_ns, ledger.end_unix_ns))
            .map(|(node, _)| node.clone())
            .collect();
        for node in released {
            counters.retire(&node);
        }
        state.write(&counters)?;
        let new: Vec<Line> = counters
            .finished
            .iter()
            .map(|finished| Line::of(finished, &counters.devices, &place))
            .collect();
        lines += new.len();
        finished.write(new)?;
        counters.written(counters.finished_count);
        most_state_bytes = most_state_bytes.max(state.bytes());
        if seq % 60 == 59 {
            let snapshot = Snapshot {
                counters: counters.clone(),
                facts: Facts::default(),
                ..Snapshot::default()
            };
            let text = render(&snapshot, Format::OpenMetrics, "");
            let series = text
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.starts_with(b"#"))
                .count();
            most_series = most_series.max(series);
            let kib = resident_kib()?;
            most_kib = most_kib.max(kib);
            // After the first hour everything is there that stays.
            if begin_kib == 0 {
                begin_kib = kib;
            }
        }
        for device in 0..counters.devices.len() {
            ensure!(counters.difference_uj(device) == 0, "interval {seq} does not add up");
        }
    }
    let mut disk_bytes = 0;
    for entry in fs::read_dir(folder.path())? {
        disk_bytes += entry?.metadata()?.len();
    }
    let growth_kib = most_kib.saturating_sub(begin_kib);
    println!(
        "A week with {made} tenants, of which each lives some minutes: {} have a series at the end, {most_series} series at \
         most; the state had {} KiB at most and all files have {} MiB; the process grew by {} KiB after its first hour; \
         {lines} lines of finished tenants; every interval adds up.",
        counters.accounts.len(),
        most_state_bytes >> 10,
        disk_bytes >> 20,
        growth_kib,
    );
    Ok(counters.accounts.len() <= CAP
        && counters.refused_count == 0
        && disk_bytes <= FINISHED_BYTES + most_state_bytes
        && growth_kib <= LARGEST_GROWTH_KIB)
}
