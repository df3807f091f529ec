//! Exact CPU time: intervals that are sealed on every CPU.
//!
//! The kernel side writes one of two buffers per CPU. To end an interval, user space runs the `seal` program once on
//! each CPU; it charges the slice in flight, takes one clock reading as the end of the old and the start of the new
//! interval, and turns the CPU to the other buffer. A CPU that is idle is not interrupted for that: user space writes down
//! that its interval has ended, and the CPU takes that turn when it leaves idle. When all CPUs have turned, nobody writes
//! the old buffers any more.

mod batch;
mod cgroups;
mod cost;
mod error;
mod kernel_types;
mod loader;
mod missed;
mod offsets;
mod online;
mod seal;
mod tables;
mod turn;

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::Arc,
};

use aya::{
    Ebpf,
    maps::{Map, MapData, PerCpuArray},
    programs::{Program, RawTracePoint},
};
use dlpm_common::{Counter, CountsBuffer, CpuBuffer, Slot, maps};
use rustix::thread::sched_getcpu;

pub use batch::{Batch, delete_from_hash, read_hash};
pub use cgroups::CgroupNews;
pub use error::CpuTimeError;
pub use kernel_types::KERNEL_BTF;
pub use loader::Hook;
pub use offsets::field_offsets;
pub use tables::Tables;

use cost::CostMeter;
use missed::MissedRuns;
use seal::Border;
use turn::{Attempt, Taken, Turner};

pub use crate::interval::Identity;

use crate::{
    interval::{Counts, CpuCounts, CpuInterval, ProcessId, SwitchCost, Usage},
    sources::{clock::monotonic_ns, events::Counted},
};

/// Largest [`MapSizes::slots_log2`].
pub const MAX_SLOTS_LOG2: u32 = 16;

/// Sizes of the kernel's maps; full ones lose no time, but names.
#[derive(Clone, Copy, Debug)]
pub struct MapSizes {
    /// log2 of the slots per CPU and buffer, 0 to [`MAX_SLOTS_LOG2`]; a slot has 64 bytes.
    pub slots_log2: u32,
    /// Records of all CPUs that find no slot.
    pub spill: u32,
    /// Processes that live at the same time.
    pub processes: u32,
    /// cgroups that are created in one interval.
    pub cgroups: u32,
}

impl Default for MapSizes {
    fn default() -> Self {
        Self {
            slots_log2: 10,
            spill: 65_536,
            processes: 65_536,
            cgroups: 1_024,
        }
    }
}

/// How the interval of a CPU that is idle ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// By an interrupt, as that of a busy one.
    Interrupt,
    /// Without one. Needs an x86-64, whose order of memory the eBPF programs rely on; elsewhere every CPU is interrupted.
    #[default]
    Gentle,
    /// The same without the barrier that makes it exact. Only to show that the race test finds that.
    WithoutBarrier,
}

/// What [`CpuTime::start`] needs to know.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Sizes of the maps.
    pub sizes: MapSizes,
    /// Pairs of CPUs that are hardware threads of one core.
    pub siblings: Vec<(u32, u32)>,
    /// `Some(Tgid)` does without start times even where the kernel has them.
    pub identity: Option<Identity>,
    /// How the interval of an idle CPU ends.
    pub pace: Pace,
    /// The list of CPUs that are online, in the place of the kernel's. For tests.
    pub online: Option<PathBuf>,
    /// The events that are counted at each context switch, at most [`MAX_EVENTS`](crate::interval::MAX_EVENTS).
    pub events: Arc<[Counted]>,
    /// Count one process, by thread group id, and call all others idle. For tests; not where processes are distinguished by
    /// their thread group id.
    pub only: Option<u32>,
}

/// What a seal read; the buffers are still to be drained.
#[derive(Clone, Debug)]
#[must_use = "the sealed buffers have to be drained before the next seal"]
pub struct Sealed {
    /// Number of the interval that ended. Interval 0 lies before the first seal and means nothing.
    pub sequence: u64,
    /// Time that sealing all CPUs took.
    pub seal_ns: u64,
    /// Each CPU that was online for some of the interval.
    pub cpus: Vec<SealedCpu>,
    /// How it was done.
    pub counts: SealCounts,
}

/// The interval of a CPU.
#[derive(Clone, Copy, Debug)]
pub struct SealedCpu {
    /// Number of the CPU.
    pub cpu: u32,
    /// As of the border: a CPU that takes a turn later writes into its old buffer once more.
    buffer: CpuBuffer,
    /// The same of its events, where any are counted.
    counts: Option<CountsBuffer>,
}

impl SealedCpu {
    fn new(cpu: u32, buffer: CpuBuffer, counts: Option<CountsBuffer>) -> Self {
        Self { cpu, buffer, counts }
    }

    /// Begin of the interval, CLOCK_MONOTONIC.
    pub fn begin_ns(&self) -> u64 {
        self.buffer.begin_ns
    }

    /// End of the interval, CLOCK_MONOTONIC.
    pub fn end_ns(&self) -> u64 {
        self.buffer.end_ns
    }
}

/// On how many CPUs a seal did what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SealCounts {
    /// Interrupted: those where the program `seal` ran, without the one that the sealing thread was on.
    pub interrupts: u32,
    /// Idle, and not interrupted.
    pub turned: u32,
    /// Part of these: they had no event in the whole interval.
    pub silent: u32,
    /// Left idle while they were being turned; part of `interrupts`.
    pub raced: u32,
    /// Part of these: they took the turn in time.
    pub took: u32,
    /// Part of these: they took the turn in the place of the one before.
    pub newer: u32,
}

/// What an interval's buffers held.
#[derive(Clone, Debug, Default)]
pub struct Drained {
    /// CPUs that were online for some of the interval; `package` is 0 and for the caller to set.
    pub cpus: Vec<CpuInterval>,
    /// One record per process, cgroup and CPU.
    pub usage: Vec<Usage>,
    /// Times that a clock stood behind the last event of its CPU.
    pub clock_steps: u64,
    /// Slices whose overlap with the sibling had to be clamped.
    pub overlap_clamps: u64,
}

/// The source of CPU time: programs, maps and the protocol between them.
pub struct CpuTime {
    ebpf: Ebpf,
    tables: Tables,
    turner: Option<Turner>,
    identity: Identity,
    identity_reason: Option<String>,
    hooks: Vec<Hook>,
    missed: MissedRuns,
    switch: &'static str,
    seal: &'static str,
    sequence: u64,
    /// [`Counter::CgroupsInserted`] at the last drain.
    cgroups_seen: u64,
    cost: CostMeter,
}

impl CpuTime {
    /// Loads and attaches everything. The kernel counts from here on; the first seal begins the first interval.
    ///
    /// # Errors
    ///
    /// Where the programs that count CPU time cannot be loaded. Other hooks only show in [`Self::hooks`].
    pub fn start(config: &Config) -> Result<Self, CpuTimeError> {
        let slots_log2 = config.sizes.slots_log2;
        if slots_log2 > MAX_SLOTS_LOG2 {
            return Err(CpuTimeError::SlotsLog2 { slots_log2 });
        }
        let cpus = possible_cpus()?;
        let turner = match config.pace {
            Pace::Interrupt => None,
            Pace::Gentle | Pace::WithoutBarrier if cfg!(target_arch = "x86_64") => {
                Turner::new(cpus, config.online.as_deref())
            }
            Pace::Gentle | Pace::WithoutBarrier => None,
        };
        let pace = turner.as_ref().map_or(Pace::Interrupt, |_| config.pace);
        let mut loaded = loader::load(config, cpus, pace)?;
        let counts = map_fd(&loaded.ebpf, maps::COUNTS)?;
        let slot_counts = map_fd(&loaded.ebpf, maps::SLOT_COUNTS)?;
        let tables = Tables::map(
            map_fd(&loaded.ebpf, maps::CPUS)?,
            map_fd(&loaded.ebpf, maps::SLOTS)?,
            cpus,
            slots_log2,
        )
        .and_then(|tables| match config.events.is_empty() {
            true => Ok(tables),
            false => tables.with_counts(counts, slot_counts),
        })
        .map_err(|source| CpuTimeError::Map {
            map: maps::SLOTS,
            source,
        })?;
        for cpu in 0..cpus {
            tables.set_sibling(cpu, u32::MAX);
        }
        for &(one, other) in config
            .siblings
            .iter()
            .filter(|(one, other)| *one < cpus && *other < cpus)
        {
            tables.set_sibling(one, other);
            tables.set_sibling(other, one);
        }
        loader::attach_switch(&mut loaded)?;
        let cost =
            CostMeter::start(program_fd(&loaded.ebpf, loaded.switch).ok_or_else(|| "it has no descriptor".to_owned()));
        let missed = MissedRuns::open(&loaded.ebpf, &loaded.hooks);
        Ok(Self {
            ebpf: loaded.ebpf,
            tables,
            turner,
            identity: loaded.identity,
            identity_reason: loaded.identity_reason,
            hooks: loaded.hooks,
            missed,
            switch: loaded.switch,
            seal: loaded.seal,
            sequence: 0,
            cgroups_seen: 0,
            cost,
        })
    }

    /// How processes are distinguished, and why not by start time if they are not.
    pub fn identity(&self) -> (Identity, Option<&str>) {
        (self.identity, self.identity_reason.as_deref())
    }

    /// State of every hook.
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// The mapped states and slots.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The loaded object, for the log of rare events.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// A map of the object.
    pub fn map(&self, name: &'static str) -> Result<BorrowedFd<'_>, CpuTimeError> {
        map_fd(&self.ebpf, name)
    }

    /// Takes a map out of the object.
    pub fn take_map(&mut self, name: &'static str) -> Result<Map, CpuTimeError> {
        self.ebpf.take_map(name).ok_or(CpuTimeError::NotBuilt)
    }

    /// Ends the open interval on every CPU and begins the next one.
    ///
    /// # Errors
    ///
    /// Where a CPU that is online cannot be sealed: then there is no exact time any more.
    pub fn seal(&mut self) -> Result<Sealed, CpuTimeError> {
        let begun = monotonic_ns();
        let border = Border {
            ended: self.sequence,
            target: self.sequence + 1,
        };
        let program: &RawTracePoint = self
            .ebpf
            .program(self.seal)
            .ok_or(CpuTimeError::NotBuilt)?
            .try_into()
            .map_err(|source| CpuTimeError::refused(self.seal, source))?;
        let mut cpus = Vec::with_capacity(self.tables.cpus() as usize);
        let mut counts = SealCounts::default();
        for cpu in 0..self.tables.cpus() {
            let attempt = match &mut self.turner {
                Some(turner) => turner.turn(&self.tables, cpu, border),
                None => Attempt::Interrupt(None),
            };
            let raced = match attempt {
                Attempt::Ended(sealed, was_silent) => {
                    counts.turned += 1;
                    counts.silent += u32::from(was_silent);
                    cpus.push(sealed);
                    continue;
                }
                Attempt::Interrupt(raced) => raced,
            };
            let is_other = u32::try_from(sched_getcpu()) != Ok(cpu);
            let (sealed, ran) = seal::seal_cpu(program, &self.tables, cpu, border)?;
            counts.interrupts += u32::from(ran && is_other);
            let Some(mut sealed) = sealed else { continue };
            if let Some(raced) = raced {
                let taken;
                (sealed, taken) = raced.resolve(&self.tables, sealed, border);
                counts.raced += 1;
                counts.took += u32::from(taken != Taken::Nothing);
                counts.newer += u32::from(taken == Taken::Newer);
            }
            cpus.push(sealed);
        }
        self.sequence = border.target;
        Ok(Sealed {
            sequence: border.ended,
            seal_ns: monotonic_ns() - begun,
            cpus,
            counts,
        })
    }

    /// Takes what the sealed buffers hold and leaves them empty.
    ///
    /// # Errors
    ///
    /// Where the spill map cannot be read.
    pub fn drain(&mut self, sealed: &Sealed) -> Result<Drained, CpuTimeError> {
        let mut drained = Drained::default();
        let mut spilled = false;
        for &SealedCpu { cpu, buffer, counts } in &sealed.cpus {
            let mut busy_ns = 0;
            let mut busy = Counts::default();
            self.tables
                .take_slots(cpu, sealed.sequence, buffer.claimed, |slot, counts| {
                    busy_ns += slot.ns;
                    let counts = Counts(counts);
                    busy.add(&counts);
                    drained.usage.extend(usage_of_slot(cpu, &slot, counts));
                });
            spilled |= buffer.spilled > 0;
            drained.clock_steps += buffer.clock_steps;
            drained.overlap_clamps += buffer.overlap_clamps;
            drained.cpus.push(CpuInterval {
                cpu,
                package: None,
                core: None,
                begin_ns: buffer.begin_ns,
                end_ns: buffer.end_ns,
                busy_ns,
                idle_ns: buffer.idle_ns,
                lost_ns: buffer.lost_ns,
                switches: buffer.switches,
                counts: counts.map(|counts| CpuCounts {
                    first: Counts(counts.first),
                    last: Counts(counts.last),
                    busy,
                    idle: Counts(counts.idle),
                    lost: Counts(counts.lost),
                    failed: counts.failed,
                }),
            });
        }
        if spilled {
            self.drain_spill(sealed.sequence, &mut drained)?;
        }
        Ok(drained)
    }

    fn drain_spill(&self, sequence: u64, drained: &mut Drained) -> Result<(), CpuTimeError> {
        let name = maps::SPILL[usize::from(sequence & 1 == 1)];
        let records: Vec<(dlpm_common::UsageKey, dlpm_common::Usage)> =
            read_hash(self.map(name)?, Batch::Drain).map_err(|source| CpuTimeError::Map { map: name, source })?;
        for (key, usage) in records {
            if let Ok(index) = drained.cpus.binary_search_by_key(&key.cpu, |cpu| cpu.cpu) {
                drained.cpus[index].busy_ns += usage.ns;
                if let Some(counts) = &mut drained.cpus[index].counts {
                    counts.busy.add(&Counts(usage.counts));
                }
            }
            drained.usage.push(Usage {
                process: ProcessId {
                    tgid: key.tgid,
                    start_ns: key.start_ns,
                },
                cgroup_id: key.cgroup_id,
                cpu: key.cpu,
                ns: usage.ns,
                shared_ns: usage.shared_ns,
                counts: Counts(usage.counts),
            });
        }
        Ok(())
    }

    /// Sum over all CPUs of a counter of the kernel side, since the start.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.ebpf
            .map(maps::COUNTERS)
            .and_then(|map| PerCpuArray::<&MapData, u64>::try_from(map).ok())
            .and_then(|counters| counters.get(&(counter as u32), 0).ok())
            .map_or(0, |values| values.iter().sum())
    }

    /// Events of which the kernel left out the run, because the program was running on that CPU already. At the most, where
    /// a hook has several programs: what none of them has seen was left out of each. Kernels before 5.12 do not tell.
    pub fn missed_runs(&self) -> u64 {
        self.missed.count()
    }

    /// What the program at the context switch costs on this machine, measured when it was attached; `None` while that is
    /// still being measured, and a sentence where the kernel does not tell.
    pub fn switch_cost(&self) -> Option<Result<SwitchCost, String>> {
        self.cost.result().cloned()
    }

    /// Whether a CPU that is idle is left alone when an interval ends.
    pub fn is_gentle(&self) -> bool {
        self.turner.is_some()
    }

    /// Name of the program that runs at a context switch.
    pub fn switch_program(&self) -> &'static str {
        self.switch
    }
}

fn usage_of_slot(cpu: u32, slot: &Slot, counts: Counts) -> Option<Usage> {
    // A slice of no length (the first event of a CPU) claims a slot, but is nobody's time.
    (slot.ns > 0 || !counts.is_zero()).then_some(Usage {
        process: ProcessId {
            tgid: slot.tgid,
            start_ns: slot.start_ns,
        },
        cgroup_id: slot.cgroup_id,
        cpu,
        ns: slot.ns,
        shared_ns: slot.shared_ns,
        counts,
    })
}

fn map_fd<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<BorrowedFd<'a>, CpuTimeError> {
    match ebpf.map(name) {
        Some(Map::Array(data) | Map::HashMap(data)) => Ok(data.fd().as_fd()),
        _ => Err(CpuTimeError::NotBuilt),
    }
}

fn program_fd<'a>(ebpf: &'a Ebpf, name: &str) -> Option<BorrowedFd<'a>> {
    let fd = match ebpf.program(name)? {
        Program::RawTracePoint(program) => program.fd().ok()?,
        Program::BtfTracePoint(program) => program.fd().ok()?,
        _ => return None,
    };
    Some(fd.as_fd())
}

fn possible_cpus() -> Result<u32, CpuTimeError> {
    let count = aya::util::nr_cpus().map_err(|(what, source)| CpuTimeError::Cpus {
        what: what.to_owned(),
        source,
    })?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}
