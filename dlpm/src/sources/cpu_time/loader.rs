//! Loads the eBPF object and attaches its programs; what each of them came to is kept for the log and `dlpm doctor`.

use std::{io, iter, os::fd::AsFd, path::Path};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::Map,
    programs::{BtfTracePoint, Iter, ProgramError, RawTracePoint},
};
use dlpm_common::{globals, maps, pace, programs};

use super::{
    Config, CpuTimeError, Identity, Pace,
    batch::set_descriptor,
    kernel_types::{KERNEL_BTF, KernelTypes, Kind},
    offsets::KernelOffsets,
};

/// The eBPF object, aligned as the ELF parser wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dlpm.bpf.o"));

/// What the hot path is attached to, as a type of the kernel.
const SWITCH_TYPE: (Kind, &str) = (Kind::Typedef, "btf_trace_sched_switch");

/// What the list of tasks is attached to.
const TASKS_TYPE: (Kind, &str) = (Kind::Function, "bpf_iter_task");

/// One place in the kernel where a program of dlpm runs.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Name of the program.
    pub program: &'static str,
    /// Other programs that do the same, for runs of the first that the kernel leaves out.
    pub again: &'static [&'static str],
    /// Name of the tracepoint.
    pub tracepoint: &'static str,
    /// What it is there for, and what is lost without it.
    pub purpose: &'static str,
    /// Attached, or why it is not.
    pub state: Result<(), String>,
}

/// The loaded object and what became of its hooks.
pub(super) struct Loaded {
    pub ebpf: Ebpf,
    pub identity: Identity,
    /// Why processes are distinguished by tgid alone, if they are.
    pub identity_reason: Option<String>,
    pub hooks: Vec<Hook>,
    /// The switch program, not yet attached.
    pub switch: &'static str,
    pub seal: &'static str,
}

/// Loads the object, the hot path and the cold hooks, and attaches the cold ones. Each cold program is loaded for
/// itself, so that CPU time survives where one of them cannot be loaded.
pub(super) fn load(config: &Config, cpus: u32, pace: Pace) -> Result<Loaded, CpuTimeError> {
    if OBJECT.is_empty() {
        return Err(CpuTimeError::NotBuilt);
    }
    let types = match config.identity {
        Some(Identity::Tgid) => Err("start times were not asked for".to_owned()),
        _ => KernelTypes::read(Path::new(KERNEL_BTF)),
    };
    let kernel = types.and_then(|types| {
        let attached_to = types.for_aya([SWITCH_TYPE, TASKS_TYPE])?;
        Ok((KernelOffsets::of(&types), attached_to))
    });
    let mut ebpf = load_object(config, cpus, pace, kernel.as_ref().ok().map(|(offsets, _)| offsets))?;

    let exact = match config.only {
        None => (programs::ON_SWITCH, programs::SEAL),
        Some(_) => (programs::ON_SWITCH_OF_ONE, programs::SEAL_OF_ONE),
    };
    let by_start_time = match &kernel {
        Err(reason) => Err(reason.clone()),
        Ok((found, _)) if !found.missing_task_fields.is_empty() => {
            Err(format!("this kernel has no {}", found.missing_task_fields.join(", ")))
        }
        Ok((_, attached_to)) => load_by_start_time(&mut ebpf, attached_to, exact),
    };
    let (identity, switch, seal) = if by_start_time.is_ok() {
        (Identity::StartTime, exact.0, exact.1)
    } else {
        for program in [programs::ON_SWITCH_BY_TGID, programs::SEAL_BY_TGID] {
            raw_tracepoint(&mut ebpf, program)
                .and_then(|loaded| loaded.load())
                .map_err(|source| CpuTimeError::refused(program, source))?;
        }
        (Identity::Tgid, programs::ON_SWITCH_BY_TGID, programs::SEAL_BY_TGID)
    };
    let identity_reason = by_start_time.err();

    let task_fields = identity_reason.clone().map_or(Ok(()), Err);
    let cgroup_fields = match &kernel {
        Ok((found, _)) if found.missing_cgroup_fields.is_empty() => Ok(()),
        Ok((found, _)) => Err(format!("this kernel has no {}", found.missing_cgroup_fields.join(", "))),
        Err(reason) => Err(reason.clone()),
    };
    let mut hooks = Vec::new();
    for (program, again, tracepoint, purpose, ready) in [
        (
            programs::ON_EXIT,
            &programs::ON_EXIT_AGAIN[..],
            "sched_process_exit",
            "tells that a process is gone (without it, /proc is asked)",
            &task_fields,
        ),
        (
            programs::ON_RENAME,
            &programs::ON_RENAME_AGAIN[..],
            "task_rename",
            "names that processes give themselves (without it, the name at exec is shown)",
            &task_fields,
        ),
        (
            programs::ON_EXEC,
            &programs::ON_EXEC_AGAIN[..],
            "sched_process_exec",
            "names at exec (without it, short processes have no name)",
            &task_fields,
        ),
        (
            programs::ON_FORK,
            &[],
            "sched_wakeup_new",
            "parents and process trees (without it, short processes have neither)",
            &task_fields,
        ),
        (
            programs::ON_CGROUP_MKDIR,
            &[],
            "cgroup_mkdir",
            "names of cgroups that are removed soon (without it, they are shown by number)",
            &cgroup_fields,
        ),
    ] {
        let state = ready.clone().and_then(|()| {
            let mut all = iter::once(&program).chain(again);
            all.try_for_each(|program| attach_cold(&mut ebpf, program, tracepoint))
        });
        hooks.push(Hook {
            program,
            again,
            tracepoint,
            purpose,
            state,
        });
    }
    let state = task_fields.clone().and_then(|()| match &kernel {
        Ok((_, attached_to)) => list_tasks(&mut ebpf, attached_to),
        Err(reason) => Err(reason.clone()),
    });
    hooks.push(Hook {
        program: programs::LIST_TASKS,
        again: &[],
        tracepoint: "iter/task",
        purpose: "processes that are older than the trace (without it, /proc is asked for each)",
        state,
    });
    Ok(Loaded {
        ebpf,
        identity,
        identity_reason,
        hooks,
        switch,
        seal,
    })
}

fn load_object(config: &Config, cpus: u32, pace: Pace, offsets: Option<&KernelOffsets>) -> Result<Ebpf, CpuTimeError> {
    let sizes = &config.sizes;
    let smt = u32::from(!config.siblings.is_empty());
    let only = config.only.unwrap_or(0);
    let pace = match pace {
        Pace::Interrupt => pace::INTERRUPT,
        Pace::Gentle => pace::GENTLE,
        Pace::WithoutBarrier => pace::WITHOUT_BARRIER,
    };
    let offsets = offsets.map(|found| found.offsets).unwrap_or_default();
    let events = u32::try_from(config.events.len()).unwrap_or(0);
    let counted = if events > 0 { cpus } else { 1 };
    let slots = (cpus * 2) << sizes.slots_log2;
    let mut loader = EbpfLoader::new();
    loader
        // Rust eBPF has no relocations for which aya would need the kernel's types, and would parse all of them.
        .btf(None)
        .override_global(globals::SLOTS_LOG2, &sizes.slots_log2, true)
        .override_global(globals::SMT, &smt, true)
        .override_global(globals::PACE, &pace, true)
        .override_global(globals::ONLY, &only, true)
        .override_global(globals::EVENTS, &events, true)
        .override_global(globals::OFFSETS, &offsets, true)
        .map_max_entries(maps::CPUS, cpus)
        .map_max_entries(maps::SLOTS, slots)
        .map_max_entries(maps::COUNTS, counted)
        .map_max_entries(maps::SLOT_COUNTS, if events > 0 { slots } else { 1 })
        .map_max_entries(maps::SPILL[0], sizes.spill)
        .map_max_entries(maps::SPILL[1], sizes.spill)
        .map_max_entries(maps::PROCESSES, sizes.processes)
        .map_max_entries(maps::CGROUPS, sizes.cgroups);
    for event in maps::EVENTS {
        loader.map_max_entries(event, counted);
    }
    let ebpf = loader.load(OBJECT).map_err(CpuTimeError::object)?;
    for (event, map) in config.events.iter().zip(maps::EVENTS) {
        let Some(Map::PerfEventArray(array)) = ebpf.map(map) else {
            return Err(CpuTimeError::NotBuilt);
        };
        for (cpu, descriptor) in &event.by_cpu {
            set_descriptor(array.fd().as_fd(), *cpu, descriptor.as_fd())
                .map_err(|source| CpuTimeError::Map { map, source })?;
        }
    }
    Ok(ebpf)
}

fn load_by_start_time(ebpf: &mut Ebpf, attached_to: &Btf, (switch, seal): (&str, &str)) -> Result<(), String> {
    let program: &mut BtfTracePoint = ebpf
        .program_mut(switch)
        .ok_or_else(|| missing(switch))?
        .try_into()
        .map_err(describe)?;
    program.load("sched_switch", attached_to).map_err(describe)?;
    raw_tracepoint(ebpf, seal)
        .and_then(|program| program.load())
        .map_err(describe)
}

/// Attaches the switch program: from here on the kernel counts.
pub(super) fn attach_switch(loaded: &mut Loaded) -> Result<(), CpuTimeError> {
    let refused = |source| CpuTimeError::refused(loaded.switch, source);
    match loaded.identity {
        Identity::StartTime => {
            let program = loaded.ebpf.program_mut(loaded.switch).ok_or(CpuTimeError::NotBuilt)?;
            let program: &mut BtfTracePoint = program.try_into().map_err(refused)?;
            program.attach().map_err(refused)?;
        }
        Identity::Tgid => {
            raw_tracepoint(&mut loaded.ebpf, loaded.switch)
                .and_then(|program| program.attach("sched_switch"))
                .map_err(refused)?;
        }
    }
    loaded.hooks.insert(
        0,
        Hook {
            program: loaded.switch,
            again: &[],
            tracepoint: "sched_switch",
            purpose: "CPU time (without it there is no trace)",
            state: Ok(()),
        },
    );
    Ok(())
}

fn attach_cold(ebpf: &mut Ebpf, program: &str, tracepoint: &str) -> Result<(), String> {
    let program = raw_tracepoint(ebpf, program).map_err(describe)?;
    program.load().map_err(describe)?;
    program.attach(tracepoint).map_err(describe)?;
    Ok(())
}

/// A program of the object that is a raw tracepoint.
pub(super) fn raw_tracepoint<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut RawTracePoint, ProgramError> {
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}

/// Runs the task iterator once: the other hooks are in place, so that from now on no process is missed.
fn list_tasks(ebpf: &mut Ebpf, attached_to: &Btf) -> Result<(), String> {
    let program: &mut Iter = ebpf
        .program_mut(programs::LIST_TASKS)
        .ok_or_else(|| missing(programs::LIST_TASKS))?
        .try_into()
        .map_err(describe)?;
    program.load("task", attached_to).map_err(describe)?;
    let link = program.attach().map_err(describe)?;
    let mut file = program
        .take_link(link)
        .map_err(describe)?
        .into_file()
        .map_err(|error| error.to_string())?;
    io::copy(&mut file, &mut io::sink()).map_err(|error| error.to_string())?;
    Ok(())
}

fn missing(program: &str) -> String {
    format!("the eBPF object has no program {program}")
}

/// One line: the verifier's log is long, and only its last lines say what is wrong.
pub(super) fn describe(error: ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let last: Vec<_> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let tail = last.iter().rev().take(3).rev().copied().collect::<Vec<_>>().join("; ");
            format!("the kernel refused it: {io_error} ({tail})")
        }
        ProgramError::SyscallError(error) => format!("{error}: {}", error.io_error),
        other => other.to_string(),
    }
}

/// Whether an error of running a program means that the CPU is offline.
pub(super) fn is_offline(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error)
        if error.io_error.raw_os_error() == Some(libc::ENXIO))
}

/// Whether the kernel refused for lack of privileges.
pub(super) fn is_permission(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied)
}
