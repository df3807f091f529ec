//! Logs of machines that this one is not, written by the code that writes a log of `dlpm trace`.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use dlpm::{
    attribution::{Options, attribute, energy_tree::Carries},
    interval::{
        Counts, CpuInterval, GpuProcess, GpuReading, Identity, Interval, MeterSource, Process, ProcessId, Usage,
        ZoneKind, ZoneReading,
    },
    sinks::segments::{Encoding, Segmenter},
};
use serde_json::json;

/// A second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// 2026-01-01 00:00 UTC.
const BEGIN_UNIX_S: i64 = 1_767_225_600;

/// CPUs of the machine.
const CPUS: u32 = 4;

/// A log that is being made.
pub struct Synthetic {
    file: BufWriter<File>,
    segmenter: Segmenter,
    carries: Carries,
    seq: u64,
    at_ns: u64,
}

/// What a process did in an interval.
#[derive(Clone, Debug)]
pub struct Ran<'a> {
    /// Its pid.
    pub tgid: u32,
    /// Its name.
    pub comm: &'a str,
    /// Its cgroup.
    pub cgroup: &'a str,
    /// Part of one CPU, in thousandths.
    pub permille: u64,
}

impl Synthetic {
    /// A log in `folder`, which is made.
    pub fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        Self {
            file: BufWriter::new(File::create(folder.join(crate::log::LOG_NAME)).unwrap()),
            segmenter: Segmenter::new(Encoding {
                identity: Identity::StartTime,
                aliases: false,
                timezone: jiff::tz::TimeZone::UTC,
            }),
            carries: Carries::default(),
            seq: 0,
            at_ns: 0,
        }
    }

    /// One more interval: its length, the watts of the package, those of GPUs, and who ran. Of the package three fifths are the core's.
    pub fn interval(&mut self, length_ns: u64, watts: u64, gpu_watts: &[u64], ran: &[Ran<'_>]) {
        let (begin_ns, end_ns) = (self.at_ns, self.at_ns + length_ns);
        let energy_uj = |watts: u64| watts * length_ns / 1000;
        let busy: u64 = ran.iter().map(|ran| length_ns * ran.permille / 1000).sum();
        assert!(busy <= length_ns * u64::from(CPUS), "more than the machine has");
        let mut left_ns = busy;
        let cpus: Vec<CpuInterval> = (0..CPUS)
            .map(|cpu| {
                let busy_ns = left_ns.min(length_ns);
                left_ns -= busy_ns;
                CpuInterval {
                    cpu,
                    package: Some(0),
                    core: None,
                    begin_ns,
                    end_ns,
                    busy_ns,
                    idle_ns: length_ns - busy_ns,
                    lost_ns: 0,
                    switches: 1,
                    counts: None,
                }
            })
            .collect();
        let id = |tgid: u32| ProcessId {
            tgid,
            start_ns: u64::from(tgid),
        };
        let interval = Interval {
            seq: self.seq,
            begin_ns,
            end_ns,
            end_unix_ns: BEGIN_UNIX_S * 1_000_000_000 + i64::try_from(end_ns).unwrap(),
            cpus: cpus.clone(),
            usage: usage(&cpus, ran, id, length_ns),
            cgroups: ran
                .iter()
                .enumerate()
                .map(|(index, ran)| (index as u64 + 1, ran.cgroup.to_owned()))
                .collect(),
            processes: ran.iter().map(|ran| (id(ran.tgid), process(ran).into())).collect(),
            zones: vec![
                zone("package-0", ZoneKind::Package, energy_uj(watts)),
                zone("package-0/core", ZoneKind::Core, energy_uj(watts * 3 / 5)),
            ],
            gpus: gpu_watts
                .iter()
                .enumerate()
                .map(|(index, watts)| gpu(index, energy_uj(*watts), ran))
                .collect(),
            gpu_owners: ran
                .iter()
                .enumerate()
                .map(|(index, ran)| (ran.tgid, (id(ran.tgid), index as u64 + 1)))
                .collect(),
            ..Interval::default()
        };
        let ledger = attribute(&interval, &Options::default(), &self.carries);
        self.carries = self.carries.after(&ledger);
        for line in self.segmenter.next(&ledger).unwrap() {
            self.file.write_all(line.text().as_bytes()).unwrap();
        }
        self.seq += 1;
        self.at_ns = end_ns;
    }

    /// A phase begins or ends here (`phase_begin`, `phase_end`).
    pub fn phase(&mut self, event: &str, label: &str) {
        let event = json!({"schema": 1, "event": event, "seq": self.seq, "at_ns": self.at_ns, "label": label});
        writeln!(self.file, "{}", json!({"metrics": {}, "dlpm": event})).unwrap();
    }

    /// The machine sleeps: the clocks go on, and nobody measures.
    pub fn pause(&mut self, length_ns: u64) {
        self.at_ns += length_ns;
    }

    /// Ends the log.
    pub fn finish(mut self) {
        for line in self.segmenter.end().unwrap() {
            self.file.write_all(line.text().as_bytes()).unwrap();
        }
        self.file.flush().unwrap();
    }
}

/// Fills the CPUs one after another.
fn usage(cpus: &[CpuInterval], ran: &[Ran<'_>], id: impl Fn(u32) -> ProcessId, length_ns: u64) -> Vec<Usage> {
    let mut free: Vec<u64> = cpus.iter().map(|cpu| cpu.busy_ns).collect();
    let mut usage = Vec::new();
    for (index, ran) in ran.iter().enumerate() {
        let mut left_ns = length_ns * ran.permille / 1000;
        for (cpu, free_ns) in free.iter_mut().enumerate() {
            let cpu_ns = left_ns.min(*free_ns);
            *free_ns -= cpu_ns;
            left_ns -= cpu_ns;
            if cpu_ns > 0 {
                usage.push(Usage {
                    cpu: u32::try_from(cpu).unwrap(),
                    process: id(ran.tgid),
                    cgroup_id: index as u64 + 1,
                    ns: cpu_ns,
                    shared_ns: 0,
                    counts: Counts::default(),
                });
            }
        }
    }
    usage
}

fn process(ran: &Ran<'_>) -> Process {
    Process {
        comm: ran.comm.into(),
        exec_comm: ran.comm.into(),
        ..Process::default()
    }
}

fn zone(name: &str, kind: ZoneKind, energy_uj: u64) -> ZoneReading {
    ZoneReading {
        zone: name.to_owned(),
        kind,
        package: Some(0),
        energy_uj: Ok(energy_uj),
        counter_uj: None,
        range_uj: None,
        source: MeterSource::Powercap,
    }
}

/// The first process has the first one alone; the others are nobody's.
fn gpu(index: usize, energy_uj: u64, ran: &[Ran<'_>]) -> GpuReading {
    let index = u32::try_from(index).unwrap();
    GpuReading {
        uuid: format!("GPU-{index:08}"),
        index,
        name: "Imaginary".to_owned(),
        pci: String::new(),
        energy_uj: Ok(energy_uj),
        counter_uj: None,
        source: MeterSource::NvmlEnergy,
        read_at_ns: None,
        power_mw: None,
        utilization_percent: Some(50),
        memory_used_bytes: Some(1 << 30),
        memory_total_bytes: Some(1 << 34),
        usage: dlpm::interval::GpuUsage::Sm,
        inside: None,
        mig: false,
        sm_time: Ok(()),
        lists: Ok(()),
        dropped_samples: 0,
        notes: Vec::new(),
        processes: ran
            .iter()
            .take(usize::from(index == 0))
            .map(|ran| GpuProcess {
                pid: ran.tgid,
                sm_percent_us: 50_000,
                mem_percent_us: None,
                memory_bytes: Some(1 << 30),
                instances: Vec::new(),
            })
            .collect(),
    }
}
