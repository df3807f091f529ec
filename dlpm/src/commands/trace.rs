//! `dlpm trace`: from the command line to a log.

pub mod asked;
mod control;
pub mod idle;
mod journal;
mod measurement;
mod remote;
mod setup;
mod tracer;
mod warnings;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use tokio::{process::Child, sync::mpsc, time::Instant};

use super::{
    child::{self, CommandError},
    signals::{self, Action, Signal},
};
use dlpm_model::Summary;

use crate::{
    causes::told,
    cli::{MachineArgs, TraceArgs},
    sinks::terminal::say,
    socket,
    sources::host::HostFacts,
};
use control::{Control, Mark};
use measurement::Measurement;
use remote::Remote;
pub use remote::missing;
use tracer::Tracer;
pub use tracer::{METER_PERIOD, settled};

/// Runs the command; its errors are printed.
pub fn run(args: &TraceArgs) -> ExitCode {
    let failed = if args.command.is_empty() { 1 } else { child::FAILED };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let traced = runtime
        .context("the timer cannot be set up")
        .and_then(|runtime| runtime.block_on(trace(args)));
    traced.map_or_else(
        |error| {
            say(&told(error.as_ref()));
            ExitCode::from(error.downcast_ref().map_or(failed, CommandError::exit_code))
        },
        ExitCode::from,
    )
}

/// Traces until something ends it. The exit status.
async fn trace(args: &TraceArgs) -> Result<u8> {
    let program = args.command.first().map(|name| child::find(name)).transpose()?;
    let model = super::model::of_trace(&args.model)?;
    match agent(args) {
        Some(socket) => {
            let start = async |_: &TraceArgs| Remote::start(args, &socket).await;
            follow_through(args, program, model, start).await
        }
        None => follow_through(args, program, model, async |args| Tracer::start(setup::plan(args)?)).await,
    }
}

/// The socket of the agent that measures, where dlpm does not do so itself.
fn agent(args: &TraceArgs) -> Option<PathBuf> {
    args.agent
        .clone()
        .or_else(|| agent_measures(&args.machine).then(|| PathBuf::from(socket::DEFAULT_PATH)))
}

/// Whether only an agent could measure for this user.
pub fn agent_measures(args: &MachineArgs) -> bool {
    let may_load = || HostFacts::read(&args.roots.procfs, &args.roots.sysfs).may_load_programs();
    !rustix::process::geteuid().is_root() && may_load() == Some(false)
}

/// The whole life of a trace.
async fn follow_through<M: Measurement>(
    args: &TraceArgs,
    program: Option<PathBuf>,
    model: Option<Summary>,
    start: impl AsyncFnOnce(&TraceArgs) -> Result<M>,
) -> Result<u8> {
    let mut signals = signals::listen().context("signals cannot be listened to")?;
    let mut trace = start(args).await?;
    let (caller, folder) = (trace.journal().caller(), trace.journal().folder());
    if let Some(model) = model
        && let Err(error) = super::model::write(&model, &folder, caller.as_ref())
    {
        trace.journal().mute();
        trace.finish().await?;
        return Err(error);
    }
    let control = trace
        .journal()
        .take_socket()
        .map(|socket| Control::start(socket, &folder, caller.as_ref()));
    let mut control = match control {
        Some(Err(error)) => {
            let note = format!("phases cannot be marked, as there is no socket: {error}");
            trace.journal().note(note);
            None
        }
        Some(Ok(control)) => Some(control),
        None => None,
    };

    let mut command = None;
    if let Some(program) = program {
        let user = caller.as_ref().filter(|_| !args.as_root);
        match child::spawn(&program, &args.command, user, control.as_ref().map(Control::path)) {
            Ok(child) => {
                trace.follow(&child);
                command = Some(child);
            }
            Err(error) => {
                trace.journal().mute();
                trace.finish().await?;
                return Err(error);
            }
        }
    }
    let ended = run_until_end(args, &mut trace, command.as_mut(), &mut signals, control.as_mut()).await;
    if let Some(control) = control {
        control.close().await;
    }
    // Whatever ended it: what was measured is written and shown.
    let finished = trace.finish().await;
    let status = match (&ended, command) {
        (Ok(End::Command(status)), _) => *status,
        (_, Some(mut child)) => wait(&mut child, &mut signals).await?,
        (_, None) => 0,
    };
    ended?;
    let complete = finished?;
    Ok(if complete || !args.command.is_empty() && status != 0 {
        status
    } else if args.command.is_empty() {
        1
    } else {
        child::FAILED
    })
}

/// What ended a trace.
enum End {
    /// Its time, or a signal.
    Asked,
    /// The command, with this status.
    Command(u8),
}

async fn run_until_end(
    args: &TraceArgs,
    trace: &mut impl Measurement,
    mut command: Option<&mut Child>,
    signals: &mut mpsc::UnboundedReceiver<Signal>,
    mut control: Option<&mut Control>,
) -> Result<End> {
    let start = Instant::now();
    let end = args.duration.map(|duration| start + duration);
    loop {
        tokio::select! {
            // In this order: an end that is due comes before one more interval.
            biased;
            status = ended(command.as_deref_mut()) => return Ok(End::Command(child::exit_code(status?))),
            () = reached(end) => return Ok(End::Asked),
            Some(signal) = signals.recv() => {
                if obey(signal, command.as_deref()) {
                    return Ok(End::Asked);
                }
            }
            marks = marks(control.as_deref_mut()) => trace.mark(marks).await?,
            done = trace.go_on() => done?,
        }
    }
}

/// Waits for a command that outlives its trace.
async fn wait(child: &mut Child, signals: &mut mpsc::UnboundedReceiver<Signal>) -> Result<u8> {
    loop {
        tokio::select! {
            biased;
            status = ended(Some(&mut *child)) => return Ok(child::exit_code(status?)),
            // The trace has ended already.
            Some(signal) = signals.recv() => drop(obey(signal, Some(&*child))),
        }
    }
}

/// Does what a signal asks for; whether it ends the trace.
fn obey(signal: Signal, command: Option<&Child>) -> bool {
    let action = signal.action(command.is_some());
    let passes = matches!(action, Action::PassOn | Action::PassOnAndStop);
    if passes
        && let Some(child) = command
        && let Err(error) = child::forward(child, signal.number)
    {
        say(&format!(
            "warning: {} was not passed on to the command: {error}",
            signal.name()
        ));
    }
    match action {
        Action::Stop | Action::PassOnAndStop => {
            if let Err(error) = signals::stop() {
                log::warn!("dlpm cannot be stopped: {error}");
            }
        }
        Action::End if command.is_some() => say(&format!(
            "warning: the kernel sent {} to dlpm itself: the trace ends here, and the command runs on",
            signal.name()
        )),
        Action::End | Action::PassOn | Action::Nothing => {}
    }
    action == Action::End
}

async fn ended(child: Option<&mut Child>) -> Result<std::process::ExitStatus> {
    match child {
        Some(child) => child.wait().await.context("the traced command cannot be waited for"),
        None => std::future::pending().await,
    }
}

async fn marks(control: Option<&mut Control>) -> Vec<Mark> {
    match control {
        Some(control) => control.marks().await,
        None => std::future::pending().await,
    }
}

async fn reached(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
