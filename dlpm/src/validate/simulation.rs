//! A machine whose truth is known: loads of fixed watts, a turbo, hardware threads that share a core, a constant offset,
//! and noise. Its cells go through the real attribution, as those of a real machine do.

use std::sync::Arc;

use super::{
    Cell, LoadKind, Run,
    file::{FORMAT, Header, Limits, Machine},
    plan,
    random::Random,
};
use crate::{
    attribution::{Options, attribute, counters::Weights, energy_tree::Carries, selection::Selection},
    interval::{
        Counts, CpuCounts, CpuInterval, Identity, Interval, MeterSource, Process, ProcessId, Trees, Usage, ZoneKind,
        ZoneReading,
    },
};

/// A second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// The law that the meter follows.
#[derive(Clone, Debug)]
pub struct Law {
    /// What the idle machine draws, in mW: a constant offset of every cell.
    pub idle_mw: i64,
    /// What a load adds, in mW.
    pub load_mw: fn(LoadKind) -> i64,
    /// What a pair draws more than its loads alone, in mW: below 0 for a turbo that both have to share.
    pub interaction_mw: fn(LoadKind, LoadKind) -> i64,
    /// Time that somebody else runs on the other thread of core A, of each second; it draws nothing.
    pub sibling_ns: u64,
    /// Time that others use on a fourth core, of each second.
    pub foreign_ns: u64,
    /// Work in a second beside this other load, in thousandths of alone.
    pub speed_permille: fn(LoadKind, LoadKind) -> u64,
    /// Cores have zones of their own, and these draw what their loads do.
    pub core_zones: bool,
    /// An event is counted, once for each microjoule that a load draws.
    pub counters: bool,
    /// Noise of each cell's energy: at most this many ppm up or down.
    pub noise_ppm: usize,
    /// How much the idle power moves from round to round, in ppm.
    pub idle_drift_ppm: i64,
}

impl Default for Law {
    fn default() -> Self {
        Self {
            idle_mw: 20_000,
            load_mw: |load| match load {
                LoadKind::Scalar => 5_000,
                LoadKind::Fma => 11_000,
                LoadKind::Chase => 3_000,
                LoadKind::Stream => 6_500,
                LoadKind::Nap => 2_200,
            },
            interaction_mw: |_, _| 0,
            sibling_ns: 0,
            foreign_ns: 0,
            speed_permille: |_, _| 1000,
            core_zones: false,
            counters: false,
            noise_ppm: 0,
            idle_drift_ppm: 0,
        }
    }
}

/// CPUs: 0 and 4 are core A, 1 and 5 core B, 2 and 6 dlpm's, 3 and 7 free.
const CORES: u32 = 4;

/// The description of a run that lasts cells of 7 s.
pub fn header(loads: &[LoadKind], rounds: u32, seed: u64) -> Header {
    Header {
        validation: FORMAT,
        dlpm: "0".to_owned(),
        date: "2026-01-01 00:00:00".to_owned(),
        machine: Machine::default(),
        source: MeterSource::Powercap,
        package: 0,
        cpus: [0, 1, 2],
        shares_core: false,
        smt: true,
        energy_filtering: Some(false),
        loads: loads.to_vec(),
        details: loads.iter().map(|load| load.as_str().to_owned()).collect(),
        rounds,
        cell_ns: 7 * SECOND_NS,
        settle_ns: SECOND_NS,
        seed,
        limits: Limits::default(),
        identity: Identity::StartTime,
    }
}

/// All cells of a run on that machine.
pub fn cells(header: &Header, law: &Law) -> Vec<Cell> {
    let mut random = Random::new(header.seed ^ 0x5EED);
    let rounds = plan::rounds(&header.loads, header.rounds, header.seed);
    let mut cells = Vec::new();
    for (round, planned) in (0..).zip(&rounds) {
        for loads in planned {
            cells.push(cell(header, law, round, loads, &mut random));
        }
    }
    cells
}

fn cell(header: &Header, law: &Law, round: u32, loads: &[LoadKind], random: &mut Random) -> Cell {
    // Clocks of a real machine are never even.
    let length_ns = header.cell_ns - header.settle_ns + random.below(200_000) as u64;
    let seq = u64::from(round) * 100 + random.below(100) as u64;
    let mut own_mw: Vec<i64> = loads.iter().map(|load| (law.load_mw)(*load)).collect();
    if let [first, second] = *loads {
        let interaction_mw = (law.interaction_mw)(first, second);
        for own in &mut own_mw {
            *own += interaction_mw / 2;
        }
    }
    let drift_mw = law.idle_mw * law.idle_drift_ppm / 1_000_000 * i64::from(round);
    let noise_ppm = i64::try_from(random.below(2 * law.noise_ppm + 1)).unwrap() - i64::try_from(law.noise_ppm).unwrap();
    let noisy_uj = |mw: i64| {
        let uj = i128::from(mw) * i128::from(length_ns) / 1_000_000;
        u64::try_from(uj + uj * i128::from(noise_ppm) / 1_000_000).unwrap()
    };
    let process = |tgid: u32| ProcessId { tgid, start_ns: 7 };
    let (mut usage, mut runs) = (Vec::new(), Vec::new());
    let part = |ns: u64| ns * length_ns / SECOND_NS;
    for ((cpu, load), tgid) in (0..).zip(loads).zip(100..) {
        let ns = if *load == LoadKind::Nap {
            length_ns / 2
        } else {
            length_ns
        };
        let shared_ns = if cpu == 0 { part(law.sibling_ns).min(ns) } else { 0 };
        usage.push(Usage {
            process: process(tgid),
            cgroup_id: 1,
            cpu,
            ns,
            shared_ns,
            counts: counted(law, *load, length_ns),
        });
        let other = loads.iter().find(|other| *other != load);
        let permille = other.map_or(1000, |other| (law.speed_permille)(*load, *other));
        runs.push(Run {
            load: *load,
            cpu,
            tgid,
            units: length_ns / 1000 * permille,
            ns: length_ns,
        });
    }
    let (sibling_ns, foreign_ns) = (part(law.sibling_ns), part(law.foreign_ns));
    if sibling_ns > 0 {
        // It runs while the load on core A does, if there is one.
        let beside_ns = usage.first().map_or(0, |usage: &Usage| usage.shared_ns);
        usage.push(Usage {
            process: process(60),
            cgroup_id: 1,
            cpu: 4,
            ns: sibling_ns,
            shared_ns: beside_ns,
            ..Usage::default()
        });
    }
    if foreign_ns > 0 {
        usage.push(Usage {
            process: process(61),
            cgroup_id: 1,
            cpu: 3,
            ns: foreign_ns,
            shared_ns: 0,
            ..Usage::default()
        });
    }
    let dlpm_ns = 2_000_000;
    usage.push(Usage {
        process: process(50),
        cgroup_id: 1,
        cpu: 2,
        ns: dlpm_ns,
        shared_ns: 0,
        ..Usage::default()
    });
    let busy = |cpu| {
        usage
            .iter()
            .filter(|usage| usage.cpu == cpu)
            .map(|usage| usage.ns)
            .sum::<u64>()
    };
    let cpus = (0..2 * CORES).map(|cpu| CpuInterval {
        cpu,
        package: Some(0),
        core: law.core_zones.then_some(cpu % CORES),
        begin_ns: 1000,
        end_ns: 1000 + length_ns,
        busy_ns: busy(cpu),
        idle_ns: length_ns - busy(cpu),
        counts: law.counters.then(|| {
            let of_cpu = usage
                .iter()
                .filter(|usage| usage.cpu == cpu)
                .map(|usage| usage.counts.0[0]);
            let busy = Counts([of_cpu.sum(), 0, 0, 0]);
            CpuCounts {
                last: busy,
                busy,
                ..CpuCounts::default()
            }
        }),
        ..CpuInterval::default()
    });
    let zone = |zone: &str, kind, mw| ZoneReading {
        zone: zone.to_owned(),
        kind,
        package: Some(0),
        energy_uj: Ok(noisy_uj(mw)),
        counter_uj: Some(random_counter(mw)),
        range_uj: Some(u64::MAX / 2),
        source: MeterSource::Powercap,
    };
    let mut zones = vec![zone(
        "package-0",
        ZoneKind::Package,
        law.idle_mw + drift_mw + own_mw.iter().sum::<i64>(),
    )];
    if law.core_zones {
        let own = |core: u32| own_mw.get(core as usize).copied().unwrap_or(0);
        zones
            .extend((0..CORES).map(|core| zone(&format!("package-0/core-{core}"), ZoneKind::OneCore, 200 + own(core))));
    }
    let listed = |tgid: u32| {
        let known = Process {
            trees: if tgid >= 100 { Trees::one(0) } else { Trees::default() },
            uid: Some(0),
            comm: Arc::from("dlpm"),
            exec_comm: Arc::from("dlpm"),
            ..Process::default()
        };
        (process(tgid), Arc::new(known))
    };
    let interval = Interval {
        seq,
        begin_ns: 1000,
        end_ns: 1000 + length_ns,
        end_unix_ns: 1_767_225_600_000_000_000,
        cpus: cpus.collect(),
        processes: usage.iter().map(|usage| listed(usage.process.tgid)).collect(),
        usage,
        cgroups: [(1, "/".to_owned())].into(),
        zones,
        events: law.counters.then(|| "joules".to_owned()).into_iter().collect(),
        self_tgid: 50,
        ..Interval::default()
    };
    let options = Options {
        selection: Selection {
            trees: Trees::one(0),
            ..Selection::default()
        },
        weights: law.counters.then(|| Weights {
            // A microjoule.
            fj_per_event: Counts([1_000_000_000, 0, 0, 0]),
            fj_per_ns: 0,
            idle_mw: [("package-0".to_owned(), law.idle_mw.unsigned_abs())].into(),
        }),
        ..Options::default()
    };
    Cell {
        round,
        runs,
        throttled: Some(0),
        on_battery: false,
        ledger: attribute(&interval, &options, &Carries::default()),
    }
}

fn counted(law: &Law, load: LoadKind, length_ns: u64) -> Counts {
    let uj = (law.load_mw)(load).unsigned_abs() * (length_ns / 1_000_000);
    Counts([if law.counters { uj } else { 0 }, 0, 0, 0])
}

fn random_counter(mw: i64) -> u64 {
    mw.unsigned_abs() * 987_654
}
