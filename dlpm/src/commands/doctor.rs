//! `dlpm doctor`: what works here, and what to do about what does not.

mod energy;

use std::{collections::BTreeMap, fmt::Write as _, os::unix::net::UnixStream, process::ExitCode};

use crate::{
    cli::{DoctorArgs, Roots},
    interval::Identity,
    sinks::terminal::{print, say},
    socket,
    sources::{
        cgroups::CgroupTree,
        cpu_time::{Config, CpuTime},
        events::{self, EventName},
        gpu::{GpuOptions, Gpus},
        host::HostFacts,
        memory::machine_memory,
        topology::Topology,
    },
};

/// How one thing is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    /// It works without, with less.
    Missing,
    /// Nothing works without.
    Broken,
}

struct Finding {
    state: State,
    what: String,
    details: String,
}

/// Looks at everything that a trace needs.
pub fn run(args: &DoctorArgs) -> ExitCode {
    let mut findings = examine(&args.roots, &args.gpus.options(&args.roots));
    let has_agent = UnixStream::connect(socket::DEFAULT_PATH).is_ok();
    findings.push(agent(has_agent));
    let mut text = String::new();
    for Finding { state, what, details } in &findings {
        let word = match state {
            State::Ok => "ok",
            State::Missing => "missing",
            State::Broken => "BROKEN",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{word:8} {what:22} {details}");
    }
    let broken = findings.iter().any(|finding| finding.state == State::Broken);
    text.push_str(match (broken, has_agent) {
        (true, true) => {
            "\ndlpm cannot trace here by itself (see what is BROKEN); the agent measures your own processes.\n"
        }
        (true, false) => "\ndlpm cannot trace here: see what is BROKEN.\n",
        (false, _) => "\ndlpm can trace CPU time here.\n",
    });
    match print(&text) {
        Ok(()) => ExitCode::from(u8::from(broken && !has_agent)),
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Whether users who are not root can measure.
fn agent(is_there: bool) -> Finding {
    let path = socket::DEFAULT_PATH;
    Finding {
        state: if is_there { State::Ok } else { State::Missing },
        what: "agent".to_owned(),
        details: if is_there {
            format!("it listens at {path}: every user can measure their own processes")
        } else {
            format!("none listens at {path}: only root can measure; `dlpm agent --help` says how to start one")
        },
    }
}

fn examine(roots: &Roots, gpus: &GpuOptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |state, what: &str, details: String| {
        findings.push(Finding {
            state,
            what: what.to_owned(),
            details,
        });
    };

    let host = HostFacts::read(&roots.procfs, &roots.sysfs);
    let errors = host.errors();
    add(
        State::Ok,
        "kernel",
        host.kernel_release.clone().unwrap_or_else(|| "unknown".to_owned()),
    );
    for error in &errors {
        add(State::Broken, "host", error.to_string());
    }
    for limit in host.limits() {
        add(State::Missing, "host", limit);
    }

    let topology = Topology::read(&roots.sysfs);
    let siblings = topology.siblings();
    add(
        State::Ok,
        "topology",
        format!(
            "{} CPUs online, {} cores with two hardware threads",
            topology.online_cpus().len(),
            siblings.len()
        ),
    );
    if topology.more_than_two_threads() {
        add(
            State::Missing,
            "topology",
            "cores with more than two hardware threads: their threads count as whole cores".to_owned(),
        );
    }
    for note in topology.notes() {
        add(State::Missing, "topology", note.clone());
    }

    if errors.is_empty() {
        match CpuTime::start(&Config {
            siblings,
            ..Config::default()
        }) {
            Ok(mut cpu_time) => add_cpu_time(&mut cpu_time, &mut add),
            Err(error) => add(State::Broken, "CPU time", error.to_string()),
        }
    }

    if errors.is_empty() {
        add_events(roots, &mut add);
    }

    energy::add_energy(roots, &topology, &mut add);

    add_gpus(gpus, &mut add);

    match CgroupTree::find(&roots.procfs) {
        Ok(tree) if tree.mount_root() == "/" => {
            add(
                State::Ok,
                "cgroups",
                format!("version 2 at {}", tree.mount_point().display()),
            );
        }
        Ok(tree) => add(
            State::Missing,
            "cgroups",
            format!(
                "{} shows only {} of the tree: other cgroups have no name",
                tree.mount_point().display(),
                tree.mount_root()
            ),
        ),
        Err(error) => add(State::Broken, "cgroups", error.to_string()),
    }

    match machine_memory(&roots.procfs) {
        Some(memory) => add(State::Ok, "memory", format!("{} MiB", memory.total_bytes >> 20)),
        None => add(
            State::Missing,
            "memory",
            format!(
                "{} cannot be read: energy of dram is not split; is /proc mounted?",
                roots.procfs.join("meminfo").display()
            ),
        ),
    }
    findings
}

fn add_gpus(options: &GpuOptions, add: &mut impl FnMut(State, &str, String)) {
    let mut gpus = match Gpus::start(options) {
        Ok(gpus) => gpus,
        Err(error) => return add(State::Missing, "GPU", error.to_string()),
    };
    for note in gpus.notes() {
        add(State::Missing, "GPU", note.clone());
    }
    for gpu in gpus.drm().describe() {
        add(State::Ok, "GPU", format!("{gpu}; split by engine time"));
    }
    let readings = gpus.examine();
    for (gpu, reading) in gpus.describe().into_iter().zip(readings) {
        for note in &reading.notes {
            add(
                State::Missing,
                "GPU",
                format!("{} {}: {note}", reading.index, reading.uuid),
            );
        }
        match (&reading.energy_uj, &reading.sm_time, &reading.lists) {
            (Err(reason), _, _) => add(State::Missing, "GPU", format!("{gpu}: {reason}")),
            (_, Ok(()), Ok(())) => add(State::Ok, "GPU", format!("{gpu}: moves, and is split by SM time")),
            (_, Err(reason), _) | (_, _, Err(reason)) => {
                add(
                    State::Missing,
                    "GPU",
                    format!("{gpu}: its energy is known, but how processes share it is not: {reason}"),
                );
            }
        }
    }
}

/// What `--counters` could count.
fn add_events(roots: &Roots, add: &mut impl FnMut(State, &str, String)) {
    let opened = events::open(&roots.sysfs, &EventName::defaults());
    let names: Vec<&str> = opened.events.iter().map(|event| event.name.as_str()).collect();
    if !names.is_empty() {
        let kinds = match opened.is_hybrid {
            true => "; nothing can be split by them, since the cores are of two kinds",
            false => "",
        };
        add(
            State::Ok,
            "perf events",
            format!("{} can be counted with --counters{kinds}", names.join(", ")),
        );
    }
    // Mostly they lack for one reason.
    let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, reason) in opened.missing {
        by_reason.entry(reason).or_default().push(name);
    }
    for (reason, names) in by_reason {
        add(
            State::Missing,
            "perf events",
            format!("{} cannot be counted with --counters: {reason}", names.join(", ")),
        );
    }
}

fn add_cpu_time(cpu_time: &mut CpuTime, add: &mut impl FnMut(State, &str, String)) {
    let sealed = cpu_time.seal().and_then(|first| {
        let _ = cpu_time.drain(&first)?;
        cpu_time.seal()
    });
    match sealed.and_then(|sealed| Ok((sealed.seal_ns, cpu_time.drain(&sealed)?))) {
        Ok((seal_ns, drained)) if drained.cpus.iter().all(|cpu| cpu.time_law_holds()) => add(
            State::Ok,
            "CPU time",
            format!(
                "exact on {} CPUs; sealing them takes {} µs",
                drained.cpus.len(),
                seal_ns / 1000
            ),
        ),
        Ok(_) => add(
            State::Broken,
            "CPU time",
            "the time of a CPU does not add up to its interval: please report this with the kernel's version"
                .to_owned(),
        ),
        Err(error) => add(State::Broken, "CPU time", error.to_string()),
    }
    match cpu_time.identity() {
        (Identity::StartTime, _) => {
            add(
                State::Ok,
                "identity",
                "processes are distinguished by pid and start time".to_owned(),
            );
        }
        (Identity::Tgid, reason) => add(
            State::Missing,
            "identity",
            format!(
                "processes are distinguished by pid alone: {}",
                reason.unwrap_or("no start times")
            ),
        ),
    }
    for hook in cpu_time.hooks() {
        let what = format!("hook {}", hook.tracepoint);
        match &hook.state {
            Ok(()) => add(State::Ok, &what, hook.purpose.to_owned()),
            Err(reason) => add(State::Missing, &what, format!("{}: {reason}", hook.purpose)),
        }
    }
}
