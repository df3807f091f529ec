//! `dlpm trace`: from the command line to a log.

mod control;
pub mod idle;
mod setup;
mod tracer;
mod warnings;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    process::Child,
    sync::{Notify, mpsc},
    time::{Instant, MissedTickBehavior},
};

use super::{
    child::{self, CommandError},
    signals::{self, Action, Signal},
};
use crate::{causes::told, cli::TraceArgs, sinks::terminal::say};
use control::{Control, Mark};
use tracer::Tracer;

/// Length of the first interval. AIPowerMeter's reader loses the first one of a segment, so it is short.
const PRIMING: Duration = Duration::from_millis(100);

/// Meters are read at least this often, so that a counter's wrap is seen however long the interval is.
const METER_PERIOD: Duration = Duration::from_secs(30);

/// New cgroups are seen at least this often, so that the names of containers are read while their files are there.
const CGROUP_PERIOD: Duration = Duration::from_millis(100);

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
    let plan = setup::plan(args)?;
    let mut signals = signals::listen().context("signals cannot be listened to")?;
    let (caller, folder) = (plan.caller.clone(), plan.folder.clone());
    let mut tracer = Tracer::start(plan)?;
    if let Some(model) = model
        && let Err(error) = super::model::write(&model, &folder, caller.as_ref())
    {
        tracer.mute();
        tracer.finish()?;
        return Err(error);
    }
    let control = tracer
        .take_socket()
        .map(|socket| Control::start(socket, &folder, caller.as_ref()));
    let mut control = match control {
        Some(Err(error)) => {
            tracer.note(format!("phases cannot be marked, as there is no socket: {error}"));
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
                tracer.follow(&child);
                command = Some(child);
            }
            Err(error) => {
                tracer.mute();
                tracer.finish()?;
                return Err(error);
            }
        }
    }
    let ended = run_until_end(args, &mut tracer, command.as_mut(), &mut signals, control.as_mut()).await;
    if let Some(control) = control {
        control.close().await;
    }
    // Whatever ended it: what was measured is written and shown.
    let finished = tracer.finish();
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
    tracer: &mut Tracer,
    mut command: Option<&mut Child>,
    signals: &mut mpsc::UnboundedReceiver<Signal>,
    mut control: Option<&mut Control>,
) -> Result<End> {
    let answered = tracer.answered();
    let start = Instant::now();
    let mut tick = tokio::time::interval_at(start + PRIMING.min(args.interval), args.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut meters = tokio::time::interval_at(start + METER_PERIOD, METER_PERIOD);
    meters.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // A shorter interval sees them itself.
    let names_matter = args.interval > CGROUP_PERIOD && args.by_name();
    let mut cgroups = tokio::time::interval_at(start + CGROUP_PERIOD, CGROUP_PERIOD);
    cgroups.set_missed_tick_behavior(MissedTickBehavior::Skip);
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
            marks = marks(control.as_deref_mut()) => tracer.mark(marks)?,
            _ = tick.tick() => tracer.step()?,
            () = settled(&answered, tracer.due()) => tracer.settle()?,
            _ = cgroups.tick(), if names_matter => tracer.see_new_cgroups()?,
            _ = meters.tick() => tracer.poll_meters(),
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

/// Waits for the answer of a GPU, if any is waited for.
pub async fn settled(answered: &Notify, due: Option<std::time::Instant>) {
    match due {
        // Answered or not: whoever called looks what is there.
        Some(due) => drop(tokio::time::timeout_at(due.into(), answered.notified()).await),
        None => std::future::pending().await,
    }
}

async fn reached(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
