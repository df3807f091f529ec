//! `dlpm agent`: an engine whose ledgers are counted tenant by tenant, for months.

mod book;
mod config;
mod files;
mod history;
mod memory;
mod privileges;
mod recordings;
mod served;

use std::{ffi::OsString, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use sd_notify::NotifyState;
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use tokio::time::{Instant, MissedTickBehavior};

use super::{prepare::Prepared, signals};
use crate::{
    attribution::{Options, selection::Selection},
    causes::told,
    cli::AgentArgs,
    engine::Engine,
    interval::Interval,
    sinks::{agent::keeper::Keeper, terminal::say},
    socket::Listener,
    sources::clock::monotonic_ns,
    web::{Bound, PushConfig, Server, WebConfig},
};
use book::{Book, Network};
use history::History;
use recordings::{Cut, Recordings};
use served::Served;

/// Length of the first interval: everything is there soon after the start.
const PRIMING: Duration = Duration::from_millis(100);

/// Meters are read at least this often, so that a counter's wrap is seen however long the interval is.
const METER_PERIOD: Duration = Duration::from_secs(30);

/// How long the end waits for the disk.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs the command; its errors are printed.
pub fn run(_: &AgentArgs) -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let result = config::read(&words).and_then(|args| {
        if args.check {
            return check(&args).map(|()| true);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the timer cannot be set up")?;
        runtime.block_on(agent(&args, &words))
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&told(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Looks at everything that an agent needs, and starts nothing.
fn check(args: &AgentArgs) -> Result<()> {
    let prepared = Prepared::of(&args.machine, true)?;
    files::check(&args.state_dir)?;
    Bound::check(&web_config(args))?;
    args.socket().map_or(Ok(()), Listener::check)?;
    if let Some(push) = push_config(args)? {
        push.check()?;
    }
    let notes = [&prepared.start_notes, &prepared.limits, &prepared.notes];
    for note in notes.into_iter().flatten() {
        say(&format!("note: {note}"));
    }
    say("the configuration can be used");
    Ok(())
}

/// Counts until a signal ends it. Whether everything was written.
async fn agent(args: &AgentArgs, words: &[OsString]) -> Result<bool> {
    memory::give_back();
    // As root: what can be wrong with a port or a certificate is told before anything is attached.
    let bound = Bound::bind(&web_config(args))?;
    let push = push_config(args)?;
    privileges::reduce().context("root's rights cannot be given up")?;
    let mut signals = signals::listen().context("signals cannot be listened to")?;
    let files = files::open(args)?;
    let listener = args.socket().map(Listener::bind).transpose()?;
    let mut prepared = Prepared::of(&args.machine, true)?;
    prepared.machine.tenant_memory = true;
    let notes = [&prepared.start_notes, &prepared.limits, &prepared.notes];
    for note in files.notes.iter().chain(notes.into_iter().flatten()) {
        say(&format!("note: {note}"));
    }
    let learns = prepared.idle.learns;
    let options = Options {
        selection: Selection::default(),
        max_rows: usize::MAX,
        smt_weight_permille: args.machine.smt_weight,
        idle_policy: prepared.idle.policy,
        idle_floors_mw: prepared.idle.floors_mw,
        weights: None,
    };
    let mut engine = Engine::<Cut>::start(&prepared.machine, prepared.cgroups, prepared.meter, prepared.gpus)?;
    let (identity, reason) = engine.machine().cpu_time().identity();
    if let Some(reason) = reason {
        say(&format!(
            "note: processes are told apart by pid alone ({identity:?}), without their start times: {reason}"
        ));
    }
    let keeper = Keeper::start(files.state, files.finished, files.place).context("no thread for the agent's state")?;
    let served = Arc::new(Served::new(keeper.slot(), args.interval));
    let history = History::start(args, &options, identity);
    let mut book = Book::new(
        args,
        options,
        learns,
        history,
        files.counters,
        engine.machine().cgroup_mount(),
    );
    let server = Server::start(bound, served.clone())?;
    let mut recordings = Recordings::start(
        listener,
        args,
        &prepared.notes,
        book.options(),
        &mut engine,
        served.clone(),
    )?;
    for address in server.addresses() {
        say(&format!("note: the counters are served at http://{address}/metrics"));
    }
    let pusher = push.map(|push| {
        say(&format!(
            "note: the counters are pushed to {} every {:?}",
            push.endpoint, push.interval
        ));
        Server::start_push(push, served.clone())
    });
    let pusher = pusher.transpose()?;
    tell_systemd(&[NotifyState::Ready]);
    let outside = Outside {
        keeper,
        served,
        server,
        pusher,
    };
    let counted = count(
        args,
        words,
        &mut engine,
        &mut book,
        &outside,
        &mut recordings,
        &mut signals,
    )
    .await;
    tell_systemd(&[NotifyState::Stopping]);
    // What was counted is written, whatever ended it.
    let last = recordings.seal(&mut engine, Cut { is_tick: true }, Vec::new());
    while let Some((interval, cut)) = engine.oldest() {
        take(interval, cut, &mut engine, &mut book, &recordings);
    }
    outside.publish(&mut book);
    drop((outside.pusher, outside.server));
    recordings.finish();
    book.end_history(PATIENCE);
    let written = outside.keeper.finish(PATIENCE);
    if !written {
        say(
            "warning: the newest counters could not be written; what they count after the last that were is unobserved",
        );
    }
    counted.and(last).map(|()| written)
}

/// Where snapshots go.
struct Outside {
    keeper: Keeper,
    served: Arc<Served>,
    server: Server,
    pusher: Option<Server>,
}

impl Outside {
    fn publish(&self, book: &mut Book) {
        let pusher = self.pusher.as_ref();
        let network = Network {
            restarts: self.server.restarts() + pusher.map_or(0, Server::restarts),
            pushes: pusher.and_then(Server::pushes),
        };
        book.publish(&self.keeper, &self.served, network);
    }
}

fn web_config(args: &AgentArgs) -> WebConfig {
    WebConfig {
        listen: args.listen.clone(),
        web_config: args.web_config.clone(),
        allow_open: args.allow_open,
    }
}

/// Where the counters are pushed to, if they are.
fn push_config(args: &AgentArgs) -> Result<Option<PushConfig>> {
    let Some(endpoint) = args.otlp.clone() else {
        if args.otlp_headers.is_some() || args.otlp_ca.is_some() {
            bail!(
                "otlp_headers and otlp_ca say how to push the counters, and nothing says where to: give otlp as well"
            );
        }
        return Ok(None);
    };
    Ok(Some(PushConfig {
        endpoint,
        interval: args.otlp_interval,
        headers: args.otlp_headers.clone(),
        authority: args.otlp_ca.clone(),
    }))
}

async fn count(
    args: &AgentArgs,
    words: &[OsString],
    engine: &mut Engine<Cut>,
    book: &mut Book,
    outside: &Outside,
    recordings: &mut Recordings,
    signals: &mut tokio::sync::mpsc::UnboundedReceiver<signals::Signal>,
) -> Result<()> {
    let (answered, everyone) = (engine.answered(), Selection::default());
    let start = Instant::now();
    let mut tick = ticks(start + PRIMING.min(args.interval), args.interval);
    let mut meters = ticks(start + METER_PERIOD, METER_PERIOD);
    // Names of containers are read while their files are there.
    let mut cgroups = engine.machine().cpu_time().cgroup_news()?;
    loop {
        tokio::select! {
            biased;
            Some(signal) = signals.recv() => match signal.number {
                SIGTERM | SIGINT | SIGQUIT => return Ok(()),
                SIGHUP => {
                    if let Ok(reloading) = NotifyState::monotonic_usec_now() {
                        tell_systemd(&[NotifyState::Reloading, reloading]);
                    }
                    reload(args, words, book, outside);
                    recordings.reload();
                    tell_systemd(&[NotifyState::Ready]);
                }
                _ => {}
            },
            _ = tick.tick() => {
                recordings.seal(engine, Cut { is_tick: true }, Vec::new())?;
                book.look_for_ends(engine, &outside.served, monotonic_ns());
                settle(engine, book, outside, recordings);
                tell_systemd(&[NotifyState::Watchdog]);
                let everyone = book.needs_memory().then_some(&everyone);
                let watched: Vec<&Selection> = recordings.watched().iter().chain(everyone).collect();
                engine.tidy(&watched)?;
            }
            asks = recordings.asks() => {
                recordings.obey(asks, engine)?;
                settle(engine, book, outside, recordings);
            }
            () = super::trace::settled(&answered, engine.due()) => settle(engine, book, outside, recordings),
            told = cgroups.due() => {
                told?;
                engine.machine().see_new_cgroups()?;
            }
            _ = meters.tick() => {
                engine.machine().poll_meters();
                tell_systemd(&[NotifyState::Watchdog]);
            }
        }
    }
}

/// Tells the service manager, if there is one.
fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("the service manager was not told: {error}");
    }
}

fn ticks(first: Instant, period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval_at(first, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// Counts the intervals whose GPUs have answered, or are not waited for any longer.
fn settle(engine: &mut Engine<Cut>, book: &mut Book, outside: &Outside, recordings: &Recordings) {
    let mut is_new = false;
    while let Some((interval, cut)) = engine.ready() {
        is_new |= take(interval, cut, engine, book, recordings);
    }
    if is_new {
        recordings.attribute_by(book.options());
        outside.publish(book);
    }
}

/// Hands an interval on. Whether anything was counted: borders that recordings asked for do not split what is counted.
fn take(interval: Interval, cut: Cut, engine: &mut Engine<Cut>, book: &mut Book, recordings: &Recordings) -> bool {
    let interval = Arc::new(interval);
    recordings.tell(&interval);
    book.take(interval, cut.is_tick, engine)
}

/// Reads the configuration again, and says what a restart would change.
fn reload(args: &AgentArgs, words: &[OsString], book: &mut Book, outside: &Outside) {
    let new = match config::read(words) {
        Ok(new) => new,
        Err(error) => return say(&format!("warning: nothing was reloaded: {}", told(error.as_ref()))),
    };
    book.change(&new);
    let servers = [
        (Some(&outside.server), "TLS and passwords"),
        (outside.pusher.as_ref(), "what otlp_headers and otlp_ca name"),
    ];
    for (server, what) in servers {
        if let Some(Err(error)) = server.map(Server::reload) {
            say(&format!("warning: {what} stay as they were: {}", told(error.as_ref())));
        }
    }
    let same = |one: &dyn std::fmt::Debug, other: &dyn std::fmt::Debug| format!("{one:?}") == format!("{other:?}");
    let fixed = [
        ("interval", args.interval == new.interval),
        ("listen", args.listen == new.listen),
        ("web_config", args.web_config == new.web_config),
        ("allow_open", args.allow_open == new.allow_open),
        ("socket", args.socket == new.socket),
        ("otlp", args.otlp == new.otlp),
        ("otlp_interval", args.otlp_interval == new.otlp_interval),
        ("otlp_headers", args.otlp_headers == new.otlp_headers),
        ("otlp_ca", args.otlp_ca == new.otlp_ca),
        ("state_dir", args.state_dir == new.state_dir),
        ("finished_size", args.finished_size == new.finished_size),
        ("history_interval", args.history_interval == new.history_interval),
        ("history_size", args.history_size == new.history_size),
        ("history_days", args.history_days == new.history_days),
        ("how energy is read and split", same(&args.machine, &new.machine)),
    ];
    let waits: Vec<&str> = fixed
        .iter()
        .filter(|(_, is_same)| !is_same)
        .map(|(what, _)| *what)
        .collect();
    match waits.as_slice() {
        [] => say("note: the configuration was reloaded"),
        waits => say(&format!(
            "note: the configuration was reloaded; these changes need a restart: {}",
            waits.join(", ")
        )),
    }
}
