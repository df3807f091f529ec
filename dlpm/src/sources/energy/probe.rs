//! Do the counters move? At the start all are watched for a moment, in which dlpm keeps a CPU of each package busy.
//!
//! RAPL moves about once a millisecond, so that this takes two or three. A counter that does not move is given more
//! time: a tenth of a second if others of its source move meanwhile, and more than a second if none does, as emulated
//! registers move once a second. What then has not moved, though a CPU was busy there all the time, is silent.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::ClockId,
};

use super::{
    coverage::{Busy, Coverage},
    hwmon::Hwmon,
    liveness::{Liveness, Seen, is_busy},
    perf::Perf,
    powercap::Powercap,
};
use crate::{
    interval::{MeterSource, ZoneKind},
    sources::{
        clock::{clock_ns, monotonic_ns},
        topology::Topology,
    },
};

/// Distance of two looks.
const PERIOD: Duration = Duration::from_micros(250);

/// Counters that have not moved until then need CPUs that are busy.
const SPIN_AFTER: Duration = Duration::from_millis(4);

/// A counter that did not move has to be watched for so long where others of its source moved.
const SHORT: Duration = Duration::from_millis(120);

/// The same where none moved.
const LONG: Duration = Duration::from_millis(1300);

/// Where dlpm gets no CPU time, nothing can be said.
const END: Duration = Duration::from_millis(2600);

/// CPU time that dlpm itself has to get in a die before anything is concluded, in case it is not let run at all.
const LEAST_NS: u64 = 5_000_000;

/// CPU time in [`SHORT`] on a machine that is not overloaded.
const LET_RUN_NS: u64 = 60_000_000;

/// A counter that is watched.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    pub source: MeterSource,
    pub kind: ZoneKind,
    pub package: Option<u32>,
    pub die: Option<u32>,
    /// Smallest step in microjoules, rounded up.
    pub unit_uj: u64,
    /// What it reads; `None` if it cannot be read.
    pub value: Option<u64>,
    pub believed: &'a mut Liveness,
}

/// What was seen of a counter so far.
#[derive(Clone, Copy, Debug)]
struct Sight {
    source: MeterSource,
    kind: ZoneKind,
    value: Option<u64>,
    moves: u32,
    /// Its CPUs were busy for long enough.
    busy: bool,
    /// dlpm was let run, so that whoever moves the counters was as well.
    let_run: bool,
}

impl Sight {
    /// Graphics may rest, and a core as well.
    fn is_awaited(&self) -> bool {
        self.value.is_some() && !matches!(self.kind, ZoneKind::Uncore | ZoneKind::SingleCore | ZoneKind::OneCore)
    }

    fn judge(&self, all: &[Self], elapsed: Duration) -> Seen {
        // Another zone that keeps moving shows how fast this source is.
        let fast = all.iter().any(|other| other.source == self.source && other.moves > 1);
        let patience = if fast || (is_shown(self.kind) && self.let_run) {
            SHORT
        } else {
            LONG
        };
        match self.moves {
            _ if !self.is_awaited() => Seen::Nothing,
            0 if self.busy && elapsed >= patience => Seen::Silent,
            // Nothing is split from it, and it is shown as soon as it moves.
            0 if is_shown(self.kind) && elapsed >= END => Seen::Silent,
            0 => Seen::Nothing,
            1 => Seen::Slow,
            _ => Seen::Moving,
        }
    }

    fn is_settled(&self, all: &[Self], elapsed: Duration) -> bool {
        match self.judge(all, elapsed) {
            Seen::Moving | Seen::Silent => true,
            Seen::Slow => elapsed >= SHORT,
            Seen::Nothing => !self.is_awaited(),
        }
    }
}

/// Whether nothing is split from a zone of this kind, which is shown.
fn is_shown(kind: ZoneKind) -> bool {
    matches!(kind, ZoneKind::Psys | ZoneKind::Board)
}

/// The sources that are watched.
pub(super) struct Sources<'a> {
    pub powercap: &'a mut Option<Powercap>,
    pub perf: &'a mut Option<Perf>,
    pub hwmon: &'a mut Option<Hwmon>,
}

/// Watches the counters of all sources and tells each what was seen of it.
pub(super) fn probe(mut sources: Sources<'_>, coverage: &Coverage, topology: &Topology) {
    let begun = Instant::now();
    let mut sights: Vec<Sight> = Vec::new();
    look(&mut sources, &mut sights, &Busy::default(), false);
    let stop = AtomicBool::new(false);
    let spinners = Spinner::for_each_die(coverage, topology);
    thread::scope(|scope| {
        let mut spinning = false;
        loop {
            let elapsed = begun.elapsed();
            if elapsed >= END || sights.iter().all(|sight| sight.is_settled(&sights, elapsed)) {
                break;
            }
            if !spinning && elapsed >= SPIN_AFTER {
                spinning = true;
                for spinner in &spinners {
                    scope.spawn(|| spinner.spin(&stop));
                }
            }
            thread::sleep(PERIOD);
            let mut busy = Busy::default();
            for spinner in &spinners {
                busy.add(spinner.package, spinner.die, spinner.busy_ns.load(Ordering::Relaxed));
            }
            let used_ns = spinners
                .iter()
                .map(|spinner| spinner.used_ns.load(Ordering::Relaxed))
                .max();
            look(&mut sources, &mut sights, &busy, used_ns >= Some(LET_RUN_NS));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let elapsed = begun.elapsed();
    for (watched, sight) in watched(&mut sources).into_iter().zip(&sights) {
        watched.believed.learn(sight.judge(&sights, elapsed));
    }
}

fn watched<'a>(sources: &'a mut Sources<'_>) -> Vec<Watched<'a>> {
    let mut all: Vec<Watched<'a>> = sources.powercap.iter_mut().flat_map(Powercap::watched).collect();
    all.extend(sources.perf.iter_mut().flat_map(Perf::watched));
    all.extend(sources.hwmon.iter_mut().flat_map(Hwmon::watched));
    all
}

/// Reads all counters once.
fn look(sources: &mut Sources<'_>, sights: &mut Vec<Sight>, busy: &Busy, let_run: bool) {
    let now_ns = monotonic_ns();
    if let Some(powercap) = sources.powercap {
        powercap.poll(now_ns);
    }
    if let Some(perf) = sources.perf {
        perf.poll(now_ns);
    }
    if let Some(hwmon) = sources.hwmon {
        hwmon.poll(now_ns);
    }
    for (number, now) in watched(sources).into_iter().enumerate() {
        let is_busy = is_busy(busy.of_zone(now.kind, now.package, now.die), now.unit_uj);
        match sights.get_mut(number) {
            Some(sight) => {
                if let (Some(before), Some(value)) = (sight.value, now.value) {
                    sight.moves += u32::from(before != value);
                }
                (sight.value, sight.busy, sight.let_run) = (now.value, is_busy, let_run);
            }
            None => sights.push(Sight {
                source: now.source,
                kind: now.kind,
                value: now.value,
                moves: 0,
                busy: is_busy,
                let_run,
            }),
        }
    }
}

/// A thread that keeps a CPU busy.
struct Spinner {
    package: Option<u32>,
    die: Option<u32>,
    /// Where dlpm may run in that die.
    cpus: Vec<u32>,
    /// Time in which one of these CPUs was busy.
    busy_ns: AtomicU64,
    /// CPU time that it got.
    used_ns: AtomicU64,
}

impl Spinner {
    /// One for each die that has CPUs on which dlpm may run.
    fn for_each_die(coverage: &Coverage, topology: &Topology) -> Vec<Self> {
        let allowed = sched_getaffinity(None).ok();
        let may_run = |cpu: u32| {
            let cpu = usize::try_from(cpu).unwrap_or(usize::MAX);
            cpu < CpuSet::MAX_CPU && allowed.as_ref().is_some_and(|allowed| allowed.is_set(cpu))
        };
        let mut dies: BTreeMap<(Option<u32>, Option<u32>), Vec<u32>> = BTreeMap::new();
        for cpu in topology.cpus().filter(|&cpu| may_run(cpu)) {
            let package = coverage.package_of(cpu, topology);
            dies.entry((package, topology.die_of(cpu))).or_default().push(cpu);
        }
        if dies.is_empty() {
            // Of a tree that does not tell of CPUs: anywhere.
            dies.insert((None, None), Vec::new());
        }
        dies.into_iter()
            .map(|((package, die), cpus)| Self {
                package,
                die,
                cpus,
                busy_ns: AtomicU64::new(0),
                used_ns: AtomicU64::new(0),
            })
            .collect()
    }

    fn spin(&self, stop: &AtomicBool) {
        if !self.cpus.is_empty() {
            let mut set = CpuSet::new();
            for cpu in self.cpus.iter().filter_map(|&cpu| usize::try_from(cpu).ok()) {
                set.set(cpu);
            }
            if sched_setaffinity(None, &set).is_err() {
                return;
            }
        }
        let (begun_ns, started_ns) = (clock_ns(ClockId::ThreadCPUTime), monotonic_ns());
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..1000 {
                std::hint::spin_loop();
            }
            let used_ns = clock_ns(ClockId::ThreadCPUTime).saturating_sub(begun_ns);
            self.used_ns.store(used_ns, Ordering::Relaxed);
            if used_ns >= LEAST_NS {
                // While this thread waits for its turn, others keep the CPU busy.
                self.busy_ns
                    .store(monotonic_ns().saturating_sub(started_ns), Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(kind: ZoneKind, moves: u32, busy: bool) -> Sight {
        Sight {
            source: MeterSource::Powercap,
            kind,
            value: Some(7),
            moves,
            busy,
            let_run: true,
        }
    }

    fn judge(sights: &[Sight], elapsed: Duration) -> Vec<Seen> {
        sights.iter().map(|sight| sight.judge(sights, elapsed)).collect()
    }

    #[test]
    fn what_stands_still_is_silent_the_sooner_if_others_move() {
        let dead = sight(ZoneKind::Package, 0, true);
        let alone = [dead, sight(ZoneKind::Core, 0, true)];
        assert_eq!(judge(&alone, SHORT), [Seen::Nothing; 2]);
        assert_eq!(judge(&alone, LONG), [Seen::Silent; 2]);
        let beside = [dead, sight(ZoneKind::Package, 9, true), sight(ZoneKind::Dram, 1, true)];
        assert_eq!(judge(&beside, SHORT / 2), [Seen::Nothing, Seen::Moving, Seen::Slow]);
        assert_eq!(judge(&beside, SHORT), [Seen::Silent, Seen::Moving, Seen::Slow]);
    }

    #[test]
    fn a_counter_of_idle_cpus_or_of_graphics_is_not_judged() {
        let sights = [
            sight(ZoneKind::Package, 0, false),
            sight(ZoneKind::Uncore, 0, true),
            sight(ZoneKind::SingleCore, 0, true),
            Sight {
                value: None,
                ..sight(ZoneKind::Dram, 0, true)
            },
            sight(ZoneKind::Package, 2, true),
        ];
        assert_eq!(judge(&sights, LONG)[..4], [Seen::Nothing; 4]);
        // Only the first is waited for.
        let settled: Vec<bool> = sights.iter().map(|sight| sight.is_settled(&sights, SHORT)).collect();
        assert_eq!(settled, [false, true, true, true, true]);
    }

    #[test]
    fn a_counter_that_moves_once_a_second_is_alive() {
        let sights = [sight(ZoneKind::Package, 1, true), sight(ZoneKind::Psys, 0, true)];
        assert_eq!(judge(&sights, LONG), [Seen::Slow, Seen::Silent]);
        // Where dlpm was hardly let run, the platform's zone is given as much time as any.
        let psys = Sight {
            let_run: false,
            ..sight(ZoneKind::Psys, 0, true)
        };
        assert_eq!(judge(&[psys], SHORT), [Seen::Nothing]);
        assert_eq!(judge(&[psys], LONG), [Seen::Silent]);
        assert_eq!(
            judge(&[Sight { busy: false, ..psys }], END),
            [Seen::Silent],
            "shown when it moves"
        );
    }
}
