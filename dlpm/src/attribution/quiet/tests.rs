//! Which minutes are quiet, by example and against a plain search.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    attribution::{Options, attribute, energy_tree::Carries},
    interval::{CpuInterval, GpuProcess, GpuReading, Interval, MeterSource, ProcessId, Usage, ZoneReading},
};

const SECOND_NS: u64 = 1_000_000_000;

/// What is odd about an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Odd {
    Nothing,
    /// A zone is not known, as after a suspend.
    Unknown,
    /// The second CPU is not there.
    CpuAway,
    /// It was there for a part of the interval.
    CpuComes,
    /// The interval before is missing.
    Gap,
    /// The parts of the package are not known, so that it is one leaf.
    Whole,
}

/// An interval of two CPUs; the package draws 10 W and 1 W for each percent that is busy, of which the core is a quarter.
#[derive(Clone, Copy, Debug)]
struct Step {
    length_ns: u64,
    busy_permille: u64,
    odd: Odd,
}

const QUIET: Step = Step {
    length_ns: SECOND_NS,
    busy_permille: 5,
    odd: Odd::Nothing,
};

fn package_uj(step: &Step) -> u64 {
    // mW · ns = 1e-12 J.
    (10_000 + 100 * step.busy_permille) * step.length_ns / 1_000_000
}

fn zone(name: &str, kind: ZoneKind, energy_uj: Result<u64, String>) -> ZoneReading {
    ZoneReading {
        zone: name.to_owned(),
        kind,
        package: Some(0),
        energy_uj,
        counter_uj: None,
        range_uj: None,
        source: MeterSource::Powercap,
    }
}

/// The intervals of these steps.
fn intervals(steps: &[Step]) -> Vec<Interval> {
    let (mut seq, mut end_ns) = (0, 7 * SECOND_NS);
    let interval = |step: &Step| {
        seq += if step.odd == Odd::Gap { 2 } else { 1 };
        let begin_ns = end_ns;
        end_ns += step.length_ns;
        let cpu = |cpu, length_ns| {
            let busy_ns = step.length_ns * step.busy_permille / 1000;
            CpuInterval {
                cpu,
                package: Some(0),
                core: None,
                begin_ns,
                end_ns: begin_ns + length_ns,
                busy_ns: busy_ns.min(length_ns),
                idle_ns: length_ns - busy_ns.min(length_ns),
                lost_ns: 0,
                switches: 1,
                counts: None,
            }
        };
        let second = match step.odd {
            Odd::CpuAway => None,
            Odd::CpuComes => Some(cpu(1, step.length_ns / 2)),
            _ => Some(cpu(1, step.length_ns)),
        };
        let cpus: Vec<CpuInterval> = [cpu(0, step.length_ns)].into_iter().chain(second).collect();
        let usage = |cpu: &CpuInterval| Usage {
            process: ProcessId { tgid: 100, start_ns: 1 },
            cgroup_id: 1,
            cpu: cpu.cpu,
            ns: cpu.busy_ns,
            shared_ns: 0,
            counts: crate::interval::Counts::default(),
        };
        let known = |energy_uj| match step.odd {
            Odd::Unknown => Err("the machine slept".to_owned()),
            _ => Ok(energy_uj),
        };
        let part = match step.odd {
            Odd::Whole => Err("it cannot be read".to_owned()),
            _ => known(package_uj(step) / 4),
        };
        Interval {
            seq,
            begin_ns,
            end_ns,
            end_unix_ns: i64::try_from(end_ns).unwrap(),
            usage: cpus.iter().map(usage).collect(),
            cpus,
            zones: vec![
                zone("package-0", ZoneKind::Package, known(package_uj(step))),
                zone("package-0/core", ZoneKind::Core, part),
                zone("dram-0", ZoneKind::Dram, known(2_000 * step.length_ns / 1_000_000)),
            ],
            ..Interval::default()
        }
    };
    steps.iter().map(interval).collect()
}

/// What is found after each interval.
fn found(intervals: &[Interval]) -> Vec<Option<QuietMinute>> {
    let mut quiet = Quiet::default();
    let ledger = |interval| attribute(interval, &Options::default(), &Carries::default());
    intervals.iter().map(|interval| quiet.add(&ledger(interval))).collect()
}

fn first(steps: &[Step]) -> Option<(usize, QuietMinute)> {
    let found = found(&intervals(steps)).into_iter().enumerate();
    found.filter_map(|(at, minute)| Some((at + 1, minute?))).next()
}

#[test]
fn a_quiet_minute_is_what_its_zones_drew() {
    let (after, minute) = first(&[QUIET; 100]).unwrap();
    assert_eq!(after, 60);
    assert_eq!((minute.length_ns, minute.busy_permille), (60 * SECOND_NS, 5));
    assert_eq!(minute.end_unix_ns, 67 * SECOND_NS.cast_signed());
    let floors = [("dram-0", 2_000), ("package-0/core", 2_625), ("package-0/rest", 7_875)];
    assert_eq!(minute.floors_mw, floors.map(|(leaf, mw)| (leaf.to_owned(), mw)).into());
    assert_eq!(minute.roots_mw, [("package-0".to_owned(), 10_500)].into());
    assert_eq!(minute.leaves.len(), 2, "memory has no floor: {:?}", minute.leaves);
}

#[test]
fn a_busy_minute_is_none() {
    let busy = |busy_permille| Step { busy_permille, ..QUIET };
    assert!(first(&[busy(19); 60]).is_some());
    assert!(first(&[busy(20); 200]).is_none());
    // A busy second is forgotten after a minute.
    let mut steps = vec![busy(1000)];
    steps.extend([busy(10); 60]);
    let (after, minute) = first(&steps).unwrap();
    assert_eq!((after, minute.busy_permille), (61, 10));
    assert_eq!(
        minute.floors_mw["package-0/core"] + minute.floors_mw["package-0/rest"],
        11_000
    );
}

#[test]
fn what_interrupts_a_minute_begins_it_anew() {
    for odd in [Odd::Unknown, Odd::CpuAway, Odd::CpuComes, Odd::Gap, Odd::Whole] {
        let mut steps = vec![QUIET; 59];
        steps.push(Step { odd, ..QUIET });
        steps.extend([QUIET; 60]);
        let (after, _) = first(&steps).unwrap();
        // The interval after a gap is whole itself.
        assert_eq!(after, if odd == Odd::Gap { 119 } else { 120 }, "{odd:?}");
    }
}

#[test]
fn intervals_of_any_length_make_a_minute() {
    let step = |length_ns| Step { length_ns, ..QUIET };
    let long = first(&[step(90 * SECOND_NS)]).unwrap();
    assert_eq!((long.0, long.1.length_ns), (1, 90 * SECOND_NS));
    let short = first(&[step(SECOND_NS / 100); 7_000]).unwrap();
    assert_eq!((short.0, short.1.length_ns), (6_000, 60 * SECOND_NS));
    assert!(first(&[step(0); 100]).is_none());
}

#[test]
fn a_meter_that_counts_nothing_has_no_floor_of_0_w() {
    let with = |change: fn(&mut Interval)| {
        let mut intervals = intervals(&[QUIET; 70]);
        intervals.iter_mut().for_each(change);
        found(&intervals).into_iter().flatten().next()
    };
    // A core can rest.
    let resting = with(|interval| interval.zones[1].energy_uj = Ok(0)).unwrap();
    assert_eq!(resting.floors_mw["package-0/core"], 0);
    let nothing = with(|interval| {
        interval.zones.truncate(1);
        interval.zones[0].energy_uj = Ok(0);
    });
    assert_eq!(nothing, None);
    // Memory has no floor that anybody uses.
    let memory = with(|interval| interval.zones[2].energy_uj = Ok(0)).unwrap();
    assert!(!memory.floors_mw.contains_key("dram-0"));
    let estimate = with(|interval| {
        interval.zones.truncate(1);
        interval.zones[0].kind = ZoneKind::Machine;
        interval.zones[0].package = None;
        interval.zones[0].source = MeterSource::Estimate;
    });
    assert_eq!(estimate, None);
    assert_eq!(with(|interval| interval.zones.clear()), None);
}

#[test]
fn a_gpu_has_a_floor_where_nobody_used_it() {
    let floor = |change: &dyn Fn(&mut GpuReading)| {
        let mut intervals = intervals(&[QUIET; 60]);
        for interval in &mut intervals {
            let mut gpu = GpuReading {
                uuid: "GPU-a".to_owned(),
                index: 0,
                name: "H200".to_owned(),
                pci: String::new(),
                energy_uj: Ok(70_000_000),
                counter_uj: None,
                source: MeterSource::NvmlEnergy,
                read_at_ns: None,
                power_mw: None,
                utilization_percent: None,
                memory_used_bytes: None,
                memory_total_bytes: None,
                usage: crate::interval::GpuUsage::Sm,
                inside: None,
                mig: false,
                sm_time: Ok(()),
                lists: Ok(()),
                dropped_samples: 0,
                notes: Vec::new(),
                processes: Vec::new(),
            };
            change(&mut gpu);
            interval.gpus.push(gpu);
        }
        let minute = found(&intervals).into_iter().flatten().next().unwrap();
        assert!(minute.leaves.contains("gpu-a") && minute.floors_mw.contains_key("package-0/core"));
        minute.floors_mw.get("gpu-a").copied()
    };
    let used = |sm_percent_us| GpuProcess {
        pid: 7,
        sm_percent_us,
        ..GpuProcess::default()
    };
    assert_eq!(floor(&|_| {}), Some(70_000));
    // 1.9 % and 2 % of a second.
    assert_eq!(floor(&|gpu| gpu.processes.push(used(1_900_000))), Some(70_000));
    assert_eq!(floor(&|gpu| gpu.processes.push(used(2_000_000))), None);
    assert_eq!(
        floor(&|gpu| {
            gpu.processes.push(used(0));
            gpu.sm_time = Err("not to be had".to_owned());
        }),
        None
    );
    assert_eq!(floor(&|gpu| gpu.lists = Err("denied".to_owned())), None);
    assert_eq!(floor(&|gpu| gpu.energy_uj = Err("it did not answer".to_owned())), None);
    assert_eq!(floor(&|gpu| gpu.energy_uj = Ok(0)), None);
}

fn step() -> impl Strategy<Value = Step> {
    let odd = prop_oneof![
        120 => Just(Odd::Nothing),
        1 => prop::sample::select(vec![Odd::Unknown, Odd::CpuAway, Odd::CpuComes, Odd::Gap, Odd::Whole]),
    ];
    let length_ns = prop_oneof![1 => 1..SECOND_NS, 3 => SECOND_NS..9 * SECOND_NS];
    let busy_permille = prop_oneof![20 => 0..22u64, 1 => 0..1001u64];
    (length_ns, busy_permille, odd).prop_map(|(length_ns, busy_permille, odd)| Step {
        length_ns,
        busy_permille,
        odd,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever is found is the sum of the newest intervals, all of them whole, and less than 2 % busy; and where there
    /// is such a minute, one is found.
    #[test]
    fn a_minute_is_whole_and_quiet(steps in vec(step(), 0..120)) {
        let intervals = intervals(&steps);
        for (at, minute) in found(&intervals).into_iter().enumerate() {
            // Back to what begins a minute anew: a gap before an interval, or an interval that is odd itself.
            let mut whole = Vec::new();
            for step in steps[..=at].iter().rev() {
                match step.odd {
                    Odd::Nothing => whole.push(*step),
                    Odd::Gap => {
                        whole.push(*step);
                        break;
                    }
                    _ => break,
                }
            }
            let Some(minute) = minute else {
                if steps[at].length_ns < SECOND_NS {
                    // The piece that is open is looked at when it is a second.
                    continue;
                }
                let (mut length_ns, mut busy) = (0, 0);
                for step in &whole {
                    length_ns += step.length_ns;
                    busy += step.busy_permille * step.length_ns;
                    // Pieces of a second that were added up from the beginning need not begin where a minute does.
                    prop_assert!(length_ns < MINUTE_NS + 20 * SECOND_NS || busy >= 10 * length_ns, "missed at {at}");
                    if length_ns >= MINUTE_NS + 20 * SECOND_NS {
                        break;
                    }
                }
                continue;
            };
            prop_assert!(minute.length_ns >= MINUTE_NS);
            let (mut length_ns, mut busy, mut energy_uj) = (0, 0, 0);
            for step in &whole {
                if length_ns == minute.length_ns {
                    break;
                }
                length_ns += step.length_ns;
                busy += 2 * (step.length_ns * step.busy_permille / 1000);
                energy_uj += package_uj(step);
            }
            prop_assert_eq!(length_ns, minute.length_ns, "whole intervals, one after another");
            prop_assert!(u128::from(busy) * 1000 < u128::from(2 * length_ns) * u128::from(BUSY_PERMILLE));
            prop_assert_eq!(minute.roots_mw["package-0"], mean_mw(energy_uj.into(), length_ns));
            let leaves_mw = minute.floors_mw["package-0/core"] + minute.floors_mw["package-0/rest"];
            prop_assert!(leaves_mw.abs_diff(minute.roots_mw["package-0"]) <= 1);
        }
    }
}
