//! What the command line means on this machine: checked before anything is attached or written.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use jiff::{Timestamp, tz::TimeZone};

use crate::{
    attribution::{Options, selection::Selection},
    cli::{IdleChoice, TraceArgs},
    commands::{caller::Caller, counters::Counters, prepare::Prepared},
    interval::Trees,
    log::rotation::Limit,
    sinks::folder::FolderMode,
    sources::{cgroups::CgroupTree, energy::meter::Meter, gpu::Gpus, machine::MachineConfig, proc_fs, timezone::local},
    tables::answer,
    tenants::Wanted,
};

/// The tree that a trace follows.
pub const TREE: u8 = 0;

/// Where a trace writes, and what it says, whoever measures.
pub struct Output {
    /// The user who called sudo.
    pub caller: Option<Caller>,
    pub folder: PathBuf,
    pub mode: FolderMode,
    pub description: Option<String>,
    /// When the log goes on in a new file.
    pub rotate: Option<Limit>,
    pub interval: Duration,
    pub aliases: bool,
    pub quiet: bool,
    pub has_command: bool,
    /// Whose energy was asked for, in words; `None`: everyone's.
    pub listed: Option<String>,
    /// Whether the summary has a row for each process.
    pub each: bool,
    pub timezone: TimeZone,
}

/// Everything that a trace of its own needs, and that has been found to be there.
pub struct Plan {
    pub machine: MachineConfig,
    pub cgroups: CgroupTree,
    pub meter: Meter,
    pub gpus: Gpus,
    pub options: Options,
    /// Whether the user named the idle policy.
    pub policy_by_user: bool,
    pub roots: Vec<u32>,
    pub output: Output,
    /// Whether a filter needs names of tenants.
    pub by_name: bool,
    /// What the user has to know at the start only: the summary says it in its own words.
    pub start_notes: Vec<String>,
    /// What the log and the summary say in addition to `notes`, and the start has said already.
    pub summary_notes: Vec<String>,
    /// What the user has to know of this machine, a sentence each.
    pub notes: Vec<String>,
}

/// Reads the machine and resolves what was typed.
///
/// # Errors
///
/// One paragraph that names the next step.
pub fn plan(args: &TraceArgs) -> Result<Plan> {
    let mut prepared = Prepared::of(&args.machine, args.by_name())?;
    let counters = Counters::prepare(&args.counters, &args.machine.roots, &args.machine.calibration);
    prepared.machine.cpu_time.events = counters.events;
    let selection = selection(args, &prepared.cgroups)?;
    let (processes, mut notes) = processes(args);
    notes.splice(0..0, prepared.limits);
    notes.extend(prepared.notes);
    notes.extend(counters.notes);
    Ok(Plan {
        machine: prepared.machine,
        cgroups: prepared.cgroups,
        meter: prepared.meter,
        gpus: prepared.gpus,
        options: Options {
            selection,
            max_rows: usize::try_from(args.max_rows)?,
            smt_weight_permille: args.machine.smt_weight,
            idle_policy: prepared.idle.policy,
            idle_floors_mw: prepared.idle.floors_mw,
            weights: counters.weights,
        },
        policy_by_user: args.machine.idle_policy != IdleChoice::Auto,
        roots: processes,
        output: output(args, Caller::of_sudo()?),
        by_name: args.by_name(),
        start_notes: prepared.start_notes,
        summary_notes: prepared.summary_notes,
        notes,
    })
}

/// Where a trace writes, in the name of that user, and what it says.
pub fn output(args: &TraceArgs, caller: Option<Caller>) -> Output {
    let timezone = local().timezone.clone();
    let folder = match &args.output {
        Some(folder) => folder.clone(),
        None => {
            let now = Timestamp::now().to_zoned(timezone.clone());
            PathBuf::from(now.strftime("dlpm-%Y%m%d-%H%M%S").to_string())
        }
    };
    Output {
        caller,
        folder,
        mode: match (args.append, args.overwrite) {
            (true, _) => FolderMode::Append,
            (_, true) => FolderMode::Overwrite,
            _ => FolderMode::New,
        },
        description: args.description.clone(),
        rotate: args.rotate,
        interval: args.interval,
        aliases: !args.no_aliases,
        quiet: args.quiet,
        has_command: !args.command.is_empty(),
        listed: listed(args),
        each: args.each,
        timezone,
    }
}

/// The traced command, or the filters.
fn listed(args: &TraceArgs) -> Option<String> {
    let words: Vec<_> = args.command.iter().map(|word| word.to_string_lossy()).collect();
    let pids: Vec<String> = args.pid.iter().map(u32::to_string).collect();
    let roots = match (words.is_empty(), pids.as_slice()) {
        (false, _) => Some(format!("`{}`", answer::command(&words))),
        (true, []) => None,
        (true, [pid]) => Some(format!("Process {pid} with its descendants")),
        (true, pids) => Some(format!("Processes {} with their descendants", pids.join(", "))),
    };
    let of = |word: &str, names: &[String]| names.iter().map(|name| format!("{word} {name}")).collect();
    let comms: Vec<String> = args.comm.iter().map(|pattern| pattern.as_str().to_owned()).collect();
    let tenants = [&args.job, &args.container, &args.pod, &args.unit, &args.tenant];
    let tenants = tenants.map(|tenants| tenants.iter().map(Wanted::to_string).collect());
    let filters: [Vec<String>; 3] = [of("cgroup", &args.cgroup), of("user", &args.uid), of("name", &comms)];
    let filters = filters.into_iter().chain(tenants).filter(|filter| !filter.is_empty());
    let filters: Vec<String> = filters.map(|values| values.join(" or ")).collect();
    match (roots, filters.is_empty()) {
        (roots, true) => roots,
        (None, false) => Some(format!("Processes of {}", filters.join(" and "))),
        (Some(roots), false) => Some(format!("{roots}, processes of {} only,", filters.join(" and "))),
    }
}

/// The processes of `--pid`, with a sentence for each number that is a thread's: `htop` and `perf` show those as well.
pub fn processes(args: &TraceArgs) -> (Vec<u32>, Vec<String>) {
    let (mut processes, mut notes) = (Vec::new(), Vec::new());
    for &pid in &args.pid {
        let process = proc_fs::process_of(&args.machine.roots.procfs, pid).unwrap_or(pid);
        if process != pid {
            notes.push(format!(
                "--pid {pid} is a thread of process {process}: the whole process is traced"
            ));
        }
        processes.push(process);
    }
    (processes, notes)
}

fn selection(args: &TraceArgs, cgroups: &CgroupTree) -> Result<Selection> {
    for pid in &args.pid {
        if proc_fs::start_ticks(&args.machine.roots.procfs, *pid).is_none() {
            bail!(
                "there is no process {pid}: it is gone, or its number is one of another pid namespace; `pgrep -a NAME` \
                 finds processes, and `dlpm trace -- COMMAND` traces one from its start"
            );
        }
    }
    Ok(Selection {
        cgroups: args
            .cgroup
            .iter()
            .map(|wanted| cgroups.resolve(wanted))
            .collect::<Result<_, _>>()?,
        tenants: tenants(args),
        comm: args.comm.clone(),
        uids: args
            .uid
            .iter()
            .map(|user| proc_fs::uid_of_user(user))
            .collect::<Result<_, _>>()
            .context("--uid")?,
        trees: if args.pid.is_empty() && args.command.is_empty() {
            Trees::default()
        } else {
            Trees::one(TREE)
        },
    })
}

/// One list for each filter that was given.
fn tenants(args: &TraceArgs) -> Vec<Vec<Wanted>> {
    let uid_of = |user: &str| proc_fs::uid_of_user(user).ok();
    [&args.job, &args.container, &args.pod, &args.unit, &args.tenant]
        .into_iter()
        .filter(|wanted| !wanted.is_empty())
        .map(|wanted| wanted.iter().cloned().map(|one| one.with_uid(uid_of)).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[track_caller]
    fn says(words: &[&str]) -> Option<String> {
        match Cli::try_parse_from([&["dlpm", "trace"], words].concat())
            .unwrap()
            .command
        {
            Command::Trace(args) => listed(&args),
            _ => None,
        }
    }

    #[test]
    fn the_headline_names_what_was_asked_for() {
        assert_eq!(says(&[]), None);
        for (words, expected) in [
            (&["--", "/usr/bin/python3", "train.py"][..], "`python3 train.py`"),
            (&["--pid", "7"], "Process 7 with its descendants"),
            (&["--pid", "7", "--pid", "8"], "Processes 7, 8 with their descendants"),
            (
                &["--cgroup", "a.slice", "--cgroup", "b"],
                "Processes of cgroup a.slice or cgroup b",
            ),
            (&["--comm", "^py", "--uid", "bob"], "Processes of user bob and name ^py"),
            (&["--job", "4711"], "Processes of job 4711"),
            (
                &["--comm", "gzip", "--", "sh", "x"],
                "`sh x`, processes of name gzip only,",
            ),
        ] {
            assert_eq!(says(words).as_deref(), Some(expected), "{words:?}");
        }
        let long = says(&["--", "sh", "-c", &"a b\n".repeat(100)]).unwrap();
        assert!(long.ends_with("…`") && long.chars().count() == 62, "{long}");
    }
}
