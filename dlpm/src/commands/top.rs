//! `dlpm top`: who draws how much now, from the agent's socket or from an engine of its own.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    prepare::Prepared,
    signals::{self, Action},
    trace::{agent_measures, asked, missing},
};
use crate::{
    attribution::{Options, attribute, energy_tree::Carries, ledger::Ledger, selection::Selection},
    causes::told,
    cli::TopArgs,
    engine::Engine,
    log::{LogLine, entry},
    printable::printable,
    sinks::{
        screen::{Heard, Screen},
        terminal::{print, say},
    },
    socket::{
        self,
        client::{Client, Lines},
        wire::RecordingRequest,
    },
    top::{App, Colours, Flow, Key, draw, json, plain},
};

/// Columns of a frame that goes to a file.
const COLUMNS: u16 = 100;

/// How long an agent that is gone is waited for.
const RETRY: Duration = Duration::from_secs(1);

/// Runs the command; its errors are printed.
pub fn run(args: &TopArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime
        .context("the timer cannot be set up")
        .and_then(|runtime| runtime.block_on(top(args)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&told(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn top(args: &TopArgs) -> Result<()> {
    let mut app = App::default();
    let mut source = Source::start(args, &mut app).await?;
    if args.batch {
        return batch(args, &mut app, &mut source).await;
    }
    let (mut screen, mut heard) =
        Screen::take().context("there is no screen to draw on: `dlpm top -b` prints frames instead")?;
    let mut signals = signals::listen().context("signals cannot be listened to")?;
    // https://no-color.org
    let colours = match std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        true => Colours::None,
        false => Colours::Few,
    };
    let mut shown = 0;
    loop {
        screen
            .draw(|frame| draw(frame, &app, colours))
            .context("the terminal has gone away")?;
        tokio::select! {
            biased;
            Some(signal) = signals.recv() => match signal.action(false) {
                Action::Stop | Action::PassOnAndStop => {
                    screen.leave();
                    signals::stop().context("dlpm cannot be stopped")?;
                    screen.enter()?;
                }
                Action::End => return Ok(()),
                Action::PassOn | Action::Nothing => {}
            },
            Some(heard) = heard.recv() => {
                if let Heard::Key(key) = heard {
                    if key.code == KeyCode::Char('z') && key.modifiers.contains(KeyModifiers::CONTROL) {
                        screen.leave();
                        signals::stop().context("dlpm cannot be stopped")?;
                        screen.enter()?;
                    } else if let Some(key) = pressed(key)
                        && app.press(key) == Flow::Quit
                    {
                        return Ok(());
                    }
                }
            }
            next = source.next() => {
                shown += u64::from(take(next?, &mut app));
                if args.frames.is_some_and(|frames| shown >= frames) {
                    return Ok(());
                }
            }
        }
    }
}

async fn batch(args: &TopArgs, app: &mut App, source: &mut Source) -> Result<()> {
    let mut shown = 0;
    while args.frames.is_none_or(|frames| shown < frames) {
        if !take(source.next().await?, app) {
            continue;
        }
        let frame = if args.json {
            json(app)
        } else {
            plain(app, COLUMNS) + "\n"
        };
        print(&frame)?;
        shown += 1;
    }
    Ok(())
}

/// What a source tells.
enum Next {
    /// An interval.
    Ledger(Box<Ledger>),
    /// What is wrong, or is no longer.
    Trouble(Option<String>),
    /// Nothing that is shown.
    Nothing,
}

/// Whether there is a new frame.
fn take(next: Next, app: &mut App) -> bool {
    match next {
        Next::Ledger(ledger) => {
            app.tally.add(&ledger);
            app.trouble = None;
            true
        }
        Next::Trouble(trouble) => {
            app.trouble = trouble;
            false
        }
        Next::Nothing => false,
    }
}

/// Who measures.
enum Source {
    Agent(Box<Agent>),
    Own(Box<Own>),
}

struct Agent {
    client: Client,
    request: RecordingRequest,
    lines: Option<Lines>,
}

struct Own {
    engine: Engine<()>,
    options: Options,
    carries: Carries,
    tick: tokio::time::Interval,
    meters: tokio::time::Interval,
}

impl Source {
    async fn start(args: &TopArgs, app: &mut App) -> Result<Self> {
        match agent(args) {
            Some(socket) => Self::of_agent(args, &socket, app).await,
            None => Self::own(args, app),
        }
    }

    async fn of_agent(args: &TopArgs, socket: &Path, app: &mut App) -> Result<Self> {
        let client = Client::new(socket);
        client.look().await.map_err(|error| missing(error, socket))?;
        let not_ours = asked::not_for_the_agent(&args.machine);
        if !not_ours.is_empty() {
            bail!(
                "{} cannot be chosen here, as the agent measures for everybody: leave it out, or stop the agent and run \
                 dlpm top as root",
                not_ours.join(", ")
            );
        }
        let request = RecordingRequest {
            interval_ms: Some(asked::interval_ms(args.interval)?),
            ..RecordingRequest::default()
        };
        let (facts, lines) = client.record(&request).await?;
        app.node = printable(&facts.machine.node_id);
        Ok(Self::Agent(Box::new(Agent {
            client,
            request,
            lines: Some(lines),
        })))
    }

    fn own(args: &TopArgs, app: &mut App) -> Result<Self> {
        let prepared = Prepared::of(&args.machine, true)?;
        app.node = printable(&rustix::system::uname().nodename().to_string_lossy());
        let engine = Engine::start(&prepared.machine, prepared.cgroups, prepared.meter, prepared.gpus)?;
        let options = Options {
            selection: Selection::default(),
            max_rows: usize::MAX,
            smt_weight_permille: args.machine.smt_weight,
            idle_policy: prepared.idle.policy,
            idle_floors_mw: prepared.idle.floors_mw,
            weights: None,
        };
        let ticks = |period| {
            let mut ticks = tokio::time::interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks
        };
        Ok(Self::Own(Box::new(Own {
            engine,
            options,
            carries: Carries::default(),
            tick: ticks(args.interval),
            meters: ticks(super::trace::METER_PERIOD),
        })))
    }

    /// Waits for what happens next. Loses nothing if it is dropped.
    async fn next(&mut self) -> Result<Next> {
        match self {
            Self::Agent(agent) => agent.next().await,
            Self::Own(own) => own.next().await,
        }
    }
}

/// The socket of the agent that measures: the one that was named, or the usual one if somebody listens there or dlpm could
/// not measure by itself.
fn agent(args: &TopArgs) -> Option<PathBuf> {
    args.agent.clone().or_else(|| {
        let usual = Path::new(socket::DEFAULT_PATH);
        let is_free = asked::not_for_the_agent(&args.machine).is_empty();
        let is_there = is_free && std::os::unix::net::UnixStream::connect(usual).is_ok();
        (is_there || agent_measures(&args.machine)).then(|| usual.to_owned())
    })
}

impl Agent {
    async fn next(&mut self) -> Result<Next> {
        let Some(lines) = &mut self.lines else {
            tokio::time::sleep(RETRY).await;
            return Ok(match self.client.record(&self.request).await {
                Ok((_, lines)) => {
                    self.lines = Some(lines);
                    Next::Trouble(None)
                }
                Err(_) => Next::Nothing,
            });
        };
        let lost = match lines.next().await {
            Ok(Some(line)) => match entry::read(&line, &jiff::tz::TimeZone::UTC) {
                Ok(LogLine::Interval(interval)) => return Ok(Next::Ledger(Box::new(interval.ledger))),
                _ => return Ok(Next::Nothing),
            },
            Ok(None) => "the agent has ended".to_owned(),
            Err(error) => printable(&error.to_string()),
        };
        self.lines = None;
        Ok(Next::Trouble(Some(lost)))
    }
}

impl Own {
    async fn next(&mut self) -> Result<Next> {
        let answered = self.engine.answered();
        if let Some((interval, ())) = self.engine.ready() {
            let ledger = attribute(&interval, &self.options, &self.carries);
            self.carries = self.carries.after(&ledger);
            return Ok(Next::Ledger(Box::new(ledger)));
        }
        tokio::select! {
            biased;
            _ = self.tick.tick() => {
                self.engine.seal((), |_| {})?;
                self.engine.tidy(&[&self.options.selection])?;
            }
            () = super::trace::settled(&answered, self.engine.due()) => {}
            _ = self.meters.tick() => self.engine.machine().poll_meters(),
        }
        Ok(Next::Nothing)
    }
}

/// What a key means here.
fn pressed(key: KeyEvent) -> Option<Key> {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c') if is_control => Key::Interrupt,
        KeyCode::Char(character) if !is_control => Key::Char(character),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}
