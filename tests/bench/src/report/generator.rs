//! Lines of a log as `dlpm trace` writes it, made up.

use anyhow::Result;
use dlpm::{
    attribution::{Options as Attribution, attribute, energy_tree::Carries},
    interval::{
        CpuInterval, Identity, Interval, MachineMemory, MemoryReading, MeterSource, Process, ProcessId, Usage,
        ZoneKind, ZoneReading,
    },
    log::{Line, rotation::Limit},
    sinks::segments::{Encoding, Segmenter},
};

/// CPUs of the machine in the log.
const CPUS: u32 = 8;

const SECOND_NS: u64 = 1_000_000_000;

/// Rows that are there beside the processes: kernel, self, idle and unattributed.
pub(super) const FIXED_ROWS: u32 = 4;

/// Makes the lines that `dlpm trace` would write on a machine where processes come and go, or on a node: a third of
/// its processes compute, a third run in every tenth interval, and a third sleep; memory is read every 10 s.
pub(super) struct Generator {
    is_node: bool,
    rows: u32,
    seq: u64,
    random: u64,
    carries: Carries,
    counters: [u64; 5],
    segmenter: Segmenter,
}

impl Generator {
    pub(super) fn new(rows: u32) -> Self {
        Self {
            is_node: false,
            rows,
            seq: 0,
            random: 0x9E37_79B9_7F4A_7C15,
            carries: Carries::default(),
            counters: [0; 5],
            segmenter: Segmenter::new(Encoding {
                identity: Identity::StartTime,
                aliases: true,
                timezone: jiff::tz::TimeZone::UTC,
            }),
        }
    }

    pub(super) fn node(rows: u32) -> Self {
        Self {
            is_node: true,
            ..Self::new(rows)
        }
    }

    /// The same, in files that end at this limit.
    pub(super) fn rotating(mut self, limit: Limit) -> Self {
        self.segmenter = self.segmenter.rotating(Some(limit));
        self
    }

    /// The last lines.
    pub(super) fn end(&mut self) -> Result<Vec<Line>> {
        Ok(self.segmenter.end()?)
    }

    /// Whether a process of a node runs in this interval.
    fn runs(&self, number: u32) -> bool {
        !self.is_node
            || number.is_multiple_of(3)
            || (number % 3 == 1 && (self.seq + u64::from(number)).is_multiple_of(10))
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit.max(1)
    }

    pub(super) fn next(&mut self) -> Result<String> {
        Ok(self.lines()?.iter().map(Line::text).collect())
    }

    pub(super) fn lines(&mut self) -> Result<Vec<Line>> {
        let interval = self.interval();
        let ledger = attribute(&interval, &Attribution::default(), &self.carries);
        self.carries = self.carries.after(&ledger);
        self.seq += 1;
        Ok(self.segmenter.next(&ledger)?)
    }

    fn interval(&mut self) -> Interval {
        let seq = self.seq;
        let begin_ns = 5 * SECOND_NS + seq * SECOND_NS;
        let end_ns = begin_ns + SECOND_NS;
        let processes = self.rows.saturating_sub(FIXED_ROWS).max(1);
        let mut left = [SECOND_NS - 50_000_000; CPUS as usize];
        let mut usage = Vec::new();
        let mut described = std::collections::BTreeMap::new();
        let mut memory = std::collections::BTreeMap::new();
        for number in 0..processes {
            // Most stay; one in ten is another one in each interval.
            let tgid = if number % 10 == 9 && !self.is_node {
                100_000 + u32::try_from(seq % 1_000_000).unwrap_or(0) * processes + number
            } else {
                1_000 + number
            };
            let process = ProcessId {
                tgid,
                start_ns: 1_000_000 * u64::from(tgid) + 123_456,
            };
            let cpu = usize::try_from(self.below(u64::from(CPUS))).unwrap_or(0);
            let ns = self.below(left[cpu] / 3);
            left[cpu] -= ns;
            if self.runs(number) {
                usage.push(Usage {
                    process,
                    cgroup_id: u64::from(number % 7),
                    cpu: u32::try_from(cpu).unwrap_or(0),
                    ns,
                    shared_ns: ns / 4,
                    counts: dlpm::interval::Counts::default(),
                });
            } else {
                left[cpu] += ns;
            }
            let named = Process {
                comm: format!("worker-{}", number % 12).into(),
                exec_comm: "python3.11".into(),
                uid: Some(1000 + number % 3),
                exited: number % 10 == 9,
                ..Process::default()
            };
            described.insert(process, named);
            let (pages, read_at_ns) = if self.is_node {
                let reading = seq / 10;
                let of_process = (u64::from(number) * 7_919 + reading * 104_729) % 1_000;
                (
                    1_000 * u64::from(number) + of_process,
                    3 * SECOND_NS + reading * 10 * SECOND_NS,
                )
            } else {
                (self.below(100_000), end_ns - 2_000_000_123)
            };
            let bytes = 100_000_000 + 4096 * pages;
            let reading = MemoryReading {
                pss_bytes: Some(bytes),
                uss_bytes: Some(bytes / 2),
                rss_bytes: bytes * 2,
                read_at_ns,
            };
            memory.insert(process, (u64::from(number % 7), reading));
        }
        let cpus = (0..CPUS)
            .map(|cpu| {
                let idle_ns = left[cpu as usize] + 50_000_000;
                CpuInterval {
                    cpu,
                    package: Some(0),
                    core: None,
                    begin_ns,
                    end_ns,
                    busy_ns: SECOND_NS - idle_ns,
                    idle_ns,
                    lost_ns: 0,
                    switches: 1_234 + self.random % 1000,
                    counts: None,
                }
            })
            .collect();
        Interval {
            seq,
            begin_ns,
            end_ns,
            end_unix_ns: 1_767_225_600_000_000_000 + i64::try_from(seq * SECOND_NS).unwrap_or(0) + 123_456_789,
            energy_skew_ns: 20_123,
            seal_ns: 252_123,
            interrupts: Some(1),
            cpus,
            usage,
            processes: described
                .into_iter()
                .map(|(id, process)| (id, process.into()))
                .collect(),
            cgroups: (0..7)
                .map(|id| (id, format!("/user.slice/user-1000.slice/job-{id}.scope")))
                .collect(),
            memory: memory.into_iter().collect(),
            machine_memory: Some(MachineMemory {
                total_bytes: 64_000_000_000,
                available_bytes: 30_000_000_000,
                used_bytes: 28_000_000_000,
                free_bytes: None,
            }),
            zones: self.zones(),
            gpus: Vec::new(),
            gpu_owners: [].into(),
            self_tgid: 7,
            switch_cost: None,
            ..Interval::default()
        }
    }

    fn zones(&mut self) -> Vec<ZoneReading> {
        let zones = [
            ("package-0", ZoneKind::Package, 60_000_000),
            ("package-0/core", ZoneKind::Core, 35_000_000),
            ("package-0/uncore", ZoneKind::Uncore, 5_000_000),
            ("dram-0", ZoneKind::Dram, 9_000_000),
            ("psys", ZoneKind::Psys, 90_000_000),
        ];
        let mut readings = Vec::new();
        for (position, (name, kind, mean_uj)) in zones.into_iter().enumerate() {
            let energy_uj = mean_uj + self.below(mean_uj / 4);
            let range_uj = 262_143_328_850;
            self.counters[position] = (self.counters[position] + energy_uj) % (range_uj + 1);
            readings.push(ZoneReading {
                zone: name.to_owned(),
                kind,
                package: (kind != ZoneKind::Psys).then_some(0),
                energy_uj: Ok(energy_uj),
                counter_uj: Some(self.counters[position]),
                range_uj: Some(range_uj),
                source: MeterSource::Powercap,
            });
        }
        readings
    }
}
