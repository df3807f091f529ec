//! What `dlpm trace` asks of the agent: the options that make sense there, as a request.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;

use super::setup;
use crate::{
    cli::{Cli, Command, MachineArgs, TraceArgs},
    socket::wire::{Follow, INTERVAL_STEP_MS, RecordingRequest},
    sources::{cgroups::CgroupTree, proc_fs},
    tenants::Wanted,
};

/// The options that were given and are the agent's to choose, as they are typed.
pub fn not_for_the_agent(of: &MachineArgs) -> Vec<&'static str> {
    let Some(usual) = usual() else { return Vec::new() };
    let same = |one: &dyn std::fmt::Debug, other: &dyn std::fmt::Debug| format!("{one:?}") == format!("{other:?}");
    let options: [(&str, bool); 12] = [
        ("--energy-source", same(&of.energy_source, &usual.energy_source)),
        ("--estimate", of.estimate.is_none()),
        ("--idle-policy", of.idle_policy == usual.idle_policy),
        ("--calibration", of.calibration == usual.calibration),
        ("--smt-weight", of.smt_weight == usual.smt_weight),
        ("--gpu", of.gpus.gpu.is_empty()),
        ("--nvml-library", of.gpus.nvml_library.is_none()),
        ("--sysfs", of.roots.sysfs == usual.roots.sysfs),
        ("--procfs", of.roots.procfs == usual.roots.procfs),
        ("--rootfs", of.roots.rootfs == usual.roots.rootfs),
        ("--spill-entries", of.spill_entries == usual.spill_entries),
        ("--process-entries", of.process_entries == usual.process_entries),
    ];
    options
        .into_iter()
        .filter_map(|(name, is_usual)| (!is_usual).then_some(name))
        .collect()
}

/// What is used where nothing is typed.
fn usual() -> Option<MachineArgs> {
    match Cli::try_parse_from(["dlpm", "trace"]).ok()?.command {
        Command::Trace(args) => Some(args.machine),
        _ => None,
    }
}

/// An interval in milliseconds.
///
/// # Errors
///
/// Where the agent makes none of that length.
pub fn interval_ms(interval: Duration) -> Result<u64> {
    let ms = u64::try_from(interval.as_millis())?;
    let is_whole = interval.as_nanos().is_multiple_of(1_000_000);
    if !is_whole || !ms.is_multiple_of(INTERVAL_STEP_MS) {
        bail!(
            "--interval: the agent makes intervals of 100ms, 200ms, … up to 1h; for others run dlpm as root (`sudo dlpm …`)"
        );
    }
    Ok(ms)
}

/// The request for a recording.
///
/// # Errors
///
/// Where a filter cannot be resolved, or the interval is not one that the agent makes.
pub fn request(args: &TraceArgs) -> Result<RecordingRequest> {
    let interval_ms = interval_ms(args.interval)?;
    let command = (!args.command.is_empty()).then_some(Follow::Children);
    let (pids, _) = setup::processes(args);
    let cgroups = if args.cgroup.is_empty() {
        Vec::new()
    } else {
        let tree = CgroupTree::find(&args.machine.roots.procfs)?;
        let paths = args.cgroup.iter().map(|wanted| tree.resolve(wanted));
        paths.collect::<Result<_, _>>()?
    };
    let uids = args.uid.iter().map(|user| proc_fs::uid_of_user(user));
    let numbered = |wanted: &[Wanted]| {
        let uid_of = |user: &str| proc_fs::uid_of_user(user).ok();
        wanted.iter().map(|one| one.clone().with_uid(uid_of).value()).collect()
    };
    Ok(RecordingRequest {
        interval_ms: Some(interval_ms),
        follow: command.into_iter().chain(pids.into_iter().map(Follow::Pid)).collect(),
        cgroup: cgroups,
        comm: args.comm.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
        uid: uids.collect::<Result<_, _>>().context("--uid")?,
        job: numbered(&args.job),
        container: numbered(&args.container),
        pod: numbered(&args.pod),
        unit: numbered(&args.unit),
        tenant: numbered(&args.tenant),
        max_rows: Some(args.max_rows),
        phases: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(words: &[&str]) -> Box<TraceArgs> {
        match Cli::try_parse_from([&["dlpm", "trace"], words].concat())
            .unwrap()
            .command
        {
            Command::Trace(args) => args,
            _ => panic!("not a trace"),
        }
    }

    #[test]
    fn options_that_are_the_agents_are_named() {
        assert!(not_for_the_agent(&typed(&[]).machine).is_empty());
        let all = [
            "--energy-source",
            "perf",
            "--estimate",
            "idle=1,busy=1",
            "--idle-policy",
            "capacity",
            "--calibration",
            "/x",
            "--smt-weight",
            "0.6",
            "--gpu",
            "0",
            "--nvml-library",
            "/x",
            "--sysfs",
            "/x",
            "--procfs",
            "/x",
            "--rootfs",
            "/x",
            "--spill-entries",
            "7",
            "--process-entries",
            "7",
        ];
        let named = not_for_the_agent(&typed(&all).machine);
        let typed: Vec<&str> = all
            .into_iter()
            .filter(|word| word.len() > 2 && word.starts_with("--"))
            .collect();
        assert_eq!(named, typed);
    }

    #[test]
    fn filters_are_asked_for_as_they_were_typed() {
        let asked = request(&typed(&[
            "--job",
            "7",
            "--tenant",
            "unit:a.service",
            "--pod",
            "a/b",
            "--comm",
            "^py",
            "--uid",
            "0",
            "--",
            "true",
        ]))
        .unwrap();
        assert_eq!(asked.follow, [Follow::Children]);
        assert_eq!(
            (asked.job, asked.tenant, asked.pod),
            (
                vec!["7".to_owned()],
                vec!["unit:a.service".to_owned()],
                vec!["a/b".to_owned()]
            )
        );
        assert_eq!(
            (asked.comm, asked.uid, asked.interval_ms),
            (vec!["^py".to_owned()], vec![0], Some(1000))
        );
        for wrong in ["10ms", "150ms"] {
            let error = request(&typed(&["--interval", wrong])).unwrap_err().to_string();
            assert!(error.contains("--interval") && error.contains("sudo"), "{error}");
        }
    }
}
