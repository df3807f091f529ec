//! The sources of a machine, as options ask for them: found and checked before anything is attached.

use anyhow::{Result, bail};

use super::trace::idle::{self, Idle};
use crate::{
    cli::{IdleChoice, MachineArgs, Roots},
    sources::{
        cgroups::CgroupTree,
        cpu_time::{Config, MapSizes},
        energy::meter::{Meter, find_meter},
        gpu::Gpus,
        host::HostFacts,
        machine::MachineConfig,
        memory::MemoryOptions,
        timezone::local,
        topology::Topology,
    },
};

/// Everything that an engine needs, and what the user has to know of it.
pub struct Prepared {
    pub machine: MachineConfig,
    pub cgroups: CgroupTree,
    pub meter: Meter,
    pub gpus: Gpus,
    pub idle: Idle,
    /// What this machine limits, a sentence each.
    pub limits: Vec<String>,
    /// What the user has to know of this machine, a sentence each.
    pub notes: Vec<String>,
    /// What was chosen: it is told at the start only.
    pub start_notes: Vec<String>,
    /// The part of it that a log and a summary have as well.
    pub summary_notes: Vec<String>,
}

impl Prepared {
    /// Looks at the machine. With `names`, tenants get names.
    ///
    /// # Errors
    ///
    /// One paragraph that names the next step.
    pub fn of(args: &MachineArgs, names: bool) -> Result<Self> {
        let roots = &args.roots;
        let host = check(roots)?;
        let cgroups = CgroupTree::find(&roots.procfs)?;
        let topology = Topology::read(&roots.sysfs);
        let found = find_meter(&roots.sysfs, args.energy_source, args.estimate, &topology)?;
        let (mut meter, mut notes) = (found.meter, Vec::new());
        let (mut start_notes, mut summary_notes) = (found.ignored, Vec::new());
        if meter.estimate().is_some() {
            // The summary says it in its own words.
            start_notes.insert(0, found.choice);
        } else if meter.is_measured() {
            start_notes.insert(0, found.choice);
            summary_notes.clone_from(&start_notes);
        } else {
            notes.push(found.choice);
        }
        notes.extend(found.problems);
        let gpus = Gpus::start(&args.gpus.options(roots))?;
        let mut idle = idle::choose(args, &mut meter, &gpus)?;
        let idle_notes = std::mem::take(&mut idle.notes);
        if args.idle_policy == IdleChoice::Auto {
            // What was chosen is told like the meter that was chosen: with --quiet in the log alone.
            start_notes.extend_from_slice(&idle_notes);
            summary_notes.extend(idle_notes);
        } else {
            notes.extend(idle_notes);
        }
        if gpus.is_empty() {
            start_notes.extend_from_slice(gpus.notes());
        } else {
            notes.extend_from_slice(gpus.notes());
        }
        notes.extend(local().note.clone());
        Ok(Self {
            machine: config(
                roots,
                names,
                MapSizes {
                    spill: args.spill_entries,
                    processes: args.process_entries,
                    ..MapSizes::default()
                },
            ),
            cgroups,
            meter,
            gpus,
            idle,
            limits: host.limits(),
            notes,
            start_notes,
            summary_notes,
        })
    }
}

/// Whether the roots are there and dlpm may trace.
///
/// # Errors
///
/// One paragraph that names the next step.
pub fn check(roots: &Roots) -> Result<HostFacts> {
    for (option, root) in [
        ("--procfs", &roots.procfs),
        ("--sysfs", &roots.sysfs),
        ("--rootfs", &roots.rootfs),
    ] {
        if !root.is_dir() {
            bail!(
                "{option} {} is not a directory: give the root of a mounted tree, as /proc or /sys",
                root.display()
            );
        }
    }
    let host = HostFacts::read(&roots.procfs, &roots.sysfs);
    match host.errors().into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(host),
    }
}

/// What the sources of a machine have to know. With `names`, tenants get names.
pub fn config(roots: &Roots, names: bool, sizes: MapSizes) -> MachineConfig {
    MachineConfig {
        procfs: roots.procfs.clone(),
        sysfs: roots.sysfs.clone(),
        rootfs: roots.rootfs.clone(),
        names,
        cpu_time: Config {
            sizes,
            ..Config::default()
        },
        memory: MemoryOptions::default(),
        tenant_memory: false,
    }
}
