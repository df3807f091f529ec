//! Synthetic logs that hold: what a machine with two packages, siblings, DRAM, filters and events writes.

use crate::{
    attribution::{
        Options, attribute,
        counters::Weights,
        energy_tree::Carries,
        ledger::{IdlePolicy, Ledger},
        selection::Selection,
    },
    interval::{
        CgroupMemory, Counts, CpuCounts, CpuInterval, Interval, MachineMemory, MemoryReading, MeterSource, Process,
        ProcessId, SwitchCost, Usage, ZoneKind, ZoneReading,
    },
    phases::{Border, Change, Phases, Request},
    sinks::{
        segments::phase_events,
        testing::{interval, segmenter_with, zone},
    },
    tenants::{Kind, Tenant},
};

/// Numbers that are the same in every run (Steele and others, SplitMix64, OOPSLA 2014).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }

    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }
}

const RANGE_UJ: u64 = 65_532_610_987;

/// A machine of two packages with four CPUs each, two a core; its meters wrap, and its tasks come and go.
struct Machine {
    random: Random,
    counters: Vec<u64>,
    end_ns: u64,
}

impl Machine {
    const ZONES: [(&'static str, ZoneKind, Option<u32>, u64); 6] = [
        ("package-0", ZoneKind::Package, Some(0), 60_000_000),
        ("package-0/core", ZoneKind::Core, Some(0), 56_000_000),
        ("package-1", ZoneKind::Package, Some(1), 50_000_000),
        ("dram-0", ZoneKind::Dram, Some(0), 9_000_000),
        ("dram-1", ZoneKind::Dram, Some(1), 7_000_000),
        ("psys", ZoneKind::Psys, None, 150_000_000),
    ];

    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let counters = Self::ZONES
            .iter()
            // Close to the end of the range, so that some wrap.
            .map(|_| RANGE_UJ - random.below(200_000_000))
            .collect();
        Self {
            random,
            counters,
            end_ns: 81_000_000_000_000,
        }
    }

    fn interval(&mut self, seq: u64, invalid: &[&str]) -> Interval {
        self.interval_of(1_000_000_000, seq, invalid)
    }

    fn interval_of(&mut self, length_ns: u64, seq: u64, invalid: &[&str]) -> Interval {
        let begin_ns = self.end_ns;
        self.end_ns += length_ns + self.random.below(300_000);
        let end_ns = self.end_ns;
        let mut usage = Vec::new();
        let mut cpus = Vec::new();
        for cpu in 0..8 {
            let interval_ns = end_ns - begin_ns - 20_000 + self.random.below(40_000);
            let mut busy_ns = 0;
            for _ in 0..self.random.below(6) {
                let ns = self.random.below(interval_ns / 8);
                busy_ns += ns;
                usage.push(Usage {
                    process: process(1 + u32::try_from(self.random.below(12)).unwrap()),
                    cgroup_id: self.random.below(4),
                    cpu,
                    ns,
                    shared_ns: self.random.below(ns + 1),
                    counts: Counts::default(),
                });
            }
            let lost_ns = self.random.below(2) * self.random.below(interval_ns / 100);
            cpus.push(CpuInterval {
                cpu,
                package: Some(cpu % 2),
                core: None,
                begin_ns,
                end_ns: begin_ns + interval_ns,
                busy_ns,
                idle_ns: interval_ns - busy_ns - lost_ns,
                lost_ns,
                switches: self.random.below(10_000),
                counts: None,
            });
        }
        let zones = Self::ZONES
            .iter()
            .zip(&mut self.counters)
            .map(|(&(zone, kind, package, most_uj), counter_uj)| {
                let energy_uj = most_uj - self.random.below(most_uj / 10);
                *counter_uj = (*counter_uj + energy_uj) % (RANGE_UJ + 1);
                ZoneReading {
                    zone: zone.to_owned(),
                    kind,
                    package,
                    energy_uj: if invalid.contains(&zone) {
                        Err("it was reset".to_owned())
                    } else {
                        Ok(energy_uj)
                    },
                    counter_uj: Some(*counter_uj),
                    range_uj: Some(RANGE_UJ),
                    source: MeterSource::Powercap,
                }
            })
            .collect();
        let mut reading = |tgid| {
            let bytes = 1_000_000 * self.random.below(4_000);
            let reading = MemoryReading {
                pss_bytes: (tgid % 3 > 0).then_some(bytes),
                uss_bytes: (tgid % 3 > 0).then_some(bytes / 2),
                rss_bytes: bytes * 2,
                read_at_ns: end_ns - 300_000,
            };
            (process(tgid), (u64::from(tgid % 4), reading))
        };
        Interval {
            seq,
            begin_ns,
            end_ns,
            end_unix_ns: 1_767_225_600_000_000_000 + i64::try_from(end_ns).unwrap(),
            energy_skew_ns: 20_000,
            seal_ns: 52_000,
            interrupts: Some(0),
            cpus,
            usage,
            processes: (1..13)
                .map(|tgid| {
                    let described = Process {
                        comm: format!("task \"{tgid}\" ü").into(),
                        exec_comm: "python3".into(),
                        uid: Some(1000),
                        kernel: tgid == 2,
                        ..Process::default()
                    };
                    (process(tgid), described.into())
                })
                .collect(),
            cgroups: (0..4)
                .map(|id| (id, ["/", "/a", "/a/b", "/c"][usize::try_from(id).unwrap()].to_owned()))
                .collect(),
            memory: [1, 4, 5, 6].into_iter().map(&mut reading).collect(),
            machine_memory: Some(MachineMemory {
                total_bytes: 64_000_000_000,
                available_bytes: 40_000_000_000,
                used_bytes: 20_000_000_000,
                free_bytes: None,
            }),
            zones,
            gpus: Vec::new(),
            gpu_owners: [].into(),
            self_tgid: 9,
            switch_cost: None,
            ..Interval::default()
        }
    }
}

fn process(tgid: u32) -> ProcessId {
    ProcessId {
        tgid,
        start_ns: 1_000_000 * u64::from(tgid),
    }
}

fn log(intervals: impl Iterator<Item = Interval>, options: &Options, aliases: bool) -> String {
    let mut segmenter = segmenter_with(aliases);
    let mut carries = Carries::default();
    let mut log = String::new();
    let mut write = |lines: Vec<crate::log::Line>| lines.iter().for_each(|line| log += line.text());
    for interval in intervals {
        let ledger = attribute(&interval, options, &carries);
        carries = carries.after(&ledger);
        write(segmenter.next(&ledger).unwrap());
    }
    write(segmenter.end().unwrap());
    log
}

fn floors() -> std::collections::BTreeMap<String, u64> {
    [
        ("package-0/core", 9_000),
        ("package-0/rest", 1_500),
        ("package-1/rest", 12_345),
        ("machine/rest", 20_000),
    ]
    .into_iter()
    .map(|(leaf, floor_mw)| (leaf.to_owned(), floor_mw))
    .collect()
}

/// A log under each policy, with and without filter, with carries, merged rows and an estimate.
pub fn logs() -> Vec<String> {
    let mut logs = Vec::new();
    for (seed, policy) in (1..).zip(IdlePolicy::ALL) {
        let options = Options {
            idle_policy: policy,
            idle_floors_mw: floors(),
            ..Options::default()
        };
        let mut machine = Machine::new(seed);
        logs.push(log((0..4).map(|seq| machine.interval(seq, &[])), &options, seed == 1));
        let selected = Options {
            selection: Selection {
                cgroups: vec!["/a".to_owned()],
                ..Selection::default()
            },
            max_rows: 4,
            smt_weight_permille: 600,
            ..options.clone()
        };
        logs.push(log((0..3).map(|seq| machine.interval(seq, &[])), &selected, false));
        let estimates = (0..3).map(|seq| {
            let mut interval = machine.interval(seq, &[]);
            interval.zones = vec![ZoneReading {
                zone: "machine".to_owned(),
                kind: ZoneKind::Machine,
                package: None,
                energy_uj: Ok(80_000_000 + seq),
                counter_uj: None,
                range_uj: None,
                source: MeterSource::Estimate,
            }];
            interval
        });
        logs.push(log(estimates, &options, false));
    }
    logs.push(with_cgroup_memory(Selection::default()));
    logs
}

/// A log in which events were counted, and both packages split by them: with few failed readings, and a model that is
/// far from the meter for a while.
pub fn counted() -> String {
    let mut machine = Machine::new(91);
    let mut readings = [Counts([1_000_000, 5, u64::MAX - 40_000_000, 0]); 8];
    let intervals = (0..8).map(|seq| {
        let mut interval = machine.interval(seq, &[]);
        interval.events = ["cycles", "instructions", "cache-misses"].map(str::to_owned).into();
        let mut random = Random(1000 + seq);
        let mut some = |most: u64| Counts([random.below(most), random.below(most), random.below(1 + most / 50), 0]);
        for usage in &mut interval.usage {
            usage.counts = some(1 + usage.ns * 3);
        }
        for (cpu, reading) in interval.cpus.iter_mut().zip(&mut readings) {
            let (idle, lost) = (some(1_000_000), some(1 + cpu.lost_ns));
            let mut busy = Counts::default();
            let of_cpu = interval.usage.iter().filter(|usage| usage.cpu == cpu.cpu);
            of_cpu.for_each(|usage| busy.add(&usage.counts));
            let first = *reading;
            for counts in [busy, idle, lost] {
                for (reading, count) in reading.0.iter_mut().zip(counts.0) {
                    *reading = reading.wrapping_add(count);
                }
            }
            cpu.counts = Some(CpuCounts {
                first,
                last: *reading,
                busy,
                idle,
                lost,
                failed: u64::from(seq == 2 && cpu.cpu == 3),
            });
        }
        if (4..7).contains(&seq) {
            // Twice what it is in the others.
            let package = &mut interval.zones[2];
            let more_uj = 90_000_000 - *package.energy_uj.as_ref().unwrap();
            machine.counters[2] = (machine.counters[2] + more_uj) % (RANGE_UJ + 1);
            (package.energy_uj, package.counter_uj) = (Ok(90_000_000), Some(machine.counters[2]));
        }
        interval
    });
    let options = Options {
        weights: Some(Weights {
            fj_per_event: Counts([2_000_000, 1_500_000, 30_000_000, 0]),
            fj_per_ns: 3_000_000,
            idle_mw: [("package-0".to_owned(), 50_000), ("package-1".to_owned(), 42_000)].into(),
        }),
        ..Options::default()
    };
    log(intervals, &options, false)
}

/// A log in which the memory of tenants is read from their cgroups, from its second interval on.
pub fn with_cgroup_memory(selection: Selection) -> String {
    let mut machine = Machine::new(31);
    let intervals = (0..4).map(|seq| {
        let mut interval = machine.interval(seq, &[]);
        if seq > 0 {
            let reading = |bytes| CgroupMemory { bytes, read_at_ns: 0 };
            let readings = [("/a", 9_000_000_000), ("/a/b", 2_000_000_000 + seq), ("/d", 77_777)];
            interval.cgroup_memory = readings.map(|(path, bytes)| (path.into(), reading(bytes))).into();
            let machine = interval.machine_memory.as_mut().unwrap();
            machine.free_bytes = Some(30_000_000_000);
        }
        interval
    });
    let options = Options {
        selection,
        ..Options::default()
    };
    log(intervals, &options, false)
}

/// A log of a package that counts 40 W, and does not contain its core.
pub fn parts_outside(core_w: u64) -> String {
    let zones = [
        zone("package-0", ZoneKind::Package, Ok(40_000_000)),
        zone("package-0/core", ZoneKind::Core, Ok(core_w * 1_000_000)),
    ];
    log(
        (0..36).map(|seq| interval(seq, zones.to_vec())),
        &Options::default(),
        false,
    )
}

/// A log of a core that is 10 J ahead of its package, where reading took so long.
pub fn ahead(energy_skew_ns: u64) -> String {
    let intervals = [(40, 50), (60, 30)].map(|(package_j, core_j)| {
        vec![
            zone("package-0", ZoneKind::Package, Ok(package_j * 1_000_000)),
            zone("package-0/core", ZoneKind::Core, Ok(core_j * 1_000_000)),
        ]
    });
    let intervals = (0..).zip(intervals).map(|(seq, zones)| Interval {
        energy_skew_ns,
        ..interval(seq, zones)
    });
    log(intervals, &Options::default(), false)
}

/// A log that tells from its second interval on what dlpm's part of the context switches is.
pub fn with_switch_cost() -> String {
    let mut machine = Machine::new(13);
    let cost = SwitchCost {
        run_ns: 113,
        runs: 1_000,
        measured_ns: 100_000_000,
    };
    let intervals = (0..3).map(|seq| Interval {
        switch_cost: (seq > 0).then_some(cost),
        ..machine.interval(seq, &[])
    });
    log(intervals, &Options::default(), false)
}

/// A log of phases: their events, and intervals that are too short to tell power, the last of a segment and the first of
/// one among them. Its phases are `a` from 1 to 4, `1` from 1 to 2, `2` from 2 on, and `b` from 6 on.
pub fn phased() -> String {
    let mut machine = Machine::new(5);
    let lengths_ns = [
        1_000_000_000,
        1_000_000,
        1_000_000_000,
        200_000,
        4_000_000,
        1_000_000_000,
        4_000_000,
        300_000,
        1_000_000_000,
    ];
    let mut segmenter = segmenter_with(true);
    let (mut carries, mut phases) = (Carries::default(), Phases::default());
    let mut lines = Vec::new();
    for (seq, length_ns) in (0..).zip(lengths_ns) {
        let invalid: &[&str] = if seq == 6 { &["psys"] } else { &[] };
        let ledger = attribute(
            &machine.interval_of(length_ns, seq, invalid),
            &Options::default(),
            &carries,
        );
        carries = carries.after(&ledger);
        lines.extend(segmenter.next(&ledger).unwrap());
        let requests: &[&str] = match seq {
            0 => &["begin a", "mark 1"],
            1 => &["mark 2"],
            3 => &["end a"],
            5 => &["begin b"],
            _ => &[],
        };
        let requests = requests
            .iter()
            .map(|request| Request::parse(request.as_bytes()).unwrap());
        let mut changes: Vec<Change> = requests.flat_map(|request| phases.apply(&request).unwrap()).collect();
        if seq == 8 {
            changes = phases.end_all();
        }
        let border = Border {
            seq: seq + 1,
            at_ns: ledger.end_ns,
        };
        lines.extend(phase_events(border, &changes).unwrap());
    }
    lines.extend(segmenter.end().unwrap());
    lines.iter().map(crate::log::Line::text).collect()
}

/// A log with a gap, a clock that steps, zones that are invalid for a while, and a second trace.
pub fn eventful() -> String {
    let mut machine = Machine::new(77);
    let intervals: Vec<Interval> = (0..16)
        .filter_map(|seq| {
            let invalid: &[&str] = match seq {
                3 => &["package-0"],
                6 | 7 => &["package-0/core", "psys"],
                _ => &[],
            };
            let mut interval = machine.interval(seq, invalid);
            if seq > 12 {
                interval.end_unix_ns -= 3_600_000_000_000;
            }
            (seq != 10).then_some(interval)
        })
        .collect();
    let mut again = Machine::new(78);
    let second = log((0..2).map(|seq| again.interval(seq, &[])), &Options::default(), true);
    log(intervals.into_iter(), &Options::default(), true) + &second
}

/// What is odd about an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    Nothing,
    /// A part of a package is not known.
    Unknown,
    /// The interval before is missing.
    Gap,
    /// A CPU is not there.
    CpuAway,
}

/// The ledgers of such intervals, with tenants of a job, a unit, and processes of nobody that is known.
pub fn ledgers(odds: &[Odd]) -> Vec<Ledger> {
    let (mut machine, mut carries) = (Machine::new(77), Carries::default());
    let tenants = [
        ("/a", Tenant::of(Kind::Slurm, "7")),
        ("/a/b", Tenant::of(Kind::Slurm, "7")),
        ("/c", Tenant::of(Kind::Unit, "a.service")),
    ];
    let mut ledgers = Vec::new();
    let mut seq = 0;
    for odd in odds {
        if *odd == Odd::Gap {
            machine.interval(seq, &[]);
            seq += 1;
        }
        let mut interval = machine.interval(seq, if *odd == Odd::Unknown { &["package-0/core"] } else { &[] });
        seq += 1;
        if *odd == Odd::CpuAway {
            interval.cpus.pop();
            interval.usage.retain(|usage| usage.cpu != 7);
        }
        for (path, tenant) in &tenants {
            interval.tenants.insert((*path).to_owned(), tenant.clone().into());
        }
        let ledger = attribute(&interval, &Options::default(), &carries);
        carries = carries.after(&ledger);
        ledgers.push(ledger);
    }
    ledgers
}

/// The log of some ledgers.
pub fn written(ledgers: &[Ledger]) -> String {
    let mut segmenter = segmenter_with(false);
    let lines = ledgers.iter().flat_map(|ledger| segmenter.next(ledger).unwrap());
    let mut lines: Vec<_> = lines.collect();
    lines.extend(segmenter.end().unwrap());
    lines.iter().map(|line| line.text()).collect()
}
